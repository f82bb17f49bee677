"""Reconnecting in virtual time: an internet in memory, and random numbers in the test's hand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import pytest
from scripted import GOOD, LIMITS, ScriptedServer, answer_of
from support import FakeClock, Recorder, Stage, as_socket, run_until

import websocket.client
from reactor import ConnectFailed, Protocol, Reactor, Transport
from websocket import (
    Cause,
    CloseCode,
    Connection,
    HandshakeError,
    Limits,
    Reconnect,
    Server,
    State,
    connect,
)

URL = "ws://example.com/"
# What waits in these tests is the reconnecting, and nothing else.
QUIET = Limits(ping_interval=None)
REFUSED = ConnectFailed("refused")


class Internet:
    """Stand in for every ``Connector`` of the client: refuse, or connect to a server in memory.

    Attributes:
        server: who answers; None to refuse.
        answers: raw answers to give first, one for each try, instead of the server's.
        tries: when each try began.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.server: Server | None = None
        self.answers: deque[bytes] = deque()
        self.tries: list[float] = []
        self.connectors: list[FakeConnector] = []

    def connect(
        self,
        reactor: Reactor,
        protocol: Protocol,
        target: object,
        on_failed: Callable[[ConnectFailed], object],
        **options: Any,
    ) -> FakeConnector:
        self.tries.append(self._stage.clock.now)
        connector = FakeConnector()
        self.connectors.append(connector)
        reactor.call_soon(self._decide, connector, protocol, on_failed)
        return connector

    def _decide(
        self,
        connector: FakeConnector,
        protocol: Protocol,
        on_failed: Callable[[ConnectFailed], object],
    ) -> None:
        if connector.is_cancelled:
            return
        if self.server is None and not self.answers:
            on_failed(REFUSED)
            return
        ours, theirs = self._stage.network.pair()
        if self.answers:
            theirs.feed(self.answers.popleft())
        else:
            assert self.server is not None
            self.server.adopt(as_socket(theirs))
        Transport(self._stage.reactor, as_socket(ours), protocol).start()

    @property
    def waits(self) -> list[float]:
        """The seconds between one try and the next."""
        return [later - earlier for earlier, later in zip(self.tries, self.tries[1:])]


class FakeConnector:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def internet(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Internet:
    internet = Internet(stage)
    monkeypatch.setattr(websocket.client, "Connector", internet.connect)
    return internet


def approximately(*seconds: float) -> Any:
    """Tolerate the tick of the timers."""
    return pytest.approx(list(seconds), abs=0.05)


def always(number: float) -> Callable[[], float]:
    return lambda: number


def start(
    stage: Stage, keeper: Reconnect | bool, connection_class: type[Recorder] = Recorder
) -> Recorder:
    client = connect(stage.reactor, URL, connection_class, reconnect=keeper, limits=QUIET)
    stage.settle()
    return client


def present(keeper: Reconnect) -> Recorder:
    """Return the present connection, or the last one while waiting."""
    assert isinstance(keeper.connection, Recorder)
    return keeper.connection


# --- how long to wait -------------------------------------------------------------------------


def test_the_bounds_double_up_to_the_cap(stage: Stage, internet: Internet) -> None:
    start(stage, Reconnect(random_source=always(1.0)))
    stage.pass_time(250)
    assert internet.waits == approximately(5, 2, 4, 8, 16, 32, 60, 60, 60)


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({"first": 0}, (0, 2, 4, 8)),
        ({"first": 1, "base": 0.5}, (1, 1, 2, 4)),
        ({"first": 100, "cap": 3}, (3, 2, 3, 3)),
    ],
)
def test_the_bounds_can_be_set(
    stage: Stage, internet: Internet, options: dict[str, Any], waits: tuple[float, ...]
) -> None:
    start(stage, Reconnect(**options, random_source=always(1.0)))
    stage.pass_time(sum(waits) + 1)
    assert internet.waits[:4] == approximately(*waits)


def test_the_wait_is_drawn_between_zero_and_the_bound(stage: Stage, internet: Internet) -> None:
    numbers = iter([0.5, 0.25, 0.0, 0.75, 1.0])
    start(stage, Reconnect(random_source=lambda: next(numbers)))
    stage.pass_time(2.5 + 0.5 + 0 + 6 + 15)
    assert internet.waits == approximately(2.5, 0.5, 0, 6)


def test_by_default_chance_decides(stage: Stage, internet: Internet) -> None:
    keepers = [Reconnect() for _ in range(20)]
    for keeper in keepers:
        start(stage, keeper)
    stage.pass_time(5.1)
    # Twenty clients that lost the same server at the same moment.
    again = internet.tries[20:]
    assert len(again) >= 20
    assert len({round(each, 2) for each in again}) > 10


def test_the_bound_stays_after_any_number_of_failures(stage: Stage, internet: Internet) -> None:
    keeper = Reconnect(random_source=always(1.0))
    start(stage, keeper)
    keeper._failures = 10**9
    stage.pass_time(200)
    assert internet.waits[-2:] == approximately(60, 60)


@pytest.mark.parametrize(("seconds", "wait"), [(61, 5), (59, 8)])
def test_the_waits_start_anew_after_a_minute_of_connection(
    stage: Stage, internet: Internet, seconds: float, wait: float
) -> None:
    keeper = Reconnect(random_source=always(1.0))
    start(stage, keeper)
    stage.pass_time(5 + 2.5)
    internet.server = stage.server()
    stage.pass_time(4)
    assert present(keeper).is_open
    stage.pass_time(seconds - 0.5)
    internet.server.connections[0].abort()
    internet.server = None
    lost = stage.clock.now
    stage.pass_time(wait + 1)
    assert internet.tries[-1] - lost == pytest.approx(wait, abs=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"first": -1},
        {"cap": -1},
        {"reset_after": -0.1},
        {"base": 0},
        {"base": -1},
        {"first": float("nan")},
        {"cap": float("inf")},
        {"reset_after": float("nan")},
    ],
)
def test_nonsense_is_a_value_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="times of a reconnect"):
        Reconnect(**options)


def test_h127_ten_thousand_failures_at_once_are_no_recursion(
    stage: Stage, internet: Internet
) -> None:
    keeper = Reconnect(cap=0)
    client = connect(stage.reactor, URL, Recorder, reconnect=keeper, limits=QUIET)
    for _ in range(100_000):
        stage.reactor.run_once()
        if len(internet.tries) > 10_000:
            break
    assert len(internet.tries) > 10_000
    assert client.events == [("error", ConnectFailed, "refused")]
    keeper.stop()
    stage.settle()
    assert len(stage.reactor._wheel) == 0


# --- what the server says ---------------------------------------------------------------------


def refusal(status: int, *fields: str) -> bytes:
    return answer_of(*fields, status=f"{status} No", upgrade=False)


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 502, 503, 200])
def test_a_refusal_is_followed_by_another_try(
    stage: Stage, internet: Internet, status: int
) -> None:
    internet.answers.extend([refusal(status), b""])
    start(stage, Reconnect(random_source=always(1.0)))
    stage.pass_time(5.1)
    assert len(internet.tries) == 2


@pytest.mark.parametrize("status", [401, 403, 407])
def test_h127_who_is_not_wanted_does_not_try_again(
    stage: Stage, internet: Internet, status: int
) -> None:
    internet.answers.append(refusal(status))
    keeper = Reconnect()
    client = start(stage, keeper)
    assert not keeper.is_waiting
    stage.pass_time(1000)
    assert len(internet.tries) == 1
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == status
    assert stage.reactor.next_timeout() is None


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (502, 2)])
def test_a_proxy_that_refuses_counts_as_a_server(
    stage: Stage, internet: Internet, monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    monkeypatch.setattr("websocket.tunnel.Connector", internet.connect)
    internet.answers.append(refusal(status))
    keeper = Reconnect(random_source=always(1.0))
    connect(stage.reactor, URL, Recorder, reconnect=keeper, proxy="http://x", limits=QUIET)
    stage.pass_time(5.1)
    assert len(internet.tries) == tries


@pytest.mark.parametrize(
    ("value", "least"),
    [
        ("7", 7),
        ("0", 0),
        ("007", 7),
        ("99999999999999999999", 3600),
        ("3601", 3600),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("-5", 0),
        ("1.5", 0),
        ("\xb2", 0),
        ("", 0),
    ],
)
def test_h127_a_hint_of_the_server_is_the_least_wait(
    stage: Stage, internet: Internet, value: str, least: float
) -> None:
    for number in (0.0, 1.0):
        internet.answers.append(
            refusal(503).replace(b"\r\n\r\n", f"\r\nRetry-After: {value}\r\n\r\n".encode("latin-1"))
        )
        internet.tries.clear()
        keeper = Reconnect(first=3, random_source=chain([number], repeat(1.0)).__next__)
        start(stage, keeper)
        stage.pass_time(least + 3.1)
        assert internet.waits[0] == pytest.approx(least + number * 3, abs=0.05)
        keeper.stop()


def test_a_hint_among_other_fields(stage: Stage, internet: Internet) -> None:
    internet.answers.append(refusal(429, "X: 99", "RETRY-AFTER: 20", "Retry-After: 1"))
    start(stage, Reconnect(first=0))
    stage.pass_time(30)
    assert internet.waits[0] == pytest.approx(20, abs=0.05)


def test_h127_a_hint_may_be_a_date(stage: Stage, internet: Internet) -> None:
    sent = "Date: Fri, 31 Dec 1999 23:59:40 GMT"
    internet.answers.append(refusal(503, sent, "Retry-After: Sat, 01 Jan 2000 00:00:00 GMT"))
    start(stage, Reconnect(first=0))
    stage.pass_time(30)
    assert internet.waits[0] == pytest.approx(20, abs=0.05)


HINTED = [
    (1012, "the server is restarting; retry after 2.53 s", 2.53),
    (1001, "retry after 0 s", 0),
    (1013, "busy; retry after 59.5 s", 59.5),
    (1012, "retry after 61 s", 60),
    (1012, "retry after 999999 s", 60),
]


@pytest.mark.parametrize(("code", "reason", "wait"), HINTED)
def test_h127_a_hint_in_a_close_frame_is_the_wait(
    stage: Stage, internet: Internet, code: int, reason: str, wait: float
) -> None:
    """The server has drawn it for this client alone, so nothing is added; cap is the most."""
    internet.server = stage.server()
    start(stage, Reconnect(random_source=always(1.0)))
    stage.pass_time(1)
    ended = stage.clock.now
    internet.server.connections[0].end(Cause.SHUTDOWN, code, reason)
    stage.pass_time(61)
    assert internet.tries[1] - ended == pytest.approx(wait, abs=0.05)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1012, "retry after -1 s"),
        (1012, "retry after inf s"),
        (1012, "retry after a while"),
        (1000, "retry after 2.53 s"),
        (4001, "retry after 2.53 s"),
    ],
)
def test_h127_nonsense_in_a_close_frame_changes_nothing(
    stage: Stage, internet: Internet, code: int, reason: str
) -> None:
    internet.server = stage.server()
    start(stage, Reconnect(random_source=always(1.0)))
    internet.server.connections[0].end(Cause.SHUTDOWN, code, reason)
    stage.pass_time(10)
    assert internet.waits == approximately(5)


def test_h127_a_server_that_sends_away_again_and_again_is_not_flooded(
    stage: Stage, internet: Internet
) -> None:
    class Busy(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            self.end(Cause.SHUTDOWN, 1012, "retry after 0 s")

    internet.server = stage.server(Busy)
    start(stage, Reconnect(random_source=always(1.0)))
    stage.pass_time(200)
    assert internet.waits[:7] == approximately(0, 2, 4, 8, 16, 32, 60)


def test_a_hint_of_ours_is_not_taken_for_the_servers(stage: Stage, internet: Internet) -> None:
    """A close frame that the client itself has sent, because it was idle for example."""
    internet.server = stage.server()
    client = start(stage, Reconnect(random_source=always(1.0)))
    client.end(Cause.IDLE_TIMEOUT, 1001, "idle")
    stage.pass_time(6)
    assert internet.waits == approximately(5)


def test_who_was_replaced_does_not_come_back(stage: Stage, internet: Internet) -> None:
    """Two clients with one session would take it from each other for ever."""
    internet.server = stage.server()
    keeper = Reconnect()
    first = start(stage, keeper)
    second = connect(stage.reactor, URL, Recorder, session_id=first.session_id, limits=QUIET)
    stage.settle()
    assert first.events[-1][:2] == ("close", CloseCode.SESSION_REPLACED)
    assert second.is_open
    assert not keeper.is_waiting
    stage.pass_time(100)
    assert len(internet.tries) == 2


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1012, 1013, 4001])
def test_any_other_end_is_followed_by_another_try(
    stage: Stage, internet: Internet, code: int
) -> None:
    internet.server = stage.server()
    keeper = Reconnect()
    first = start(stage, keeper)
    internet.server.connections[0].end(Cause.SHUTDOWN, code, "see you")
    stage.settle()
    assert first.events[-1] == ("close", code, "see you")
    assert keeper.is_waiting
    stage.pass_time(5.1)
    assert present(keeper) is not first
    assert present(keeper).is_open


# --- what stays and what does not -------------------------------------------------------------


def test_h127_every_try_is_a_new_connection_that_resumes_the_session(
    stage: Stage, internet: Internet
) -> None:
    class Counting(Recorder):
        __slots__ = ("count",)

        def on_open(self) -> None:
            super().on_open()
            self.count = 0

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            self.count += 1

    server = internet.server = stage.server()
    keeper = Reconnect()
    seen: list[Recorder] = [start(stage, keeper, Counting)]
    session = server.connections[0].session
    assert session is not None
    session.data["name"] = "Ann"
    for round_ in range(3):
        (ours,) = server.connections
        ours.send(f"message {round_}")
        stage.settle()
        ours.abort()
        stage.pass_time(61)
        seen.append(present(keeper))
    assert len({id(each) for each in seen}) == len({each.id for each in seen}) == 4
    assert [each.messages for each in seen] == [["message 0"], ["message 1"], ["message 2"], []]
    assert [getattr(each, "count", None) for each in seen] == [1, 1, 1, 0]
    assert all(type(each) is Counting for each in seen)
    assert [each.session_id for each in seen] == [session.id] * 4
    assert server.connections[0].session is session
    assert session.data == {"name": "Ann"}


def test_a_session_that_the_server_has_forgotten_is_a_new_one(
    stage: Stage, internet: Internet
) -> None:
    internet.server = stage.server()
    keeper = Reconnect()
    first = start(stage, keeper)
    before = internet.server
    internet.server = stage.server()
    before.close()
    stage.pass_time(6)
    second = present(keeper)
    assert second.is_open
    assert second.session_id != first.session_id


def test_a_try_that_fails_keeps_the_session_for_the_next(stage: Stage, internet: Internet) -> None:
    server = internet.server = stage.server()
    keeper = Reconnect(random_source=always(1.0))
    first = start(stage, keeper)
    internet.server = None
    server.connections[0].abort()
    stage.pass_time(8)
    internet.server = server
    stage.pass_time(5)
    assert present(keeper).is_open
    assert present(keeper).session_id == first.session_id


def test_the_deadline_of_the_handshake_holds_for_every_try(
    stage: Stage, internet: Internet
) -> None:
    internet.answers.extend([b"", b"HTTP/1.1 101"])
    keeper = Reconnect(random_source=always(1.0))
    start(stage, keeper)
    stage.pass_time(10 + 5 + 10 + 2 + 0.5)
    assert internet.waits == approximately(15, 12)


def test_a_try_that_is_under_way_is_not_waited_for(stage: Stage, internet: Internet) -> None:
    keeper = Reconnect(random_source=always(1.0))
    assert not keeper.is_waiting
    start(stage, keeper)
    assert keeper.is_waiting
    internet.answers.append(b"")
    stage.pass_time(5.1)
    assert not keeper.is_waiting
    assert present(keeper).state is State.CONNECTING


# --- giving up --------------------------------------------------------------------------------


def bring_to(phase: str, stage: Stage, internet: Internet, keeper: Reconnect) -> Recorder:
    """Return the present connection in a phase of its life, in its second try."""
    server = stage.server(limits=Limits(ping_interval=None, close_timeout=1000.0))
    internet.answers.append(refusal(503))
    client = start(stage, keeper)
    assert keeper.is_waiting
    if phase == "connecting":
        stage.clock.now += 5.1
        stage.reactor.run_once(0)
        internet.connectors[-1].is_cancelled = True  # it never comes to a decision
        stage.settle()
        internet.connectors[-1].is_cancelled = False
    elif phase == "asked":
        internet.answers.append(b"HTTP/1.1 ")
        stage.pass_time(5.1)
    elif phase in {"open", "closing"}:
        internet.server = server
        stage.pass_time(5.1)
    if phase != "waiting":
        assert present(keeper) is not client
    if phase == "closing":
        server.connections[0].pause()
        present(keeper).close()
        stage.settle()
        assert present(keeper).state is State.CLOSING
    return present(keeper)


PHASES = ["waiting", "connecting", "asked", "open"]


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("phase", [*PHASES, "closing"])
def test_closing_the_connection_ends_it(
    stage: Stage, internet: Internet, phase: str, way: str
) -> None:
    keeper = Reconnect(random_source=always(1.0))
    client = bring_to(phase, stage, internet, keeper)
    tries = len(internet.tries)
    getattr(client, way)()
    assert not keeper.is_waiting
    stage.pass_time(1000)
    assert client.state is State.CLOSED
    assert present(keeper) is client
    assert len(internet.tries) == tries
    assert len(stage.reactor._wheel) == 0 or internet.server is not None


@pytest.mark.parametrize("phase", PHASES)
def test_stop_ends_it_and_leaves_an_open_connection_open(
    stage: Stage, internet: Internet, phase: str
) -> None:
    keeper = Reconnect(random_source=always(1.0))
    client = bring_to(phase, stage, internet, keeper)
    tries = len(internet.tries)
    keeper.stop()
    keeper.stop()
    assert not keeper.is_waiting
    stage.pass_time(50)
    assert client.is_open == (phase == "open")
    client.close()
    stage.pass_time(1000)
    assert client.state is State.CLOSED
    assert len(internet.tries) == tries


@pytest.mark.parametrize("phase", PHASES)
def test_close_ends_it_and_the_present_connection(
    stage: Stage, internet: Internet, phase: str
) -> None:
    keeper = Reconnect(random_source=always(1.0))
    client = bring_to(phase, stage, internet, keeper)
    tries = len(internet.tries)
    keeper.close(3000, "enough")
    keeper.close()
    stage.pass_time(1000)
    assert client.state is State.CLOSED
    assert not keeper.is_waiting
    assert len(internet.tries) == tries
    if phase == "open":
        assert client.events[-1] == ("close", 3000, "enough")


def test_close_before_connect_makes_it_one_try(stage: Stage, internet: Internet) -> None:
    keeper = Reconnect()
    keeper.close()
    start(stage, keeper)
    stage.pass_time(100)
    assert len(internet.tries) == 1


def test_a_bad_close_code_leaves_it_as_it_was(stage: Stage, internet: Internet) -> None:
    internet.server = stage.server()
    keeper = Reconnect(random_source=always(1.0))
    client = start(stage, keeper)
    with pytest.raises(ValueError, match="code"):
        keeper.close(1005)
    assert client.is_open
    internet.server.connections[0].abort()
    stage.pass_time(6)
    assert present(keeper).is_open


def test_a_server_that_never_answers_our_close_does_not_bring_us_back(
    stage: Stage, internet: Internet
) -> None:
    keeper = Reconnect()
    client = bring_to("closing", stage, internet, keeper)
    stage.pass_time(QUIET.close_timeout + 0.1)
    assert client.cause is Cause.CLOSE_TIMEOUT
    assert client.state is State.CLOSED
    stage.pass_time(1000)
    assert present(keeper) is client


@pytest.mark.parametrize("event", ["on_close", "on_error"])
@pytest.mark.parametrize("way", ["close", "stop"])
def test_it_may_be_ended_from_within_the_last_callback(
    stage: Stage, internet: Internet, event: str, way: str
) -> None:
    keeper = Reconnect()

    def end(self: Connection, *args: object) -> None:
        if way == "close":
            self.close()
        else:
            keeper.stop()

    ending = type("Ending", (Recorder,), {"__slots__": (), event: end})
    if event == "on_close":
        internet.server = stage.server()
    start(stage, keeper, ending)
    if internet.server is not None:
        internet.server.connections[0].abort()
    stage.pass_time(100)
    assert len(internet.tries) == 1
    assert not keeper.is_waiting


def test_closing_from_within_on_open_ends_it(stage: Stage, internet: Internet) -> None:
    class Brief(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            super().on_open()
            self.close(3000, "that is all")

    internet.server = stage.server()
    client = start(stage, True, Brief)
    stage.pass_time(100)
    assert client.events == [("open",), ("close", 3000, "that is all")]
    assert len(internet.tries) == 1


def test_who_is_stopped_beforehand_tries_once(stage: Stage, internet: Internet) -> None:
    keeper = Reconnect()
    keeper.stop()
    client = start(stage, keeper)
    stage.pass_time(100)
    assert len(internet.tries) == 1
    assert client.events == [("error", ConnectFailed, "refused")]


@pytest.mark.parametrize(("reconnect", "tries"), [(True, 2), (False, 1)])
def test_yes_and_no_will_do(stage: Stage, internet: Internet, reconnect: bool, tries: int) -> None:
    start(stage, reconnect)
    internet.answers.append(b"")
    stage.pass_time(5.1)
    assert len(internet.tries) == tries


def test_a_reactor_that_is_closed_ends_it(stage: Stage, internet: Internet) -> None:
    internet.server = stage.server()
    keeper = Reconnect()
    client = start(stage, keeper)
    stage.reactor.close()
    assert client.state is State.CLOSED
    assert len(internet.tries) == 1


# --- on real sockets --------------------------------------------------------------------------


def test_a_server_goes_away_and_comes_back() -> None:
    clock = FakeClock()
    with Reactor(clock=clock) as reactor:
        server = Server(Recorder, port=0, reactor=reactor, limits=LIMITS).start()
        port = server.port
        keeper = Reconnect(random_source=always(1.0))
        url = f"ws://127.0.0.1:{port}/"
        first = connect(reactor, url, Recorder, reconnect=keeper, limits=LIMITS)
        run_until(reactor, lambda: first.is_open)
        server.close()
        run_until(reactor, lambda: keeper.is_waiting)
        assert first.events[-1][0] == "close"
        failed: list[Recorder] = []
        for bound in (5, 2, 4):
            clock.now += bound + 0.1
            run_until(reactor, lambda: not keeper.is_waiting)
            run_until(reactor, lambda: keeper.is_waiting)
            failed.append(present(keeper))
        assert [[event[0] for event in each.events] for each in failed] == [["error"]] * 3
        back = Server(Recorder, port=port, reactor=reactor, limits=LIMITS).start()
        clock.now += 8.1
        run_until(reactor, lambda: present(keeper).is_open)
        assert len(back.connections) == 1
        keeper.stop()


def test_it_starts_at_the_first_url_again_and_not_at_a_redirects_target() -> None:
    clock = FakeClock()
    with Reactor(clock=clock) as reactor:
        end = ScriptedServer(reactor, GOOD, hangs_up=True)
        redirect = answer_of(f"Location: {end.url}", status="302 Found", upgrade=False)
        begin = ScriptedServer(reactor, redirect)
        keeper = Reconnect()
        connect(reactor, begin.url, Recorder, reconnect=keeper, limits=LIMITS)
        for count in (1, 2):
            run_until(reactor, lambda: keeper.is_waiting)
            assert len(begin.conversations) == len(end.conversations) == count
            clock.now += 5.1
            reactor.run_once(0)
        keeper.stop()
