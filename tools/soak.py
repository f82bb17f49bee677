"""Run a server for a long time under everything at once, and see that nothing is left behind.

    python3 tools/soak.py --minutes 20

A server process with sessions, compression, limits and short deadlines gets at the same time:
clients that come and go in every way, slow readers, silent ones, processes that are killed,
sessions resumed in time and too late, mutated requests and frames, and messages pushed to all.
Meanwhile healthy clients look at every echo and at the time. At the end all leave: descriptors and
timers must be back where they were, the counters must add up, the memory must not have grown, and
the log must tell of no error. What acts stands in ``tools/soaking/``. Linux only.

The load is kept to some 1.2 processors, so that other things may run beside it. The exit status is
0 when every limit was kept, 1 when one was missed, 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # The packages of this checkout, installed or not; tests import what is installed.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from soaking.actors import ADDRESSES, DETACHED_LIFETIME, Troupe
from soaking.killers import Killer
from soaking.samples import HEADINGS as SAMPLE_HEADINGS
from soaking.samples import Sample, Throttle, growth, take_sample
from torturing.figures import HEADINGS, Figure, exactly, line, percentile
from torturing.leaks import balanced, is_empty
from torturing.process import ServerProcess, allow_many_descriptors, is_supported
from torturing.swarm import Swarm, now_and_then

MAX_MINUTES = 120.0
# Everything that takes seconds by default takes a few here, so that it happens often.
LIMITS: dict[str, Any] = {
    "ping_interval": 1.0,
    "ping_timeout": 2.0,
    "handshake_timeout": 3.0,
    "message_timeout": 3.0,
    "close_timeout": 2.0,
    "write_stall_timeout": 3.0,
    "detached_lifetime": DETACHED_LIFETIME,
    "loopback_is_exempt": False,
    "handshakes_per_minute": 300,
    "message_rate": 200,
}
_PUSH = "/push?every=0.05&size=40000"


class Soak:
    """Run one soak.

    Args:
        minutes: how long.
        seed: of all chance.
        cpus: how many processors may be busy.
        interval: seconds between two samples.
    """

    def __init__(self, minutes: float, seed: str, cpus: float, interval: float = 5.0) -> None:
        self._minutes = minutes
        self._seed = seed
        self._cpus = cpus
        self._interval = interval

    def figures(self) -> Iterator[Figure]:
        """Run it, print samples on the way, and yield the figures at the end.

        Raises:
            TimeoutError: something did not happen in time.
            Misbehaviour: the server did what no server may do.
        """
        with ServerProcess(compression=True, **LIMITS) as server, Swarm(server.address) as swarm:
            server.get(_PUSH)
            descriptors, objects = server.descriptors_at_rest(), server.objects()
            troupe = Troupe(swarm, self._seed)
            killer = Killer(swarm, self._seed)
            try:
                samples = self._run(server, swarm, troupe, killer)
            finally:
                killer.end()
            disturbed = len(troupe.disturbed)
            troupe.end()
            swarm.run_until("the clients are gone", lambda: not swarm.clients)
            swarm.run_until("the server is empty", now_and_then(lambda: is_empty(server), 0.2))
            yield from _served(server, troupe, killer, disturbed)
            yield growth(samples)
            after = server.objects()
            left = server.descriptors_at_rest() - descriptors
            yield exactly("descriptors more than before", left, 0)
            yield exactly("timers more than before", after["timers"] - objects["timers"], 0)
            # Each address that came has a bucket, until that is full again.
            more = after["objects"] - objects["objects"]
            yield Figure("objects more than before", more, most=len(ADDRESSES) + 200)
            yield from balanced(server)
            yield exactly("errors logged", len(server.faults()), 0)
            server.terminate()
            swarm.run_until("the server ends", lambda: server.exit_status() is not None)
            yield exactly("exit status", server.exit_status() or 0, 0)

    def _run(
        self, server: ServerProcess, swarm: Swarm, troupe: Troupe, killer: Killer
    ) -> list[Sample]:
        """Let all act until the time is over; return the samples."""
        throttle = Throttle(
            lambda: time.process_time() + server.cpu_seconds() + killer.cpu, self._cpus
        )
        troupe.begin()
        killer.begin()
        print(SAMPLE_HEADINGS, flush=True)
        samples: list[Sample] = []
        started_at = time.monotonic()
        while (left := started_at + 60 * self._minutes - time.monotonic()) > 0:
            swarm.run(min(left, self._interval))
            troupe.pace = throttle.adjust()
            samples.append(take_sample(server, started_at))
            is_first_of_minute = len(samples) * self._interval % 60 < self._interval
            if is_first_of_minute or len(samples) == 1:
                print(samples[-1].line(throttle.cpus, throttle.pace), flush=True)
        return samples


def _served(
    server: ServerProcess, troupe: Troupe, killer: Killer, disturbed: int
) -> Iterator[Figure]:
    """Yield what happened, and how the healthy fared meanwhile."""
    facts = server.facts()
    yield Figure("connections opened", facts["opened"])
    yield Figure("handshakes failed", facts["failed"])
    yield Figure("sessions resumed", facts["sessions"]["resumed"])
    yield Figure("processes killed", killer.killed)
    for cause, count in facts["closed_by_cause"].items():
        if count:
            yield Figure(f"ended as {cause}", count)
    yield exactly("healthy clients disturbed", disturbed, 0)
    yield Figure("echoes", len(troupe.latencies), least=1)
    yield Figure("echo after, 50 %", percentile(troupe.latencies, 0.5), "s")
    yield Figure("echo after, 99 %", percentile(troupe.latencies, 0.99), "s", most=0.2)
    yield Figure("echo after, worst", max(troupe.latencies, default=0.0), "s")
    yield Figure("pushed messages late by, 99 %", percentile(troupe.lateness, 0.99), "s", most=0.2)


def main(arguments: Sequence[str]) -> int:
    """Run a soak and return the exit status."""
    options = parse_arguments(arguments)
    if not is_supported():
        print("soak: this needs Linux: it reads /proc", file=sys.stderr)
        return 2
    allow_many_descriptors()
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}, "
        f"{options.minutes:g} minutes, seed {options.seed}"
    )
    return report(Soak(options.minutes, options.seed, options.cpus))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Run a server under everything at once.")
    parser.add_argument(
        "--minutes",
        type=minutes,
        default=20.0,
        metavar="N",
        help=f"how long, up to {MAX_MINUTES:g} (default: %(default)g)",
    )
    parser.add_argument("--seed", default="0", help="of all chance (default: %(default)s)")
    parser.add_argument(
        "--cpus",
        type=float,
        default=1.2,
        metavar="N",
        help="how many processors may be busy (default: %(default)g)",
    )
    return parser.parse_args(arguments)


def minutes(text: str) -> float:
    """Return the number of minutes of an option.

    Raises:
        ValueError: it is none, or out of bounds.
    """
    number = float(text)
    if not 0 < number <= MAX_MINUTES:
        raise ValueError
    return number


def report(soak: Soak) -> int:
    """Run it, print the figures, and return the exit status."""
    missed = 0
    lines = ["", HEADINGS]
    try:
        for figure in soak.figures():
            lines.append(line("soak", figure))
            missed += not figure.is_met
    except Exception as error:
        lines.append(f"| soak | {type(error).__name__}: {error} | | | FAILED |")
        missed += 1
    print("\n".join(lines))
    print(f"\n{missed} limits missed" if missed else "\nevery limit was kept")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("soak: run this with Python 3.9 or newer")
    sys.exit(main(sys.argv[1:]))
