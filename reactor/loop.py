"""The reactor: one thread, one selector, and everything that happens in a program of sockets.

One turn of the loop, in the order that ``run_once`` has it::

    wait          until a socket is ready, a timer is due, or somebody wakes us
    dispatch      readiness to the handlers that are still interested
    timers        that are due at the time read after the wait
    ready queue   callbacks of call_soon, and what other threads handed over
    flush         what all of these wrote: one system call for each transport

Two consequences are worth knowing. Input is read before deadlines are judged, and deadlines
are judged by the time at which the wait ended: a callback that holds the loop for a minute
makes no peer look silent whose bytes lie in the kernel. And everything written in one turn
leaves together at its end. Who held the loop, and how late it was, ``lag.py`` keeps.

How callbacks get into the queue, and which thread may do what, ``scheduler.py`` says.

Not for: coroutines. See ``asyncio`` for those; ``Reactor.fileno`` lets its loop drive this one.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from types import TracebackType
from typing import Any

from reactor.allocator import keep_large_blocks
from reactor.busy_poll import BusyPoll
from reactor.epoll import data_selector, default_selector
from reactor.errors import ReactorRunning
from reactor.event_handler import SENT, EventHandler, Flushable
from reactor.lag import HOLD, STALL, Lag, LagSnapshot
from reactor.log import guarded, name_of
from reactor.scheduler import Callback, Scheduler, do_nothing
from reactor.signals import orderly_interrupt, wake_on_signals

logger = guarded("reactor")

Event = tuple[EventHandler, int]

# A message of the largest size allowed by default (1 MiB) has room, with the header: read in
# pieces, it would have to be put together once more, which takes a fifth longer.
RECEIVE_BUFFER_SIZE = 1088 * 1024


class Reactor(Scheduler):
    """Dispatch readiness, timers and callbacks in one thread.

    Args:
        selector: makes the selector, called once: any class of the ``selectors`` module, or
            another callable that returns a ``selectors.BaseSelector``.
        clock: returns seconds on a scale that never goes back.
        tick: granularity of the timers in seconds; a timer fires at most this late.
        busy_poll: seconds for which the loop stays awake after a turn that brought something,
            for the sake of latency: see ``busy_poll.py``. Of no effect where another main loop
            waits for this one.

    Raises:
        ValueError: ``tick`` is not positive, or ``busy_poll`` negative.

    Attributes:
        time: the clock's value at the end of the last wait. What happens in one turn of the
            loop happens at one time. Read only.
        thread_id: of the thread that owns the reactor, as ``threading.get_ident`` gives it.
            Read only.
        receive_buffer: the one buffer into which every transport reads. A transport hands a
            view of it on and the view dies with the callback.
        flush_soon: takes a ``Flushable`` and calls its ``flush`` once, at the end of the
            present turn or in the next. Own thread only.
        lost_since: takes a moment on the clock and tells how many seconds the loop has lost by
            stalls since then: time in which a peer could not have been heard.
    """

    def __init__(
        self,
        selector: Callable[[], selectors.BaseSelector] = default_selector,
        *,
        clock: Callable[[], float] = time.monotonic,
        tick: float = 0.01,
        busy_poll: float = 0.0,
    ) -> None:
        if not 0 <= busy_poll < inf:
            raise ValueError(f"busy_poll takes seconds, 0 for none at all, not {busy_poll!r}")
        keep_large_blocks()
        super().__init__(selector(), clock, tick)
        self._select_data = data_selector(self._selector)
        if busy_poll:
            self._select_data = BusyPoll(self._select_data, clock, busy_poll)
        self._unflushed: deque[Flushable] = deque()
        # Called for every message: as the method itself, without a frame around it.
        self.flush_soon: Callable[[Flushable], None] = self._unflushed.append
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        self._is_in_turn = False
        self._is_stopping = False
        self._lag = Lag()
        self.lost_since: Callable[[float], float] = self._lag.lost_since
        # From when on time in the present turn is not accounted for, and when the next is due.
        self._mark = self._due = inf

    # --- running ----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until ``stop`` is called.

        In the main thread, Ctrl-C ends the loop after the present turn with
        ``KeyboardInterrupt``. That and ``SystemExit`` raised by a callback leave the reactor
        whole: it may be run again, to close its connections for example.

        Raises:
            ReactorRunning: called from a callback of the loop.
            ReactorClosed: the reactor is closed.
        """
        self._check_idle()
        with wake_on_signals(self._wakeup.sender_fileno()), orderly_interrupt(self._stop_and_wake):
            try:
                while not self._is_stopping:
                    self.run_once()
            finally:
                self._is_stopping = False

    def run_once(self, timeout: float | None = None) -> None:
        """Run one turn of the loop.

        Args:
            timeout: seconds to wait at the most; 0 does not wait; None waits until something
                happens. The wait ends earlier when a timer is due or a callback is ready.

        Raises:
            ReactorRunning: called from a callback of the loop.
            ReactorClosed: the reactor is closed.
        """
        if self._is_closed or self._is_in_turn:
            self._check_idle()
        self._is_in_turn = True
        self.thread_id = threading.get_ident()
        try:
            events = self._select(timeout)
            self.time = self._mark = self._clock()
            if self.time - self._due > STALL:
                # Something should have been done meanwhile, if only in the wheel itself.
                self._lag.add_stall(self._wheel.earliest(), self.time)
            if len(events) > self._lag.stride:
                events = self._dispatch_most(events)
            self._dispatch(events)
            if self.time >= self._due:
                self._wheel.advance(self.time)
            if self._ready or self._handed_over:
                self._run_ready()
            if self._unflushed:
                self._flush()
            if self._clock() - self._mark > HOLD:
                self._blame(events)
        finally:
            self._is_in_turn = False

    def stop(self) -> None:
        """Make ``run`` return after the present turn; before ``run``, make it return at once."""
        self._is_stopping = True

    def next_timeout(self) -> float | None:
        """Return how long ``run_once`` would wait: for other main loops that drive this one.

        Returns:
            Seconds; 0 when a turn is due now; None when only input or a call can make one due.
        """
        return self._patience(None)

    @property
    def lag(self) -> LagSnapshot:
        """Tell who held the loop, and how late it was; may be read in any thread."""
        return self._lag.snapshot()

    def fileno(self) -> int:
        """Return the selector's own descriptor (epoll, kqueue), readable when a turn is due.

        Another main loop watches it and calls ``run_once(0)`` when it is readable, and after
        ``next_timeout()`` seconds at the latest.

        Raises:
            AttributeError: this selector has no descriptor (``select`` and ``poll``).
        """
        return self._selector.fileno()  # type: ignore[attr-defined, no-any-return]  # epoll, kqueue

    def close(self) -> None:
        """Abort what is still open and release every resource. Idempotent.

        Transports still open are aborted (their protocols get ``connection_lost``), listeners
        closed, signal handlers restored. Callbacks that are ready run a last time; timers do
        not. Work in the executor is waited for, but not reported any more.

        Raises:
            ReactorRunning: called from a callback of the loop; call ``stop`` there.
            ValueError: there are signal handlers to restore, which only the main thread can do.
        """
        if self._is_closed:
            return
        if self._is_in_turn:
            raise ReactorRunning("close() called from a callback: call stop() there instead")
        # Before anything else: a signal that came later would find the reactor closed.
        self._signals.remove_all()
        self._is_closed = True
        self.thread_id = threading.get_ident()
        try:
            for handler in self._guests():
                self._call(handler.abort, ())
            self._run_ready()
        finally:
            self._workers.close()
            self._wakeup.abort()
            self._selector.close()

    def __enter__(self) -> Reactor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- the parts of a turn ----------------------------------------------------------------

    def _check_idle(self) -> None:
        self._check_open()
        if self._is_in_turn:
            raise ReactorRunning("run() or run_once() called from a callback of the loop")

    def _guests(self) -> list[EventHandler]:
        """Return what is watched, in the order of ``watch``, but for the wake-up."""
        return [handler for handler in self._handlers.values() if handler is not self._wakeup]

    def _select(self, timeout: float | None) -> list[Event]:
        try:
            return self._select_data(self._patience(timeout))
        except ValueError as error:
            # select() takes no descriptor above 1,023, on Windows no more than 512. That is the
            # fault of the one that came last, and no reason to end the loop.
            guests = self._guests()
            if not guests:
                raise
            logger.error("%s: closing %s; use another selector", error, name_of(guests[-1]))
            self._call(guests[-1].abort, ())
            return []

    def _patience(self, timeout: float | None) -> float | None:
        """Return how long the selector may wait; take note of when the next timer is due."""
        due = self._wheel.next_due()
        self._due = inf if due is None else due
        if self._ready or self._handed_over or self._unflushed or self._is_stopping:
            return 0
        if due is None:
            return timeout
        until_due = max(0.0, due - self._clock())
        return until_due if timeout is None else min(timeout, until_due)

    def _dispatch(self, events: list[Event]) -> None:
        for handler, mask in events:
            # Masked with the interest of now: see event_handler.py for stale events.
            mask &= handler.interest
            if mask:
                try:
                    handler.on_ready(mask)
                except Exception as error:
                    self._contain(handler, error)

    def _dispatch_most(self, events: list[Event]) -> list[Event]:
        """Dispatch events with an eye on the clock; return the last few, which are left."""
        self._lag.relax(self.time)
        stride, done = self._lag.stride, 0
        while done + stride < len(events):
            part = events[done : done + stride]
            self._dispatch(part)
            done += stride
            if self._clock() - self._mark > HOLD:
                self._blame(part)
        return events[done:]

    def _blame(self, events: list[Event]) -> None:
        """Account for the time since the last look: one of these events has held the loop."""
        now = self._clock()
        held, self._mark = now - self._mark, now
        self._lag.add_hold(held, now, [handler for handler, _ in events])

    def _run_ready(self) -> None:
        """Run the callbacks that are ready now; those that they add wait for the next turn."""
        for _ in range(len(self._handed_over)):
            self._ready.append(self._handed_over.popleft())
        for _ in range(len(self._ready)):
            self._call(*self._ready.popleft())

    def _flush(self) -> None:
        """Send what was written; what is written meanwhile waits for the next turn."""
        for _ in range(len(self._unflushed)):
            flushable = self._unflushed.popleft()
            try:
                flushable.flush()
            except Exception as error:
                self._contain(flushable, error)

    def _call(self, callback: Callback, args: tuple[Any, ...] = ()) -> None:
        began = self._clock()
        try:
            callback(*args)
        except Exception:
            logger.exception("callback %s raised", name_of(partial(callback, *args)))
        held = self._clock() - began
        if held > HOLD:
            # Whatever goes on around it is not to blame for this.
            self._mark += held
            self._lag.add_hold(held, began + held, [partial(callback, *args)])

    def _contain(self, culprit: EventHandler | Flushable, error: Exception) -> None:
        """Make an exception cost the handler that raised it, and nothing else."""
        logger.error("%s raised", name_of(culprit), exc_info=error)
        self._call(culprit.on_failure, (error,))

    def _stop_and_wake(self) -> None:
        self.stop()
        self._wakeup.wake()

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        # The fork may have come from a callback: the child's turn goes on, to no effect.
        self.flush_soon = do_nothing
        for index in range(len(self._unflushed)):
            self._unflushed[index] = SENT
