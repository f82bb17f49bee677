"""Measure our server beside others, and repeat the figures of the README.

    python3 tools/bench.py                                   every server under every load
    python3 tools/bench.py --servers ours,picows --scenarios E1,E2 --rounds 3 --seconds 2
    python3 tools/bench.py --servers ours --interpreter pypy3 --interpreter python3.13
    python3 tools/bench.py idle --connections 10000,19500    memory and pings of idle connections
    python3 tools/bench.py memory                            what an idle one holds, by object
    python3 tools/bench.py fairness                          a healthy one beside a flood
    python3 tools/bench.py timers                            the wheel, heapq and asyncio
    python3 tools/bench.py startup                           import, and until it listens
    python3 tools/bench.py tables RUNS.json --reference aiohttp

Needs Linux and a C compiler for the load generator, which runs on one core, and the server on
another. The peers are installed into ``.tox/benchmark/`` at the first run; one that cannot be is
named and left out. What is measured, and which figure to believe, stands in
``tools/benchmark/__init__.py``.

The figure to compare is the server's processor time for each operation, in microseconds: the
median over the rounds. ``--json`` keeps every run and ``--markdown`` the tables; both are also
written when a run is interrupted. The exit status is 0 when all was measured, 1 when a server
failed, 2 when nothing could be measured here.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The packages of this checkout, installed or not; tests import what is installed.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmark import compare, fairness, idle, memory, startup, timers
from benchmark.compare import Cores, Measurement, Settings
from benchmark.environment import CannotRun, Prepared, compile_generator, prepare
from benchmark.load import LoadFailed
from benchmark.machine import describe
from benchmark.processes import available_cores
from benchmark.report import document, markdown, number
from benchmark.scenarios import SCENARIOS, Scenario
from benchmark.servers import ServerFailed, select

REFERENCE = "picows+uvloop"
# A process may hold 20,000 descriptors on many systems; the generator needs some for itself.
DEFAULT_CONNECTIONS = "10000,19500"
WARM_UP = 0.5


def main(arguments: Sequence[str]) -> int:
    """Measure, print tables, and return the exit status."""
    options = parse_arguments(arguments)
    # So that servers are ended also when this is.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("bench: terminated"))
    try:
        status: int = options.run(options)
    except (CannotRun, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except (ServerFailed, LoadFailed) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return status


# --- the command line ---------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line; ``run`` among them is what to do."""
    parser = argparse.ArgumentParser(description="Measure our server beside others.")
    commands = {
        "compare": (run_compare, "servers under load (default)"),
        "idle": (run_idle, "connections that do nothing"),
        "memory": (run_memory, "what an idle connection holds, by object"),
        "fairness": (run_fairness, "a healthy connection beside a flood"),
        "timers": (run_timers, "the timer wheel, heapq and asyncio"),
        "startup": (run_startup, "import, and until it listens"),
        "tables": (run_tables, "tables of runs that were kept with --json"),
    }
    subparsers = parser.add_subparsers(required=True)
    for name, (run, summary) in commands.items():
        subparser = subparsers.add_parser(name, help=summary)
        subparser.set_defaults(run=run)
        add_options(subparser, name)
    words = list(arguments)
    if not words or (words[0] not in commands and words[0] not in ("-h", "--help")):
        words.insert(0, "compare")
    return parser.parse_args(words)


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of one command."""
    add = parser.add_argument
    if command in ("compare", "tables"):
        add("--reference", default=REFERENCE, help="ratios are to this server (%(default)s)")
        add("--markdown", type=Path, metavar="FILE", help="write the tables")
    if command == "tables":
        add("files", nargs="+", type=Path, metavar="FILE", help="what --json wrote")
        return
    if command == "timers":
        add("--count", type=positive, default=timers.PENDING, help="timers (%(default)s)")
        add("--rounds", type=positive, default=3, help="medians are over these (%(default)s)")
        return
    if command == "memory":
        default = memory.DEFAULT_CONNECTIONS
        add("--connections", type=positive, default=default, help="and twice these (%(default)s)")
        return
    servers = "all" if command in ("compare", "startup") else "ours"
    add("--servers", default=servers, metavar="NAMES", help="with commas (%(default)s)")
    add("--interpreter", action="append", default=[], metavar="PYTHON", help="more for ours")
    add("--server-core", type=int, default=default_cores().server, help="(%(default)s)")
    add("--generator-core", type=int, default=default_cores().generator, help="(%(default)s)")
    if command != "idle":
        rounds = startup.DEFAULT_ROUNDS if command == "startup" else 5
        add("--rounds", type=positive, default=rounds, help="of each (%(default)s)")
    if command == "compare":
        add("--scenarios", default="all", metavar="NAMES", help="with commas (%(default)s)")
        add("--json", type=Path, metavar="FILE", help="write all runs")
    if command == "idle":
        add("--connections", type=counts, default=counts(DEFAULT_CONNECTIONS), metavar="N,N")
    if command != "startup":
        seconds = idle.DEFAULT_SECONDS if command == "idle" else 2.0
        add("--seconds", type=float, default=seconds, help="of a window (%(default)s)")
        add("--warm-up", type=float, default=WARM_UP, help="seconds before it (%(default)s)")


def positive(text: str) -> int:
    """Return the number of an option.

    Raises:
        ValueError: it is none, or below 1.
    """
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def counts(text: str) -> list[int]:
    """Return the numbers of an option that takes several."""
    return [positive(part) for part in text.split(",")]


def default_cores() -> Cores:
    """Return the first core for the server and the last for the generator; see ``usual_cores``."""
    return usual_cores(available_cores())


def usual_cores(available: Sequence[int]) -> Cores:
    """Return who gets which of the cores; with a single one, both may use it."""
    if len(available) < 2:
        return Cores(None, None)
    return Cores(available[0], available[-1])


def select_scenarios(names: str) -> list[Scenario]:
    """Return the loads that a list of names with commas stands for.

    Raises:
        ValueError: there is none of that name.
    """
    wanted = list(SCENARIOS) if names == "all" else names.split(",")
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        raise ValueError(f"there is no scenario {unknown[0]!r}: {', '.join(SCENARIOS)}, all")
    return [SCENARIOS[name] for name in dict.fromkeys(wanted)]


# --- commands -----------------------------------------------------------------------------------


def prepare_servers(options: argparse.Namespace) -> Prepared:
    """Return the servers that can be measured; the others are named.

    Raises:
        CannotRun: none can.
    """
    if not sys.platform.startswith("linux"):
        raise CannotRun("this needs Linux: it reads /proc and pins processes to cores")
    raise_descriptor_limit()
    prepared = prepare(select(options.servers), options.interpreter)
    for name, reason in prepared.missing.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if not prepared.servers:
        raise CannotRun("no server can be measured here")
    return prepared


def raise_descriptor_limit() -> None:
    """Allow as many descriptors as this system does, here and in all that is started."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settings_of(options: argparse.Namespace) -> Settings:
    """Return how runs are made.

    Raises:
        CannotRun: there is no generator.
    """
    cores = Cores(options.server_core, options.generator_core)
    if cores.server == cores.generator:
        print("server and generator share a core: believe no rate", file=sys.stderr)
    return Settings(compile_generator(), cores, options.seconds, options.warm_up)


def run_compare(options: argparse.Namespace) -> int:
    """Measure servers under load."""
    scenarios = select_scenarios(options.scenarios)
    prepared, settings = prepare_servers(options), settings_of(options)
    missing = dict(prepared.missing)
    for scenario in scenarios:
        if not settings.generator.can(scenario):
            missing[scenario.name] = "the generator was compiled without OpenSSL"
    scenarios = [scenario for scenario in scenarios if scenario.name not in missing]
    runs: list[Measurement] = []
    is_interrupted = False
    try:
        for run in compare.measure_all(prepared.servers, scenarios, options.rounds, settings):
            runs.append(run)
            print(progress(run), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        is_interrupted = True
    used = {"rounds": options.rounds, "seconds": options.seconds, "warm-up": options.warm_up}
    stored = document(describe(prepared.versions), used, missing, runs)
    if options.json:
        options.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    show_tables(stored, options)
    return 1 if is_interrupted or any(run.error for run in runs) else 0


def progress(run: Measurement) -> str:
    """Return the line that tells of one run."""
    figures = f"{number(run.cpu_us):>8} us {number(run.rate):>10}/s"
    return f"{run.round} {run.scenario:<4} {run.server:<22} {run.error or figures}"


def show_tables(stored: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the tables, and write them where that is asked for."""
    text = markdown(stored, options.reference)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")


def run_tables(options: argparse.Namespace) -> int:
    """Make tables of runs that were kept; of several files, all runs together."""
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in options.files]
    stored = documents[0]
    for other in documents[1:]:
        stored["measurements"] += other["measurements"]
    show_tables(stored, options)
    return 0


def run_idle(options: argparse.Namespace) -> int:
    """Measure idle connections."""
    prepared, settings = prepare_servers(options), settings_of(options)
    results = []
    for each in idle.measure_all(prepared.servers, options.connections, options.seconds, settings):
        print(f"{each.connections} {each.server}", file=sys.stderr, flush=True)
        results.append(each)
    print(describe_line(prepared))
    print(idle.table(results))
    return 0


def run_fairness(options: argparse.Namespace) -> int:
    """Measure a healthy connection beside a flood; the status tells whether the bound held."""
    prepared, settings = prepare_servers(options), settings_of(options)
    results = [
        fairness.measure_fairness(server, options.rounds, settings) for server in prepared.servers
    ]
    print(describe_line(prepared))
    print(fairness.table(results))
    return 0 if all(each.is_fair for each in results) else 1


def run_timers(options: argparse.Namespace) -> int:
    """Measure timers."""
    costs = list(timers.measure_timers(options.count, options.rounds))
    print(describe_line(Prepared([], {}, {})))
    print(timers.table(costs, options.count))
    return 0


def run_memory(options: argparse.Namespace) -> int:
    """Measure the objects of idle connections; the status tells whether the bound was kept."""
    raise_descriptor_limit()
    costs = memory.measure_memory(options.connections)
    print(describe_line(Prepared([], {}, {})))
    print(memory.table(costs))
    return 0 if memory.is_kept(costs) else 1


def run_startup(options: argparse.Namespace) -> int:
    """Measure imports and starts."""
    prepared = prepare_servers(options)
    cores = Cores(options.server_core, options.generator_core)
    results = startup.measure_startup(prepared.servers, options.rounds, cores)
    print(describe_line(prepared))
    print(startup.table(results))
    return 0


def describe_line(prepared: Prepared) -> str:
    """Return in one line what figures were taken on."""
    return ", ".join(describe(prepared.versions).values()) + "\n"


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("bench: run this with Python 3.9 or newer")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
