"""A timer wheel: arm and cancel a callback in constant time, find the next one without scanning.

A data structure and nothing else: it knows no clock and never waits. Time comes in as an
argument, in float seconds on any scale that does not jump (``time.monotonic()``, a test's own
counter). Not for other threads: one thread owns a wheel.

The levels (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987)
------------------------------------------------------------------------------
Time is counted in ticks from ``start``. A timer's tick, written in base 64, has ten digits;
it waits on the level of the highest digit in which its tick differs from the current tick, in
the slot that this digit names. With ticks of 10 ms, one slot of ::

    level 0  [ 0| 1| 2| ... |63]   is one tick, the level 0.64 s
    level 1  [ 0| 1| 2| ... |63]   is 0.64 s, the level 41 s        | when the current tick
    level 2  [ 0| 1| 2| ... |63]   is 41 s, the level 44 minutes    | enters a slot, its timers
    level 3  [ 0| 1| 2| ... |63]   is 44 minutes, the level 47 h    | cascade to the levels
    level 4  [ 0| 1| 2| ... |63]   is 47 h, the level 124 days      v below
      ...
    level 9  [ 0| 1| 2| ... |63]   the level 365 million years; whatever is later waits in 63

This is why the rest is short. A timer's place follows from two numbers, so that timers with the
same due time always share a slot and stay in the order of scheduling. Nothing ever waits behind
the current tick, so that slots numbered level by level are also in the order of time: one
integer with a bit for each slot that has been used (the idea of William Ahern's timeout.c)
gives the next slot as its lowest set bit, however long the gap. A slot is a dict used as an
ordered set, made when its first timer comes. Cancelling deletes from the dict and leaves the
bit; a bit without timers is dropped when it becomes the lowest.

Promises
--------
- Never early: a callback runs only in ``advance(now)`` with ``now >= due``, compared exactly.
- At most one tick late, if ``advance(next_due())`` is called in time.
- Never after ``cancel``, never twice.
- Within one ``advance``, callbacks run in the order of (due, order of scheduling).
- Due timers have left the slots before the first callback runs. Callbacks may schedule,
  cancel (themselves, or others that are due in the same call), call ``advance``, and raise.
- What a callback raises leaves ``advance`` at once. The due timers behind it stay due,
  ``next_due`` says so, and the next ``advance`` runs them; nothing is lost or run twice.
- A timer scheduled for now or for the past fires in the next call of ``advance``, never in the
  one that is running: a callback that re-schedules itself without delay cannot hold the loop
  up. A call from inside a callback counts as a next one, and takes over everything that is due.
- A clock that goes backwards has no effect.
"""

from __future__ import annotations

from math import ceil, inf, isfinite, nextafter
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    _Bucket = dict["Timer", None]

_DIGIT_BITS = 6
_SLOTS = 1 << _DIGIT_BITS
_TICK_BITS = 10 * _DIGIT_BITS
_LAST_TICK = (1 << _TICK_BITS) - 1
# A float, because comparing a float with an int is slow.
_TICKS = 2.0**_TICK_BITS

# (number of the level's slot 0, bits to the right of the level's digit), by the bit length of the
# difference of two ticks. Ticks that do not differ at all belong to level 0.
_LEVELS = tuple(
    (level * _SLOTS, level * _DIGIT_BITS)
    for level in [0, *(bit // _DIGIT_BITS for bit in range(_TICK_BITS))]
)

_due_of = attrgetter("due")


# Stands for the argument of a callback that takes none.
_NO_ARGUMENT = object()


def _call(callback: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
    callback(*args)


def _nothing(*args: object) -> None:
    """Stand in for the callback of a timer that has fired or was cancelled."""


class Timer:
    """Hold one scheduled callback; made by ``TimerWheel.schedule``.

    Attributes:
        due: the time asked for, in seconds on the wheel's scale.
        callback: what to call; a function without effect once the timer has fired or was
            cancelled, so that a timer which is kept does not keep its callback alive.
    """

    __slots__ = ("_argument", "_bucket", "callback", "due")

    def __init__(
        self, due: float, callback: Callable[..., object], bucket: _Bucket, argument: object
    ) -> None:
        self.due = due
        self.callback = callback
        self._argument = argument
        self._bucket: _Bucket | None = bucket

    @property
    def is_pending(self) -> bool:
        """Whether the callback is still to come: neither begun nor cancelled."""
        return self._bucket is not None

    def cancel(self) -> None:
        """Make sure that the callback never runs (again), and let go of it.

        O(1) and idempotent; harmless after the timer has fired. Allowed from any callback,
        also from the timer's own and from one that is due in the same ``advance``.
        """
        bucket = self._bucket
        if bucket is not None:
            self._bucket = None
            self.callback = _nothing
            self._argument = _NO_ARGUMENT
            del bucket[self]
            if not bucket:
                # A dict keeps the room of its deleted keys; this gives it back.
                bucket.clear()


class TimerWheel:
    """Keep timers and run the callbacks of those that are due.

    Args:
        tick: the granularity in seconds; timers run up to this much late, and those of one
            tick run together.
        start: the time at which the wheel begins to count; nothing can be advanced to before.
        call: runs a callback, for whoever wants to know how long it takes or what it raises;
            called with it, and a tuple of its argument if it has one.

    Raises:
        ValueError: ``tick`` is not positive, or one of the two is not finite.
    """

    __slots__ = (
        "_call",
        "_current",
        "_next_bucket",
        "_next_due",
        "_now",
        "_occupied",
        "_overdue",
        "_ready",
        "_slots",
        "_start",
        "_tick",
    )

    def __init__(
        self,
        tick: float = 0.01,
        start: float = 0.0,
        call: Callable[..., object] = _call,
    ) -> None:
        if not 0.0 < tick < inf:
            raise ValueError(f"tick must be a positive number of seconds, not {tick!r}")
        if not isfinite(start):
            raise ValueError(f"start must be a finite number of seconds, not {start!r}")
        self._call = call
        self._tick = tick
        self._start = start
        self._now = start
        self._current = 0
        # What next_due() found, and where: it holds while something is there, and nothing has
        # been scheduled or advanced since.
        self._next_due = 0.0
        self._next_bucket: _Bucket | None = None
        self._slots: dict[int, _Bucket] = {}
        self._occupied = 0
        # Was due when it was scheduled; the next advance() runs it.
        self._overdue: _Bucket = {}
        # What the running advance() has still to run, or what a raising callback left behind;
        # the earliest comes last, where popitem() takes it.
        self._ready: _Bucket = {}

    def __len__(self) -> int:
        """Count the pending timers."""
        return sum(map(len, self._slots.values())) + len(self._overdue) + len(self._ready)

    def schedule(
        self, due: float, callback: Callable[..., object], argument: object = _NO_ARGUMENT
    ) -> Timer:
        """Arrange for a callback to run once, when ``due`` has come; O(1).

        Args:
            due: the time in seconds, on the scale of ``advance``. One that has passed already
                means the next call of ``advance``.
            callback: what it returns is ignored.
            argument: what to call it with; by default it is called without arguments. A function
                and its argument take 64 bytes less than a bound method.

        Returns:
            The timer, whose ``cancel`` undoes this.

        Raises:
            ValueError: ``due`` is not finite.
        """
        self._next_bucket = None
        if self._now < due < inf:
            bucket = self._bucket_for(self._tick_of(due))
        elif isfinite(due):
            bucket = self._overdue
        else:
            raise ValueError(f"due must be a finite number of seconds, not {due!r}")
        timer = Timer(due, callback, bucket, argument)
        bucket[timer] = None
        return timer

    def advance(self, now: float) -> int:
        """Run the callback of every timer that is due, earliest first.

        Allowed from inside a callback. To be called at ``next_due`` at the latest; calling it
        more often costs little.

        Args:
            now: the time in seconds. Less than in an earlier call has no effect.

        Returns:
            The number of callbacks that this call ran.

        Raises:
            ValueError: ``now`` is not finite.
            BaseException: what a callback raised; the others stay due.
        """
        if not isfinite(now):
            raise ValueError(f"now must be a finite number of seconds, not {now!r}")
        if now < self._now:
            return 0
        self._next_bucket = None
        self._now = now
        due = self._collect(now)
        # Those of one due time were scheduled in this order, and sorting keeps it: to the slots
        # while their time was to come, to the overdue since the last advance().
        due += reversed(self._ready)
        due += self._overdue
        if not due:
            return 0
        due.sort(key=_due_of)
        return self._run(self._make_ready(due))

    def next_due(self) -> float | None:
        """Tell when ``advance`` must be called next, at the latest.

        Returns:
            A time in seconds: the end of the earliest timer's tick, or an earlier time at
            which a slot of a higher level has to cascade. A time not after the last ``advance``
            means at once. None if no timer is pending.
        """
        if self._ready or self._overdue:
            return self._now
        if self._next_bucket:
            return self._next_due
        while self._occupied:
            index, first, _ = self._lowest()
            bucket = self._slots[index]
            if not bucket:
                self._close(index)
            elif first > self._current:
                self._next_due, self._next_bucket = self._time_of(first), bucket
                return self._next_due
            else:
                # Its tick has come but, by a rounding error, its time has not.
                return min(timer.due for timer in bucket)
        return None

    def earliest(self) -> float | None:
        """Return the time of the earliest timer, None without one; looks at all of its slot."""
        if self._ready or self._overdue:
            return self._now
        while self._occupied:
            index, _, _ = self._lowest()
            bucket = self._slots[index]
            if bucket:
                return min(timer.due for timer in bucket)
            self._close(index)
        return None

    def _tick_of(self, due: float) -> int:
        """Count the ticks that must have passed before a time can be due."""
        ticks = (due - self._start) / self._tick
        return ceil(ticks) if ticks < _TICKS else _LAST_TICK

    def _ticks_at(self, now: float) -> int:
        """Count the ticks that have passed at a time."""
        ticks = (now - self._start) / self._tick
        return int(ticks) if ticks < _TICKS else _LAST_TICK

    def _time_of(self, tick: int) -> float:
        """Find the earliest time, but for rounding, at which that many ticks have passed."""
        time = self._start + tick * self._tick
        # Rounded down, it would wake the caller when nothing is due, again and again.
        while self._ticks_at(time) < tick:
            time = nextafter(time, inf)
        return time

    def _bucket_for(self, tick: int) -> _Bucket:
        """Find the slot for a tick that is not behind the current one; see the drawing."""
        base, shift = _LEVELS[(tick ^ self._current).bit_length()]
        index = base + (tick >> shift & _SLOTS - 1)
        try:
            return self._slots[index]
        except KeyError:
            self._occupied |= 1 << index
            return self._slots.setdefault(index, {})

    def _lowest(self) -> tuple[int, int, int]:
        """Find the earliest slot in use: its number, its first and its last tick."""
        index = (self._occupied & -self._occupied).bit_length() - 1
        level, digit = divmod(index, _SLOTS)
        shift = level * _DIGIT_BITS
        turn = self._current >> shift + _DIGIT_BITS
        first = (turn << _DIGIT_BITS | digit) << shift
        return index, first, first + (1 << shift) - 1

    def _close(self, index: int) -> _Bucket:
        """Take a slot out of use and hand over what is in it."""
        self._occupied ^= 1 << index
        return self._slots.pop(index)

    def _collect(self, now: float) -> list[Timer]:
        """Take what is due out of the slots, and move the current tick to the present."""
        reached = self._ticks_at(now)
        due: list[Timer] = []
        shared: _Bucket = {}
        while self._occupied:
            index, first, last = self._lowest()
            if first > reached:
                break
            bucket = self._close(index)
            if last >= reached:
                # It holds the present: part of it is due, and the later slots are not.
                shared = bucket
                break
            due += bucket
        self._current = reached
        if shared:
            self._cascade(shared, now, due)
        return due

    def _cascade(self, shared: _Bucket, now: float, due: list[Timer]) -> None:
        """Add to ``due`` what is due in a slot that holds the present; place the rest anew."""
        # A copy, because a finalizer of the application may cancel while this runs.
        for timer in list(shared):
            tick = self._tick_of(timer.due)
            # The second comparison sees what the ticks, which are rounded, do not.
            if tick <= self._current and timer.due <= now:
                due.append(timer)
            else:
                timer._bucket = bucket = self._bucket_for(tick)
                bucket[timer] = None

    def _make_ready(self, due: list[Timer]) -> _Bucket:
        """Take over everything that is due, in the order in which it is to run."""
        ready = dict.fromkeys(reversed(due), None)
        for timer in due:
            timer._bucket = ready
        self._overdue.clear()
        # An advance() whose callback called this one still holds the dict; it ends there.
        self._ready.clear()
        self._ready = ready
        return ready

    def _run(self, ready: _Bucket) -> int:
        """Run callbacks until none is left; what one of them raises leaves the rest in place."""
        count = 0
        while ready:
            timer, _ = ready.popitem()
            callback, argument = timer.callback, timer._argument
            timer.callback = _nothing
            timer._argument = _NO_ARGUMENT
            timer._bucket = None
            count += 1
            if argument is _NO_ARGUMENT:
                self._call(callback)
            else:
                self._call(callback, (argument,))
        return count
