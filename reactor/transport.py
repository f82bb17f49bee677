"""One non-blocking stream socket: reads into the shared buffer, gathered writes, watermarks.

The life of a transport::

    start ── data_received* ──┬── close()   flush, then close
                              ├── linger()  flush, half-close, discard input for a while, close
                              ├── abort()   close at once
                              └── the peer's end of stream, or an error
                                        └── connection_lost, once, in a callback of its own

Writes wait until the end of the turn and leave together. What the socket does not take stays
here and is sent when the socket is writable again; the protocol is told to pause above the
high watermark and to resume at the low one.

Not for: deadlines. Whoever owns a transport decides how long a peer may take, and aborts.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reactor.buffers import Buffer, drop_first, join_last
from reactor.discarder import Discarder
from reactor.event_handler import READ, WRITE, EventHandler
from reactor.protocol import Protocol
from reactor.sockets import close_socket, forget_unsent
from reactor.speedups import receive, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactor.loop import Reactor

logger = logging.getLogger("reactor")

HIGH_WATERMARK = 64 * 1024
_LOW_WATERMARK = HIGH_WATERMARK // 4

# Below this, joining many small writes into one buffer is cheaper than a gather list.
_JOIN_LIMIT = 64 * 1024
# POSIX guarantees 16; Linux, macOS and the BSDs take 1,024 buffers in one call.
_MAX_GATHERED = 1024
_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")

_WOULD_BLOCK = (BlockingIOError, InterruptedError)

# While the socket takes nothing, the protocol is told each time so much more waits.
_STEP = 8 * 1024

_NOTHING: tuple[Buffer, ...] = ()


class Transport(EventHandler):
    """Move the bytes of one connected socket. Reactor's thread only.

    The names are those of asyncio's transports.

    Args:
        reactor: dispatches the socket's readiness from ``start`` on.
        sock: connected, non-blocking; the transport owns and closes it.
        protocol: is told what happens.
        peername: the peer's address where the caller knows it already.
    """

    __slots__ = (
        "_alarm",
        "_buffered",
        "_buffers",
        "_eof_is_pending",
        "_has_eof",
        "_high",
        "_is_blocked",
        "_is_closing",
        "_is_direct",
        "_is_ending",
        "_is_pausing",
        "_is_reading",
        "_low",
        "_mark",
        "_on_sent",
        "_peername",
        "_protocol",
        "_reactor",
        "_socket",
    )

    def __init__(
        self, reactor: Reactor, sock: socket.socket, protocol: Protocol, peername: Any = None
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._socket = sock
        self._protocol = protocol
        self._peername = peername
        # What waits: as it was written, until something is added to it or a part of it sent.
        self._buffers: Sequence[Buffer] = _NOTHING
        self._buffered = 0
        self._high = HIGH_WATERMARK
        self._low = _LOW_WATERMARK
        # More bytes than these are worth a look: see ``_press``.
        self._alarm = HIGH_WATERMARK
        # The accelerator goes by the descriptor's number. What only looks like a socket, in
        # tests or for TLS, has methods.
        self._is_direct = type(sock) is socket.socket
        self._is_reading = True
        self._has_eof = False
        self._is_blocked = False
        self._is_pausing = False
        self._is_closing = False
        self._eof_is_pending = False
        # Either of the two: nothing more can be written.
        self._is_ending = False
        # Bytes to be sent until the callback is due.
        self._mark = 0
        self._on_sent: Callable[[], object] | None = None

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

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be taken by the operating system."""
        return self._buffered

    def is_blocked(self) -> bool:
        """Tell whether the socket has not taken all that was to be sent."""
        return self._is_blocked

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
            except _WOULD_BLOCK:
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

    # --- writing ----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes after all that was written before; returns at once.

        Args:
            data: copied unless it is ``bytes``. Ignored when the transport is closing.
        """
        self.writelines((data if type(data) is bytes else bytes(data),))

    def writelines(self, buffers: tuple[bytes, ...] | list[bytes]) -> int:
        """Send several buffers after all that was written before, without joining large ones.

        Args:
            buffers: immutable bytes. Ignored when the transport is closing.

        Returns:
            The bytes that were taken: all, or none when the transport is closing.
        """
        if self._is_ending:
            return 0
        waiting = self._buffers
        if not waiting:
            self._buffers = buffers if type(buffers) is tuple else tuple(buffers)
            self._reactor.flush_soon(self)
        # Otherwise a flush is under way already: at the end of the turn, or when writable.
        elif type(waiting) is list:
            waiting += buffers
        else:
            self._buffers = [*waiting, *buffers]
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        self._buffered += size
        if self._buffered > self._alarm:
            self._press()
        return size

    def when_sent(self, callback: Callable[[], object]) -> None:
        """Call back, once, when the operating system has taken all that was written so far.

        That may be at once, and it may be never: not when the transport ends before. One
        callback at a time: a second call takes the first one's place.
        """
        self.flush()
        if self._is_closing:
            return
        if self._buffers:
            self._mark, self._on_sent = self._buffered, callback
        else:
            self._on_sent = None
            callback()

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        """Set the watermarks.

        Args:
            high: bytes above which ``pause_writing`` is called.
            low: bytes at or below which ``resume_writing`` is called; a quarter of ``high`` by
                default.

        Raises:
            ValueError: not 0 <= low <= high.
        """
        if low is None:
            # One number for all connections that keep the default.
            low = _LOW_WATERMARK if high == HIGH_WATERMARK else high // 4
        if not 0 <= low <= high:
            raise ValueError(f"0 <= low ({low}) <= high ({high}) does not hold")
        self._high = high
        self._low = low
        self._set_alarm()

    def write_eof(self) -> None:
        """End our half of the stream once everything written has been sent."""
        self._end_writing()

    def _end_writing(self) -> None:
        if self._is_ending:
            return
        self._eof_is_pending = self._is_ending = True
        if not self._buffers:
            self._shutdown_write()

    def flush(self) -> None:
        """Send what waits, in one system call; what the socket does not take stays."""
        buffers = self._buffers
        if not buffers:
            return
        try:
            sent = self._send(buffers)
        except _WOULD_BLOCK:
            sent = 0
        except OSError as error:
            self._shut(error)
            return
        if sent == self._buffered and not (self._is_blocked or self._is_pausing or self._is_ending):
            # Nearly always: all of it at the first attempt, and nothing waited for that.
            self._buffers = _NOTHING
            self._buffered = 0
            return
        self._drop_sent(sent)
        self._is_blocked = self._buffered > 0
        self._update_interest()
        if not self._is_blocked:
            self._drained()
        if self._is_pausing and self._buffered <= self._low and not self._is_closing:
            self._is_pausing = False
            self._set_alarm()
            self._protocol.resume_writing()
        self._report_unsent()

    def _set_alarm(self) -> None:
        """Set the number of bytes above which a write is followed by ``_press``."""
        if not self._is_blocked:
            self._alarm = self._high
        elif self._is_pausing:
            self._alarm = self._buffered + _STEP
        else:
            self._alarm = min(self._high, self._buffered + _STEP)

    def _report_unsent(self) -> None:
        """Tell the protocol what stays."""
        if self.fd < 0:
            return
        self._set_alarm()
        try:
            self._protocol.unsent_changed(self._buffered)
        except Exception as error:
            # Whoever writes may be another stream's callback, which must not pay for it.
            logger.exception("unsent_changed of %r raised", self._protocol)
            self._shut(error)

    def _press(self) -> None:
        """Try to get below the high watermark; tell the protocol when that fails."""
        if not self._is_blocked:
            self.flush()
        else:
            if type(self._buffers) is list:
                join_last(self._buffers)
            self._report_unsent()
        if self._buffered > self._high and not self._is_pausing and not self._is_closing:
            self._is_pausing = True
            try:
                self._protocol.pause_writing()
            except Exception as error:
                logger.exception("pause_writing of %r raised", self._protocol)
                self._shut(error)

    def _send(self, buffers: Sequence[Buffer]) -> int:
        if len(buffers) == 1:
            if self._is_direct and send is not None:
                return send(self.fd, buffers[0])
            return self._socket.send(buffers[0])
        if self._buffered > _JOIN_LIMIT and _HAS_SENDMSG:
            return self._socket.sendmsg(buffers[:_MAX_GATHERED])
        joined = b"".join(buffers)
        self._buffers = (joined,)
        return self._socket.send(joined)

    def _drop_sent(self, sent: int) -> None:
        """Forget the first ``sent`` bytes."""
        self._buffered -= sent
        if self._on_sent is not None:
            self._mark -= sent
            if self._mark <= 0:
                callback, self._on_sent = self._on_sent, None
                self._reactor.call_soon(callback)
        if not self._buffered:
            self._buffers = _NOTHING
            return
        self._buffers = drop_first(self._buffers, sent)

    def _drained(self) -> None:
        """Do what was put off until everything was sent."""
        if self._is_closing:
            self._shut(None)
        elif self._eof_is_pending:
            self._shutdown_write()

    def _shutdown_write(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._shut(error)

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
        self._buffers = _NOTHING
        self._buffered = 0
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
        self._buffers = _NOTHING
        self._buffered = 0
        self._reactor.unwatch(self)
        close_socket(self._socket)
        self._reactor.call_soon(self._lose, error)

    def _lose(self, error: Exception | None) -> None:
        # Protocol and transport let go of each other, so that neither waits for the collector.
        protocol, self._protocol = self._protocol, _NOBODY
        self._on_sent = None
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
