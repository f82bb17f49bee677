"""TLS on the loop: a transport over a non-blocking ``ssl`` socket.

    start ── connection_made ── handshake (on the loop) ── data_received* ── as in transport.py
                  └── what is written before the handshake is over waits for it

The handshake is a matter of readiness like everything else: a peer that stalls in it holds up
nobody, and whoever set a deadline in ``connection_made`` may abort it.

What differs from a plain socket, and is dealt with here: reading may have to wait until the
socket is writable and writing until it is readable (key updates); decrypted bytes may lie in the
TLS layer where no selector sees them; and there is no half-close.

Not here: which certificates are shown and believed, see ``tls.py``.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from reactor.buffers import Buffer
from reactor.event_handler import READ, WRITE
from reactor.protocol import Protocol
from reactor.transport import Transport

if TYPE_CHECKING:
    from reactor.loop import Reactor

# RFC 8446, 5.1: no record carries more. One that is full is seldom the last of its burst.
_RECORD_SIZE = 16 * 1024
# What is handed to OpenSSL in one call: 64 KiB make four full records.
_CHUNK_SIZE = 4 * _RECORD_SIZE
# Bytes to send in one go before others have their turn.
_SEND_BUDGET = 4 * _CHUNK_SIZE


class TLSTransport(Transport):
    """Move the bytes of one connected socket through TLS. Reactor's thread only.

    A handshake that fails, or a certificate that is refused, ends in ``connection_lost`` with
    the ``ssl.SSLError``.

    Args:
        reactor: dispatches the socket's readiness from ``start`` on.
        sock: connected, non-blocking; the transport owns and closes it.
        protocol: is told what happens, as if there were no TLS.
        peername: the peer's address where the caller knows it already.
        context: says what certificates to show and to ask for.
        server_hostname: on the client's side, whom to expect; None on the server's side.
    """

    __slots__ = (
        "_context",
        "_end_is_read",
        "_handshake_wants",
        "_read_wants_write",
        "_server_hostname",
        "_write_wants_read",
    )

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        protocol: Protocol,
        peername: Any = None,
        *,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
    ) -> None:
        super().__init__(reactor, sock, protocol, peername)
        self._context = context
        self._server_hostname = server_hostname
        # What the handshake waits for; 0 once it is over.
        self._handshake_wants = READ if server_hostname is None else WRITE
        self._read_wants_write = False
        # The stream has ended or broken, and the protocol could not be told: it had paused.
        self._end_is_read = False
        self._write_wants_read = False

    @property
    def _tls(self) -> ssl.SSLSocket:
        # Not asserted: in the tests of users it may be a socket in memory, see memory_tls.py.
        return cast(ssl.SSLSocket, self._socket)

    def start(self) -> None:
        """Watch the socket, call ``connection_made``, and begin the handshake."""
        super().start()
        if self.fd >= 0:
            self._wrap()
            self._update_interest()

    def _wrap(self) -> None:
        name = self._server_hostname
        try:
            # These raise where the peer is gone already, or the name is no host's. wrap_socket
            # would too, but only when it has taken the descriptor away, which nobody closes then.
            self._socket.getpeername()
            if name is not None:
                name.encode("idna")
            self._socket = self._context.wrap_socket(
                self._socket,
                server_side=name is None,
                server_hostname=name,
                do_handshake_on_connect=False,
            )
        except (OSError, ValueError) as error:
            self._shut(error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``"ssl_object"`` or ``"peercert"``, else as a plain transport.

        The former is there after ``connection_made``, the latter from the end of the handshake
        until the end of the stream.
        """
        if name not in {"ssl_object", "peercert"}:
            return super().get_extra_info(name, default)
        tls = self._tls
        if not hasattr(tls, "do_handshake"):  # not wrapped yet
            return default
        if name == "ssl_object":
            return tls
        is_up = not self._handshake_wants and tls.version() is not None
        return tls.getpeercert() if is_up else default

    # --- readiness --------------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Go on with the handshake, or with whatever waited for this."""
        if self._handshake_wants:
            self._shake_hands()
            return
        if mask & (WRITE if self._read_wants_write else READ):
            self._read()
        if self._is_blocked and mask & (READ if self._write_wants_read else WRITE):
            self.flush()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._handshake_wants = READ
        except ssl.SSLWantWriteError:
            self._handshake_wants = WRITE
        except OSError as error:
            self._turn_away(error)
        else:
            self._handshake_wants = 0
            if self._buffers:
                self.flush()
            elif self._eof_is_pending:
                self._shutdown_write()
        self._update_interest()

    def _turn_away(self, error: OSError) -> None:
        """Close, and read first what came behind the mistake: the peer has been sent an alert.

        A socket that is closed with unread input resets the stream, and the peer may then not
        see why. That it has no good certificate, for example.
        """
        with contextlib.suppress(OSError):
            self._tls.shutdown(socket.SHUT_WR)  # it is a plain socket from here on
            self._tls.recv_into(self._reactor.receive_buffer)
        self._shut(error)

    def _update_interest(self) -> None:
        if self.fd < 0:
            return
        if self._handshake_wants:
            self._want(self._handshake_wants)
            return
        interest = 0
        # Where one direction waits for the other, its own readiness would only spin.
        if self.is_reading():
            interest |= WRITE if self._read_wants_write else READ
        if self._is_blocked:
            interest |= READ if self._write_wants_read else WRITE
        self._want(interest)

    # --- reading ----------------------------------------------------------------------------

    def resume_reading(self) -> None:
        """Read input again, beginning with what has been decrypted already."""
        super().resume_reading()
        if not self._handshake_wants and (self._end_is_read or self._tls.pending()):
            # The selector does not see these bytes.
            self._reactor.call_soon(self._read_pending)

    def _read_pending(self) -> None:
        try:
            self.on_ready(READ)
        except Exception as error:
            self.on_failure(error)
            raise

    def _read(self) -> None:
        wanted_write, self._read_wants_write = self._read_wants_write, False
        self._read_records()
        if wanted_write or self._read_wants_write:
            self._update_interest()

    def _read_records(self) -> None:
        """Read records while they are full, as much as a plain socket would, and hand all on."""
        buffer = self._reactor.receive_buffer
        size, is_more = 0, self.is_reading()
        while is_more:
            try:
                count = self._tls.recv_into(buffer[size:] if size else buffer)
            except (ssl.SSLWantReadError, BlockingIOError):  # the latter after _shutdown_write
                break
            except ssl.SSLWantWriteError:
                self._read_wants_write = True
                break
            except OSError as error:
                self._end_reading(size, error)
                return
            if not count:
                self._end_reading(size, None)
                return
            size += count
            is_more = count >= _RECORD_SIZE or self._tls.pending() > 0
            if size == len(buffer):
                self._protocol.buffer_received(buffer, size)
                size, is_more = 0, self._tls.pending() > 0 and self.is_reading()
        if size:
            self._protocol.buffer_received(buffer, size)

    def _end_reading(self, size: int, error: OSError | None) -> None:
        """Hand on what came before the end of the stream, or before it broke, and then that."""
        if error is not None:
            _forget_errors()
        if size:
            self._protocol.buffer_received(self._reactor.receive_buffer, size)
        if not self.is_reading():
            # OpenSSL will tell it again, but the selector will not.
            self._end_is_read = True
        elif error is None:
            self._read_eof()
        else:
            self._shut(error)

    # --- writing ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it; nothing before the handshake is over."""
        if not self._handshake_wants:
            super().flush()

    def _send(self, buffers: Sequence[Buffer]) -> int:
        self._write_wants_read = False
        sent = 0
        try:
            for chunk in self._chunks(buffers):
                sent += self._tls.send(chunk)
                if sent >= _SEND_BUDGET:
                    break
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._write_wants_read = True
        return sent

    def _chunks(self, buffers: Sequence[Buffer]) -> Iterator[Buffer]:
        """Cut what waits into chunks: small writes share records, large ones are not copied.

        OpenSSL takes a chunk whole or not at all, and wants one that it did not take again: the
        same bytes, and no fewer. So it is, since all that can happen meanwhile is more writes.
        No chunk is empty: there is no way to tell OpenSSL to send nothing.
        """
        small: list[Buffer] = []
        size = 0
        for buffer in buffers:
            if size and size + len(buffer) > _CHUNK_SIZE:
                yield b"".join(small)
                small, size = [], 0
            if len(buffer) <= _CHUNK_SIZE:
                small.append(buffer)
                size += len(buffer)
            else:
                view = memoryview(buffer)
                for start in range(0, len(view), _CHUNK_SIZE):
                    yield view[start : start + _CHUNK_SIZE]
        if size:
            yield b"".join(small)

    def write_eof(self) -> None:
        """Refuse: Python's TLS has no half-close. Use ``close``."""
        raise NotImplementedError("a TLS stream has no half-close: use close()")

    # --- ending -----------------------------------------------------------------------------

    def _shutdown_write(self) -> None:
        if not self._handshake_wants:
            self._notify()
            # From here on the socket is a plain one: what still arrives is discarded unread.
            super()._shutdown_write()

    def _shut(self, error: Exception | None) -> None:
        # With bytes unsent the peer must not be told that this was all.
        if error is None and not self._handshake_wants and not self._buffers:
            self._notify()
        if isinstance(error, ssl.SSLError):
            _forget_errors()
        super()._shut(error)

    def _notify(self) -> None:
        """Send close_notify, so that the end cannot be forged; never wait for the peer's."""
        try:
            self._tls.unwrap()
        except (ssl.SSLWantReadError, ValueError):  # the latter: it has been sent already
            pass
        except OSError:
            _forget_errors()


def _forget_errors() -> None:
    """Empty OpenSSL's queue of errors, of which there is one for all streams of a thread.

    CPython has done so by itself. PyPy has not, and the next stream that would block, anybody's,
    would break with the error of this one. That a new object empties it holds for both.
    """
    _any_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)


@cache
def _any_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
