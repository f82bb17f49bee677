"""A client for scripts that have no loop: send, receive, close; each call blocks.

    with dial("ws://127.0.0.1:8080/") as ws:
        ws.send("hello")
        print(ws.recv(timeout=5))

Each object drives a private reactor in the calling thread, and only while one of its methods
runs: in between, pings of the server are not answered. A script that computes for longer than
the server's patience (40 s by default) had better use ``connect`` and a reactor of its own.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
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
_ORDERLY_CODES = frozenset({CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS})


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
            if self.connection.opened_at is None:
                assert self.connection.error is not None
                raise self.connection.error
        except BaseException:
            self._reactor.close()
            raise

    def send(self, message: Payload, timeout: float | None = None) -> None:
        """Send a message, and wait while more than the soft mark is unsent.

        Args:
            message: str as text, anything bytes-like as binary.
            timeout: seconds to wait before sending, and again afterwards; None for as long as
                it takes.

        Raises:
            ConnectionClosed: the connection is not open any more.
            TimeoutError: the server reads too slowly. The first message for which that happens
                will be sent all the same; no other is taken until it has been.
            TypeError, ValueError: see ``Connection.send``.
        """
        # Before, too: a message on top of one that is stuck may be more than the hard mark.
        self._run_until(self._is_writable, timeout)
        if not self.connection.send(message):
            raise self._closed()
        self._run_until(self._is_writable, timeout)

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
        connection = self.connection
        connection.latency = None
        # Random, so that the pong of an earlier ping is not taken for this one's.
        connection.ping(os.urandom(8))
        # The pong may be behind more messages than may wait otherwise.
        with connection.unlimited():
            self._run_until(lambda: connection.latency is not None, timeout)
        if connection.latency is None:
            raise self._closed()
        return connection.latency

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection and wait for the closing handshake. Idempotent.

        Raises:
            ValueError: a code that must not be sent, or too long a reason.
        """
        self.connection.close(code, reason)
        try:
            self._run_until(lambda: self.connection.state is State.CLOSED, None)
        finally:
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
                if end.is_clean and end.code in _ORDERLY_CODES:
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
        """Run the reactor until a condition holds or the connection has ended.

        What is there already is taken note of even when the time is up.
        """
        deadline = inf if timeout is None else time.monotonic() + timeout
        wait = 0.0
        while self.connection.state is not State.CLOSED:
            self._reactor.run_once(wait if wait < inf else None)
            if condition():
                return
            wait = deadline - time.monotonic()
            if wait <= 0:
                raise TimeoutError(f"the server took longer than {timeout:g} s")

    def _is_writable(self) -> bool:
        return not self.connection.is_congested

    def _closed(self) -> ConnectionClosed:
        end = self.connection.closed
        return ConnectionClosed(CloseCode.ABNORMAL, "closing", False) if end is None else end


class _Collector(Connection):
    """Keep what arrives until it is taken."""

    __slots__ = ("_is_limited", "_size", "waiting")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting: deque[str | bytes] = deque()
        self._size = 0
        self._is_limited = True

    def on_message(self, message: str | bytes) -> None:
        self.waiting.append(message)
        self._size += len(message)
        self._pause_when_full()

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Let any number of messages wait during a block."""
        self._is_limited = False
        self.resume()
        try:
            yield
        finally:
            self._is_limited = True
            self._pause_when_full()

    def take(self) -> str | bytes:
        """Return the oldest message."""
        message = self.waiting.popleft()
        self._size -= len(message)
        if not self.waiting:
            self.resume()
        return message

    def _pause_when_full(self) -> None:
        is_full = len(self.waiting) >= _MAX_WAITING_MESSAGES or self._size >= _MAX_WAITING_SIZE
        if is_full and self._is_limited:
            self.pause()
