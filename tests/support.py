"""What our own tests have beside the public kit, ``reactor.testing`` and ``websocket.testing``.

    with Stage() as stage:                    a reactor in virtual time
        connection, peer = stage.connection() ours, and the test's end of its stream
        stage.settle()                        run turns until nothing more happens
        stage.pass_time(20)                   the same, while virtual time goes by

The names from the kit are here for the tests to import from one place.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from reactor import Protocol, Reactor
from reactor.connector import System
from reactor.testing import (
    MemoryNetwork,
    MemorySocket,
    VirtualReactor,
    as_socket,
)
from reactor.testing import (
    VirtualClock as FakeClock,
)
from websocket import Cause, Limits, Opcode, Server
from websocket.frame import FIN
from websocket.testing import KEY, Peer, Recorder, upgrade_request

__all__ = [
    "ACCEPT",
    "FIN_BINARY",
    "FIN_TEXT",
    "KEY",
    "Answer",
    "FakeClock",
    "FakeNetwork",
    "MemorySocket",
    "Peer",
    "Recorder",
    "Stage",
    "as_socket",
    "close_events",
    "has_ipv6",
    "header",
    "read_answer",
    "read_head",
    "run_until",
    "upgrade_request",
]

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class FakeNetwork(MemoryNetwork):
    """The public network, for tests that name their reactor."""

    def reactor(self) -> VirtualReactor:
        """Return a real reactor in virtual time; close it."""
        reactor = super().reactor()
        # Clients connect over what the operating system has, or what a test puts in its place.
        reactor.system = System()
        return reactor

    def settle(self, reactor: Reactor, turns: int = 200) -> None:
        """Run turns without letting time go by until nothing more happens."""
        assert isinstance(reactor, VirtualReactor)
        reactor.settle(turns)

    def pass_time(self, reactor: Reactor, seconds: float) -> None:
        """Run turns while virtual time goes by."""
        assert isinstance(reactor, VirtualReactor)
        reactor.pass_time(seconds)


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


def read_head(peer: Peer) -> str:
    """Take the response head off a peer's stream and return it."""
    return peer.read_head()


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
