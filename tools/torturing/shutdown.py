"""Rows about SIGTERM."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torturing.client import REQUEST, Client, Phase, has_ended, request
from torturing.figures import Figure, exactly, percentile
from torturing.process import ServerProcess
from torturing.swarm import Swarm, everyone

_GOING_AWAY = 1001


class Stubborn(Client):
    """Read the close frame, and do not answer it."""

    __slots__ = ()

    def on_open(self) -> None:
        """Be stubborn from here on."""
        self.answers_close = False


class Hesitant(Client):
    """Send half a request."""

    __slots__ = ()

    def on_connected(self) -> None:
        """Send the first half."""
        self.send_bytes(REQUEST[: len(REQUEST) // 2])


def idle_clients(clients: int = 10_000, grace: float = 10.0) -> Iterator[Figure]:
    """Terminate a server with thousands of idle clients (H120)."""
    server = ServerProcess(max_connections=clients + 100, shutdown_grace=grace)
    with server, Swarm(server.address) as swarm:
        everybody = swarm.open_many(clients, Client)
        started_at = time.monotonic()
        server.terminate()
        swarm.run_until(
            "the server has ended", lambda: server.exit_status() is not None, timeout=grace + 5
        )
        seconds = time.monotonic() - started_at
        swarm.run_until("everybody has ended", everyone(everybody, has_ended))
        yield exactly("exit status", server.exit_status() or 0, 0)
        yield Figure(f"drain of {clients:,}", seconds, "s", most=grace)
        told = [
            each.closed_at - started_at
            for each in everybody
            if each.close_code == _GOING_AWAY and each.closed_at is not None
        ]
        yield exactly("told 1001", len(told), clients)
        yield Figure("told until, first 10 %", percentile(told, 0.1), "s", most=grace / 2 * 0.2)
        yield Figure("told until, half", percentile(told, 0.5), "s", 0.15 * grace, 0.35 * grace)
        yield Figure("told until, last", max(told, default=0.0), "s", 0.4 * grace, 0.55 * grace)
        yield exactly("ended by a reset", sum(each.ending == "reset" for each in everybody), 0)


def unwilling_clients(each_kind: int = 100, grace: float = 2.0) -> Iterator[Figure]:
    """Terminate a server whose peers ignore that, and one that is told so twice (H121)."""
    server = ServerProcess(shutdown_grace=grace, close_timeout=20)
    with server, Swarm(server.address) as swarm:
        hesitant = _open_all(swarm, each_kind)
        seconds = _terminate(server, swarm)
        yield exactly("exit status", server.exit_status() or 0, 0)
        yield Figure("ended after", seconds, "s", grace - 0.05, grace + 0.5)
        swarm.run_until("the handshakes have ended", everyone(hesitant, has_ended))
        refused = sum(each.status == 503 for each in hesitant)
        yield exactly("handshakes answered with 503", refused, each_kind)
        yield exactly("errors logged", len(server.faults()), 0)
    server = ServerProcess(shutdown_grace=20, close_timeout=20)
    with server, Swarm(server.address) as swarm:
        _open_all(swarm, each_kind)
        server.terminate()
        swarm.run(0.5)
        yield exactly("still running half a second after SIGTERM", server.exit_status() is None, 1)
        seconds = _terminate(server, swarm)
        yield exactly("second SIGTERM: exit status", server.exit_status() or 0, 0)
        yield Figure("second SIGTERM: ended after", seconds, "s", most=0.5)


def _open_all(swarm: Swarm, each_kind: int) -> list[Hesitant]:
    """Open clients that ignore the close frame, that do not read, and that are not open yet."""
    swarm.open_many(each_kind, Stubborn)
    for client in swarm.open_many(each_kind, Client, request=request("/fill")):
        client.pause()
    hesitant = [swarm.open(Hesitant) for _ in range(each_kind)]
    swarm.run_until(
        "all are connected", lambda: swarm.counts[Phase.CONNECTED] == each_kind, timeout=5
    )
    return hesitant


def _terminate(server: ServerProcess, swarm: Swarm) -> float:
    """Ask the server to end, and return how long that took."""
    server.terminate()
    return swarm.run_until("the server has ended", lambda: server.exit_status() is not None)
