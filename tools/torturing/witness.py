"""A healthy client in a process of its own: how soon is it served while others misbehave?

    python3 tools/torturing/witness.py PORT

Sends a message 50 times a second until its input ends, and prints the latencies in seconds as JSON.
The thread that plays many clients is too busy with them to look at the clock in time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (1, 2)]

from torturing.healthy import Prober
from torturing.process import HOST
from torturing.swarm import Swarm


class Witness:
    """Run a witness inside a ``with`` block.

    Args:
        address: of the server.

    Attributes:
        latencies: the seconds, in order; filled at the end of the block.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._command = [sys.executable, str(Path(__file__).resolve()), str(address[1])]
        self.latencies: list[float] = []

    def __enter__(self) -> Witness:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # the first answer is there
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        output, _ = self._process.communicate()
        if kind is None:
            self.latencies = json.loads(output)


def watch(port: int) -> list[float]:
    """Probe until our input ends."""
    reader = threading.Thread(target=sys.stdin.read, daemon=True)
    reader.start()
    latencies: list[float] = []
    with Swarm((HOST, port)) as swarm:
        prober = swarm.open(Prober, latencies=latencies, every=0.02)
        swarm.run_until("the first answer", lambda: len(latencies) > 0)
        print("ready", flush=True)
        swarm.run_until("the end", lambda: not reader.is_alive(), timeout=600)
        prober.settle()
    return latencies


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]))))
