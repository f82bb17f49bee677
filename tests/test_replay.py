from __future__ import annotations

import random
from collections import deque

import pytest

from websocket.replay import OVERHEAD, Replay


def keep(replay: Replay, *messages: str | bytes, count: int = 4, size: int = 10_000) -> list[bool]:
    """Keep messages; return what each was told."""
    return [
        replay.keep(
            message.encode() if isinstance(message, str) else message,
            is_text=isinstance(message, str),
            max_count=count,
            max_size=size,
        )
        for message in messages
    ]


def drained(replay: Replay) -> list[str | bytes]:
    messages = []
    while replay:
        messages.append(replay.first())
        replay.pop()
    assert replay.size == 0
    return messages


def test_it_starts_empty() -> None:
    replay = Replay()
    assert not replay
    assert (replay.dropped, replay.size) == (0, 0)
    for call in (replay.first, replay.pop):
        with pytest.raises(IndexError):
            call()


def test_texts_and_bytes_come_back_in_order() -> None:
    replay = Replay()
    assert keep(replay, "a", b"\0\xff", "grün \U0001f600", b"") == [True] * 4
    assert len(replay) == 4
    assert replay.size == 1 + 2 + 10 + 0 + 4 * OVERHEAD
    assert drained(replay) == ["a", b"\0\xff", "grün \U0001f600", b""]
    assert replay.dropped == 0


def test_the_oldest_give_way_to_a_message_too_many() -> None:
    replay = Replay()
    assert keep(replay, *"abcdef") == [True] * 6
    assert replay.dropped == 2
    assert drained(replay) == list("cdef")


def test_the_oldest_give_way_to_a_byte_too_many() -> None:
    replay = Replay()
    size = 3 * OVERHEAD + 30
    keep(replay, b"a" * 10, b"b" * 10, b"c" * 10, size=size)
    assert (len(replay), replay.size) == (3, size)
    keep(replay, b"d" * 11, size=size)
    assert replay.dropped == 2
    assert drained(replay) == [b"c" * 10, b"d" * 11]


def test_a_message_without_room_is_dropped_with_all_before_it() -> None:
    replay = Replay()
    assert keep(replay, "a", "b", "c" * 10_000, size=1_000) == [True, True, False]
    assert (len(replay), replay.size, replay.dropped) == (0, 0, 3)
    assert keep(replay, "d", size=1_000) == [True]
    assert keep(replay, "e", size=-5) == [False]
    assert replay.dropped == 5


def test_what_was_lost_before_counts() -> None:
    assert Replay(7).dropped == 7


def test_any_history_keeps_the_last_that_fit() -> None:
    random_source = random.Random(113)
    for _ in range(200):
        count, size = random_source.randrange(1, 10), random_source.randrange(0, 2_000)
        replay, twin, lost = Replay(), deque[bytes](), 0
        for _ in range(random_source.randrange(40)):
            message = random_source.randbytes(random_source.randrange(300))
            keep(replay, message, count=count, size=size)
            twin.append(message)
            while len(twin) > count or sum(map(len, twin)) + OVERHEAD * len(twin) > size:
                twin.popleft()
                lost += 1
            assert replay.size <= size
            assert (len(replay), replay.dropped) == (len(twin), lost)
        assert drained(replay) == list(twin)
