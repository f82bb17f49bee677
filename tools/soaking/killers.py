"""Processes full of clients, and their killer: what SIGKILL leaves of a connection.

    python3 tools/soaking/killers.py PORT

is such a process; it runs until it is killed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (1, 2)]

from fuzzing.properties import seeded
from torturing.client import Client
from torturing.healthy import Prober
from torturing.process import HOST, cpu_seconds
from torturing.swarm import Swarm

_CLIENTS = 20


class Killer:
    """Start a process full of clients, kill it, start another; until told to stop.

    Args:
        swarm: has the timers.
        seed: of the times between.

    Attributes:
        killed: how many were.
        cpu: the processor time that those used, in seconds.
    """

    def __init__(self, swarm: Swarm, seed: str) -> None:
        self.killed = 0
        self.cpu = 0.0
        self._swarm = swarm
        self._chance = seeded(seed)
        self._command = [sys.executable, str(Path(__file__).resolve()), str(swarm.address[1])]
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start a process, and kill it some time."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        self._swarm.call_later(self._chance.uniform(2, 6), self._kill)

    def end(self) -> None:
        """Kill the last one."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                self.cpu += cpu_seconds(process.pid)
            process.kill()
            process.wait()
            self.killed += 1

    def _kill(self) -> None:
        if self._process is not None:
            self.end()
            self.begin()


def suffer(port: int) -> None:
    """Be many clients until killed."""
    with Swarm((HOST, port)) as swarm:
        for number in range(_CLIENTS):
            source = f"127.3.0.{1 + number}"
            if number % 2:
                swarm.open(Prober, latencies=[], every=0.2, source=source)
            else:
                swarm.open(Client, source=source)
        swarm.run(60)


if __name__ == "__main__":
    suffer(int(sys.argv[1]))
