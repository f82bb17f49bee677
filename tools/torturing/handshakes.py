"""Rows about opening handshakes: those that take for ever, and those that come too often."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from torturing.client import REQUEST, Client, Phase, has_ended
from torturing.figures import Figure, exactly, percentile
from torturing.healthy import Prober, Visitor
from torturing.process import ServerProcess
from torturing.swarm import Swarm, everyone

_LATE = 0.1


class Speechless(Client):
    """Connect and send nothing."""

    __slots__ = ()

    def on_connected(self) -> None:
        """Send nothing."""


class Slow(Client):
    """Send the request one byte at a time."""

    __slots__ = ("_every", "_sent")

    def __init__(self, swarm: Swarm, *, every: float, **options: Any) -> None:
        super().__init__(swarm, **options)
        self._every = every
        self._sent = 0

    def on_connected(self) -> None:
        """Send a byte, and another one later."""
        if self.phase is Phase.CONNECTED:
            self.send_bytes(REQUEST[self._sent : self._sent + 1])
            self._sent += 1
            self.swarm.call_later(self._every, self.on_connected)


def slowloris(clients: int = 200, timeout: float = 2.0) -> Iterator[Figure]:
    """Say nothing, or a byte every now and then, while others want to be served (H01, H02)."""
    with ServerProcess(handshake_timeout=timeout) as server, Swarm(server.address) as swarm:
        silent = [swarm.open(Speechless) for _ in range(clients)]
        slow = [swarm.open(Slow, every=timeout / 20) for _ in range(clients)]
        latencies: list[float] = []
        prober = swarm.open(Prober, latencies=latencies)
        swarm.run_until("all are cut", everyone([*silent, *slow], has_ended), timeout=timeout + 5)
        prober.settle()
        for what, some in (("silent", silent), ("a byte now and then", slow)):
            ages = [(each.ended_at or 0.0) - each.started_at for each in some]
            yield Figure(f"{what}: first cut after", min(ages), "s", least=timeout - 0.02)
            yield Figure(f"{what}: last cut after", max(ages), "s", most=timeout + _LATE)
            codes = Counter(each.status for each in some)
            yield exactly(f"{what}: answered with 408", codes[408], clients)
        yield Figure("an open client meanwhile, worst", max(latencies), "s", most=0.2)


class Flooding(Client):
    """Open handshakes for ever, all from one address."""

    __slots__ = ()
    statuses: ClassVar[Counter[int | None]] = Counter()
    is_over = False

    def on_open(self) -> None:
        """Count it, and stay."""
        self.statuses[101] += 1
        self.come_back()

    def on_end(self) -> None:
        """Count the refusal, and try again."""
        if self.status != 101:
            self.statuses[self.status] += 1
            self.come_back()

    def come_back(self) -> None:
        """Open another one."""
        if not Flooding.is_over:
            self.swarm.open(Flooding, source="127.6.6.6")


def flood(at_once: int = 50, seconds: float = 4.0) -> Iterator[Figure]:
    """Attack from one address with handshakes, while visitors come from others."""
    rate, open_limit = 64, 40
    server = ServerProcess(
        loopback_is_exempt=False, handshakes_per_minute=rate, max_connections_per_ip=open_limit
    )
    Flooding.statuses.clear()
    Flooding.is_over = False
    with server, Swarm(server.address) as swarm:
        for _ in range(at_once):
            swarm.open(Flooding, source="127.6.6.6")
        times: list[float] = []
        visitors: list[Visitor] = []
        started_at = time.monotonic()
        while time.monotonic() - started_at < seconds:
            source = f"127.1.1.{1 + len(visitors) % 200}"
            visitors.append(swarm.open(Visitor, times=times, source=source))
            swarm.run(0.02)
        Flooding.is_over = True
        statuses = Flooding.statuses.copy()
        swarm.run_until("the visitors are gone", everyone(visitors, has_ended))
    attempts = sum(statuses.values())
    yield Figure("handshakes a second from one address", attempts / seconds)
    yield Figure("of these let in", statuses[101], least=1, most=open_limit)
    others = attempts - statuses[101] - statuses[429]
    yield exactly("of these neither let in nor told 429", others, 0)
    yield exactly(f"visitors not served, of {len(visitors)}", len(visitors) - len(times), 0)
    yield Figure("visitors served, 99 %", percentile(times, 0.99), "s", most=0.2)
    yield Figure("visitors served, worst", max(times, default=float("inf")), "s", most=0.2)
