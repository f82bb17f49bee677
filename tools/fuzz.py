"""Fuzz every parser of the project: no bytes may do what is not documented.

    python3 tools/fuzz.py                                 all targets, for a minute
    python3 tools/fuzz.py --inputs 100000 --seed 7        so many inputs for each, always the same
    python3 tools/fuzz.py --targets request url --seconds 600

Any bytes must give events or a documented failure; the same bytes, however they are cut, the same
events and the same failure; and what is read, written and read again, must be the same. What is
fuzzed, and how, stands in ``tools/fuzzing/``.

With atheris installed (CPython on Linux and macOS: ``pip install atheris``) inputs are made by
coverage, else by chance from ``--seed``. The targets named after wsproto are there when that
library is installed: it reads the same frames and must find the same.

A finding is printed as the target, the exception, and the input as a Python literal, made smaller.
The exit status is 0 when nothing was found, 1 when something was, 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

if __name__ == "__main__":
    # The packages of this checkout, installed or not; tests import what is installed.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzzing import atheris_engine, random_engine
from fuzzing.findings import Finding
from fuzzing.random_engine import Result
from fuzzing.targets import TARGETS

ENGINES = {"atheris": atheris_engine.run, "random": random_engine.run}
DEFAULT_SECONDS = 60.0
# Seconds between two lines that tell how far a long run is.
PROGRESS = 30.0


def main(arguments: Sequence[str]) -> int:
    """Run the targets and return the exit status."""
    options = parse_arguments(arguments)
    if options.engine == "atheris" and not atheris_engine.IS_INSTALLED:
        print("fuzz: atheris is not installed: try --engine random", file=sys.stderr)
        return 2
    run = ENGINES[options.engine]
    results = run(options.targets, options.inputs, options.seconds, options.seed, options.jobs)
    print(f"engine {options.engine}, seed {options.seed}, {options.jobs} jobs", flush=True)
    return report(watch(results))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Fuzz every parser of the project.")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="atheris" if atheris_engine.IS_INSTALLED else "random",
        help="how inputs are made (default here: %(default)s)",
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        default=list(TARGETS),
        metavar="NAME",
        help=f"what to fuzz (default: all): {', '.join(TARGETS)}",
    )
    parser.add_argument("--inputs", type=positive, metavar="N", help="inputs for each target")
    parser.add_argument(
        "--seconds",
        type=positive,
        metavar="S",
        help=f"time for all targets (default without --inputs: {DEFAULT_SECONDS:g})",
    )
    parser.add_argument("--seed", default="0", help="which inputs (default: %(default)s)")
    parser.add_argument(
        "--jobs",
        type=positive,
        default=2,
        metavar="N",
        help="processes at the same time (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.inputs is None and options.seconds is None:
        options.seconds = DEFAULT_SECONDS
    return options


def positive(text: str) -> int:
    """Return the number of an option.

    Raises:
        ValueError: it is none, or below 1.
    """
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def watch(results: Iterable[Result]) -> list[Result]:
    """Return the results of a run, of one that is interrupted those so far.

    Findings, and how far it is, are told while it runs.
    """
    seen: list[Result] = []
    inputs, started, reported = 0, time.monotonic(), time.monotonic()
    try:
        for result in results:
            seen.append(result)
            inputs += result.inputs
            now = time.monotonic()
            if result.finding is not None:
                print(f"FOUND {result.finding}", flush=True)
            elif now - reported > PROGRESS:
                print(f"{inputs:,} inputs in {now - started:.0f} s", flush=True)
                reported = now
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    return seen


def report(results: Sequence[Result]) -> int:
    """Print what each target did, and the sum; return the exit status."""
    findings = distinct(result.finding for result in results)
    print(table(results))
    for finding in findings:
        print(f"\nFOUND {finding}")
    count = sum(result.inputs for result in results)
    print(f"\n{count:,} inputs, {len(findings)} findings")
    return 1 if findings else 0


def distinct(findings: Iterable[Finding | None]) -> list[Finding]:
    """Return one finding for each target and place, the one with the shortest input."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        if finding is not None:
            key = (finding.target, finding.place)
            found[key] = min(found.get(key, finding), finding, key=lambda each: len(each.data))
    return list(found.values())


def table(results: Iterable[Result]) -> str:
    """Return inputs and rate of each target, in the order in which they first ended."""
    inputs: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, float] = defaultdict(float)
    for result in results:
        inputs[result.target] += result.inputs
        seconds[result.target] += result.seconds
    lines = [f"{'target':<18} {'inputs':>12} {'seconds':>9} {'inputs/s':>9}"]
    for name, count in inputs.items():
        rate = count / max(seconds[name], 1e-6)
        lines.append(f"{name:<18} {count:>12,} {seconds[name]:>9.1f} {rate:>9,.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("fuzz: run this with Python 3.9 or newer")
    sys.exit(main(sys.argv[1:]))
