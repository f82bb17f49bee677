"""How late the loop is, by whom, and what its lateness must not cost the peers.

Two measures, which serve two purposes::

    hold    how long one callback, or a few handlers together, kept the loop from everyone else:
            counted from 10 ms on; from a second on a line in the log says who it was
    stall   a tenth of a second or more in which the loop did not see to its sockets: a hold, or
            a delay of what was due, because another main loop drives this one, the process was
            stopped, or the machine has slept

A stall is no fault of the peers: ``lost_since`` tells a deadline by how much to be put off.

Looking at the clock costs a twentieth of what an echo does. So it is done once in a turn, and once
for every few events where there are many: who held the loop among those is not known the first
time. From then on, for a minute, it is done for each.

Not for: profiling. What takes less than 10 ms is not counted at all.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from reactor.log import guarded, name_of

logger = guarded("reactor")

#: Seconds: a hold is counted under the greatest of these that it reaches.
BOUNDS = (0.01, 0.1, 1.0, 10.0)
#: Seconds from which on a hold is counted, one is put down in the log, and a delay is a stall.
HOLD, LONG_HOLD, STALL = BOUNDS[0], BOUNDS[2], 0.1

# Events between two looks at the clock.
_STRIDE = 64
_CLOSE_LOOK = 60.0
_LOG_INTERVAL = 5.0
_MAX_STALLS = 16
_MAX_NAMES = 8
# Addresses stand in quotes.
_NUMBER = re.compile(r"'[^']*'|0x[0-9a-f]+|[0-9.]+")


class LagSnapshot(NamedTuple):
    """Hold what was measured of a loop since it was made.

    Attributes:
        holds: how many there were, by the lower bound of their lengths in seconds.
        longest_hold: in seconds.
        stalls: how often the loop did not see to its sockets for a tenth of a second or more.
        lost: for how many seconds, all together.
    """

    holds: Mapping[float, int]
    longest_hold: float
    stalls: int
    lost: float


class Lag:
    """Count holds and stalls of one loop.

    Attributes:
        stride: how many events may be dispatched before the next look at the clock.
    """

    __slots__ = (
        "_close_look_until",
        "_holds",
        "_logged_at",
        "_longest_hold",
        "_lost",
        "_stall_count",
        "_stalls",
        "_suppressed",
        "stride",
    )

    def __init__(self) -> None:
        self._holds = dict.fromkeys(BOUNDS, 0)
        self._longest_hold = 0.0
        # The latest stalls, from when to when.
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_MAX_STALLS)
        self._stall_count = 0
        self._lost = 0.0
        self._logged_at = -inf
        self._suppressed = 0
        self._close_look_until = -inf
        self.stride = _STRIDE

    def snapshot(self) -> LagSnapshot:
        """Return what was measured; callable from any thread."""
        holds = MappingProxyType(self._holds.copy())
        return LagSnapshot(holds, self._longest_hold, self._stall_count, self._lost)

    # --- stalls -----------------------------------------------------------------------------

    def add_stall(self, planned: float | None, now: float) -> None:
        """Take note of when the loop has gone on, and when it had been meant to, if it had."""
        if planned is None:
            return
        late = self._add_stall(planned, now)
        if late >= LONG_HOLD:
            # Nothing was being called: the process was stopped, or the machine has slept.
            logger.info(
                "the loop went on %.1f s late", late, extra={"event": "stalled", "duration": late}
            )

    def _add_stall(self, begin: float, end: float) -> float:
        """Take note of lost time that is not known yet; return how much it is."""
        if self._stalls:
            begin = max(begin, self._stalls[-1][1])
        lost = end - begin
        if lost < STALL:
            return 0.0
        self._stalls.append((begin, end))
        self._stall_count += 1
        self._lost += lost
        return lost

    def lost_since(self, moment: float) -> float:
        """Return how many seconds the loop has lost by stalls since a moment on its clock."""
        lost = 0.0
        for begin, end in reversed(self._stalls):
            if end <= moment:
                break
            lost += end - max(begin, moment)
        return lost

    # --- holds ------------------------------------------------------------------------------

    def add_hold(self, duration: float, now: float, suspects: Sequence[object]) -> None:
        """Take note that the loop was held.

        Args:
            duration: in seconds, at least ``HOLD``.
            now: the end of it.
            suspects: handlers and callbacks, one of which it was; none when nobody knows.
        """
        self._holds[max(bound for bound in BOUNDS if bound <= duration)] += 1
        self._longest_hold = max(self._longest_hold, duration)
        self._add_stall(now - duration, now)
        if duration < LONG_HOLD:
            return
        if len(suspects) > 1:
            self.stride = 1
            self._close_look_until = now + _CLOSE_LOOK
        if now < self._logged_at + _LOG_INTERVAL:
            self._suppressed += 1
            return
        names = _one_of_each_kind(suspects)
        more = f" ({self._suppressed} more times since the last line)" if self._suppressed else ""
        logger.warning(
            "the loop was held for %.1f s by %s%s",
            duration,
            _describe(names, len(suspects)),
            more,
            extra={
                "event": "held",
                "duration": duration,
                "suspects": names,
                "suppressed": self._suppressed,
            },
        )
        self._logged_at = now
        self._suppressed = 0

    def relax(self, now: float) -> None:
        """Stop looking at the clock for each event, when that was done long enough."""
        if now > self._close_look_until:
            self.stride = _STRIDE


def _one_of_each_kind(suspects: Sequence[object]) -> list[str]:
    """Return the names of some: of those that differ by more than numbers, such as addresses."""
    kinds: dict[str, str] = {}
    for suspect in suspects:
        name = name_of(suspect)
        kinds.setdefault(_NUMBER.sub("", name), name)
    return list(kinds.values())[:_MAX_NAMES]


def _describe(names: list[str], count: int) -> str:
    if not names:
        return "something that has no name"
    if count == 1:
        return names[0]
    others = f" and {count - len(names)} others" if count > len(names) else ""
    return f"one of {count}, which are watched from now on: {', '.join(names)}{others}"
