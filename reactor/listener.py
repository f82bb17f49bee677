"""Accepting connections: at most a batch in a turn, and no spinning when descriptors run out.

When the process is out of descriptors, ``accept`` fails while the connection stays in the
backlog and the listening socket stays readable: a naive loop burns a whole core. The listener
holds one descriptor in reserve. It gives that up to accept and close what waits (the clients
see an end instead of silence), then rests for a second and goes on by itself.

Who has waited through such a rest, or while the loop was late, may have given up meanwhile, and the
system hands out his connection all the same, with the request that nobody waits for. Where that is
possible, he is looked for and left out: the dead must cost neither the work nor the limits of the
living. (Linux alone tells; elsewhere he is found to be gone after the handshake.) Who has only
ended his half of the stream cannot be told from the others, and counts as gone, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from reactor.event_handler import READ, EventHandler
from reactor.log import guarded
from reactor.protocol import Protocol
from reactor.sockets import BACKLOG, SocketFile, close_socket, send_at_once
from reactor.transport import Transport
from reactor.wheel import Timer

if TYPE_CHECKING:
    from reactor.loop import Reactor

logger = guarded("reactor")

ACCEPT_BATCH = 64
PAUSE = 1.0
_REPORT_INTERVAL = 5.0

# There an accepted socket has the options of the one that listened.
_OPTIONS_ARE_INHERITED = sys.platform == "linux"

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# linux/tcp.h, net/tcp_states.h: the first byte of struct tcp_info is the state of the connection.
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_GONE = (b"\x07", b"\x08")  # TCP_CLOSE, after a reset, and TCP_CLOSE_WAIT


class AcceptCounts:
    """Count who was not let in; read from any thread.

    Attributes:
        failures: how often the process lacked the descriptors or the memory for a connection.
        turned_away: connections that were closed at once for that.
        abandoned: connections that their clients had reset or ended before they were accepted,
            when that came late; who ends only the own half of the stream counts among them.
    """

    __slots__ = ("abandoned", "failures", "turned_away")

    def __init__(self) -> None:
        self.failures = 0
        self.turned_away = 0
        self.abandoned = 0


class Listener:
    """Accept connections on listening sockets and give each a transport and a protocol.

    Reactor's thread only. A protocol factory that raises costs its own connection (logged with
    traceback).

    Args:
        reactor: dispatches the readiness of the sockets.
        sockets: listening and non-blocking; the listener owns and closes them.
        protocol_factory: called without arguments for each connection.
        accept_batch: connections accepted on one socket in one turn of the loop.
        pause: seconds to rest after the process ran out of descriptors or memory.
        transport_factory: called with reactor, socket, protocol and the peer's address;
            ``Transport``, or something that makes a ``TLSTransport``.
        socket_file: of a Unix socket that is among them; removed when they are closed.
        counts: to count in, where an earlier listener has begun; by default new ones.

    Attributes:
        counts: who was not let in.
    """

    def __init__(
        self,
        reactor: Reactor,
        sockets: Sequence[socket.socket],
        protocol_factory: Callable[[], Protocol],
        *,
        accept_batch: int = ACCEPT_BATCH,
        pause: float = PAUSE,
        transport_factory: Callable[..., Transport] = Transport,
        socket_file: SocketFile | None = None,
        counts: AcceptCounts | None = None,
    ) -> None:
        self._reactor = reactor
        self._protocol_factory = protocol_factory
        self._accept_batch = accept_batch
        self._pause = pause
        self._transport_factory = transport_factory
        self._socket_file = socket_file
        self.counts = AcceptCounts() if counts is None else counts
        self._reserve: int | None = None
        self._last_report = -inf
        self._suppressed = 0
        self._open_reserve()
        self._acceptors = [_Acceptor(self, sock) for sock in sockets]
        try:
            for acceptor in self._acceptors:
                reactor.watch(acceptor, acceptor.sock.fileno(), READ)
        except BaseException:
            self.close()
            raise

    @property
    def addresses(self) -> list[Any]:
        """Return the addresses as ``getsockname`` gives them; empty once closed."""
        return [acceptor.sock.getsockname() for acceptor in self._acceptors]

    def close(self) -> None:
        """Accept no further and close the sockets; accepted connections go on. Idempotent.

        The system resets those that have connected and were not accepted; see ``finish``.
        """
        file, self._socket_file = self._socket_file, None
        if file is not None:
            file.remove()
        acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
        self._close_reserve()

    def finish(self) -> None:
        """Accept those that have connected already, a backlog of them at the most, and close."""
        for acceptor in self._acceptors:
            for _ in range(-(-BACKLOG // self._accept_batch)):
                if not acceptor.interest or not self.accept(acceptor):
                    break
        self.close()

    # --- accepting --------------------------------------------------------------------------

    def accept(self, acceptor: _Acceptor) -> bool:
        """Accept what waits on one socket, up to a batch; tell whether more may be waiting."""
        failures = 0
        if self._reactor.lost_since(acceptor.empty_at) > 0:
            acceptor.is_late = True
        for _ in range(self._accept_batch):
            if acceptor.fd < 0:
                return False  # closed by the protocol of the last one
            try:
                sock, peername = acceptor.take()
            except BlockingIOError:
                acceptor.empty_at, acceptor.is_late = self._reactor.time, False
                return False
            except InterruptedError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._shed(acceptor, error)
                    return False
                # ECONNABORTED, EPERM and the like concern this one connection only.
                logger.debug("accept: %s", error)
                failures += 1
                continue
            if acceptor.is_late and _is_abandoned(sock):
                self.counts.abandoned += 1
                close_socket(sock)
                continue
            self._welcome(sock, peername)
        if failures == self._accept_batch:
            self._rest(acceptor)
        return failures < self._accept_batch

    def _welcome(self, sock: socket.socket, peername: Any) -> None:
        sock.setblocking(False)
        if not _OPTIONS_ARE_INHERITED:
            send_at_once(sock)
        try:
            protocol = self._protocol_factory()
        except BaseException as error:
            close_socket(sock)
            if not isinstance(error, Exception):
                raise
            logger.exception("making a protocol for %r raised", peername)
            return
        try:
            transport = self._transport_factory(self._reactor, sock, protocol, peername)
        except OSError as error:
            logger.debug("the accepted connection is gone already: %s", error)
            close_socket(sock)
            return
        try:
            transport.start()
        except OSError as error:
            # The system watches no further descriptor; the transport has closed this one.
            self.counts.turned_away += 1
            self._report(error)

    # --- exhaustion -------------------------------------------------------------------------

    def _shed(self, acceptor: _Acceptor, error: OSError) -> None:
        """Turn away what waits, using the reserve descriptor, and rest."""
        self._close_reserve()
        with contextlib.suppress(OSError):
            for _ in range(self._accept_batch):
                close_socket(acceptor.sock.accept()[0])
                self.counts.turned_away += 1
        self._open_reserve()
        self._report(error)
        self._rest(acceptor)

    def _rest(self, acceptor: _Acceptor) -> None:
        """Accept nothing for a while: the socket stays readable, and trying again would spin."""
        acceptor.is_late = True
        self._reactor.set_interest(acceptor, 0)
        acceptor.timer = self._reactor.call_later(self._pause, self._resume, acceptor)

    def _resume(self, acceptor: _Acceptor) -> None:
        self._open_reserve()
        try:
            self._reactor.set_interest(acceptor, READ)
        except OSError as error:
            self._report(error)
            self._rest(acceptor)

    def _report(self, error: OSError) -> None:
        """Count that something was lacking, and log it unless that was done just now."""
        self.counts.failures += 1
        now = self._reactor.time
        if now - self._last_report < _REPORT_INTERVAL:
            self._suppressed += 1
            return
        logger.error(
            "cannot accept connections: %s; raise the limit on open files, or lower "
            "max_connections; trying again every %g s",
            error.strerror,
            self._pause,
            extra={
                "event": "exhausted",
                "error": error.strerror,
                "turned_away": self.counts.turned_away,
                "suppressed": self._suppressed,
            },
        )
        self._last_report = now
        self._suppressed = 0

    def _open_reserve(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):  # _resume tries again
                self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _close_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


class _Acceptor(EventHandler):
    """Watch one listening socket for its listener.

    Attributes:
        take: accepts as ``socket.accept`` does.
        empty_at: when nobody was waiting, on the reactor's clock.
        is_late: who waits may have waited for long.
    """

    __slots__ = ("_listener", "empty_at", "is_late", "sock", "take", "timer")

    def __init__(self, listener: Listener, sock: socket.socket) -> None:
        super().__init__()
        self._listener = listener
        self.sock = sock
        self.take = _accept_of(sock)
        self.timer: Timer | None = None
        self.empty_at = listener._reactor.time
        self.is_late = False
        if _OPTIONS_ARE_INHERITED:
            send_at_once(sock)

    def on_ready(self, mask: int) -> None:
        self._listener.accept(self)

    def on_failure(self, error: Exception) -> None:
        """Go on: the error is logged, and the socket is none the worse for it."""

    def abort(self) -> None:
        self._listener.close()

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._listener._reactor.unwatch(self)
        close_socket(self.sock)


def _is_abandoned(sock: socket.socket) -> bool:
    """Tell whether a client has ended or reset its connection, as far as the system tells."""
    if _TCP_INFO is None:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1) in _GONE
    except OSError:  # a Unix socket, say
        return False


def _accept_of(sock: socket.socket) -> Callable[[], tuple[socket.socket, Any]]:
    """Return what accepts on a listening socket, at half the price of ``socket.accept``.

    That makes members of enumerations of family and type, twice for each connection, and both
    are known.
    """
    accept = getattr(sock, "_accept", None)
    if accept is None or type(sock) is not socket.socket:
        return sock.accept
    family, kind, protocol = int(sock.family), int(sock.type), sock.proto

    def take() -> tuple[socket.socket, Any]:
        fd, peername = accept()
        return socket.socket(family, kind, protocol, fd), peername

    return take
