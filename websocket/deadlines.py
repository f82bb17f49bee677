"""When something must be done about a silent, idle or slow peer: the arithmetic of it.

A connection has many deadlines and one timer. Traffic only stores times here; when the timer
fires, ``due`` says what has really become due meanwhile, and ``next_due`` when to look again.

    silence for ping_interval            -> send a ping
    silence for ping_timeout after that  -> PING_TIMEOUT   (any byte at all ends the silence)
    a ping that cannot leave for so long -> SLOW_CONSUMER  (as above the soft mark)
    no message for idle_timeout          -> IDLE_TIMEOUT
    a message incomplete for too long    -> MESSAGE_TIMEOUT
    above the soft mark for too long     -> SLOW_CONSUMER
    closing handshake not over in time   -> CLOSE_TIMEOUT  (the others do not count any more)

Time that the loop has lost by a stall is nobody's silence: every end is put off by it. After a
stall as long as ``ping_timeout``, as when the machine has slept, an earlier ping proves nothing:
another one goes out before anybody is judged.

Times are seconds on the reactor's clock. No clock is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from websocket.causes import Cause
from websocket.limits import Limits


def _lost_nothing(moment: float) -> float:
    """Stand in for a loop that never stalls."""
    return 0.0


class Deadlines:
    """Hold the times of one open connection.

    Args:
        limits: of the connection.
        now: when it was opened.
        lost_since: takes a time and tells how many seconds the loop has lost since.

    Attributes:
        received_at: when the last bytes arrived.
        message_at: when the last message passed, in either direction.
        pinged_at: when the ping had left after which nothing has arrived yet, else None.
        ping_queued_at: when a ping was written that has not left yet, else None.
        message_began_at: when the first fragment of an incomplete message arrived, else None.
        congested_at: when the unsent bytes crossed the soft mark, else None.
        close_by: when the closing handshake must be over, else None.
        is_paused: we read no input at the moment, so the peer's silence proves nothing.
    """

    __slots__ = (
        "_limits",
        "_lost_since",
        "close_by",
        "congested_at",
        "is_paused",
        "message_at",
        "message_began_at",
        "ping_queued_at",
        "pinged_at",
        "received_at",
    )

    def __init__(
        self, limits: Limits, now: float, lost_since: Callable[[float], float] = _lost_nothing
    ) -> None:
        self._limits = limits
        self._lost_since = lost_since
        self.received_at = now
        self.message_at = now
        self.pinged_at: float | None = None
        self.ping_queued_at: float | None = None
        self.message_began_at: float | None = None
        self.congested_at: float | None = None
        self.close_by: float | None = None
        self.is_paused = False

    def ping_left(self, now: float) -> None:
        """Take note that the last byte of the ping has left the process."""
        if self.ping_queued_at is not None and self.received_at <= self.ping_queued_at:
            self.pinged_at = now
        self.ping_queued_at = None

    def due(self, now: float) -> Cause | None:
        """Return the cause for which the connection must end now, if there is one."""
        for when, cause in self._ends():
            if when <= now:
                return cause
        return None

    def ping_is_due(self, now: float) -> bool:
        """Tell whether the silence has lasted so long that a ping must be sent."""
        when = self._next_ping()
        return when is not None and when <= now

    def next_due(self) -> float | None:
        """Return the earliest time at which something can become due; None for never."""
        limits = self._limits
        if limits.ping_interval is not None and limits.idle_timeout is None and self._is_at_rest():
            # Nearly always: to ask all the others takes ten times as long.
            return self.received_at + limits.ping_interval
        moments = [when for when, _ in self._ends()]
        ping_at = self._next_ping()
        if ping_at is not None:
            moments.append(ping_at)
        return min(moments, default=None)

    def _is_at_rest(self) -> bool:
        """Tell whether nothing is waited for: no answer, no rest of a message, no room."""
        return (
            self.pinged_at is None
            and self.ping_queued_at is None
            and self.message_began_at is None
            and self.congested_at is None
            and self.close_by is None
            and not self.is_paused
        )

    def _next_ping(self) -> float | None:
        interval = self._limits.ping_interval
        if interval is None or self.is_paused or self.close_by is not None:
            return None
        if self.ping_queued_at is not None:
            return None
        if self.pinged_at is None:
            return self.received_at + interval
        return self.pinged_at if self._is_outdated(self.pinged_at) else None

    def _is_outdated(self, pinged_at: float) -> bool:
        """Tell whether a ping was overtaken by a stall as long as the time for its answer."""
        timeout = self._limits.ping_timeout
        return timeout is not None and self._lost_since(pinged_at) >= timeout

    def _ends(self) -> Iterator[tuple[float, Cause]]:
        """Yield every deadline that ends the connection."""
        limits, lost_since = self._limits, self._lost_since
        if self.close_by is not None:
            began = self.close_by - limits.close_timeout
            yield self.close_by + lost_since(began), Cause.CLOSE_TIMEOUT
            return
        pinged_at = self.pinged_at
        if self.is_paused or (pinged_at is not None and self._is_outdated(pinged_at)):
            pinged_at = None
        for since, timeout, cause in (
            (pinged_at, limits.ping_timeout, Cause.PING_TIMEOUT),
            (self.ping_queued_at, limits.write_stall_timeout, Cause.SLOW_CONSUMER),
            (self.congested_at, limits.write_stall_timeout, Cause.SLOW_CONSUMER),
            (self.message_began_at, limits.message_timeout, Cause.MESSAGE_TIMEOUT),
            (None if self.is_paused else self.message_at, limits.idle_timeout, Cause.IDLE_TIMEOUT),
        ):
            if since is not None and timeout is not None:
                yield since + timeout + lost_since(since), cause
