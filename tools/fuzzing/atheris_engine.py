"""Inputs by coverage: each target in a process of its own, under atheris and its libFuzzer.

What was found interesting is kept in ``.tox/fuzz/corpus/``, so that the next run begins where this
one ended. libFuzzer ends its process at the first finding, and leaves the input in a file; a
process without atheris then judges it and makes it smaller.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.util import find_spec
from pathlib import Path

from check import ROOT, read, variables

from fuzzing.findings import Finding, TooSlow, judge, minimised
from fuzzing.mutation import MAX_SIZE
from fuzzing.properties import seeded
from fuzzing.random_engine import POOL_SIZE, Result
from fuzzing.targets import TARGETS, Target

WORK = ROOT / ".tox" / "fuzz"
IS_INSTALLED = find_spec("atheris") is not None

# Seconds for one input.
_TIMEOUT = 20
_EXECUTED = re.compile(r"^(?:#|stat::number_of_executed_units: |Done )(\d+)", re.MULTILINE)


def run(
    names: Sequence[str], inputs: int | None, seconds: float | None, seed: str, jobs: int
) -> Iterator[Result]:
    """Run each target once, some at the same time, and yield the results.

    Args:
        names: the targets.
        inputs: how many for each target; None for any number.
        seconds: how long to go on with all of them; None for any time.
        seed: says which inputs to begin with, and how libFuzzer mutates.
        jobs: how many processes to use.
    """
    share = None if seconds is None else max(1, round(seconds * jobs / len(names)))
    with ThreadPoolExecutor(jobs) as executor:
        futures = [
            executor.submit(_run_target, TARGETS[name], inputs, share, seed) for name in names
        ]
        for future in as_completed(futures):
            yield future.result()


def _run_target(target: Target, inputs: int | None, seconds: int | None, seed: str) -> Result:
    """Run libFuzzer on one target to its end."""
    folder = WORK / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob("*-*"):
        left.unlink()
    log = folder / "log"
    command = [
        *(sys.executable, "-m", "fuzzing.atheris_process", target.name),
        *(f"-artifact_prefix={folder}{os.sep}", f"-max_len={MAX_SIZE}", f"-timeout={_TIMEOUT}"),
        *(f"-seed={seeded(seed).getrandbits(31)}", f"-dict={write_dictionary(target)}"),
        *([] if inputs is None else [f"-runs={inputs}"]),
        *([] if seconds is None else [f"-max_total_time={seconds}"]),
        str(write_corpus(target, seed)),
    ]
    started = time.monotonic()
    path = os.pathsep.join((str(ROOT), str(ROOT / "tools")))
    with log.open("wb") as output:
        status = subprocess.run(
            command,
            env={**variables(os.environ), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    took = time.monotonic() - started
    return Result(target.name, parse_executed(read(log)), took, find(target, folder, status))


def write_dictionary(target: Target) -> Path:
    """Write the target's words as libFuzzer reads them."""
    path = WORK / target.name / "dictionary"
    lines = ["".join(f"\\x{octet:02x}" for octet in word) for word in target.dictionary if word]
    path.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
    return path


def write_corpus(target: Target, seed: str) -> Path:
    """Add generated inputs to the target's corpus; return its folder."""
    folder = WORK / "corpus" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    source = seeded(f"{seed}/{target.name}")
    for number in range(POOL_SIZE):
        folder.joinpath(f"generated-{number}").write_bytes(target.generate(source))
    return folder


def parse_executed(log: str) -> int:
    """Return how many inputs were executed, by what libFuzzer wrote last about it."""
    numbers = _EXECUTED.findall(log)
    return int(numbers[-1]) if numbers else 0


def find(target: Target, folder: Path, status: int) -> Finding | None:
    """Return what a process has found, None when it ended well.

    Args:
        target: what it fuzzed.
        folder: where it leaves its artifacts, ``crash-...`` and the like.
        status: its exit status.
    """
    if status == 0:
        return None
    for artifact in folder.glob("*-*"):
        data = artifact.read_bytes()
        if artifact.name.startswith(("timeout-", "oom-")):
            error = f"{TooSlow.__name__}: {artifact.name.partition('-')[0]}"
            return Finding(target.name, data, error, str(artifact))
        finding = judge(target.name, target.check, data)
        if finding is not None:
            return minimised(finding, target.check)
    return Finding(target.name, b"", f"the process ended with status {status}", str(folder / "log"))
