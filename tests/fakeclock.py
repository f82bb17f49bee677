"""A clock that only moves when told to, with the two names that row 4 needs of a reactor."""

from __future__ import annotations

import heapq
from typing import Any, Callable


class FakeHandle:
    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.callback = callback
        self.args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeClock:
    """Stand in for a reactor: ``time`` and ``call_at``, and ``advance`` for the test."""

    def __init__(self, time: float = 1_000.0) -> None:
        self.time = time
        self.scheduled = 0
        self._queue: list[tuple[float, int, FakeHandle]] = []

    @property
    def pending(self) -> int:
        """The number of calls that are still to come."""
        return sum(not handle.is_cancelled for _, _, handle in self._queue)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeHandle:
        handle = FakeHandle(callback, args)
        self.scheduled += 1
        heapq.heappush(self._queue, (when, self.scheduled, handle))
        return handle

    def advance(self, seconds: float) -> None:
        """Let time pass and make every call that comes due, in order and at its time."""
        target = self.time + seconds
        while self._queue and self._queue[0][0] <= target:
            when, _, handle = heapq.heappop(self._queue)
            if not handle.is_cancelled:
                self.time = max(self.time, when)
                handle.callback(*handle.args)
        self.time = target

    def run_due(self) -> None:
        """Make the calls that are due now, as one turn of the loop does: not those they ask for."""
        due = []
        while self._queue and self._queue[0][0] <= self.time:
            due.append(heapq.heappop(self._queue)[2])
        for handle in due:
            if not handle.is_cancelled:
                handle.callback(*handle.args)
