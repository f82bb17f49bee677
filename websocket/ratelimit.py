"""Token buckets: how often something may happen, with short bursts allowed.

A bucket holds up to ``burst`` tokens and refills at ``rate`` tokens a second; what happens
takes a token. Instead of counting tokens, a bucket remembers the one moment at which it will
be full again (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T
I.371)::

                    now                           full_at
    ----------------+-----------------------------+--------> time
                    |<-- tokens missing / rate -->|

    take n:   full_at moves right by n / rate; refused where that would leave the bucket
              with fewer than zero tokens, i.e. until full_at - (burst - n) / rate

One number is the whole state, nothing has to be refilled, and a bucket whose ``full_at`` has
passed says nothing that a new one would not say: it may be forgotten.

Time is an argument, in seconds of any steady clock. A clock that stands still refills
nothing; one that steps back finds the bucket emptier, at the worst empty, never locked.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Callable

# Sums of floats miss a boundary by their last digits: forgive a thousandth of a token. What is
# forgiven stays booked as taken, so the long-term rate is exact.
_FORGIVEN = 0.001
# Seconds: what comes after such a break has not been waiting.
_BREAK = 0.1


class TokenBucket:
    """Limit one thing to a rate; starts full.

    Args:
        rate: tokens that flow in per second; may be a fraction.
        burst: tokens that the bucket holds.
        now: the present time in seconds.

    Raises:
        ValueError: the rate is not positive, or the burst below one.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        _check(rate, burst)
        self._rate = rate
        self._burst = burst
        self._full_at = now

    def take(self, now: float, tokens: float = 1, since: float | None = None) -> bool:
        """Take tokens if they are there.

        Args:
            now: the present time in seconds.
            tokens: how many to take; all or none.
            since: when that which takes them may have happened at the earliest; by default now.
                Tokens that came since then count, even if the bucket was full meanwhile.

        Returns:
            True when they were taken; False when nothing was.
        """
        if self.wait(now, tokens, since) > 0:
            return False
        self._full_at += tokens / self._rate
        return True

    def wait(self, now: float, tokens: float = 1, since: float | None = None) -> float:
        """Return the seconds until ``take`` would succeed: 0 for now, ``inf`` for never."""
        if tokens > self._burst:
            return math.inf
        start = now if since is None else min(since, now)
        # Not in the past; and not later than from empty, which only a step back can cause.
        self._full_at = min(max(self._full_at, start), now + self._burst / self._rate)
        seconds = self._full_at - (self._burst - tokens) / self._rate - now
        return seconds if seconds > _FORGIVEN / self._rate else 0.0

    def is_full(self, now: float) -> bool:
        """Tell whether all tokens are there, as in a new bucket."""
        return self._full_at <= now


class Arrivals:
    """Know since when that which is read now may have been waiting: nobody tells when it came.

    While we do not read, or the loop stalls, what a peer sends in all honesty gathers, and then
    comes at once. That is no burst: it counts as sent when it may have been. Over any time a peer
    gets no more than its rate all the same.

    Args:
        now: the present time in seconds.
    """

    __slots__ = ("_judged_at", "_paused_at", "_stopped_at", "_unread", "_until")

    def __init__(self, now: float) -> None:
        self._judged_at = now
        self._stopped_at: float | None = None
        self._paused_at: float | None = None
        # Seconds since then in which nothing was read.
        self._unread = 0.0
        self._until = math.inf

    def stop(self, now: float) -> None:
        """Take note that nothing is read from here on. Idempotent."""
        if self._stopped_at is None or now > self._until:
            self._stopped_at, self._unread, self._paused_at = now, 0.0, None
        if self._paused_at is None:
            self._paused_at = now
        self._until = math.inf

    def go(self, now: float) -> None:
        """Take note that what has gathered is read from here on."""
        if self._paused_at is not None:
            self._unread += now - self._paused_at
            self._paused_at = None
        self._until = now + _BREAK

    def earliest(self, now: float, lost_since: Callable[[float], float]) -> float:
        """Return when that which has been read may have come at the earliest.

        Args:
            now: the present time in seconds.
            lost_since: takes a time and tells how many seconds the loop has lost since.
        """
        lost = lost_since(self._judged_at) if now > self._judged_at else 0.0
        self._judged_at = now
        if self._stopped_at is not None and now > self._until:
            self._stopped_at = None
        if lost and self._stopped_at is None:
            self._stopped_at, self._unread, self._until = now - lost, 0.0, now
        self._unread += lost
        if self._stopped_at is None:
            return now
        if self._until < math.inf:
            self._until = now + _BREAK
        if self._paused_at is None:
            # What flowed in while we read was no backlog: it fills the bucket, and no more.
            return max(self._stopped_at, now - self._unread)
        return self._stopped_at


class BucketTable:
    """Limit many keys to the same rate, one bucket each, in bounded memory.

    A key is forgotten once its bucket is full again. The buckets stand in the order of their
    last take, and no bucket needs longer than ``burst / rate`` seconds to fill up: so the ones
    to forget are found at the front, and each take looks at two of them. When ``max_entries``
    keys are waiting to be forgotten, a new one pushes out the oldest.

    Args:
        rate: tokens per second and key.
        burst: tokens that each bucket holds.
        max_entries: buckets to keep at the most.

    Raises:
        ValueError: the rate is not positive, or the burst or the maximum below one.
    """

    __slots__ = ("_buckets", "_burst", "_max_entries", "_rate")

    def __init__(self, rate: float, burst: float, max_entries: int) -> None:
        _check(rate, burst)
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries!r}")
        self._rate = rate
        self._burst = burst
        self._max_entries = max_entries
        # OrderedDict, because the first item of a dict that is emptied from the front costs a
        # walk over everything that was removed.
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: str, now: float) -> bool:
        """Take a token of this key if there is one; return whether it was taken."""
        self._forget_two(now)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._max_entries:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket(self._rate, self._burst, now)
        if not bucket.take(now):
            return False
        self._buckets.move_to_end(key)
        return True

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until ``take`` would succeed for this key; 0 for now."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(now)

    def _forget_two(self, now: float) -> None:
        """Drop up to two full buckets from the front: one more than a take can add."""
        for _ in range(2):
            oldest = next(iter(self._buckets), None)
            if oldest is None or not self._buckets[oldest].is_full(now):
                return
            del self._buckets[oldest]


def _check(rate: float, burst: float) -> None:
    """Raise ValueError for a bucket that would never let anything through."""
    if rate <= 0:
        raise ValueError(f"rate must be positive, not {rate!r}")
    if burst < 1:
        raise ValueError(f"burst must be at least 1, not {burst!r}")
