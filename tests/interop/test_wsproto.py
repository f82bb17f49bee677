"""Our frame reader beside that of the ``wsproto`` library: the tables, and random streams.

What both must agree on, and the differences that are known, stand in ``tools/fuzzing/oracle.py``.
"""

from __future__ import annotations

import pytest
from frame_table import (
    BINARY,
    CLOSES,
    KEY,
    RFC_EXAMPLES,
    ROWS,
    Example,
    Row,
    all_on_wire,
    encode_by_hand,
)
from fuzzing.oracle import Reading, check_beside_wsproto, read_ours, read_theirs
from fuzzing.random_engine import Unit, explore
from offence_table import CLOSE_OFFENCES, OFFENCES, Offence

from websocket.opcodes import Opcode

ROLES = {True: "client", False: "server"}
both_roles = pytest.mark.parametrize("is_masked", ROLES, ids=ROLES.values())

# Limits are ours alone.
SAME_OFFENCES = [offence for offence in OFFENCES if offence.verdict.close_code in (1002, 1007)]


@pytest.mark.parametrize("target", ["wsproto-of-client", "wsproto-of-server"])
def test_random_streams_are_read_alike(target: str) -> None:
    result = explore(Unit(target, "interop", 3_000))
    assert result.finding is None, str(result.finding)


@both_roles
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_good_frames_are_read_alike(row: Row, is_masked: bool) -> None:
    check_beside_wsproto(all_on_wire(row.frames, is_masked=is_masked), is_masked=is_masked)


@pytest.mark.parametrize("example", RFC_EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_rfc_are_read_alike(example: Example) -> None:
    check_beside_wsproto(example.wire, is_masked=example.is_masked)


@pytest.mark.parametrize(
    ("offence", "is_masked"),
    [
        pytest.param(offence, is_masked, id=f"{offence.name}-{ROLES[is_masked]}")
        for offence in SAME_OFFENCES
        for is_masked in offence.roles
    ],
)
def test_offences_are_judged_alike(offence: Offence, is_masked: bool) -> None:
    good = offence.good_wire(is_masked=is_masked)
    check_beside_wsproto(good + offence.bad_wire(is_masked=is_masked), is_masked=is_masked)


@both_roles
def test_close_frames_are_read_alike(is_masked: bool) -> None:
    payloads = [row.payload for row in CLOSES] + [row.payload for row in CLOSE_OFFENCES]
    for payload in payloads:
        wire = encode_by_hand(0x88, payload, KEY if is_masked else None)
        check_beside_wsproto(wire, is_masked=is_masked)


# --- the differences that are known ---------------------------------------------------------------


def test_wsproto_refuses_a_close_code_that_iana_has_registered() -> None:
    wire = [b"\x88\x02\x03\xf6"]
    assert read_ours(wire, is_masked=False) == Reading([(Opcode.CLOSE, (1014, ""))], None)
    assert read_theirs(wire, is_masked=False) == Reading([], 1002)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\xc1\x7e", 1002, id="RSV1 before the extended length"),
        pytest.param(b"\x81\xfe", 1002, id="the mask before the extended length"),
        pytest.param(b"\x80\x05", 1002, id="a continuation of nothing before its payload"),
        pytest.param(b"\x01\x02\xed\xa0", 1007, id="a surrogate before its third octet"),
    ],
)
def test_wsproto_judges_later(wire: bytes, code: int) -> None:
    assert read_ours([wire], is_masked=False) == Reading([], code)
    assert read_theirs([wire], is_masked=False) == Reading([], None)
    check_beside_wsproto(wire, is_masked=False)


def test_wsproto_has_no_limits() -> None:
    head = bytes((0x80 | BINARY, 0x7F)) + (2**40).to_bytes(8, "big")
    assert read_theirs([head + b"x"], is_masked=False) == Reading([], None)
    check_beside_wsproto(head + b"x", is_masked=False)
