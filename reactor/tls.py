"""TLS on the loop: a transport over a non-blocking ``ssl`` socket, and a server's certificates.

    start ── connection_made ── handshake (on the loop) ── data_received* ── as in transport.py
                  └── what is written before the handshake is over waits for it

The handshake is a matter of readiness like everything else: a peer that stalls in it holds up
nobody, and whoever set a deadline in ``connection_made`` may abort it.

What differs from a plain socket, and is dealt with here: reading may have to wait until the
socket is writable and writing until it is readable (key updates); decrypted bytes may lie in the
TLS layer where no selector sees them; and there is no half-close.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reactor.event_handler import READ, WRITE
from reactor.protocol import Protocol
from reactor.transport import Transport

if TYPE_CHECKING:
    from reactor.loop import Reactor

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TLSTransport(Transport):
    """Move the bytes of one connected socket through TLS. Reactor's thread only.

    Args:
        reactor: dispatches the socket's readiness from ``start`` on.
        sock: connected, non-blocking; the transport owns and closes it.
        protocol: is told what happens, as if there were no TLS.
        peername: the peer's address where the caller knows it already.
        context: says what certificates to show and to ask for.
        server_hostname: on the client's side, whom to expect; None on the server's side.

    Raises:
        OSError: the socket is not connected any more.
    """

    __slots__ = ("_handshake_wants", "_read_wants_write", "_write_wants_read")

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
        wrapped = context.wrap_socket(
            sock,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        super().__init__(reactor, wrapped, protocol, peername)
        # What the handshake waits for; 0 once it is over.
        self._handshake_wants = READ if server_hostname is None else READ | WRITE
        self._read_wants_write = False
        self._write_wants_read = False

    @property
    def _tls(self) -> ssl.SSLSocket:
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket

    def start(self) -> None:
        """Watch the socket, call ``connection_made``, and begin the handshake."""
        super().start()
        if self.fd >= 0:
            self._update_interest()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return ``"ssl_object"`` or ``"peercert"``, else as a plain transport."""
        if name == "ssl_object":
            return self._tls
        if name == "peercert":
            return self._tls.getpeercert() if not self._handshake_wants else default
        return super().get_extra_info(name, default)

    # --- readiness --------------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Go on with the handshake, or with whatever waited for this."""
        if self._handshake_wants:
            self._shake_hands()
            return
        if mask & READ or self._read_wants_write:
            self._read()
        if self._is_blocked and (mask & WRITE or self._write_wants_read):
            self.flush()

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._handshake_wants = READ
        except ssl.SSLWantWriteError:
            self._handshake_wants = WRITE
        except OSError as error:
            self._shut(error)
            return
        else:
            self._handshake_wants = 0
        self._update_interest()
        if not self._handshake_wants:
            self.flush()
            if self._eof_is_pending and not self._buffers:
                self._shutdown_write()
            self._read_soon()

    def _update_interest(self) -> None:
        if self.fd < 0:
            return
        if self._handshake_wants:
            self._reactor.set_interest(self, self._handshake_wants)
            return
        interest = 0
        # Where one direction waits for the other, its own readiness would only spin.
        if self.is_reading():
            interest |= WRITE if self._read_wants_write else READ
        if self._is_blocked:
            interest |= READ if self._write_wants_read else WRITE
        self._reactor.set_interest(self, interest)

    # --- reading ----------------------------------------------------------------------------

    def resume_reading(self) -> None:
        """Read input again, beginning with what has been decrypted already."""
        super().resume_reading()
        self._read_soon()

    def _read_soon(self) -> None:
        """Read without waiting for readiness: the selector does not see decrypted bytes."""
        if not self._handshake_wants and self.is_reading():
            self._reactor.call_soon(self._read_again)

    def _read_again(self) -> None:
        if self.fd >= 0 and self.is_reading():
            try:
                self._read()
            except Exception as error:
                self.on_failure(error)
                raise

    def _read(self) -> None:
        wanted_write, self._read_wants_write = self._read_wants_write, False
        try:
            count = self._tls.recv_into(self._reactor.receive_buffer)
        except ssl.SSLWantReadError:
            count = -1
        except ssl.SSLWantWriteError:
            self._read_wants_write = True
            count = -1
        except OSError as error:
            self._shut(error)
            return
        if wanted_write != self._read_wants_write:
            self._update_interest()
        if count < 0:
            return
        self._receive(count)
        if self.is_reading() and self._tls.pending():
            self._read_soon()

    # --- writing ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it; nothing before the handshake is over."""
        if not self._handshake_wants:
            super().flush()

    def _send(self) -> int:
        # RFC 8446, 5.1: a record carries 16 KiB at the most; small writes had better share one.
        if len(self._buffers) > 1 and self._buffered <= self._high:
            self._buffers = [b"".join(self._buffers)]
        self._write_wants_read = False
        sent = 0
        try:
            for buffer in self._buffers:
                count = self._tls.send(buffer)
                sent += count
                if count < len(buffer):
                    break
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._write_wants_read = True
        return sent

    def write_eof(self) -> None:
        """Refuse: Python's TLS has no half-close. Use ``close``."""
        raise NotImplementedError("a TLS stream has no half-close: use close()")

    # --- ending -----------------------------------------------------------------------------

    def _shutdown_write(self) -> None:
        if self._handshake_wants:
            return
        self._notify()
        # From here on the socket is a plain one: what still arrives is discarded unread.
        super()._shutdown_write()

    def _shut(self, error: Exception | None) -> None:
        if error is None and self.fd >= 0 and not self._handshake_wants:
            self._notify()
        super()._shut(error)

    def _notify(self) -> None:
        """Send close_notify, so that the end cannot be forged; never wait for the peer's."""
        with contextlib.suppress(OSError, ValueError):
            self._tls.unwrap()


class ServerTLS:
    """Hold a server's certificate, and replace it while the server runs.

    Args:
        certificate: the path of a PEM file: the certificate, then its chain.
        key: the path of the private key; by default it is in the certificate's file.
        password: of the private key, where it has one.
        client_authorities: the path of a PEM file with the authorities of client certificates.
            When given, a client without a certificate of theirs is refused.
        customize: called with each new ``SSLContext``, for settings that are not named here.

    Attributes:
        context: the context for new connections; its certificate is the last good one.

    Raises:
        OSError: a file cannot be read, or (``ssl.SSLError``) certificate and key do not match.
    """

    def __init__(
        self,
        certificate: str,
        key: str | None = None,
        *,
        password: str | None = None,
        client_authorities: str | None = None,
        customize: Callable[[ssl.SSLContext], object] | None = None,
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._password = password
        self._client_authorities = client_authorities
        self._customize = customize
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; connections that are open keep what they have.

        Raises:
            OSError: as in the constructor; the old certificate stays in use.
        """
        self.context = self._load()

    def make_transport(
        self, reactor: Reactor, sock: socket.socket, protocol: Protocol, peername: Any = None
    ) -> TLSTransport:
        """Return a transport with the present certificate: a ``transport_factory``.

        Raises:
            OSError: the socket is not connected any more.
        """
        return TLSTransport(reactor, sock, protocol, peername, context=self.context)

    def _load(self) -> ssl.SSLContext:
        # A new context each time: a failed load into the old one would leave it half changed.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        # RFC 7301: a WebSocket in HTTP/2 would need another opening handshake (RFC 8441).
        context.set_alpn_protocols(["http/1.1"])
        # A function, so that OpenSSL never asks on the terminal; it wants bytes or str.
        context.load_cert_chain(self._certificate, self._key, lambda: self._password or "")
        if self._client_authorities is not None:
            context.load_verify_locations(self._client_authorities)
            context.verify_mode = ssl.CERT_REQUIRED
        if self._customize is not None:
            self._customize(context)
        return context


def client_context(authorities: str | None = None) -> ssl.SSLContext:
    """Return a context that checks the server's certificate and name.

    Args:
        authorities: the path of a PEM file with the authorities to trust; by default those of
            the system.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
