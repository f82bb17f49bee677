"""Helpers for tests of byte streams: a protocol that writes everything down, real selectors.

Sockets here are real ones on the loopback interface; see ``support`` for those in memory.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from reactor import Protocol, Reactor, Transport

# The default one is one of the others, here epoll's and there kqueue's.
SELECTORS = dict.fromkeys(
    getattr(selectors, name)
    for name in ("DefaultSelector", "SelectSelector", "PollSelector", "EpollSelector")
    if hasattr(selectors, name)
)

with_every_selector = pytest.mark.parametrize(
    "selector", SELECTORS, ids=lambda selector: str(selector.__name__)
)

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="the system has no Unix sockets"
)

FAIL_SAFE = 20.0


class Witness(Protocol):
    """Write down what a transport calls, and check that no call comes from within another.

    Args:
        hooks: what else to do, by the last word of the method's name: ``data``, ``eof``,
            ``lost``, ``made``, ``pause`` or ``resume``; called with the method's arguments.
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.hooks = hooks
        self.events: list[tuple[Any, ...]] = []
        self.received = bytearray()
        self._is_called = False

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self._note("made", transport)

    def data_received(self, data: memoryview) -> None:
        self.received += data
        self._note("data", data)

    def eof_received(self) -> bool | None:
        answer: bool | None = self._note("eof")
        return answer

    def connection_lost(self, error: Exception | None) -> None:
        self._note("lost", error)

    def pause_writing(self) -> None:
        # The one that is called from within another: from within write().
        self.events.append(("pause",))
        self._call_hook("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def _note(self, name: str, *args: Any) -> Any:
        assert not self._is_called, f"{name} came from within another call"
        self._is_called = True
        self.events.append((name, bytes(args[0])) if name == "data" else (name, *args))
        try:
            return self._call_hook(name, *args)
        finally:
            self._is_called = False

    def _call_hook(self, name: str, *args: Any) -> Any:
        hook = self.hooks.get(name)
        return None if hook is None else hook(*args)

    @property
    def names(self) -> list[str]:
        """What has happened, without the arguments."""
        return [event[0] for event in self.events]

    @property
    def losses(self) -> list[Exception | None]:
        """The argument of each ``connection_lost``: one at the most, or something is wrong."""
        return [event[1] for event in self.events if event[0] == "lost"]

    @property
    def is_lost(self) -> bool:
        return "lost" in self.names


class Echo(Witness):
    """Send back what comes."""

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        self.transport.write(data)


@contextmanager
def connected_pair(
    reactor: Reactor, protocol: Protocol
) -> Iterator[tuple[Transport, socket.socket]]:
    """Give a started transport on a real socket, and the (blocking) other end."""
    with connected_pairs(reactor, protocol) as (pair,):
        yield pair


@contextmanager
def connected_pairs(
    reactor: Reactor, *protocols: Protocol
) -> Iterator[list[tuple[Transport, socket.socket]]]:
    """Give a started transport and the other end for each of the protocols."""
    with ExitStack() as stack:
        pairs = []
        for protocol in protocols:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            theirs.settimeout(FAIL_SAFE)
            ours.setblocking(False)
            transport = Transport(reactor, ours, protocol)
            transport.start()
            pairs.append((transport, theirs))
        yield pairs
