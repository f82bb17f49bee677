"""Our server against the clients of aiohttp and of Node's ws, and our client against their servers.

Every test runs for each library, in both roles, with each way of compression. Without Node and ws
the tests have no ws in their names; ``tools/install_ws.py`` installs it and tells when it cannot.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from foreign import POLICIES, Peer
from threaded import Event, next_event, opened, reporter, running

from reactor import Reactor
from websocket import Connection, Deflate, Limits, Server, connect

FOLDER = Path(__file__).parent
MIB = 1024 * 1024
LIMITS = Limits(max_message_size=MIB, control_rate=None)

LIBRARIES = {"aiohttp": [sys.executable, str(FOLDER / "aiohttp_peer.py")]}
NODE = shutil.which("node")
# Node looks for ws there, too.
if NODE is not None and Path(os.environ.get("NODE_PATH", ""), "ws").is_dir():
    LIBRARIES["ws"] = [NODE, str(FOLDER / "ws_peer.js")]


class Peers:
    """The processes of a run, each started when it is first needed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._peers: dict[tuple[str, str, bool], Peer] = {}
        self._ports: dict[Peer, int] = {}

    def client(self, library: str, has_deflate: bool) -> Peer:
        return self._get(library, "client", has_deflate)

    def server(self, library: str, has_deflate: bool) -> tuple[Peer, int]:
        """Return a server and its port."""
        peer = self._get(library, "server", has_deflate)
        if peer not in self._ports:
            word, self._ports[peer] = peer.next()
            assert word == "listening"
        return peer, self._ports[peer]

    def _get(self, library: str, role: str, has_deflate: bool) -> Peer:
        key = (library, role, has_deflate)
        if key not in self._peers:
            deflate = ["deflate"] if has_deflate else []
            peer = self._peers[key] = Peer([*LIBRARIES[library], role, *deflate])
            self._stack.callback(peer.end)
        return self._peers[key]


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with contextlib.ExitStack() as stack:
        yield Peers(stack)


class Link:
    """An open connection between an endpoint of ours and one of theirs."""

    def __init__(self, events: queue.Queue[Event], theirs: Peer) -> None:
        self._events = events
        self._theirs = theirs
        self.ours: Connection = opened(events)
        assert theirs.next() == ("open",)
        self._are_open = {"ours", "theirs"}

    def tell(self, *words: Any) -> None:
        """Tell their end what to do."""
        self._theirs.tell(*words)

    def our_next(self) -> Event:
        """Wait for our next event."""
        return self._noted("ours", next_event(self._events))

    def their_next(self) -> Event:
        """Wait for their next event."""
        return self._noted("theirs", self._theirs.next())

    def _noted(self, end: str, event: Event) -> Event:
        if event[0] in ("close", "ended"):
            self._are_open.discard(end)
        return event

    def finish(self) -> None:
        """Close what a test has left open, so that the next one finds their end idle."""
        self.ours.close()
        while "ours" in self._are_open:
            self.our_next()
        while "theirs" in self._are_open:
            self.their_next()


@contextlib.contextmanager
def linked(
    peers: Peers, library: str, our_role: str, compression: bool | Deflate, has_deflate: bool
) -> Iterator[Link]:
    """Connect an endpoint of ours and one of theirs during a block."""
    connection_class, events = reporter()
    if our_role == "server":
        server = Server(connection_class, port=0, limits=LIMITS, compression=compression).start()
        reactor = server.reactor
        peer = peers.client(library, has_deflate)
        peer.tell("connect", f"ws://127.0.0.1:{server.port}/")
    else:
        peer, port = peers.server(library, has_deflate)
        reactor = Reactor()
        url = f"ws://127.0.0.1:{port}/"
        connect(reactor, url, connection_class, limits=LIMITS, compression=compression)
    with running(reactor):
        link = Link(events, peer)
        try:
            yield link
        finally:
            link.finish()


@pytest.fixture(params=POLICIES)
def compression(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["server", "client"])
def our_role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def link(peers: Peers, library: str, our_role: str, compression: str) -> Iterator[Link]:
    policy = POLICIES[compression]
    with linked(peers, library, our_role, policy, has_deflate=bool(policy)) as link:
        yield link


@pytest.mark.parametrize("we_want_it", [True, False])
@pytest.mark.parametrize("they_want_it", [True, False])
def test_compression_is_used_where_both_want_it(
    peers: Peers, library: str, our_role: str, we_want_it: bool, they_want_it: bool
) -> None:
    with linked(peers, library, our_role, we_want_it, they_want_it) as link:
        assert link.ours.is_compressed is (we_want_it and they_want_it)
        assert link.ours.send("hello " * 1000)
        assert link.their_next() == ("message", "hello " * 1000)
        link.tell("send", "hello " * 1000)
        assert link.our_next() == ("message", "hello " * 1000)


MESSAGES: dict[str, str | bytes] = {
    "text": "hello",
    "empty text": "",
    "other scripts": "κόσμε 🌍",
    "binary": b"\x00\xff",
    "empty binary": b"",
    "125 bytes": b"x" * 125,
    "126 bytes": "x" * 126,
    "65,535 bytes": bytes(range(255)) * 257,
    "65,536 bytes": bytes(range(256)) * 256,
    "1 MiB of text": "κόσμε " * (MIB // 11),
    "1 MiB": bytes(range(256)) * (MIB // 256),
    "1 MiB that is hardly compressible": os.urandom(MIB),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_arrive(link: Link, name: str) -> None:
    # More than once: with takeover a message may refer to those before.
    for _ in range(3):
        assert link.ours.send(MESSAGES[name])
        assert link.their_next() == ("message", MESSAGES[name])
        link.tell("send", MESSAGES[name])
        assert link.our_next() == ("message", MESSAGES[name])


@pytest.mark.parametrize(
    ("fragments", "whole"),
    [
        (["hel", "", "lo ", "κόσμε"], "hello κόσμε"),
        ([b"\x00", b"", b"\xff" * 70_000], b"\x00" + b"\xff" * 70_000),
        (["x"] * 1000, "x" * 1000),
    ],
)
def test_their_fragments_become_a_message(
    link: Link, fragments: list[str | bytes], whole: str | bytes
) -> None:
    link.tell("fragments", fragments)
    assert link.our_next() == ("message", whole)


def test_bursts_arrive_in_order(link: Link) -> None:
    messages = [f"message {number}" for number in range(1000)]
    for message in messages:
        assert link.ours.send(message)
        link.tell("send", message)
    assert [link.their_next() for _ in messages] == [("message", each) for each in messages]
    assert [link.our_next() for _ in messages] == [("message", each) for each in messages]


def test_a_message_that_was_not_to_be_compressed_arrives_among_others(link: Link) -> None:
    for number in range(9):
        assert link.ours.send(f"message {number}" * 100, compress=number % 3 == 0)
        assert link.their_next() == ("message", f"message {number}" * 100)


@pytest.mark.parametrize("payload", [b"alive?", b"", bytes(125)], ids=["short", "empty", "long"])
def test_pings_are_answered(link: Link, payload: bytes) -> None:
    assert link.ours.ping(payload)
    assert link.their_next() == ("ping", payload)
    assert link.our_next() == ("pong", payload)
    link.tell("ping", payload)
    assert link.our_next() == ("ping", payload)
    assert link.their_next() == ("pong", payload)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "enough"), (4999, "κόσμε")])
def test_we_close(link: Link, code: int, reason: str) -> None:
    assert link.ours.send("last words")
    link.ours.close(code, reason)
    assert link.their_next() == ("message", "last words")
    assert link.their_next() == ("close", code, reason)
    assert link.our_next() == ("close", code, reason, True)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4999, "κόσμε")])
def test_they_close(link: Link, library: str, our_role: str, code: int, reason: str) -> None:
    link.tell("send", "last words")
    link.tell("close", code, reason)
    assert link.our_next() == ("message", "last words")
    assert link.our_next() == ("close", code, reason, True)
    word, their_code, _ = link.their_next()
    # aiohttp's server says 1000, whatever it was.
    assert (word, their_code) == ("close", code) or (library, our_role) == ("aiohttp", "client")


def test_their_message_that_is_too_big_is_told_by_the_close_code(link: Link) -> None:
    link.tell("send", bytes(MIB + 1))
    assert link.our_next()[0] == "error"
    assert link.our_next()[:2] == ("close", 1009)
    assert link.their_next()[:2] == ("close", 1009)


def test_a_client_of_theirs_understands_a_refusal(peers: Peers, library: str) -> None:
    connection_class, _ = reporter()
    server = Server({"/here": connection_class}, port=0).start()
    with running(server.reactor):
        peer = peers.client(library, has_deflate=True)
        peer.tell("connect", f"ws://127.0.0.1:{server.port}/nowhere")
        assert peer.next() == ("refused", 404)
