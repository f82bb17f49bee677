"""The writing half of a transport: gathered writes, what stays unsent, watermarks, half-close.

    write ── end of the turn ──▶ flush ──┬── all is sent
                                   ▲     └── blocked: the rest stays ──┐
                                   └────── the socket is writable ─────┘

    above the high watermark ──▶ pause_writing ··· at the low one ──▶ resume_writing

Writes wait until the end of the turn and leave together, in one system call. What the socket
does not take stays here; meanwhile the protocol is told how much that is, step by step.

Not here: reading, and how a stream begins and ends, see ``transport.py``.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reactor.buffers import Buffer, drop_first, join_last
from reactor.event_handler import EventHandler
from reactor.protocol import Protocol
from reactor.speedups import send

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

#: What a socket raises that is to be asked again.
WOULD_BLOCK = (BlockingIOError, InterruptedError)

# While the socket takes nothing, the protocol is told each time so much more waits.
_STEP = 8 * 1024

_NOTHING: tuple[Buffer, ...] = ()


class WriteTransport(EventHandler):
    """Send the bytes of one connected socket; the base of ``Transport``.

    Takes the arguments of ``Transport``, but for the peer's address.
    """

    __slots__ = (
        "_alarm",
        "_buffered",
        "_buffers",
        "_eof_is_pending",
        "_high",
        "_is_blocked",
        "_is_closing",
        "_is_direct",
        "_is_ending",
        "_is_pausing",
        "_low",
        "_mark",
        "_on_sent",
        "_protocol",
        "_reactor",
        "_socket",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, protocol: Protocol) -> None:
        super().__init__()
        self._reactor = reactor
        self._socket = sock
        self._protocol = protocol
        # The accelerator goes by the descriptor's number. What only looks like a socket, in
        # tests or for TLS, has methods.
        self._is_direct = type(sock) is socket.socket
        # What waits: as it was written, until something is added to it or a part of it sent.
        self._buffers: Sequence[Buffer] = _NOTHING
        self._buffered = 0
        self._high = HIGH_WATERMARK
        self._low = _LOW_WATERMARK
        # More bytes than these are worth a look: see ``_press``.
        self._alarm = HIGH_WATERMARK
        self._is_blocked = False
        self._is_pausing = False
        self._is_closing = False
        self._eof_is_pending = False
        # Either of the two: nothing more can be written.
        self._is_ending = False
        # Bytes to be sent until the callback is due.
        self._mark = 0
        self._on_sent: Callable[[], object] | None = None

    # --- asking -----------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be taken by the operating system."""
        return self._buffered

    def is_blocked(self) -> bool:
        """Tell whether the socket has not taken all that was to be sent."""
        return self._is_blocked

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

    # --- sending ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits, in one system call; what the socket does not take stays."""
        buffers = self._buffers
        if not buffers:
            return
        try:
            sent = self._send(buffers)
        except WOULD_BLOCK:
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

    def _drop_unsent(self) -> None:
        """Forget what waits, and who waits for it: nobody will send it."""
        self._buffers = _NOTHING
        self._buffered = 0
        self._on_sent = None

    # --- what Transport does ----------------------------------------------------------------

    def _update_interest(self) -> None:
        """Wait for what is wanted now; called when the socket has got blocked, or unblocked."""
        raise NotImplementedError

    def _shut(self, error: Exception | None) -> None:
        """Close at once: after the last byte of a regular end (None), or because of an error."""
        raise NotImplementedError
