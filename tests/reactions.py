"""What the tests of connections share: both roles, recorders that react, what must be left.

A recorder that closes at the first message::

    Closer = reacting(message=lambda connection, message: connection.close())
    connection, peer = stage.connection(Closer, is_client=is_client)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import MemorySocket, Peer, Recorder, Stage, close_events

from websocket import Frame, FrameWriter, Opcode, State

ROLES = {False: "server", True: "client"}

# Which end is ours.
both_roles = pytest.mark.parametrize("is_client", ROLES, ids=ROLES.values())

# One event of each kind, and the bytes of the peer that cause it where bytes do.
EVENTS = ("open", "message", "ping", "pong", "writable", "close", "error")

# A hundred of these are small beside the watermarks, and large beside a header.
KIB = b"k" * 1024


def reacting(**reactions: Callable[..., object]) -> type[Recorder]:
    """Return a recorder class that calls a function with each event after writing it down.

    Args:
        reactions: by event; called with the connection and what its method was called with.
    """

    def method_of(event: str, reaction: Callable[..., object]) -> Callable[..., None]:
        record = getattr(Recorder, f"on_{event}")

        def method(self: Recorder, *args: Any) -> None:
            record(self, *args)
            reaction(self, *args)

        return method

    methods = {f"on_{event}": method_of(event, each) for event, each in reactions.items()}
    return type("Reacting", (Recorder,), {"__slots__": (), **methods})


def our_socket(peer: Peer) -> MemorySocket:
    """Return the other end of a peer's stream: ours."""
    assert peer.sock.peer is not None
    return peer.sock.peer


def encode(peer_is_client: bool, *items: str | bytes | Frame) -> bytes:
    """Return messages and frames of a peer as the bytes of one read."""
    writer = FrameWriter(masks=peer_is_client)
    return b"".join(writer.encode_frame(_frame(item)) for item in items)


def _frame(item: str | bytes | Frame) -> Frame:
    if isinstance(item, Frame):
        return item
    if isinstance(item, str):
        return Frame(Opcode.TEXT, item.encode())
    return Frame(Opcode.BINARY, item)


def congest(connection: Recorder, peer: Peer) -> None:
    """Send until the peer, who does not read, has left more unread than the soft mark."""
    peer.sock.capacity = 4096
    while not connection.is_congested:
        assert connection.send(KIB)


def drain(stage: Stage, peer: Peer) -> list[tuple[int, Any]]:
    """Read all that we have for a peer; return it without the filling of ``congest``."""
    frames: list[tuple[int, Any]] = []
    while True:
        stage.settle()
        if not peer.sock.inbox:
            return [frame for frame in frames if frame[1] != KIB]
        frames += peer.receive()


def provoke(stage: Stage, event: str, connection: Recorder, peer: Peer) -> None:
    """Make an ``on_`` method of an open connection be called."""
    if event == "message":
        peer.send("hello")
    elif event == "ping":
        peer.send_frame(Opcode.PING, b"ping")
    elif event == "pong":
        peer.send_frame(Opcode.PONG, b"pong")
    elif event == "writable":
        congest(connection, peer)
        drain(stage, peer)
    elif event == "close":
        peer.close()
        peer.sock.end()
    elif event == "error":
        peer.sock.reset()
    else:
        assert event == "open", event
    stage.settle()


def assert_over(stage: Stage, connection: Recorder, peer: Peer) -> None:
    """Assert that one connection, the only one of its stage, is over and has left nothing."""
    close_events(connection)
    assert [event[0] for event in connection.events].count("open") == 1
    assert connection.events[0] == ("open",)
    assert connection.state is State.CLOSED
    assert connection.cause is not None
    assert our_socket(peer).is_closed
    assert_idle(stage)


def assert_idle(stage: Stage) -> None:
    """Assert that no timer, no callback and no descriptor but the wake-up's is left."""
    assert stage.reactor.next_timeout() is None
    assert len(stage.reactor._wheel) == 0
    assert len(stage.reactor._selector.get_map()) == 1
