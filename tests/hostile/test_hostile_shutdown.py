"""H43, H44, H101, H104, H120 and H121: crowds that come, and servers that go.

In virtual time, with clients of ours that answer as clients do, and ``Peer`` for those that do not;
Unix sockets, signals and the last test are real.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from streams import needs_unix_sockets
from support import close_events, read_answer, run_until, upgrade_request
from tls_peer import certificate

from reactor import ConnectFailed, Reactor, open_unix_socket
from reactor.listener import ACCEPT_BATCH
from reactor.memory_tls import MemoryServerTLS
from reactor.testing import MemoryListener, as_socket
from websocket import (
    Cause,
    HTTPResponse,
    Limits,
    Opcode,
    Reconnect,
    Request,
    Server,
    Session,
    connect,
)
from websocket.frame import parse_close
from websocket.shutdown import BATCH_INTERVAL, COME_BACK_WITHIN, LEAST_BATCH
from websocket.testing import Peer, Recorder, VirtualServer

# Nothing happens but what a row is about.
QUIET = Limits(ping_interval=None, close_timeout=1000.0, detached_lifetime=0.0)
HINT = re.compile(r"^(.*); retry after ([0-5]\.[0-9][0-9]) s$")


@pytest.fixture(autouse=True)
def unchanged_signals() -> Iterator[None]:
    """Fail a test that leaves a signal handler behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


class Idle(Recorder):
    """A client that waits for messages, and answers what it must."""

    __slots__ = ("ended_at",)

    def on_close(self, code: int, reason: str) -> None:
        super().on_close(code, reason)
        self.ended_at = self.reactor.time


def crowd(server: VirtualServer, count: int) -> list[Idle]:
    """Return clients that have connected all at once."""
    clients = [connect(server.reactor, server.url(), Idle, limits=QUIET) for _ in range(count)]
    server.settle()
    assert all(client.is_open for client in clients)
    return clients


def run(server: VirtualServer) -> float:
    """Run a server to its end, and return the seconds that it took."""
    began = server.clock.now
    server.server.run()
    return server.clock.now - began


def raise_at(server: VirtualServer, seconds: float, number: int) -> None:
    server.reactor.call_later(seconds, signal.raise_signal, number)


def expect_nothing_left(server: VirtualServer) -> None:
    """I3: everything that streams could leave behind."""
    statistics = server.server.statistics()
    assert (statistics.active, statistics.handshaking, statistics.sessions.active) == (0, 0, 0)
    assert not statistics.is_draining
    assert server.server.manager.pool.admitted == 0
    assert len(server.reactor._wheel) == 0
    # All but the wake-up's.
    assert len(server.reactor._handlers) == 1


# --- H43, H44: crowds, and no descriptors ---------------------------------------------------------


class Door:
    """A server whose backlog the test fills, and whose descriptors it takes away."""

    def __init__(self, **limits: Any) -> None:
        self.server = VirtualServer(Idle, limits=QUIET.replace(**limits))
        (listener,) = self.server.network.listeners.values()
        assert isinstance(listener, MemoryListener)
        self.listener = listener
        self.healthy = crowd(self.server, 1)[0]
        self.accepts = 0
        self.is_exhausted = False
        self.server.network.on_call = self._called

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.network.on_call = None
        self.server.close()

    def come(self, count: int) -> list[Peer]:
        """Let clients connect in one instant, and send their requests."""
        peers = []
        for number in range(count):
            with self.server.network.clients_from(f"10.0.{number // 256}.{number % 256}"):
                sock = self.listener.connect()
            sock.feed(upgrade_request())
            peers.append(Peer(sock, is_client=True))
        return peers

    def check_healthy(self) -> None:
        """I2: a client that was there before is served in the same turn."""
        self.healthy.ping(b"well?")
        self.server.settle()
        assert self.healthy.events.pop() == ("pong", b"well?")

    def _called(self, name: str, fd: int) -> None:
        if name == "accept":
            self.accepts += 1
            if self.is_exhausted:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_h43_five_thousand_connect_in_one_burst() -> None:
    with Door(max_connections=1_001, max_connections_per_ip=None) as door:
        peers = door.come(5_000)
        turns = 0
        while door.listener.backlog:
            before = door.server.server.statistics().accepted
            door.healthy.ping(b"now?")
            for _ in range(3):  # the ping leaves, the pong leaves, the pong is read
                door.server.reactor.run_once(0)
            turns += 3
            accepted = door.server.server.statistics().accepted - before
            assert accepted <= 3 * ACCEPT_BATCH
            assert door.healthy.events.pop() == ("pong", b"now?")
        assert turns <= ceil(5_000 / ACCEPT_BATCH) + 3
        door.server.settle()
        statuses = [peer.read_head()[9:12] for peer in peers]
        assert statuses == ["101"] * 1_000 + ["503"] * 4_000
        for peer in peers:
            peer.sock.end()
        door.server.settle()
        assert door.server.server.statistics().active == 1
        door.check_healthy()


def test_h44_out_of_descriptors_for_ten_minutes(logged: list[logging.LogRecord]) -> None:
    """No more than two calls a second, all clients served, and an end to it by itself."""
    with Door() as door:
        turns, run_once = 0, door.server.reactor.run_once

        def counting_run_once(timeout: float | None = None) -> None:
            nonlocal turns
            turns += 1
            run_once(timeout)

        door.server.reactor.run_once = counting_run_once  # type: ignore[method-assign]  # a count
        waiting = door.come(80)
        door.is_exhausted = True
        for _ in range(10):
            door.server.pass_time(60)
            door.check_healthy()
        # 5 % of a second are 50 ms; a turn that accepts nothing takes far less than one.
        assert turns <= 600 * 5
        assert door.accepts <= 600 * 2 + 4
        assert len(logged) <= 600 / 5 + 1
        assert all(peer.sock.take() == b"" for peer in waiting)
        statistics = door.server.server.statistics()
        assert 100 <= statistics.accept_failures <= 601
        assert (statistics.turned_away, statistics.abandoned) == (0, 0)
        door.is_exhausted = False
        door.server.pass_time(1.1)
        assert all(peer.read_head().startswith("HTTP/1.1 101 ") for peer in waiting)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has gone")
def test_h44_who_gave_up_before_accept_costs_his_address_nothing(
    logged: list[logging.LogRecord],
) -> None:
    """Tries again and again while nobody is accepted, then stays: that one is served."""
    limits = {"max_connections_per_ip": 1, "handshakes_per_minute": 1}
    with Door(**limits) as door:
        door.is_exhausted = True
        for _ in range(3 * ACCEPT_BATCH):
            (gone,) = door.come(1)
            gone.sock.close()
        for _ in range(20):
            (reset,) = door.come(1)
            reset.sock.reset()
        (alive,) = door.come(1)
        door.server.pass_time(30)
        door.is_exhausted = False
        door.server.pass_time(1.1)
        assert alive.read_head().startswith("HTTP/1.1 101 ")
        statistics = door.server.server.statistics()
        assert (statistics.accepted, statistics.failed, statistics.active) == (2, 0, 2)
        assert statistics.abandoned == 3 * ACCEPT_BATCH + 20
        door.check_healthy()


def test_h44_a_server_without_descriptors_can_still_end(
    logged: list[logging.LogRecord],
) -> None:
    with Door() as door:
        door.come(5)
        door.is_exhausted = True
        door.server.settle()
        raise_at(door.server, 0.5, signal.SIGTERM)
        assert run(door.server) == pytest.approx(0.5, abs=0.05)
        expect_nothing_left(door.server)


# --- H101: Unix sockets ---------------------------------------------------------------------------

LEFT_ALONE = ["H101-living-server", "H101-link", "H101-dangling-link", "H101-file", "H101-folder"]


def put_in_place(what: str, path: Path, stack: list[socket.socket]) -> None:
    if what == "living-server":
        stack.append(open_unix_socket(str(path)))
    elif what == "link":
        stack.append(open_unix_socket(str(path) + ".target"))
        path.symlink_to(str(path) + ".target")
    elif what == "dangling-link":
        path.symlink_to(str(path) + ".target")
    elif what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()


@needs_unix_sockets
@pytest.mark.parametrize("row", LEFT_ALONE)
def test_what_is_no_dead_socket_is_left_alone(row: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    others: list[socket.socket] = []
    put_in_place(row.partition("-")[2], path, others)
    before = path.lstat()
    with Reactor() as reactor:
        server = Server(Recorder, unix_path=str(path), reactor=reactor)
        with pytest.raises(OSError) as raised:  # noqa: PT011  # what matters is the number
            server.start()
        assert raised.value.errno == errno.EADDRINUSE
        server.close()
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
    )
    for other in others:
        other.close()


@needs_unix_sockets
@pytest.mark.parametrize("end", ["shutdown", "drain", "close", "reactor"])
def test_h101_a_dead_socket_is_replaced_and_ours_does_not_stay(end: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    open_unix_socket(str(path)).close()
    with Reactor() as reactor:
        server = Server(Recorder, unix_path=str(path), reactor=reactor).start()
        assert path.stat().st_mode & 0o777 == 0o600
        client = connect(reactor, "ws://localhost/", Recorder, unix_path=str(path))
        run_until(reactor, lambda: client.is_open)
        if end != "reactor":
            getattr(server, end)()
            assert not path.exists()
            # The place is free for the next server, while the last one is still there.
            Server(Recorder, unix_path=str(path), reactor=reactor).start().close()
    assert not path.exists()


@needs_unix_sockets
def test_h101_what_has_taken_the_place_of_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Reactor() as reactor:
        first = Server(Recorder, unix_path=str(path), reactor=reactor).start()
        path.unlink()
        second = Server(Recorder, unix_path=str(path), reactor=reactor).start()
        first.shutdown()
        run_until(reactor, lambda: not first.is_shutting_down)
        client = connect(reactor, "ws://localhost/", Recorder, unix_path=str(path))
        run_until(reactor, lambda: client.is_open)
        assert len(second.connections) == 1


# --- H104: exits asked for by a callback ----------------------------------------------------------

PLACES = [
    "on_open",
    "on_message",
    "on_ping",
    "on_pong",
    "on_close",
    "on_error",
    "authenticate",
    "on_http_request",
    "on_session_expired",
    "timer",
    "call_soon",
    "executor",
]
EXITS = [KeyboardInterrupt("stop"), SystemExit(3)]


class Fatal:
    """A server of which one callback, once, wants the program to end."""

    def __init__(self, place: str, error: BaseException) -> None:
        self.place = place
        self.errors = [error]
        methods = {"__slots__": (), place: self.method} if place.startswith("on_") else {}
        self.server = VirtualServer(
            {"/": Recorder, "/fatal": type("Fatal", (Recorder,), methods)},
            limits=QUIET,
            authenticate=self.hook("authenticate"),
            on_http_request=self.hook("on_http_request", HTTPResponse("page")),
            on_session_expired=self.hook("on_session_expired"),
        )

    @property
    def method(self) -> Callable[..., None]:
        return lambda connection, *args: self.fail()

    def hook(self, name: str, answer: object = None) -> Callable[[Any], Any]:
        def call(argument: Request | Session) -> object:
            if name == self.place and getattr(argument, "path", "/fatal") == "/fatal":
                self.fail()
            return answer

        return call

    def fail(self) -> None:
        if self.errors:
            raise self.errors.pop()

    def provoke(self) -> None:
        """Make the callback be called, in a second."""
        reactor = self.server.reactor
        reactor.call_later(1, self._provoke)
        if self.place == "timer":
            reactor.call_later(1, self.fail)

    def _provoke(self) -> None:
        reactor, place = self.server.reactor, self.place
        if place == "call_soon":
            reactor.call_soon(self.fail)
        elif place == "executor":
            reactor.run_in_executor(int, on_done=lambda future: self.fail()).result()
        elif place == "on_http_request":
            listener = self.server.network.listeners["localhost", 80]
            listener.connect().feed(b"GET /fatal HTTP/1.1\r\nHost: localhost\r\n\r\n")
        elif place != "timer":
            client = connect(reactor, self.server.url("/fatal"), Provoking, limits=QUIET)
            client.place = place


class Provoking(Recorder):
    """A client that does what makes a callback of the server be called."""

    __slots__ = ("place",)

    place: str

    def on_open(self) -> None:
        super().on_open()
        if self.place == "on_message":
            self.send("go")
        elif self.place == "on_ping":
            self.ping()
        elif self.place in {"on_close", "on_session_expired"}:
            self.close()
        elif self.place == "on_error":
            assert self.transport is not None
            self.transport.write(b"\xff\xff")
        elif self.place == "on_pong":
            assert self.transport is not None
            self.transport.write(b"\x8a\x80mask")


@pytest.mark.parametrize("error", EXITS, ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("place", PLACES)
def test_h104_an_exit_asked_for_by_a_callback_is_orderly(place: str, error: BaseException) -> None:
    fatal = Fatal(place, error)
    with fatal.server as server:
        others = crowd(server, 3)
        fatal.provoke()
        with pytest.raises(type(error)) as raised:
            run(server)
        assert raised.value is error
        assert not fatal.errors
        server.settle()
        for other in others:
            assert close_events(other)[1][:2] == ("close", 1001)
            assert other.is_clean
        expect_nothing_left(server)


@pytest.mark.parametrize("error", EXITS, ids=["KeyboardInterrupt", "SystemExit"])
def test_h104_the_second_exit_asked_for_is_at_once(error: BaseException) -> None:
    fatal = Fatal("timer", error)
    fatal.errors.append(error)
    with fatal.server as server:
        mute = stranger(server, "ignores-close")
        fatal.provoke()
        server.reactor.call_later(2, fatal.fail)
        with pytest.raises(type(error)):
            run(server)
        server.settle()
        assert server.clock.now < 1000 + 2.1
        assert mute.sock.has_eof
        expect_nothing_left(server)


# --- H120: thousands of idle clients --------------------------------------------------------------


def test_h120_a_signal_sends_a_crowd_away_in_turns() -> None:
    """Over half of the grace at the most, in batches of one size, and each with a hint."""
    limits = QUIET.replace(shutdown_grace=2.0)
    with VirtualServer(Recorder, limits=limits) as server:
        clients = crowd(server, 1_500)
        raise_at(server, 5, signal.SIGTERM)
        told_from = server.clock.now + 5
        took = run(server)
        batches = int(2.0 / 2 / BATCH_INTERVAL)
        assert took == pytest.approx(5 + (batches - 1) * BATCH_INTERVAL, abs=0.05)
        assert server.server.statistics().closed_by_cause[Cause.SHUTDOWN] == 1_500
        expect_nothing_left(server)
    per_batch = [0] * batches
    hints = []
    for client in clients:
        cause, (_, code, reason) = close_events(client)
        match = HINT.match(reason)
        assert match is not None, reason
        assert (cause, code, match.group(1)) == (
            Cause.CLOSED_BY_PEER,
            1001,
            "the server is going away",
        )
        assert client.is_clean
        hints.append(float(match.group(2)))
        per_batch[int((client.ended_at - told_from + 0.02) / BATCH_INTERVAL)] += 1
    assert per_batch == [1_500 // batches] * batches
    per_second = [sum(second <= hint < second + 1 for hint in hints) for second in range(5)]
    assert max(per_second) - min(per_second) <= 5


def test_h120_clients_of_ours_come_back_when_they_were_told_to() -> None:
    """A restart: the next server has them all again, never many of them at once."""
    with VirtualServer(Recorder, limits=QUIET) as server:
        keepers = [Reconnect(random_source=lambda: 1.0) for _ in range(400)]
        clients = [
            connect(server.reactor, server.url(), Idle, limits=QUIET, reconnect=keeper)
            for keeper in keepers
        ]
        server.settle()
        server.server.shutdown(restart=True)
        new = Server(
            Recorder,
            sockets=[as_socket(server.network.listen())],
            reactor=server.reactor,
            limits=QUIET,
        ).start()
        arrivals = []
        for _ in range(int((1 + COME_BACK_WITHIN) / BATCH_INTERVAL)):
            before = len(new.connections)
            server.pass_time(BATCH_INTERVAL)
            arrivals.append(len(new.connections) - before)
        assert sum(arrivals) == 400
        assert max(arrivals) <= 15
        for keeper, client in zip(keepers, clients):
            match = HINT.match(close_events(client)[1][2])
            assert match is not None
            assert match.group(1) == "the server is restarting"
            back = keeper.connection
            assert back is not None
            assert back.is_open
            assert back.created_at - client.ended_at == pytest.approx(float(match[2]), abs=0.05)
            keeper.close()
        new.close()


def test_h120_a_server_is_drained_for_a_rolling_restart() -> None:
    """Everybody stays with the old server, newcomers get the new one, and the old one ends."""
    with VirtualServer(Recorder, limits=QUIET) as server:
        old = crowd(server, 300)
        server.server.drain()
        new = Server(
            Recorder,
            sockets=[as_socket(server.network.listen())],
            reactor=server.reactor,
            limits=QUIET,
        ).start()
        crowd(server, 100)
        server.pass_time(3_600)
        assert server.server.is_draining
        assert (len(server.connections), len(new.connections)) == (300, 100)
        for client in old:
            server.reactor.call_later(client.id % 50, client.close)
        assert run(server) <= 51
        new.close()
        server.settle()
        expect_nothing_left(server)


def test_h120_after_the_port_is_given_up_nobody_is_let_in() -> None:
    with VirtualServer(Recorder, limits=QUIET) as server:
        crowd(server, 2)
        for end in (server.server.drain, server.server.shutdown):
            end()
            with pytest.raises(ConnectFailed):
                server.connect()


# --- H121: those who do not go --------------------------------------------------------------------


def stranger(server: VirtualServer, what: str) -> Peer:
    """Return a client that is no help when a server wants to end."""
    peer = server.stranger()
    if what == "drips-a-request":
        peer.send_bytes(upgrade_request()[:40])
    elif what == "half-a-hello":
        peer.send_bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    elif what not in {"says-nothing", "no-hello"}:
        peer.send_bytes(upgrade_request())
        server.settle()
        assert peer.read_head().startswith("HTTP/1.1 101 ")
    if what == "does-not-read":
        assert peer.sock.peer is not None
        peer.sock.capacity = 100
        for connection in server.connections[-1:]:
            connection.send(b"x" * 50_000)
    elif what == "sends-on":
        server.reactor.call_later(0.5, peer.send, "not listening")
    server.settle()
    return peer


# What they do, and what they are told.
STUBBORN = {
    "H121-ignores-close": (False, 1001),
    "H121-does-not-read": (False, None),
    "H121-sends-on": (False, 1001),
    "H121-says-nothing": (False, 503),
    "H121-drips-a-request": (False, 503),
    "H121-no-hello": (True, None),
    "H121-half-a-hello": (True, None),
}


def tls_of(row: str) -> dict[str, Any]:
    return {"tls": MemoryServerTLS(certificate("server"))} if STUBBORN[row][0] else {}


def expect_told(peer: Peer, what: int | None) -> None:
    """Check what a peer reads in the end, however late."""
    if what == 503:
        answer = read_answer(peer)
        assert answer.status == 503
        assert "\r\nRetry-After: " in answer.head + "\r\n"
    elif what is not None:
        closed = peer.received_close()
        assert closed is not None
        assert closed[0] == what
    else:
        frames = peer.sock.take()
        assert not frames.startswith(b"HTTP/1.1 101")
    assert peer.sock.has_eof


PATIENT = QUIET.replace(handshake_timeout=1000.0, linger_timeout=1000.0, shutdown_grace=8.0)


@pytest.mark.parametrize("row", STUBBORN)
def test_who_does_not_go_is_cut_at_the_deadline(row: str) -> None:
    with VirtualServer(Recorder, limits=PATIENT, **tls_of(row)) as server:
        peer = stranger(server, row.partition("-")[2])
        raise_at(server, 1, signal.SIGTERM)
        assert run(server) == pytest.approx(1 + 8, abs=0.1)
        expect_nothing_left(server)
        expect_told(peer, STUBBORN[row][1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("row", STUBBORN)
def test_who_does_not_go_is_cut_by_the_second_signal(row: str, number: int) -> None:
    with VirtualServer(Recorder, limits=PATIENT, **tls_of(row)) as server:
        peer = stranger(server, row.partition("-")[2])
        raise_at(server, 1, signal.SIGTERM)
        raise_at(server, 1.5, number)
        assert run(server) == pytest.approx(1.5, abs=0.05)
        expect_nothing_left(server)
        expect_told(peer, STUBBORN[row][1])


def test_h121_the_second_signal_cuts_those_who_were_not_told_yet() -> None:
    with VirtualServer(Recorder, limits=PATIENT) as server:
        clients = crowd(server, 10 * LEAST_BATCH)
        raise_at(server, 1, signal.SIGTERM)
        raise_at(server, 1.25, signal.SIGTERM)
        assert run(server) == pytest.approx(1.25, abs=0.05)
        server.settle()
        expect_nothing_left(server)
        codes = sorted(close_events(client)[1][1] for client in clients)
        assert codes == [1001] * 3 * LEAST_BATCH + [1006] * 7 * LEAST_BATCH


def test_h121_those_who_wait_to_be_accepted_get_an_answer() -> None:
    """And are not reset, as they are when a listening socket is closed with them inside."""
    with Door() as door:
        peers = door.come(200)
        door.server.server.shutdown()
        door.server.settle()
        assert {read_answer(peer).status for peer in peers} == {503}
        for peer in peers:
            peer.sock.end()
        door.server.settle()
        expect_nothing_left(door.server)


# --- H120, H121: a real process -------------------------------------------------------------------


def wait_for(stream: Any, pattern: str) -> re.Match[str]:
    for line in stream:
        match = re.search(pattern, line)
        if match:
            return match
    raise AssertionError(f"{pattern!r} did not come")


def answer_close(client: socket.socket) -> tuple[int | None, str]:
    """Read the close frame, complete the closing handshake, and return code and reason."""
    client.settimeout(20)
    head = client.recv(2)
    assert head[0] == 0x80 | Opcode.CLOSE
    payload = client.recv(head[1])
    client.sendall(b"\x88\x82\x00\x00\x00\x00" + payload[:2])
    assert client.recv(1) == b""
    return parse_close(payload)


@pytest.mark.skipif(os.name == "nt", reason="the system has no SIGTERM")
def test_h120_a_real_process_ends_with_status_0() -> None:
    """200 clients that answer, one that does not, and one that has not said anything."""
    command = [sys.executable, "-m", "websocket", "serve", "echo", "--port", "0"]
    command += ["--shutdown-grace", "1.2"]
    clients = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            port = int(wait_for(process.stderr, r"listening on .*, (\d+)\)").group(1))
            for _ in range(202):
                client = socket.create_connection(("127.0.0.1", port))
                clients.append(client)
            silent, *others = clients
            for client in others:
                client.sendall(upgrade_request())
            for client in others:
                client.settimeout(20)
                assert client.recv(1000).endswith(b"\r\n\r\n")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            codes = [answer_close(client) for client in others[:-1]]
            assert process.wait(20) == 0
            # The one that does not answer makes it last as long as the grace, and no longer.
            assert 1.1 < time.monotonic() - began < 10
            assert {code for code, _ in codes} == {1001}
            assert len({reason for _, reason in codes}) > 100
            assert select.select([silent], [], [], 20)[0]
            assert silent.recv(100).startswith(b"HTTP/1.1 503 ")
        finally:
            process.kill()
            for client in clients:
                client.close()
