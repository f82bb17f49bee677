"""Clients of ours, on real sockets, against servers that follow a script, or our own.

    script = ScriptedServer(reactor, GOOD + HELLO)
    client = opened(reactor, script.url)            open, or the test fails
    client = refused(reactor, script.url)           not opened, and nothing is left

Give the reactor a ``FakeClock``: with real sockets but a clock that stands still, what lies open
ends when the test says so.
"""

from __future__ import annotations

from typing import Any

from support import Recorder, run_until

from reactor import Listener, Protocol, Reactor, Transport, open_tcp_sockets
from websocket import Cause, Limits, Server, State, connect
from websocket.key import accept_key

LIMITS = Limits(ping_interval=None)


def turn(reactor: Reactor, count: int = 5) -> None:
    """Run some turns without waiting: for what must not happen."""
    for _ in range(count):
        reactor.run_once(0)


class Conversation(Protocol):
    """One stream of a ``ScriptedServer``: collect what comes, send what the script says."""

    def __init__(self, script: ScriptedServer) -> None:
        self._script = script
        self.received = b""
        self.error: Exception | None = None
        self.is_over = False

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._script.conversations.append(self)

    def data_received(self, data: memoryview) -> None:
        had_request = b"\r\n\r\n" in self.received
        self.received += data
        if not had_request and b"\r\n\r\n" in self.received:
            self.head, _, rest = self.received.partition(b"\r\n\r\n")
            self.received = b"\r\n\r\n" + rest
            self._send(self._script.answer_to(self))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_over = True
        self.error = error

    def field(self, name: str) -> list[str]:
        """Return the values of a header field of the request."""
        lines = [line.partition(":") for line in self.head.decode().split("\r\n")[1:]]
        return [value.strip() for each, _, value in lines if each.lower() == name.lower()]

    @property
    def target(self) -> str:
        """What was asked for."""
        return self.head.decode().split(" ")[1]

    @property
    def frames(self) -> bytes:
        """What came behind the request."""
        return self.received[4:]

    def _send(self, pieces: list[bytes]) -> None:
        """Send one piece in each turn, so that each arrives by itself."""
        if pieces and not self.is_over:
            accept = accept_key(self.field("Sec-WebSocket-Key")[0]).encode()
            self.transport.write(pieces[0].replace(b"$accept", accept))
            self._script.reactor.call_soon(self._send, pieces[1:])
        elif self._script.hangs_up:
            self.transport.close()


class ScriptedServer:
    """Answer every request with the same bytes, whatever they are.

    Args:
        answer: pieces that are sent one after the other; ``$accept`` stands for the right value.
        hangs_up: close the stream afterwards.
    """

    def __init__(self, reactor: Reactor, *answer: bytes, hangs_up: bool = False) -> None:
        self.reactor = reactor
        self.answer = answer
        self.hangs_up = hangs_up
        self.conversations: list[Conversation] = []
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), lambda: Conversation(self))
        self.url = f"ws://127.0.0.1:{listener.addresses[0][1]}/"

    def answer_to(self, conversation: Conversation) -> list[bytes]:
        """Return the pieces of the answer to a request."""
        return list(self.answer)

    @property
    def conversation(self) -> Conversation:
        (conversation,) = self.conversations
        return conversation

    @property
    def has_request(self) -> bool:
        return bool(self.conversations) and bool(self.conversation.received)


def answer_of(*fields: str, status: str = "101 Switching Protocols", upgrade: bool = True) -> bytes:
    """Return a response head; the fields of a good upgrade come first unless told otherwise."""
    good = ("Upgrade: websocket", "Connection: Upgrade") if upgrade else ()
    return "\r\n".join([f"HTTP/1.1 {status}", *good, *fields, "", ""]).encode()


ACCEPT = "Sec-WebSocket-Accept: $accept"
GOOD = answer_of(ACCEPT)


def url_of(server: Server, target: str = "/") -> str:
    return f"ws://127.0.0.1:{server.port}{target}"


def opened(reactor: Reactor, url: str, **options: Any) -> Recorder:
    """Return a client whose connection is open."""
    client = connect(reactor, url, Recorder, **{"limits": LIMITS, **options})
    run_until(reactor, lambda: client.state is not State.CONNECTING)
    assert client.is_open, client.events
    return client


def refused(reactor: Reactor, url: str, **options: Any) -> Recorder:
    """Return a client whose connection could not be opened."""
    client = connect(reactor, url, Recorder, **{"limits": LIMITS, **options})
    run_until(reactor, lambda: client.state is not State.CONNECTING)
    turn(reactor)
    check_refused(client)
    return client


def check_refused(client: Recorder) -> None:
    """Check that exactly one ``on_error`` was called and that nothing is left."""
    assert client.state is State.CLOSED
    assert [event[0] for event in client.events] == ["error"]
    assert client.cause in (Cause.HANDSHAKE_FAILED, Cause.CONNECT_FAILED)
    assert client.send("too late") is False
