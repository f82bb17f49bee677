"""Many connections that do nothing: what they cost in memory, and in processor time for pings.

Sessions and keepalive are on, as everywhere. The connections come from as many addresses of
127.0.0.0/8, and the generator answers the server's pings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from benchmark.compare import Settings, generating
from benchmark.environment import LOGS
from benchmark.load import BEGIN, END
from benchmark.processes import KIB, cpu_seconds, memory, settled_cpu_seconds
from benchmark.report import markdown_table, number
from benchmark.scenarios import SCENARIOS
from benchmark.servers import Server, running

MANY = 100_000
# A window that holds two rounds of pings of 20 s.
DEFAULT_SECONDS = 45.0
_FEW = 200
_MIB = 1024 * KIB


class Idle(NamedTuple):
    """Hold what idle connections cost.

    Attributes:
        server: its name.
        connections: how many.
        each: bytes of the server's memory for one.
        base: bytes of the server's memory without any.
        share: of a core, while nothing is sent but pings.
        rate: connections opened in a second.
        handshake_us: processor time for opening one, in microseconds.
        pings: that were answered while idle.
    """

    server: str
    connections: int
    each: float
    base: int
    share: float
    rate: float
    handshake_us: float
    pings: int

    def memory_of(self, connections: int) -> float:
        """Return the memory of a server with so many connections, in bytes."""
        return self.base + self.each * connections

    def share_of(self, connections: int) -> float:
        """Return the share of a core that so many connections take."""
        return self.share * connections / self.connections


def measure_idle(server: Server, connections: int, seconds: float, settings: Settings) -> Idle:
    """Open connections, leave them alone, and return what they cost.

    Raises:
        ServerFailed, LoadFailed: it came to nothing.
    """
    scenario = replace(SCENARIOS["I1"], connections=connections, addresses=connections)
    log = LOGS / f"server-{server.name}.log"
    patient = settings._replace(seconds=seconds)
    with running(server, (), settings.cores.server, log) as target:
        few = replace(scenario, connections=_FEW)
        with generating(target, few, patient) as load:
            load.wait_for(BEGIN)
            load.go_on()
            load.wait_for(END)
            load.go_on()
            load.result()
        with generating(target, scenario, patient) as load:
            load.wait_for(BEGIN)
            before, base = settled_cpu_seconds(target.pid), memory(target.pid)
            load.go_on()
            load.wait_for(END)
            opened, started = settled_cpu_seconds(target.pid), time.monotonic()
            time.sleep(seconds)
            idle, elapsed = cpu_seconds(target.pid) - opened, time.monotonic() - started
            grown = memory(target.pid) - base
            load.go_on()
            result = load.result()
    return Idle(
        server.name,
        connections,
        grown / connections,
        base,
        idle / elapsed,
        connections / result.seconds,
        (opened - before) / connections * 1e6,
        result.pings,
    )


def measure_all(
    servers: Sequence[Server], counts: Sequence[int], seconds: float, settings: Settings
) -> Iterator[Idle]:
    """Measure each server with each number of connections."""
    for connections in counts:
        for server in servers:
            yield measure_idle(server, connections, seconds, settings)


def table(results: Sequence[Idle]) -> str:
    """Return all of it as a table."""
    headings = ["server", "connections", "KiB each", "CPU while idle", "pings"]
    headings += ["connections/s", "CPU us each", f"MiB for {MANY:,}", f"CPU for {MANY:,}"]
    return markdown_table(
        headings,
        [
            [
                each.server,
                f"{each.connections:,}",
                number(each.each / KIB),
                f"{each.share:.2%}",
                f"{each.pings:,}",
                number(each.rate),
                number(each.handshake_us),
                number(each.memory_of(MANY) / _MIB),
                f"{each.share_of(MANY):.1%}",
            ]
            for each in results
        ],
    )
