"""Signals, turned into ordinary callbacks of the loop.

Python runs signal handlers between any two byte codes of the main thread. Here they only put
a callback into the reactor's queue and wake it, so that what they lead to happens at a known
place: in the turn of the loop, where nothing is half done.

Whoever takes a signal over gives it back as it was: ``remove`` restores what was there before the
first ``add``, ``signals_handled`` whatever was there when its block began, another handler of the
reactor included. A handler that the application has installed by itself meanwhile stays.

Ctrl-C gets the same treatment while ``Reactor.run`` runs: the first one ends the loop after
the present turn by ``KeyboardInterrupt``; a second one, for a callback that hangs, raises at
once, as usual.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from reactor.loop import Reactor

_Handler = Any  # what signal.signal takes and gives: a callable, an int or None


class _Entry(NamedTuple):
    """Hold what stood before the first ``add`` for a signal, and what the last one installed."""

    previous: _Handler
    installed: _Handler


class Signals:
    """Own the signal handlers that one reactor has installed. Main thread only.

    Args:
        deliver: called from within a signal handler with the callback and its arguments;
            queues them for the loop.
    """

    __slots__ = ("_deliver", "_entries")

    def __init__(self, deliver: Callable[..., None]) -> None:
        self._deliver = deliver
        self._entries: dict[int, _Entry] = {}

    def add(self, number: int, callback: Callable[..., object], *args: object) -> None:
        """Run a callback in the loop whenever the signal arrives; replaces an earlier one.

        Raises:
            ValueError: not in the main thread, or no such signal.
            OSError: the system does not let this signal be handled.
        """

        def queue(_number: int, _frame: FrameType | None) -> None:
            self._deliver(callback, *args)

        previous = signal.signal(number, queue)
        if number in self._entries:
            previous = self._entries[number].previous
        self._entries[number] = _Entry(previous, queue)

    def remove(self, number: int) -> bool:
        """Restore what was there before ``add``; tell whether there was something to restore.

        Raises:
            ValueError: not in the main thread; nothing has changed then.
        """
        entry = self._entries.get(number)
        if entry is None:
            return False
        _replace(number, entry.installed, entry.previous)
        del self._entries[number]
        return True

    def remove_all(self) -> None:
        """Restore every signal that ``add`` changed."""
        for number in list(self._entries):
            self.remove(number)

    @contextmanager
    def borrowed(self, handlers: Mapping[int, Callable[..., object]]) -> Iterator[None]:
        """Run other callbacks for some signals during a block; see ``signals_handled``."""
        loans = []
        try:
            for number, callback in handlers.items():
                before = signal.getsignal(number), self._entries.get(number)
                self.add(number, callback)
                loans.append((number, self._entries[number], *before))
            yield
        finally:
            for number, ours, handler, entry in loans:
                # Neither added again nor removed by the application meanwhile.
                if self._entries.get(number) is ours:
                    self._give_back(number, ours, handler, entry)

    def _give_back(
        self, number: int, ours: _Entry, handler: _Handler, entry: _Entry | None
    ) -> None:
        _replace(number, ours.installed, handler)
        if entry is None:
            del self._entries[number]
        else:
            self._entries[number] = entry


def _replace(number: int, expected: _Handler, handler: _Handler) -> None:
    """Install a handler, unless somebody else's has taken the place of the one expected."""
    if signal.getsignal(number) is expected:
        # None: a C library's, of which Python knows nothing and which it cannot restore.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def signals_handled(
    reactor: Reactor, handlers: Mapping[int, Callable[..., object]]
) -> Iterator[None]:
    """Have a reactor run callbacks for signals during a block; no effect outside the main thread.

    Afterwards everything is as it was before, the reactor's own handlers included.

    Args:
        reactor: runs the callbacks.
        handlers: the callback of each signal, by its number.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with reactor._signals.borrowed(handlers):
        yield


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
