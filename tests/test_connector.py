"""Connectors: exactly one outcome, never before the constructor has returned, and no leftovers."""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from streams import Echo, Witness, needs_unix_sockets, with_every_selector
from support import FakeNetwork, MemorySocket, Stage, has_ipv6, run_until

from reactor import (
    ConnectFailed,
    Connector,
    Listener,
    Reactor,
    Transport,
    open_tcp_sockets,
    open_unix_socket,
)

TICK = 0.01


class HeldThreads:
    """Stand in for the module ``threading``: what a thread was to do waits for ``work``."""

    def __init__(self) -> None:
        self._started: list[Callable[[], object]] = []

    def Thread(  # noqa: N802  # its name there
        self, *, target: Callable[..., object], args: tuple[Any, ...], name: str, daemon: bool
    ) -> Any:
        assert daemon, "it would hold up the end of the program"
        return SimpleNamespace(start=lambda: self._started.append(lambda: target(*args)))

    def work(self) -> None:
        while self._started:
            self._started.pop()()


class ConnectingSocket(MemorySocket):
    """A socket that connects as its internet says; see there for the answers."""

    def __init__(self, internet: Internet, fd: int, family: int) -> None:
        super().__init__(fd, None, 256 * 1024)
        self.family = socket.AddressFamily(family)
        self._internet = internet
        self._answer = ""
        self.options: list[tuple[int, ...]] = []

    def connect_ex(self, address: tuple[Any, ...]) -> int:
        self._internet.tried.append((self._internet.network.clock.now, address[0]))
        self._answer = self._internet.answers[address[0]]
        if self._answer == "unreachable":
            return errno.ENETUNREACH
        if self._answer in ("accepts", "accepts at once"):
            ours, _ = self._internet.network.pair()
            self.peer, ours.peer = ours, self
        return 0 if self._answer == "accepts at once" else errno.EINPROGRESS

    def getsockopt(self, level: int, option: int, size: int = 0) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.ECONNREFUSED if self._answer == "refuses" else 0

    def setsockopt(self, *args: object) -> None:
        super().setsockopt(*args)
        self.options.append(args)  # type: ignore[arg-type]  # all are numbers

    @property
    def is_writable(self) -> bool:
        return self._answer not in ("", "swallows") and super().is_writable


class Internet:
    """Names, addresses, and how each address answers a connecting socket.

    "accepts", "accepts at once", "refuses", "unreachable" (known at once) or "swallows"
    (never answers).
    """

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.answers: dict[str, str] = {}
        self.sockets: list[ConnectingSocket] = []
        self.tried: list[tuple[float, str]] = []
        self.look_up_error: Exception | None = None
        self.is_out_of_sockets = False

    def getaddrinfo(self, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        if self.look_up_error is not None:
            raise self.look_up_error
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.answers
            for _ in range(2)  # real ones repeat themselves, too
        ]

    def socket(self, family: int, kind: int) -> ConnectingSocket:
        if self.is_out_of_sockets:
            raise OSError(errno.EMFILE, "too many open files")
        sock = ConnectingSocket(self, 2_000_000 + len(self.sockets), family)
        self.network.sockets[sock.fileno()] = sock
        self.sockets.append(sock)
        return sock

    @property
    def tried_addresses(self) -> list[str]:
        return [address for _, address in self.tried]

    @property
    def open_sockets(self) -> list[ConnectingSocket]:
        return [sock for sock in self.sockets if not sock.is_closed]


class World(Stage):
    """A stage with an internet, a witness and a list of what failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.internet = Internet(self.network)
        self.threads = HeldThreads()
        monkeypatch.setattr("reactor.connector.threading", self.threads)
        module = SimpleNamespace(**vars(socket))
        module.socket = self.internet.socket
        module.getaddrinfo = self.internet.getaddrinfo
        monkeypatch.setattr("reactor.connector.socket", module)
        self.witness = Witness()
        self.failures: list[ConnectFailed] = []

    def connect(self, **options: Any) -> Connector:
        target = ("example.com", 80)
        return Connector(self.reactor, self.witness, target, self.failures.append, **options)

    def look_up(self) -> None:
        self.threads.work()
        self.settle()

    @property
    def outcome(self) -> tuple[list[str], int]:
        return self.witness.names, len(self.failures)

    def assert_nothing_is_left(self) -> None:
        self.threads.work()
        self.pass_time(1000)
        assert self.internet.open_sockets == []
        assert self.reactor.next_timeout() is None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(monkeypatch)
    with world:
        yield world


CONNECTED = (["made"], 0)
FAILED: tuple[list[str], int] = ([], 1)
NOTHING: tuple[list[str], int] = ([], 0)


# --- trying --------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["accepts", "accepts at once"])
def test_the_protocol_is_connected(world: World, answer: str) -> None:
    world.internet.answers = {"192.0.2.1": answer}
    world.connect()
    assert world.outcome == NOTHING
    world.look_up()
    assert world.outcome == CONNECTED
    transport = world.witness.transport
    assert transport.get_extra_info("peername") == ("192.0.2.1", 80)
    (sock,) = world.internet.open_sockets
    assert transport.get_extra_info("socket") is sock
    transport.write(b"hello")
    world.settle()
    assert sock.peer is not None
    assert sock.peer.take() == b"hello"
    sock.peer.feed(b"and welcome")
    world.settle()
    assert world.witness.received == b"and welcome"
    assert world.reactor.next_timeout() is None, "no deadline is left behind"
    world.pass_time(1000)
    assert world.outcome == (["made", "data"], 0)


@pytest.mark.parametrize("failing", ["refuses", "unreachable"])
def test_addresses_are_tried_in_turn_until_one_answers(world: World, failing: str) -> None:
    world.internet.answers = {
        "192.0.2.1": failing,
        "192.0.2.2": failing,
        "192.0.2.3": "accepts",
        "192.0.2.4": "accepts",
    }
    world.connect()
    world.look_up()
    assert world.outcome == CONNECTED
    assert world.internet.tried_addresses == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert len(world.internet.open_sockets) == 1


def test_when_no_address_answers_all_causes_are_told_in_order(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "refuses", "192.0.2.2": "unreachable"}
    world.connect()
    world.look_up()
    assert world.outcome == FAILED
    (failure,) = world.failures
    causes = [(address, error.errno) for address, error in failure.causes]
    assert causes == [
        (("192.0.2.1", 80), errno.ECONNREFUSED),
        (("192.0.2.2", 80), errno.ENETUNREACH),
    ]
    assert str(failure) == "cannot connect to example.com port 80: Network is unreachable"
    world.assert_nothing_is_left()


def test_thousands_of_unreachable_addresses_are_no_trouble(world: World) -> None:
    world.internet.answers = {
        f"198.51.{high}.{low}": "unreachable" for high in range(16) for low in range(256)
    }
    world.connect()
    world.look_up()
    assert world.outcome == FAILED
    assert len(world.failures[0].causes) == 4096
    world.assert_nothing_is_left()


def test_being_out_of_descriptors_is_a_failure_like_any_other(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "accepts", "192.0.2.2": "accepts"}
    world.internet.is_out_of_sockets = True
    world.connect()
    world.look_up()
    assert world.outcome == FAILED
    assert [error.errno for _, error in world.failures[0].causes] == [errno.EMFILE] * 2


def test_small_writes_are_not_held_back(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect()
    world.look_up()
    (sock,) = world.internet.sockets
    assert sock.options == [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


def test_a_peer_that_has_reset_already_is_found_out_by_the_first_read(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect()
    world.threads.work()
    world.reactor.run_once(0)
    (sock,) = world.internet.sockets
    sock.fail("setsockopt", OSError(errno.EINVAL, "invalid argument"))
    sock.is_reset = True
    world.settle()
    assert world.witness.names == ["made", "lost"]
    assert isinstance(world.witness.losses[0], ConnectionResetError)
    assert world.failures == []


# --- time ----------------------------------------------------------------------------------------


def test_an_address_that_swallows_packets_uses_up_no_more_than_its_share(world: World) -> None:
    world.internet.answers = {
        "192.0.2.1": "swallows",
        "192.0.2.2": "swallows",
        "192.0.2.3": "accepts",
    }
    start = world.clock.now
    world.connect(timeout=9)
    world.look_up()
    world.pass_time(100)
    assert world.outcome == CONNECTED
    times = [when - start for when, _ in world.internet.tried]
    assert times == pytest.approx([0, 3, 6], abs=4 * TICK)
    assert len(world.internet.open_sockets) == 1


def test_what_a_quick_refusal_leaves_over_is_for_the_others(world: World) -> None:
    world.internet.answers = {
        "192.0.2.1": "refuses",
        "192.0.2.2": "swallows",
        "192.0.2.3": "accepts",
    }
    start = world.clock.now
    world.connect(timeout=9)
    world.look_up()
    world.pass_time(100)
    assert world.outcome == CONNECTED
    times = [when - start for when, _ in world.internet.tried]
    assert times == pytest.approx([0, 0, 4.5], abs=4 * TICK)


def test_one_deadline_covers_all_addresses(world: World) -> None:
    world.internet.answers = {f"192.0.2.{number}": "swallows" for number in range(5)}
    world.connect(timeout=9)
    world.look_up()
    world.pass_time(8.9)
    assert world.outcome == NOTHING
    world.pass_time(0.2)
    assert world.outcome == FAILED
    (failure,) = world.failures
    assert str(failure) == (
        "cannot connect to example.com port 80 within 9 s: 192.0.2.4 port 80 has not answered"
    )
    assert len(failure.causes) >= 4
    assert {error.errno for _, error in failure.causes} == {errno.ETIMEDOUT}
    world.assert_nothing_is_left()


def test_the_deadline_covers_the_look_up(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect(timeout=9)
    world.pass_time(9.1)
    assert world.outcome == FAILED
    assert str(world.failures[0]) == (
        "cannot connect to example.com port 80 within 9 s: the name look-up has not answered"
    )
    world.look_up()  # too late
    assert world.outcome == FAILED
    assert world.internet.tried == []


def test_a_slow_look_up_leaves_the_rest_of_the_time_to_the_addresses(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "swallows", "192.0.2.2": "accepts"}
    start = world.clock.now
    world.connect(timeout=9)
    world.pass_time(7)
    world.look_up()
    world.pass_time(100)
    assert world.outcome == CONNECTED
    times = [when - start for when, _ in world.internet.tried]
    assert times == pytest.approx([7, 8], abs=4 * TICK)


# --- names ---------------------------------------------------------------------------------------


def test_a_name_that_does_not_exist_is_a_failure(world: World) -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    world.internet.look_up_error = error
    world.connect()
    world.look_up()
    assert world.outcome == FAILED
    (failure,) = world.failures
    assert str(failure) == "cannot connect to example.com port 80: Name or service not known"
    assert failure.causes == ((("example.com", 80), error),)
    world.assert_nothing_is_left()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "double..dot", "\ud800.example"])
def test_a_name_that_cannot_be_a_name_is_a_failure_at_once(host: str) -> None:
    failures: list[ConnectFailed] = []
    with Reactor() as reactor:
        Connector(reactor, Witness(), (host, 80), failures.append)
        run_until(reactor, lambda: failures)
        assert reactor.next_timeout() is None
    ((_, error),) = failures[0].causes
    assert isinstance(error, socket.gaierror)


def test_a_port_beyond_all_bounds_is_a_failure_at_once(world: World) -> None:
    world.internet.look_up_error = OverflowError("Python int too large to convert to C long")
    world.connect()
    world.look_up()
    assert world.outcome == FAILED


# --- exactly one outcome -------------------------------------------------------------------------


def at_the_beginning(world: World) -> None:
    pass


def during_the_look_up(world: World) -> None:
    world.settle()


def with_the_result_of_the_look_up_under_way(world: World) -> None:
    world.threads.work()


def after_a_failed_look_up(world: World) -> None:
    world.internet.look_up_error = OSError(errno.EIO, "broken")
    world.threads.work()


def during_the_first_attempt(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "swallows", "192.0.2.2": "accepts"}
    world.look_up()
    assert len(world.internet.open_sockets) == 1


def during_the_second_attempt(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "refuses", "192.0.2.2": "swallows"}
    world.look_up()
    assert len(world.internet.sockets) == 2


def with_the_answer_under_way(world: World) -> None:
    world.threads.work()
    world.reactor.run_once(0)
    assert len(world.internet.open_sockets) == 1
    assert world.outcome == NOTHING


UNDECIDED = [
    at_the_beginning,
    during_the_look_up,
    with_the_result_of_the_look_up_under_way,
    after_a_failed_look_up,
    during_the_first_attempt,
    during_the_second_attempt,
    with_the_answer_under_way,
]
at_every_stage = pytest.mark.parametrize("stage", UNDECIDED, ids=lambda stage: stage.__name__)


@at_every_stage
def test_cancel_gives_up_silently(world: World, stage: Callable[[World], None]) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    connector = world.connect()
    stage(world)
    connector.cancel()
    connector.cancel()
    world.assert_nothing_is_left()
    assert world.outcome == NOTHING


@at_every_stage
def test_closing_the_reactor_leaves_no_socket_and_connects_nobody(
    world: World, stage: Callable[[World], None]
) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect()
    stage(world)
    world.reactor.close()
    world.threads.work()
    assert world.internet.open_sockets == []
    # What had failed already is still told.
    assert world.outcome == (FAILED if stage is after_a_failed_look_up else NOTHING)


@at_every_stage
def test_at_every_stage_the_deadline_ends_it_once(
    world: World, stage: Callable[[World], None]
) -> None:
    world.internet.answers = {"192.0.2.1": "swallows"}
    world.connect()
    stage(world)
    world.pass_time(1000)
    world.threads.work()
    world.settle()
    names, failures = world.outcome
    assert len(names) + failures == 1


def test_cancel_after_success_leaves_the_connection_alone(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "accepts"}
    connector = world.connect()
    world.look_up()
    connector.cancel()
    world.pass_time(1000)
    assert world.outcome == CONNECTED
    assert not world.witness.transport.is_closing()


def test_cancel_after_failure_has_no_effect(world: World) -> None:
    world.internet.answers = {"192.0.2.1": "refuses"}
    connector = world.connect()
    world.look_up()
    connector.cancel()
    world.assert_nothing_is_left()
    assert world.outcome == FAILED


def test_a_protocol_that_raises_when_connected_is_told_of_the_end(
    world: World, logged: list[logging.LogRecord]
) -> None:
    def boom(transport: object) -> None:
        raise ValueError("boom")

    world.internet.answers = {"192.0.2.1": "accepts", "192.0.2.2": "accepts"}
    world.witness.hooks["made"] = boom
    world.connect()
    world.look_up()
    world.assert_nothing_is_left()
    assert world.outcome == (["made", "lost"], 0)
    assert isinstance(world.witness.losses[0], ValueError)
    assert len(logged) == 1


def test_a_program_that_ends_when_connected_is_connected_all_the_same(world: World) -> None:
    def end(transport: object) -> None:
        raise KeyboardInterrupt

    world.internet.answers = {"192.0.2.1": "accepts"}
    world.witness.hooks["made"] = end
    world.connect()
    world.threads.work()
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    world.pass_time(1000)
    assert world.outcome == CONNECTED


@pytest.mark.parametrize("answer", ["refuses", "unreachable", "swallows"])
def test_a_failure_callback_that_raises_is_called_once(
    world: World, answer: str, logged: list[logging.LogRecord]
) -> None:
    calls: list[ConnectFailed] = []

    def boom(failure: ConnectFailed) -> None:
        calls.append(failure)
        raise ValueError("boom")

    world.internet.answers = {"192.0.2.1": answer}
    Connector(world.reactor, world.witness, ("example.com", 80), boom)
    world.look_up()
    world.assert_nothing_is_left()
    assert len(calls) == len(logged) == 1


def test_a_failure_callback_may_try_again(world: World) -> None:
    def again(failure: ConnectFailed) -> None:
        world.internet.answers = {"192.0.2.1": "accepts"}
        world.connect()

    world.internet.answers = {"192.0.2.1": "refuses"}
    Connector(world.reactor, world.witness, ("example.com", 80), again)
    world.look_up()
    world.look_up()
    assert world.outcome == CONNECTED


@pytest.mark.parametrize("error", [OSError(errno.ENOTCONN, "gone"), ValueError("no such name")])
def test_a_transport_that_cannot_be_made_is_a_failure(world: World, error: Exception) -> None:
    def refuse(*args: object) -> Any:
        raise error

    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect(transport_factory=refuse)
    world.look_up()
    assert world.outcome == FAILED
    assert str(world.failures[0]).startswith("cannot use the connection to example.com port 80: ")
    world.assert_nothing_is_left()


def test_a_socket_that_cannot_be_watched_is_a_failure(world: World) -> None:
    class Unwatched(Transport):
        __slots__ = ()

        def start(self) -> None:
            raise OSError(errno.ENOSPC, "no space left")

    world.internet.answers = {"192.0.2.1": "accepts"}
    world.connect(transport_factory=Unwatched)
    world.look_up()
    assert world.outcome == FAILED
    assert "no space left" in str(world.failures[0])
    world.assert_nothing_is_left()


# --- real sockets --------------------------------------------------------------------------------


def outcome_of(reactor: Reactor, target: Any) -> tuple[Witness, list[ConnectFailed]]:
    witness, failures = Witness(), list[ConnectFailed]()
    Connector(reactor, witness, target, failures.append)
    assert not witness.events
    run_until(reactor, lambda: witness.events or failures)
    return witness, failures


@with_every_selector
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6")),
    ],
)
def test_a_real_connection(selector: Callable[[], selectors.BaseSelector], host: str) -> None:
    with Reactor(selector) as reactor:
        listener = Listener(reactor, open_tcp_sockets(host, 0), Echo)
        witness, failures = outcome_of(reactor, listener.addresses[0][:2])
        assert not failures
        witness.transport.write(b"hello")
        run_until(reactor, lambda: witness.received == b"hello")
        sock = witness.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@with_every_selector
def test_a_real_refusal(selector: Callable[[], selectors.BaseSelector]) -> None:
    with Reactor(selector) as reactor, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets the port
        witness, failures = outcome_of(reactor, silent.getsockname())
        assert not witness.events
        ((address, error),) = failures[0].causes
        assert address == silent.getsockname()
        assert error.errno == errno.ECONNREFUSED


def test_a_real_second_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with Reactor() as reactor, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), Echo)
        infos = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (silent.getsockname(), listener.addresses[0])
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: infos)
        witness, failures = outcome_of(reactor, ("example.com", 80))
        assert not failures
        assert witness.transport.get_extra_info("peername") == listener.addresses[0]


@needs_unix_sockets
def test_a_real_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Reactor() as reactor:
        Listener(reactor, [open_unix_socket(path)], Echo)
        witness, failures = outcome_of(reactor, path)
        assert not failures
        witness.transport.write(b"hello")
        run_until(reactor, lambda: witness.received == b"hello")
        assert witness.transport.get_extra_info("peername") == path


@needs_unix_sockets
@pytest.mark.parametrize("kind", ["dead", "missing", "too long"])
def test_a_real_unix_socket_that_cannot_be_connected_to(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / ("s" * (1 if kind != "too long" else 200)))
    if kind == "dead":
        open_unix_socket(path).close()
    with Reactor() as reactor:
        witness, failures = outcome_of(reactor, path)
        assert not witness.events
        assert str(failures[0]).startswith(f"cannot connect to {path}: ")
        assert reactor.next_timeout() is None


@needs_unix_sockets
def test_a_real_unix_socket_with_a_full_backlog_is_a_failure(tmp_path: Path) -> None:
    """The kernel says EAGAIN, and it does not say when to try again."""
    path = str(tmp_path / "s")
    waiting: list[socket.socket] = []
    with Reactor() as reactor, open_unix_socket(path, backlog=0):
        for _ in range(64):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(path) == errno.EAGAIN:
                break
        else:
            pytest.skip("the system has room for more than was asked for")
        witness, failures = outcome_of(reactor, path)
        assert not witness.events
        assert failures[0].causes[0][1].errno == errno.EAGAIN
    for sock in waiting:
        sock.close()
