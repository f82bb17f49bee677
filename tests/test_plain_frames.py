"""The straight path of reading, held against the judge of frames and against its twin in C."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from frame_table import encode_by_hand
from sweeps import rounds

from websocket import Frame, speedups
from websocket.assembler import Message
from websocket.masking import Bytes
from websocket.plain_frames import read_plain_frames, read_plain_frames_pure

KEY = b"\x37\xfa\x21\x3d"
LARGE = 1 << 62
Reader = Callable[[Bytes, int, int, bool, int, int, "list[tuple[int, Message]]"], int]
READERS: list[Reader] = [read_plain_frames_pure]
if speedups.read_plain_frames is not None:
    READERS.append(speedups.read_plain_frames)

each_way = pytest.mark.parametrize("read", READERS, ids=["pure", "accelerated"][: len(READERS)])


def frames(source: random.Random, is_masked: bool) -> bytes:
    """Return frames, most of them plain, one after the other."""
    wire = b""
    for _ in range(source.randint(0, 5)):
        head = source.choice([0x81, 0x82, 0x81, 0x82, 0x01, 0x80, 0x89, 0x88, 0xC1, 0xF2])
        size = source.choice([0, 1, 3, 4, 7, 8, 9, 31, 125, 126, 127, 399, 400, 401, 1000, 65535])
        payload = "aß€😀".encode() * (size // 10 + 1)
        wire += encode_by_hand(head, payload[:size], KEY if is_masked else None)
    return wire


@pytest.mark.skipif(len(READERS) < 2, reason="the accelerator is not in use")
@pytest.mark.parametrize("is_masked", [True, False])
def test_both_ways_read_the_same(is_masked: bool) -> None:
    source = random.Random(1)
    for _ in range(rounds(250, 2_500)):
        wire = bytearray(frames(source, is_masked))
        for _ in range(source.choice([0, 0, 1, 3])):
            if wire:
                wire[source.randrange(len(wire))] = source.randrange(256)
        size = source.randint(0, len(wire))
        at = source.choice([0, 0, 0, source.randint(0, size)])
        limit = source.choice([LARGE, 126, 0, 1 << 70])
        most = source.choice([LARGE, 0, 1, 2])
        results = []
        for read in READERS:
            items: list[tuple[int, Message]] = []
            results.append((read(memoryview(wire), at, size, is_masked, limit, most, items), items))
        assert results[0] == results[1]


@each_way
@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 5, 125, 126, 399, 400, 65535])
def test_a_run_of_plain_frames_is_read_to_its_end(read: Reader, size: int, is_masked: bool) -> None:
    key = KEY if is_masked else None
    wire = encode_by_hand(0x81, b"x" * size, key) + encode_by_hand(0x82, b"\xff" * size, key)
    items: list[tuple[int, Message]] = []
    assert read(wire, 0, len(wire), is_masked, LARGE, LARGE, items) == len(wire)
    assert items == [(1, "x" * size), (2, b"\xff" * size)]


@each_way
@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\x82",
        encode_by_hand(0x82, b"abc", KEY)[:-1],
        encode_by_hand(0x82, b"abc", None),  # not masked
        encode_by_hand(0x02, b"abc", KEY),  # not final
        encode_by_hand(0x80, b"abc", KEY),  # a continuation
        encode_by_hand(0xC2, b"abc", KEY),  # compressed
        encode_by_hand(0x89, b"abc", KEY),  # a ping
        encode_by_hand(0x81, b"\xed\xa0\x80", KEY),  # a surrogate
        b"\x82\xfe\x00\x03" + KEY + b"abc",  # not the shortest form
        b"\x82\xff" + bytes(7) + b"\x03" + KEY + b"abc",
        encode_by_hand(0x82, bytes(101), KEY),  # longer than the limit
    ],
)
def test_it_stops_before_the_first_frame_that_is_not_plain(read: Reader, wire: bytes) -> None:
    before = Frame(2, b"before", mask=KEY)
    good = encode_by_hand(before.head, before.payload, KEY)
    items: list[tuple[int, Message]] = []
    data = memoryview(good + wire + good)
    assert read(data, 0, len(good) + len(wire), True, 100, LARGE, items) == len(good)
    assert items == [(2, b"before")]


def test_the_one_in_use_is_the_accelerators_where_there_is_one() -> None:
    assert read_plain_frames is READERS[-1]


@each_way
def test_it_stops_after_as_many_as_are_wanted(read: Reader) -> None:
    frame = encode_by_hand(0x82, b"abc", KEY)
    items: list[tuple[int, Message]] = [(2, b"earlier")]
    assert read(frame * 5, 0, 5 * len(frame), True, LARGE, 3, items) == 2 * len(frame)
    assert items == [(2, b"earlier"), (2, b"abc"), (2, b"abc")]
