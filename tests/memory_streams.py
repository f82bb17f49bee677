"""Helpers for tests of transports in memory: a started one, and the test's end of its stream."""

from __future__ import annotations

from support import MemorySocket, Stage

from reactor import Protocol, Transport


def start(
    stage: Stage, protocol: Protocol, capacity: int = 256 * 1024
) -> tuple[Transport, MemorySocket]:
    """Return a started transport and the test's end; ``capacity`` is what waits there unread."""
    return stage.network.transport(stage.reactor, protocol, capacity=capacity)


def our_socket(theirs: MemorySocket) -> MemorySocket:
    """Return the transport's socket."""
    assert theirs.peer is not None
    return theirs.peer


def drain(stage: Stage, theirs: MemorySocket) -> bytes:
    """Read at the test's end until nothing more comes."""
    data = bytearray()
    while True:
        stage.settle()
        part = theirs.take()
        if not part:
            return bytes(data)
        data += part
