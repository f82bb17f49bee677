from __future__ import annotations

import random

import pytest

from reactor.buffers import Buffer, drop_first, join_last

KIB = 1024


@pytest.mark.parametrize(
    ("size", "rest"),
    [
        (0, [b"ab", b"", b"cde"]),
        (1, [b"b", b"", b"cde"]),
        (2, [b"cde"]),
        (4, [b"e"]),
        (5, []),
    ],
)
def test_what_was_sent_is_dropped_from_the_front(size: int, rest: list[bytes]) -> None:
    assert [bytes(each) for each in drop_first((b"ab", b"", b"cde"), size)] == rest


def test_a_large_buffer_of_which_a_part_was_sent_is_not_copied() -> None:
    large = bytes(100 * KIB)
    rest = drop_first([large], 1)
    assert isinstance(rest[0], memoryview)
    assert rest[0].obj is large


def test_small_buffers_at_the_end_become_one() -> None:
    large = bytes(32 * KIB)
    buffers: list[Buffer] = [b"a", large, memoryview(b"bcd")[1:], b"e", b"f"]
    join_last(buffers)
    assert buffers == [b"a", large, b"cdef"]
    join_last(buffers)
    assert buffers == [b"a", large, b"cdef"]
    nothing: list[Buffer] = []
    join_last(nothing)
    assert nothing == []


def test_many_tiny_buffers_stay_few_and_each_byte_is_copied_a_few_times() -> None:
    source = random.Random(1)
    buffers: list[Buffer] = []
    twin = b""
    for number in range(20_000):
        piece = source.randbytes(3) if hasattr(source, "randbytes") else bytes(3)
        twin += piece
        buffers.append(piece)
        if number % 1000 == 0:
            join_last(buffers)
    join_last(buffers)
    assert len(buffers) <= len(twin) // (32 * KIB) + 1
    assert b"".join(buffers) == twin
