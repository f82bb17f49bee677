"""Show the main job on real sockets: a server, two clients, sessions, envelopes, statistics.

    python3 tools/demo.py [--port N]

Needs nothing but Python, takes a few seconds, and ends with exit status 0. Server and clients
share one reactor and one thread. Every figure that is printed comes from the running system.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reactor import Reactor
from websocket import (
    Limits,
    Message,
    MessageConnection,
    MessageOpcode,
    Server,
    Session,
    connect,
)

PATIENCE = 5.0
DETACHED_LIFETIME = 0.5


class DemoFailed(Exception):
    """Report in one line what did not happen."""


class Desk(MessageConnection):
    """The server's side: count the messages of a session, and answer each."""

    __slots__ = ()

    def on_envelope(self, message: Message) -> None:
        """Answer a display message with a display message."""
        if message.opcode is not MessageOpcode.DISPLAY or self.session is None:
            return
        count = self.session.data["messages"] = self.session.data.get("messages", 0) + 1
        text = message.payload.decode()
        say(f"Server received {message.opcode.name.lower()}: {text!r}")
        answer = f"message {count} of this session, {len(text)} characters"
        self.send_envelope(Message(MessageOpcode.DISPLAY, answer.encode(), time.time_ns()))


class Client(MessageConnection):
    """The client's side: remember what happened."""

    __slots__ = ("envelopes", "error", "is_over")

    def on_open(self) -> None:
        """Start with nothing received."""
        self.envelopes: list[Message] = []
        self.is_over = False

    def on_envelope(self, message: Message) -> None:
        """Keep an envelope."""
        self.envelopes.append(message)

    def on_close(self, code: int, reason: str) -> None:
        """Take note of the end."""
        self.is_over = True

    def on_error(self, error: Exception) -> None:
        """Keep the reason why the connection failed."""
        self.error = error


class Demo:
    """Run the five steps on one reactor."""

    def __init__(self, reactor: Reactor, port: int) -> None:
        self.reactor = reactor
        self.requested_port = port
        self.expired: list[Session] = []
        self.server = Server(
            Desk,
            port=port,
            reactor=reactor,
            limits=Limits(detached_lifetime=DETACHED_LIFETIME),
            on_session_expired=self.expired.append,
        )

    def run(self) -> None:
        """Run all steps.

        Raises:
            OSError: the port cannot be bound.
            DemoFailed: something did not happen in time.
        """
        self.start()
        first, second = self.connect_clients()
        self.exchange_messages(first, second)
        self.disconnect_and_return(first, second)
        self.show_statistics()
        self.stop()

    def start(self) -> None:
        """Step 1."""
        step(1, f"Starting server on :{self.requested_port}...")
        self.server.start()
        say("Server started successfully")
        say(f"Listening on 127.0.0.1 port {self.server.port}")

    def connect_clients(self) -> tuple[Client, Client]:
        """Step 2."""
        step(2, "Simulating client connections...")
        clients = []
        for number in (1, 2):
            client = self.connect()
            say(f"Client {number} connected: {short(client.session_id)}")
            clients.append(client)
        self.show_pool(2)
        return clients[0], clients[1]

    def exchange_messages(self, first: Client, second: Client) -> None:
        """Step 3."""
        step(3, "Sending messages...")
        self.exchange_one(1, first, "Hello, server")
        self.exchange_one(2, second, "Hello from two")
        sent_at = time.time_ns()
        first.send_envelope(Message(MessageOpcode.PING, b"", sent_at))
        self.until(lambda: first.envelopes[-1].opcode is MessageOpcode.PONG, "an envelope pong")
        if first.envelopes[-1].timestamp != sent_at:
            raise DemoFailed("the pong's timestamp is not that of the ping")
        say("Client 1 received an envelope pong with the timestamp of its ping")
        first.ping(b"demo")
        self.until(lambda: first.latency is not None, "a pong")
        say(f"Client 1 WebSocket ping latency: {(first.latency or 0) * 1000:.2f} ms")

    def exchange_one(self, number: int, client: Client, text: str) -> None:
        """Send an envelope and wait for the answer."""
        client.send_envelope(Message(MessageOpcode.DISPLAY, text.encode(), time.time_ns()))
        say(f"Client {number} sent display: {text!r}")
        self.until(lambda: client.envelopes, "an answer")
        say(f"Client {number} received display: {client.envelopes[-1].payload.decode()!r}")

    def disconnect_and_return(self, first: Client, second: Client) -> None:
        """Step 4."""
        step(4, "Testing disconnect...")
        self.disconnect(1, first)
        self.show_pool(1)
        returned = self.connect(first.session_id)
        is_same = returned.session_id == first.session_id
        if not is_same:
            raise DemoFailed("the returning client was given another session")
        session = self.server.manager.sessions.get(returned.session_id or "")
        kept = "" if session is None else f", its data is {session.data}"
        say(f"Client 1 came back to {short(returned.session_id)}{kept}")
        self.disconnect(2, second)
        say(f"Waiting {DETACHED_LIFETIME} s for the session of client 2 to expire...")
        self.until(lambda: self.expired, "the end of a session")
        say(f"Session expired: {short(self.expired[0].id)}")

    def show_statistics(self) -> None:
        """Step 5."""
        step(5, "Session statistics...")
        stranger = connect(
            self.reactor, self.url, Client, origin="https://elsewhere.example", limits=Limits()
        )
        self.until(lambda: stranger.cause is not None, "a refusal")
        say(f"A page of another site was refused: {stranger.error}")
        self.until(lambda: self.server.statistics().failed == 1, "the failed handshake's end")
        statistics = self.server.statistics()
        say(f"Active sessions: {statistics.sessions.active}")
        say(f"Resumed sessions: {statistics.sessions.resumed}")
        say(f"Expired sessions: {statistics.sessions.expired}")
        say(f"Total connections: {statistics.opened}")
        say(f"Failed handshakes: {statistics.failed}")
        say(f"Messages received by the server: {statistics.messages_in}")

    def stop(self) -> None:
        """Shut the server down and wait until every connection is gone."""
        done: list[bool] = []
        self.server.shutdown(on_done=lambda: done.append(True))
        self.until(lambda: done, "the shutdown")

    # --- pieces -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"ws://127.0.0.1:{self.server.port}/"

    def connect(self, session_id: str | None = None) -> Client:
        """Return an open connection."""
        client = connect(self.reactor, self.url, Client, session_id=session_id)
        self.until(lambda: client.is_open, "a connection")
        return client

    def disconnect(self, number: int, client: Client) -> None:
        """Close a client with an envelope, as the protocol ``webos`` has it."""
        client.send_envelope(Message(MessageOpcode.DISCONNECT, b"", time.time_ns()))
        self.until(lambda: client.is_over, "the end of a connection")
        say(f"Client {number} disconnected: {client.closed}")

    def show_pool(self, expected: int) -> None:
        """Print the size of the pool once it is as expected."""
        pool = self.server.manager.pool
        self.until(lambda: len(pool) == expected, f"a pool of {expected}")
        say(f"Pool size: {len(pool)} connection{'' if len(pool) == 1 else 's'}")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Run the reactor until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {PATIENCE:g} s for {what} in vain")
            self.reactor.run_once(0.1)


def step(number: int, title: str) -> None:
    """Print the heading of a step."""
    print(f"\n{number}. {title}", flush=True)


def say(text: str) -> None:
    """Print a line of a step."""
    print(f"   {text}", flush=True)


def short(session_id: str | None) -> str:
    """Return the beginning of a session id; the whole of it is a secret."""
    return f"session-{(session_id or '')[:8]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return the exit status."""
    parser = argparse.ArgumentParser(description="Show the server and its clients at work.")
    parser.add_argument("--port", type=int, default=8080, help="0 for any free port (8080)")
    port = parser.parse_args(arguments).port
    if not 0 <= port <= 65_535:
        parser.error(f"argument --port: 0 to 65535, not {port}")
    print("WebSocket Server Demo\n" + "=" * 21)
    try:
        with Reactor() as reactor:
            Demo(reactor, port).run()
    except OSError as error:
        complaint = f"demo: cannot listen on port {port}: {error.strerror}; try --port 0"
        print(complaint, file=sys.stderr)
        return 1
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print("\nDemo completed successfully!")
    return 0


if __name__ == "__main__":
    sys.exit(main())
