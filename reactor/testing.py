"""Run reactors, their servers and their clients in memory and in virtual time; for tests.

    network = MemoryNetwork()
    with network.reactor() as reactor:            a real Reactor; only its surroundings are not
        listener = Listener(reactor, [network.listen(port=7)], Echo)
        Connector(reactor, Witness(), ("localhost", 7), on_failed=print)
        reactor.settle()                          run until nothing more happens
        reactor.pass_time(3600)                   an hour, in no time at all

Nothing here waits, and nothing is random: sockets and names are memory, waiting moves the clock.
Everything that can go wrong with a stream can be made to, see ``memory.py``, and any single call
can be made to fail, see ``faults.py``. TLS: ``memory_tls.py``. WebSocket: ``websocket.testing``.

Not for: threads. They run in real time; what they hand over is taken by the next ``settle``.
"""

from __future__ import annotations

import heapq
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any, cast

from reactor.connector import System
from reactor.faults import FaultPlan, every_fault, fault
from reactor.loop import Reactor
from reactor.memory import CAPACITY, MemoryListener, MemorySocket
from reactor.protocol import Protocol
from reactor.transport import Transport

__all__ = [
    "FaultPlan",
    "MemoryListener",
    "MemoryNetwork",
    "MemorySelector",
    "MemorySocket",
    "VirtualClock",
    "VirtualReactor",
    "as_socket",
    "every_fault",
    "fault",
]

# Above what the operating system gives to the sockets that are real: those of the wake-up.
_FIRST_DESCRIPTOR = 1_000_000
_FIRST_PORT = 50_000


class VirtualClock:
    """A clock that stands still until it is told to go on.

    Attributes:
        now: seconds; set it to make time jump, as when a callback holds the loop.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class MemoryNetwork:
    """Join sockets, reactors and a clock.

    Attributes:
        clock: of everything on this network.
        sockets: those that are open, by descriptor. Numbers are given again, the lowest first,
            as the kernel does.
        listeners: by the address that is listened on, ``(host, port)``.
        client_host: the address from which the next clients come.
        on_call: called with the name and the descriptor of each system call that sockets and
            selectors stand for; what it raises, the call raises. A ``FaultPlan``, for example.
        slow_sockets: those whose ``rate`` was set.
    """

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = VirtualClock() if clock is None else clock
        self.sockets: dict[int, MemorySocket] = {}
        self.listeners: dict[tuple[str, int], MemoryListener] = {}
        self.client_host = "127.0.0.1"
        self.on_call: Callable[[str, int], None] | None = None
        self.slow_sockets: set[MemorySocket] = set()
        self._free: list[int] = []
        self._next_fd = _FIRST_DESCRIPTOR
        self._next_port = _FIRST_PORT

    # --- making things ----------------------------------------------------------------------

    def reactor(self) -> VirtualReactor:
        """Return a reactor on this network; close it."""
        return VirtualReactor(self)

    def pair(
        self, peername: Any = ("203.0.113.7", _FIRST_PORT), capacity: int = CAPACITY
    ) -> tuple[MemorySocket, MemorySocket]:
        """Return the two ends of a stream."""
        ours, theirs = self.open(peername, capacity), self.open(peername, capacity)
        ours.peer, theirs.peer = theirs, ours
        return ours, theirs

    def listen(self, host: str = "localhost", port: int = 80) -> MemoryListener:
        """Return a socket that listens on a name, for a ``Listener``."""
        listener = MemoryListener(self._new_fd(), (host, port), self)
        self.sockets[listener.fileno()] = self.listeners[host, port] = listener
        return listener

    def transport(
        self, reactor: Reactor, protocol: Protocol, **options: Any
    ) -> tuple[Transport, MemorySocket]:
        """Return a started transport and the test's end of its stream; options as ``pair``."""
        ours, theirs = self.pair(**options)
        transport = Transport(reactor, as_socket(ours), protocol, ours.getpeername())
        transport.start()
        return transport, theirs

    def open(self, peername: Any, capacity: int = CAPACITY) -> MemorySocket:
        """Return a socket that is not connected to anything."""
        fd = self._new_fd()
        sock = self.sockets[fd] = MemorySocket(fd, peername, capacity, self)
        return sock

    @contextmanager
    def clients_from(self, host: str) -> Iterator[None]:
        """Let the clients that connect during a block come from an address."""
        before, self.client_host = self.client_host, host
        try:
            yield
        finally:
            self.client_host = before

    # --- for sockets and selectors ----------------------------------------------------------

    def called(self, name: str, fd: int) -> None:
        """Tell of a call."""
        if self.on_call is not None:
            self.on_call(name, fd)

    def release(self, fd: int) -> None:
        """Take a descriptor back."""
        if self.sockets.pop(fd, None) is not None:
            heapq.heappush(self._free, fd)

    def next_address(self) -> tuple[str, int]:
        """Return the address of the next client."""
        self._next_port += 1
        return (self.client_host, self._next_port)

    def deliver(self) -> None:
        """Let arrive what is due."""
        for sock in self.slow_sockets:
            sock.deliver(self.clock.now)

    def next_arrival(self) -> float:
        """Return the time at which something will arrive that is slow in coming."""
        return min((sock.next_arrival for sock in self.slow_sockets), default=inf)

    def _new_fd(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        self._next_fd += 1
        return self._next_fd - 1


class MemorySelector(selectors.BaseSelector):
    """Select among memory sockets; waiting means moving the clock.

    Descriptors that are no memory socket's (the wake-up pair) are never ready.
    """

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a descriptor.

        Raises:
            KeyError: it is watched already, or another that bore its number still is.
        """
        if fileobj in self._keys:
            raise KeyError(f"descriptor {fileobj} is registered already")
        self._network.called("register", fileobj)
        return self._set(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a descriptor."""
        return self._keys.pop(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change what is watched for; a failure forgets the descriptor, as epoll's does."""
        key = self._keys.pop(fileobj)
        self._network.called("modify", key.fd)
        return self._set(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, after as much waiting as it takes."""
        try:
            self._network.called("select", -1)
        except InterruptedError:
            return []  # as those of the standard library do
        ready = self.ready()
        clock = self._network.clock
        end = clock.now + (inf if timeout is None else max(timeout, 0))
        while not ready and clock.now < end:
            now = min(end, max(clock.now, self._network.next_arrival()))
            if now == inf:
                break  # nothing will ever happen
            clock.now = now
            ready = self.ready()
        return ready

    def ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready now."""
        self._network.deliver()
        ready = []
        for key in self._keys.values():
            sock = self._network.sockets.get(key.fd)
            if sock is None:
                continue
            mask = key.events & (
                (selectors.EVENT_READ if sock.is_readable else 0)
                | (selectors.EVENT_WRITE if sock.is_writable else 0)
            )
            if mask:
                ready.append((key, mask))
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is watched."""
        return self._keys

    def _set(self, fileobj: Any, events: int, data: Any) -> selectors.SelectorKey:
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key


class MemorySystem(System):
    """Look names up and open sockets on a network; every name is its own address."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def look_up(self, host: str, port: int, found: Callable[[Any], object]) -> None:
        """Find the one address, at once."""
        found([(int(socket.AF_INET), (host, port))])

    def open_socket(self, family: int) -> socket.socket:
        """Return a socket to connect with."""
        self._network.called("open", -1)
        return as_socket(self._network.open(None))


class VirtualReactor(Reactor):
    """A reactor on a ``MemoryNetwork``: its clients connect there, its time is virtual.

    Attributes:
        network: gives clock and sockets.
        selector: knows what is watched.
        system: from where clients get their addresses and sockets.
    """

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network
        self.selector = MemorySelector(network)
        self.system: System = MemorySystem(network)
        super().__init__(lambda: self.selector, clock=network.clock)

    def __enter__(self) -> VirtualReactor:
        return self

    def settle(self, turns: int = 200) -> None:
        """Run turns without letting time go by until nothing more happens.

        Raises:
            AssertionError: things still happen after so many turns: something spins.
        """
        for _ in range(turns):
            self.run_once(0)
            if self.next_timeout() != 0 and not self.selector.ready():
                return
        raise AssertionError(f"still busy after {turns} turns")

    def pass_time(self, seconds: float) -> None:
        """Run turns while virtual time goes by."""
        clock = self.network.clock
        end = clock.now + seconds
        while True:
            self.settle()
            timeout = self.next_timeout()
            due = inf if timeout is None else clock.now + timeout
            if min(due, self.network.next_arrival()) > end:
                break
            self.run_once(end - clock.now)
        clock.now = end
        self.settle()


def as_socket(sock: MemorySocket) -> socket.socket:
    """Tell the type checker that a memory socket will do."""
    return cast(socket.socket, sock)
