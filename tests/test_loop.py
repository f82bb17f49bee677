"""The reactor: what happens in a turn, in which order, and what can never end the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from streams import FAIL_SAFE, Echo, Witness, connected_pair, connected_pairs, with_every_selector
from support import FakeClock, FakeNetwork, Stage, run_until

from reactor import (
    READ,
    WRITE,
    Connector,
    EventHandler,
    Listener,
    Reactor,
    ReactorClosed,
    ReactorRunning,
    Transport,
    open_tcp_sockets,
)

TICK = 0.01

STOPPERS = [KeyboardInterrupt, SystemExit]

needs_epoll = pytest.mark.skipif(
    not hasattr(selectors.DefaultSelector, "fileno"), reason="the selector has no descriptor"
)


class ScriptedSelector(selectors.BaseSelector):
    """A selector that reports what the test says, and notes how long it was to wait."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.batches: deque[list[tuple[EventHandler, int]]] = deque()
        self.registered: dict[int, int] = {}
        self.on_select: Callable[[float | None], object] = lambda timeout: None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        assert fileobj not in self.registered
        self.registered[fileobj] = events
        return selectors.SelectorKey(fileobj, fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, fileobj, self.registered.pop(fileobj), None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.timeouts.append(timeout)
        batch = self.batches.popleft() if self.batches else []
        self.on_select(timeout)
        return [
            (selectors.SelectorKey(handler.fd, handler.fd, mask, handler), mask)
            for handler, mask in batch
        ]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        raise NotImplementedError


class Handler(EventHandler):
    """Write down its calls in a list that several may share; do what the test says."""

    def __init__(self, log: list[Any], name: str = "handler") -> None:
        super().__init__()
        self.log = log
        self.name = name
        self.then: Callable[[], object] = lambda: None
        self.on_abort: Callable[[], object] = lambda: None

    def on_ready(self, mask: int) -> None:
        self.log.append((self.name, mask))
        self.then()

    def on_failure(self, error: Exception) -> None:
        self.log.append((self.name, "failed", str(error)))

    def abort(self) -> None:
        self.log.append((self.name, "aborted"))
        self.on_abort()


class Script:
    """A reactor over a scripted selector, in virtual time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.selector = ScriptedSelector()
        self.reactor = Reactor(lambda: self.selector, clock=self.clock)
        self.log: list[Any] = []

    def handler(self, fd: int, name: str = "handler", interest: int = READ) -> Handler:
        handler = Handler(self.log, name)
        self.reactor.watch(handler, fd, interest)
        return handler

    def turn(self, *events: tuple[EventHandler, int]) -> list[Any]:
        """Run one turn with these events; return what was logged in it."""
        self.log.clear()
        self.selector.batches.append(list(events))
        self.reactor.run_once(0)
        return list(self.log)


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.reactor.close()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        yield reactor


def raise_boom(*args: object) -> None:
    raise ValueError("boom")


def nothing(*args: object) -> None:
    pass


# --- selectors -----------------------------------------------------------------------------------


@with_every_selector
def test_any_selector_serves_a_listener_and_a_client(selector: Any) -> None:
    failures: list[Exception] = []
    data = bytes(range(256)) * 1000
    with Reactor(selector) as reactor:
        sockets = open_tcp_sockets("127.0.0.1", 0)
        listener = Listener(reactor, sockets, Echo)
        asker = Witness(made=lambda transport: transport.write(data))
        Connector(reactor, asker, listener.addresses[0], failures.append)
        run_until(reactor, lambda: failures or len(asker.received) == len(data))
        assert asker.received == data
        assert not failures


def test_whatever_returns_a_selector_will_do() -> None:
    made = selectors.SelectSelector()
    with Reactor(lambda: made) as reactor:
        assert reactor._selector is made


# --- waiting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "due_in", "expected"),
    [
        (0, None, 0),
        (0, 0.2, 0),
        (3, None, 3),
        (0.1, 0.2, 0.1),
        (3, 0.2, 0.2),
        (None, None, None),
        (None, 0.2, 0.2),
        (None, 0, 0),
        (None, -1, 0),
    ],
)
def test_a_turn_waits_until_the_timeout_or_the_first_timer(
    script: Script, timeout: float | None, due_in: float | None, expected: float | None
) -> None:
    if due_in is not None:
        script.reactor.call_later(due_in, nothing)
    script.reactor.run_once(timeout)
    (waited,) = script.selector.timeouts
    assert waited == (None if expected is None else pytest.approx(expected, abs=2 * TICK))


@pytest.mark.parametrize("what", ["call_soon", "call_soon_threadsafe", "flush_soon", "stop"])
def test_a_turn_does_not_wait_while_there_is_work(script: Script, what: str) -> None:
    if what == "stop":
        script.reactor.stop()
    elif what == "flush_soon":
        script.reactor.flush_soon(Flushed([]))
    else:
        getattr(script.reactor, what)(nothing)
    assert script.reactor.next_timeout() == 0
    script.reactor.run_once()
    assert script.selector.timeouts == [0]


def test_next_timeout_tells_how_long_a_turn_would_wait(script: Script) -> None:
    assert script.reactor.next_timeout() is None
    timer = script.reactor.call_later(0.2, nothing)
    assert script.reactor.next_timeout() == pytest.approx(0.2, abs=2 * TICK)
    script.clock.now += 0.15
    assert script.reactor.next_timeout() == pytest.approx(0.05, abs=2 * TICK)
    script.clock.now += 4
    assert script.reactor.next_timeout() == 0
    timer.cancel()
    assert script.reactor.next_timeout() is None


def test_time_is_read_once_in_a_turn_at_the_end_of_the_wait(
    script: Script, logged: list[logging.LogRecord]
) -> None:
    times: list[float] = []

    def note_and_take_a_second() -> None:
        times.append(script.reactor.time)
        script.clock.now += 1

    def wait(timeout: float | None) -> None:
        script.clock.now += 10

    script.selector.on_select = wait
    handler = script.handler(7)
    handler.then = note_and_take_a_second
    script.reactor.call_later(10, note_and_take_a_second)
    script.reactor.call_soon(note_and_take_a_second)
    script.turn((handler, READ))
    assert times == [1010.0] * 3


# --- the order of a turn -------------------------------------------------------------------------


class Flushed:
    """Something to flush."""

    def __init__(self, log: list[Any], then: Callable[[], object] = nothing) -> None:
        self.log = log
        self.then = then

    def flush(self) -> None:
        self.log.append("flush")
        self.then()

    def on_failure(self, error: Exception) -> None:
        self.log.append(("flush failed", str(error)))


def test_a_turn_dispatches_then_fires_timers_then_runs_callbacks_then_flushes(
    script: Script,
) -> None:
    handler = script.handler(7)
    script.reactor.flush_soon(Flushed(script.log))
    script.reactor.call_soon(script.log.append, "callback")
    script.reactor.call_soon_threadsafe(script.log.append, "handed over")
    script.reactor.call_later(0, script.log.append, "timer")
    assert script.turn((handler, READ)) == [
        ("handler", READ),
        "timer",
        "callback",
        "handed over",
        "flush",
    ]


def test_callbacks_run_in_the_order_of_the_calls(script: Script) -> None:
    for number in range(100):
        script.reactor.call_soon(script.log.append, number)
    assert script.turn() == list(range(100))


def test_callbacks_of_events_and_timers_run_in_the_same_turn(script: Script) -> None:
    handler = script.handler(7)
    handler.then = lambda: script.reactor.call_soon(script.log.append, "from the event")
    script.reactor.call_later(0, script.reactor.call_soon, script.log.append, "from the timer")
    assert script.turn((handler, READ))[1:] == ["from the event", "from the timer"]


def test_callbacks_added_by_callbacks_wait_for_the_next_turn(script: Script) -> None:
    def again(count: int) -> None:
        script.log.append(count)
        script.reactor.call_soon(again, count + 1)

    script.reactor.call_soon(again, 0)
    assert script.turn() == [0]
    assert script.turn() == [1]
    assert script.selector.timeouts == [0, 0]


def test_what_is_written_while_flushing_is_flushed_in_the_next_turn(script: Script) -> None:
    flushed = Flushed(script.log)
    flushed.then = lambda: script.reactor.flush_soon(flushed)
    script.reactor.flush_soon(flushed)
    assert script.turn() == ["flush"]
    assert script.turn() == ["flush"]


# --- time ----------------------------------------------------------------------------------------


def test_a_delay_counts_from_now_and_not_from_the_beginning_of_the_turn(
    script: Script, logged: list[logging.LogRecord]
) -> None:
    fired: list[float] = []

    def take_a_minute() -> None:
        script.clock.now += 60
        script.reactor.call_later(5, lambda: fired.append(script.clock.now))

    script.reactor.call_soon(take_a_minute)
    script.turn()
    script.turn()
    assert fired == []
    script.clock.now += 5.01
    script.turn()
    assert len(fired) == 1


@pytest.mark.parametrize("stalling", ["event", "timer", "callback"])
def test_after_a_stall_input_is_read_before_deadlines_are_judged(
    stage: Stage, stalling: str, logged: list[logging.LogRecord]
) -> None:
    """H90: a loop held for a minute must not find a peer silent whose bytes are there."""
    reactor = stage.reactor
    verdicts: list[str] = []

    def stall(*args: object) -> None:
        stage.clock.now += 60
        theirs.feed(b"I was never silent")  # it comes during the stall

    def hear(data: memoryview) -> None:
        deadline.cancel()
        verdicts.append("heard")

    _, theirs = stage.network.transport(reactor, Witness(data=hear))
    deadline = reactor.call_later(20, verdicts.append, "found silent")
    if stalling == "event":
        _, other_end = stage.network.transport(reactor, Witness(data=stall))
        other_end.feed(b"x")
    elif stalling == "timer":
        reactor.call_later(1, stall)
    else:
        reactor.call_later(1, reactor.call_soon, stall)
    stage.pass_time(200)
    assert verdicts == ["heard"]


def test_a_peer_heard_in_the_turn_of_its_deadline_is_heard_in_time(stage: Stage) -> None:
    verdicts: list[str] = []
    _, theirs = stage.network.transport(stage.reactor, Witness(data=lambda data: deadline.cancel()))
    deadline = stage.reactor.call_later(20, verdicts.append, "found silent")
    stage.clock.now += 30  # the whole process was asleep
    theirs.feed(b"x")
    stage.settle()
    assert verdicts == []


# --- running and stopping ------------------------------------------------------------------------


def test_run_goes_on_until_it_is_stopped(script: Script) -> None:
    count = 0

    def on_select(timeout: float | None) -> None:
        nonlocal count
        count += 1
        if count == 5:
            script.reactor.call_soon(script.reactor.stop)

    script.selector.on_select = on_select
    script.reactor.run()
    assert count == 5


def test_stop_lets_the_present_turn_end(script: Script) -> None:
    handler = script.handler(7)
    handler.then = script.reactor.stop
    script.reactor.call_later(0, script.log.append, "timer")
    script.reactor.call_soon(script.log.append, "callback")
    script.reactor.flush_soon(Flushed(script.log))
    script.selector.batches.append([(handler, READ)])
    script.reactor.run()
    assert script.log == [("handler", READ), "timer", "callback", "flush"]


def test_stop_before_run_makes_it_return_at_once(script: Script) -> None:
    script.reactor.stop()
    script.reactor.run()
    assert script.selector.timeouts == []


def test_a_stop_is_good_for_one_run(script: Script) -> None:
    script.reactor.stop()
    script.reactor.run()
    script.reactor.call_soon(script.reactor.stop)
    script.reactor.run()
    assert len(script.selector.timeouts) == 1


@pytest.mark.parametrize("name", ["run", "run_once", "close"])
def test_no_turn_from_within_a_turn(
    script: Script, name: str, logged: list[logging.LogRecord]
) -> None:
    errors: list[Exception] = []

    def call() -> None:
        try:
            getattr(script.reactor, name)()
        except ReactorRunning as error:
            errors.append(error)

    script.reactor.call_soon(call)
    script.turn()
    assert len(errors) == 1
    assert logged == []


def test_a_run_from_within_a_callback_does_not_swallow_the_stop(script: Script) -> None:
    def stop_and_run() -> None:
        script.reactor.stop()
        with pytest.raises(ReactorRunning):
            script.reactor.run()

    script.reactor.call_soon(stop_and_run)
    script.reactor.run()
    assert len(script.selector.timeouts) == 1


# --- driven by another main loop -----------------------------------------------------------------


@needs_epoll
def test_an_outer_select_sees_that_a_turn_is_due(reactor: Reactor) -> None:
    with selectors.DefaultSelector() as outer:
        outer.register(reactor.fileno(), selectors.EVENT_READ)
        witness = Witness()
        with connected_pair(reactor, witness) as (transport, theirs):
            assert outer.select(0) == []
            theirs.sendall(b"x")
            assert outer.select(FAIL_SAFE) != []
            reactor.run_once(0)
            assert witness.received == b"x"
            assert outer.select(0) == []
            reactor.call_soon_threadsafe(transport.close)
            assert outer.select(FAIL_SAFE) != []
            reactor.run_once(0)
            assert witness.is_lost or reactor.next_timeout() == 0
            reactor.run_once(0)
            assert witness.is_lost


@needs_epoll
def test_asyncio_drives_the_reactor() -> None:
    with Reactor() as reactor:
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), Echo)
        host, port = listener.addresses[0]

        async def ask() -> bytes:
            loop = asyncio.get_running_loop()
            loop.add_reader(reactor.fileno(), reactor.run_once, 0)
            try:
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"from asyncio")
                answer = await asyncio.wait_for(reader.readexactly(12), FAIL_SAFE)
                writer.close()
                await writer.wait_closed()
            finally:
                loop.remove_reader(reactor.fileno())
            return answer

        assert asyncio.run(ask()) == b"from asyncio"


def test_a_selector_without_a_descriptor_says_so() -> None:
    with Reactor(selectors.SelectSelector) as reactor, pytest.raises(AttributeError):
        reactor.fileno()


# --- exceptions ----------------------------------------------------------------------------------


def arrange(script: Script, place: str, raising: Callable[..., object]) -> None:
    """Make something raise in the next turn, with one of the same kind after it."""
    for action in (raising, script.log.append):
        if place == "timer":
            script.reactor.call_later(0, action, "after")
        elif place == "callback":
            script.reactor.call_soon(action, "after")
        elif place == "handed over":
            script.reactor.call_soon_threadsafe(action, "after")
        elif place == "flush":
            then = raising if action is raising else nothing
            script.reactor.flush_soon(Flushed(script.log, then))
    if place == "event":
        first, second = script.handler(7, "first"), script.handler(8, "second")
        first.then = raising
        script.selector.batches.append([(first, READ), (second, READ)])


PLACES = {
    "event": [("first", READ), ("first", "failed", "boom"), ("second", READ)],
    "timer": ["after"],
    "callback": ["after"],
    "handed over": ["after"],
    "flush": ["flush", ("flush failed", "boom"), "flush"],
}


@pytest.mark.parametrize("place", PLACES)
def test_an_exception_is_logged_and_costs_nothing_else(
    script: Script, place: str, logged: list[logging.LogRecord]
) -> None:
    arrange(script, place, raise_boom)
    script.reactor.run_once(0)
    assert script.log == PLACES[place]
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
    assert script.turn() == []


@pytest.mark.parametrize("stopper", STOPPERS)
@pytest.mark.parametrize("place", PLACES)
def test_the_end_of_the_program_passes_through_and_nothing_is_lost(
    script: Script, place: str, stopper: type[BaseException]
) -> None:
    def end(*args: object) -> None:
        raise stopper

    script.reactor.call_soon_threadsafe(script.log.append, "work of another thread")
    arrange(script, place, end)
    script.reactor.flush_soon(Flushed(script.log))
    later = script.handler(9, "later")
    with pytest.raises(stopper):
        script.reactor.run()
    seen = list(script.log)
    for _ in range(3):
        seen += script.turn((later, READ))
    assert seen.count(("later", READ)) == 3
    assert seen.count("work of another thread") == 1
    assert seen.count("flush") == (3 if place == "flush" else 1)
    if place in ("timer", "callback", "handed over"):
        assert seen.count("after") == 1


def test_real_input_is_not_lost_when_an_earlier_event_ends_the_program(reactor: Reactor) -> None:
    def end(*args: object) -> None:
        for witness in witnesses:
            witness.hooks.clear()
        raise KeyboardInterrupt

    witnesses = [Witness(data=end), Witness(data=end)]
    with connected_pairs(reactor, *witnesses) as pairs:
        for _, theirs in pairs:
            theirs.sendall(b"x")
        with pytest.raises(KeyboardInterrupt):
            reactor.run_once(FAIL_SAFE)
        run_until(reactor, lambda: all(witness.received for witness in witnesses))
        assert [bytes(witness.received) for witness in witnesses] == [b"x", b"x"]


def test_a_handler_that_raises_while_cleaning_up_costs_nothing_else(
    script: Script, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(Handler, "on_failure", raise_boom)
    first, second = script.handler(7, "first"), script.handler(8, "second")
    first.then = raise_boom
    assert script.turn((first, READ), (second, READ)) == [("first", READ), ("second", READ)]
    assert len(logged) == 2


def test_a_handler_whose_picture_raises_is_logged_all_the_same(
    script: Script, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(Handler, "__repr__", raise_boom)
    handler = script.handler(7)
    handler.then = raise_boom
    assert script.turn((handler, READ)) == [("handler", READ), ("handler", "failed", "boom")]
    assert "Handler object at" in logged[0].getMessage()


def test_the_log_names_the_callback(script: Script, logged: list[logging.LogRecord]) -> None:
    script.reactor.call_soon(raise_boom)
    script.reactor.call_later(0, raise_boom)
    script.turn()
    assert [record.getMessage() for record in logged] == ["callback raise_boom raised"] * 2


# --- readiness -----------------------------------------------------------------------------------


def test_interest_decides_what_the_selector_watches(script: Script) -> None:
    handler = script.handler(7, interest=0)
    watched = script.selector.registered
    seen = []
    for interest in (READ, READ | WRITE, READ | WRITE, WRITE, 0, 0, WRITE):
        script.reactor.set_interest(handler, interest)
        seen.append(watched.get(7))
    assert seen == [READ, READ | WRITE, READ | WRITE, WRITE, None, None, WRITE]
    script.reactor.unwatch(handler)
    script.reactor.unwatch(handler)
    assert 7 not in watched
    assert handler.fd == -1


@pytest.mark.parametrize("name", ["on_ready", "on_failure", "abort"])
def test_a_handler_must_have_all_three_methods(name: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(EventHandler(), name)(*([] if name == "abort" else [READ]))


def test_an_event_whose_handler_was_closed_in_the_same_batch_is_dropped(script: Script) -> None:
    """H100: the number of the descriptor has a new owner by the time the event's turn comes."""
    first, second = script.handler(7, "first"), script.handler(8, "second")

    def replace() -> None:
        script.reactor.unwatch(second)
        script.handler(8, "new")

    first.then = replace
    assert script.turn((first, READ), (second, READ)) == [("first", READ)]


def test_an_event_in_which_interest_was_lost_in_the_same_batch_is_dropped(script: Script) -> None:
    first = script.handler(7, "first")
    second = script.handler(8, "second", READ | WRITE)
    first.then = lambda: script.reactor.set_interest(second, WRITE)
    both = READ | WRITE
    assert script.turn((first, READ), (second, both)) == [("first", READ), ("second", WRITE)]
    first.then = lambda: script.reactor.set_interest(second, 0)
    assert script.turn((first, READ), (second, both)) == [("first", READ)]


@with_every_selector
def test_a_real_descriptor_that_is_reused_in_a_batch_gets_no_stale_event(selector: Any) -> None:
    """H100 with real sockets; which of the two is dispatched first is the selector's affair."""
    newcomer = Witness()
    transports: list[Transport] = []

    def replace_the_other(number: int) -> Callable[[memoryview], None]:
        def replace(data: memoryview) -> None:
            victim = transports[1 - number]
            reused = victim.fd
            victim.abort()
            os.dup2(new_socket.fileno(), reused)
            sock = socket.socket(fileno=reused)
            sock.setblocking(False)
            Transport(reactor, sock, newcomer).start()

        return replace

    witnesses = [Witness(data=replace_the_other(number)) for number in range(2)]
    new_socket, new_end = socket.socketpair()
    with (
        Reactor(selector) as reactor,
        new_socket,
        new_end,
        connected_pairs(reactor, *witnesses) as pairs,
    ):
        transports += [transport for transport, _ in pairs]
        for _, theirs in pairs:
            theirs.sendall(b"x")
        new_end.sendall(b"for the new one")
        reactor.run_once(FAIL_SAFE)
        # Its bytes lie there, but the event was not about them.
        assert newcomer.names == ["made"]
        run_until(reactor, lambda: newcomer.received)
        assert sorted(witness.names for witness in witnesses) == [
            ["made", "data"],
            ["made", "lost"],
        ]


@with_every_selector
def test_a_transport_paused_by_another_in_the_same_batch_is_not_read(selector: Any) -> None:
    with Reactor(selector) as reactor:
        transports: list[Transport] = []

        def pause_the_other(number: int) -> Callable[[memoryview], None]:
            return lambda data: transports[1 - number].pause_reading()

        witnesses = [Witness(data=pause_the_other(number)) for number in range(2)]
        with connected_pairs(reactor, *witnesses) as pairs:
            for transport, theirs in pairs:
                transports.append(transport)
                theirs.sendall(b"x")
            reactor.run_once(FAIL_SAFE)
            assert sorted(bytes(witness.received) for witness in witnesses) == [b"", b"x"]
            for transport in transports:
                transport.resume_reading()
            run_until(reactor, lambda: all(witness.received for witness in witnesses))


def test_a_selector_that_chokes_on_a_descriptor_costs_the_one_that_came_last(
    script: Script, logged: list[logging.LogRecord]
) -> None:
    """select() takes no descriptor above 1,023, on Windows no more than 512 of them."""

    def choke(timeout: float | None) -> None:
        if 2000 in script.selector.registered:
            raise ValueError("filedescriptor out of range in select()")

    first, last = script.handler(7, "first"), script.handler(2000, "last")
    last.on_abort = lambda: script.reactor.unwatch(last)
    script.selector.on_select = choke
    assert script.turn() == [("last", "aborted")]
    assert script.turn((first, READ)) == [("first", READ)]
    (record,) = logged
    assert "out of range" in record.getMessage()


def test_a_selector_that_chokes_on_nothing_of_ours_is_not_hushed_up(script: Script) -> None:
    def choke(timeout: float | None) -> None:
        raise ValueError("broken")

    script.selector.on_select = choke
    with pytest.raises(ValueError, match="broken"):
        script.reactor.run_once(0)


def test_a_real_select_goes_on_without_a_descriptor_beyond_its_range(
    logged: list[logging.LogRecord],
) -> None:
    fcntl = pytest.importorskip("fcntl")
    with Reactor(selectors.SelectSelector) as reactor:
        near, far = Witness(), Witness()
        with connected_pair(reactor, near) as (_, near_end):
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    number = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, 1024)
                except OSError:
                    pytest.skip("the limit on open files is lower than select()'s")
                finally:
                    ours.close()
                sock = socket.socket(fileno=number)
                sock.setblocking(False)
                Transport(reactor, sock, far).start()
                near_end.sendall(b"x")
                run_until(reactor, lambda: near.received)
                assert far.losses == [None]
                assert not near.is_lost
    assert len(logged) == 1


# --- closing -------------------------------------------------------------------------------------


def test_closing_aborts_whatever_is_open_and_tells_the_protocols() -> None:
    network = FakeNetwork()
    reactor = network.reactor()
    witnesses = [Witness() for _ in range(5)]
    ends = [network.transport(reactor, witness, capacity=3) for witness in witnesses]
    ends[1][0].write(b"will not be sent")
    ends[2][0].pause_reading()  # of interest in nothing: no selector knows it
    ends[3][1].end()
    ends[3][0].get_protocol().hooks["eof"] = lambda: True  # type: ignore[attr-defined]  # Witness
    ends[4][0].abort()
    reactor.run_once(0)
    reactor.close()
    assert [witness.losses for witness in witnesses] == [[None]] * 5
    assert all(theirs.has_eof for _, theirs in ends)


def test_closing_runs_the_callbacks_that_are_ready_and_no_timers(script: Script) -> None:
    script.reactor.call_soon(script.log.append, "ready")
    script.reactor.call_soon_threadsafe(script.log.append, "handed over")
    script.reactor.call_later(-1, script.log.append, "timer")
    script.reactor.close()
    assert script.log == ["ready", "handed over"]


def test_closing_comes_to_an_end_though_callbacks_go_on_for_ever(script: Script) -> None:
    def again() -> None:
        script.log.append("again")
        script.reactor.call_soon(again)

    script.reactor.call_soon(again)
    script.reactor.close()
    assert script.log == ["again"]


def test_closing_goes_on_when_something_raises(
    script: Script, logged: list[logging.LogRecord]
) -> None:
    first = script.handler(7, "first")
    script.handler(8, "second")
    first.on_abort = raise_boom
    script.reactor.call_soon(raise_boom)
    script.reactor.call_soon(script.log.append, "after")
    script.reactor.close()
    assert script.log == [("first", "aborted"), ("second", "aborted"), "after"]
    assert len(logged) == 2


@pytest.mark.parametrize("stopper", STOPPERS)
def test_closing_releases_everything_even_when_the_program_ends(
    stopper: type[BaseException],
) -> None:
    def end(error: Exception | None) -> None:
        raise stopper

    reactor = Reactor()
    with connected_pair(reactor, Witness(lost=end)), pytest.raises(stopper):
        reactor.close()
    assert reactor._wakeup.fileno() == -1
    reactor.close()


def test_closing_twice_is_harmless(script: Script) -> None:
    script.handler(7)
    script.reactor.close()
    script.reactor.close()
    assert script.log == [("handler", "aborted")]


def test_leaving_the_block_closes() -> None:
    with Reactor() as reactor:
        witness = Witness()
        with connected_pair(reactor, witness):
            pass
        assert not witness.is_lost
    assert witness.losses == [None]
    with pytest.raises(ReactorClosed):
        reactor.run_once(0)


def test_the_thread_that_closes_owns_the_reactor_meanwhile() -> None:
    claims: list[bool] = []
    reactor = Reactor()
    thread = threading.Thread(target=reactor.run_once, args=(0,))
    thread.start()
    thread.join()
    reactor.call_soon(lambda: claims.append(reactor.is_own_thread()))
    reactor.close()
    assert claims == [True]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run", ()),
        ("run_once", (0,)),
        ("call_soon_threadsafe", (nothing,)),
        ("run_in_executor", (nothing,)),
        ("add_signal_handler", (2, nothing)),
        ("watch", (Handler([]), 7, READ)),
    ],
)
def test_a_closed_reactor_says_so(script: Script, name: str, arguments: tuple[Any, ...]) -> None:
    script.reactor.close()
    with pytest.raises(ReactorClosed, match="the reactor is closed"):
        getattr(script.reactor, name)(*arguments)


def test_a_stop_does_not_hide_that_the_reactor_is_closed(script: Script) -> None:
    script.reactor.stop()
    script.reactor.close()
    with pytest.raises(ReactorClosed):
        script.reactor.run()
