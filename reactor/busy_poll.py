"""Asking the selector again and again for a while, before the thread sleeps in it.

A thread that sleeps takes some ten microseconds to be woken, on virtual machines several times
that: for a lonely message, more than all that we do with it. Whoever has a processor to spare may
have the loop stay awake after each turn that brought something, as ``net.core.busy_poll`` does
inside Linux::

    events ── a turn ── ask ── ask ── ask ── nothing for ``duration`` ── sleep
                          └── events: the next turn

A server without traffic sleeps as ever. Not for: many busy connections, which keep the loop awake
anyway, and machines whose processors have something else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from reactor.event_handler import EventHandler

    Select = Callable[[Optional[float]], list[tuple[EventHandler, int]]]


class BusyPoll:
    """Wait as a selector does, and stay awake for a while after something has happened.

    Args:
        select: waits for at most so many seconds, None for any time, and returns what is ready.
        clock: returns seconds.
        duration: seconds to stay awake.
    """

    __slots__ = ("_clock", "_duration", "_had_events", "_select")

    def __init__(self, select: Select, clock: Callable[[], float], duration: float) -> None:
        self._select = select
        self._clock = clock
        self._duration = duration
        self._had_events = False

    def __call__(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Return what is ready, after ``timeout`` seconds at the latest; None for any time."""
        events: list[tuple[Any, int]] = []
        if self._had_events and timeout != 0:
            events = self._ask(timeout)
            if timeout is not None:
                timeout = max(0, timeout - self._duration)
        if not events:
            events = self._select(timeout)
        self._had_events = bool(events)
        return events

    def _ask(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Ask until something is ready, or the time is over."""
        duration = self._duration if timeout is None else min(timeout, self._duration)
        end = self._clock() + duration
        events = self._select(0)
        while not events and self._clock() < end:
            events = self._select(0)
        return events
