"""Our side in a run of the Autobahn test suite: send back whatever comes, in either role.

    python3 tools/autobahn_peer.py server --port PORT
    python3 tools/autobahn_peer.py client --url ws://127.0.0.1:PORT --agent NAME

Started by ``tools/autobahn.py``. The server runs until it gets SIGTERM. The client visits all cases
of a fuzzing server one after the other on one reactor, and asks for the report; its exit status is
0 when the suite answered to the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reactor import Reactor
from websocket import Connection, Deflate, Limits, Server, State, connect

# What group 9 takes: messages of 16 MiB, one of 4 MiB in fragments of 64 bytes, and no deadline or
# rate that a busy machine might meet.
LIMITS = Limits(
    max_message_size=16 * 1024 * 1024,
    max_fragments=70_000,
    message_timeout=None,
    control_rate=None,
)
# Groups 12 and 13, which inflate as much a second as both sides can, so without a rate, too. The
# widest policy agrees to all that is offered: context takeover where the suite has it, 9 bits or
# 15, and every message compressed.
POLICIES = {
    "default": Deflate(inflate_rate=None),
    "widest": Deflate(
        compress_bits=15,
        inflate_bits=15,
        compress_takeover=True,
        inflate_takeover=True,
        threshold=0,
        inflate_rate=None,
    ),
}


class Echo(Connection):
    """Send every message back."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Send it back."""
        self.send(message)

    def on_error(self, error: Exception) -> None:
        """Say what went wrong, for the log; in most cases something is meant to."""
        print(f"  {error}", flush=True)


class Listener(Connection):
    """Keep what the suite says."""

    __slots__ = ("message",)

    message: str | bytes

    def on_open(self) -> None:
        """Start with nothing said."""
        self.message = ""

    def on_message(self, message: str | bytes) -> None:
        """Keep it."""
        self.message = message

    def on_error(self, error: Exception) -> None:
        """Say what went wrong."""
        print(f"autobahn_peer: {error}", file=sys.stderr, flush=True)


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Tester:
    """Talk to one fuzzing server.

    Args:
        reactor: runs all connections.
        url: of the fuzzing server, without a path.
        agent: the name for its report.
        compression: what to offer.
    """

    def __init__(self, reactor: Reactor, url: str, agent: str, compression: Deflate) -> None:
        self._reactor = reactor
        self._url = url
        self._agent = agent
        self._compression = compression

    def run(self) -> bool:
        """Run all cases; tell whether the suite answered to the end."""
        counter = self._visit(Listener, "getCaseCount")
        if not counter.is_clean:
            return False
        for case in range(1, int(counter.message) + 1):
            print(f"case {case}", flush=True)
            self._visit(Echo, "runCase", case=case, agent=self._agent)
        return self._visit(Listener, "updateReports", agent=self._agent).is_clean

    def _visit(
        self, connection_class: type[AnyConnection], path: str, **query: Any
    ) -> AnyConnection:
        """Connect to one of the suite's paths and return when that connection is over."""
        connection = connect(
            self._reactor,
            f"{self._url}/{path}?{urlencode(query)}",
            connection_class,
            limits=LIMITS,
            compression=self._compression,
        )
        while connection.state is not State.CLOSED:
            self._reactor.run_once()
        return connection


def main(arguments: Sequence[str] | None = None) -> int:
    """Play one role and return the exit status."""
    parser = argparse.ArgumentParser(description="Be our side in a run of the test suite.")
    parser.add_argument("role", choices=("server", "client"))
    parser.add_argument("--port", type=int, help="of the server; on 127.0.0.1")
    parser.add_argument("--url", help="the client's fuzzing server")
    parser.add_argument("--agent", help="the client's name for the report")
    parser.add_argument("--compression", choices=POLICIES, default="widest")
    options = parser.parse_args(arguments)
    compression = POLICIES[options.compression]
    if options.role == "server":
        Server(Echo, port=options.port, limits=LIMITS, compression=compression).run()
        return 0
    with Reactor() as reactor:
        return 0 if Tester(reactor, options.url, options.agent, compression).run() else 1


if __name__ == "__main__":
    sys.exit(main())
