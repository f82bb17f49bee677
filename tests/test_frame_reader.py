"""Bytes to messages and control frames: the tables, at every split, for both roles."""

from __future__ import annotations

import pytest
from frame_table import (
    BINARY,
    CLOSE,
    KEY,
    PING,
    RFC_EXAMPLES,
    ROWS,
    TEXT,
    Example,
    Item,
    Row,
    all_on_wire,
    encode_by_hand,
    letters,
    octets,
    on_wire,
)
from offence_table import OFFENCES, Offence, too_large, verdict_on
from reading import both_roles, feed_all, reader_of
from splits import every_split

from websocket.limits import Limits

every_offence = pytest.mark.parametrize("offence", OFFENCES, ids=lambda offence: offence.name)


def typed(items: list[Item]) -> list[tuple[type, int, str | bytes]]:
    """Say of what type the messages are, too; mind that opcodes may be plain numbers."""
    return [(type(message), int(opcode), message) for opcode, message in items]


# --- what is allowed --------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_table_is_read_at_every_split(row: Row, is_masked: bool) -> None:
    wire = all_on_wire(row.frames, is_masked=is_masked)
    for pieces in every_split(wire):
        reader = reader_of(is_masked)
        assert typed(feed_all(reader, pieces)) == typed(list(row.items))
        assert reader.error is None
        assert reader.is_finished is (row.items[-1][0] == CLOSE)


@both_roles
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bytes_that_follow_are_read_unless_a_close_frame_came(row: Row, is_masked: bool) -> None:
    """H67."""
    wire = all_on_wire([*row.frames, ("82 01", b"!"), ("89 01", b"?")], is_masked=is_masked)
    expected = list(row.items)
    if expected[-1][0] != CLOSE:
        expected += [(BINARY, b"!"), (PING, b"?")]
    if len(wire) > 1000:
        assert reader_of(is_masked).feed(wire) == expected
        return
    for pieces in every_split(wire):
        assert feed_all(reader_of(is_masked), pieces) == expected


@pytest.mark.parametrize("example", RFC_EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_rfc_are_read(example: Example) -> None:
    """RFC 6455, 5.7."""
    for pieces in every_split(example.wire, random_splits=2):
        assert feed_all(reader_of(example.is_masked), pieces) == example.items


@both_roles
def test_after_a_close_frame_nothing_is_read(is_masked: bool) -> None:
    """H67: not even what is wrong."""
    for close in (b"", b"\x03\xe8", b"\x03", b"\x00\x00\xff"):
        wire = encode_by_hand(0x88, close, KEY if is_masked else None)
        reader = reader_of(is_masked)
        assert reader.feed(wire + b"\xff\xff" + wire) == [(CLOSE, close)]
        assert reader.feed(wire) == []
        assert reader.feed(b"\xff" * 1000) == []
        assert reader.is_finished
        assert reader.error is None


@both_roles
def test_nothing_fed_is_nothing_read(is_masked: bool) -> None:
    wire = all_on_wire([("01 02", b"He"), ("89 01", b"p"), ("80 01", b"y")], is_masked=is_masked)
    reader = reader_of(is_masked)
    items = reader.feed(b"")
    for octet in wire:
        items += reader.feed(bytes([octet]))
        assert reader.feed(b"") == []
    assert items == [(PING, b"p"), (TEXT, "Hey")]


@both_roles
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_buffer_of_the_input_may_be_used_again(row: Row, is_masked: bool) -> None:
    """The reactor has one buffer for all connections."""
    wire = all_on_wire(row.frames, is_masked=is_masked)
    shared = bytearray(1009)
    view = memoryview(shared)
    reader = reader_of(is_masked)
    items: list[Item] = []
    for start in range(0, len(wire), 1009):
        piece = wire[start : start + 1009]
        view[: len(piece)] = piece
        items += reader.feed(view[: len(piece)])
        shared[:] = b"\xee" * 1009
    assert typed(items) == typed(list(row.items))


# --- what is not --------------------------------------------------------------------------------


@every_offence
def test_an_offence_is_judged_at_the_octet_that_convicts(offence: Offence) -> None:
    """Neither sooner nor later: H45, H48, H53, H63 with the payload withheld."""
    for is_masked in offence.roles:
        reader = reader_of(is_masked, offence.limits)
        assert reader.feed(offence.good_wire(is_masked=is_masked)) == list(offence.items)
        wire = offence.bad_wire(is_masked=is_masked)
        assert reader.feed(wire[:-1]) == []
        assert reader.error is None
        assert reader.feed(wire[-1:]) == []
        assert reader.error is not None
        assert verdict_on(reader.error) == offence.verdict
        assert not reader.is_finished


@every_offence
def test_an_offence_is_the_same_at_every_split(offence: Offence) -> None:
    """What came before it is good, what comes after it is not read."""
    for is_masked in offence.roles:
        good = on_wire("81 02", b"ok", is_masked=is_masked)
        before = good + offence.good_wire(is_masked=is_masked)
        wire = before + offence.bad_wire(is_masked=is_masked)
        after = good + b"\xff" * 10 + on_wire("88 00", b"", is_masked=is_masked)
        for pieces in [*every_split(wire, random_splits=3), *every_split(wire + after)]:
            reader = reader_of(is_masked, offence.limits)
            assert feed_all(reader, pieces) == [(TEXT, "ok"), *offence.items]
            assert reader.error is not None
            assert verdict_on(reader.error) == offence.verdict
            assert reader.feed(good) == []


@pytest.mark.parametrize(
    "offence",
    {offence.verdict: offence for offence in OFFENCES}.values(),
    ids=lambda offence: offence.name,
)
def test_an_offence_keeps_nothing_of_the_input(offence: Offence) -> None:
    is_masked = offence.roles[0]
    reader = reader_of(is_masked, offence.limits)
    good, bad = offence.good_wire(is_masked=is_masked), offence.bad_wire(is_masked=is_masked)
    shared = bytearray(good + bad)
    reader.feed(memoryview(shared))
    error = reader.error
    assert error is not None
    assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)
    shared.clear()  # raises while anything holds a view of it


@both_roles
@pytest.mark.parametrize("limit", [1, 2, 10, 124, 125, 126, 127, 65535, 65536])
def test_the_size_limit_is_exact_in_one_frame(limit: int, is_masked: bool) -> None:
    """H53."""
    key = KEY if is_masked else None
    limits = Limits(max_message_size=limit)
    fits, text = encode_by_hand(0x82, octets(limit), key), letters(limit)
    for pieces in ([fits], [fits[:7], fits[7:]]):
        assert feed_all(reader_of(is_masked, limits), pieces) == [(BINARY, octets(limit))]
    wire = encode_by_hand(0x81, text.encode(), key)
    assert reader_of(is_masked, limits).feed(wire) == [(TEXT, text)]
    reader = reader_of(is_masked, limits)
    assert reader.feed(fits + encode_by_hand(0x82, octets(limit + 1), key)) == [
        (BINARY, octets(limit))
    ]
    assert reader.error is not None
    assert verdict_on(reader.error) == too_large(limit)


@both_roles
@pytest.mark.parametrize("limit", [3, 124, 125, 126, 127, 300, 65536])
def test_the_size_limit_is_exact_over_fragments(limit: int, is_masked: bool) -> None:
    """H54; and a control frame is no part of the message."""
    key = KEY if is_masked else None
    limits = Limits(max_message_size=limit)
    begun = encode_by_hand(0x02, octets(limit - 2), key) + encode_by_hand(0x89, octets(125), key)
    reader = reader_of(is_masked, limits)
    for _ in range(3):
        message = octets(limit - 2) + b"xy"
        wire = begun + encode_by_hand(0x80, b"xy", key)
        assert reader.feed(wire) == [(PING, octets(125)), (BINARY, message)]
    assert reader.feed(begun + encode_by_hand(0x80, b"xyz", key)) == [(PING, octets(125))]
    assert reader.error is not None
    assert verdict_on(reader.error) == too_large(limit)


@both_roles
def test_the_limit_of_fragments_is_exact_and_starts_anew(is_masked: bool) -> None:
    """H56."""
    frames = [("01 01", b"a"), ("00 01", b"b"), ("80 01", b"c")]
    whole = [("81 01", b"d")] * 10
    reader = reader_of(is_masked, Limits(max_fragments=3))
    for _ in range(3):
        items = reader.feed(all_on_wire([*frames, *whole], is_masked=is_masked))
        assert items == [(TEXT, "abc"), *[(TEXT, "d")] * 10]
    assert reader.error is None


@both_roles
def test_of_a_message_that_needs_more_frames_nothing_is_returned(is_masked: bool) -> None:
    reader = reader_of(is_masked)
    assert reader.feed(all_on_wire([("01 01", b"a"), ("00 01", b"b")], is_masked=is_masked)) == []
    assert reader.feed(on_wire("8a 01", b"x", is_masked=is_masked)) == [(10, b"x")]


# --- memory -------------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_reader_itself_keeps_no_more_than_a_control_frame(row: Row, is_masked: bool) -> None:
    wire = all_on_wire(row.frames, is_masked=is_masked)
    if len(wire) > 1000:
        wire = wire[:1000]
    for pieces in every_split(wire, random_splits=3):
        reader = reader_of(is_masked)
        for piece in pieces:
            reader.feed(piece)
            assert len(reader._rest) <= 139
