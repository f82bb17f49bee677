"""Inputs by chance: the engine that needs nothing but the standard library.

A unit of work is a target, a seed and a number of inputs. Its first inputs come from the target's
generator; the others are mutations of those. The same unit has the same inputs everywhere, so the
same ``--seed`` finds the same. Units run in worker processes; nothing is shared but their results.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from typing import NamedTuple

from fuzzing.findings import Finding, TooSlow, judge, minimised
from fuzzing.mutation import mutate
from fuzzing.properties import seeded
from fuzzing.targets import TARGETS, Target

UNIT_SIZE = 2_000
POOL_SIZE = 200
# Seconds for a unit, which takes about one; what is over that hangs.
PATIENCE = 120.0


class Unit(NamedTuple):
    """Name some inputs of one target; the seed says which."""

    target: str
    seed: str
    size: int


class Result(NamedTuple):
    """Hold what became of a unit; ``inputs`` ends with the one that was found, if any."""

    target: str
    inputs: int
    seconds: float
    finding: Finding | None


def run(
    names: Sequence[str], inputs: int | None, seconds: float | None, seed: str, jobs: int
) -> Iterator[Result]:
    """Run targets in turn and yield the results; a target ends with its first finding.

    Args:
        names: the targets.
        inputs: how many for each target; None for any number.
        seconds: how long to go on; None for any time.
        seed: says which inputs.
        jobs: how many processes to use.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    ended: set[str] = set()
    pending: set[Future[Result]] = set()
    units = _units(names, inputs, seed)
    with ProcessPoolExecutor(jobs, initializer=_ignore_interrupts) as executor:
        try:
            while True:
                while len(pending) < 2 * jobs and (unit := next(units, None)):
                    if unit.target not in ended:
                        pending.add(executor.submit(work, unit))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    if result.finding is not None:
                        ended.add(result.target)
                    yield result
                if ended.issuperset(names) or (deadline and time.monotonic() > deadline):
                    units = iter(())
        finally:
            executor.shutdown(cancel_futures=True)


def _units(names: Sequence[str], inputs: int | None, seed: str) -> Iterator[Unit]:
    """Yield the units, of all targets in turn."""
    for number in count():
        size = UNIT_SIZE if inputs is None else min(UNIT_SIZE, inputs - number * UNIT_SIZE)
        if size <= 0:
            return
        for name in names:
            yield Unit(name, f"{seed}/{name}/{number}", size)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent, which lets the units under way end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work(unit: Unit) -> Result:
    """Explore a unit in a worker process; where the system has timers, one ends what hangs."""
    if not hasattr(signal, "setitimer"):
        return explore(unit)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return explore(unit)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _stop(*_: object) -> None:
    raise TooSlow(f"a check was still at work after {PATIENCE:g} seconds")


def explore(unit: Unit) -> Result:
    """Check the inputs of a unit, up to the first that brings something to light."""
    target = TARGETS[unit.target]
    started = time.perf_counter()
    inputs, finding = 0, None
    for data in make_inputs(target, unit):
        inputs += 1
        finding = judge(target.name, target.check, data)
        if finding is not None:
            finding = minimised(finding, target.check)
            break
    return Result(target.name, inputs, time.perf_counter() - started, finding)


def make_inputs(target: Target, unit: Unit) -> Iterator[bytes]:
    """Yield the inputs of a unit: generated ones, then mutations of those."""
    source = seeded(unit.seed)
    pool = [target.generate(source) for _ in range(min(POOL_SIZE, unit.size))]
    yield from pool
    words = [*target.dictionary, *pool[: len(target.dictionary)]]
    for number in range(unit.size - len(pool)):
        yield mutate(source, pool[number % len(pool)], words)
