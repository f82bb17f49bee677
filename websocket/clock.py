"""What is needed of a ``Reactor`` by whoever only has to know the time, or to be called at one.

So sessions, ledger and log can be used, and tested, with any clock. Not for: reading the time of
day, which sessions on disk take from ``time.time``.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol


class Handle(Protocol):
    """Stand for one call that was asked for with ``Clock.call_at``."""

    def cancel(self) -> object:
        """Make sure that the call does not happen; harmless when it already has."""


class Clock(Protocol):
    """What is needed of a ``Reactor``: the time, and calls at a time."""

    @property
    def time(self) -> float:
        """The present time in seconds of a clock that never goes back."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` at a time, never early."""
