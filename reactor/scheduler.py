"""What the loop is to call: soon, at a time, for other threads, for signals, when work is done.

    call_soon ───────────────────────────────────────────────▶ ready queue
    call_soon_threadsafe ──┬── handed over, and the wake-up ──────▲
      run_in_executor ─────┤   when the thread has finished
      add_signal_handler ──┘   when the signal has arrived
    call_later, call_at ─────────────────────────────────────▶ timer wheel

Threads: one thread owns the reactor, the one that created it or called ``run`` or ``run_once``
last. Other threads may call ``call_soon_threadsafe`` and ``is_own_thread``, nothing else.

Not here: when in a turn all of this is called, see ``loop.py``.
"""

from __future__ import annotations

import selectors
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from reactor.event_handler import READ
from reactor.readiness import Readiness
from reactor.signals import Signals
from reactor.wakeup import Wakeup
from reactor.wheel import Timer, TimerWheel
from reactor.workers import Workers

Callback = Callable[..., object]
Result = TypeVar("Result")


class Scheduler(Readiness):
    """Keep what is to be called; the base of ``Reactor``.

    Args:
        selector: an open one.
        clock: as for ``Reactor``.
        tick: as for ``Reactor``.
    """

    def __init__(
        self, selector: selectors.BaseSelector, clock: Callable[[], float], tick: float
    ) -> None:
        super().__init__(selector)
        self._clock = clock
        self.time = clock()
        self.thread_id = threading.get_ident()
        self._wheel = TimerWheel(tick, self.time, self._call)
        self._ready: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self._handed_over: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self._workers = Workers(self.call_soon_threadsafe)
        self._signals = Signals(self.call_soon_threadsafe)
        self._wakeup = Wakeup()
        self.watch(self._wakeup, self._wakeup.fileno(), READ)

    # --- in this thread ---------------------------------------------------------------------

    def call_soon(self, callback: Callback, *args: object) -> None:
        """Call back in this turn or the next, in the order of the calls. Own thread only."""
        self._ready.append((callback, args))

    def call_later(self, delay: float, callback: Callback, *args: object) -> Timer:
        """Call back after a delay.

        Args:
            delay: seconds from now, never rounded down; 0 or less means the next turn.
            callback: called with ``args``; an exception is logged and ends nothing.

        Returns:
            The timer; ``timer.cancel()`` is allowed at any time, in the callback too.
        """
        return self.call_at(self._clock() + delay, callback, *args)

    def call_at(self, when: float, callback: Callback, *args: object) -> Timer:
        """Call back at a time on the reactor's clock; see ``call_later``."""
        if len(args) == 1:
            return self._wheel.schedule(when, callback, args[0])
        return self._wheel.schedule(when, partial(callback, *args) if args else callback)

    # --- from other threads, and from signals -----------------------------------------------

    def call_soon_threadsafe(self, callback: Callback, *args: object) -> None:
        """Call back in the reactor's thread. May be called from any thread, and from signals.

        Calls from one thread run in their order.

        Raises:
            ReactorClosed: nobody would run the callback any more.
        """
        self._check_open()
        self._handed_over.append((callback, args))
        self._wakeup.wake()

    def is_own_thread(self) -> bool:
        """Tell whether the calling thread owns the reactor. May be called from any thread."""
        return threading.get_ident() == self.thread_id

    def run_in_executor(
        self,
        function: Callable[..., Result],
        *args: object,
        on_done: Callable[[Future[Result]], object] | None = None,
    ) -> Future[Result]:
        """Run blocking work in a thread of a pool.

        Args:
            function: called with ``args`` in another thread; it must not touch the reactor or
                what the reactor owns.
            on_done: called in the reactor's thread with the finished future.

        Returns:
            The future. Do not wait for its result in the reactor's thread.

        Raises:
            ReactorClosed: the reactor is closed.
        """
        self._check_open()
        return self._workers.run(function, args, on_done)

    def add_signal_handler(self, number: int, callback: Callback, *args: object) -> None:
        """Call back in the loop when a signal arrives. Main thread only.

        Raises:
            ValueError: not in the main thread, or no such signal.
            OSError: the system does not let this signal be handled.
            ReactorClosed: the reactor is closed.
        """
        self._check_open()
        self._signals.add(number, callback, *args)

    def remove_signal_handler(self, number: int) -> bool:
        """Restore the handler from before; tell whether there was one of ours."""
        return self._signals.remove(number)

    def _leave_to_parent(self) -> None:
        super()._leave_to_parent()
        # A turn that goes on in the child must call nothing of the parent's.
        self._wheel = TimerWheel()
        for queue in (self._ready, self._handed_over):
            for index in range(len(queue)):
                queue[index] = (do_nothing, ())

    # --- what Reactor does ------------------------------------------------------------------

    def _call(self, callback: Callback, args: tuple[Any, ...] = ()) -> None:
        """Call now; an exception is logged and ends nothing."""
        raise NotImplementedError


def do_nothing(*args: object) -> None:
    """Stand in for what is the parent's to do."""
