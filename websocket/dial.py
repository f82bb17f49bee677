"""A client for scripts that have no loop: send, receive, close; each call blocks.

    with dial("ws://127.0.0.1:8080/") as ws:
        ws.send("hello")
        print(ws.recv(timeout=5))

Each object drives a private reactor in the calling thread, and only while one of its methods
runs: in between, pings of the server are not answered. A script that computes for longer than
the server's patience (40 s by default) had better use ``connect`` and a reactor of its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from reactor import Reactor
from websocket.client import connect
from websocket.connection import Connection
from websocket.errors import ConnectionClosed
from websocket.frame_writer import Payload
from websocket.lifecycle import State
from websocket.opcodes import CloseCode

# What may wait to be received before reading stops and the server has to wait.
_MAX_WAITING_MESSAGES = 16
_MAX_WAITING_SIZE = 1024 * 1024


def dial(url: str, **options: Any) -> BlockingConnection:
    """Connect to a WebSocket server and wait until the connection is open.

    Args:
        url: ``ws://host[:port]/path?query``, or the same with ``wss``.
        options: as ``connect`` takes them, without ``reconnect``.

    Raises:
        HandshakeError: the server refused.
        ConnectFailed: the server cannot be reached.
        ValueError: an argument is wrong.
    """
    return BlockingConnection(url, **options)


class BlockingConnection:
    """Exchange messages with a server, one blocking call after the other.

    Belongs to the thread that made it. Use it as a context manager, or close it.

    Attributes:
        connection: the connection underneath, to ask for its subprotocol, its latency and so on.
    """

    def __init__(self, url: str, **options: Any) -> None:
        if "reconnect" in options:
            raise ValueError("dial() does not reconnect: use connect() with a reactor")
        self._reactor = Reactor()
        try:
            self.connection = connect(self._reactor, url, _Collector, **options)
            while self.connection.state is State.CONNECTING:
                self._reactor.run_once()
            if self.connection.state is State.CLOSED and self.connection.error is not None:
                raise self.connection.error
        except BaseException:
            self._reactor.close()
            raise

    def send(self, message: Payload, timeout: float | None = None) -> None:
        """Send a message, and wait while more than the soft mark is unsent.

        Args:
            message: str as text, anything bytes-like as binary.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection is not open any more.
            TimeoutError: the server reads too slowly; the message will be sent all the same.
        """
        self._reactor.run_once(0)
        if not self.connection.send(message):
            raise self._closed()
        self._reactor.run_once(0)
        self._run_until(lambda: not self.connection.is_congested, timeout)

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: str for text, bytes for binary.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection has ended, and every message was returned.
            TimeoutError: no message came in time.
        """
        self._run_until(lambda: bool(self.connection.waiting), timeout)
        if not self.connection.waiting:
            raise self._closed()
        return self.connection.take()

    def ping(self, timeout: float | None = None) -> float:
        """Send a ping, wait for its pong, and return the latency in seconds.

        Raises:
            ConnectionClosed: the connection has ended.
            TimeoutError: no pong came in time.
        """
        self.connection.latency = None
        self.connection.ping(b"latency")
        self._run_until(lambda: self.connection.latency is not None, timeout)
        if self.connection.latency is None:
            raise self._closed()
        return self.connection.latency

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection and wait for the closing handshake. Idempotent.

        Raises:
            ValueError: a code that must not be sent, or too long a reason.
        """
        self.connection.close(code, reason)
        self._run_until(lambda: self.connection.state is State.CLOSED, None)
        self._reactor.close()

    def __iter__(self) -> Iterator[str | bytes]:
        """Return messages until the connection ends in an orderly way.

        Raises:
            ConnectionClosed: it ended otherwise.
        """
        while True:
            try:
                yield self.recv()
            except ConnectionClosed as end:
                if end.is_clean and end.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
                    return
                raise

    def __enter__(self) -> BlockingConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run_until(self, condition: Callable[[], bool], timeout: float | None) -> None:
        """Run the reactor until a condition holds or the connection has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not condition() and self.connection.state is not State.CLOSED:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"nothing came within {timeout:g} s")
            self._reactor.run_once(left)

    def _closed(self) -> ConnectionClosed:
        end = self.connection.closed
        return ConnectionClosed(CloseCode.ABNORMAL, "closing", False) if end is None else end


class _Collector(Connection):
    """Keep what arrives until it is taken."""

    __slots__ = ("_size", "waiting")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: deque[str | bytes] = deque()
        self._size = 0

    def on_message(self, message: str | bytes) -> None:
        self.waiting.append(message)
        self._size += len(message)
        if len(self.waiting) >= _MAX_WAITING_MESSAGES or self._size >= _MAX_WAITING_SIZE:
            self.pause()

    def take(self) -> str | bytes:
        """Return the oldest message."""
        message = self.waiting.popleft()
        self._size -= len(message)
        if not self.waiting:
            self.resume()
        return message
