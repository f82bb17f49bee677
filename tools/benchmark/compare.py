"""Servers x scenarios, round by round, each run with a fresh server.

In a round every server comes once under each load, one after the other, and the next round begins
with another one: what disturbs the machine for a while disturbs all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmark.environment import LOGS, Generator
from benchmark.load import BEGIN, END, Load, LoadFailed, loading
from benchmark.processes import KIB, memory, settled_cpu_seconds
from benchmark.scenarios import DEFLATE, Scenario
from benchmark.servers import Running, Server, ServerFailed, running
from benchmark.verify import WrongEcho, verify_echo

_MICRO = 1e6
# So many connections are opened and closed before memory is measured: what a server loads or
# makes with the first of them is not paid for each.
_FIRST_CONNECTIONS = 200


class Cores(NamedTuple):
    """Hold which core is whose; None leaves it to the system."""

    server: int | None
    generator: int | None


class Measurement(NamedTuple):
    """Hold what one run gave.

    Attributes:
        server, scenario: their names.
        round: counted from 1.
        cpu_us: the server's processor time for one operation, in microseconds.
        rate: operations a second.
        busy: the share of its core that the server used.
        generator_us: the generator's processor time for one operation.
        generator_busy: the share of its core that the generator used.
        p50_us, p99_us: round trips; 0 where there are none.
        unclean: connections without a whole closing handshake.
        memory_kib: for each connection, where they are held; else 0.
        agreed: the extensions that were agreed on, and the share of replies that used them.
        error: why there are no figures; empty when there are.
    """

    server: str
    scenario: str
    round: int
    cpu_us: float = 0.0
    rate: float = 0.0
    busy: float = 0.0
    generator_us: float = 0.0
    generator_busy: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    unclean: int = 0
    memory_kib: float = 0.0
    agreed: str = ""
    error: str = ""


class Settings(NamedTuple):
    """Hold how runs are made."""

    generator: Generator
    cores: Cores
    seconds: float
    warm_up: float


def measure_all(
    servers: Sequence[Server], scenarios: Sequence[Scenario], rounds: int, settings: Settings
) -> Iterator[Measurement]:
    """Measure every server under every load that it can be put under, and yield each run."""
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            able = [server for server in servers if server.can(scenario)]
            first = (number - 1) % max(1, len(able))
            for server in able[first:] + able[:first]:
                yield measure(server, scenario, number, settings)


def measure(server: Server, scenario: Scenario, number: int, settings: Settings) -> Measurement:
    """Run one load on one server; what goes wrong stands in the result."""
    log = LOGS / f"server-{server.name}.log".replace("/", "-")
    try:
        with running(server, scenario.needs, settings.cores.server, log) as target:
            agreed = verify_echo(target.port, scenario)
            if scenario.mode == "hold":
                _open_the_first(target, scenario, settings)
            values = run_load(target, scenario, settings)
    except (ServerFailed, LoadFailed, WrongEcho, OSError) as error:
        return Measurement(server.name, scenario.name, number, error=str(error))
    values = values._replace(round=number)
    if DEFLATE not in scenario.needs:
        return values
    terms = ", ".join(filter(None, (agreed, server.compression, values.agreed)))
    return values._replace(agreed=terms)


def _open_the_first(target: Running, scenario: Scenario, settings: Settings) -> None:
    """Open and close some connections, so that the memory of the first is not counted."""
    few = replace(scenario, connections=_FIRST_CONNECTIONS)
    with generating(target, few, settings) as load:
        load.wait_for(BEGIN)
        load.go_on()
        load.wait_for(END)
        load.go_on()
        load.result()
    settled_cpu_seconds(target.pid)


@contextmanager
def generating(target: Running, scenario: Scenario, settings: Settings) -> Iterator[Load]:
    """Run the generator against a server for as long as the block takes."""
    with tempfile.TemporaryDirectory() as folder:
        payloads = Path(folder) / "payloads"
        scenario.payload.write(payloads)
        command = [
            str(settings.generator.program),
            *scenario.options(settings.seconds, settings.warm_up),
            *("--port", str(target.port), "--payloads", str(payloads)),
        ]
        log = Path(folder) / "log"
        seconds = settings.seconds + settings.warm_up
        with loading(command, settings.cores.generator, log, seconds) as load:
            yield load


def run_load(target: Running, scenario: Scenario, settings: Settings) -> Measurement:
    """Put a server under a load, and return what it cost.

    Raises:
        LoadFailed: there is no result.
    """
    with generating(target, scenario, settings) as load:
        load.wait_for(BEGIN)
        before, memory_before = settled_cpu_seconds(target.pid), memory(target.pid)
        load.go_on()
        load.wait_for(END)
        cpu = settled_cpu_seconds(target.pid) - before
        grown = memory(target.pid) - memory_before
        load.go_on()
        result = load.result()
    if not result.operations:
        raise LoadFailed("not one operation was completed")
    cpu_us = cpu / result.operations * _MICRO
    # What was under way at the beginning had been done while the clock stood still.
    rate = max(0, result.operations - scenario.in_flight) / result.seconds
    return Measurement(
        target.server.name,
        scenario.name,
        0,
        cpu_us=cpu_us,
        rate=rate,
        busy=cpu_us * rate / _MICRO,
        generator_us=result.generator_cpu / result.operations * _MICRO,
        generator_busy=result.generator_cpu / result.seconds,
        p50_us=result.p50_us,
        p99_us=result.p99_us,
        unclean=result.unclean,
        memory_kib=grown / KIB / scenario.connections if scenario.mode == "hold" else 0.0,
        agreed=f"{min(1.0, result.compressed / result.operations):.0%} of the replies compressed",
    )
