"""Processes on Linux: the core that they run on, their processor time, their memory, their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

KIB = 1024

# Seconds between two looks at a process that is about to run out of work, and how many.
_SETTLE_INTERVAL = 0.01
_SETTLE_LOOKS = 100
# Seconds of processor time between two looks that count as none: a timer may run.
_SETTLED = 0.0002
# Seconds for a process to end once it is told to.
_PATIENCE = 2.0


def available_cores() -> list[int]:
    """Return the cores that this process may use; none where it cannot choose, as on PyPy."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Have processes that are started in this block run on one core; on any with None."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(
    command: Sequence[str], core: int | None, log: IO[bytes], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core for as long as the block takes, in a process group of its own.

    Ctrl-C reaches this process only, and this ends the group with all that it has started.
    """
    with pinned(core):
        process = subprocess.Popen(command, stderr=log, start_new_session=True, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: politely, then for certain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text(encoding="ascii").split())
            except OSError:  # the thread has just ended
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its descendants, in seconds.

    Read from the clocks of the processes, which count nanoseconds; /proc counts in hundredths.
    """
    # linux/posix-timers.h: the clock of another process is the complement of its id, and a kind.
    return sum(time.clock_gettime((~each << 3) | 2) for each in tree(pid))


def settled_cpu_seconds(pid: int) -> float:
    """Wait until a server has nothing more to do, and return its processor time."""
    now = cpu_seconds(pid)
    for _ in range(_SETTLE_LOOKS):
        time.sleep(_SETTLE_INTERVAL)
        before, now = now, cpu_seconds(pid)
        if now - before < _SETTLED:
            break
    return now


def memory(pid: int) -> int:
    """Return the resident memory of a process and its descendants, in bytes."""
    return sum(_resident(each) for each in tree(pid))


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(match.group(1)) * KIB if match else 0
