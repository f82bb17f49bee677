"""When sessions end: one timer for all of them, and a bounded number of ends in one turn.

    second      sessions, looked at when that second has come
    1 044   ->  {a, b}          is it over? -> on_due. Else -> where its end is now
    1 045   ->  {c}
    86 400  ->  {d, e, f ...}   far ahead, seconds are gathered in groups of 64, and looked at once
                                more when the group begins

A session stands in one place. Activity does not move it: when its second comes, its end is
asked for again. Only an end that comes nearer moves it. A timer of its own would cost each
session some 300 bytes; a place in a shared dict costs 50 on average.

Promises: never early, at most a second late, each once; at most 256 in one turn of the loop, so
that 100,000 which end together keep nobody waiting.

Not for: deciding when a session ends, which is ``Session.expires_at``.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import islice
from math import ceil, floor
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from websocket.clock import Clock, Handle
    from websocket.session import Session

    Bucket = dict[Session, None]

# A callback of the application each: some milliseconds in all.
BATCH = 256
_GROUP = 64
# An end may be moved to infinity, which is no second.
_DAY = 86_400


class ExpiryQueue:
    """Call back about each session when its end has come; use it in the reactor's thread.

    Args:
        clock: the reactor.
        on_due: called with a session whose end may have come, which has left the queue. It may
            call back into this object. What it raises is the clock's to handle; the others stay.
    """

    __slots__ = ("_buckets", "_clock", "_due", "_latest", "_on_due", "_seconds", "_timer")

    def __init__(self, clock: Clock, on_due: Callable[[Session], object]) -> None:
        self._clock = clock
        self._on_due = on_due
        self._buckets: dict[int, Bucket] = {}
        self._seconds: list[int] = []
        self._timer: Handle | None = None
        self._due = 0
        self._latest = 0

    def place(self, session: Session) -> None:
        """See to it that a session is looked at when its end has come."""
        second = self._second_of(session.expires_at)
        if second == self._latest:
            second = self._latest  # one object for all of this second, 32 bytes for each session
        self._latest = second
        if session._second is not None:
            if session._second <= second:
                return
            self._take_out(session)
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = {}
            heappush(self._seconds, second)
        bucket[session] = None
        session._second = second
        if self._timer is None or second < self._due:
            self._arm()

    def remove(self, session: Session) -> None:
        """Forget a session. Idempotent."""
        self._take_out(session)
        self._arm()

    def _take_out(self, session: Session) -> None:
        if session._second is not None:
            bucket = self._buckets[session._second]
            session._second = None
            del bucket[session]
            if not bucket:
                # A dict keeps the room of its deleted keys; this gives it back.
                bucket.clear()

    def _second_of(self, due: float) -> int:
        """Return the second at which to look at a session that ends then: in the future."""
        now = self._clock.time
        if due - now > 2 * _GROUP:
            return floor(min(due, now + _DAY)) // _GROUP * _GROUP
        return ceil(due)

    def _arm(self) -> None:
        """Set the one timer to the earliest second that has sessions."""
        seconds, buckets = self._seconds, self._buckets
        while seconds and not buckets[seconds[0]]:
            del buckets[heappop(seconds)]
        if self._timer is not None:
            if seconds and seconds[0] == self._due:
                return
            self._timer.cancel()
            self._timer = None
        if seconds:
            self._due = seconds[0]
            self._timer = self._clock.call_at(self._due, self._on_timer)

    def _on_timer(self) -> None:
        """Look at the sessions of the first second, or at as many as one turn may take."""
        self._timer = None
        due = self._due
        bucket = self._buckets[due]
        try:
            for session in list(islice(bucket, BATCH)):
                # Otherwise the end of an earlier one has ended this one, or moved it.
                if session._second == due:
                    self._take_out(session)
                    self._on_due(session)
        finally:
            # At once, that is in the next turn, if some are left.
            self._arm()
