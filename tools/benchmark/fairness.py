"""One greedy connection beside a healthy one: how long does the healthy one wait?

The healthy one has one message in flight. In the middle of that the greedy one sends 50,000 tiny
frames at once, which the server echoes like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmark.compare import Settings, generating
from benchmark.environment import LOGS
from benchmark.load import BEGIN, END, LoadResult
from benchmark.report import markdown_table, number
from benchmark.scenarios import Payload, Scenario
from benchmark.servers import Running, Server, running

FLOOD = 50_000
# What the healthy connection may wait, in microseconds.
BOUND_US = 10_000.0


class Fairness(NamedTuple):
    """Hold the worst round trip of the healthy connection in each round, in microseconds.

    Attributes:
        server: its name.
        alone: without the greedy connection: what the machine itself does to a round trip.
        flooded: beside it.
    """

    server: str
    alone: Sequence[float]
    flooded: Sequence[float]

    @property
    def is_fair(self) -> bool:
        """Tell whether the bound held in every round."""
        return max(self.flooded) < BOUND_US


class _Flood(Scenario):
    """The load with the greedy connection."""

    def options(self, seconds: float, warm_up: float) -> Sequence[str]:
        """Return the generator's options."""
        return [*super().options(seconds, warm_up), "--flood", str(FLOOD)]


_TINY = Payload(4)
_ALONE = Scenario("alone", "one healthy connection", "echo", 1, _TINY)
_FLOODED = _Flood("flooded", "one healthy and one greedy connection", "echo", 1, _TINY)


def measure_fairness(server: Server, rounds: int, settings: Settings) -> Fairness:
    """Return how long the healthy connection waited, with a fresh server for each round.

    Raises:
        ServerFailed, LoadFailed: it came to nothing.
    """
    alone, flooded = [], []
    log = LOGS / f"server-{server.name}.log"
    for _ in range(rounds):
        with running(server, (), settings.cores.server, log) as target:
            alone.append(_run(target, _ALONE, settings).longest_us)
            flooded.append(_run(target, _FLOODED, settings).longest_us)
    return Fairness(server.name, alone, flooded)


def _run(target: Running, scenario: Scenario, settings: Settings) -> LoadResult:
    with generating(target, scenario, settings) as load:
        load.wait_for(BEGIN)
        load.go_on()
        load.wait_for(END)
        load.go_on()
        return load.result()


def table(results: Sequence[Fairness]) -> str:
    """Return the worst round trips, in milliseconds."""
    headings = ["server", "worst echo alone, ms", "beside a flood, ms", "rounds", "below 10 ms"]
    return markdown_table(
        headings,
        [
            [
                each.server,
                number(max(each.alone) / 1000),
                number(max(each.flooded) / 1000),
                str(len(each.flooded)),
                "yes" if each.is_fair else "no",
            ]
            for each in results
        ],
    )
