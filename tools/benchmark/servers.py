"""The servers that are measured: how each is started, and what it can do.

Each runs a module of ``peers/``, listens on 127.0.0.1, echoes on ``/``, and sends what arrives on
``/publish`` to all others. Every library keeps its own defaults but for sizes and the backlog.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from check import ROOT, variables

from benchmark.processes import started
from benchmark.scenarios import DEFLATE, TLS, Scenario

HOST = "127.0.0.1"
TOOLS = ROOT / "tools"
CERTIFICATE = ROOT / "tests" / "certificates" / "server.pem"

PURE, ACCELERATED, BUSY = "ours-pure", "ours-accelerated", "ours-busy-poll"
OURS = (PURE, ACCELERATED)

# Seconds for a server to listen.
PATIENCE = 20.0


class ServerFailed(Exception):
    """Report in one line why a server could not be measured."""


@dataclass(frozen=True)
class Server:
    """Describe a server.

    Args:
        name: for the command line and the tables.
        script: the module in ``peers/``.
        module: what a program imports to serve with it.
        requirements: the distributions that it takes, by name.
        options: for the script.
        features: what it can do of ``DEFLATE`` and ``TLS``.
        compression: level and memory level that it compresses with; the window is negotiated.
        environment: variables for its process.
        folder: where our packages are installed for it; empty for the peers.
        python: the interpreter; empty for that of the peers.
    """

    name: str
    script: str
    module: str
    requirements: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    features: frozenset[str] = frozenset({DEFLATE, TLS})
    compression: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    python: str = ""

    @property
    def is_ours(self) -> bool:
        """Tell whether it is one of ours, under whatever interpreter."""
        return self.name.startswith((*OURS, BUSY))

    def can(self, scenario: Scenario) -> bool:
        """Tell whether it can be put under a load."""
        return scenario.needs <= self.features

    def command(self, port: int, needs: Iterable[str]) -> list[str]:
        """Return the command that starts it.

        Args:
            port: to listen on.
            needs: what it must do of ``DEFLATE`` and ``TLS``.
        """
        command = [self.python, "-m", f"benchmark.peers.{self.script}", str(port), *self.options]
        command += ["--deflate"] if DEFLATE in needs else []
        return command + (["--tls", str(CERTIFICATE)] if TLS in needs else [])

    def variables(self) -> dict[str, str]:
        """Return the variables of its process."""
        path = os.pathsep.join(filter(None, (str(TOOLS), self.folder)))
        return {**variables(os.environ), "PYTHONPATH": path, **self.environment}


def _with_uvloop(server: Server) -> Server:
    """Return a server of asyncio on uvloop's loop."""
    return replace(
        server,
        name=f"{server.name}+uvloop",
        requirements=(*server.requirements, "uvloop"),
        options=("--loop", "uvloop"),
    )


_OURS = "level 1, memory level 5"
_PICOWS = Server("picows", "picows_echo", "picows", ("picows",), features=frozenset({TLS}))
_AIOHTTP = Server(
    "aiohttp", "aiohttp_echo", "aiohttp.web", ("aiohttp",), compression="level 1, memory level 8"
)
_WEBSOCKETS = Server(
    "websockets",
    "websockets_echo",
    "websockets.asyncio.server",
    ("websockets",),
    compression="level 6, memory level 5",
)

_ALL = (
    Server(ACCELERATED, "ours_echo", "websocket", compression=_OURS),
    Server(
        PURE,
        "ours_echo",
        "websocket",
        compression=_OURS,
        environment={"REACTOR_WEBSOCKET_PURE": "1"},
    ),
    # Half a millisecond awake after each message: a processor for latency.
    Server(BUSY, "ours_echo", "websocket", options=("--busy-poll", "0.0005"), compression=_OURS),
    _PICOWS,
    _with_uvloop(_PICOWS),
    _AIOHTTP,
    _with_uvloop(_AIOHTTP),
    Server(
        "socketify",
        "socketify_echo",
        "socketify",
        ("socketify",),
        features=frozenset({DEFLATE}),
        compression="its own default, memory level 5",
    ),
    Server(
        "tornado",
        "tornado_echo",
        "tornado.websocket",
        ("tornado",),
        compression="level 6, memory level 8",
    ),
    _WEBSOCKETS,
    _with_uvloop(_WEBSOCKETS),
)
SERVERS = {server.name: server for server in _ALL}


def select(names: str) -> list[str]:
    """Return the servers that a list of names with commas stands for.

    Args:
        names: of servers; "ours" for ours, pure and accelerated, "all" for all.

    Raises:
        ValueError: there is none of that name.
    """
    found: list[str] = []
    for name in names.split(","):
        group = {"all": tuple(SERVERS), "ours": OURS}.get(name, (name,))
        for each in group:
            if each not in SERVERS:
                raise ValueError(f"there is no server {each!r}: {', '.join(SERVERS)}, ours, all")
        found += group
    return list(dict.fromkeys(found))


class Running(NamedTuple):
    """Hold what is known of a server that listens."""

    server: Server
    pid: int
    port: int
    log: Path


@contextmanager
def running(server: Server, needs: Iterable[str], core: int | None, log: Path) -> Iterator[Running]:
    """Run a server on one core for as long as the block takes.

    Raises:
        ServerFailed: it ended instead of listening, or takes too long.
    """
    port = find_free_port()
    command: Sequence[str] = server.command(port, needs)
    with (
        log.open("wb") as output,
        started(
            command, core, output, stdout=output, stdin=subprocess.DEVNULL, env=server.variables()
        ) as process,
    ):
        wait_until_listening(process, port, log)
        yield Running(server, process.pid, port, log)


def find_free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_listening(
    process: subprocess.Popen[bytes], port: int, log: Path, interval: float = 0.02
) -> None:
    """Wait until a program accepts connections.

    Args:
        process: that is to listen.
        port: where.
        log: its output.
        interval: seconds between two attempts.

    Raises:
        ServerFailed: it ended instead, or takes too long.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"it did not start: {last_line(log)}")
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            time.sleep(interval)
        else:
            return
    raise ServerFailed(f"it does not listen: {last_line(log)}")


def last_line(log: Path) -> str:
    """Return the end of a log, which is where Python names the exception."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was printed")
