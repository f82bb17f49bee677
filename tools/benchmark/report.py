"""Runs to tables: medians of rounds, ratios to a reference, Markdown and JSON.

A document is what is stored as JSON: the machine, the settings, and every run. Tables are made
from it alone, so that they can be made again with another reference.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmark.compare import Measurement
from benchmark.scenarios import DEFLATE, SCENARIOS

# From this share of its core on somebody is at his limit.
SATURATED = 0.9

BOUND_NOTE = "* the generator was at its limit: the rate is its own, the server could do more"
COSTLY_NOTE = "^ the generator took more processor time than the server"


@dataclass(frozen=True)
class Row:
    """Hold the medians of one server under one load.

    Args:
        measurements: the runs that gave figures; at least one.
    """

    measurements: Sequence[Measurement]

    def median(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        return float(statistics.median(getattr(each, name) for each in self.measurements))

    @property
    def spread(self) -> float:
        """How far apart the rounds were in processor time, as a share of the median."""
        values = [each.cpu_us for each in self.measurements]
        middle = statistics.median(values)
        return (max(values) - min(values)) / middle if middle else 0.0

    @property
    def is_bound_by_generator(self) -> bool:
        """Tell whether the server waited for the generator, and not the other way round."""
        return self.median("generator_busy") >= SATURATED > self.median("busy")

    @property
    def is_generator_costly(self) -> bool:
        """Tell whether the generator cost more than the server."""
        return self.median("generator_us") > self.median("cpu_us")

    @property
    def marks(self) -> str:
        """The signs of the notes that hold for this row."""
        return "*" * self.is_bound_by_generator + "^" * self.is_generator_costly


class Column(NamedTuple):
    """Describe a column of a load's table."""

    title: str
    value: Callable[[Row], str]
    belongs: Callable[[str], bool]


def everywhere(mode: str) -> bool:
    """Tell that a column stands in the table of every mode."""
    return bool(mode)


COLUMNS = (
    Column("operations/s", lambda row: number(row.median("rate")), everywhere),
    Column("server busy", lambda row: percent(row.median("busy")), everywhere),
    Column("generator us", lambda row: number(row.median("generator_us")), everywhere),
    Column("p50 us", lambda row: number(row.median("p50_us")), lambda mode: mode != "hold"),
    Column("p99 us", lambda row: number(row.median("p99_us")), lambda mode: mode != "hold"),
    Column("unclean", lambda row: number(row.median("unclean")), lambda mode: mode == "churn"),
    Column(
        "KiB/connection", lambda row: number(row.median("memory_kib")), lambda mode: mode == "hold"
    ),
    Column("spread", lambda row: percent(row.spread), everywhere),
    Column("rounds", lambda row: str(len(row.measurements)), everywhere),
)


def number(value: float) -> str:
    """Return a figure with as many digits as mean something; nothing for 0."""
    if value == 0:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{1 if abs(value) >= 10 else 2}f}"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{value:.0%}"


def ratio(value: float, reference: float | None) -> str:
    """Return how many times the reference a value is; a dash without a reference."""
    return f"{value / reference:.2f}" if reference else "-"


def gather(measurements: Iterable[Measurement]) -> dict[tuple[str, str], Row]:
    """Return the row of each load and server; runs that failed are left out."""
    found: dict[tuple[str, str], list[Measurement]] = {}
    for each in measurements:
        if not each.error:
            found.setdefault((each.scenario, each.server), []).append(each)
    return {key: Row(runs) for key, runs in found.items()}


def names(measurements: Iterable[Measurement]) -> tuple[list[str], list[str]]:
    """Return the loads in the order of their table, and the servers in that of the runs."""
    runs = sorted(measurements, key=lambda each: each.round)
    measured = {each.scenario for each in runs}
    loads = [name for name in SCENARIOS if name in measured]
    return loads, list(dict.fromkeys(each.server for each in runs))


def overview(measurements: Sequence[Measurement], reference: str) -> str:
    """Return one table of all: processor time for each operation, and the ratio to a reference."""
    rows = gather(measurements)
    loads, servers = names(measurements)
    lines = []
    for load in loads:
        base = rows.get((load, reference))
        cells = []
        for server in servers:
            row = rows.get((load, server))
            cells.append("-" if row is None else _with_ratio(row, "cpu_us", base))
        lines.append([f"{load} {SCENARIOS[load].title}", *cells])
        if SCENARIOS[load].mode == "hold":
            lines.append([f"{load} KiB a connection", *memory_cells(rows, load, servers, base)])
        if SCENARIOS[load].connections == 1:
            lines.append([f"{load} round trips/s", *rate_cells(rows, load, servers)])
    return markdown_table(["CPU us an operation", *servers], lines)


def _with_ratio(row: Row, figure: str, base: Row | None) -> str:
    value = row.median(figure)
    of_base = None if base is None else base.median(figure)
    brackets = f" ({ratio(value, of_base)})" if of_base else ""
    return number(value) + brackets + row.marks


def memory_cells(
    rows: Mapping[tuple[str, str], Row], load: str, servers: Iterable[str], base: Row | None
) -> list[str]:
    """Return the memory for each connection, by server."""
    found = (rows.get((load, server)) for server in servers)
    return ["-" if row is None else _with_ratio(row, "memory_kib", base) for row in found]


def rate_cells(rows: Mapping[tuple[str, str], Row], load: str, servers: Iterable[str]) -> list[str]:
    """Return the operations in a second, by server."""
    found = (rows.get((load, server)) for server in servers)
    return ["-" if row is None else number(row.median("rate")) for row in found]


def load_table(measurements: Sequence[Measurement], load: str, reference: str) -> str:
    """Return all figures of one load, the server that takes the least time first."""
    rows = {server: row for (name, server), row in gather(measurements).items() if name == load}
    base = rows[reference].median("cpu_us") if reference in rows else None
    base_rate = rows[reference].median("rate") if reference in rows else None
    columns = [each for each in COLUMNS if each.belongs(SCENARIOS[load].mode)]
    headings = ["server", "CPU us", f"x {reference}", "rate x", *(each.title for each in columns)]
    lines = []
    for server in sorted(rows, key=lambda name: rows[name].median("cpu_us")):
        row = rows[server]
        cpu, rate = row.median("cpu_us"), row.median("rate")
        cells = [number(cpu) + row.marks, ratio(cpu, base), ratio(rate, base_rate)]
        lines.append([server, *cells, *(column.value(row) for column in columns)])
    return markdown_table(headings, lines)


def markdown_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, padded so that it can be read as it is."""
    rows = [list(headings), *map(list, lines)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in rows
    ]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded)


def notes(measurements: Sequence[Measurement]) -> list[str]:
    """Return what a reader must know beside the figures, one line each."""
    rows = gather(measurements).values()
    lines = []
    if any(row.is_bound_by_generator for row in rows):
        lines.append(BOUND_NOTE)
    if any(row.is_generator_costly for row in rows):
        lines.append(COSTLY_NOTE)
    terms = {
        f"{each.scenario}: {each.server} agreed to {each.agreed}": None
        for each in measurements
        if DEFLATE in SCENARIOS[each.scenario].needs and each.agreed
    }
    failures = {
        f"{each.scenario}: {each.server} failed: {each.error}": None
        for each in measurements
        if each.error
    }
    return [*lines, *terms, *failures]


def document(
    machine: Mapping[str, str],
    settings: Mapping[str, Any],
    missing: Mapping[str, str],
    measurements: Iterable[Measurement],
) -> dict[str, Any]:
    """Return what is stored as JSON."""
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "missing": dict(missing),
        "measurements": [each._asdict() for each in measurements],
    }


def read_measurements(stored: Mapping[str, Any]) -> list[Measurement]:
    """Return the runs of a stored document.

    Raises:
        ValueError: it is none of this tool's.
    """
    try:
        return [Measurement(**each) for each in stored["measurements"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no document of the benchmark: {error}") from None


def markdown(stored: Mapping[str, Any], reference: str) -> str:
    """Return a whole report: the machine, the overview, each load, the notes."""
    runs = read_measurements(stored)
    loads, _ = names(runs)
    settings = ", ".join(f"{name} {value}" for name, value in stored["settings"].items())
    parts = [
        "\n".join(f"- {name}: {value}" for name, value in stored["machine"].items()),
        f"Medians; ratios to {reference} in brackets, lower is better. Settings: {settings}.",
        overview(runs, reference),
    ]
    for load in loads:
        scenario = SCENARIOS[load]
        table = load_table(runs, load, reference)
        parts.append(f"### {load}: {scenario.title} (an operation is one {scenario.operation})")
        parts.append(table)
    missing = [f"{name} was left out: {reason}" for name, reason in stored["missing"].items()]
    remarks = [*notes(runs), *missing]
    if remarks:
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    return "\n\n".join(parts) + "\n"
