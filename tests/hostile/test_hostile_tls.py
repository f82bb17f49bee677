"""H93, H96, H97: TLS that stalls, ends without a word or proves nothing; other certificates.

A real server in memory, with real records. H94, H95 and H98 are in ``test_hostile_faults.py``,
H13 and H14 with the handshakes; over real sockets most of it is once more in ``test_secure.py``.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tls_peer import AUTHORITY, certificate, trusting_context

from reactor.memory_tls import MemoryServerTLS, MemoryTLSSocket, in_memory
from reactor.tls import client_context
from websocket import Cause, Frame, FrameWriter, Limits, Opcode
from websocket.http11 import Request
from websocket.testing import Peer, Recorder, VirtualServer, upgrade_request

DEADLINE = Limits().handshake_timeout


class SecureServer(VirtualServer):
    """A server with TLS, and what it owes to everyone else: I2, I3, I4.

    Attributes:
        asked: the requests that the hooks of the application were shown.
    """

    def __init__(self, tls: MemoryServerTLS | None = None, **limits: Any) -> None:
        self.asked: list[Request] = []
        self.context = in_memory(client_context(AUTHORITY))
        tls = MemoryServerTLS(certificate("server")) if tls is None else tls
        super().__init__(
            Recorder,
            tls=tls,
            limits=Limits(detached_lifetime=0.0, **limits),
            authenticate=self.asked.append,
            on_http_request=self.asked.append,
        )

    def __enter__(self) -> SecureServer:
        return self

    def welcome(self, name: str | None = None) -> Recorder:
        """Return a client whose handshakes have succeeded; with a certificate, if it is named."""
        client = self.connect(tls=self.context if name is None else in_memory(personal(name)))
        self.asked.clear()
        return client

    def measure(self) -> dict[str, int]:
        """Count everything that a stream could leave behind."""
        statistics = self.server.statistics()
        return {
            "descriptors": len(self.reactor._handlers),
            "timers": len(self.reactor._wheel),
            "slots": self.server.manager.pool.admitted,
            "handshaking": statistics.handshaking,
            "open": statistics.active,
            "sessions": statistics.sessions.active,
        }

    def check_healthy(self, client: Recorder) -> None:
        now = self.clock.now
        client.ping(b"well?")
        self.settle()
        assert client.events[-1] == ("pong", b"well?")
        assert self.clock.now == now

    @property
    def failures(self) -> dict[str, int]:
        return dict(self.server.statistics().failed_by_reason)


class Stranger:
    """The client's end of TLS in the test's hand: it does nothing by itself."""

    def __init__(self, server: VirtualServer, context: ssl.SSLContext | None = None) -> None:
        self._server = server
        self.sock = server.stranger().sock
        lower: Any = self.sock
        context = trusting_context() if context is None else context
        self.tls = MemoryTLSSocket(lower, context, False, "localhost")
        self._writer = FrameWriter(masks=True)

    def shake_hands(self) -> None:
        """Complete the TLS handshake; with TLS 1.3 the server may still judge otherwise."""
        for _ in range(5):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._server.settle()
        assert self.tls.version() is not None

    def send(self, data: bytes) -> None:
        """Send bytes in a record of their own."""
        self.tls.send(data)
        self._server.settle()

    def send_frame(self, frame: Frame) -> None:
        self.send(self._writer.encode_frame(frame))

    def receive(self) -> bytes:
        """Return what has arrived, up to the end of the stream; an alert raises."""
        buffer, received = memoryview(bytearray(64 * 1024)), b""
        try:
            while count := self.tls.recv_into(buffer):
                received += buffer[:count]
        except ssl.SSLWantReadError:
            pass
        return received

    def open(self) -> Recorder:
        """Complete both handshakes; return the server's connection."""
        self.shake_hands()
        self.send(upgrade_request())
        assert self.receive().startswith(b"HTTP/1.1 101 ")
        connection = self._server.connections[-1]
        assert isinstance(connection, Recorder)
        return connection

    @property
    def our_socket(self) -> Any:
        assert self.sock.peer is not None
        return self.sock.peer


def personal(name: str) -> ssl.SSLContext:
    """Return the context of a client that shows a certificate of tests/certificates."""
    context = client_context(AUTHORITY)
    if name != "none":
        context.load_cert_chain(certificate(name))
    return context


def client_hello() -> bytes:
    """Return the first that a client of TLS says."""
    outgoing = ssl.MemoryBIO()
    tls = trusting_context().wrap_bio(ssl.MemoryBIO(), outgoing, False, "localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@pytest.fixture
def server() -> Iterator[SecureServer]:
    with SecureServer() as server:
        yield server


# --- H93: handshakes that stall -------------------------------------------------------------------


def fall_silent(stranger: Peer, hello: bytes) -> None:
    """Connect, and say nothing."""


def say_half(stranger: Peer, hello: bytes) -> None:
    stranger.send_bytes(hello[: len(hello) // 2])


def say_hello(stranger: Peer, hello: bytes) -> None:
    stranger.send_bytes(hello)


def read_nothing(stranger: Peer, hello: bytes) -> None:
    stranger.sock.capacity = 0
    stranger.send_bytes(hello)


def drip(stranger: Peer, hello: bytes) -> None:
    assert stranger.sock.peer is not None
    stranger.sock.peer.rate = 1.0
    stranger.send_bytes(hello)


STALLS = [fall_silent, say_half, say_hello, read_nothing, drip]


def test_h93_five_hundred_clients_that_stall(
    server: SecureServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One deadline, counted from accept; nobody else notices."""
    caplog.set_level(logging.INFO, "websocket")
    healthy, hello = server.welcome(), client_hello()
    before = server.measure()
    strangers = [server.stranger() for _ in range(500)]
    for number, stranger in enumerate(strangers):
        STALLS[number % len(STALLS)](stranger, hello)
    server.settle()
    server.check_healthy(healthy)
    server.welcome().abort()
    server.pass_time(DEADLINE - 0.1)
    assert server.server.statistics().handshaking == 500
    server.check_healthy(healthy)
    server.pass_time(0.2)
    assert server.failures == {"408": 500}
    assert server.measure() == before
    assert all(stranger.sock.peer.is_closed for stranger in strangers if stranger.sock.peer)
    assert server.asked == []
    assert len(caplog.messages) == 1
    server.check_healthy(healthy)


def test_h93_a_client_that_stalls_after_the_tls_handshake(server: SecureServer) -> None:
    """The same deadline, and an answer, since by now there is one that can be read."""
    healthy = server.welcome()
    before = server.measure()
    stranger = Stranger(server)
    server.pass_time(4)
    stranger.shake_hands()
    for byte in upgrade_request()[: int(DEADLINE) - 5]:
        stranger.send(bytes([byte]))
        server.pass_time(1)
    assert stranger.receive() == b""
    server.pass_time(1.1)
    assert stranger.receive().startswith(b"HTTP/1.1 408 ")
    server.pass_time(Limits().linger_timeout)
    assert server.measure() == before
    server.check_healthy(healthy)


def test_h93_a_handshake_that_is_slow_but_in_time(server: SecureServer) -> None:
    stranger = Stranger(server)
    stranger.our_socket.max_receive = stranger.our_socket.max_send = 1
    connection = stranger.open()
    stranger.send_frame(Frame(Opcode.TEXT, b"hello"))
    assert connection.messages == ["hello"]


# --- H96: ends ------------------------------------------------------------------------------------

LAST_WORDS = {
    "nothing": [],
    "a message": [Frame(Opcode.TEXT, b"last words")],
    "half a message": [Frame(Opcode.TEXT, b"last", fin=False)],
}


@pytest.mark.parametrize("is_clean", [False, True], ids=["FIN", "close_notify"])
@pytest.mark.parametrize("words", LAST_WORDS)
def test_h96_an_end_of_the_stream(server: SecureServer, words: str, is_clean: bool) -> None:
    """Whether it says close_notify or not: without a closing handshake it is a bare end."""
    healthy = server.welcome()
    before = server.measure()
    stranger = Stranger(server)
    connection = stranger.open()
    for frame in LAST_WORDS[words]:
        stranger.send_frame(frame)
    if is_clean:
        with pytest.raises(ssl.SSLWantReadError):  # for ours
            stranger.tls.unwrap()
        stranger.tls._push()
    stranger.sock.end()
    server.settle()
    assert connection.messages == (["last words"] if words == "a message" else [])
    assert connection.cause is Cause.PEER_EOF
    assert connection.events[-1][:2] == ("close", 1006)
    server.pass_time(Limits().linger_timeout)
    assert stranger.our_socket.is_closed
    assert server.measure() == before
    server.check_healthy(healthy)


def test_h96_an_end_inside_a_record(server: SecureServer) -> None:
    stranger = Stranger(server)
    connection = stranger.open()
    stranger.send_frame(Frame(Opcode.TEXT, b"whole"))
    stranger.our_socket.capacity = 10
    with pytest.raises(ssl.SSLWantWriteError):
        stranger.send_frame(Frame(Opcode.TEXT, b"cut off"))
    stranger.sock.end()
    server.settle()
    assert connection.messages == ["whole"]
    assert connection.cause is Cause.PEER_EOF


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_h96_an_end_in_the_handshake(
    server: SecureServer, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "websocket")
    healthy, hello = server.welcome(), client_hello()
    before = server.measure()
    for _ in range(10):
        stranger = server.stranger()
        stranger.send_bytes(hello[: int(share * len(hello))])
        stranger.sock.end()
        server.settle()
        assert stranger.sock.peer is not None
        assert stranger.sock.peer.is_closed
    assert sum(server.failures.values()) == 10
    assert set(server.failures) <= {"eof", "reset", "broken"}
    assert server.measure() == before
    assert server.asked == []
    assert len(caplog.messages) <= 1
    server.check_healthy(healthy)


@pytest.mark.parametrize("way", ["close", "abort", "shutdown"])
def test_h96_our_end_never_waits_for_a_silent_peer(server: SecureServer, way: str) -> None:
    client = server.welcome()
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    connection.send("bye")
    server.settle()
    client.socket.cut()
    if way == "shutdown":
        server.server.shutdown(grace=2)
    else:
        getattr(connection, way)()
    server.pass_time(Limits().close_timeout + Limits().linger_timeout)
    assert connection.socket.is_closed
    assert connection.cause in {Cause.CLOSE_TIMEOUT, Cause.ABORTED, Cause.SHUTDOWN}
    assert server.measure()["slots"] == 0


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLWantReadError("read"),
        ssl.SSLWantWriteError("write"),
        ssl.SSLSyscallError("gone"),
        ssl.SSLError("shutdown while in init"),
        ValueError("there is no TLS any more"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_h96_a_close_notify_that_cannot_be_sent(server: SecureServer, error: Exception) -> None:
    """Nobody waits for it, and nobody hears of it."""
    client = server.welcome()
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    assert connection.transport is not None
    connection.transport.get_extra_info("ssl_object").fail("unwrap", error)
    connection.close(3000, "enough")
    server.pass_time(Limits().linger_timeout)
    assert client.events[-1] == ("close", 3000, "enough")
    assert connection.cause is Cause.CLOSED_BY_US
    assert connection.socket.is_closed


@pytest.mark.parametrize("is_late", [False, True], ids=["handshake", "later"])
def test_h96_the_error_of_one_stream_is_not_that_of_another(
    server: SecureServer, is_late: bool
) -> None:
    """OpenSSL has one queue of errors for all, and PyPy does not empty it."""
    healthy = server.welcome()
    for _ in range(3):
        stranger = Stranger(server)
        if is_late:
            stranger.open()
        stranger.sock.feed(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        server.settle()
        assert stranger.our_socket.is_closed
        server.check_healthy(healthy)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: str(version.name))
@pytest.mark.parametrize("name", ["none", "stranger", "expired"])
def test_h96_a_client_without_a_good_certificate(
    name: str, version: ssl.TLSVersion, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told by an alert, and the application is not asked."""
    caplog.set_level(logging.INFO, "websocket")
    tls = MemoryServerTLS(certificate("server"), client_authorities=AUTHORITY)
    with SecureServer(tls) as server:
        healthy = server.welcome("client")
        before = server.measure()
        context = personal(name)
        context.minimum_version = context.maximum_version = version
        stranger = Stranger(server, context)
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            stranger.open()
        server.welcome("client").abort()
        server.settle()
        assert stranger.our_socket.is_closed
        assert server.failures == {"broken": 1}
        assert server.measure() == before
        assert server.asked == []
        assert len(caplog.messages) <= 1
        server.check_healthy(healthy)


# --- H97: another certificate -----------------------------------------------------------------


class Pair:
    """A certificate and its key, in files that are replaced while the server runs."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        self.install("server")
        self.tls = MemoryServerTLS(str(self.certificate), str(self.key))

    def install(self, name: str, key: str | None = None) -> None:
        self.certificate.write_bytes(Path(certificate(name)).read_bytes())
        self.key.write_bytes(Path(certificate(key or name)).read_bytes())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def shown_to(client: Recorder) -> str:
    """Return the common name of the certificate that a client was shown."""
    assert client.transport is not None
    subject = client.transport.get_extra_info("peercert")["subject"]
    return str(dict(part for parts in subject for part in parts)["commonName"])


def test_h97_a_new_pair_is_for_new_connections(pair: Pair) -> None:
    with SecureServer(pair.tls) as server:
        old = server.welcome()
        pair.install("renewed")
        assert shown_to(server.welcome()) == "server"
        server.server.reload_certificates()
        assert shown_to(server.welcome()) == "renewed"
        server.check_healthy(old)
        assert len(server.connections) == 3


FAULTS: dict[str, Callable[[Pair], object]] = {
    "another's key": lambda pair: pair.install("renewed", key="server"),
    "no certificate": lambda pair: pair.certificate.unlink(),
    "no key": lambda pair: pair.key.unlink(),
    "an empty file": lambda pair: pair.certificate.write_bytes(b""),
    "half a file": lambda pair: pair.certificate.write_bytes(pair.certificate.read_bytes()[:500]),
    "a key with a password": lambda pair: pair.install("encrypted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_h97_a_bad_pair_is_an_error_and_the_old_one_stays(pair: Pair, fault: str) -> None:
    with SecureServer(pair.tls) as server:
        old = server.welcome()
        FAULTS[fault](pair)
        for _ in range(2):
            with pytest.raises((ssl.SSLError, FileNotFoundError)):
                server.server.reload_certificates()
            assert shown_to(server.welcome()) == "server"
        pair.install("renewed")
        server.server.reload_certificates()
        assert shown_to(server.welcome()) == "renewed"
        server.check_healthy(old)
        assert server.failures == {}


def test_h97_a_reload_amid_a_hundred_handshakes(pair: Pair) -> None:
    """Each is shown one of the two, whole; none is dropped."""
    with SecureServer(pair.tls) as server:
        healthy = server.welcome()
        strangers = []
        for number in range(100):
            if number == 50:
                pair.install("renewed")
                server.server.reload_certificates()
            strangers.append(Stranger(server))
            if number % 2:  # the hello has arrived, and was answered
                with pytest.raises(ssl.SSLWantReadError):
                    strangers[-1].tls.do_handshake()
                server.settle()
        server.server.reload_certificates()
        for number, stranger in enumerate(strangers):
            stranger.open()
            subject = stranger.tls.getpeercert()["subject"]
            assert (("commonName", "server" if number < 50 else "renewed"),) in subject
        assert len(server.connections) == 101
        assert server.failures == {}
        server.check_healthy(healthy)
