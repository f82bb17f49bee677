"""The opening handshakes of a server that are not over, and one timer for all of them.

All have the same time from accept on, so the first is the next that is due. A timer of its own
would cost each handshake as much as the parsing of its request.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactor import Reactor, Timer
    from websocket.upgrade import ServerHandshake


class Handshakes:
    """Hold opening handshakes in the order of their deadlines, and time them out.

    Args:
        reactor: keeps the time.
    """

    __slots__ = ("_answered", "_reactor", "_timer", "_waiting")

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._waiting: dict[ServerHandshake, None] = {}
        # Refused, or a page: they have no deadline but that of the transport's linger.
        self._answered: set[ServerHandshake] = set()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._answered)

    def __iter__(self) -> Iterator[ServerHandshake]:
        return iter([*self._waiting, *self._answered])

    def add(self, handshake: ServerHandshake) -> None:
        """Take one in that begins now."""
        self._waiting[handshake] = None
        if self._timer is None:
            self._timer = self._reactor.call_at(handshake.due, self._on_timer)

    def answered(self, handshake: ServerHandshake) -> None:
        """Time one out no more, since it has got its answer. Idempotent."""
        if self._take_out(handshake):
            self._answered.add(handshake)

    def discard(self, handshake: ServerHandshake) -> None:
        """Forget one that is over. Idempotent."""
        if not self._take_out(handshake):
            self._answered.discard(handshake)

    def _take_out(self, handshake: ServerHandshake) -> bool:
        """Take one from those that wait; tell whether it was there."""
        waiting = self._waiting
        if handshake not in waiting:
            return False
        del waiting[handshake]
        if not waiting:
            waiting.clear()  # a dict keeps the room of its deleted keys
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return True

    def _on_timer(self) -> None:
        """Time out those that are due, and look again when the next one is."""
        self._timer = None
        try:
            now = self._reactor.time
            for handshake in list(takewhile(lambda each: each.deadline() <= now, self._waiting)):
                self.answered(handshake)
                handshake.time_out()
        finally:
            if self._waiting:
                first = next(iter(self._waiting))
                self._timer = self._reactor.call_at(first.deadline(), self._on_timer)
