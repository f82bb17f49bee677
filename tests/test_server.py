from __future__ import annotations

import contextlib
import errno
import logging
import random
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    Peer,
    Recorder,
    Stage,
    as_socket,
    has_ipv6,
    read_head,
    run_until,
    upgrade_request,
)

from reactor import Reactor, ReactorClosed
from websocket import (
    Cause,
    CloseCode,
    Connection,
    Frame,
    FrameWriter,
    HTTPResponse,
    InvalidState,
    Limits,
    Message,
    MessageOpcode,
    Opcode,
    Request,
    Server,
    Session,
    State,
    connect,
)
from websocket.frame import build_close
from websocket.frame_writer import Payload, frame_message

MASKED = FrameWriter(masks=True)
HELLO = MASKED.encode_frame(Frame(Opcode.TEXT, b"hello"))
GOODBYE = MASKED.encode_frame(Frame(Opcode.CLOSE, build_close(1000, "")))
GOING_AWAY = (CloseCode.GOING_AWAY, "the server is going away")
HINT = re.compile(r"; retry after [0-5]\.[0-9][0-9] s$")
# Nothing but a shutdown ends a connection that has these.
PATIENT = Limits(close_timeout=1000.0, ping_interval=None)


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        yield reactor


@contextlib.contextmanager
def closing(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.close()


def echo(connection: Connection, message: Message | str | bytes) -> None:
    assert isinstance(message, (str, bytes))
    connection.send(message)


def recorders(server: Server) -> list[Recorder]:
    """Return the open connections, which must be recorders."""
    found = [each for each in server.connections if isinstance(each, Recorder)]
    assert len(found) == len(server.connections)
    return found


def answer_close(stage: Stage, *peers: Peer) -> None:
    """Let clients complete the closing handshake."""
    for peer in peers:
        closed = peer.received_close()
        assert closed is not None
        peer.close(closed[0])
    stage.settle()


def said(close: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Return a close without the hint at its end, which differs from client to client."""
    assert close is not None
    *others, reason = close
    assert HINT.search(reason), reason
    return (*others, HINT.sub("", reason))


class Log:
    """Write down what happens in which order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def writer(self, line: str) -> Callable[[], None]:
        return lambda: self.lines.append(line)


# --- handlers ---------------------------------------------------------------------------------


def test_a_function_serves_every_path(stage: Stage) -> None:
    server = stage.server(echo)
    for path in ("/", "/any/where?x=1"):
        peer = stage.client(server, upgrade_request(path))
        assert read_head(peer).startswith("HTTP/1.1 101 ")
        peer.send("hello")
        peer.send(b"\x00\xff")
        stage.settle()
        assert peer.receive() == [(Opcode.TEXT, "hello"), (Opcode.BINARY, b"\x00\xff")]


def test_a_mapping_routes_by_path(stage: Stage) -> None:
    server = stage.server({"/echo": echo, "/record": Recorder})
    peer = stage.client(server, upgrade_request("/echo?x=1"))
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    stage.client(server, upgrade_request("/record"))
    assert type(server.connections[1]) is Recorder
    for path in ("/", "/echo/", "/Echo", "/echo%20"):
        assert read_head(stage.client(server, upgrade_request(path))).startswith("HTTP/1.1 404 ")


def test_a_function_gets_envelopes_from_clients_that_speak_them(stage: Stage) -> None:
    received: list[Message | str | bytes] = []
    server = stage.server(lambda connection, message: received.append(message))
    peer = stage.open_client(server, Sec_WebSocket_Protocol="webos")
    envelope = Message(MessageOpcode.DISPLAY, b"pixels", 7)
    peer.send(envelope.encode())
    stage.settle()
    assert received == [envelope]


class NoConnection:
    pass


@pytest.mark.parametrize(
    "handler", [NoConnection, object, None, "echo", 7, {"/": None}, {"/": NoConnection}]
)
def test_a_bad_handler_is_a_type_error(stage: Stage, handler: Any) -> None:
    with pytest.raises(TypeError, match="Connection"):
        stage.server(handler)


# --- listening --------------------------------------------------------------------------------


def talk(server: Server, client: socket.socket) -> bytes:
    """Send a greeting and a goodbye to an echo server; return all that it answers."""
    closed = server.statistics().closed
    with client:
        client.sendall(upgrade_request() + HELLO + GOODBYE)
        run_until(server.reactor, lambda: server.statistics().closed > closed)
        client.settimeout(10)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def check_talk(server: Server, client: socket.socket) -> None:
    head, _, frames = talk(server, client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b"\x81\x05hello" + b"\x88\x02\x03\xe8"


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1"),
        pytest.param("::1", "::1", marks=needs_ipv6),
        pytest.param("", "::1", marks=needs_ipv6),
    ],
)
def test_it_listens_on_tcp(host: str, target: str) -> None:
    with closing(Server(echo, host, 0)) as server:
        assert server.addresses == []
        assert server.start() is server
        assert server.port > 0
        assert all(address[1] == server.port for address in server.addresses)
        check_talk(server, socket.create_connection((target, server.port)))


@needs_unix
def test_it_listens_on_a_unix_socket_free_of_limits_per_address(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    limits = Limits(max_connections_per_ip=1, handshakes_per_minute=1.0)
    with closing(Server(echo, unix_path=path, limits=limits)) as server:
        server.start()
        assert server.addresses == [path]
        with pytest.raises(InvalidState, match="no TCP port"):
            _ = server.port
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            check_talk(server, client)


def test_it_listens_on_sockets_of_the_application() -> None:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [sock.getsockname() for sock in sockets]
    with closing(Server(echo, sockets=iter(sockets))) as server:
        server.start()
        assert server.addresses == addresses
        assert server.port == addresses[0][1]
        for address in addresses:
            check_talk(server, socket.create_connection(address))
    assert [sock.fileno() for sock in sockets] == [-1, -1]


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT here")
def test_servers_may_share_a_port(reactor: Reactor) -> None:
    first = Server(echo, port=0, reuse_port=True, reactor=reactor).start()
    second = Server(echo, port=first.port, reuse_port=True, reactor=reactor).start()
    assert first.addresses == second.addresses


def test_a_port_that_is_taken_is_an_os_error(reactor: Reactor) -> None:
    first = Server(echo, port=0, reactor=reactor).start()
    second = Server(echo, port=first.port, reactor=reactor)
    with pytest.raises(OSError, match="in use") as raised:
        second.start()
    assert raised.value.errno == errno.EADDRINUSE
    first.shutdown()
    run_until(reactor, lambda: not first.is_shutting_down)
    assert second.start().addresses


def test_a_host_that_does_not_exist_is_an_os_error(reactor: Reactor) -> None:
    with pytest.raises(OSError, match=r"[Nn]ame|[Aa]ddress|host"):
        Server(echo, "256.256.256.256", 0, reactor=reactor).start()


def test_the_port_is_known_only_while_it_listens(reactor: Reactor) -> None:
    server = Server(echo, port=0, reactor=reactor)
    with pytest.raises(InvalidState, match="no TCP port"):
        _ = server.port
    server.start()
    assert server.port
    server.close()
    with pytest.raises(InvalidState, match="no TCP port"):
        _ = server.port


def test_a_server_is_started_once_at_a_time(reactor: Reactor) -> None:
    server = Server(echo, port=0, reactor=reactor).start()
    with pytest.raises(InvalidState, match="running already"):
        server.start()
    server.shutdown()
    with pytest.raises(InvalidState, match="running already"):
        server.start()
    run_until(reactor, lambda: not server.is_shutting_down)
    server.start()
    check_talk(server, socket.create_connection(("127.0.0.1", server.port)))


def test_a_closed_server_with_a_reactor_of_its_own_cannot_be_started() -> None:
    server = Server(echo, port=0)
    server.close()
    server.close()
    with pytest.raises(InvalidState, match="make a new one"):
        server.start()


def test_a_closed_server_on_a_shared_reactor_can_be_started_again(reactor: Reactor) -> None:
    server = Server(echo, port=0, reactor=reactor)
    for _ in range(2):
        server.start()
        check_talk(server, socket.create_connection(("127.0.0.1", server.port)))
        server.close()


def test_several_servers_share_a_reactor_and_nothing_else(reactor: Reactor) -> None:
    servers = [Server(echo, port=0, reactor=reactor).start() for _ in range(3)]
    for server in servers:
        check_talk(server, socket.create_connection(("127.0.0.1", server.port)))
    servers[0].close()
    assert [server.statistics().closed for server in servers] == [1, 1, 1]
    assert [bool(server.addresses) for server in servers] == [False, True, True]
    check_talk(servers[1], socket.create_connection(("127.0.0.1", servers[1].port)))


# --- adopting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("read_already", [0, 1, 100, len(upgrade_request()), 9999])
def test_it_adopts_a_connection_that_somebody_else_accepted(
    reactor: Reactor, read_already: int
) -> None:
    server = Server(echo, reactor=reactor)
    ours, theirs = socket.socketpair()
    sent = upgrade_request() + HELLO + GOODBYE
    server.adopt(ours, sent[:read_already])
    with theirs:
        if read_already < len(sent):  # else our end is closed by now
            theirs.sendall(sent[read_already:])
        run_until(reactor, lambda: server.statistics().closed)
        assert theirs.recv(65536).endswith(b"\x81\x05hello" + b"\x88\x02\x03\xe8")


def test_it_adopts_a_connection_that_is_gone_already(reactor: Reactor) -> None:
    server = Server(echo, reactor=reactor)
    # Not connected: neither getpeername nor recv will work.
    server.adopt(socket.socket())
    run_until(reactor, lambda: server.statistics().failed)
    assert server.statistics().failed_by_reason == {"broken": 1}


# --- statistics -------------------------------------------------------------------------------


def test_the_statistics_count_what_happens(stage: Stage) -> None:
    server = stage.server(echo, on_http_request=lambda request: HTTPResponse("page"))
    peers = [stage.open_client(server) for _ in range(3)]
    peers[0].send("hello")
    peers[1].close(1000)
    stage.client(server, b"GET / HTTP/1.0\r\n\r\n").sock.end()
    stage.client(server, b"\x00").sock.end()
    stage.client(server, b"")
    stage.settle()
    statistics = server.statistics()
    assert (statistics.accepted, statistics.opened) == (6, 3)
    assert (statistics.active, statistics.peak, statistics.closed) == (2, 3, 1)
    assert (statistics.handshaking, statistics.failed, statistics.http) == (1, 1, 1)
    assert statistics.failed_by_reason == {"400": 1}
    assert statistics.closed_by_cause[Cause.CLOSED_BY_PEER] == 1
    assert (statistics.messages_in, statistics.messages_out) == (1, 1)
    assert (statistics.bytes_in, statistics.bytes_out) == (11 + 8, 7 + 4)
    assert (statistics.sessions.created, statistics.sessions.detached) == (3, 1)


# --- broadcast --------------------------------------------------------------------------------


def test_a_broadcast_is_encoded_once_and_reaches_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stage.server()
    peers = [stage.open_client(server) for _ in range(20)]
    encoded: list[Payload] = []

    def counting_frame(message: Payload) -> tuple[bytes, ...]:
        encoded.append(message)
        return frame_message(message)

    monkeypatch.setattr("websocket.shared_message.frame_message", counting_frame)
    server.broadcast("news")
    server.broadcast(bytearray(b"more"))
    assert encoded == ["news", b"more"]
    stage.settle()
    for peer in peers:
        assert peer.receive() == [(Opcode.TEXT, "news"), (Opcode.BINARY, b"more")]


def test_a_broadcast_goes_to_those_it_is_for(stage: Stage) -> None:
    server = stage.server()
    peers = [stage.open_client(server) for _ in range(4)]
    others = server.connections[2:]
    server.broadcast("some", to=(each for each in server.connections if each not in others))
    server.broadcast("none", to=[])
    stage.settle()
    assert [peer.receive() for peer in peers] == [[(Opcode.TEXT, "some")]] * 2 + [[]] * 2


def test_a_broadcast_passes_over_those_who_are_gone(stage: Stage) -> None:
    server = stage.server()
    peers = [stage.open_client(server) for _ in range(3)]
    receivers = server.connections
    receivers[0].close()
    peers[1].sock.end()
    stage.settle()
    server.broadcast("news", to=receivers)
    server.broadcast("more")
    stage.settle()
    assert [payload for _, payload in peers[2].receive()] == ["news", "more"]
    assert peers[0].receive() == [(Opcode.CLOSE, b"\x03\xe8")]
    assert peers[1].receive() == []


def test_a_broadcast_ends_a_slow_consumer_and_nobody_else(stage: Stage) -> None:
    server = stage.server(limits=Limits(write_soft_mark=1000, write_hard_mark=10_000))
    ours, theirs = stage.network.pair(capacity=300)
    server.adopt(as_socket(ours), upgrade_request())
    healthy = stage.open_client(server)
    slow = recorders(server)[0]
    for _ in range(4):
        server.broadcast(b"x" * 5000)
        stage.settle()
    assert slow.cause is Cause.SLOW_CONSUMER
    assert len(healthy.receive()) == 4
    assert theirs.inbox


@pytest.mark.parametrize(
    ("message", "error"), [(7, TypeError), (None, TypeError), ("half \ud800", ValueError)]
)
def test_a_broadcast_of_what_is_no_message_sends_nothing(
    stage: Stage, message: Any, error: type[Exception]
) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    with pytest.raises(error):
        server.broadcast(message)
    stage.settle()
    assert peer.receive() == []


def test_members_may_come_and_go_while_broadcasts_are_made(stage: Stage) -> None:
    class Member(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            super().on_open()
            server.broadcast(f"came {self.id}")

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            server.broadcast(message)
            if message == "leave":
                self.close()

        def on_close(self, code: int, reason: str) -> None:
            super().on_close(code, reason)
            server.broadcast(f"left {self.id}")

    server = stage.server(Member)
    witness = stage.open_client(server)
    source = random.Random(6455)
    members: list[Peer] = []
    for _ in range(60):
        if members and source.random() < 0.5:
            leaving = members.pop(source.randrange(len(members)))
            leaving.send("leave")
            leaving.close()
        else:
            members.append(stage.open_client(server))
        stage.settle()
    words = [str(payload).split() for _, payload in witness.receive()]
    came = [int(number) for what, *rest in words if what == "came" for number in rest]
    left = [int(number) for what, *rest in words if what == "left" for number in rest]
    said = [what for what, *_ in words if what == "leave"]
    assert len(came) == len(set(came)) == server.statistics().opened
    assert len(left) == len(set(left)) == server.statistics().closed
    assert len(said) == len(left)


def in_thread(function: Callable[..., object], *args: object) -> None:
    """Call a function in another thread and wait for it."""
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def test_broadcast_and_shutdown_are_handed_over_from_other_threads(stage: Stage) -> None:
    server = stage.server()
    peers = [stage.open_client(server) for _ in range(3)]
    stage.reactor.run_once(0)  # it is the main thread that owns the reactor
    log = Log()
    in_thread(server.broadcast, "all")
    in_thread(lambda: server.broadcast("one", to=server.connections[:1]))
    in_thread(lambda: server.shutdown(4001, "bye", on_done=log.writer("done")))
    assert [peer.receive() for peer in peers] == [[]] * 3
    stage.settle()
    received = [[payload for _, payload in peer.receive()] for peer in peers]
    close = build_close(4001, "bye")
    assert received == [["all", "one", close], ["all", close], ["all", close]]
    for peer in peers:
        peer.close(1001)
    stage.settle()
    assert log.lines == ["done"]


def test_calls_after_the_reactor_is_closed_have_a_defined_result() -> None:
    server = Server(echo, port=0)
    server.close()
    for call in (lambda: server.broadcast("news"), server.shutdown):
        results: list[BaseException] = []

        def run(call: Callable[[], object] = call, results: list[BaseException] = results) -> None:
            try:
                call()
            except ReactorClosed as error:
                results.append(error)

        in_thread(run)
        assert len(results) == 1
    server.broadcast("to nobody")
    assert server.statistics().accepted == 0


# --- shutdown ---------------------------------------------------------------------------------


def test_a_shutdown_closes_all_connections_and_tells_when_it_is_done(stage: Stage) -> None:
    log = Log()

    class Leaving(Recorder):
        __slots__ = ()

        def on_close(self, code: int, reason: str) -> None:
            super().on_close(code, reason)
            log.lines.append("on_close")

    server = stage.server(Leaving)
    peers = [stage.open_client(server) for _ in range(3)]
    connections = recorders(server)
    server.shutdown(on_done=log.writer("done"))
    assert server.is_shutting_down
    stage.settle()
    assert [said(peer.received_close()) for peer in peers] == [GOING_AWAY] * 3
    assert [connection.state for connection in connections] == [State.CLOSING] * 3
    answer_close(stage, *peers)
    assert log.lines == ["on_close"] * 3 + ["done"]
    for connection in connections:
        assert connection.cause is Cause.SHUTDOWN
        assert connection.is_clean
        assert said(connection.events[-1]) == ("close", *GOING_AWAY)
    assert server.statistics().closed_by_cause[Cause.SHUTDOWN] == 3
    assert not server.is_shutting_down
    stage.pass_time(60)
    assert log.lines == ["on_close"] * 3 + ["done"]


def test_a_shutdown_may_give_code_and_reason(stage: Stage) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown(CloseCode.SERVICE_RESTART, "new version")
    stage.settle()
    assert said(peer.received_close()) == (1012, "new version")


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1001, "x" * 124)])
def test_a_close_frame_that_cannot_be_sent_is_a_value_error(
    stage: Stage, code: int, reason: str
) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    with pytest.raises(ValueError, match=r"code|reason|bytes"):
        server.shutdown(code, reason)
    stage.settle()
    assert not server.is_shutting_down
    assert peer.receive() == []


def test_a_shutdown_without_connections_is_done_at_once(stage: Stage) -> None:
    log = Log()
    server = stage.server()
    server.shutdown(on_done=log.writer("done"))
    assert log.lines == []
    stage.settle()
    assert log.lines == ["done"]
    assert stage.reactor.next_timeout() is None


def test_a_second_shutdown_only_adds_its_on_done(stage: Stage) -> None:
    log = Log()
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown(4001, "first", on_done=log.writer("first"))
    server.shutdown(4002, "second", grace=0, on_done=log.writer("second"))
    stage.settle()
    server.shutdown(on_done=log.writer("third"))
    stage.settle()
    assert log.lines == []
    assert peer.received_close() == (4001, "first")
    answer_close(stage, peer)
    assert log.lines == ["first", "second", "third"]


def test_an_on_done_that_raises_does_not_stop_the_others(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    log = Log()
    server = stage.server()
    peer = stage.open_client(server)
    connection = recorders(server)[0]
    server.shutdown(on_done=lambda: 1 / 0)
    server.shutdown(on_done=log.writer("done"))
    stage.settle()
    answer_close(stage, peer)
    assert log.lines == ["done"]
    assert connection.events[-1][0] == "close"
    assert len(logged) == 1


@pytest.mark.parametrize(("given", "grace"), [(None, 30.0), (7.0, 7.0)])
def test_who_does_not_answer_is_aborted_after_the_grace(
    stage: Stage, given: float | None, grace: float
) -> None:
    log = Log()
    limits = Limits(close_timeout=1000.0, handshake_timeout=1000.0, linger_timeout=1000.0)
    server = stage.server(limits=limits)
    peer = stage.open_client(server)
    stage.client(server, b"")
    stage.client(server, b"\x00")
    connection = recorders(server)[0]
    server.shutdown(grace=given, on_done=log.writer("done"))
    stage.pass_time(grace - 0.1)
    assert log.lines == []
    assert said(peer.received_close()) == GOING_AWAY
    stage.pass_time(0.2)
    assert log.lines == ["done"]
    assert said(connection.events[-1]) == ("close", *GOING_AWAY)
    assert not connection.is_clean
    assert server.statistics().failed_by_reason == {"503": 1, "400": 1}


def test_without_grace_the_close_frames_are_sent_all_the_same(stage: Stage) -> None:
    log = Log()
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown(grace=0, on_done=log.writer("done"))
    stage.pass_time(0.1)
    assert log.lines == ["done"]
    assert said(peer.received_close()) == GOING_AWAY


def test_the_last_words_before_a_shutdown_are_sent(stage: Stage) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.broadcast("goodbye")
    server.shutdown()
    server.broadcast("really")
    stage.settle()
    assert [payload for _, payload in peer.receive()][:2] == ["goodbye", "really"]


def test_a_server_may_be_started_again_when_it_is_done(reactor: Reactor) -> None:
    server = Server(echo, port=0, reactor=reactor).start()

    def restart() -> None:
        client = connect(reactor, f"ws://127.0.0.1:{server.port}/", Recorder)
        run_until(reactor, lambda: server.connections)
        server.shutdown(on_done=server.start)
        assert server.addresses == []
        run_until(reactor, lambda: server.addresses and client.state is State.CLOSED)
        assert said(client.events[-1]) == ("close", *GOING_AWAY)

    for _ in range(3):
        restart()
    assert server.statistics().opened == 3


def test_close_aborts_what_is_left(stage: Stage) -> None:
    server = stage.server()
    stage.open_client(server)
    stage.client(server, b"")
    connection = recorders(server)[0]
    server.close()
    stage.settle()
    assert connection.events[-1] == ("close", 1006, "")
    assert connection.cause is Cause.ABORTED
    statistics = server.statistics()
    assert (statistics.active, statistics.handshaking, statistics.sessions.active) == (0, 0, 0)
    assert stage.reactor.next_timeout() is None


def test_close_ends_a_shutdown(stage: Stage) -> None:
    log = Log()
    server = stage.server()
    stage.open_client(server)
    server.shutdown(on_done=log.writer("done"))
    server.close()
    stage.settle()
    assert log.lines == ["done"]
    assert stage.reactor.next_timeout() is None


# --- run --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def unchanged_signals() -> Iterator[None]:
    """Fail a test that leaves a signal handler behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def raise_at(stage: Stage, seconds: float, number: int) -> None:
    stage.reactor.call_later(seconds, signal.raise_signal, number)


def test_run_gives_the_applications_handlers_back(stage: Stage) -> None:
    """On a reactor that is shared: its own handlers, and those that nobody knows of."""
    log = Log()

    def handler(number: int, frame: object) -> None:
        log.lines.append("interrupted")

    before = signal.signal(signal.SIGINT, handler)
    stage.reactor.add_signal_handler(signal.SIGTERM, log.writer("terminated"))
    try:
        server = stage.server(port=0)
        for _ in range(2):
            raise_at(stage, 1, signal.SIGTERM)
            server.run()
        assert log.lines == []
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        stage.settle()
        assert log.lines == ["interrupted", "terminated"]
    finally:
        stage.reactor.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGINT, before)


def test_a_signal_while_it_begins_to_listen_is_not_lost(stage: Stage) -> None:
    class Interrupted(Server):
        def start(self) -> Server:
            super().start()
            signal.raise_signal(signal.SIGTERM)
            return self

    began = stage.clock.now
    server = Interrupted(Recorder, port=0, reactor=stage.reactor)
    server.run()
    assert stage.clock.now == began
    assert server.addresses == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_run_in_an_orderly_way(stage: Stage, number: int) -> None:
    server = stage.server(port=0)
    peer = stage.open_client(server)
    connection = recorders(server)[0]
    raise_at(stage, 5, number)
    stage.reactor.call_later(6, peer.close, 1001)
    start = stage.clock.now
    server.run()
    assert stage.clock.now == pytest.approx(start + 6, abs=0.1)
    assert said(peer.received_close()) == GOING_AWAY
    assert connection.cause is Cause.SHUTDOWN
    assert connection.is_clean
    assert server.addresses == []


def test_a_second_signal_ends_run_at_once(stage: Stage) -> None:
    server = stage.server(port=0, limits=PATIENT)
    peer = stage.open_client(server)
    stage.client(server, b"\x00")
    connection = recorders(server)[0]
    raise_at(stage, 5, signal.SIGINT)
    raise_at(stage, 6, signal.SIGTERM)
    start = stage.clock.now
    server.run()
    assert stage.clock.now == pytest.approx(start + 6, abs=0.1)
    assert said(peer.received_close()) == GOING_AWAY
    assert said(connection.events[-1]) == ("close", *GOING_AWAY)
    assert not connection.is_clean
    assert server.statistics().active == 0


def test_two_signals_in_one_turn_end_run_at_once(stage: Stage) -> None:
    server = stage.server(port=0, limits=PATIENT)
    stage.open_client(server)
    raise_at(stage, 5, signal.SIGINT)
    raise_at(stage, 5, signal.SIGINT)
    start = stage.clock.now
    server.run()
    assert stage.clock.now == pytest.approx(start + 5, abs=0.1)


def test_after_a_signal_the_grace_is_the_longest_that_run_goes_on(stage: Stage) -> None:
    server = stage.server(port=0, limits=PATIENT)
    stage.open_client(server)
    raise_at(stage, 5, signal.SIGTERM)
    start = stage.clock.now
    server.run()
    assert stage.clock.now == pytest.approx(start + 5 + PATIENT.shutdown_grace, abs=0.1)


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3)])
@pytest.mark.parametrize("place", ["on_open", "on_message", "timer"])
def test_an_exit_asked_for_in_a_callback_is_orderly_and_goes_on_to_the_caller(
    stage: Stage, place: str, error: BaseException
) -> None:
    class Fatal(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            super().on_open()
            if place == "on_open":
                raise error

        def on_message(self, message: str | bytes) -> None:
            raise error

    def fail() -> None:
        raise error

    server = stage.server({"/": Recorder, "/fatal": Fatal}, port=0)
    healthy = stage.open_client(server)
    ours, theirs = stage.network.pair()
    server.adopt(as_socket(ours))
    culprit = Peer(theirs, is_client=True)
    culprit.send_bytes(upgrade_request("/fatal"))
    if place == "on_message":
        culprit.send("die")
    elif place == "timer":
        stage.reactor.call_later(1, fail)

    def hang_up() -> None:
        read_head(culprit)
        culprit.close(1001)
        healthy.close(1001)

    stage.reactor.call_later(2, hang_up)
    with pytest.raises(type(error)) as raised:
        server.run()
    assert raised.value is error
    assert said(healthy.received_close()) == GOING_AWAY
    assert said(culprit.received_close()) == GOING_AWAY
    assert server.statistics().closed_by_cause[Cause.SHUTDOWN] == 2


def test_an_exit_asked_for_during_authentication_refuses_that_client(stage: Stage) -> None:
    def authenticate(request: Request) -> None:
        raise KeyboardInterrupt

    server = stage.server(port=0, authenticate=authenticate)
    ours, theirs = stage.network.pair()
    server.adopt(as_socket(ours))
    theirs.feed(upgrade_request())
    with pytest.raises(KeyboardInterrupt):
        server.run()
    assert theirs.take().startswith(b"HTTP/1.1 503 ")


def test_an_exit_asked_for_when_all_is_over_already_does_not_hang(stage: Stage) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    server = stage.server(port=0)
    stage.reactor.call_later(1, lambda: server.shutdown(on_done=interrupt))
    with pytest.raises(KeyboardInterrupt):
        server.run()


def test_an_exit_asked_for_by_the_last_on_close_does_not_hang(stage: Stage) -> None:
    class Fatal(Recorder):
        __slots__ = ()

        def on_close(self, code: int, reason: str) -> None:
            raise KeyboardInterrupt

    server = stage.server(Fatal, port=0)
    stage.open_client(server)
    stage.reactor.call_later(1, server.shutdown)
    with pytest.raises(KeyboardInterrupt):
        server.run()
    assert server.statistics().active == 0


def test_an_exit_asked_for_when_a_session_expires_does_not_hang(stage: Stage) -> None:
    def on_session_expired(session: Session) -> None:
        raise KeyboardInterrupt

    server = stage.server(
        port=0, limits=Limits(detached_lifetime=0), on_session_expired=on_session_expired
    )
    peer = stage.open_client(server)
    stage.pass_time(Limits().handshake_timeout)
    stage.reactor.call_later(1, server.shutdown)
    stage.reactor.call_later(2, peer.close, 1001)
    with pytest.raises(KeyboardInterrupt):
        server.run()


def test_the_second_exit_asked_for_is_not_orderly(stage: Stage) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    server = stage.server(port=0, limits=PATIENT)
    stage.open_client(server)
    stage.reactor.call_later(1, interrupt)
    stage.reactor.call_later(2, interrupt)
    start = stage.clock.now
    with pytest.raises(KeyboardInterrupt):
        server.run()
    assert stage.clock.now == pytest.approx(start + 2, abs=0.1)
    stage.settle()
    assert server.statistics().active == 0


def test_run_goes_on_with_a_server_that_is_started(stage: Stage) -> None:
    server = stage.server(port=0).start()
    port = server.port
    ports: list[int] = []
    stage.reactor.call_later(1, lambda: ports.append(server.port))
    stage.reactor.call_later(2, server.shutdown)
    server.run()
    assert ports == [port]


def test_run_ends_when_a_shutdown_that_was_begun_before_is_done(stage: Stage) -> None:
    server = stage.server(port=0).start()
    peer = stage.open_client(server)
    server.shutdown()
    stage.reactor.call_later(1, peer.close, 1001)
    server.run()
    assert said(peer.received_close()) == GOING_AWAY
    assert server.statistics().closed_by_cause[Cause.SHUTDOWN] == 1


def test_run_ends_when_the_reactor_is_stopped(stage: Stage) -> None:
    server = stage.server(port=0)
    stage.open_client(server)
    connection = recorders(server)[0]
    stage.reactor.call_later(1, stage.reactor.stop)
    server.run()
    stage.settle()
    assert connection.cause is Cause.ABORTED


def test_a_shutdown_outside_of_run_does_not_stop_the_reactor(stage: Stage) -> None:
    server = stage.server(port=0)
    for _ in range(2):
        stage.reactor.call_later(1, stage.reactor.stop)
        server.run()
    log = Log()
    server.start()
    server.shutdown()
    stage.reactor.call_later(1, log.writer("still running"))
    stage.reactor.call_later(2, stage.reactor.stop)
    stage.reactor.run()
    assert log.lines == ["still running"]


def test_run_closes_the_reactor_when_it_cannot_listen(reactor: Reactor) -> None:
    other = Server(echo, port=0, reactor=reactor).start()
    server = Server(echo, port=other.port)
    with pytest.raises(OSError, match="in use"):
        server.run()
    with pytest.raises(ReactorClosed):
        server.reactor.run_once(0)


class Once(Recorder):
    """Send the signal to go as soon as somebody has come."""

    __slots__ = ()

    def on_open(self) -> None:
        super().on_open()
        signal.raise_signal(signal.SIGTERM)


def test_run_serves_real_clients_and_closes_its_own_reactor() -> None:
    server = Server(Once, port=0).start()
    client = connect(server.reactor, f"ws://127.0.0.1:{server.port}/", Recorder)
    server.run()
    assert said(client.events[-1]) == ("close", *GOING_AWAY)
    assert server.statistics().closed_by_cause[Cause.SHUTDOWN] == 1
    with pytest.raises(ReactorClosed):
        server.reactor.run_once(0)
    with pytest.raises(InvalidState, match="make a new one"):
        server.run()


def test_servers_run_one_after_the_other_in_one_process() -> None:
    for _ in range(3):
        server = Server(Once, port=0).start()
        client = connect(server.reactor, f"ws://127.0.0.1:{server.port}/", Recorder)
        server.run()
        assert said(client.events[-1]) == ("close", *GOING_AWAY)


def test_run_in_another_thread_leaves_the_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    server = Server(echo, port=0)
    seen: list[object] = []
    server.reactor.call_soon(lambda: seen.append(signal.getsignal(signal.SIGINT)))
    thread = threading.Thread(target=server.run)
    thread.start()
    server.reactor.call_soon_threadsafe(server.shutdown)
    thread.join(10)
    assert not thread.is_alive()
    assert seen == [before]


# --- sessions ---------------------------------------------------------------------------------


def test_of_two_connections_of_a_session_the_newer_one_wins(stage: Stage) -> None:
    server = stage.server()
    first = stage.open_client(server)
    session = server.connections[0].session
    assert session is not None
    second = stage.open_client(server, Cookie=f"websocket_session={session.id}")
    older, newer = recorders(server)
    assert session.connection is newer
    assert first.received_close() == (4000, "a newer connection took over")
    answer_close(stage, first)
    assert older.cause is Cause.REPLACED
    assert older.events[-1] == ("close", 4000, "a newer connection took over")
    assert session.connection is newer
    newer.send("yours")
    stage.settle()
    assert second.receive() == [(Opcode.TEXT, "yours")]
    statistics = server.statistics()
    assert statistics.closed_by_cause[Cause.REPLACED] == 1
    assert (statistics.sessions.active, statistics.sessions.attached) == (1, 1)


def test_a_half_open_connection_gives_its_session_up(stage: Stage) -> None:
    server = stage.server()
    stage.open_client(server)
    session = server.connections[0].session
    assert session is not None
    stage.open_client(server, Cookie=f"websocket_session={session.id}")
    older, newer = recorders(server)
    stage.pass_time(Limits().close_timeout + 0.1)
    assert older.cause is Cause.REPLACED
    assert older.state is State.CLOSED
    assert session.connection is newer


def test_a_session_keeps_its_data_while_its_client_is_away(stage: Stage) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    session = server.connections[0].session
    assert session is not None
    session.data["name"] = "ann"
    for _ in range(3):
        peer.sock.end()
        stage.pass_time(Limits().detached_lifetime - 1)
        peer = stage.open_client(server, Cookie=f"websocket_session={session.id}")
        assert server.connections[0].session is session
    assert session.data == {"name": "ann"}
    peer.sock.end()
    stage.pass_time(Limits().detached_lifetime + 1)
    stage.open_client(server, Cookie=f"websocket_session={session.id}")
    assert server.connections[0].session is not session


def test_a_connection_ends_with_its_session(stage: Stage) -> None:
    expired: list[Session] = []
    limits = Limits(session_lifetime=60.0, ping_interval=None)
    server = stage.server(limits=limits, on_session_expired=expired.append)
    peer = stage.open_client(server)
    connection = recorders(server)[0]
    session = connection.session
    stage.pass_time(59.9)
    assert connection.is_open
    stage.pass_time(0.2)
    assert peer.received_close() == (1008, "the session has ended")
    answer_close(stage, peer)
    assert connection.cause is Cause.SESSION_EXPIRED
    assert expired == [session]
    assert server.statistics().closed_by_cause[Cause.SESSION_EXPIRED] == 1


@pytest.mark.parametrize("detached_lifetime", [0.0, 120.0])
def test_a_session_that_nobody_comes_back_to_expires(
    stage: Stage, detached_lifetime: float
) -> None:
    expired: list[Session] = []
    limits = Limits(detached_lifetime=detached_lifetime)
    server = stage.server(limits=limits, on_session_expired=expired.append)
    peer = stage.open_client(server)
    session = server.connections[0].session
    stage.pass_time(15)
    peer.sock.end()
    stage.pass_time(detached_lifetime + 0.1)
    assert expired == [session]
    assert server.statistics().sessions.active == 0


def test_an_expiry_hook_that_raises_costs_nobody_anything(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    def on_session_expired(session: Session) -> None:
        raise RuntimeError("no such file")

    limits = Limits(detached_lifetime=0.0)
    server = stage.server(limits=limits, on_session_expired=on_session_expired)
    log = Log()
    peer = stage.open_client(server)
    connection = recorders(server)[0]
    stage.pass_time(15)
    server.shutdown(on_done=log.writer("done"))
    stage.settle()
    answer_close(stage, peer)
    assert connection.events[-1][0] == "close"
    assert log.lines == ["done"]
    (record,) = logged
    assert record.getMessage() == "on_session_expired raised"
    assert (vars(record)["event"], vars(record)["hook"]) == ("hook_failed", "on_session_expired")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)
