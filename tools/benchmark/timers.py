"""The timer wheel beside ``heapq`` and asyncio: schedule, cancel, expire, with many pending.

Each does what a program that uses it has to do:

    TimerWheel   schedule, Timer.cancel, advance
    heapq        push (due, number, timer); cancelling marks a timer and, when all are marked,
                 sweeps the heap, as asyncio does; pop what is due and call it
    asyncio      call_at on a loop whose clock is set by hand, TimerHandle.cancel and one turn of
                 the loop, which sweeps; turns until all have run

Due times are spread over 60 seconds by chance, the same for all. The garbage collector is on.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from fuzzing.properties import seeded

from benchmark.report import markdown_table, number
from reactor import Timer, TimerWheel

PENDING = 1_000_000
SPAN = 60.0
_SEED = 1987
_NANO = 1e9


class Timers(Protocol):
    """What is measured of each kind."""

    def schedule(self, dues: Sequence[float]) -> None:
        """Arrange for a callback at each time."""

    def cancel(self) -> None:
        """Cancel all."""

    def expire(self) -> int:
        """Let the time come for all; return how many callbacks ran."""

    def close(self) -> None:
        """Let go of everything."""


class _Counter:
    """Count calls: the callback of all timers."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Wheel:
    """Our wheel."""

    def __init__(self) -> None:
        self._wheel = TimerWheel()
        self._timers: list[Timer] = []

    def schedule(self, dues: Sequence[float]) -> None:
        """Schedule each."""
        schedule, self._callback = self._wheel.schedule, _Counter()
        self._timers = [schedule(due, self._callback) for due in dues]

    def cancel(self) -> None:
        """Cancel each."""
        for timer in self._timers:
            timer.cancel()

    def expire(self) -> int:
        """Advance to the end."""
        self._wheel.advance(2 * SPAN)
        return self._callback.count

    def close(self) -> None:
        """Drop the timers."""
        self._timers.clear()


class _Entry:
    """One timer of a heap."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback


class Heap:
    """A heap of the standard library, as programs usually keep timers in it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Entry]] = []
        self._entries: list[_Entry] = []

    def schedule(self, dues: Sequence[float]) -> None:
        """Push each; the number keeps those of one time in order."""
        heap, self._callback, push = self._heap, _Counter(), heapq.heappush
        entries = self._entries
        for number_of_timer, due in enumerate(dues):
            entry = _Entry(self._callback)
            push(heap, (due, number_of_timer, entry))
            entries.append(entry)

    def cancel(self) -> None:
        """Mark each, and sweep once."""
        for entry in self._entries:
            entry.callback = None
        self._heap = [each for each in self._heap if each[2].callback is not None]
        heapq.heapify(self._heap)

    def expire(self) -> int:
        """Pop and call each."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= 2 * SPAN:
            callback = pop(heap)[2].callback
            if callback is not None:
                callback()
        return self._callback.count

    def close(self) -> None:
        """Drop the timers."""
        self._entries.clear()


class _SetByHand(asyncio.SelectorEventLoop):
    """A loop of asyncio whose clock stands still until it is set."""

    now = 0.0

    def time(self) -> float:
        """Return the time that was set."""
        return self.now


class Asyncio:
    """The timers of asyncio's own loop."""

    def __init__(self) -> None:
        self._loop = _SetByHand()
        self._handles: list[asyncio.TimerHandle] = []

    def schedule(self, dues: Sequence[float]) -> None:
        """Call at each time."""
        call_at, self._callback = self._loop.call_at, _Counter()
        self._handles = [call_at(due, self._callback) for due in dues]

    def cancel(self) -> None:
        """Cancel each, and let the loop sweep."""
        for handle in self._handles:
            handle.cancel()
        self._turn()

    def expire(self) -> int:
        """Set the clock to the end, and let the loop run."""
        self._loop.now = 2 * SPAN
        self._turn()
        return self._callback.count

    def _turn(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def close(self) -> None:
        """Close the loop."""
        self._handles.clear()
        self._loop.close()


KINDS: dict[str, Callable[[], Timers]] = {
    "TimerWheel": Wheel,
    "heapq": Heap,
    "asyncio call_at": Asyncio,
}


class Cost(NamedTuple):
    """Hold nanoseconds for one timer."""

    schedule: float
    cancel: float
    expire: float


def due_times(count: int) -> list[float]:
    """Return due times by chance, always the same."""
    source = seeded(_SEED)
    return [source.uniform(0.001, SPAN) for _ in range(count)]


def measure_once(kind: Callable[[], Timers], dues: Sequence[float]) -> Cost:
    """Schedule all and cancel them, schedule all and let them expire; return what each took.

    Raises:
        AssertionError: a callback was lost.
    """
    timers = kind()
    schedule = _time(lambda: timers.schedule(dues))
    cancel = _time(timers.cancel)
    timers.close()
    timers = kind()
    timers.schedule(dues)
    ran: list[int] = []
    expire = _time(lambda: ran.append(timers.expire()))
    timers.close()
    assert ran == [len(dues)], f"{ran} of {len(dues)} callbacks ran"
    return Cost(*(seconds / len(dues) * _NANO for seconds in (schedule, cancel, expire)))


def _time(action: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def measure_timers(count: int, rounds: int) -> Iterator[tuple[str, Cost]]:
    """Yield the medians of each kind, measured in turn."""
    dues = due_times(count)
    costs: dict[str, list[Cost]] = {name: [] for name in KINDS}
    for _ in range(rounds):
        for name, kind in KINDS.items():
            costs[name].append(measure_once(kind, dues))
    for name, each in costs.items():
        yield name, Cost(*map(statistics.median, zip(*each)))


def table(costs: Sequence[tuple[str, Cost]], count: int) -> str:
    """Return the nanoseconds for one timer as a table."""
    headings = [f"ns, {count:,} pending", *Cost._fields]
    return markdown_table(headings, [[name, *map(number, cost)] for name, cost in costs])
