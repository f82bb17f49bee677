"""wss end to end: our server, our client and raw TLS peers, on real loopback sockets."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import (
    LIMITS,
    ScriptedServer,
    answer_of,
    check_refused,
    opened,
    refused,
    turn,
    url_of,
)
from support import (
    FakeClock,
    Recorder,
    Stage,
    header,
    read_head,
    run_until,
    upgrade_request,
)
from threaded import TIMEOUT, running
from tls_peer import AUTHORITY, TLSPeer, certificate, trusting_context

import websocket.client
from reactor import Reactor
from reactor.tls import ServerTLS, client_context
from websocket import (
    Cause,
    Connection,
    FrameWriter,
    HandshakeError,
    HTTPResponse,
    InvalidState,
    Limits,
    Opcode,
    Server,
    State,
    connect,
    dial,
)
from websocket.frame import FIN, build_close

MIB = 1024 * 1024
MASKED = FrameWriter(masks=True)


class Echo(Connection):
    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reactor(clock: FakeClock) -> Iterator[Reactor]:
    with Reactor(clock=clock) as reactor:
        yield reactor


@pytest.fixture(scope="module")
def trusting() -> ssl.SSLContext:
    return client_context(AUTHORITY)


def secure_server(reactor: Reactor, handler: Any = Echo, **options: Any) -> Server:
    settings: dict[str, Any] = {"tls": ServerTLS(certificate("server")), "limits": LIMITS}
    return Server(handler, port=0, reactor=reactor, **{**settings, **options}).start()


@pytest.fixture
def server(reactor: Reactor) -> Server:
    return secure_server(reactor)


def secure_url(server: Server, target: str = "/", host: str = "127.0.0.1") -> str:
    return f"wss://{host}:{server.port}{target}"


def assert_echoed(reactor: Reactor, client: Recorder, message: str | bytes) -> None:
    count = len(client.messages)
    assert client.send(message)
    run_until(reactor, lambda: len(client.messages) > count)
    assert client.messages[-1] == message


class Dialogue:
    """A raw TLS client of a server."""

    def __init__(
        self, reactor: Reactor, server: Server, context: ssl.SSLContext | None = None
    ) -> None:
        self._reactor = reactor
        sock = socket.create_connection(("127.0.0.1", server.port))
        self.peer = TLSPeer(sock, context or trusting_context(), "localhost")

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *exception: object) -> None:
        self.peer.close()

    @property
    def received(self) -> bytes:
        return bytes(self.peer.received)

    def pump_until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            self.peer.pump()
            if condition():
                return
            self._reactor.run_once(0.01)
        raise AssertionError("what was waited for did not happen")

    def begin(self) -> None:
        """Complete the TLS handshake."""
        self.pump_until(lambda: self.peer.is_ready)

    def ask(self, request: bytes) -> str:
        """Send a request and return the head of the answer."""
        self.begin()
        self.peer.write(request)
        self.pump_until(lambda: b"\r\n\r\n" in self.received)
        return self.received.partition(b"\r\n\r\n")[0].decode()

    def read_to_end(self) -> bytes:
        self.pump_until(lambda: self.peer.has_eof)
        return self.received


Clients = Callable[[Server], socket.socket]


@pytest.fixture
def raw_clients() -> Iterator[Clients]:
    """Return what connects to a server, and says nothing."""
    with contextlib.ExitStack() as sockets:

        def connect_raw(server: Server) -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", server.port))
            return sockets.enter_context(sock)

        yield connect_raw


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [False, True])
def test_messages_pass_both_ways_up_to_the_limit(
    reactor: Reactor, trusting: ssl.SSLContext, compression: bool
) -> None:
    server = secure_server(reactor, compression=compression)
    client = opened(reactor, secure_url(server), tls=trusting, compression=compression)
    assert client.is_compressed == compression
    messages: list[str | bytes] = ["", b"", "grüße 🔑", b"\x00\xff", "x" * MIB, bytes(MIB)]
    for message in messages:
        assert_echoed(reactor, client, message)
    client.close(3000, "enough")
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert client.events[-1] == ("close", 3000, "enough")
    assert client.is_clean
    run_until(reactor, lambda: server.statistics().closed == 1)
    assert server.statistics().closed_by_cause[Cause.CLOSED_BY_PEER] == 1


def test_many_messages_of_both_sides_keep_their_order(
    reactor: Reactor, trusting: ssl.SSLContext
) -> None:
    server = secure_server(reactor, Recorder)
    client = opened(reactor, secure_url(server), tls=trusting)
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    numbers = [str(number) for number in range(2000)]
    for number in numbers:
        client.send(number)
        server.broadcast(number)
    run_until(reactor, lambda: len(client.messages) == len(connection.messages) == len(numbers))
    assert client.messages == connection.messages == numbers


def test_a_name_is_connected_to_as_well_as_an_address(
    reactor: Reactor, server: Server, trusting: ssl.SSLContext
) -> None:
    client = opened(reactor, secure_url(server, host="localhost"), tls=trusting)
    assert_echoed(reactor, client, "hello")


def test_pings_and_the_end_of_a_silent_peer_work_as_without_tls(
    reactor: Reactor, clock: FakeClock, trusting: ssl.SSLContext
) -> None:
    server = secure_server(reactor, limits=Limits())
    client = opened(reactor, secure_url(server), tls=trusting)
    (connection,) = server.connections
    client.ping(b"there?")
    run_until(reactor, lambda: ("pong", b"there?") in client.events)
    client.pause()
    for _ in range(450):
        clock.now += 0.09  # less than what would count as a stall of the loop
        reactor.run_once(0)
    assert connection.cause is Cause.PING_TIMEOUT


def test_the_blocking_client_speaks_tls(trusting: ssl.SSLContext) -> None:
    reactor = Reactor()
    server = secure_server(reactor)
    with running(reactor), dial(secure_url(server), tls=trusting) as ws:
        ws.send(bytes(MIB))
        assert ws.recv(TIMEOUT) == bytes(MIB)
        assert ws.ping(TIMEOUT) > 0


# --- what the server makes of it --------------------------------------------------------------


@pytest.mark.parametrize("is_secure", [None, True, False])
@pytest.mark.parametrize("has_tls", [True, False])
def test_the_cookie_of_the_session_is_secure_where_the_server_is(
    reactor: Reactor, has_tls: bool, is_secure: bool | None
) -> None:
    if has_tls:
        server = secure_server(reactor, is_secure=is_secure)
        with Dialogue(reactor, server) as client:
            head = client.ask(upgrade_request())
    else:
        with Stage() as stage:
            head = read_head(stage.client(stage.server(Echo, is_secure=is_secure)))
    cookie = header(head, "Set-Cookie")
    assert cookie is not None
    attributes = cookie.split("; ")[1:]
    expected = ["Path=/", "HttpOnly", "SameSite=Strict"]
    if is_secure or (is_secure is None and has_tls):
        expected.append("Secure")
    assert attributes == expected


@pytest.mark.parametrize(
    ("scheme", "is_secure", "status"),
    [("https", None, 101), ("http", None, 403), ("https", False, 403), ("http", False, 101)],
)
def test_the_same_origin_is_one_of_https(
    reactor: Reactor,
    trusting: ssl.SSLContext,
    scheme: str,
    is_secure: bool | None,
    status: int,
) -> None:
    server = secure_server(reactor, is_secure=is_secure)
    origin = f"{scheme}://127.0.0.1:{server.port}"
    if status == 101:
        opened(reactor, secure_url(server), tls=trusting, origin=origin)
        return
    client = refused(reactor, secure_url(server), tls=trusting, origin=origin)
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == status


@pytest.mark.parametrize(
    ("origin", "status"), [("https://example.com", 101), ("http://example.com", 403)]
)
def test_behind_a_proxy_that_speaks_tls_the_origin_is_one_of_https(
    origin: str, status: int
) -> None:
    with Stage() as stage:
        server = stage.server(Echo, is_secure=True)
        head = read_head(stage.client(server, upgrade_request(Origin=origin)))
    assert head.startswith(f"HTTP/1.1 {status} ")


def test_a_session_is_resumed_over_tls(reactor: Reactor, trusting: ssl.SSLContext) -> None:
    server = secure_server(reactor)
    first = opened(reactor, secure_url(server), tls=trusting)
    first.abort()
    run_until(reactor, lambda: not server.connections)
    second = opened(reactor, secure_url(server), tls=trusting, session_id=first.session_id)
    assert second.session_id == first.session_id


def test_a_refusal_can_be_read(reactor: Reactor, trusting: ssl.SSLContext) -> None:
    server = secure_server(reactor, {"/here": Echo})
    client = refused(reactor, secure_url(server, "/there"), tls=trusting)
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 404


def test_who_is_turned_away_at_the_door_can_read_why(
    reactor: Reactor, trusting: ssl.SSLContext
) -> None:
    """The refusal is written before the TLS handshake, and has to wait for it."""
    server = secure_server(reactor, limits=LIMITS.replace(max_connections=1))
    opened(reactor, secure_url(server), tls=trusting)
    client = refused(reactor, secure_url(server), tls=trusting)
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 503
    assert len(server.connections) == 1


def test_a_page_is_served_whole_to_a_client_that_reads_slowly(reactor: Reactor) -> None:
    page = bytes(range(256)) * 16 * 1024
    server = secure_server(reactor, on_http_request=lambda request: HTTPResponse(page))
    with Dialogue(reactor, server) as client:
        client.begin()
        client.peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = client.read_to_end()
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n" + page)
    assert client.peer.has_clean_end


def test_frames_in_the_record_of_the_request_are_handled(reactor: Reactor, server: Server) -> None:
    hello = b"".join(MASKED.encode(FIN | Opcode.TEXT, b"hello"))
    goodbye = b"".join(MASKED.encode(FIN | Opcode.CLOSE, build_close(1000, "")))
    with Dialogue(reactor, server) as client:
        client.begin()
        client.peer.write(upgrade_request() + hello + goodbye)
        received = client.read_to_end()
    assert received.endswith(b"\r\n\r\n\x81\x05hello\x88\x02\x03\xe8")
    assert client.peer.has_clean_end


def test_a_stream_that_somebody_else_accepted_is_adopted_for_tls(
    reactor: Reactor, server: Server
) -> None:
    ours, theirs = socket.socketpair()
    server.adopt(ours)
    client = Dialogue.__new__(Dialogue)
    client._reactor = reactor
    client.peer = TLSPeer(theirs, trusting_context(), "localhost")
    with client:
        assert client.ask(upgrade_request()).startswith("HTTP/1.1 101 ")


# --- redirects --------------------------------------------------------------------------------


def test_a_redirect_from_ws_to_wss_is_followed(
    reactor: Reactor, server: Server, trusting: ssl.SSLContext
) -> None:
    location = f"Location: https://localhost:{server.port}/"
    script = ScriptedServer(reactor, answer_of(location, status="301 Moved", upgrade=False))
    client = opened(reactor, script.url, tls=trusting)
    assert_echoed(reactor, client, "hello")


def test_h124_a_redirect_from_wss_to_ws_is_refused(
    reactor: Reactor, trusting: ssl.SSLContext
) -> None:
    script = ScriptedServer(reactor)
    fields = (("Location", script.url),)

    def authenticate(request: object) -> str | None:
        raise HandshakeError(302, "over there", fields)

    server = secure_server(reactor, authenticate=authenticate)
    client = refused(reactor, secure_url(server), tls=trusting)
    assert "from wss to ws" in str(client.error)
    assert not script.conversations


# --- who is believed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trusts", "complaint"),
    [
        ("stranger", certificate("stranger"), "match|mismatch"),
        ("stranger", AUTHORITY, "self.signed"),
        ("expired", AUTHORITY, "expired"),
        ("server", None, "verify failed"),
    ],
)
def test_h128_a_server_that_proves_nothing_is_refused(
    reactor: Reactor, name: str, trusts: str | None, complaint: str
) -> None:
    server = secure_server(reactor, tls=ServerTLS(certificate(name)))
    client = refused(reactor, secure_url(server), tls=client_context(trusts))
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 0
    cause = client.error.__cause__
    assert isinstance(cause, ssl.SSLCertVerificationError)
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        raise cause
    assert client.cause is Cause.HANDSHAKE_FAILED
    run_until(reactor, lambda: server.statistics().failed == 1)
    assert server.statistics().opened == 0


def test_h128_by_default_the_authorities_of_the_system_decide(
    reactor: Reactor, server: Server
) -> None:
    for _ in range(2):
        client = refused(reactor, secure_url(server))
        assert client.error is not None
        assert isinstance(client.error.__cause__, ssl.SSLCertVerificationError)
    context = websocket.client._default_context()
    assert context is websocket.client._default_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def personal_context(name: str | None) -> ssl.SSLContext:
    context = client_context(AUTHORITY)
    if name is not None:
        context.load_cert_chain(certificate(name))
    return context


@pytest.fixture
def choosy(reactor: Reactor) -> Server:
    """Return a server that asks for a certificate of its authority."""
    tls = ServerTLS(certificate("server"), client_authorities=AUTHORITY)
    return secure_server(reactor, tls=tls)


def test_a_client_with_a_certificate_is_let_in(reactor: Reactor, choosy: Server) -> None:
    client = opened(reactor, secure_url(choosy), tls=personal_context("client"))
    assert_echoed(reactor, client, "hello")
    request = choosy.connections[0].request
    assert request is not None
    assert request.peer_certificate is not None
    assert "subject" in request.peer_certificate


@pytest.mark.parametrize("name", [None, "stranger", "expired"])
def test_a_client_without_a_good_certificate_is_not(
    reactor: Reactor, choosy: Server, name: str | None
) -> None:
    client = refused(reactor, secure_url(choosy), tls=personal_context(name))
    assert isinstance(client.error, HandshakeError)
    # With TLS 1.3 the client's handshake is over before the server has judged.
    assert client.error.status == 0
    assert str(client.error).startswith("no answer to the handshake: ")
    run_until(reactor, lambda: choosy.statistics().failed == 1)
    assert choosy.statistics().opened == 0


# --- no TLS where some is expected, and the other way round -----------------------------------


def test_h13_tls_on_the_plain_port_is_dropped_with_one_hint(
    reactor: Reactor,
    clock: FakeClock,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(Echo, port=0, reactor=reactor, limits=LIMITS).start()
    with caplog.at_level(logging.INFO, "websocket"):
        for _ in range(3):
            client = refused(reactor, secure_url(server), tls=trusting)
            assert isinstance(client.error, HandshakeError)
        assert [record.getMessage() for record in caplog.records].count(HINT) == 1
        clock.now += 5.1
        refused(reactor, secure_url(server), tls=trusting)
        assert caplog.messages[-1] == f"{HINT} (and 2 more of this kind before)"
    run_until(reactor, lambda: server.statistics().failed == 4)
    assert server.statistics().failed_by_reason == {"tls": 4}
    assert_echoed(reactor, opened(reactor, url_of(server)), "others are served")


HINT = "a client speaks TLS to a port without it: is it a wss:// URL?"

STRANGERS = {
    "HTTP": upgrade_request(),
    "garbage": b"\x00\xff" * 100,
    "SSL 3.0": bytes.fromhex("16 03 00 00 2f 01 00 00 2b 03 00") + bytes(41),
    "an alert": bytes.fromhex("15 03 01 00 02 02 46"),
    "an endless record": b"\x16\x03\x01\xff\xff" + bytes(100_000),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_h14_what_is_no_tls_is_dropped_at_once(
    reactor: Reactor, server: Server, trusting: ssl.SSLContext, case: str
) -> None:
    client = opened(reactor, secure_url(server), tls=trusting)
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        stranger.sendall(STRANGERS[case])
        run_until(reactor, lambda: server.statistics().failed == 1)
    assert server.statistics().handshaking == 0
    assert_echoed(reactor, client, "others are served")


def test_a_client_of_ws_on_the_port_for_tls(reactor: Reactor, server: Server) -> None:
    client = refused(reactor, url_of(server))
    assert isinstance(client.error, HandshakeError)


# --- time -------------------------------------------------------------------------------------


def test_h93_stalled_handshakes_end_at_the_deadline_and_hold_up_nobody(
    reactor: Reactor, clock: FakeClock, trusting: ssl.SSLContext, raw_clients: Clients
) -> None:
    server = secure_server(reactor)
    client = opened(reactor, secure_url(server), tls=trusting)
    stalled = [raw_clients(server) for _ in range(40)]
    with Dialogue(reactor, server) as dialogue:
        client_hello = dialogue.peer.encrypted()
    for number, sock in enumerate(stalled):
        # Nothing at all, half a ClientHello, a whole one whose answer is never read.
        sock.sendall(client_hello[: len(client_hello) * (number % 3) // 2])
    run_until(reactor, lambda: server.statistics().handshaking == len(stalled))
    turn(reactor)
    assert_echoed(reactor, client, "others are served")
    clock.now += LIMITS.handshake_timeout - 0.1
    turn(reactor)
    assert server.statistics().handshaking == len(stalled)
    assert_echoed(reactor, opened(reactor, secure_url(server), tls=trusting), "newcomers, too")
    clock.now += 0.2
    turn(reactor)
    assert server.statistics().handshaking == 0
    assert server.statistics().failed_by_reason["408"] == len(stalled)
    assert_echoed(reactor, client, "still there")


def test_a_server_that_stalls_in_the_tls_handshake_is_given_up(
    reactor: Reactor, clock: FakeClock, trusting: ssl.SSLContext
) -> None:
    script = ScriptedServer(reactor)
    url = script.url.replace("ws:", "wss:")
    client = connect(reactor, url, Recorder, tls=trusting, limits=LIMITS)
    run_until(reactor, lambda: script.has_request)
    clock.now += LIMITS.handshake_timeout + 0.1
    turn(reactor)
    check_refused(client)
    assert str(client.error) == "the handshake took too long"
    run_until(reactor, lambda: script.conversation.is_over)


@pytest.mark.parametrize("way", ["close", "abort"])
def test_giving_up_in_the_tls_handshake(
    reactor: Reactor, clock: FakeClock, trusting: ssl.SSLContext, way: str
) -> None:
    script = ScriptedServer(reactor)
    url = script.url.replace("ws:", "wss:")
    client = connect(reactor, url, Recorder, tls=trusting, limits=LIMITS)
    run_until(reactor, lambda: script.has_request)
    getattr(client, way)()
    run_until(reactor, lambda: script.conversation.is_over)
    turn(reactor)
    assert client.events == []
    assert reactor.next_timeout() is None


# --- shutdown ---------------------------------------------------------------------------------


def test_a_shutdown_closes_connections_over_tls_in_an_orderly_way(
    reactor: Reactor, clock: FakeClock, trusting: ssl.SSLContext, raw_clients: Clients
) -> None:
    server = secure_server(reactor)
    clients = [opened(reactor, secure_url(server), tls=trusting) for _ in range(5)]
    raw_clients(server)
    run_until(reactor, lambda: server.statistics().handshaking == 1)
    done: list[bool] = []
    server.shutdown(grace=3, on_done=lambda: done.append(True))
    run_until(reactor, lambda: all(client.state is State.CLOSED for client in clients))
    for client in clients:
        assert client.events[1][:2] == ("close", 1001)
        assert client.events[1][2].startswith("the server is going away; retry after ")
        assert client.is_clean
    assert not done
    clock.now += 3.1
    run_until(reactor, lambda: done)
    assert server.statistics().handshaking == 0
    server.close()
    assert reactor.next_timeout() is None


# --- another certificate ----------------------------------------------------------------------


class Files:
    """A certificate in a file that is replaced while the server runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "server.pem"
        self.install("server")
        self.tls = ServerTLS(str(self.path))

    def install(self, name: str) -> None:
        shutil.copyfile(certificate(name), self.path)

    def spoil(self) -> None:
        self.path.write_text("no certificate")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def serial_of(reactor: Reactor, server: Server) -> str:
    """Return the serial number of the certificate that a new client is shown."""
    with Dialogue(reactor, server) as client:
        client.begin()
        shown = client.peer.tls.getpeercert()
    assert shown is not None
    return str(shown["serialNumber"])


def test_h97_a_reload_is_for_new_connections(
    reactor: Reactor, trusting: ssl.SSLContext, files: Files
) -> None:
    server = secure_server(reactor, tls=files.tls)
    client = opened(reactor, secure_url(server), tls=trusting)
    before = serial_of(reactor, server)
    files.install("renewed")
    assert serial_of(reactor, server) == before
    server.reload_certificates()
    after = serial_of(reactor, server)
    assert after != before
    assert_echoed(reactor, client, "still there")
    assert_echoed(reactor, opened(reactor, secure_url(server), tls=trusting), "newcomers, too")
    files.spoil()
    with pytest.raises(ssl.SSLError):
        server.reload_certificates()
    assert serial_of(reactor, server) == after


def test_without_a_certificate_there_is_nothing_to_reload(reactor: Reactor) -> None:
    server = Server(Echo, reactor=reactor)
    with pytest.raises(InvalidState, match="no tls"):
        server.reload_certificates()


needs_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")


@needs_sighup
def test_h97_sighup_reloads_and_a_bad_pair_is_one_error(
    files: Files, logged: list[logging.LogRecord]
) -> None:
    before = signal.getsignal(signal.SIGHUP)
    contexts: list[ssl.SSLContext] = []
    with Stage() as stage:
        server = stage.server(Echo, port=0, tls=files.tls)
        for second, prepare in enumerate((None, lambda: files.install("renewed"), files.spoil)):
            if prepare is not None:
                stage.reactor.call_later(second + 0.2, prepare)
            stage.reactor.call_later(second + 0.5, signal.raise_signal, signal.SIGHUP)
            stage.reactor.call_later(second + 0.9, lambda: contexts.append(files.tls.context))
        stage.reactor.call_later(5, server.shutdown)
        first = files.tls.context
        server.run()
    assert len({first, *contexts}) == 3
    assert contexts[1] is contexts[2]
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert "the old one stays" in record.getMessage()
    assert record.exc_info is None
    assert signal.getsignal(signal.SIGHUP) == before


@needs_sighup
def test_without_tls_sighup_is_left_alone(stage: Stage) -> None:
    before = signal.getsignal(signal.SIGHUP)
    during: list[object] = []
    server = stage.server(Echo, port=0)
    stage.reactor.call_later(1, lambda: during.append(signal.getsignal(signal.SIGHUP)))
    stage.reactor.call_later(2, server.shutdown)
    server.run()
    assert during == [before]
