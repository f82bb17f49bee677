"""Holds and stalls: how they are measured, and who is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from streams import Witness

from reactor import EventHandler, LagSnapshot
from reactor.lag import BOUNDS, Lag
from reactor.testing import MemoryNetwork, VirtualReactor


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def reactor(network: MemoryNetwork) -> Iterator[VirtualReactor]:
    with network.reactor() as reactor:
        yield reactor


def holding(network: MemoryNetwork, seconds: float) -> Any:
    """Return a function that holds the loop."""

    def hold(*_: object) -> None:
        network.clock.now += seconds

    return hold


def messages(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records]


# --- stalls -----------------------------------------------------------------------------------


def test_lost_time_is_counted_from_the_moment_that_is_asked_for() -> None:
    lag = Lag()
    lag.add_stall(10.0, 12.0)
    lag.add_stall(20.0, 25.0)
    lost = {0.0: 7, 10.0: 7, 11.0: 6, 12.0: 5, 19.0: 5, 20.0: 5, 24.0: 1, 25.0: 0, 30.0: 0}
    assert {moment: lag.lost_since(moment) for moment in lost} == lost
    assert lag.snapshot()[2:] == (2, 7.0)


def test_nothing_is_lost_twice() -> None:
    lag = Lag()
    lag.add_hold(0.5, 11.0, [])  # from 10.5 to 11
    lag.add_stall(10.6, 11.2)  # the rest of it, and 0.2 more
    assert lag.lost_since(0) == pytest.approx(0.7)
    lag.add_stall(None, 100.0)
    lag.add_stall(99.95, 100.0)  # every loop is that late
    assert lag.lost_since(0) == pytest.approx(0.7)


def test_only_the_latest_stalls_are_kept() -> None:
    lag = Lag()
    for number in range(1000):
        lag.add_stall(float(number), number + 0.5)
    assert 0 < lag.lost_since(0.0) < 20
    assert lag.lost_since(999.0) == 0.5
    assert lag.snapshot().lost == 500


def test_a_reactor_that_went_on_late_knows(network: MemoryNetwork, reactor: VirtualReactor) -> None:
    reactor.call_later(100, int)
    reactor.settle()
    network.clock.now += 50  # nothing was to be done
    reactor.settle()
    assert reactor.lag.stalls == 0
    network.clock.now += 80
    reactor.settle()
    assert reactor.lost_since(0) == pytest.approx(30)
    assert reactor.lag.longest_hold == 0


def test_a_late_reactor_says_so_but_warns_of_nobody(
    network: MemoryNetwork, reactor: VirtualReactor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "reactor")
    reactor.call_later(1, int)
    network.clock.now += 3601
    reactor.settle()
    assert caplog.messages == ["the loop went on 3600.0 s late"]
    assert vars(caplog.records[0])["event"] == "stalled"


# --- holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.005, *BOUNDS, 0.05, 0.5, 5.0, 3600.0])
def test_a_hold_is_counted_under_its_bound(
    network: MemoryNetwork,
    reactor: VirtualReactor,
    seconds: float,
    logged: list[logging.LogRecord],
) -> None:
    reactor.call_soon(holding(network, seconds + 1e-6))
    reactor.settle()
    lag = reactor.lag
    assert isinstance(lag, LagSnapshot)
    expected = [bound for bound in BOUNDS if bound <= seconds][-1:]
    assert [bound for bound, count in lag.holds.items() if count] == expected
    assert sum(lag.holds.values()) == len(expected)
    assert len(logged) == (seconds >= 1.0)


@pytest.mark.parametrize("place", ["event", "timer", "callback", "other thread"])
def test_the_one_who_held_the_loop_is_named(
    network: MemoryNetwork, reactor: VirtualReactor, place: str, logged: list[logging.LogRecord]
) -> None:
    hold = holding(network, 2)
    reactor.call_soon(int)
    if place == "event":
        _, theirs = network.transport(reactor, Witness(data=hold))
        theirs.send(b"x")
    elif place == "timer":
        reactor.call_later(1, hold)
        reactor.call_later(1, int)
    elif place == "callback":
        reactor.call_soon(hold)
    else:
        thread = threading.Thread(target=reactor.call_soon_threadsafe, args=[hold])
        thread.start()
        thread.join()
    reactor.call_soon(int)
    reactor.pass_time(3)
    (line,) = messages(logged)
    name = "Witness object" if place == "event" else "holding.<locals>.hold"
    assert line.startswith("the loop was held for 2.0 s by ")
    assert name in line
    assert vars(logged[0])["duration"] == 2
    assert len(vars(logged[0])["suspects"]) == 1


def test_among_many_events_one_of_each_kind_is_named(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[logging.LogRecord]
) -> None:
    class Culprit(Witness):
        pass

    for number in range(60):
        kind, hooks = (Culprit, {"data": holding(network, 1.5)}) if number == 40 else (Witness, {})
        _, theirs = network.transport(reactor, kind(**hooks))
        theirs.send(b"x")
    reactor.settle()
    (line,) = messages(logged)
    assert "one of 60" in line
    assert "Culprit" in line
    assert line.endswith("and 58 others")
    assert len(vars(logged[0])["suspects"]) == 2


def test_addresses_make_no_kinds(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[logging.LogRecord]
) -> None:
    for number in range(60):
        hooks = {"data": holding(network, 1.5)} if number == 40 else {}
        peername = (f"2001:db8::{number:x}", 50_000 + number, 0, 0)
        _, theirs = network.transport(reactor, Witness(**hooks), peername=peername)
        theirs.send(b"x")
    reactor.settle()
    assert len(vars(logged[0])["suspects"]) == 1


def test_a_timer_that_was_given_its_object_names_it(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[logging.LogRecord]
) -> None:
    class Clockwork:
        def __repr__(self) -> str:
            return "<Clockwork 7>"

        def tick(self) -> None:
            network.clock.now += 2

    reactor.call_later(1, Clockwork.tick, Clockwork())
    reactor.pass_time(2)
    (line,) = messages(logged)
    assert line.endswith("Clockwork.tick of <Clockwork 7>")


def test_among_many_events_the_second_time_tells(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[logging.LogRecord]
) -> None:
    streams = []
    for number in range(200):
        hooks = {"data": holding(network, 1.5)} if number == 150 else {}
        streams.append(network.transport(reactor, Witness(**hooks)))
    culprit = streams[150][0]

    def all_at_once() -> None:
        for _, theirs in streams:
            theirs.send(b"x")
        reactor.settle()

    all_at_once()
    (line,) = messages(logged)
    assert "one of 64, which are watched from now on: " in line
    assert line.endswith("and 63 others")
    network.clock.now += 6
    all_at_once()
    assert vars(logged[1])["suspects"] == [repr(culprit)]
    # After a quiet minute it is enough to look now and then.
    network.clock.now += 70
    all_at_once()
    all_at_once()
    network.clock.now += 70
    all_at_once()
    assert "one of 64" in messages(logged)[-1]


def test_there_is_one_line_in_five_seconds(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[logging.LogRecord]
) -> None:
    for delay in range(0, 12, 2):
        reactor.call_later(delay, holding(network, 1))
    reactor.pass_time(30)
    assert 2 <= len(logged) <= 4
    assert messages(logged)[-1].endswith(" more times since the last line)")
    assert sum(vars(record)["suppressed"] + 1 for record in logged) <= 6


def test_a_turn_that_nobody_can_be_blamed_for(logged: list[logging.LogRecord]) -> None:
    Lag().add_hold(2.0, 10.0, [])
    assert messages(logged) == ["the loop was held for 2.0 s by something that has no name"]


def test_whose_picture_raises_is_named_all_the_same(logged: list[logging.LogRecord]) -> None:
    class Nameless(EventHandler):
        __slots__ = ()

        def __repr__(self) -> str:
            raise ValueError

    Lag().add_hold(2.0, 10.0, [Nameless()])
    assert "Nameless object at" in messages(logged)[0]
