"""A selector over ``select.epoll`` that hands on a batch of events without a call for each.

``selectors.EpollSelector`` looks every event up in a method of its own and tests its bits one by
one, which costs about as much as reading the socket's frame. Here a batch is one comprehension.
The interface is that of the ``selectors`` module. Where there is no epoll, ``default_selector``
makes that module's own choice, such as kqueue.

Not for: file objects. The reactor registers numbers of descriptors.
"""

from __future__ import annotations

import select
import selectors
import sys
from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Any

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

if sys.platform == "linux":
    _EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
    # By the low five bits of an event. An error or a hang-up makes both ready: reading and
    # writing report it, whichever is of interest.
    _MASKS = tuple(
        READ | WRITE
        if event & (select.EPOLLERR | select.EPOLLHUP)
        else READ * bool(event & select.EPOLLIN) | WRITE * bool(event & select.EPOLLOUT)
        for event in range(32)
    )

    class EpollSelector(selectors.BaseSelector):
        """Watch numbers of descriptors; see ``selectors.BaseSelector`` for the methods."""

        __slots__ = ("_epoll", "_keys")

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._keys: dict[int, selectors.SelectorKey] = {}

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a descriptor for READ, WRITE or both."""
            self._epoll.register(fileobj, _EVENTS[events])
            key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
            return key

        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            """Watch it no longer."""
            key = self._keys.pop(fileobj)
            try:
                self._epoll.unregister(fileobj)
            except OSError:
                pass  # closed behind our back, and so forgotten by epoll
            return key

        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a descriptor for other events."""
            self._epoll.modify(fileobj, _EVENTS[events])
            key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
            return key

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait until something is ready, or for ``timeout`` seconds, rounded up to ms."""
            keys = self._keys
            if timeout is None:
                batch = self._epoll.poll(-1, len(keys) or 1)
            elif timeout <= 0:
                batch = self._epoll.poll(0, len(keys) or 1)
            else:
                batch = self._epoll.poll(ceil(timeout * 1e3) * 1e-3, len(keys) or 1)
            # What is not in keys was closed by somebody who kept a duplicate open elsewhere.
            if len(batch) == 1:
                # The one message that a quiet server wakes up for: without a frame of its own.
                ((fd, event),) = batch
                return [(keys[fd], _MASKS[event & 31])] if fd in keys else []
            return [(keys[fd], _MASKS[event & 31]) for fd, event in batch if fd in keys]

        def close(self) -> None:
            """Release the descriptor. Idempotent."""
            self._epoll.close()
            self._keys.clear()

        def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
            """Return what is watched."""
            return MappingProxyType(self._keys)

        def fileno(self) -> int:
            """Return the descriptor, readable when something is ready."""
            return self._epoll.fileno()

    default_selector: type[selectors.BaseSelector] = EpollSelector
else:
    default_selector = selectors.DefaultSelector
