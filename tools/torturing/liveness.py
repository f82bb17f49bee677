"""Rows about peers that are silent, slow or merely waiting, and how long that may last."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torturing.client import Client, Phase, request
from torturing.figures import Figure, exactly
from torturing.healthy import Prober
from torturing.process import ServerProcess
from torturing.swarm import Swarm, everyone, now_and_then

ROOT = Path(__file__).resolve().parent.parent.parent
# A tick of the reactor's wheel, and what two busy processes need to notice.
_LATE = 0.01 + 0.05


class Dripping(Client):
    """Read a byte now and then."""

    __slots__ = ("_every",)

    def __init__(self, swarm: Swarm, *, every: float, **options: Any) -> None:
        super().__init__(swarm, **options)
        self._every = every

    def on_open(self) -> None:
        """Begin."""
        self.pause()
        self.swarm.call_later(self._every, self._drip)

    def _drip(self) -> None:
        self.read(1)
        self.swarm.call_later(self._every, self._drip)


class Mute(Client):
    """Read, but answer no ping."""

    __slots__ = ()

    def on_open(self) -> None:
        """Say nothing from here on."""
        self.answers_pings = False


def dripping_reader(stall: float = 2.0) -> Iterator[Figure]:
    """Read a byte a second of what fills every buffer (H87)."""
    server = ServerProcess(write_stall_timeout=stall, ping_interval=None)
    with server, Swarm(server.address) as swarm:
        swarm.open(Dripping, every=1.0, request=request("/fill"), receive_buffer=64 * 1024)
        # What lies in the kernel hides the end from the client: the server says when it was.
        swarm.run_until("it is cut", now_and_then(lambda: bool(server.facts()["ends"])))
        cause, _, age = server.facts()["ends"][0]
        yield Figure("dripping: cut after", age, "s", stall, stall + _LATE)
        yield exactly("dripping: as slow_consumer", cause == "slow_consumer", 1)


def silent_peers(interval: float = 1.0, timeout: float = 1.0) -> Iterator[Figure]:
    """Be there and not be there: never ponging, not even reading, stopped as a process (H88)."""
    server = ServerProcess(ping_interval=interval, ping_timeout=timeout)
    with server, Swarm(server.address) as swarm:
        answering = swarm.open(Client)
        mute = swarm.open(Mute)
        silent = swarm.open(Client)
        swarm.run_until("they are open", lambda: swarm.counts[Phase.OPEN] == 3)
        silent.pause()
        swarm.run_until("both are cut", everyone([mute, silent], Client.is_cut))
        yield _cut_after("never ponging: cut after", mute, interval + timeout)
        yield exactly("never ponging: close code", mute.close_code or 0, 1011)
        yield _cut_after("not reading: cut after", silent, interval + timeout)
        causes = server.facts()["closed_by_cause"]
        yield exactly("as ping_timeout", causes["ping_timeout"], 2)
        yield _stopped_process(server, swarm, interval + timeout)
        yield exactly("a peer that pongs: still open", not answering.is_cut(), 1)
        yield Figure("a peer that pongs: pings so far", answering.pings, least=3)


def _stopped_process(server: ServerProcess, swarm: Swarm, expected: float) -> Figure:
    """Stop a client of the command line, and have the server say when it was cut."""
    host, port = server.address
    command = [sys.executable, "-m", "websocket", "connect", f"ws://{host}:{port}/"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert process.stderr is not None
        process.stderr.readline()  # "connected"
        process.send_signal(signal.SIGSTOP)
        swarm.run_until(
            "the stopped process is cut", now_and_then(lambda: len(server.facts()["ends"]) == 3)
        )
    finally:
        process.kill()
        process.communicate()
    age = server.facts()["ends"][-1][2]
    return Figure("stopped process: cut after", age, "s", expected, expected + _LATE)


def _cut_after(what: str, client: Client, expected: float) -> Figure:
    """Return how long after its opening a client was cut, as it is found to be cut just now."""
    assert client.opened_at is not None
    seconds = time.monotonic() - client.opened_at
    # Our clock starts when the answer arrives, the server's when it sent it.
    return Figure(what, seconds, "s", expected - 0.02, expected + _LATE)


def blocked_loop(clients: int = 1_000, seconds: float = 4.0) -> Iterator[Figure]:
    """Hold the loop up for longer than pings may take (H90)."""
    server = ServerProcess(ping_interval=seconds / 4, ping_timeout=seconds / 4)
    with server, Swarm(server.address) as swarm:
        everybody = swarm.open_many(clients, Client)
        swarm.run(seconds / 2)
        blocker = swarm.open(Client, request=request("/block"))
        swarm.run_until("the blocking client is open", lambda: blocker.phase is Phase.OPEN)
        blocker.send(str(seconds))
        block = swarm.run_until("the block is over", lambda: blocker.messages > 0)
        latencies: list[float] = []
        prober = swarm.open(Prober, latencies=latencies)
        swarm.run(seconds)
        prober.settle()
        yield Figure("the loop was held up for", block, "s", least=seconds)
        ended = sum(each.phase is Phase.ENDED for each in everybody)
        yield exactly(f"disconnects of {clients:,} clients", ended, 0)
        yield Figure("pings for each", sum(each.pings for each in everybody) / clients, least=4)
        yield Figure("served afterwards, worst", max(latencies), "s", most=0.2)
        warnings = [
            line
            for line in server.log().splitlines()
            if line.startswith("WARNING") and "Blocking" in line
        ]
        yield exactly("warnings that name who held the loop up", len(warnings), 1)
