"""Many clients in one thread: their turns, their timers, and what to wait for."""

from __future__ import annotations

import heapq
import selectors
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torturing.client import Client, Phase

_TIMEOUT = 20.0
_CONNECTS_AT_ONCE = 200

ClientType = TypeVar("ClientType", bound=Client)


class Swarm:
    """Run clients of one server inside a ``with`` block; at its end all are dropped.

    Args:
        address: of the server.

    Attributes:
        clients: those that have not ended.
        counts: how many clients are in each phase.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.selector = selectors.DefaultSelector()
        self.clients: set[Client] = set()
        self.counts = dict.fromkeys(Phase, 0)
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._number_of_calls = 0

    def __enter__(self) -> Swarm:
        return self

    def __exit__(self, *error: object) -> None:
        for client in list(self.clients):
            client.socket.close()
        self.selector.close()

    def open(self, kind: type[ClientType], **options: Any) -> ClientType:
        """Return a client of some class that has begun to connect.

        Args:
            kind: its class.
            options: of that class.
        """
        client = kind(self, **options)
        self.clients.add(client)
        self.counts[client.phase] += 1
        client.connect()
        return client

    def open_many(self, count: int, kind: type[ClientType], **options: Any) -> list[ClientType]:
        """Return clients that are open, connected a few at a time; see ``open``.

        Raises:
            TimeoutError: not all of them became open in time.
        """
        wanted = self.counts[Phase.OPEN] + count
        opened: list[ClientType] = []
        deadline = time.monotonic() + _TIMEOUT
        while self.counts[Phase.OPEN] < wanted:
            under_way = self.counts[Phase.CONNECTING] + self.counts[Phase.CONNECTED]
            room = min(count - len(opened), _CONNECTS_AT_ONCE - under_way)
            opened += [self.open(kind, **options) for _ in range(room)]
            self.turn(0.1)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.counts[Phase.OPEN]} of {wanted} clients are open")
        return opened

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        """Call back after some seconds."""
        self._number_of_calls += 1
        heapq.heappush(self._calls, (time.monotonic() + delay, self._number_of_calls, callback))

    def forget_calls(self) -> None:
        """Call back nobody who asked for it so far."""
        self._calls.clear()

    def turn(self, timeout: float) -> None:
        """Wait for something to do, at most for ``timeout`` seconds, and do it."""
        if self._calls:
            timeout = max(0.0, min(timeout, self._calls[0][0] - time.monotonic()))
        for key, mask in self.selector.select(timeout):
            # An earlier one of these events may have ended this client.
            if key.data.phase is not Phase.ENDED:
                key.data.on_ready(mask)
        now = time.monotonic()
        while self._calls and self._calls[0][0] <= now:
            heapq.heappop(self._calls)[2]()

    def run(self, seconds: float) -> None:
        """Run for some time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.turn(left)

    def run_until(
        self, what: str, condition: Callable[[], bool], timeout: float = _TIMEOUT
    ) -> float:
        """Run until a condition holds; return how many seconds that took.

        Args:
            what: the condition in words.
            condition: asked after every turn, and every 20 ms.
            timeout: seconds to wait at the most.

        Raises:
            TimeoutError: it did not come to hold.
        """
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > timeout:
                raise TimeoutError(f"not within {timeout:g} s: {what}")
            self.turn(0.02)
        return time.monotonic() - start


def now_and_then(condition: Callable[[], bool], interval: float = 0.05) -> Callable[[], bool]:
    """Return a condition that costs too much to be looked at all the time.

    Args:
        condition: what to look at.
        interval: seconds between two looks.
    """
    next_look = 0.0

    def look() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        is_met = condition()
        next_look = time.monotonic() + interval
        return is_met

    return look


def everyone(clients: Sequence[Client], condition: Callable[[Client], bool]) -> Callable[[], bool]:
    """Return the condition that something holds for all clients, looked at now and then."""
    return now_and_then(lambda: all(map(condition, clients)), 0.01)
