"""The program under attack: a server of this library that also tells about itself.

    python3 tools/torturing/served.py '{"limits": {"ping_interval": 1}, "compression": true}'

Prints its port and serves until SIGTERM. ``descriptors`` lowers the limit on open files first.

    /            send every message back
    /block       sleep for as many seconds as the message says, in the thread of the loop
    /fill        send until the connection is congested, then nothing more
    /push        get the messages that ``GET /push`` asks for
    /session     tell how often the session has been visited, then as /
    /threads     get the messages that ``GET /threads`` asks for

Plain requests ask and command; the answer is JSON::

    /facts                              counters, and the last ends
    /objects?collect=0                  objects and timers; by default garbage is collected first
    /push?every=S&size=N&shared=0       every S seconds from now on a message of a number, the time
                                        and N bytes: one for all, or with shared=0 one for each
    /threads?count=8&messages=N         from each thread N messages to each
"""

from __future__ import annotations

import gc
import json
import logging
import resource
import struct
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from reactor import Timer
from websocket import Connection, HTTPResponse, Limits, Request, Server
from websocket.origin import parse_authority, parse_origin

# What precedes the filling of a pushed message: its number, and time.monotonic() when it was made.
PUSH_HEADER = struct.Struct("!Qd")
THREAD_MESSAGE_SIZE = 64
_FILLING = bytes(64 * 1024)

# The last ends: cause, code, and seconds from opening to end.
ends: deque[tuple[str, int, float]] = deque(maxlen=1_000)


class Recorded(Connection):
    """Record the end."""

    __slots__ = ()

    def on_close(self, code: int, reason: str) -> None:
        """Keep cause, code and age."""
        assert self.cause is not None
        assert self.opened_at is not None
        ends.append((self.cause.value, code, self.reactor.time - self.opened_at))


class Echo(Recorded):
    """Send every message back."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Send it back."""
        self.send(message)


class Blocking(Recorded):
    """Hold the loop up."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Sleep, and tell that it is over."""
        time.sleep(float(message))
        self.send(message)


class Filled(Recorded):
    """Send until the peer does not keep up."""

    __slots__ = ()

    def on_open(self) -> None:
        """Fill every buffer on the way."""
        while not self.is_congested and self.send(_FILLING, compress=False):
            pass


class Visited(Echo):
    """Count the visits of a session."""

    __slots__ = ()

    def on_open(self) -> None:
        """Count this visit and tell the number."""
        assert self.session is not None
        visits = self.session.data.get("visits", 0) + 1
        self.session.data["visits"] = visits
        self.send(str(visits))


class Pushed(Recorded):
    """Get what the pusher makes."""

    __slots__ = ()
    everybody: ClassVar[dict[int, Pushed]] = {}

    def on_open(self) -> None:
        """Take part."""
        self.everybody[self.id] = self

    def on_close(self, code: int, reason: str) -> None:
        """Take part no more."""
        del self.everybody[self.id]
        super().on_close(code, reason)


class Threaded(Recorded):
    """Get what the threads make; begin with the connection's id."""

    __slots__ = ()
    everybody: ClassVar[dict[int, Threaded]] = {}

    def on_open(self) -> None:
        """Take part, and say under which id."""
        self.send(str(self.id))
        self.everybody[self.id] = self

    def on_close(self, code: int, reason: str) -> None:
        """Take part no more."""
        del self.everybody[self.id]
        super().on_close(code, reason)


class Pusher:
    """Send a message to everybody at /push, again and again.

    Args:
        server: whose connections they are.
        every: seconds between two messages.
        size: bytes of filling.
        is_shared: one message for all, which is encoded once; else one for each.
    """

    def __init__(self, server: Server, every: float, size: int, *, is_shared: bool) -> None:
        self._server = server
        self._every = every
        self._size = size
        self._is_shared = is_shared
        self._number = 0
        self.push()

    def push(self) -> None:
        """Send the next message, and come back later."""
        self._server.reactor.call_later(self._every, self.push)
        receivers = list(Pushed.everybody.values())
        if self._is_shared:
            self._server.broadcast(self._message(), to=receivers)
        else:
            for receiver in receivers:
                receiver.send(self._message(), compress=False)
        self._number += 1

    def _message(self) -> bytes:
        return PUSH_HEADER.pack(self._number, time.monotonic()) + bytes(self._size)


class Threads:
    """Send from many threads to everybody at /threads, who come and go meanwhile.

    Args:
        count: how many threads.
        messages: how many messages each sends to everybody.

    Attributes:
        sent: how many messages ``send`` took, by thread and connection id.
    """

    def __init__(self, count: int, messages: int) -> None:
        # Many switches between threads, where an interpreter has such a thing.
        getattr(sys, "setswitchinterval", lambda interval: None)(0.000_1)
        self.sent: list[Counter[int]] = [Counter() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._send, args=(number, messages), daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, thread: int, messages: int) -> None:
        numbers: Counter[int] = Counter()
        for _ in range(messages):
            for receiver in Threaded.everybody.copy().values():
                text = f"{thread}:{numbers[receiver.id]}:".ljust(
                    THREAD_MESSAGE_SIZE, str(thread)[0]
                )
                if receiver.send(text):
                    numbers[receiver.id] += 1
            # Room for the loop: the test is of the order, not of who is faster.
            time.sleep(0.001)
        self.sent[thread] = numbers

    def facts(self) -> dict[str, Any]:
        """Return what was sent, and whether that is all."""
        total: Counter[int] = Counter()
        for numbers in self.sent:
            total.update(numbers)
        return {"is_done": not any(map(threading.Thread.is_alive, self._threads)), "sent": total}


class Control:
    """Answer the plain requests."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._pusher: Pusher | None = None
        self._threads: Threads | None = None

    def answer(self, request: Request) -> HTTPResponse | None:
        """Do what a path asks for; None for 404."""
        assert self.server is not None
        options = {name: values[0] for name, values in request.query_parameters.items()}
        if request.path == "/push":
            self._pusher = Pusher(
                self.server,
                float(options["every"]),
                int(options["size"]),
                is_shared=options.get("shared") != "0",
            )
        elif request.path == "/threads":
            self._threads = Threads(int(options["count"]), int(options["messages"]))
        elif request.path == "/objects":
            return HTTPResponse(json.dumps(_objects(options.get("collect") != "0")))
        elif request.path != "/facts":
            return None
        return HTTPResponse(json.dumps(self._facts(self.server)))

    def _facts(self, server: Server) -> dict[str, Any]:
        statistics = server.statistics()
        lag = statistics.lag
        return {
            **statistics._asdict(),
            "failed_by_reason": dict(statistics.failed_by_reason),
            "closed_by_cause": {
                cause.value: count for cause, count in statistics.closed_by_cause.items()
            },
            "sessions": statistics.sessions._asdict(),
            "lag": None if lag is None else {**lag._asdict(), "holds": dict(lag.holds)},
            "closing": sum(not connection.is_open for connection in server.connections),
            "ends": list(ends),
            "threads": None if self._threads is None else self._threads.facts(),
        }


def _objects(collects: bool) -> dict[str, int]:
    """Count what is alive: objects that can be part of a cycle, and timers that will fire.

    What is remembered of hosts and origins, up to some hundreds of either, does not count.
    """
    if collects:
        parse_authority.cache_clear()
        parse_origin.cache_clear()
        gc.collect()
    objects = gc.get_objects()
    timers = sum(type(each) is Timer and each.is_pending for each in objects)
    return {"objects": len(objects), "timers": timers}


ROUTES = {
    "/": Echo,
    "/block": Blocking,
    "/fill": Filled,
    "/push": Pushed,
    "/session": Visited,
    "/threads": Threaded,
}


def main(settings: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if "descriptors" in settings:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (settings["descriptors"], hard))
    control = Control()
    server = Server(
        ROUTES,
        port=0,
        limits=Limits(**settings.get("limits", {})),
        compression=settings.get("compression", False),
        on_http_request=control.answer,
    )
    control.server = server
    server.start()
    print(server.port, flush=True)
    server.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
