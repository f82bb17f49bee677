"""Signals, turned into ordinary callbacks of the loop.

Python runs signal handlers between any two byte codes of the main thread. Here they only put
a callback into the reactor's queue and wake it, so that what they lead to happens at a known
place: in the turn of the loop, where nothing is half done.

Ctrl-C gets the same treatment while ``Reactor.run`` runs: the first one ends the loop after
the present turn by ``KeyboardInterrupt``; a second one, for a callback that hangs, raises at
once, as usual.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_Handler = Any  # what signal.signal takes and gives: a callable, an int or None


class Signals:
    """Own the signal handlers that one reactor has installed. Main thread only.

    Args:
        deliver: called from within a signal handler with the callback and its arguments;
            queues them for the loop.
    """

    __slots__ = ("_deliver", "_previous")

    def __init__(self, deliver: Callable[..., None]) -> None:
        self._deliver = deliver
        self._previous: dict[int, _Handler] = {}

    def add(self, number: int, callback: Callable[..., object], *args: object) -> None:
        """Run a callback in the loop whenever the signal arrives; replaces an earlier one.

        Raises:
            ValueError: not in the main thread, or no such signal.
            OSError: the system does not let this signal be handled.
        """

        def queue(_number: int, _frame: FrameType | None) -> None:
            self._deliver(callback, *args)

        previous = signal.signal(number, queue)
        self._previous.setdefault(number, previous)

    def remove(self, number: int) -> bool:
        """Restore what was there before ``add``; tell whether there was something to restore.

        Raises:
            ValueError: not in the main thread; nothing has changed then.
        """
        if number not in self._previous:
            return False
        previous = self._previous[number]
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
        del self._previous[number]
        return True

    def remove_all(self) -> None:
        """Restore every signal that ``add`` changed."""
        for number in list(self._previous):
            self.remove(number)


@contextmanager
def wake_on_signals(fd: int) -> Iterator[None]:
    """Let the interpreter write to ``fd`` on every signal; nothing outside the main thread.

    Without it a wait on Windows would not end for Ctrl-C before the next event.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)


@contextmanager
def orderly_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Turn the first Ctrl-C into ``stop()`` and a ``KeyboardInterrupt`` when the block ends.

    A handler that the application installed itself is left alone.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    was_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal was_interrupted
        if was_interrupted:
            signal.default_int_handler(number, frame)
        was_interrupted = True
        stop()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        # A callback may have installed a handler of its own meanwhile: that one stays.
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if was_interrupted:
        raise KeyboardInterrupt
