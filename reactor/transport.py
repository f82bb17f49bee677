"""One non-blocking stream socket: how it begins, is read into the shared buffer, and ends.

The life of a transport::

    start ── data_received* ──┬── close()   flush, then close
                              ├── linger()  flush, half-close, discard input for a while, close
                              ├── abort()   close at once
                              └── the peer's end of stream, or an error
                                        └── connection_lost, once, in a callback of its own

Its writing half is in ``write_transport.py``.

Not for: deadlines. Whoever owns a transport decides how long a peer may take, and aborts.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from reactor.discarder import Discarder
from reactor.event_handler import READ, WRITE
from reactor.protocol import Protocol
from reactor.sockets import close_socket, forget_unsent
from reactor.speedups import receive
from reactor.write_transport import WOULD_BLOCK, WriteTransport

if TYPE_CHECKING:
    from reactor.loop import Reactor


logger = logging.getLogger("reactor")


class Transport(WriteTransport):
    """Move the bytes of one connected socket. Reactor's thread only.

    The names are those of asyncio's transports.

    Args:
        reactor: dispatches the socket's readiness from ``start`` on.
        sock: connected, non-blocking; the transport owns and closes it.
        protocol: is told what happens.
        peername: the peer's address where the caller knows it already.
    """

    __slots__ = ("_has_eof", "_is_reading", "_peername")

    def __init__(
        self, reactor: Reactor, sock: socket.socket, protocol: Protocol, peername: Any = None
    ) -> None:
        super().__init__(reactor, sock, protocol)
        self._peername = peername
        self._is_reading = True
        self._has_eof = False

    def start(self) -> None:
        """Watch the socket and call ``connection_made``; if that raises, the transport ends.

        Raises:
            OSError: the socket cannot be watched; it is closed then, and no callback comes.
            ReactorClosed: the reactor is closed; the same holds.
        """
        try:
            self._reactor.watch(self, self._socket.fileno(), READ)
        except BaseException:
            close_socket(self._socket)
            raise
        try:
            self._protocol.connection_made(self)
        except Exception as error:
            logger.exception("connection_made of %r raised", self._protocol)
            self._shut(error)

    def __repr__(self) -> str:
        state = "closing" if self._is_closing else "open"
        return f"<{type(self).__name__} {state} to {self._peername!r} for {self._protocol!r}>"

    # --- asking -----------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``"socket"``, ``"peername"`` or ``"sockname"``, else the default."""
        if name == "socket":
            return self._socket
        if name == "peername":
            return self._peername if self._peername is not None else default
        if name == "sockname":
            try:
                return self._socket.getsockname()
            except OSError:
                return default
        return default

    def get_protocol(self) -> Protocol:
        """Return the protocol that is told what happens."""
        return self._protocol

    def set_protocol(self, protocol: Protocol) -> None:
        """Hand the stream to another protocol; ``connection_made`` is not called for it."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Tell whether the transport is closed or about to be; writes have no effect then."""
        return self._is_closing

    def is_reading(self) -> bool:
        """Tell whether input is read."""
        return self._is_reading and not self._has_eof and not self._is_closing

    # --- reading ----------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Read no further input; the kernel's buffer fills and the peer has to wait."""
        self._is_reading = False
        self._update_interest()

    def resume_reading(self) -> None:
        """Read input again; no effect after the peer's end of stream."""
        self._is_reading = True
        self._update_interest()

    def on_ready(self, mask: int) -> None:
        """Read once, or send once, or both."""
        if mask & READ:
            buffer = self._reactor.receive_buffer
            try:
                if self._is_direct and receive is not None:
                    size = receive(self.fd, buffer)
                else:
                    size = self._socket.recv_into(buffer)
            except WOULD_BLOCK:
                pass
            except OSError as error:
                self._shut(error)
                return
            else:
                if size:
                    self._protocol.buffer_received(buffer, size)
                else:
                    self._read_eof()
        if mask & WRITE and self._is_blocked:
            self.flush()

    def _read_eof(self) -> None:
        self._has_eof = True
        self._update_interest()
        if not self._protocol.eof_received():
            self.close()

    # --- ending -----------------------------------------------------------------------------

    def close(self) -> None:
        """Read no further, send what waits, then close. Idempotent.

        A peer that does not read keeps the transport open: abort it at a deadline.
        """
        if self._is_closing:
            return
        self._is_closing = self._is_ending = True
        if self._buffers:
            self._update_interest()
        else:
            self._shut(None)

    def linger(self, timeout: float, max_size: int) -> None:
        """Send what waits, half-close, and discard input until the peer closes.

        Closing a socket with unread input makes the kernel send a reset, and the reset may
        destroy what was just sent before the peer reads it. The protocol is told nothing more
        but ``connection_lost``.

        Args:
            timeout: seconds until the transport is aborted.
            max_size: bytes of input after which the transport is aborted.
        """
        if self._is_closing or isinstance(self._protocol, Discarder):
            return
        if self._has_eof:
            self.close()  # there is no input left that could cause a reset
            return
        timer = self._reactor.call_later(timeout, self.abort)
        self._protocol = Discarder(self, self._protocol, max_size, timer)
        self._end_writing()
        self.resume_reading()

    def detach(self) -> socket.socket:
        """Give the socket away, unclosed; no method of the protocol is called any more.

        For a second layer on the same stream, such as TLS behind a proxy. What waits to be
        sent is lost: call it when nothing does.
        """
        self._is_closing = self._is_ending = True
        self._drop_unsent()
        self._reactor.unwatch(self)
        return self._socket

    def abort(self) -> None:
        """Close at once; what waits to be sent is lost. Idempotent."""
        if self._buffers and self.fd >= 0:
            # Otherwise the system would go on to keep for the peer what it has not read.
            forget_unsent(self._socket)
        self._shut(None)

    def on_failure(self, error: Exception) -> None:
        """Close because a callback of the protocol raised."""
        self._shut(error)

    def _shut(self, error: Exception | None) -> None:
        if self.fd < 0:
            return
        self._is_closing = self._is_ending = True
        self._drop_unsent()
        self._reactor.unwatch(self)
        close_socket(self._socket)
        self._reactor.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        # Protocol and transport let go of each other, so that neither waits for the collector.
        protocol, self._protocol = self._protocol, _NOBODY
        protocol.connection_lost(error)

    def _update_interest(self) -> None:
        if self.fd < 0:
            return
        interest = READ if self.is_reading() else 0
        if self._is_blocked:
            interest |= WRITE
        self._want(interest)

    def _want(self, interest: int) -> None:
        try:
            self._reactor.set_interest(self, interest)
        except OSError as error:  # the system has no memory for it
            self._shut(error)


_NOBODY = Protocol()
