"""A network in memory and a clock in the tests' hand: nothing here waits, nothing is random.

    clock = FakeClock()
    network = FakeNetwork(clock)
    reactor = network.reactor()             a real Reactor over a fake selector
    ours, theirs = network.pair()           two ends of a stream, in memory
    network.settle(reactor)                 run turns until nothing more happens
    network.pass_time(reactor, 20)          the same, while virtual time goes by

A ``MemorySocket`` behaves like a non-blocking stream socket: it has a bounded buffer, an end of
stream, resets, and errors on demand. The reactor, transports, connections and servers are the
real ones; only the selector, the sockets and the clock are not.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

from reactor import Protocol, Reactor, Transport
from websocket import Cause, Connection, Frame, Limits, Server
from websocket.assembler import Assembler
from websocket.frame import FIN, build_close, parse_close
from websocket.frame_reader import FrameReader
from websocket.frame_writer import FrameWriter
from websocket.opcodes import Opcode

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class MemorySocket:
    """One end of a stream in memory; see ``FakeNetwork.pair``.

    Attributes:
        capacity: bytes that may lie unread at this end before the other end blocks.
        errors: errors to raise, by method name, each once and in order.
        calls: how often each method was called.
    """

    family = socket.AF_INET

    def __init__(self, fd: int, peername: Any, capacity: int) -> None:
        self._fd = fd
        self._peername = peername
        self.capacity = capacity
        self.errors: dict[str, deque[OSError]] = {}
        self.calls: dict[str, int] = {}
        self.peer: MemorySocket | None = None
        self.inbox = bytearray()
        self.has_eof = False
        self.is_reset = False
        self.is_closed = False
        self.is_shut = False
        self.sent_sizes: list[int] = []

    # --- what a transport uses --------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.is_closed else self._fd

    def setblocking(self, is_blocking: bool) -> None:
        assert not is_blocking

    def setsockopt(self, *args: object) -> None:
        self._enter("setsockopt")

    def getpeername(self) -> Any:
        self._enter("getpeername")
        return self._peername

    def getsockname(self) -> Any:
        self._enter("getsockname")
        return ("127.0.0.1", 80)

    def recv_into(self, buffer: memoryview) -> int:
        self._enter("recv_into")
        if self.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        if not self.inbox:
            if self.has_eof:
                return 0
            raise BlockingIOError(errno.EAGAIN, "would block")
        count = min(len(buffer), len(self.inbox))
        buffer[:count] = self.inbox[:count]
        del self.inbox[:count]
        return count

    def send(self, data: bytes | memoryview) -> int:
        return self._take("send", [data])

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        return self._take("sendmsg", buffers)

    def shutdown(self, how: int) -> None:
        self._enter("shutdown")
        assert how == socket.SHUT_WR
        self.is_shut = True
        if self.peer is not None:
            self.peer.has_eof = True

    def close(self) -> None:
        self.is_closed = True
        if self.peer is not None:
            # What the kernel does: unread input turns the end of the stream into a reset.
            if self.inbox:
                self.peer.is_reset = True
            self.peer.has_eof = True

    # --- what a test uses -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Send from the test's end, whatever the capacity."""
        assert self.peer is not None
        self.peer.inbox += data

    def take(self) -> bytes:
        """Return and forget all that has arrived at the test's end."""
        data = bytes(self.inbox)
        self.inbox.clear()
        return data

    def end(self) -> None:
        """End the stream from the test's end; ours may still be read."""
        assert self.peer is not None
        self.peer.has_eof = True

    def reset(self) -> None:
        """Break the stream from the test's end."""
        assert self.peer is not None
        self.peer.is_reset = True

    def fail(self, method: str, *errors: OSError) -> None:
        """Make the next calls of a method raise."""
        self.errors.setdefault(method, deque()).extend(errors)

    @property
    def is_readable(self) -> bool:
        return bool(self.inbox) or self.has_eof or self.is_reset

    @property
    def is_writable(self) -> bool:
        return self.peer is None or len(self.peer.inbox) < self.peer.capacity or self.is_reset

    def _take(self, method: str, buffers: Iterable[bytes | memoryview]) -> int:
        self._enter(method)
        assert self.peer is not None
        if self.is_reset:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        if self.peer.is_closed:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        room = self.peer.capacity - len(self.peer.inbox)
        if room <= 0:
            raise BlockingIOError(errno.EAGAIN, "would block")
        data = b"".join(buffers)[:room]
        self.peer.inbox += data
        self.sent_sizes.append(len(data))
        return len(data)

    def _enter(self, method: str) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        if self.errors.get(method):
            raise self.errors[method].popleft()
        if self.is_closed:
            raise OSError(errno.EBADF, "bad file descriptor")


class FakeSelector(selectors.BaseSelector):
    """A selector over memory sockets; waiting means moving the clock.

    Descriptors that are no memory socket's (the wake-up pair) are never ready.
    """

    def __init__(self, network: FakeNetwork) -> None:
        self._network = network
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        assert fileobj not in self._keys, "registered twice"
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.unregister(fileobj)
        return self.register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        for key in self._keys.values():
            sock = self._network.sockets.get(key.fd)
            if sock is None:
                continue
            mask = key.events & (
                (selectors.EVENT_READ if sock.is_readable else 0)
                | (selectors.EVENT_WRITE if sock.is_writable else 0)
            )
            if mask:
                ready.append((key, mask))
        if not ready and timeout:
            self._network.clock.now += timeout
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class FakeNetwork:
    """Make reactors and streams that share a clock."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = FakeClock() if clock is None else clock
        self.sockets: dict[int, MemorySocket] = {}
        self._next_fd = 1_000_000

    def reactor(self) -> Reactor:
        """Return a real reactor in virtual time; close it."""
        return Reactor(lambda: FakeSelector(self), clock=self.clock)

    def pair(
        self, peername: Any = ("203.0.113.7", 50_000), capacity: int = 256 * 1024
    ) -> tuple[MemorySocket, MemorySocket]:
        """Return our end and the test's end of a stream."""
        ours, theirs = (self._socket(peername, capacity) for _ in range(2))
        ours.peer, theirs.peer = theirs, ours
        return ours, theirs

    def _socket(self, peername: Any, capacity: int) -> MemorySocket:
        sock = MemorySocket(self._next_fd, peername, capacity)
        self.sockets[self._next_fd] = sock
        self._next_fd += 1
        return sock

    def transport(
        self, reactor: Reactor, protocol: Protocol, **options: Any
    ) -> tuple[Transport, MemorySocket]:
        """Return a started transport and the test's end of its stream."""
        ours, theirs = self.pair(**options)
        transport = Transport(reactor, as_socket(ours), protocol, ours.getpeername())
        transport.start()
        return transport, theirs

    def settle(self, reactor: Reactor, turns: int = 200) -> None:
        """Run turns without letting time go by until nothing more happens."""
        for _ in range(turns):
            reactor.run_once(0)
            if reactor.next_timeout() != 0 and not self._has_events(reactor):
                return
        raise AssertionError(f"still busy after {turns} turns")

    def pass_time(self, reactor: Reactor, seconds: float) -> None:
        """Run turns while virtual time goes by."""
        end = self.clock.now + seconds
        while True:
            self.settle(reactor)
            timeout = reactor.next_timeout()
            if timeout is None or self.clock.now + timeout > end:
                break
            reactor.run_once()
        self.clock.now = end
        self.settle(reactor)

    def _has_events(self, reactor: Reactor) -> bool:
        return bool(reactor._selector.select(0))


def has_ipv6() -> bool:
    """Tell whether this machine has an IPv6 loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def run_until(reactor: Reactor, condition: Callable[[], object]) -> None:
    """Run turns over real sockets until a condition holds; it fails after some seconds."""
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at, "what was waited for did not happen"
        reactor.run_once(1)


def as_socket(sock: MemorySocket) -> socket.socket:
    """Tell the type checker that a memory socket will do."""
    return cast(socket.socket, sock)


# --- WebSocket --------------------------------------------------------------------------------


class Recorder(Connection):
    """Write down everything that the connection tells."""

    __slots__ = ("events",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.events: list[tuple[Any, ...]] = []

    def on_open(self) -> None:
        self.events.append(("open",))

    def on_message(self, message: str | bytes) -> None:
        self.events.append(("message", message))

    def on_ping(self, payload: bytes) -> None:
        self.events.append(("ping", payload))

    def on_pong(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def on_writable(self) -> None:
        self.events.append(("writable",))

    def on_close(self, code: int, reason: str) -> None:
        self.events.append(("close", code, reason))

    def on_error(self, error: Exception) -> None:
        self.events.append(("error", type(error), str(error)))

    @property
    def messages(self) -> list[str | bytes]:
        return [event[1] for event in self.events if event[0] == "message"]


class Peer:
    """The test's end of a WebSocket connection: raw bytes or frames out, frames in."""

    def __init__(self, sock: MemorySocket, *, is_client: bool) -> None:
        self.sock = sock
        self._writer = FrameWriter(masks=is_client)
        limits = Limits(max_message_size=2**40, max_fragments=10**9)
        self._reader = FrameReader(
            Assembler(limits), must_be_masked=not is_client, max_message_size=2**40
        )
        self.frames: list[tuple[int, Any]] = []

    def send_bytes(self, data: bytes) -> None:
        self.sock.feed(data)

    def send_frame(self, opcode: int, payload: bytes = b"", **flags: Any) -> None:
        self.sock.feed(self._writer.encode_frame(Frame(opcode, payload, **flags)))

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.send_frame(Opcode.TEXT, message.encode())
        else:
            self.send_frame(Opcode.BINARY, message)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        self.send_frame(Opcode.CLOSE, build_close(code, reason))

    def receive(self) -> list[tuple[int, Any]]:
        """Return what has arrived since: pairs of opcode and str, bytes or payload."""
        frames = self._reader.feed(self.sock.take())
        assert self._reader.error is None, self._reader.error
        self.frames += frames
        return frames

    def received_close(self) -> tuple[int | None, str] | None:
        """Return code and reason of the one close frame that has arrived, if any has."""
        self.receive()
        closes = [payload for opcode, payload in self.frames if opcode == Opcode.CLOSE]
        assert len(closes) <= 1, "more than one close frame"
        return parse_close(closes[0]) if closes else None

    @property
    def sees_end(self) -> bool:
        """Tell whether our side has ended the stream in an orderly way."""
        return self.sock.has_eof and not self.sock.is_reset


class Stage:
    """A reactor in virtual time, with connections and servers on it; closes everything.

    Use it as a context manager, or through the fixture ``stage``.
    """

    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.clock = self.network.clock
        self.reactor = self.network.reactor()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exception: object) -> None:
        self.reactor.close()

    def settle(self) -> None:
        self.network.settle(self.reactor)

    def pass_time(self, seconds: float) -> None:
        self.network.pass_time(self.reactor, seconds)

    def connection(
        self,
        connection_class: Callable[..., Any] = Recorder,
        *,
        is_client: bool = False,
        limits: Limits | None = None,
        capacity: int = 256 * 1024,
    ) -> tuple[Any, Peer]:
        """Return an open connection and its peer; ``is_client`` says which end is ours."""
        connection = connection_class(self.reactor, limits or Limits(), is_client=is_client)
        transport, theirs = self.network.transport(self.reactor, Protocol(), capacity=capacity)
        connection.open(transport)
        self.settle()
        return connection, Peer(theirs, is_client=not is_client)

    def server(self, handler: Any = Recorder, **options: Any) -> Server:
        """Return a server that listens nowhere: give it streams with ``client``."""
        return Server(handler, reactor=self.reactor, **options)

    def client(
        self, server: Server, request: bytes | None = None, host: str = "203.0.113.7"
    ) -> Peer:
        """Return a peer whose stream the server has accepted and whose request was sent."""
        ours, theirs = self.network.pair((host, 50_000))
        server.adopt(as_socket(ours))
        theirs.feed(upgrade_request() if request is None else request)
        self.settle()
        return Peer(theirs, is_client=True)

    def open_client(self, server: Server, host: str = "203.0.113.7", **fields: str) -> Peer:
        """Return a peer whose opening handshake has succeeded."""
        peer = self.client(server, upgrade_request(**fields), host)
        head = read_head(peer)
        assert head.startswith("HTTP/1.1 101 "), head
        return peer


def upgrade_request(path: str = "/", **fields: str) -> bytes:
    """Return an opening handshake; further fields as keywords, ``_`` standing for ``-``."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def read_head(peer: Peer) -> str:
    """Take the response head off a peer's stream and return it."""
    data = peer.sock.take()
    head, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, data
    peer.sock.inbox[:0] = rest
    return head.decode("latin-1")


class Answer(NamedTuple):
    """Hold a complete response."""

    status: int
    head: str
    body: str


def read_answer(peer: Peer) -> Answer:
    """Take the one response off a peer's stream, after which the stream must be at its end."""
    head = read_head(peer)
    body = peer.sock.take()
    status = int(head.split(" ")[1])
    assert header(head, "Connection") == "close"
    assert header(head, "Content-Length") is not None
    assert peer.sees_end
    return Answer(status, head, body.decode())


def header(head: str, name: str) -> str | None:
    """Return the value of a header field of a response head."""
    for line in head.split("\r\n")[1:]:
        field, _, value = line.partition(":")
        if field.lower() == name.lower():
            return value.strip()
    return None


def close_events(connection: Recorder) -> tuple[Cause | None, tuple[Any, ...]]:
    """Return cause and close event; there must be exactly one, and it must be the last."""
    closes = [event for event in connection.events if event[0] == "close"]
    assert len(closes) == 1
    assert connection.events[-1] == closes[0]
    return connection.cause, closes[0]


FIN_TEXT = FIN | Opcode.TEXT
FIN_BINARY = FIN | Opcode.BINARY
