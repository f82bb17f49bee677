"""How long the loop stays awake for latency, and that it sleeps all the same."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest

from reactor import Protocol, Reactor, Transport
from reactor.busy_poll import BusyPoll

READY: list[tuple[Any, int]] = [(object(), 1)]
NOTHING: list[tuple[Any, int]] = []


class Selector:
    """Be asked: each look takes a millisecond, and each sleep all of its time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[float | None] = []
        self.ready_at: list[float] = []

    def clock(self) -> float:
        return self.now

    def select(self, timeout: float | None) -> list[tuple[Any, int]]:
        self.asked.append(timeout)
        self.now += 0.001
        if self.ready_at and self.now < self.ready_at[0] and timeout != 0:
            self.now = min(self.ready_at[0], self.now + (math.inf if timeout is None else timeout))
        if self.ready_at and self.now >= self.ready_at[0]:
            del self.ready_at[0]
            return READY
        return NOTHING


@pytest.fixture
def selector() -> Selector:
    return Selector()


def test_a_quiet_loop_sleeps_at_once(selector: Selector) -> None:
    wait = BusyPoll(selector.select, selector.clock, 0.01)
    assert wait(5.0) == NOTHING
    assert wait(None) == NOTHING
    assert selector.asked == [5.0, None]


def test_after_something_has_happened_it_stays_awake_for_a_while(selector: Selector) -> None:
    wait = BusyPoll(selector.select, selector.clock, 0.01)
    selector.ready_at = [0.5, 0.505]
    assert wait(None) == READY
    assert wait(None) == READY
    assert selector.asked == [None, *[0] * 5]


@pytest.mark.parametrize(("timeout", "left"), [(None, None), (5.0, 4.99), (0.01, 0), (0.004, 0)])
def test_it_sleeps_when_the_while_is_over(
    selector: Selector, timeout: float | None, left: float | None
) -> None:
    wait = BusyPoll(selector.select, selector.clock, 0.01)
    selector.ready_at = [0.5, 60.0]
    assert wait(None) == READY
    wait(timeout)
    awake = selector.asked[1:-1]
    assert set(awake) == {0}
    assert len(awake) == (4 if timeout == 0.004 else 10)
    assert selector.asked[-1] == (left if left is None else pytest.approx(left))


def test_it_never_waits_where_it_must_not(selector: Selector) -> None:
    wait = BusyPoll(selector.select, selector.clock, 0.01)
    selector.ready_at = [0.5]
    assert wait(None) == READY
    assert wait(0) == NOTHING
    assert selector.asked == [None, 0]


@pytest.mark.parametrize("duration", [-0.001, math.nan, math.inf])
def test_the_while_is_a_number_of_seconds(duration: float) -> None:
    with pytest.raises(ValueError, match="busy_poll"):
        Reactor(busy_poll=duration)


def test_a_reactor_that_stays_awake_serves_its_sockets_and_timers() -> None:
    class Echo(Protocol):
        def connection_made(self, transport: Transport) -> None:
            self.transport = transport

        def data_received(self, data: memoryview) -> None:
            self.transport.write(bytes(data))

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with Reactor(busy_poll=0.001) as reactor, theirs:
        Transport(reactor, ours, Echo()).start()
        fired: list[int] = []
        for number in range(3):
            theirs.send(b"%d" % number)
            reactor.run_once()
            assert theirs.recv(10) == b"%d" % number
        reactor.call_later(0.01, fired.append, 1)
        while not fired:
            reactor.run_once()
    assert fired == [1]
