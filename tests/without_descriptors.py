"""Run a reactor out of descriptors, for real: a program that test_listener starts.

It lowers its own limit on open files, which is why it has to be a process of its own. Time is
virtual, the sockets are not. It prints ``survived`` and exits with 0 if all went well.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import sys
from typing import Any, ClassVar

from reactor import Listener, Protocol, Reactor, Transport, open_tcp_sockets

WAITING = 60
SPARE = 5


class Clock:
    """Time that stands still until it is told to go on."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Echo(Protocol):
    """Send back what comes; keep count of who is there."""

    present: ClassVar[list[Echo]] = []

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.present.append(self)

    def data_received(self, data: memoryview) -> None:
        self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.present.remove(self)


def connect(address: Any) -> socket.socket:
    """Return a client that is in the backlog of the listening socket, at least."""
    client = socket.create_connection(address)
    client.settimeout(20)
    return client


def run(reactor: Reactor, turns: int = 10) -> None:
    """Run a bounded number of turns: whatever spins is cut short, and shows in the counts."""
    for _ in range(turns):
        reactor.run_once(0)


def is_served(reactor: Reactor, client: socket.socket, word: bytes) -> bool:
    """Tell whether a client gets its echo."""
    client.sendall(word)
    run(reactor)
    return bool(select.select([client], [], [], 0)[0]) and client.recv(100) == word


def was_turned_away(client: socket.socket) -> bool:
    """Tell whether a client sees the end of its stream instead of silence."""
    if not select.select([client], [], [], 0)[0]:
        return False
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def leave_free(count: int) -> None:
    """Lower the limit so that just so many descriptors are free."""
    limit = 0
    while count:
        try:
            os.fstat(limit)
        except OSError:
            count -= 1
        limit += 1
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def main() -> None:
    logging.basicConfig(stream=sys.stderr)
    clock = Clock()
    reactor = Reactor(clock=clock)
    listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), Echo)
    (address,) = listener.addresses
    existing = connect(address)
    run(reactor)
    assert is_served(reactor, existing, b"before")

    # The clients hold their descriptors already; the server gets a few more, but not enough.
    clients = [connect(address) for _ in range(WAITING)]
    leave_free(SPARE)
    run(reactor)
    assert len(Echo.present) == 1 + SPARE
    assert [was_turned_away(client) for client in clients] == (
        [False] * SPARE + [True] * (WAITING - SPARE)
    )

    # Those who are in are served; those who come now wait for the end of the pause.
    assert is_served(reactor, existing, b"meanwhile")
    assert is_served(reactor, clients[0], b"me too")
    while clients:
        clients.pop().close()
    run(reactor)
    assert len(Echo.present) == 1, "the descriptors are free again"
    late = connect(address)
    run(reactor)
    assert len(Echo.present) == 1
    clock.now += 1.1
    run(reactor)
    assert len(Echo.present) == 2
    assert is_served(reactor, late, b"after")
    assert is_served(reactor, existing, b"after")

    late.close()
    existing.close()
    reactor.close()
    sys.stdout.write("survived\n")


if __name__ == "__main__":
    main()
