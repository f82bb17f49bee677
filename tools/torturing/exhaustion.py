"""Rows about running out: of descriptors, and of the room in the backlog."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torturing.client import Client, Phase
from torturing.figures import Figure, exactly, percentile
from torturing.healthy import Prober, Visitor
from torturing.process import ServerProcess
from torturing.swarm import Swarm
from torturing.witness import Witness

# The listener rests for a second after it ran out, see reactor/listener.py.
_REST = 1.0


class Insisting(Client):
    """Connect, and connect again when turned away, until told to stop."""

    __slots__ = ()
    is_over = False
    turned_away = 0

    def on_end(self) -> None:
        """Come back."""
        if not Insisting.is_over and self.opened_at is None:
            Insisting.turned_away += 1
            self.swarm.open(Insisting)


def out_of_descriptors(
    descriptors: int = 256, pending: int = 80, seconds: float = 3.0
) -> Iterator[Figure]:
    """Use up the server's descriptors, keep asking for more, then free some (H44).

    Args:
        descriptors: the server's limit on open files.
        pending: how many clients keep trying to get in.
        seconds: how long.
    """
    server = ServerProcess(descriptors=descriptors, max_connections=10_000)
    with server, Swarm(server.address) as swarm:
        Insisting.is_over, Insisting.turned_away = False, 0
        latencies: list[float] = []
        for _ in range(10):
            swarm.open(Prober, latencies=latencies, every=0.1)
        began_at = time.monotonic()
        # Leaves none: the last of them are turned away.
        for _ in range(descriptors + pending):
            swarm.open(Insisting)
        swarm.run_until("the descriptors are used up", lambda: Insisting.turned_away > 0)
        latencies.clear()
        before = server.cpu_seconds()
        swarm.run(seconds)
        share = (server.cpu_seconds() - before) / seconds
        yield Figure("clients turned away meanwhile", Insisting.turned_away)
        yield Figure("CPU while out of descriptors", 100 * share, "%", most=5)
        yield Figure("open clients served, worst", max(latencies), "s", most=0.2)
        # Those who still wait are turned away first: each would take a descriptor once more.
        Insisting.is_over = True
        swarm.run_until("nobody waits", lambda: swarm.counts[Phase.OPEN] == len(swarm.clients))
        insisting = [each for each in swarm.clients if isinstance(each, Insisting)]
        for client in insisting[: descriptors // 2]:
            client.leave()
        times: list[float] = []
        freed_at = time.monotonic()
        for _ in range(descriptors // 4):
            swarm.open(Visitor, times=times)
        swarm.run_until("new clients served", lambda: len(times) == descriptors // 4)
        recovery = time.monotonic() - freed_at
        yield Figure("new clients served after some are freed", recovery, "s", most=_REST + 0.1)
        # One line is due at once, and one in each five seconds that it lasts.
        due = 1 + (time.monotonic() - began_at) // 5
        yield Figure("errors logged", len(server.faults()), most=due)


def burst(connections: int = 5_000) -> Iterator[Figure]:
    """Connect thousands of clients at once (H43)."""
    server = ServerProcess(max_connections=connections + 100, handshake_timeout=30)
    with server, Swarm(server.address) as swarm:
        with Witness(server.address) as witness:
            before = server.facts()["accepted"]
            started_at = time.monotonic()
            clients: list[Client] = []
            for number in range(connections):
                clients.append(swarm.open(Client))
                if number % 50 == 0:
                    swarm.turn(0)  # a request follows its connect
            asked = time.monotonic() - started_at
            swarm.run_until(
                "all have an answer",
                lambda: swarm.counts[Phase.OPEN] + swarm.counts[Phase.ENDED] == connections,
            )
            seconds = time.monotonic() - started_at
        yield Figure(f"to ask for {connections:,} connects", asked, "s")
        yield Figure("until the last was open", seconds, "s", most=10)
        yield exactly("open", sum(each.phase is Phase.OPEN for each in clients), connections)
        accepted = server.facts()["accepted"] - before - 1  # the one that asks
        yield exactly("accepted", accepted, connections)
        yield Figure("an open client meanwhile, 99 %", percentile(witness.latencies, 0.99), "s")
        yield Figure("an open client meanwhile, worst", max(witness.latencies), "s", most=0.2)
