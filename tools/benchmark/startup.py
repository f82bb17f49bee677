"""How long a program takes to import a library, and a server to listen. Milliseconds, medians.

Both begin with a new process; what Python itself takes is the first row of the table.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from check import variables

from benchmark.compare import Cores
from benchmark.environment import LOGS, extra_modules
from benchmark.processes import pinned, started
from benchmark.report import markdown_table, number
from benchmark.servers import Server, find_free_port, wait_until_listening

DEFAULT_ROUNDS = 15
# Seconds between two attempts to connect: what a figure may be too long.
_INTERVAL = 0.0005


class Startup(NamedTuple):
    """Hold medians in milliseconds; ``listening`` is 0 where nothing listens."""

    name: str
    importing: float
    listening: float


def measure_startup(servers: Sequence[Server], rounds: int, cores: Cores) -> list[Startup]:
    """Measure the servers in turn; the first result is Python without any library."""
    times: dict[str, tuple[list[float], list[float]]] = {"nothing": ([], [])}
    times.update({server.name: ([], []) for server in servers})
    bare, plain = servers[0].python, variables(os.environ)
    for _ in range(rounds):
        times["nothing"][0].append(_time(lambda: _import(bare, "pass", plain, cores)))
        for server in servers:
            importing, listening = times[server.name]
            importing.append(_time_import(server, cores))
            listening.append(_time_listening(server, cores))
    return [
        Startup(name, statistics.median(each[0]), statistics.median(each[1] or [0.0]))
        for name, each in times.items()
    ]


def _time(action: Callable[[], object]) -> float:
    """Return the milliseconds that an action takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


def _import(python: str, code: str, environment: Mapping[str, str], cores: Cores) -> None:
    with pinned(cores.server):
        subprocess.run([python, "-c", code], env=environment, check=True)


def _time_import(server: Server, cores: Cores) -> float:
    code = f"import {', '.join([server.module, *extra_modules(server)])}"
    return _time(lambda: _import(server.python, code, server.variables(), cores))


def _time_listening(server: Server, cores: Cores) -> float:
    port = find_free_port()
    log = LOGS / f"server-{server.name}.log"
    with log.open("wb") as output:
        begun = time.perf_counter()
        with started(
            server.command(port, ()),
            cores.server,
            output,
            stdout=output,
            stdin=subprocess.DEVNULL,
            env=server.variables(),
        ) as process:
            wait_until_listening(process, port, log, _INTERVAL)
            return (time.perf_counter() - begun) * 1000


def table(results: Sequence[Startup]) -> str:
    """Return the milliseconds as a table."""
    headings = ["ms", "process with import", "until it listens"]
    return markdown_table(
        headings,
        [[each.name, number(each.importing), number(each.listening)] for each in results],
    )
