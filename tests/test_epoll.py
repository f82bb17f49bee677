"""The selector over epoll, held against that of the standard library."""

from __future__ import annotations

import random
import selectors
import socket
import sys
from collections.abc import Iterator

import pytest

from reactor.epoll import data_selector, default_selector

if sys.platform != "linux":
    pytest.skip("epoll is Linux's", allow_module_level=True)

from reactor.epoll import EpollSelector

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
BOTH = READ | WRITE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def selector() -> Iterator[EpollSelector]:
    with EpollSelector() as selector:
        yield selector


def test_it_is_the_default() -> None:
    assert default_selector is EpollSelector


def test_it_tells_what_is_ready_with_its_data(selector: EpollSelector, pair: Pair) -> None:
    ours, theirs = pair
    key = selector.register(ours.fileno(), READ, "data")
    assert key == (ours.fileno(), ours.fileno(), READ, "data")
    assert selector.select(0) == []
    theirs.send(b"x")
    assert selector.select(0) == [(key, READ)]
    assert selector.select() == [(key, READ)]
    assert selector.select(5) == [(key, READ)]
    key = selector.modify(ours.fileno(), BOTH, "other")
    assert selector.select(0) == [(key, BOTH)]
    assert selector.unregister(ours.fileno()) == key
    assert selector.select(0) == []


@pytest.mark.parametrize("kind", [EpollSelector, selectors.SelectSelector])
def test_data_comes_without_keys_from_any_selector(
    kind: type[selectors.BaseSelector], pair: Pair
) -> None:
    ours, theirs = pair
    with kind() as selector:
        select_data = data_selector(selector)
        selector.register(ours.fileno(), READ, "ours")
        assert select_data(0) == []
        theirs.send(b"x")
        for timeout in (0, 5, None):
            assert select_data(timeout) == [("ours", READ)]
        selector.register(theirs.fileno(), WRITE, "theirs")
        assert sorted(select_data(0)) == [("ours", READ), ("theirs", WRITE)]


def test_a_hang_up_makes_both_ready(selector: EpollSelector, pair: Pair) -> None:
    ours, theirs = pair
    key = selector.register(ours.fileno(), 0)
    theirs.close()
    assert selector.select(0) == [(key, BOTH)]


def test_a_time_to_wait_is_rounded_up(selector: EpollSelector, pair: Pair) -> None:
    selector.register(pair[0].fileno(), READ)
    assert selector.select(1e-9) == []
    assert selector.select(-1) == []


def test_the_map_says_what_is_watched(selector: EpollSelector, pair: Pair) -> None:
    key = selector.register(pair[0].fileno(), READ)
    assert dict(selector.get_map()) == {pair[0].fileno(): key}
    assert selector.get_key(pair[0].fileno()) == key


def test_its_own_descriptor_is_readable_when_something_is_ready(
    selector: EpollSelector, pair: Pair
) -> None:
    selector.register(pair[0].fileno(), READ)
    with selectors.DefaultSelector() as outer:
        outer.register(selector.fileno(), READ)
        assert outer.select(0) == []
        pair[1].send(b"x")
        assert len(outer.select(0)) == 1


def test_what_is_not_watched_cannot_be_changed(selector: EpollSelector, pair: Pair) -> None:
    with pytest.raises(KeyError):
        selector.unregister(pair[0].fileno())
    with pytest.raises(OSError, match="No such file"):
        selector.modify(pair[0].fileno(), READ)


def test_a_descriptor_closed_too_early_may_still_be_unregistered(
    selector: EpollSelector, pair: Pair
) -> None:
    number = pair[0].fileno()
    selector.register(number, READ)
    pair[0].close()
    selector.unregister(number)
    assert selector.select(0) == []


@pytest.mark.parametrize("count", [1, 2])
def test_what_lives_on_in_a_duplicate_is_not_reported_any_more(
    selector: EpollSelector, pair: Pair, count: int
) -> None:
    """Closing a descriptor does not take it out of epoll while another names the same socket."""
    duplicates = [end.dup() for end in pair[:count]]
    for end in pair[:count]:
        end.send(b"x")
        selector.register(end.fileno(), BOTH)
    for end, number in [(end, end.fileno()) for end in pair[:count]]:
        end.close()
        selector.unregister(number)
    assert selector.select(0) == []
    for duplicate in duplicates:
        duplicate.close()


def test_it_may_be_closed_twice() -> None:
    selector = EpollSelector()
    selector.close()
    selector.close()
    with pytest.raises(ValueError, match="closed"):
        selector.fileno()


def test_it_says_what_the_standard_librarys_says() -> None:
    source = random.Random(1)
    pairs = [socket.socketpair() for _ in range(6)]
    numbers = [end.fileno() for ends in pairs for end in ends]
    with EpollSelector() as selector, selectors.EpollSelector() as twin:
        for _ in range(300):
            number = source.choice(numbers)
            events = source.choice([READ, WRITE, BOTH])
            for each in (selector, twin):
                if number not in each.get_map():
                    each.register(number, events, number)
                elif events == BOTH:
                    each.unregister(number)
                else:
                    each.modify(number, events, number)
            ends = source.choice(pairs)
            if source.random() < 0.5:
                source.choice(ends).send(b"x")
            found = {key.fd: mask & key.events for key, mask in selector.select(0)}
            assert found == {key.fd: mask for key, mask in twin.select(0)}
    for ends in pairs:
        for end in ends:
            end.close()
