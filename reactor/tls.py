"""TLS: which certificates a server shows, whom a client believes, and what both insist on.

    server   ServerTLS("server.pem") ── make_transport ──┐
                                                         ├──▶ TLSTransport
    client   client_context() ───────────────────────────┘

TLS 1.2 at the least, without compression and renegotiation; the one protocol that is offered by
ALPN is HTTP/1.1. For other settings a server has ``customize``; a client may bring any
``ssl.SSLContext``.

Not here: how bytes are moved through TLS, see ``tls_transport.py``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reactor.protocol import Protocol
from reactor.tls_transport import TLSTransport

if TYPE_CHECKING:
    from reactor.loop import Reactor

__all__ = ["ServerTLS", "TLSTransport", "client_context"]

# PyPy does not name the option; the number is OpenSSL's, from 1.1.0h on.
_OP_NO_RENEGOTIATION = getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
# Without it, a bare end of the peer's stream would forbid us to send what remains. Before 3.10
# Python set it by itself.
_OP_IGNORE_UNEXPECTED_EOF = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


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
        """Return a transport with the present certificate: a ``transport_factory``."""
        return TLSTransport(reactor, sock, protocol, peername, context=self.context)

    def _load(self) -> ssl.SSLContext:
        # A new context each time: a failed load into the old one would leave it half changed.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _restrict(context)
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
    _restrict(context)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | _OP_NO_RENEGOTIATION | _OP_IGNORE_UNEXPECTED_EOF
    # RFC 7301: a WebSocket in HTTP/2 would need another opening handshake (RFC 8441).
    context.set_alpn_protocols(["http/1.1"])
