"""A selector over ``select.epoll`` that hands on a batch of events without a call for each.

``selectors.EpollSelector`` looks every event up in a method of its own and tests its bits one by
one, which costs about as much as reading the socket's frame. Here a batch is one comprehension.
The interface is that of the ``selectors`` module; ``select_data`` is our own. Where there is no
epoll, ``default_selector`` makes that module's own choice, such as kqueue.

Not for: file objects. The reactor registers numbers of descriptors.
"""

from __future__ import annotations

import select
import selectors
import sys
from collections.abc import Callable, Mapping
from functools import partial
from math import ceil
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

    def _whole_milliseconds(timeout: float | None) -> float:
        """Round up, since epoll knows no less: else it would spin through the last of them."""
        if timeout is None:
            return -1  # PyPy's epoll takes numbers only
        return ceil(timeout * 1e3) * 1e-3 if timeout > 0 else 0

    class EpollSelector(selectors.BaseSelector):
        """Watch numbers of descriptors; see ``selectors.BaseSelector`` for the methods."""

        __slots__ = ("_data", "_epoll", "_events")

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._data: dict[int, Any] = {}
            # Of the few that wait for anything else than READ. Keys are made for whoever asks for
            # them: kept, each would take 80 bytes.
            self._events: dict[int, int] = {}

        def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a descriptor for READ, WRITE or both."""
            self._epoll.register(fileobj, _EVENTS[events])
            return self._keep(fileobj, events, data)

        def unregister(self, fileobj: Any) -> selectors.SelectorKey:
            """Watch it no longer."""
            key = self._key(fileobj)
            del self._data[fileobj]
            self._events.pop(fileobj, None)
            try:
                self._epoll.unregister(fileobj)
            except OSError:
                pass  # closed behind our back, and so forgotten by epoll
            return key

        def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
            """Watch a descriptor for other events."""
            self._epoll.modify(fileobj, _EVENTS[events])
            return self._keep(fileobj, events, data)

        def _keep(self, fd: int, events: int, data: Any) -> selectors.SelectorKey:
            self._data[fd] = data
            if events != READ:
                self._events[fd] = events
            elif self._events:
                self._events.pop(fd, None)
            return selectors.SelectorKey(fd, fd, events, data)

        def _key(self, fd: int) -> selectors.SelectorKey:
            return selectors.SelectorKey(fd, fd, self._events.get(fd, READ), self._data[fd])

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait until something is ready, or for ``timeout`` seconds, rounded up to ms."""
            data, key = self._data, self._key
            batch = self._epoll.poll(_whole_milliseconds(timeout), len(data) or 1)
            return [(key(fd), _MASKS[event & 31]) for fd, event in batch if fd in data]

        def select_data(self, timeout: float | None) -> list[tuple[Any, int]]:
            """Wait as ``select``, and return what was registered instead of keys.

            This is what the reactor calls: who overrides ``select`` overrides this, too.
            """
            data = self._data
            batch = self._epoll.poll(_whole_milliseconds(timeout), len(data) or 1)
            # What is not in data was closed by somebody who kept a duplicate open elsewhere.
            if len(batch) == 1:
                # The one message that a quiet server wakes up for: without a frame of its own.
                ((fd, event),) = batch
                return [(data[fd], _MASKS[event & 31])] if fd in data else []
            return [(data[fd], _MASKS[event & 31]) for fd, event in batch if fd in data]

        def close(self) -> None:
            """Release the descriptor. Idempotent."""
            self._epoll.close()
            self._data.clear()
            self._events.clear()

        def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
            """Return what is watched."""
            return {fd: self._key(fd) for fd in self._data}

        def fileno(self) -> int:
            """Return the descriptor, readable when something is ready."""
            return self._epoll.fileno()

    default_selector: type[selectors.BaseSelector] = EpollSelector
else:
    default_selector = selectors.DefaultSelector


def data_selector(
    selector: selectors.BaseSelector,
) -> Callable[[float | None], list[tuple[Any, int]]]:
    """Return what waits with a selector, and returns what was registered instead of keys."""
    own: Callable[[float | None], list[tuple[Any, int]]] | None
    own = getattr(selector, "select_data", None)
    return partial(_select_data, selector) if own is None else own


def _select_data(selector: selectors.BaseSelector, timeout: float | None) -> list[tuple[Any, int]]:
    return [(key.data, mask) for key, mask in selector.select(timeout)]
