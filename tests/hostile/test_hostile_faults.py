"""H94, H95, H98, H100, H102: what sockets, TLS, the selector and the log may do to a server.

On the public kit: a real server with a client of ours, in memory, whose streams are given faults.
Every single call that fails once is in ``test_torture.py``.
"""

from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tls_peer import AUTHORITY, certificate

from reactor import log
from reactor.memory_tls import MemoryServerTLS, MemoryTLSSocket, in_memory
from reactor.testing import as_socket
from reactor.tls import client_context
from websocket import Cause, HandshakeError, Limits
from websocket.testing import Recorder, VirtualServer

KIB = 1024


class Meeting:
    """A server, a client on it, and a healthy client."""

    def __init__(self, handler: Any = Recorder, is_secure: bool = False, **options: Any) -> None:
        tls = MemoryServerTLS(certificate("server")) if is_secure else None
        self.context = in_memory(client_context(AUTHORITY)) if is_secure else None
        self.server = VirtualServer(handler, tls=tls, **options)
        self.healthy = self.connect()
        self.client = self.connect()
        (_, ours) = self.server.connections
        assert isinstance(ours, Recorder)
        self.ours = ours

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, *exception: object) -> None:
        """I2, I3: the healthy client is served, and at the end nothing is left of the other."""
        with self.server:
            self.check_healthy()
            self.client.abort()
            self.server.pass_time(1)
            assert len(self.server.connections) == 1
            assert self.server.server.manager.pool.admitted == 1

    def connect(self) -> Recorder:
        return self.server.connect(tls=self.context)

    def check_healthy(self) -> None:
        now = self.server.clock.now
        self.healthy.ping(b"well?")
        self.server.settle()
        assert self.healthy.events[-1] == ("pong", b"well?")
        assert self.server.clock.now == now

    @property
    def our_tls(self) -> MemoryTLSSocket:
        assert self.ours.transport is not None
        tls = self.ours.transport.get_extra_info("ssl_object")
        assert isinstance(tls, MemoryTLSSocket)
        return tls


# --- H94, H95: TLS ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 16 * KIB, 64 * KIB])
def test_h94_a_burst_and_then_silence(size: int) -> None:
    """Decrypted bytes lie where no selector sees them: they are read all the same."""
    with Meeting(is_secure=True) as meeting:
        messages = [f"{number:02}" + "b" * size for number in range(64 * KIB // size)][:60]
        for message in messages:
            meeting.client.send(message)
        meeting.server.settle()
        assert meeting.ours.messages == messages


def test_h94_a_burst_while_reading_is_paused() -> None:
    with Meeting(is_secure=True) as meeting:
        meeting.ours.pause()
        for number in range(60):
            meeting.client.send(f"{number:1024}")
        meeting.server.settle()
        assert meeting.ours.messages == []
        meeting.ours.resume()
        meeting.server.settle()
        assert len(meeting.ours.messages) == 60


def test_h95_reading_that_waits_for_writing() -> None:
    with Meeting(is_secure=True) as meeting:
        meeting.our_tls.fail("recv_into", ssl.SSLWantWriteError(), times=20)
        meeting.client.send("read me")
        meeting.server.settle()
        assert meeting.ours.messages == ["read me"]


def test_h95_writing_that_waits_for_reading() -> None:
    with Meeting(is_secure=True) as meeting:
        meeting.our_tls.fail("send", ssl.SSLWantReadError())
        meeting.ours.send("write me")
        meeting.server.settle()  # which fails if that were busy
        assert meeting.client.messages == []
        meeting.client.send("what it waits for")
        meeting.server.settle()
        assert meeting.client.messages == ["write me"]
        assert meeting.ours.messages == ["what it waits for"]


def test_h95_a_write_that_would_block_is_tried_again_with_the_same_bytes() -> None:
    """The kit's TLS refuses anything else, as OpenSSL does."""
    with Meeting(is_secure=True) as meeting:
        meeting.client.socket.capacity = 1000
        for number in range(50):
            meeting.ours.send(f"{number:1024}")
            meeting.server.settle()
        meeting.client.socket.capacity = 10**6
        meeting.server.settle()
        assert [int(message) for message in meeting.client.messages] == [*range(50)]


# --- H98: short writes, storms, errors -----------------------------------------------------------

both = pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])


@both
def test_h98_short_writes_and_reads(is_secure: bool) -> None:
    with Meeting(is_secure=is_secure) as meeting:
        for end in (meeting.ours.socket, meeting.client.socket):
            end.max_send, end.max_receive = 7, 5
        sent = [f"{number:50}" for number in range(10)]
        for message in sent:
            meeting.ours.send(message)
            meeting.client.send(message)
        meeting.server.reactor.settle(turns=2000)
        assert meeting.client.messages == meeting.ours.messages == sent
        for end in (meeting.ours.socket, meeting.client.socket):
            end.max_send = end.max_receive = 10**6


@both
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR])
def test_h98_a_storm_of_calls_that_would_block(is_secure: bool, number: int) -> None:
    with Meeting(is_secure=is_secure) as meeting:
        for method in ("send", "sendmsg", "recv_into"):
            meeting.ours.socket.fail(method, number, times=50)
        sent = [f"{number:50}" for number in range(10)]
        for message in sent:
            meeting.ours.send(message)
            meeting.client.send(message)
        meeting.server.settle()
        assert meeting.client.messages == meeting.ours.messages == sent


def test_h98_more_buffers_than_one_call_takes() -> None:
    with Meeting() as meeting:
        meeting.client.socket.capacity = 0
        meeting.ours.send("x")  # stays, so that what follows is gathered behind it
        meeting.server.settle()
        sent = [f"{number:40}" for number in range(3000)]
        for message in sent:
            meeting.ours.send(message)
        meeting.client.socket.capacity = 10**6
        meeting.server.settle()
        assert meeting.client.messages == ["x", *sent]


@both
@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EPIPE, Cause.PEER_RESET),
        (errno.ECONNRESET, Cause.PEER_RESET),
        (errno.ETIMEDOUT, Cause.TRANSPORT_ERROR),
        (errno.ENOBUFS, Cause.TRANSPORT_ERROR),
    ],
)
def test_h98_a_stream_that_breaks(is_secure: bool, number: int, cause: Cause) -> None:
    with Meeting(is_secure=is_secure) as meeting:
        meeting.ours.socket.fail("send", number)
        meeting.ours.send("lost")
        meeting.server.settle()
        assert meeting.ours.cause is cause
        assert [event[0] for event in meeting.ours.events] == ["open", "error", "close"]
        assert meeting.ours.events[-1][1] == 1006


@both
def test_h98_a_window_of_zero(is_secure: bool) -> None:
    """What does not fit waits, and is cut after the stall timeout; see H86 for the marks."""
    with Meeting(is_secure=is_secure) as meeting:
        meeting.client.socket.capacity = 0
        meeting.ours.send("w" * 100 * KIB)
        for _ in range(31):
            meeting.server.pass_time(1)
            meeting.check_healthy()
        assert meeting.ours.cause is Cause.SLOW_CONSUMER


# --- H100: descriptors that are given again ------------------------------------------------------


def test_h100_a_stale_event_does_not_reach_the_next_bearer_of_its_descriptor() -> None:
    class Usurper(Recorder):
        """At a message, abort the other connection and adopt a stream with its descriptor."""

        __slots__ = ()

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            (other,) = (each for each in server.connections if each is not self)
            number = other.socket.fileno()  # type: ignore[attr-defined]  # a Usurper as well
            other.abort()
            sock, _ = server.network.pair()
            assert sock.fileno() == number
            server.server.adopt(as_socket(sock))

    with VirtualServer(Usurper, limits=Limits(ping_interval=None)) as server:
        first, second = server.connect(), server.connect()
        (ours, other) = server.connections
        # Both are ready in the same turn. The event of the one that is closed by then must not be
        # taken for one of its successor's, which has nothing to read.
        first.send("now")
        second.send("too late")
        server.settle()
        assert ours.messages == ["now"]  # type: ignore[attr-defined]  # a Usurper
        assert other.messages == []  # type: ignore[attr-defined]  # a Usurper
        assert other.cause is Cause.ABORTED
        assert server.connections == [ours]
        # The successor is a stream like any other: it has time for its opening handshake.
        assert len(server.server.handshakes) == 1
        server.pass_time(11)
        assert len(server.server.handshakes) == 0


# --- H102: the log -------------------------------------------------------------------------------


class BrokenStream:
    """Stand in for a file on a full disk, or that is closed."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


class RaisingHandler(logging.Handler):
    """Raise, against the rules for handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("boom")


class BlockingHandler(logging.Handler):
    """Hold up the loop for a minute with every record."""

    def __init__(self, server: VirtualServer) -> None:
        super().__init__()
        self._server = server
        self.records = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.records += 1
        self._server.clock.now += 60


@pytest.fixture
def guarded_logger() -> Iterator[logging.Logger]:
    """Return the logger of servers, to add handlers to; they are taken off again."""
    logger = log.guarded("websocket")
    handlers, level = [*logger.handlers], logger.level
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(level)
    for handler in [*logger.handlers]:
        if handler not in handlers:
            logger.removeHandler(handler)


def refuse(server: VirtualServer) -> None:
    """Make the server write a line."""
    with pytest.raises(HandshakeError, match="404"):
        server.connect("/nowhere")


FULL = OSError(errno.ENOSPC, "no space left on device")
CLOSED = ValueError("I/O operation on closed file")


@pytest.mark.parametrize("error", [FULL, CLOSED], ids=["full disk", "closed stream"])
def test_h102_a_log_that_cannot_be_written(
    guarded_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("sys.stderr", None)  # a service without one
    guarded_logger.addHandler(logging.StreamHandler(BrokenStream(error)))
    with VirtualServer({"/": Recorder}) as server:
        client = server.connect()
        refuse(server)
        server.server.broadcast("still here")
        assert client.receive() == "still here"


def test_h102_a_handler_that_raises(guarded_logger: logging.Logger) -> None:
    failures = log.failures["websocket"]
    guarded_logger.addHandler(RaisingHandler())
    with VirtualServer({"/": Recorder}) as server:
        client = server.connect()
        refuse(server)
        server.server.broadcast("still here")
        assert client.receive() == "still here"
    assert log.failures["websocket"] > failures


def test_h102_a_handler_that_blocks_makes_nobody_look_dead(
    guarded_logger: logging.Logger, logged: list[logging.LogRecord]
) -> None:
    with VirtualServer({"/": Recorder}) as server:
        clients = [server.connect() for _ in range(5)]
        handler = BlockingHandler(server)
        guarded_logger.addHandler(handler)
        refuse(server)
        assert handler.records == 1
        server.settle()
        assert len(server.connections) == 5
        server.server.broadcast("still here")
        assert [client.receive() for client in clients] == ["still here"] * 5
