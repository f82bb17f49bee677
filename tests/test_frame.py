"""Frames as objects, the rules that judge them, and the payload of close frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from frame_table import (
    CLOSES,
    KEY,
    RESERVED_OPCODES,
    ROWS,
    SENDABLE_CODES,
    VALID_OPCODES,
    CloseRow,
    Row,
)
from offence_table import (
    CLOSE_OFFENCES,
    FORBIDDEN_CODES,
    FRAGMENTED,
    MASKED,
    NOT_MASKED,
    NOT_SHORTEST,
    RSV1_SET,
    RSV23_SET,
    TOO_LONG,
    TOP_BIT,
    CloseOffence,
    Verdict,
    verdict_on,
)

from websocket.errors import InvalidOpcode, ProtocolError
from websocket.frame import (
    Frame,
    build_close,
    judge_control,
    judge_extended_length,
    judge_head,
    judge_masking,
    parse_close,
)
from websocket.opcodes import Opcode


def verdict_of(judge: Callable[..., object], *args: Any, **options: Any) -> Verdict | None:
    """Return what a judge says, None for nothing."""
    try:
        judge(*args, **options)
    except ProtocolError as error:
        return verdict_on(error)
    return None


# --- the rules --------------------------------------------------------------------------------


def head_by_the_rfc(head: int, rsv1_is_allowed: bool) -> Verdict | None:
    """Judge a first octet, in the order in which the rules stand in the RFC."""
    opcode = head % 16
    if head // 16 % 4:
        return RSV23_SET
    if head // 64 % 2 and not (rsv1_is_allowed and opcode in (1, 2)):
        return RSV1_SET
    if opcode in RESERVED_OPCODES:
        return Verdict(InvalidOpcode, f"opcode {opcode} is reserved")
    assert opcode in VALID_OPCODES
    return None


@pytest.mark.parametrize("rsv1_is_allowed", [False, True])
def test_every_first_octet(rsv1_is_allowed: bool) -> None:
    """H46, H47, H80, H82."""
    for head in range(256):
        verdict = verdict_of(judge_head, head, rsv1_is_allowed=rsv1_is_allowed)
        assert verdict == head_by_the_rfc(head, rsv1_is_allowed), hex(head)


@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_the_form_of_control_frames(opcode: int) -> None:
    """H48."""
    for length in (0, 1, 125):
        assert verdict_of(judge_control, 0x80 | opcode, length) is None
    for length in (126, 127, 65536):
        assert verdict_of(judge_control, 0x80 | opcode, length) == TOO_LONG
    for length in (0, 125, 126):
        assert verdict_of(judge_control, opcode, length) == FRAGMENTED


def test_a_client_must_mask_and_a_server_must_not() -> None:
    """H45."""
    assert verdict_of(judge_masking, True, must_be_masked=True) is None
    assert verdict_of(judge_masking, False, must_be_masked=False) is None
    assert verdict_of(judge_masking, False, must_be_masked=True) == NOT_MASKED
    assert verdict_of(judge_masking, True, must_be_masked=False) == MASKED


@pytest.mark.parametrize(
    ("field", "length", "verdict"),
    [
        (126, 0, NOT_SHORTEST),
        (126, 125, NOT_SHORTEST),
        (126, 126, None),
        (126, 65535, None),
        (127, 0, NOT_SHORTEST),
        (127, 125, NOT_SHORTEST),
        (127, 126, NOT_SHORTEST),
        (127, 65535, NOT_SHORTEST),
        (127, 65536, None),
        (127, 2**63 - 1, None),
        (127, 2**63, TOP_BIT),
        (127, 2**64 - 1, TOP_BIT),
    ],
)
def test_the_form_of_extended_lengths(field: int, length: int, verdict: Verdict | None) -> None:
    """H52, H55."""
    assert verdict_of(judge_extended_length, field, length) == verdict


# --- frames as objects --------------------------------------------------------------------------


def test_every_first_octet_makes_a_frame_and_comes_back() -> None:
    for head in range(256):
        frame = Frame.from_head(head, b"x")
        assert frame.head == head
        flags = (frame.fin, frame.rsv1, frame.rsv2, frame.rsv3)
        assert flags == tuple(bool(head & bit) for bit in (0x80, 0x40, 0x20, 0x10))
        assert frame.opcode == head & 0x0F


def test_a_frame_is_final_unmasked_and_empty_unless_told_otherwise() -> None:
    frame = Frame(Opcode.PING)
    assert (frame.head, frame.payload, frame.mask, frame.masked) == (0x89, b"", None, False)


def test_a_frame_with_a_masking_key_is_masked() -> None:
    assert Frame(Opcode.TEXT, b"hi", mask=KEY).masked
    assert Frame.from_head(0x81, b"hi", KEY).mask == KEY


def test_frames_are_equal_when_all_their_fields_are() -> None:
    frame = Frame(Opcode.TEXT, b"hi", mask=KEY)
    assert frame == Frame(Opcode.TEXT, b"hi", mask=KEY)
    assert frame != Frame(Opcode.BINARY, b"hi", mask=KEY)
    assert frame != Frame(Opcode.TEXT, b"ho", mask=KEY)
    assert frame != Frame(Opcode.TEXT, b"hi")
    assert frame != Frame(Opcode.TEXT, b"hi", mask=KEY, fin=False)
    assert frame != Frame(Opcode.TEXT, b"hi", mask=KEY, rsv1=True)
    assert frame != "a frame"


def test_a_frame_cannot_be_hashed() -> None:
    with pytest.raises(TypeError):
        hash(Frame(Opcode.TEXT))


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Frame(Opcode.TEXT, b"hello"), "<Frame TEXT fin 5 bytes>"),
        (Frame(Opcode.CONTINUATION, fin=False), "<Frame CONTINUATION 0 bytes>"),
        (Frame(Opcode.PING, b"x", mask=KEY), "<Frame PING fin masked 1 bytes>"),
        (
            Frame(11, rsv1=True, rsv2=True, rsv3=True),
            "<Frame opcode 11 fin rsv1 rsv2 rsv3 0 bytes>",
        ),
    ],
)
def test_a_frame_reads_well_in_a_log(frame: Frame, text: str) -> None:
    assert repr(frame) == text


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_may_be_sent_is_valid(row: Row) -> None:
    for header, payload in row.frames:
        frame = Frame.from_head(bytes.fromhex(header)[0], payload)
        if frame.opcode != Opcode.CLOSE or len(payload) == 2:
            assert verdict_of(frame.validate) is None


@pytest.mark.parametrize(
    ("frame", "verdict"),
    [
        (Frame(3), Verdict(InvalidOpcode, "opcode 3 is reserved")),
        (Frame(Opcode.TEXT, rsv1=True), RSV1_SET),
        (Frame(Opcode.PING, b"x" * 126), TOO_LONG),
        (Frame(Opcode.CLOSE, fin=False), FRAGMENTED),
    ],
)
def test_what_may_not_be_sent_is_not(frame: Frame, verdict: Verdict) -> None:
    assert verdict_of(frame.validate) == verdict


def test_with_an_extension_a_message_may_begin_with_rsv1() -> None:
    Frame(Opcode.TEXT, rsv1=True).validate(rsv1_is_allowed=True)
    assert verdict_of(Frame(Opcode.PING, rsv1=True).validate, rsv1_is_allowed=True) == RSV1_SET


# --- close frames -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", CLOSES)
def test_a_close_frame_says_code_and_reason(row: CloseRow) -> None:
    """H64."""
    assert parse_close(row.payload) == (row.code, row.reason)
    assert build_close(row.code, row.reason) == row.payload
    Frame(Opcode.CLOSE, row.payload).validate()


@pytest.mark.parametrize("offence", CLOSE_OFFENCES, ids=lambda offence: offence.name)
def test_a_bad_close_frame_is_judged(offence: CloseOffence) -> None:
    """H65, H66."""
    assert verdict_of(parse_close, offence.payload) == offence.verdict
    assert verdict_of(Frame(Opcode.CLOSE, offence.payload).validate) == offence.verdict


def is_built(code: int) -> bool:
    try:
        return build_close(code) == code.to_bytes(2, "big")
    except ValueError:
        return False


def test_exactly_the_close_codes_that_are_read_are_built() -> None:
    for code in range(0x10000):
        assert is_built(code) is (verdict_of(parse_close, code.to_bytes(2, "big")) is None)


def test_the_tables_of_close_codes_are_the_rfcs() -> None:
    for code in SENDABLE_CODES:
        assert parse_close(code.to_bytes(2, "big")) == (code, "")
    for code in [*FORBIDDEN_CODES, -1, 65536, 10**9]:
        with pytest.raises(ValueError, match="use 1000, or 3000 to 4999"):
            build_close(code)


def test_a_reason_needs_a_code() -> None:
    with pytest.raises(ValueError, match="a close reason needs a close code"):
        build_close(None, "why")


@pytest.mark.parametrize("reason", ["x" * 124, "\u20ac" * 42, "x" * 10_000])
def test_a_reason_is_at_most_123_bytes_long(reason: str) -> None:
    """H108."""
    size = len(reason.encode())
    with pytest.raises(ValueError, match=f"close reason is {size} bytes long: at most 123"):
        build_close(1000, reason)


def test_a_reason_that_utf8_cannot_encode_is_refused() -> None:
    """H108."""
    with pytest.raises(ValueError, match="surrogates not allowed"):
        build_close(1000, "\ud800")
