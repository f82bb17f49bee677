"""Stream sockets in memory, whose faults are in the hand of a test.

    ours, theirs = network.pair()
    theirs.send(b"hello")                    lies in ours.inbox
    ours.fail("send", errno.ENOBUFS)         the next call fails
    ours.fail("send", errno.EAGAIN, times=100)
    ours.max_send = 1                        short writes
    theirs.capacity = 0                      a window of zero: ours cannot send
    theirs.rate = 1                          one byte a second arrives there
    theirs.cut()                             half-open: silence in both directions
    theirs.end(); theirs.reset()             the stream ends, or breaks

A ``MemorySocket`` behaves as a non-blocking stream socket: its buffer is bounded, it has an end,
it can be reset, and a socket that is closed with unread input resets its peer. Each end has the
faults of what *arrives* at it, and of the calls that are made *on* it.

Not for: waiting. Time is that of the network's clock, see ``testing.py``.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Any

from reactor.faults import fault

if TYPE_CHECKING:
    from reactor.testing import MemoryNetwork

CAPACITY = 256 * 1024
_IOV_MAX = 1024


class MemorySocket:
    """One end of a stream in memory.

    Args:
        fd: the number that stands for a descriptor.
        peername: the address of the other end, for those who ask.
        capacity: see below.
        network: gives the time, is told of each call, and gets the descriptor back.

    Attributes:
        capacity: bytes that may be unread at this end, or on their way to it, before the other
            end has to wait; 0 is a window of zero.
        max_send: bytes that one call takes at the most.
        max_receive: bytes that one call returns at the most.
        errors: errors to raise, by method, each once and in order; see ``fail``.
        calls: how often each method was called.
        peer: the other end; None before it is connected.
        inbox: what has arrived and is unread.
        has_eof: the other end's stream has ended, behind what is in the inbox.
        is_reset: the stream is broken.
        is_closed: ``close`` was called on this end.
        is_shut: this end's half of the stream was ended.
        sent_sizes: what each send took.
    """

    family = socket.AF_INET

    def __init__(
        self,
        fd: int,
        peername: Any,
        capacity: int = CAPACITY,
        network: MemoryNetwork | None = None,
    ) -> None:
        self._fd = fd
        self._peername = peername
        self._network = network
        self.capacity = capacity
        self.max_send = self.max_receive = inf
        self.errors: dict[str, deque[OSError]] = {}
        self.calls: dict[str, int] = {}
        self.peer: MemorySocket | None = None
        self.inbox = bytearray()
        self.has_eof = False
        self.is_reset = False
        self.is_closed = False
        self.is_shut = False
        self.sent_sizes: list[int] = []
        self._rate: float | None = None
        self._coming = bytearray()
        self._eof_is_coming = False
        self._due_since = 0.0
        self._is_connecting = False
        self._connect_error = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fileno()} to {self._peername!r}>"

    # --- what a transport and a connector use -----------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor's number, -1 once closed."""
        return -1 if self.is_closed else self._fd

    def setblocking(self, is_blocking: bool) -> None:
        """Accept that nothing here blocks."""
        assert not is_blocking, "a socket in memory cannot block"

    def setsockopt(self, *args: object) -> None:
        """Do nothing: there are no options."""
        self._enter("setsockopt")

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """Return what came of connecting, or the first byte of Linux's TCP_INFO: the state."""
        self._enter("getsockopt")
        if (level, size) == (socket.IPPROTO_TCP, 1):
            # TCP_CLOSE, TCP_CLOSE_WAIT or TCP_ESTABLISHED
            return b"\x07" if self.is_reset else b"\x08" if self.has_eof else b"\x01"
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self._connect_error

    def getpeername(self) -> Any:
        """Return the address of the other end."""
        self._enter("getpeername")
        return self._peername

    def getsockname(self) -> Any:
        """Return the address of this end."""
        self._enter("getsockname")
        return ("127.0.0.1", 80)

    def connect_ex(self, address: Any) -> int:
        """Begin to connect to a ``MemoryListener`` of the network; return an error number."""
        result = errno.EINPROGRESS
        try:
            self._enter("connect_ex")
        except InterruptedError:
            result = errno.EINTR  # POSIX: it goes on by itself
        except OSError as error:
            return error.errno or errno.EIO
        assert self._network is not None, "there is no network to connect through"
        self._peername = address
        listener = self._network.listeners.get(address)
        if listener is None:
            self._connect_error = errno.ECONNREFUSED
        elif listener.swallows:
            self._is_connecting = True
        else:
            listener.welcome(self)
        return result

    def recv_into(self, buffer: memoryview) -> int:
        """Return the number of bytes read, 0 at the end of the stream."""
        self._enter("recv_into")
        if self.is_reset:
            raise fault(errno.ECONNRESET)
        if not self.inbox:
            if self.has_eof:
                return 0
            raise fault(errno.EAGAIN)
        count = int(min(len(buffer), len(self.inbox), self.max_receive))
        buffer[:count] = self.inbox[:count]
        del self.inbox[:count]
        return count

    def send(self, data: bytes | memoryview) -> int:
        """Return the number of bytes taken."""
        return self._take("send", [data])

    def sendmsg(self, buffers: Iterable[bytes | memoryview]) -> int:
        """Return the number of bytes taken, over all buffers, which may be 1,024 (IOV_MAX)."""
        parts = list(buffers)
        if len(parts) > _IOV_MAX:
            raise fault(errno.EMSGSIZE)
        return self._take("sendmsg", parts)

    def shutdown(self, how: int) -> None:
        """End this end's half of the stream."""
        self._enter("shutdown")
        assert how == socket.SHUT_WR
        self.is_shut = True
        if self.peer is not None:
            self.peer._arrive_end()

    def close(self) -> None:
        """Close this end; with unread input, which the other end then learns by a reset."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._network is not None:
            self._network.release(self._fd)
        if self.peer is not None:
            if (self.inbox or self._coming) and self.peer._rate != 0:
                self.peer.is_reset = True
            self.peer._arrive_end()
        # Whatever it says, the descriptor is gone.
        self._enter("close", is_closing=True)

    # --- what a test uses at its end --------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Send from this end, whatever the other end's capacity."""
        assert self.peer is not None
        self.peer._arrive(data)

    def take(self) -> bytes:
        """Return and forget all that has arrived at this end."""
        data = bytes(self.inbox)
        self.inbox.clear()
        return data

    def end(self) -> None:
        """End the stream from this end, which may still read."""
        assert self.peer is not None
        self.peer._arrive_end()

    def reset(self) -> None:
        """Break the stream from this end: the other end's calls fail with ECONNRESET."""
        assert self.peer is not None
        self.peer.is_reset = True

    # --- faults -----------------------------------------------------------------------------

    def fail(self, method: str, *errors: OSError | int, times: int = 1) -> None:
        """Make the next calls of a method of this end raise.

        Args:
            method: ``"recv_into"``, ``"send"``, ``"sendmsg"``, ``"shutdown"``, ``"accept"``...
            errors: exceptions or error numbers, in their order.
            times: how often to go through them.
        """
        waiting = self.errors.setdefault(method, deque())
        for _ in range(times):
            waiting.extend(fault(each) if isinstance(each, int) else each for each in errors)

    @property
    def rate(self) -> float | None:
        """Bytes a second that arrive at this end; None for all at once, 0 for none."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        assert self._network is not None, "without a network there is no time"
        self._rate = rate
        self._due_since = self._network.clock.now
        self._network.slow_sockets.add(self)
        self.deliver(self._due_since)

    def cut(self) -> None:
        """Go silent in both directions, without an end and without a reset: a pulled cable."""
        assert self.peer is not None
        self.rate = self.peer.rate = 0

    @property
    def next_arrival(self) -> float:
        """The time at which something will arrive that is slow in coming; infinite for never."""
        if not self._rate or not (self._coming or self._eof_is_coming):
            return inf
        return self._due_since + (1 / self._rate if self._coming else 0)

    def deliver(self, now: float) -> None:
        """Let arrive what is due."""
        if self._rate is None:
            count = len(self._coming)
        else:
            # The next arrival was computed by this division: it must not be one ulp early.
            count = min(len(self._coming), int((now - self._due_since) * self._rate + 1e-6))
        if count:
            self.inbox += self._coming[:count]
            del self._coming[:count]
            self._due_since += count / self._rate if self._rate else 0
        if self._eof_is_coming and not self._coming and self._rate != 0:
            self._eof_is_coming = False
            self.has_eof = True

    # --- readiness --------------------------------------------------------------------------

    @property
    def is_readable(self) -> bool:
        """Tell whether a selector would report this end as ready to read."""
        return bool(self.inbox) or self.has_eof or self.is_reset or bool(self._connect_error)

    @property
    def is_writable(self) -> bool:
        """Tell whether a selector would report this end as ready to write."""
        if self._is_connecting:
            return False
        return self.peer is None or self.peer._room > 0 or self.is_reset

    # --- details ----------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        return self.capacity - len(self.inbox) - len(self._coming)

    def _arrive(self, data: bytes) -> None:
        if self._rate is None:
            self.inbox += data
            return
        if not self._coming and self._network is not None:
            self._due_since = self._network.clock.now
        self._coming += data

    def _arrive_end(self) -> None:
        self._eof_is_coming = True
        if self._rate is None:
            self.deliver(0)

    def _take(self, method: str, buffers: Iterable[bytes | memoryview]) -> int:
        self._enter(method)
        assert self.peer is not None
        if self.is_reset:
            raise fault(errno.ECONNRESET)
        if self.is_shut or (self.peer.is_closed and self._rate != 0):
            raise fault(errno.EPIPE)
        room = min(self.peer._room, self.max_send)
        if room <= 0:
            raise fault(errno.EAGAIN)
        data = b"".join(buffers)[: int(min(room, self.peer._room))]
        self.peer._arrive(data)
        self.sent_sizes.append(len(data))
        return len(data)

    def _enter(self, method: str, is_closing: bool = False) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        if self._network is not None:
            self._network.called(method, self._fd)
        if self.errors.get(method):
            raise self.errors[method].popleft()
        if self.is_closed and not is_closing:
            raise fault(errno.EBADF)


class MemoryListener(MemorySocket):
    """A listening socket in memory, made by ``MemoryNetwork.listen``.

    Attributes:
        backlog: our ends of the streams that wait to be accepted.
        swallows: nobody gets an answer who tries to connect.
    """

    def __init__(self, fd: int, address: Any, network: MemoryNetwork) -> None:
        super().__init__(fd, None, 0, network)
        self._address = address
        self.backlog: deque[MemorySocket] = deque()
        self.swallows = False

    def welcome(self, client: MemorySocket) -> None:
        """Connect a client: its stream waits to be accepted from here on."""
        assert self._network is not None
        ours = self._network.open(self._network.next_address())
        ours.peer, client.peer = client, ours
        self.backlog.append(ours)

    def connect(self) -> MemorySocket:
        """Return the client's end of a stream that waits to be accepted."""
        assert self._network is not None
        client = self._network.open(self._address)
        self.welcome(client)
        return client

    def accept(self) -> tuple[MemorySocket, Any]:
        """Return the next socket and the address of its client."""
        self._enter("accept")
        if not self.backlog:
            raise fault(errno.EAGAIN)
        sock = self.backlog.popleft()
        return sock, sock._peername

    def getsockname(self) -> Any:
        """Return the address that is listened on."""
        self._enter("getsockname")
        return self._address

    def close(self) -> None:
        """Close, and with it the streams that were not accepted."""
        if not self.is_closed and self._network is not None:
            self._network.listeners.pop(self._address, None)
        for sock in self.backlog:
            sock.close()
        self.backlog.clear()
        super().close()

    @property
    def is_readable(self) -> bool:
        """Tell whether somebody waits to be accepted."""
        return bool(self.backlog)

    @property
    def is_writable(self) -> bool:
        """Tell that a listening socket is never written to."""
        return False
