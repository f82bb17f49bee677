"""What a soak measures while it runs, how it keeps its load in bounds, and what it judges."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torturing.figures import Figure, slope
from torturing.process import ServerProcess

KIB = 1024
HEADINGS = (
    "| minute | RSS KiB | descriptors | timers | connections | sessions | CPUs | pace |\n"
    "|---|---|---|---|---|---|---|---|"
)
# Caches and free lists fill, and the load finds its level, in the first part of a soak; in less
# than this many minutes there is nothing else to be seen.
_WARM_UP = 0.25
_SHORTEST = 3.0
# Some ten bytes for each connection, at the rates that are usual here; a soak may also end at a
# moment when the garbage collector has more before it than at the beginning.
_GROWTH_PER_MINUTE = 64.0
_GROWTH = 2_048.0
# Beyond these it is something else that is in the way, and pauses tell nothing.
_FASTEST = 0.1
_SLOWEST = 20.0


class Sample(NamedTuple):
    """Hold what was seen of the server at one moment.

    Attributes:
        minute: since the beginning.
        resident: memory in bytes.
    """

    minute: float
    resident: int
    descriptors: int
    timers: int
    connections: int
    sessions: int

    def line(self, cpus: float, pace: float) -> str:
        """Return the line of the table."""
        return (
            f"| {self.minute:.1f} | {self.resident // KIB:,} | {self.descriptors} | {self.timers} "
            f"| {self.connections} | {self.sessions} | {cpus:.2f} | {pace:.2f} |"
        )


def take_sample(server: ServerProcess, started_at: float) -> Sample:
    """Return what there is to be seen now."""
    facts: Any = server.facts()
    return Sample(
        (time.monotonic() - started_at) / 60,
        server.resident(),
        server.descriptors(),
        server.timers(),
        facts["active"],
        facts["sessions"]["active"],
    )


def growth(samples: Sequence[Sample]) -> Figure:
    """Return by how many KiB a minute the memory grew after the warm-up, and how many it may."""
    what, unit = "growth of RSS after the warm-up", "KiB/minute"
    end = samples[-1].minute if samples else 0.0
    counted = [sample for sample in samples if sample.minute >= end * _WARM_UP]
    value = slope([(sample.minute, sample.resident / KIB) for sample in counted])
    if end < _SHORTEST:
        return Figure(f"{what}, in too short a time", value, unit)
    allowed = max(_GROWTH_PER_MINUTE, _GROWTH / (end - counted[0].minute))
    return Figure(what, value, unit, most=allowed)


class Throttle:
    """Keep the load below a bound, but not far below.

    Args:
        used: returns the seconds of processor time used so far.
        most: how many processors may be busy.
        clock: returns seconds.

    Attributes:
        cpus: how many processors were busy lately.
        pace: what to multiply all pauses by: 1, above it to slow down.
    """

    def __init__(
        self,
        used: Callable[[], float],
        most: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cpus = 0.0
        self.pace = 1.0
        self._used = used
        self._most = most
        self._clock = clock
        self._last = clock(), used()

    def adjust(self) -> float:
        """Look at what was used since the last time, and return the pace from here on."""
        now, used = self._clock(), self._used()
        seconds = now - self._last[0]
        if seconds > 0:
            self.cpus = (used - self._last[1]) / seconds
            self._last = now, used
        step = min(max(self.cpus / (0.9 * self._most), 0.7), 1.4)
        self.pace = min(max(self.pace * step, _FASTEST), _SLOWEST)
        return self.pace
