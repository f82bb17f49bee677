"""What a peer must not send, and how it is judged.

Each row ends with the very octet that convicts: without it the reader must still wait, with it
the reader must not wait for anything more. Rows bear the numbers of the catalogue of hostile
inputs that they come from. Headers are written as in ``frame_table.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from frame_table import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    VALID_OPCODES,
    HandFrame,
    Item,
    all_on_wire,
    on_wire,
)

from websocket.causes import Cause
from websocket.errors import (
    ControlFrameTooLong,
    FragmentedControl,
    FrameTooLarge,
    InvalidFrame,
    InvalidOpcode,
    InvalidPayload,
    PolicyViolation,
    ProtocolError,
)
from websocket.limits import Limits


class Verdict(NamedTuple):
    """All that a ``ProtocolError`` says."""

    error: type[ProtocolError]
    message: str
    close_code: int = 1002
    cause: Cause = Cause.PROTOCOL_ERROR


def verdict_on(error: ProtocolError) -> Verdict:
    return Verdict(type(error), str(error), error.close_code, error.cause)


def too_large(limit: int) -> Verdict:
    message = f"message is larger than {limit} bytes"
    return Verdict(FrameTooLarge, message, 1009, Cause.MESSAGE_TOO_BIG)


NOT_MASKED = Verdict(InvalidFrame, "client frame is not masked")
MASKED = Verdict(InvalidFrame, "server frame is masked")
RSV1_SET = Verdict(InvalidFrame, "reserved bit RSV1 is set")
RSV23_SET = Verdict(InvalidFrame, "reserved bit RSV2 or RSV3 is set")
FRAGMENTED = Verdict(FragmentedControl, "control frame is fragmented")
TOO_LONG = Verdict(ControlFrameTooLong, "control frame is longer than 125 bytes")
NOTHING = Verdict(InvalidFrame, "continuation frame continues nothing")
INTERLEAVED = Verdict(InvalidFrame, "new message inside a fragmented one")
NOT_SHORTEST = Verdict(InvalidFrame, "length is not in its shortest form")
TOP_BIT = Verdict(InvalidFrame, "most significant bit of the length is set")
NOT_UTF8 = Verdict(InvalidPayload, "text is not valid UTF-8", 1007, Cause.INVALID_DATA)
TOO_MANY = Verdict(PolicyViolation, "too many fragments", 1008, Cause.TOO_MANY_FRAGMENTS)


class Offence(NamedTuple):
    """Something that a peer must not send.

    Attributes:
        name: what it is.
        verdict: what the reader's error must be.
        header: the header of the offending frame, up to the octet that convicts it, or whole.
        payload: None where the header convicts; else up to the octet that convicts.
        before: frames that come before it, and are good.
        items: what the reader returns for those.
        limits: what is allowed.
        has_wrong_mask_bit: the frame is masked where it must not be, or the other way round.
        roles: whether the reader expects masked frames; most rows stand for both.
    """

    name: str
    verdict: Verdict
    header: str
    payload: bytes | None = None
    before: Sequence[HandFrame] = ()
    items: Sequence[Item] = ()
    limits: Limits = Limits()
    has_wrong_mask_bit: bool = False
    roles: Sequence[bool] = (True, False)

    def good_wire(self, *, is_masked: bool) -> bytes:
        return all_on_wire(self.before, is_masked=is_masked)

    def bad_wire(self, *, is_masked: bool) -> bytes:
        """Return the offending frame up to the octet that convicts it."""
        is_masked ^= self.has_wrong_mask_bit
        return on_wire(self.header, self.payload, is_masked=is_masked)


BEGUN: list[HandFrame] = [("01 02", b"He")]
EMPTY: list[HandFrame] = [("01 00", b"")]
ENDED: list[HandFrame] = [("01 01", b"a"), ("80 01", b"b")]
PINGED: list[HandFrame] = [("02 01", b"x"), ("89 01", b"p")]


def masking_offences() -> Iterator[Offence]:
    """H45: at the second octet, whatever the frame is; nothing more is awaited."""
    opcodes = (TEXT, BINARY, CLOSE, PING, PONG)
    headers = [f"8{opcode:x} {size}" for opcode in opcodes for size in ("00", "05")]
    for header in [*headers, "82 7e", "81 7f", "01 00", "02 7e"]:
        for must_be_masked, verdict in ((True, NOT_MASKED), (False, MASKED)):
            yield Offence(
                f"H45 {header}, {verdict.message}",
                verdict,
                header,
                has_wrong_mask_bit=True,
                roles=[must_be_masked],
            )


def reserved_offences() -> Iterator[Offence]:
    """H46, H47, H80, H82: at the second octet, in every frame, final or not."""
    bits = {0x40: RSV1_SET, 0x20: RSV23_SET, 0x10: RSV23_SET, 0x70: RSV23_SET}
    for fin in (0x80, 0):
        for opcode in range(16):
            if opcode not in VALID_OPCODES:
                verdict = Verdict(InvalidOpcode, f"opcode {opcode} is reserved")
                yield Offence(f"H47 {fin | opcode:02x}", verdict, f"{fin | opcode:02x} 00")
                continue
            for bit, verdict in bits.items():
                head = fin | bit | opcode
                yield Offence(f"H46 {head:02x}", verdict, f"{head:02x} 05")
    yield Offence("H80 RSV1 on a continuation", RSV1_SET, "c0 01", before=BEGUN)


def control_offences() -> Iterator[Offence]:
    """H48: at the second octet; the payload is not awaited."""
    cases = {
        **dict.fromkeys(("08 00", "09 05", "0a 7d", "09 7e", "08 7f"), FRAGMENTED),
        **dict.fromkeys(("88 7e", "89 7e", "89 7f", "8a 7f"), TOO_LONG),
    }
    for header, verdict in cases.items():
        yield Offence(f"H48 {header}", verdict, header)
        yield Offence(f"H48 {header} inside a message", verdict, header, before=BEGUN)


def order_offences() -> Iterator[Offence]:
    """H49, H50: at the header, the second octet here."""
    outside: dict[str, tuple[list[HandFrame], list[Item]]] = {
        "at first": ([], []),
        "after a whole message": ([("82 01", b"x")], [(BINARY, b"x")]),
        "after a fragmented message": (ENDED, [(TEXT, "ab")]),
        "after a ping": ([("89 00", b"")], [(PING, b"")]),
    }
    for where, (before, items) in outside.items():
        for header in ("80 00", "80 05", "00 00", "00 05"):
            yield Offence(f"H49 {header} {where}", NOTHING, header, None, before, items)
    inside: dict[str, tuple[list[HandFrame], list[Item]]] = {
        "inside a message": (BEGUN, []),
        "after an empty first fragment": (EMPTY, []),
        "after an empty continuation": ([*BEGUN, ("00 00", b"")], []),
        "after a ping inside a message": (PINGED, [(PING, b"p")]),
    }
    for where, (before, items) in inside.items():
        for header in ("81 00", "81 05", "82 05", "82 00", "01 00", "01 05", "02 05"):
            yield Offence(f"H50 {header} {where}", INTERLEAVED, header, None, before, items)


def length_offences() -> Iterator[Offence]:
    """H52, H53, H55: at the last octet of the length, before the masking key."""
    for header in (
        "82 7f 80 00 00 00 00 00 00 00",
        "81 7f ff ff ff ff ff ff ff ff",
        "01 7f 80 00 00 00 00 00 00 05",
    ):
        yield Offence(f"H52 {header}", TOP_BIT, header)
    for header in (
        "82 7e 00 00",
        "82 7e 00 05",
        "81 7e 00 7d",
        "01 7e 00 7d",
        "82 7f 00 00 00 00 00 00 00 05",
        "81 7f 00 00 00 00 00 00 00 7e",
        "82 7f 00 00 00 00 00 00 ff ff",
    ):
        yield Offence(f"H55 {header}", NOT_SHORTEST, header)
    yield Offence("H55 in a continuation", NOT_SHORTEST, "80 7e 00 01", before=BEGUN)
    for name, length in {
        "max + 1": "00 00 00 00 00 10 00 01",
        "2^40": "00 00 01 00 00 00 00 00",
        "2^53 + 1": "00 20 00 00 00 00 00 01",
        "2^63 - 1": "7f ff ff ff ff ff ff ff",
    }.items():
        for head, before in (("82", []), ("81", []), ("01", []), ("00", BEGUN), ("80", EMPTY)):
            header = f"{head} 7f {length}"
            yield Offence(f"H53 {name} {head}", too_large(2**20), header, before=before)


def size_offences() -> Iterator[Offence]:
    """H53, H54: at the header of the frame that crosses the limit."""
    ten = Limits(max_message_size=10)
    for header in ("82 0b", "81 7d", "02 0b", "82 7e 00 7e"):
        yield Offence(f"H53 {header}, limit 10", too_large(10), header, limits=ten)
    wide = Limits(max_message_size=300)
    yield Offence("H53 limit 300", too_large(300), "82 7e 01 2d", limits=wide)
    six: list[HandFrame] = [("01 06", b"sixsix")]
    ping: HandFrame = ("89 01", b"p")
    for name, header, before, items in (
        ("final", "80 05", six, []),
        ("not final", "00 05", six, []),
        ("after a ping", "80 05", [*six, ping], [(PING, b"p")]),
        ("when full", "80 01", [*six, ("00 04", b"four")], []),
        ("after an empty one", "80 0b", EMPTY, []),
    ):
        yield Offence(f"H54 {name}", too_large(10), header, None, before, items, ten)


def number_offences() -> Iterator[Offence]:
    """H56, H57: at the header of the fragment that is one too many."""
    four = Limits(max_fragments=4)
    fragments: list[HandFrame] = [("01 01", b"a"), *[("00 01", b"b")] * 3]
    for header in ("00 00", "00 01", "80 00", "80 05"):
        yield Offence(f"H56 {header}", TOO_MANY, header, before=fragments, limits=four)
    empty_ones: list[HandFrame] = [*EMPTY, *[("00 00", b"")] * 3]
    yield Offence("H57 empty ones count", TOO_MANY, "00 00", before=empty_ones, limits=four)


# Each ends with the octet that no later one can mend.
BAD_TEXT = {
    "an octet that never occurs": b"\xff",
    "a continuation octet at first": b"a\x80",
    "overlong, two octets": b"\xc0",
    "overlong, two octets, C1": b"a\xc1",
    "overlong, three octets": b"\xe0\x9f",
    "overlong, four octets": b"a\xf0\x8f",
    "the first surrogate": b"\xed\xa0",
    "the last surrogate": b"a\xed\xbf",
    "above U+10FFFF": b"\xf4\x90",
    "far above U+10FFFF": b"\xf5",
    "a character broken off by a letter": b"\xe2\x82a",
    "after good text": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0",
}


def text_offences() -> Iterator[Offence]:
    """H63: at the octet with which the text cannot become valid any more."""
    for name, payload in BAD_TEXT.items():
        size = f"{len(payload):02x}"
        for where, header, before in (
            ("unfinished frame", "81 20", []),
            ("unfinished fragment", "01 20", []),
            ("unfinished continuation", "00 20", BEGUN),
            ("whole frame", f"81 {size}", []),
            ("whole fragment", f"01 {size}", []),
            ("last fragment", f"80 {size}", BEGUN),
        ):
            yield Offence(f"H63 {name}, {where}", NOT_UTF8, header, payload, before)
    cut: list[HandFrame] = [("01 01", b"\xe2")]
    for name, header, payload, before in (
        ("in a long frame", "81 7e 01 00", b"x" * 200 + b"\xff", []),
        ("a cut character is not continued", "00 02", b"(", cut),
        ("a cut character becomes overlong", "80 02", b"\x80", [("01 01", b"\xe0")]),
        ("a cut character becomes a surrogate", "00 01", b"\xa0", [("01 01", b"\xed")]),
        ("truncated at FIN, one frame", "81 03", b"a\xe2\x82", []),
        ("truncated at FIN, long frame", "81 7e 00 7e", b"x" * 125 + b"\xe2", []),
        ("truncated at FIN, last fragment", "80 01", b"\xe2", BEGUN),
        ("truncated at FIN, empty fragment", "80 00", b"", cut),
        ("truncated at FIN, four octets", "80 01", b"\x8d", [("01 02", b"\xf0\x90")]),
    ):
        yield Offence(f"H63 {name}", NOT_UTF8, header, payload, before)


OFFENCES = [
    *masking_offences(),
    *reserved_offences(),
    *control_offences(),
    *order_offences(),
    *length_offences(),
    *size_offences(),
    *number_offences(),
    *text_offences(),
]


class CloseOffence(NamedTuple):
    """A payload that no close frame may have."""

    name: str
    payload: bytes
    verdict: Verdict


FORBIDDEN_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


def close_offences() -> Iterator[CloseOffence]:
    """H65, H66."""
    half = Verdict(InvalidFrame, "close frame has half a close code")
    yield CloseOffence("H65 half a code", b"\x03", half)
    for code in FORBIDDEN_CODES:
        verdict = Verdict(InvalidFrame, f"close code {code} must not be sent")
        # With a reason that is no text: the code is judged first.
        for reason in (b"", b" and a reason", b"\xff"):
            payload = code.to_bytes(2, "big") + reason
            yield CloseOffence(f"H65 {code} {reason!r}", payload, verdict)
    verdict = Verdict(InvalidPayload, "close reason is not valid UTF-8", 1007, Cause.INVALID_DATA)
    for reason in (b"\xff", b"a\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82"):
        yield CloseOffence(f"H66 {reason!r}", b"\x03\xe8" + reason, verdict)


CLOSE_OFFENCES = list(close_offences())
