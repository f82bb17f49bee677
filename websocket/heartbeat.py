"""How a connection stays alive, and what is done when it has waited long enough.

    the timer ── fires ──┬── an end is due ──▶ its way out: end, fail, cut or drop
        ▲                ├── it is quiet   ──▶ a ping; silence counts from when it has left
        │                └── nothing is: traffic has stored later times meanwhile
        └── next due ◀───┘

A connection has many deadlines and this one timer; ``deadlines.py`` says what it waits for. A
pong that answers the last ping measures the latency; any byte at all proves life.

Not here: what the ways out are, see ``lifecycle.py``; which pings are answered and how many are
allowed, see ``sender.py`` and ``endpoint.py``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from websocket.causes import Cause
from websocket.errors import PolicyViolation
from websocket.frame import FIN
from websocket.lifecycle import OPEN, Lifecycle
from websocket.opcodes import PING, CloseCode

if TYPE_CHECKING:
    from reactor import Timer


class Heartbeat(Lifecycle):
    """Keep the deadlines of one connection; reactor's thread only.

    Takes the arguments of ``Lifecycle``, by position.
    """

    __slots__ = ("_ping_payload", "_timer", "last_ping", "latency")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._timer: Timer | None = None
        self._ping_payload: bytes | None = None
        self.last_ping: float | None = None
        self.latency: float | None = None

    # --- the timer ----------------------------------------------------------------------------

    def _arm(self) -> None:
        """Make the timer fire no later than the next deadline."""
        due = self._deadlines.next_due()
        if due is None:
            return
        if self._timer is not None:
            if self._timer.is_pending and self._timer.due <= due:
                return
            self._timer.cancel()
        # Not as a bound method, which each connection would keep.
        self._timer = self.reactor.call_at(due, Heartbeat._on_timer, self)

    def _on_timer(self) -> None:
        now = self.reactor.time
        cause = self._deadlines.due(now)
        if cause is not None:
            self._time_out(cause)
        elif self._deadlines.ping_is_due(now):
            self._ask_for_life(now)
        self._arm()

    def _time_out(self, cause: Cause) -> None:
        if cause is Cause.PING_TIMEOUT:
            self._cut(cause, CloseCode.INTERNAL_ERROR, "no answer to a ping")
        elif cause is Cause.SLOW_CONSUMER:
            self._cut(cause, CloseCode.POLICY_VIOLATION, "too slow a consumer")
        elif cause is Cause.MESSAGE_TIMEOUT:
            self._fail(PolicyViolation("message took too long", cause=cause))
        elif cause is Cause.IDLE_TIMEOUT:
            self.end(cause, CloseCode.GOING_AWAY, "idle")
        else:
            self._drop(cause)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._finish()

    # --- pings and pongs ----------------------------------------------------------------------

    def _ask_for_life(self, now: float) -> None:
        """Send a ping, and count the silence from when its last byte has left the process."""
        assert self._transport is not None
        deadlines = self._deadlines
        deadlines.pinged_at, deadlines.ping_queued_at = None, now
        # Random, so that a pong can only come from someone who saw the ping.
        self._ping(os.urandom(8))
        if self._transport is not None:
            self._transport.when_sent(self._ping_left)

    def _ping_left(self) -> None:
        self.last_ping = self.reactor.time
        self._deadlines.ping_left(self.reactor.time)
        self._arm()

    def _ping(self, payload: bytes) -> bool:
        if self.state is not OPEN:
            return False
        self.last_ping = self.reactor.time
        self._ping_payload = payload
        self._write(self._writer.encode(FIN | PING, payload))
        return True

    def _match_pong(self, payload: bytes) -> bool:
        """Measure the latency; tell whether this answers our last ping, for the first time."""
        # RFC 6455, 5.5.3: a pong carries its ping's payload; other pongs measure nothing.
        if payload != self._ping_payload or self.last_ping is None:
            return False
        self.latency = self.reactor.time - self.last_ping
        self._ping_payload = None
        return True
