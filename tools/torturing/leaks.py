"""The row about leaks: connections that end in every phase must leave nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torturing.client import Client, frame, request
from torturing.figures import Figure, exactly
from torturing.process import ServerProcess
from torturing.swarm import Swarm, now_and_then
from websocket import Opcode

KIB = 1024
_AT_ONCE = 400
_PING_INTERVAL = 0.2


class Quitter(Client):
    """End in the middle of something, by an end of stream or by a reset."""

    __slots__ = ("_resets",)

    def __init__(self, swarm: Swarm, *, resets: bool, request: bytes = request()) -> None:
        super().__init__(swarm, request=request)
        self._resets = resets

    def quit(self) -> None:
        """End now."""
        if self._resets:
            self.reset()
        else:
            self.leave()


class InHead(Quitter):
    """Quit when half of the request is sent."""

    __slots__ = ()

    def on_connected(self) -> None:
        """Send half, and quit once it is on its way."""
        self.send_bytes(self.request[: len(self.request) // 2])
        self.swarm.call_later(0.01, self.quit)


class WhenOpen(Quitter):
    """Quit after a message."""

    __slots__ = ()

    def on_open(self) -> None:
        """Send it."""
        self.send("hello")

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Quit."""
        self.quit()


class InMessage(Quitter):
    """Quit between two fragments."""

    __slots__ = ()

    def on_open(self) -> None:
        """Send the first, and quit once it is on its way."""
        self.send_bytes(frame(Opcode.TEXT, b"once upon a time"))
        self.swarm.call_later(0.01, self.quit)


class WhenPinged(Quitter):
    """Quit while a ping waits for its pong."""

    __slots__ = ()

    def on_open(self) -> None:
        """Wait for the ping, which will not be answered."""
        self.answers_pings = False
        self.swarm.call_later(1.5 * _PING_INTERVAL, self.quit)


class WhenClosing(Quitter):
    """Quit while the close frame is under way."""

    __slots__ = ()

    def on_open(self) -> None:
        """Send it, and do not wait for the answer."""
        self.close()
        self.quit()


PHASES = {
    "headers": InHead,
    "open": WhenOpen,
    "mid fragment": InMessage,
    "ping pending": WhenPinged,
    "closing": WhenClosing,
}


def cycles(count: int = 10_000) -> Iterator[Figure]:
    """End connections in every phase, and look at what is left of them (H109)."""
    server = ServerProcess(ping_interval=_PING_INTERVAL, detached_lifetime=0)
    with server, Swarm(server.address) as swarm:
        # What the first ones leave in caches and free lists, or for the collector, is no leak.
        _run(server, swarm, count)
        descriptors = server.descriptors_at_rest()
        objects, resident = server.objects(), server.resident()
        seconds = _run(server, swarm, count)
        after = server.objects()
        yield Figure(f"for {count:,} connections", seconds, "s")
        left = server.descriptors_at_rest() - descriptors
        yield exactly("descriptors more than before", left, 0)
        yield exactly("timers more than before", after["timers"] - objects["timers"], 0)
        yield Figure("objects more than before", after["objects"] - objects["objects"], most=100)
        # Objects are exact. Memory depends on how much garbage had gathered at its peak.
        growth = (server.resident() - resident) / KIB
        yield Figure("resident memory more than before", growth, "KiB", most=4 * KIB)
        yield from balanced(server)
        yield exactly("errors logged", len(server.faults()), 0)


def _run(server: ServerProcess, swarm: Swarm, count: int) -> float:
    """Run so many connections, as many in each phase; return the seconds.

    The next ones come when all are gone, so that their number at once is always the same.
    """
    started_at = time.monotonic()
    for kind in PHASES.values():
        for start in range(0, count // len(PHASES), _AT_ONCE):
            for number in range(start, min(start + _AT_ONCE, count // len(PHASES))):
                swarm.open(kind, resets=bool(number % 2))
            swarm.run_until("all have quit", lambda: not swarm.clients)
            swarm.run_until("all are gone", now_and_then(lambda: is_empty(server), 0.01))
    return time.monotonic() - started_at


def is_empty(server: ServerProcess) -> bool:
    """Tell whether a server has no connections and no sessions; ours, that asks, does not count."""
    facts = server.facts()
    return bool(
        facts["handshaking"] == 1 and facts["active"] == 0 and facts["sessions"]["active"] == 0
    )


def balanced(server: ServerProcess) -> Iterator[Figure]:
    """Compare the counters of a server that has no connections any more."""
    facts = server.facts()
    # The connection that asks is still in its handshake, as the server counts.
    ways = facts["failed"] + facts["http"] + facts["opened"] + 1
    yield exactly("accepted, less failed, plain and opened", facts["accepted"] - ways, 0)
    yield exactly("opened, less closed", facts["opened"] - facts["closed"], 0)
    causes = sum(facts["closed_by_cause"].values())
    yield exactly("closed, less those with a cause", facts["closed"] - causes, 0)
    sessions = facts["sessions"]
    ended = sessions["expired"] + sessions["destroyed"]
    yield exactly("sessions created, less those ended", sessions["created"] - ended, 0)
