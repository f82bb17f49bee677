"""Opening connections without blocking.

Names are looked up in a thread, addresses are tried one after the other, and one deadline
covers everything. Each address gets an equal share of the time that is left, so that a first
address which swallows packets does not use up the time of a second one that would answer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from reactor.errors import ConnectFailed, ReactorClosed
from reactor.event_handler import WRITE, EventHandler
from reactor.protocol import Protocol
from reactor.sockets import close_socket, send_at_once
from reactor.transport import Transport

if TYPE_CHECKING:
    from reactor.loop import Reactor

TIMEOUT = 10.0

# EAGAIN is missing on purpose: from a Unix socket it means that the backlog is full. EINTR is
# here because POSIX has an interrupted connect go on by itself.
_IN_PROGRESS = frozenset({0, errno.EINPROGRESS, errno.EINTR, getattr(errno, "WSAEWOULDBLOCK", 0)})

Address = Any  # what socket.connect takes: its form depends on the family
_Found = Union[list[tuple[int, Address]], OSError]


class System:
    """Look names up and open sockets: what a connector needs of the operating system.

    A reactor with a ``system`` of its own gives its connectors another: ``reactor.testing``.
    """

    def look_up(self, host: str, port: int, found: Callable[[_Found], object]) -> None:
        """Find the addresses of a host; ``found`` is called in any thread, once."""
        # Not in the executor: an application's slow work must not delay connecting, nor a slow
        # look-up the end of the program. A daemon thread is simply left behind.
        thread = threading.Thread(
            target=_look_up, args=(host, port, found), name="reactor-look-up", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the limit on threads is reached, or memory is short
            found(OSError(errno.EAGAIN, str(error)))

    def open_socket(self, family: int) -> socket.socket:
        """Return a socket to connect with.

        Raises:
            OSError: there are no descriptors left, or there is no such family.
        """
        return socket.socket(family, socket.SOCK_STREAM)


_SYSTEM = System()


class Connector:
    """Connect once, to the first address that answers. Reactor's thread only.

    Exactly one of three things happens, never before the constructor has returned:
    ``connection_made`` of the protocol, ``on_failed``, or nothing because of ``cancel``.

    Args:
        reactor: dispatches readiness and deadlines.
        protocol: gets the transport.
        target: ``(host, port)``, or the path of a Unix socket.
        on_failed: called with a ``ConnectFailed``.
        timeout: seconds for the look-up and all addresses together.
        transport_factory: called with reactor, socket, protocol and the peer's address;
            ``Transport``, or something that makes a ``TLSTransport``.
    """

    def __init__(
        self,
        reactor: Reactor,
        protocol: Protocol,
        target: tuple[str, int] | str,
        on_failed: Callable[[ConnectFailed], object],
        *,
        timeout: float = TIMEOUT,
        transport_factory: Callable[..., Transport] = Transport,
    ) -> None:
        self._reactor = reactor
        self._system: System = getattr(reactor, "system", _SYSTEM)
        self._protocol = protocol
        self._target = target
        self._on_failed = on_failed
        self._timeout = timeout
        self._transport_factory = transport_factory
        self._deadline = reactor.call_later(timeout, self.give_up)
        self._addresses: deque[tuple[int, Address]] = deque()
        self._causes: list[tuple[Address, OSError]] = []
        self._attempt: _Attempt | None = None
        self._is_done = False
        if isinstance(target, str):
            self._addresses.append((socket.AF_UNIX, target))
            reactor.call_soon(self._try_next)
        else:
            self._system.look_up(*target, self._found)

    def cancel(self) -> None:
        """Give up silently. Idempotent; no effect once connected or failed."""
        self._is_done = True
        self._deadline.cancel()
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None

    def give_up(self) -> None:
        """Fail now, as when the time is over, and name what takes so long."""
        who = "the name look-up" if self._attempt is None else self._attempt.name
        self._fail(
            f"cannot connect to {_name(self._target)} within {self._timeout:g} s: "
            f"{who} has not answered"
        )

    # --- steps ------------------------------------------------------------------------------

    def _found(self, result: _Found) -> None:
        """Hand over what the look-up found, from a thread of its own."""
        with contextlib.suppress(ReactorClosed):  # nobody waits for the result any more
            self._reactor.call_soon_threadsafe(self._looked_up, result)

    def _looked_up(self, result: _Found) -> None:
        if self._is_done:
            return
        if isinstance(result, OSError):
            self._causes.append((self._target, result))
        else:
            self._addresses.extend(result)
        self._try_next()

    def _try_next(self) -> None:
        while self._addresses and not self._is_done:
            left = self._deadline.due - self._reactor.time
            share = left / len(self._addresses)
            family, address = self._addresses.popleft()
            try:
                sock = self._system.open_socket(family)
                self._attempt = _Attempt(self, sock, address)
                self._attempt.start(self._reactor, share)
                return
            except OSError as error:
                self._note_failure(error, address)
            except ReactorClosed:
                self.cancel()
        if not self._is_done:
            self._fail(f"cannot connect to {_name(self._target)}: {self._last_error()}")

    def attempt_failed(self, error: OSError, address: Address) -> None:
        """Note why one address failed, and go on with the next."""
        self._note_failure(error, address)
        self._try_next()

    def _note_failure(self, error: OSError, address: Address) -> None:
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None
        self._causes.append((address, error))

    def attempt_succeeded(self, sock: socket.socket, address: Address) -> None:
        """Hand the connected socket over to a transport."""
        self._attempt = None
        self.cancel()
        send_at_once(sock)
        try:
            self._transport_factory(self._reactor, sock, self._protocol, address).start()
        except Exception as error:
            # Reset already; or the system watches no further descriptor.
            close_socket(sock)
            self._fail(f"cannot use the connection to {_name(self._target)}: {error}")

    def _fail(self, message: str) -> None:
        self.cancel()
        self._on_failed(ConnectFailed(message, tuple(self._causes)))

    def _last_error(self) -> str:
        return self._causes[-1][1].strerror or str(self._causes[-1][1])


class _Attempt(EventHandler):
    """Connect one socket to one address."""

    __slots__ = ("_address", "_connector", "_reactor", "_sock", "_timer")

    def __init__(self, connector: Connector, sock: socket.socket, address: Address) -> None:
        super().__init__()
        self._connector = connector
        self._address = address
        self._sock = sock
        sock.setblocking(False)

    @property
    def name(self) -> str:
        """The address in a form to show."""
        return _name(self._address)

    def start(self, reactor: Reactor, timeout: float) -> None:
        """Begin to connect.

        Raises:
            OSError: the address cannot be reached, as is known at once.
        """
        self._reactor = reactor
        self._timer = reactor.call_later(timeout, self._time_out)
        error = self._sock.connect_ex(self._address)
        if error not in _IN_PROGRESS:
            raise OSError(error, os.strerror(error))
        # Connected already or not: readiness for writing says when, and how it went.
        reactor.watch(self, self._sock.fileno(), WRITE)

    def on_ready(self, mask: int) -> None:
        try:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as failure:
            self._connector.attempt_failed(failure, self._address)
            return
        if error:
            self._connector.attempt_failed(OSError(error, os.strerror(error)), self._address)
            return
        self._timer.cancel()
        self._reactor.unwatch(self)
        self._connector.attempt_succeeded(self._sock, self._address)

    def on_failure(self, error: Exception) -> None:
        """Do nothing: what raised was ``on_failed``, when everything was closed already."""

    def abort(self) -> None:
        self._connector.cancel()

    def close(self) -> None:
        self._timer.cancel()
        if self.fd >= 0:
            self._reactor.unwatch(self)
        close_socket(self._sock)

    def _time_out(self) -> None:
        error = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        self._connector.attempt_failed(error, self._address)


def _look_up(host: str, port: int, found: Callable[[_Found], object]) -> None:
    """Find the addresses of a host, or why there are none. Blocks."""
    result: _Found
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        result = list(dict.fromkeys((int(info[0]), info[4]) for info in infos))
    except (UnicodeError, OverflowError) as error:
        # A label longer than 63 octets, a port beyond all bounds: it names nothing.
        result = socket.gaierror(socket.EAI_NONAME, str(error))
    except OSError as error:
        result = error
    found(result)


def _name(target: tuple[str, int] | str) -> str:
    return target if isinstance(target, str) else f"{target[0]} port {target[1]}"
