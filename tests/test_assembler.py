"""Fragments to messages, without frames around them; and what memory they take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from frame_table import KEY, encode_by_hand, octets, on_wire
from offence_table import (
    INTERLEAVED,
    NOT_UTF8,
    NOTHING,
    TOO_MANY,
    Verdict,
    too_large,
    verdict_on,
)
from reading import feed_all, reader_of

from websocket.assembler import Assembler, Message
from websocket.errors import ProtocolError
from websocket.limits import Limits

FIN_TEXT, FIN_BINARY, FIN_CONTINUATION = 0x81, 0x82, 0x80
TEXT, BINARY, CONTINUATION = 0x01, 0x02, 0x00


def add(assembler: Assembler, head: int, *pieces: bytes) -> tuple[int, Message] | None:
    """Report one frame, whose payload arrives in pieces."""
    length = sum(map(len, pieces))
    assembler.judge(head, length)
    assembler.begin(head, length)
    for piece in pieces:
        assembler.append(piece)
    return assembler.end(head)


@contextmanager
def assert_judged(verdict: Verdict) -> Iterator[None]:
    with pytest.raises(ProtocolError) as raised:
        yield
    assert verdict_on(raised.value) == verdict


# --- messages ---------------------------------------------------------------------------------


def test_fragments_make_a_message() -> None:
    assembler = Assembler(Limits())
    assert add(assembler, TEXT, b"Hel", b"l") is None
    assert add(assembler, CONTINUATION) is None
    assert add(assembler, FIN_CONTINUATION, b"o") == (1, "Hello")
    assert add(assembler, BINARY, b"\xff") is None
    assert add(assembler, FIN_CONTINUATION, b"\x00") == (2, b"\xff\x00")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_message_is_str_or_bytes_whatever_the_pieces_are(kind: Callable[[bytes], bytes]) -> None:
    assembler = Assembler(Limits())
    result = add(assembler, FIN_TEXT, kind(b"a"), kind(b"b"))
    assert result == (1, "ab")
    result = add(assembler, FIN_BINARY, kind(b"a"), kind(b"b"))
    assert result is not None
    assert (type(result[1]), result[1]) == (bytes, b"ab")


def test_a_message_is_open_from_its_first_frame_to_its_last() -> None:
    assembler = Assembler(Limits())
    seen = [assembler.is_open]
    for head in (BINARY, CONTINUATION, FIN_CONTINUATION, FIN_BINARY):
        add(assembler, head)
        seen.append(assembler.is_open)
    assert seen == [False, True, True, False, False]


def test_begun_tells_one_message_from_the_next() -> None:
    """Also when one ends and the next begins between two looks."""
    assembler = Assembler(Limits())
    seen = []
    for head in (TEXT, CONTINUATION, FIN_CONTINUATION, BINARY, FIN_CONTINUATION, FIN_TEXT):
        add(assembler, head)
        seen.append(assembler.begun)
    assert seen == [1, 1, 1, 2, 2, 3]


def test_discard_forgets_the_incomplete_message() -> None:
    assembler = Assembler(Limits(max_message_size=3, max_fragments=2))
    add(assembler, TEXT, b"\xe2")
    add(assembler, CONTINUATION, b"\x82")
    assembler.discard()
    assert not assembler.is_open
    with assert_judged(NOTHING):
        assembler.judge(FIN_CONTINUATION, 0)
    assert add(assembler, BINARY, b"ab") is None
    assert add(assembler, FIN_CONTINUATION, b"c") == (2, b"abc")


def test_to_discard_nothing_is_allowed() -> None:
    assembler = Assembler(Limits())
    assembler.discard()
    assert add(assembler, FIN_TEXT, b"x") == (1, "x")


# --- the judge ----------------------------------------------------------------------------------


def test_judging_changes_nothing() -> None:
    assembler = Assembler(Limits(max_message_size=4, max_fragments=2))
    for _ in range(10):
        assembler.judge(TEXT, 4)
    assert (assembler.is_open, assembler.begun) == (False, 0)
    add(assembler, TEXT, b"ab")
    for _ in range(10):
        assembler.judge(FIN_CONTINUATION, 2)
    assert add(assembler, FIN_CONTINUATION, b"cd") == (1, "abcd")


@pytest.mark.parametrize("head", [FIN_TEXT, FIN_BINARY, TEXT, BINARY])
@pytest.mark.parametrize("first", [b"", b"x"])
def test_no_message_begins_inside_another(first: bytes, head: int) -> None:
    """H50."""
    assembler = Assembler(Limits())
    assembler.judge(head, 5)
    add(assembler, BINARY, first)
    with assert_judged(INTERLEAVED):
        assembler.judge(head, 5)


@pytest.mark.parametrize("head", [CONTINUATION, FIN_CONTINUATION])
def test_nothing_is_continued_where_nothing_is_open(head: int) -> None:
    """H49."""
    assembler = Assembler(Limits())
    with assert_judged(NOTHING):
        assembler.judge(head, 0)
    add(assembler, FIN_TEXT, b"x")
    with assert_judged(NOTHING):
        assembler.judge(head, 0)


@pytest.mark.parametrize("limit", [1, 2, 125, 126, 65536])
def test_the_size_limit_is_exact(limit: int) -> None:
    """H53, H54."""
    assembler = Assembler(Limits(max_message_size=limit))
    assembler.judge(FIN_BINARY, limit)
    for length in (limit + 1, 2**40, 2**63 - 1):
        with assert_judged(too_large(limit)):
            assembler.judge(FIN_BINARY, length)
    add(assembler, BINARY, octets(limit - 1))
    assembler.judge(FIN_CONTINUATION, 1)
    with assert_judged(too_large(limit)):
        assembler.judge(FIN_CONTINUATION, 2)


def test_the_limit_of_fragments_is_exact() -> None:
    """H56, H57: empty ones count."""
    assembler = Assembler(Limits(max_fragments=3))
    for _ in range(2):
        add(assembler, TEXT)
        add(assembler, CONTINUATION)
        assert add(assembler, FIN_CONTINUATION, b"x") == (1, "x")
    add(assembler, TEXT)
    add(assembler, CONTINUATION)
    add(assembler, CONTINUATION)
    for head in (CONTINUATION, FIN_CONTINUATION):
        with assert_judged(TOO_MANY):
            assembler.judge(head, 0)


def test_with_one_fragment_allowed_messages_must_come_whole() -> None:
    assembler = Assembler(Limits(max_fragments=1))
    for _ in range(3):
        assert add(assembler, FIN_TEXT, b"x") == (1, "x")
    add(assembler, TEXT)
    with assert_judged(TOO_MANY):
        assembler.judge(FIN_CONTINUATION, 0)


def test_text_is_checked_as_it_arrives() -> None:
    """H63; binary messages are not."""
    assembler = Assembler(Limits())
    assembler.begin(TEXT, 10)
    assembler.append(b"a\xe2")
    assembler.append(b"\x82")
    with assert_judged(NOT_UTF8):
        assembler.append(b"a")
    assembler.discard()
    add(assembler, BINARY, b"a\xe2")
    assert add(assembler, FIN_CONTINUATION, b"\x82a") == (2, b"a\xe2\x82a")


def test_text_must_not_end_inside_a_character() -> None:
    """H63."""
    assembler = Assembler(Limits())
    add(assembler, TEXT, b"a\xe2")
    with assert_judged(NOT_UTF8):
        add(assembler, FIN_CONTINUATION, b"\x82")


# --- memory -------------------------------------------------------------------------------------

needs_tracemalloc = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython counts its allocations"
)


def memory_of(action: Callable[[], object]) -> tuple[int, int]:
    """Return how many bytes an action left allocated, and how many it took at its peak."""
    import tracemalloc  # which PyPy has not

    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@needs_tracemalloc
@pytest.mark.parametrize("head", [FIN_TEXT, FIN_BINARY, TEXT, BINARY])
def test_nothing_is_allocated_for_a_length_that_was_only_declared(head: int) -> None:
    """H53: within the limit as well as beyond it."""
    length = (2**40).to_bytes(8, "big")
    wire = bytes([head, 0xFF]) + length + KEY
    for limit in (2**20, 2**50):
        reader = reader_of(True, Limits(max_message_size=limit))
        _, peak = memory_of(partial(reader.feed, wire))
        assert (reader.error is None) is (limit == 2**50)
        assert peak < 4096


@needs_tracemalloc
@pytest.mark.parametrize("head", [TEXT, BINARY])
@pytest.mark.parametrize("per_read", [1, 100])
def test_one_byte_fragments_take_no_more_than_twice_their_payload(head: int, per_read: int) -> None:
    """H56."""
    count = 5_000
    pieces = [on_wire("00 01", b"x", is_masked=True) * per_read] * (count // per_read)
    reader = reader_of(True, Limits(max_fragments=count + 2))
    reader.feed(encode_by_hand(head, b"", KEY))
    held, peak = memory_of(lambda: feed_all(reader, pieces))
    assert held <= peak <= 2 * count + 4096
    message = "x" * count if head == TEXT else b"x" * count
    assert reader.feed(on_wire("80 00", b"", is_masked=True)) == [(head, message)]


@needs_tracemalloc
@pytest.mark.parametrize("per_read", [1, 1460])
def test_an_unfinished_frame_takes_no_more_than_twice_its_payload(per_read: int) -> None:
    """H59."""
    payload = octets(29_200)
    wire = encode_by_hand(FIN_BINARY, payload, KEY)
    start = wire[:-1]
    pieces = [start[at : at + per_read] for at in range(0, len(start), per_read)]
    reader = reader_of(True)
    held, peak = memory_of(lambda: feed_all(reader, pieces))
    assert held <= peak <= 2 * len(payload) + 4096
    assert reader.feed(wire[-1:]) == [(BINARY, payload)]


@needs_tracemalloc
@pytest.mark.parametrize(
    "last",
    [
        pytest.param(encode_by_hand(FIN_CONTINUATION, octets(100_000), KEY), id="complete"),
        pytest.param(on_wire("88 00", b"", is_masked=True), id="closed"),
        pytest.param(on_wire("8b 00", b"", is_masked=True), id="failed"),
    ],
)
def test_a_message_that_is_over_takes_nothing(last: bytes) -> None:
    reader = reader_of(True)
    pieces = [encode_by_hand(BINARY, octets(100_000), KEY), last]

    def exchange() -> None:
        for piece in pieces:
            reader.feed(piece)

    held, peak = memory_of(exchange)
    assert held < 4096
    assert peak > 100_000
