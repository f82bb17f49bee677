"""Our client as the Autobahn fuzzing server wants it: echo through every case, ask for the report.

    python3 tools/autobahn_client.py ws://127.0.0.1:PORT AGENT [--compression]

Started by ``tools/autobahn.py client``. The cases run one after the other on one reactor; how they
went stands in the suite's report. The exit status is 0 when the suite answered to the end.
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
from websocket import Connection, Limits, State, connect

# What group 9 takes: messages of 16 MiB, one of 4 MiB in fragments of 64 bytes, and no deadline or
# rate that a busy machine might meet.
LIMITS = Limits(
    max_message_size=16 * 1024 * 1024,
    max_fragments=70_000,
    message_timeout=None,
    control_rate=None,
)


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
        print(f"autobahn_client: {error}", file=sys.stderr, flush=True)


AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Tester:
    """Talk to one fuzzing server.

    Args:
        reactor: runs all connections.
        url: of the fuzzing server, without a path.
        agent: the name for its report.
        has_compression: offer permessage-deflate.
    """

    def __init__(self, reactor: Reactor, url: str, agent: str, *, has_compression: bool) -> None:
        self._reactor = reactor
        self._url = url
        self._agent = agent
        self._options: dict[str, Any] = {"compression": True} if has_compression else {}

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
            **self._options,
        )
        while connection.state is not State.CLOSED:
            self._reactor.run_once()
        return connection


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases and return the exit status."""
    parser = argparse.ArgumentParser(description="Run our client against a fuzzing server.")
    parser.add_argument("url", metavar="URL", help="ws://127.0.0.1:PORT")
    parser.add_argument("agent", metavar="AGENT", help="the name for the report")
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate")
    options = parser.parse_args(arguments)
    with Reactor() as reactor:
        tester = Tester(reactor, options.url, options.agent, has_compression=options.compression)
        return 0 if tester.run() else 1


if __name__ == "__main__":
    sys.exit(main())
