"""How a server ends: nobody new comes in, those who are there leave in turns, the rest is cut.

    serving ── drain ──▶ draining ──── timeout ────▶ closing ── grace ──▶ the rest is aborted
       └──────────────────── shutdown ──────────────────▲          └── nobody left ──▶ serving

    draining    the listener is closed, so that a load balancer or another process on the port
                (``reuse_port``) takes over; who is here goes on until it ends by itself
    closing     opening handshakes are answered 503; connections get their close frame, a batch
                of them every tenth of a second, with a hint when to come back

Batches, because ten thousand clients that are sent away in one instant come back in one instant,
to a server that has just started; for the same reason every one is given a different hint. A
server with no more than a batch of connections closes them all at once, however: nobody likes to
wait for the end of a program that has two clients.

``start`` makes the server listen again when all is over.

Source: the drainer of Phoenix (Elixir), which closes in batches at intervals, too.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from math import ceil, sqrt
from typing import TYPE_CHECKING

from reactor import Timer
from websocket.causes import Cause
from websocket.connection import Connection
from websocket.errors import HandshakeError
from websocket.events import note
from websocket.opcodes import CloseCode
from websocket.retry import with_hint

if TYPE_CHECKING:
    from websocket.server import Server

# Seconds between batches, and the connections of one: as many as a listener accepts in a turn.
BATCH_INTERVAL = 0.1
LEAST_BATCH = 64
# Seconds within which the clients are asked to come back.
COME_BACK_WITHIN = 5.0
_GOLDEN_RATIO = (sqrt(5) - 1) / 2


class Phase(IntEnum):
    """Name how far a server is on its way out."""

    SERVING = 0
    DRAINING = 1
    ANNOUNCED = 2
    """``shutdown`` was called; it begins when the present callback has returned."""
    CLOSING = 3


# Looked up once: this is asked at the end of every connection.
_BEFORE_THE_END = (Phase.SERVING, Phase.ANNOUNCED)


class Shutdown:
    """Lead one server out; reactor's thread only.

    Args:
        server: whose listener, handshakes and connections come to their end.

    Attributes:
        stops_reactor: the end stops the reactor, for which ``Server.run`` waits.
    """

    __slots__ = (
        "_batch",
        "_batch_timer",
        "_grace_timer",
        "_next_batch_at",
        "_on_done",
        "_phase",
        "_reactor",
        "_server",
        "_waiting",
        "stops_reactor",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reactor = server.reactor
        self._phase = Phase.SERVING
        self._on_done: list[Callable[[], object]] = []
        self._waiting: deque[tuple[Connection, float]] = deque()
        self._batch = LEAST_BATCH
        self._next_batch_at = 0.0
        self._batch_timer: Timer | None = None
        self._grace_timer: Timer | None = None
        self.stops_reactor = False

    @property
    def is_draining(self) -> bool:
        """Tell whether nobody new is taken in any more, and somebody may still be there."""
        return self._phase is not Phase.SERVING

    @property
    def is_closing(self) -> bool:
        """Tell whether those who are there have been sent away, or are about to be."""
        return self._phase >= Phase.ANNOUNCED

    def drain(
        self, timeout: float | None, is_restart: bool, on_done: Callable[[], object] | None
    ) -> None:
        """See ``Server.drain``."""
        self._note(on_done)
        if self._phase is Phase.SERVING:
            # First, because who has connected already is still to be served.
            self._server.stop_listening()
            self._phase = Phase.DRAINING
            note("draining", "draining: %d open", self._server.manager.pool.admitted)
            if timeout is not None:
                code, reason = goodbye(is_restart)
                self._grace_timer = self._reactor.call_later(
                    timeout, self.close, code, reason, None, None
                )
        self._reactor.call_soon(self.check)

    def close(
        self,
        code: int,
        reason: str,
        grace: float | None,
        on_done: Callable[[], object] | None,
    ) -> None:
        """See ``Server.shutdown``."""
        self._note(on_done)
        if self.is_closing:
            self._reactor.call_soon(self.check)
            return
        self._cancel_timers()
        self._phase = Phase.ANNOUNCED
        self._server.stop_listening()
        seconds = self._server.limits.shutdown_grace if grace is None else grace
        # Soon, not now: it may be a hook that calls, whose request is to be answered first.
        self._reactor.call_soon(self._begin, code, reason, seconds)

    def abort(self) -> None:
        """Cut everything that is left."""
        for handshake in list(self._server.handshakes):
            handshake.abort()
        for connection in self._server.connections:
            connection.abort()

    def check(self) -> None:
        """Come to the end if the last stream is gone."""
        if self._phase in _BEFORE_THE_END:
            return
        if self._server.handshakes or self._server.manager.pool.admitted:
            return
        self._cancel_timers()
        self._waiting.clear()
        self._phase = Phase.SERVING
        done, self._on_done = self._on_done, []
        # Soon, not now: the last connection is about to call on_close.
        for callback in (*done, self._stop_reactor):
            self._reactor.call_soon(callback)

    def _note(self, on_done: Callable[[], object] | None) -> None:
        if on_done is not None:
            self._on_done.append(on_done)

    def _stop_reactor(self) -> None:
        if self.stops_reactor:
            self._reactor.stop()

    def _cancel_timers(self) -> None:
        for timer in (self._batch_timer, self._grace_timer):
            if timer is not None:
                timer.cancel()

    # --- closing ----------------------------------------------------------------------------

    def _begin(self, code: int, reason: str, grace: float) -> None:
        connections = self._server.connections
        note(
            "shutting_down",
            "shutting down: %d open, to be closed within %g s",
            len(connections),
            grace,
        )
        self._phase = Phase.CLOSING
        self._grace_timer = self._reactor.call_later(grace, self.abort)
        for handshake in list(self._server.handshakes):
            handshake.refuse(HandshakeError(503, reason, (("Retry-After", "5"),)))
        self._waiting.extend(zip(connections, spread(COME_BACK_WITHIN)))
        # All of them have been told by half of the grace: the other half is for their answers.
        batches = max(1, int(grace / 2 / BATCH_INTERVAL))
        self._batch = max(LEAST_BATCH, ceil(len(connections) / batches))
        self._next_batch_at = self._reactor.time
        self._close_batch(code, reason)
        self.check()

    def _close_batch(self, code: int, reason: str) -> None:
        count = 0
        while self._waiting and count < self._batch:
            connection, seconds = self._waiting.popleft()
            if connection.is_open:
                connection.end(Cause.SHUTDOWN, code, with_hint(code, reason, seconds))
                count += 1
        if self._waiting:
            # By the clock, not from now on: a loop that is late must not become ever later.
            self._next_batch_at += BATCH_INTERVAL
            self._batch_timer = self._reactor.call_at(
                self._next_batch_at, self._close_batch, code, reason
            )


def goodbye(is_restart: bool) -> tuple[int, str]:
    """Return the code and reason of the close frames, where the application gives none."""
    if is_restart:
        return CloseCode.SERVICE_RESTART, "the server is restarting"
    return CloseCode.GOING_AWAY, "the server is going away"


def spread(seconds: float) -> Iterator[float]:
    """Yield numbers from 0 to ``seconds``, endlessly, and evenly spread however many are taken.

    Each falls into one of the largest gaps that those before it have left (Knuth, The Art of
    Computer Programming, volume 3, 6.4, theorem S).
    """
    for number in itertools.count(1):
        yield number * _GOLDEN_RATIO % 1 * seconds
