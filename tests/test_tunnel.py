from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import GOOD, LIMITS, ScriptedServer, opened, refused, turn
from support import FakeClock, Recorder, has_ipv6, run_until
from tls_peer import AUTHORITY, certificate

from reactor import (
    ConnectFailed,
    Connector,
    Listener,
    Protocol,
    Reactor,
    ReactorClosed,
    Transport,
    open_tcp_sockets,
)
from reactor.tls import ServerTLS, client_context
from websocket import Cause, Connection, HandshakeError, Server, State, connect
from websocket.tunnel import Proxy, Tunnel, parse_proxy

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
# What CONNECT means is answered here, whatever the name: nothing leaves this machine.
LOOPBACK = "127.0.0.1"

# --- the proxy's URL --------------------------------------------------------------------------


def authorization(encoded: str) -> tuple[tuple[str, str], ...]:
    return (("Proxy-Authorization", f"Basic {encoded}"),)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy", Proxy("proxy", 80, ())),
        ("http://proxy:3128", Proxy("proxy", 3128, ())),
        ("HTTP://Proxy.Example:3128/", Proxy("proxy.example", 3128, ())),
        ("http://[::1]:3128", Proxy("::1", 3128, ())),
        ("http://192.0.2.1", Proxy("192.0.2.1", 80, ())),
        ("http://user:pass@proxy", Proxy("proxy", 80, authorization("dXNlcjpwYXNz"))),
        ("http://user@proxy:1/", Proxy("proxy", 1, authorization("dXNlcjo="))),
        ("http://user:p%40%2F%3a@proxy", Proxy("proxy", 80, authorization("dXNlcjpwQC86"))),
        ("http://user:p@ss@proxy", Proxy("proxy", 80, authorization("dXNlcjpwQHNz"))),
        ("http://:@proxy", Proxy("proxy", 80, authorization("Og=="))),
    ],
)
def test_a_proxy_is_given_by_its_url(url: str, proxy: Proxy) -> None:
    assert parse_proxy(url) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "",
        "proxy",
        "proxy:3128",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "ws://proxy",
        "http://",
        "http:///",
        "http://:3128",
        "http://proxy:port",
        "http://proxy:0",
        "http://proxy:99999",
        "http://proxy/path",
        "http://proxy?query",
        "http://proxy#fragment",
        "http://proxy/p@th",
        "http://pro xy",
        "http://proxy\r\nX: y",
        "http://proxy\x00",
        "http://a,b",
        "http://[::1",
        "http://user:secret",
        "http://user:secret@",
    ],
)
def test_what_is_no_proxy_is_a_value_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="a proxy reads http:") as caught:
        parse_proxy(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("user_info", ["us%3Aer:x", "user:%0d%0aX: y"])
def test_credentials_that_break_the_request_are_a_value_error(user_info: str) -> None:
    with pytest.raises(ValueError, match="Basic"):
        parse_proxy(f"http://{user_info}@proxy")


def test_a_unix_socket_needs_no_proxy(reactor: Reactor) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        connect(reactor, "ws://x/", Recorder, proxy="http://x", unix_path="/x")


# --- a proxy ----------------------------------------------------------------------------------


class ScriptedProxy:
    """Answer each CONNECT as told, and tunnel after a good answer to what was asked for."""

    def __init__(
        self,
        reactor: Reactor,
        answer: bytes = ESTABLISHED,
        *,
        host: str = LOOPBACK,
        hangs_up: bool = False,
    ) -> None:
        self.reactor = reactor
        self.answer = answer
        self.hangs_up = hangs_up
        self.requests: list[str] = []
        self.clients: list[_Inside] = []
        self.tunnels: list[Protocol] = []
        listener = Listener(reactor, open_tcp_sockets(host, 0), lambda: _Inside(self))
        self.port = listener.addresses[0][1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_abandoned(self) -> bool:
        """Tell whether every client has gone."""
        return all(client.is_over for client in self.clients)


class _Inside(Protocol):
    """The client's stream."""

    def __init__(self, proxy: ScriptedProxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._other: Transport | None = None
        self.is_over = False

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._proxy.clients.append(self)

    def data_received(self, data: memoryview) -> None:
        if self._other is not None:
            self._other.write(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            assert not rest, "the client did not wait for the answer"
            self._answer(head.decode())

    def _answer(self, request: str) -> None:
        proxy = self._proxy
        proxy.requests.append(request)
        if proxy.answer != ESTABLISHED:
            self.transport.write(proxy.answer)
            if proxy.hangs_up:
                self.transport.close()
            return
        self.transport.pause_reading()
        port = int(request.split(" ")[1].rpartition(":")[2])
        Connector(proxy.reactor, _Outside(self), (LOOPBACK, port), self._unreachable)

    def joined(self, other: Transport) -> None:
        self._other = other
        self.transport.write(ESTABLISHED)
        self.transport.resume_reading()

    def _unreachable(self, error: ConnectFailed) -> None:
        self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        if self._other is not None:
            self._other.close()


class _Outside(Protocol):
    """The stream to the target."""

    def __init__(self, inside: _Inside) -> None:
        self._inside = inside

    def connection_made(self, transport: Transport) -> None:
        self._inside.joined(transport)

    def data_received(self, data: memoryview) -> None:
        self._inside.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._inside.transport.close()


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


def assert_echoed(reactor: Reactor, client: Recorder, message: str | bytes) -> None:
    count = len(client.messages)
    assert client.send(message)
    run_until(reactor, lambda: len(client.messages) > count)
    assert client.messages[-1] == message


def assert_leaves(reactor: Reactor, client: Recorder) -> None:
    client.close()
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert client.is_clean


def test_messages_pass_through_a_proxy(reactor: Reactor) -> None:
    server = Server(Echo, port=0, reactor=reactor).start()
    proxy = ScriptedProxy(reactor)
    client = opened(reactor, f"ws://server.example:{server.port}/", proxy=proxy.url)
    assert proxy.requests == [
        f"CONNECT server.example:{server.port} HTTP/1.1\r\nHost: server.example:{server.port}"
    ]
    assert client.remote_address == (LOOPBACK, proxy.port)
    for message in ("hello", b"\x00" * 300_000):
        assert_echoed(reactor, client, message)
    assert_leaves(reactor, client)
    run_until(reactor, lambda: proxy.is_abandoned)


def test_the_default_port_is_named(reactor: Reactor) -> None:
    proxy = ScriptedProxy(reactor, b"HTTP/1.1 502 No\r\n\r\n")
    for scheme, port in (("ws", 80), ("wss", 443)):
        refused(reactor, f"{scheme}://server.example/", proxy=proxy.url)
        assert proxy.requests.pop().startswith(f"CONNECT server.example:{port} HTTP/1.1\r\n")


def test_an_ipv6_target_stands_in_brackets(reactor: Reactor) -> None:
    proxy = ScriptedProxy(reactor, b"HTTP/1.1 502 No\r\n\r\n")
    refused(reactor, "ws://[2001:DB8::1]:81/", proxy=proxy.url)
    assert proxy.requests == ["CONNECT [2001:db8::1]:81 HTTP/1.1\r\nHost: [2001:db8::1]:81"]


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_the_proxy_may_have_an_ipv6_address(reactor: Reactor) -> None:
    server = Server(Echo, port=0, reactor=reactor).start()
    proxy = ScriptedProxy(reactor, host="::1")
    client = opened(reactor, f"ws://127.0.0.1:{server.port}/", proxy=proxy.url)
    assert client.remote_address[:2] == ("::1", proxy.port)
    assert_echoed(reactor, client, "hello")


def test_credentials_go_to_the_proxy_and_not_to_the_server(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, GOOD)
    proxy = ScriptedProxy(reactor)
    url = proxy.url.replace("http://", "http://Aladdin:open%20sesame@")
    opened(reactor, script.url, proxy=url, headers=[("Authorization", "Bearer x")])
    (request,) = proxy.requests
    assert "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" in request
    assert "Bearer" not in request
    assert script.conversation.field("Proxy-Authorization") == []
    assert script.conversation.field("Authorization") == ["Bearer x"]


def test_interim_answers_are_passed_over(reactor: Reactor) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + ESTABLISHED
    proxy = ScriptedProxy(reactor, answer, hangs_up=True)
    client = refused(reactor, "ws://x/", proxy=proxy.url)
    # The tunnel was there: it is the server behind it that has said nothing.
    assert str(client.error) == "no answer to the handshake: closed the connection"


# --- refusals ---------------------------------------------------------------------------------

REFUSALS = {
    "credentials wanted": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 6\r\n\r\nplease",
        "the proxy answered 407 Proxy Authentication Required",
    ),
    "no way": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy answered 502 Bad Gateway"),
    "no reason": (b"HTTP/1.0 403\r\n\r\n", "the proxy answered 403"),
    "a redirect": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "the proxy answered 302 Found"),
    "another protocol": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the proxy answered 101"),
    "garbage": (b"SSH-2.0-OpenSSH_9.6\r\n", "the proxy's answer is malformed"),
    "a broken head": (b"HTTP/1.1 200 ok\r\nno colon\r\n\r\n", "the proxy's answer is malformed"),
    "an endless head": (b"HTTP/1.1 200 ok\r\n" + b"X: y\r\n" * 10_000, "malformed"),
    "bytes behind the answer": (ESTABLISHED + b"\x81\x02hi", "more than its answer"),
    "an upgrade behind the answer": (ESTABLISHED + GOOD, "more than its answer"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_proxy_that_refuses_is_a_failure_to_connect(
    reactor: Reactor, scheme: str, case: str
) -> None:
    answer, message = REFUSALS[case]
    proxy = ScriptedProxy(reactor, answer)
    client = refused(reactor, f"{scheme}://x/", proxy=proxy.url)
    assert isinstance(client.error, ConnectFailed)
    assert message in str(client.error)
    assert client.cause is Cause.CONNECT_FAILED
    run_until(reactor, lambda: proxy.is_abandoned)
    assert reactor.next_timeout() is None


def test_what_the_proxy_refused_with_is_the_cause(reactor: Reactor) -> None:
    proxy = ScriptedProxy(reactor, b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n")
    client = refused(reactor, "ws://x/", proxy=proxy.url)
    assert client.error is not None
    cause = client.error.__cause__
    assert isinstance(cause, HandshakeError)
    assert cause.status == 503
    assert cause.headers == (("Retry-After", "7"),)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 O"])
def test_a_proxy_that_hangs_up(reactor: Reactor, sent: bytes) -> None:
    proxy = ScriptedProxy(reactor, sent, hangs_up=True)
    client = refused(reactor, "ws://x/", proxy=proxy.url)
    assert isinstance(client.error, ConnectFailed)
    assert str(client.error) == "the proxy hung up before it answered"
    assert reactor.next_timeout() is None


def test_a_proxy_that_cannot_be_reached(reactor: Reactor) -> None:
    client = refused(reactor, "ws://x/", proxy="http://127.0.0.1:1")
    assert isinstance(client.error, ConnectFailed)
    assert "127.0.0.1 port 1" in str(client.error)


def test_a_target_that_the_proxy_cannot_reach(reactor: Reactor) -> None:
    proxy = ScriptedProxy(reactor)
    client = refused(reactor, "ws://127.0.0.1:1/", proxy=proxy.url)
    assert str(client.error) == "the proxy answered 502 Bad Gateway"


def test_a_proxy_that_does_not_answer_in_time(reactor: Reactor, clock: FakeClock) -> None:
    proxy = ScriptedProxy(reactor, b"HTTP/1.1 ")
    client = connect(reactor, "ws://x/", Recorder, proxy=proxy.url, limits=LIMITS)
    run_until(reactor, lambda: proxy.requests)
    clock.now += LIMITS.handshake_timeout - 0.1
    turn(reactor)
    assert client.events == []
    clock.now += 0.2
    turn(reactor)
    assert isinstance(client.error, ConnectFailed)
    assert str(client.error) == "the proxy has not connected to x port 80 in time"
    run_until(reactor, lambda: proxy.is_abandoned)
    assert reactor.next_timeout() is None


def test_a_server_behind_the_proxy_that_does_not_answer_in_time(
    reactor: Reactor, clock: FakeClock
) -> None:
    script = ScriptedServer(reactor)
    proxy = ScriptedProxy(reactor)
    client = connect(reactor, script.url, Recorder, proxy=proxy.url, limits=LIMITS)
    run_until(reactor, lambda: script.has_request)
    clock.now += LIMITS.handshake_timeout + 0.1
    turn(reactor)
    assert isinstance(client.error, HandshakeError)
    assert str(client.error) == "the handshake took too long"


# --- giving up --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("phase", ["connecting", "asked", "through"])
def test_a_client_that_gives_up_leaves_nothing(
    reactor: Reactor, clock: FakeClock, phase: str, way: str
) -> None:
    script = ScriptedServer(reactor)
    proxy = ScriptedProxy(reactor, ESTABLISHED if phase == "through" else b"")
    client = connect(reactor, script.url, Recorder, proxy=proxy.url, limits=LIMITS)
    if phase == "asked":
        run_until(reactor, lambda: proxy.requests)
    elif phase == "through":
        run_until(reactor, lambda: script.has_request)
    getattr(client, way)()
    getattr(client, way)()
    assert client.state is State.CLOSED
    turn(reactor, 20)
    run_until(reactor, lambda: proxy.is_abandoned)
    run_until(reactor, lambda: all(each.is_over for each in script.conversations))
    clock.now += LIMITS.handshake_timeout + 1
    turn(reactor)
    assert client.events == []
    assert reactor.next_timeout() is None


# --- handing over -----------------------------------------------------------------------------


class Silent(Protocol):
    """Take note of nothing; never asked to, where the stream cannot be used."""


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOTCONN, "Transport endpoint is not connected"), ReactorClosed("too late")],
)
@pytest.mark.parametrize("is_made", [False, True])
def test_a_stream_that_cannot_be_taken_over_is_a_failure(
    reactor: Reactor, error: Exception, is_made: bool
) -> None:
    sockets: list[socket.socket] = []

    class Unusable(Transport):
        __slots__ = ()

        def start(self) -> None:
            raise error

    def make(reactor: Reactor, sock: socket.socket, *args: Any) -> Transport:
        sockets.append(sock)
        if is_made:
            return Unusable(reactor, sock, *args)
        raise error

    proxy = ScriptedProxy(reactor, ESTABLISHED)
    target = ScriptedServer(reactor)
    port = int(target.url[:-1].rpartition(":")[2])
    failures: list[ConnectFailed] = []
    tunnel = Tunnel(
        reactor,
        Silent(),
        parse_proxy(proxy.url),
        ("127.0.0.1", port),
        failures.append,
        timeout=10,
        limits=LIMITS,
        transport_factory=make,
    )
    run_until(reactor, lambda: failures)
    assert str(error) in str(failures[0])
    assert failures[0].__cause__ is error
    assert [sock.fileno() for sock in sockets] == [-1]
    tunnel.cancel()
    turn(reactor)
    assert len(failures) == 1


# --- TLS through the proxy --------------------------------------------------------------------


@pytest.fixture
def secure_server(reactor: Reactor) -> Server:
    tls = ServerTLS(certificate("server"))
    return Server(Echo, port=0, reactor=reactor, tls=tls, limits=LIMITS).start()


def test_tls_is_spoken_with_the_server_not_with_the_proxy(
    reactor: Reactor, secure_server: Server
) -> None:
    proxy = ScriptedProxy(reactor)
    client = opened(
        reactor,
        f"wss://localhost:{secure_server.port}/",
        proxy=proxy.url,
        tls=client_context(AUTHORITY),
    )
    assert_echoed(reactor, client, "hello")
    assert_echoed(reactor, client, bytes(200_000))
    assert_leaves(reactor, client)
    run_until(reactor, lambda: proxy.is_abandoned)


@pytest.mark.parametrize(
    ("host", "authority", "complaint"),
    [
        ("wrong.example", AUTHORITY, "match|mismatch"),
        ("localhost", None, "verify failed"),
    ],
)
def test_h128_the_certificate_is_checked_behind_a_proxy_too(
    reactor: Reactor, secure_server: Server, host: str, authority: str | None, complaint: str
) -> None:
    proxy = ScriptedProxy(reactor)
    client = refused(
        reactor,
        f"wss://{host}:{secure_server.port}/",
        proxy=proxy.url,
        tls=client_context(authority),
    )
    assert isinstance(client.error, HandshakeError)
    assert isinstance(client.error.__cause__, ssl.SSLCertVerificationError)
    with pytest.raises(ssl.SSLCertVerificationError, match=complaint):
        raise client.error.__cause__
    run_until(reactor, lambda: proxy.is_abandoned)
    assert secure_server.connections == []


def test_a_server_without_tls_behind_the_proxy(reactor: Reactor) -> None:
    script = ScriptedServer(reactor)
    proxy = ScriptedProxy(reactor)
    client = connect(
        reactor,
        script.url.replace("ws:", "wss:"),
        Recorder,
        proxy=proxy.url,
        tls=client_context(AUTHORITY),
        limits=LIMITS,
    )
    run_until(reactor, lambda: script.conversations and script.conversation.received)
    # It does not understand the ClientHello, and says so in its own language.
    script.conversation.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert isinstance(client.error, HandshakeError)
    assert isinstance(client.error.__cause__, ssl.SSLError)
