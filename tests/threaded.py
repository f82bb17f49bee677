"""A reactor in a thread of its own, and a connection that tells other threads what happens."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from reactor import Reactor
from websocket import Connection

# Long enough for a slow machine; nothing that goes well waits for it.
TIMEOUT = 30

Event = tuple[Any, ...]


@contextlib.contextmanager
def running(reactor: Reactor) -> Iterator[None]:
    """Run a reactor in a thread of its own during a block; stop and close it at the end."""
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        yield
    finally:
        reactor.call_soon_threadsafe(reactor.stop)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        reactor.close()


class Reporter(Connection):
    """Put every event into a queue; make a subclass with a queue of its own."""

    __slots__ = ()

    events: queue.Queue[Event]

    def on_open(self) -> None:
        self.events.put(("open", self))

    def on_message(self, message: str | bytes) -> None:
        self.events.put(("message", message))

    def on_ping(self, payload: bytes) -> None:
        self.events.put(("ping", payload))

    def on_pong(self, payload: bytes) -> None:
        self.events.put(("pong", payload))

    def on_error(self, error: Exception) -> None:
        self.events.put(("error", error))

    def on_close(self, code: int, reason: str) -> None:
        self.events.put(("close", code, reason, self.is_clean))


def reporter() -> tuple[type[Reporter], queue.Queue[Event]]:
    """Return a connection class and the queue of its events."""
    events: queue.Queue[Event] = queue.Queue()
    return type("Reporter", (Reporter,), {"__slots__": (), "events": events}), events


def next_event(events: queue.Queue[Event]) -> Event:
    """Wait for the next event and return it."""
    return events.get(timeout=TIMEOUT)


def opened(events: queue.Queue[Event]) -> Connection:
    """Wait for a connection to be opened and return it."""
    name, connection = next_event(events)
    assert name == "open"
    assert isinstance(connection, Connection)
    return connection
