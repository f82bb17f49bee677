"""What the reactor calls: the base class of transports and listeners, and what can be flushed.

A handler is registered once for one descriptor and keeps the events it is interested in. The
selector hands the handler itself back with each event, and the reactor masks the event with
the interest *at that moment*. An event is therefore stale, and dropped, when an earlier
callback of the same batch lost interest in it, or closed the descriptor (interest 0), even if
the number of the descriptor has been given to a new socket since: that one has a handler of
its own.

Not for: application code, which subclasses ``Protocol`` or ``websocket.Connection``.
"""

from __future__ import annotations

import selectors
from typing import Protocol

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class EventHandler:
    """Receive the readiness of one descriptor.

    Attributes:
        fd: the descriptor while the handler is watched, else -1. Set by the reactor.
        interest: ``READ``, ``WRITE``, both, or 0 when nothing is wanted. Set by the reactor.
    """

    __slots__ = ("fd", "interest")

    def __init__(self) -> None:
        self.fd = -1
        self.interest = 0

    def on_ready(self, mask: int) -> None:
        """Handle readiness.

        Args:
            mask: the events that are ready and still of interest, never 0.
        """
        raise NotImplementedError

    def on_failure(self, error: Exception) -> None:
        """Clean up after ``on_ready`` raised; the reactor has logged the error."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once, without flushing; called when the reactor is closed."""
        raise NotImplementedError


class Flushable(Protocol):
    """What ``flush_soon`` takes: something that has bytes to send at the end of the turn."""

    def flush(self) -> None:
        """Send what waits."""

    def on_failure(self, error: Exception) -> None:
        """Clean up after ``flush`` raised."""


class _Sent:
    """Stand in for a transport that is the parent's to flush."""

    def flush(self) -> None:
        """Send nothing."""

    def on_failure(self, error: Exception) -> None:
        """Have nothing to clean up."""


#: Has nothing to send.
SENT = _Sent()
