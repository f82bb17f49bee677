"""Which handler waits for which descriptor, and for what: the reactor's half of a selector.

A selector belongs to one process. A child of ``fork`` shares the kernel's list of what is watched
with its parent, and whatever it changed there would change for the parent as well: connections
would stall, or be served by both. So a reactor ends in the child, with an error that says so, and
nothing is closed or sent: it is the parent's.

Not for: the turn of the loop, see ``loop.py``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import weakref

from reactor.errors import ReactorClosed, ReactorForked
from reactor.event_handler import EventHandler

_reactors: weakref.WeakSet[Readiness] = weakref.WeakSet()


class Readiness:
    """Watch descriptors for handlers; the lowest layer of ``Reactor``.

    Args:
        selector: an open one.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._handlers: dict[int, EventHandler] = {}
        self._is_closed = False
        self._is_forked = False
        _reactors.add(self)

    def watch(self, handler: EventHandler, fd: int, interest: int) -> None:
        """Dispatch the readiness of a descriptor to a handler.

        Args:
            handler: not watched so far.
            fd: a non-blocking descriptor, watched by no other handler.
            interest: ``READ``, ``WRITE`` or both; 0 to begin with none.

        Raises:
            OSError: the system's limit on watched descriptors is reached.
            ReactorClosed: the reactor is closed.
        """
        self._check_open()
        if interest:
            self._selector.register(fd, interest, handler)
        self._handlers[fd] = handler
        handler.fd = fd
        handler.interest = interest

    def set_interest(self, handler: EventHandler, interest: int) -> None:
        """Change the events that a watched handler wants; 0 for none at the moment."""
        if interest == handler.interest:
            return
        if not interest:
            self._selector.unregister(handler.fd)
        elif not handler.interest:
            self._selector.register(handler.fd, interest, handler)
        else:
            try:
                self._selector.modify(handler.fd, interest, handler)
            except BaseException:
                # Some selectors forget what they could not change, and some do not.
                with contextlib.suppress(KeyError):
                    self._selector.unregister(handler.fd)
                handler.interest = 0
                raise
        handler.interest = interest

    def unwatch(self, handler: EventHandler) -> None:
        """Forget a handler; to be called before its descriptor is closed. Idempotent."""
        self.set_interest(handler, 0)
        self._handlers.pop(handler.fd, None)
        handler.fd = -1

    def _check_open(self) -> None:
        if self._is_forked:
            raise ReactorForked("a reactor does not survive a fork: make a new one in the child")
        if self._is_closed:
            raise ReactorClosed("the reactor is closed")

    def _leave_to_parent(self) -> None:
        """End in a child process, without touching what is shared with the parent."""
        self._is_closed = self._is_forked = True
        for handler in self._handlers.values():
            # Its events are stale from here on, and whoever wants to close it has nothing to do.
            handler.interest = 0
            handler.fd = -1
        self._handlers.clear()


def _leave_all_to_parent() -> None:
    for reactor in [*_reactors]:
        reactor._leave_to_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_leave_all_to_parent)
