from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from websocket.backlog import OVERHEAD, Backlog, Waiting

ROOM = 10 * (OVERHEAD + 100)


def message(text: str, size: int = 0) -> Waiting:
    return Waiting((text.encode().ljust(size, b"."),))


def texts(backlog: Backlog) -> list[str]:
    """Take everything out; return it without the filling."""
    found = []
    while backlog:
        found.append(backlog.pop().buffers[0].decode().rstrip("."))
    assert backlog.size == 0
    return found


def test_what_waits_leaves_in_the_order_of_sending() -> None:
    backlog = Backlog()
    backlog.put(message("1"), ROOM)
    backlog.keep(message("2"))
    backlog.put_latest(message("3"), "key", ROOM)
    backlog.put(message("4"), ROOM)
    backlog.keep(message("5"))
    assert len(backlog) == 5
    assert backlog.size == 5 * (OVERHEAD + 1)
    assert texts(backlog) == ["1", "2", "3", "4", "5"]
    assert backlog.dropped == 0


def test_the_oldest_gives_way_and_what_is_kept_stays() -> None:
    backlog = Backlog()
    room = 3 * (OVERHEAD + 1)
    backlog.keep(message("k"))
    for text in "1234":
        assert backlog.put(message(text), room)
    assert backlog.dropped == 2
    assert backlog.size == room
    assert texts(backlog) == ["k", "3", "4"]


@pytest.mark.parametrize("is_keyed", [False, True])
def test_what_has_no_room_at_all_is_dropped_itself(is_keyed: bool) -> None:
    backlog = Backlog()
    backlog.put(message("1"), ROOM)
    if is_keyed:
        assert not backlog.put_latest(message("2", 1000), "key", OVERHEAD)
    else:
        assert not backlog.put(message("2", 1000), OVERHEAD)
    assert backlog.dropped == 2
    assert not backlog


def test_of_a_key_the_latest_stands_where_the_first_one_stood() -> None:
    backlog = Backlog()
    for key, text in [("a", "a1"), ("b", "b1"), (None, "n1"), ("a", "a2"), (1, "one"), ("a", "a3")]:
        assert backlog.put_latest(message(text), key, ROOM)
    assert backlog.put_latest(message("n2"), None, ROOM)
    assert backlog.dropped == 3
    assert texts(backlog) == ["a3", "b1", "n2", "one"]
    # What has left is no older one any more.
    assert backlog.put_latest(message("a4"), "a", ROOM)
    assert backlog.dropped == 3


def test_a_key_that_grows_pushes_out_others_and_not_itself() -> None:
    backlog = Backlog()
    for key in "abc":
        backlog.put_latest(message(key), key, ROOM)
    assert backlog.put_latest(message("A", 500), "a", 2 * OVERHEAD + 600)
    assert texts(backlog) == ["A", "c"]
    assert backlog.dropped == 2


def test_a_key_is_no_number_of_the_backlogs_own() -> None:
    backlog = Backlog()
    backlog.put(message("1"), ROOM)
    for key in (0, 1, 2):
        backlog.put_latest(message(f"key {key}"), key, ROOM)
    assert texts(backlog) == ["1", "key 0", "key 1", "key 2"]


def test_what_was_dropped_is_told_once() -> None:
    backlog = Backlog()
    for text in "123":
        backlog.put(message(text), OVERHEAD + 1)
    assert (backlog.tell(), backlog.tell(), backlog.dropped) == (2, 0, 2)
    backlog.clear()
    assert (len(backlog), backlog.size, backlog.tell()) == (0, 0, 0)


class Entry(NamedTuple):
    """One message of the dumb twin."""

    text: str
    size: int
    name: object
    is_kept: bool


class Twin:
    """A list, searched from end to end for everything."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped = 0

    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def add(self, entry: Entry, room: int) -> bool:
        for at, other in enumerate(self.entries):
            if entry.name is not None and other.name == entry.name:
                self.entries[at] = entry
                self.dropped += 1
                break
        else:
            self.entries.append(entry)
        while not entry.is_kept and self.size() > room:
            loose = [each for each in self.entries if not each.is_kept and each is not entry]
            self.entries.remove(loose[0] if loose else entry)
            self.dropped += 1
            if not loose:
                return False
        return True


@pytest.mark.parametrize("seed", range(60))
def test_the_backlog_does_what_a_list_does(seed: int) -> None:
    source = random.Random(seed)
    backlog, twin = Backlog(), Twin()
    for number in range(300):
        waiting = message(str(number), source.choice([0, 0, 50, 400]))
        room = source.choice([2, 5, 5, 5, 9]) * OVERHEAD
        action = source.choice(["keep", "put", "put", "latest", "latest", "pop"])
        text = str(number)
        if action == "pop":
            if twin.entries:
                found = backlog.pop().buffers[0].decode().rstrip(".")
                assert found == twin.entries.pop(0).text
        elif action == "keep":
            backlog.keep(waiting)
            twin.add(Entry(text, waiting.size, None, True), room)
        elif action == "put":
            expected = twin.add(Entry(text, waiting.size, None, False), room)
            assert backlog.put(waiting, room) is expected
        else:
            key = source.choice("abc")
            expected = twin.add(Entry(text, waiting.size, key, False), room)
            assert backlog.put_latest(waiting, key, room) is expected
        assert backlog.size == twin.size()
        assert len(backlog) == len(twin.entries)
        assert backlog.dropped == twin.dropped
    assert texts(backlog) == [entry.text for entry in twin.entries]
