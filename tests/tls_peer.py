"""The other end of a TLS stream, in the test's hand: each step and each byte may be held back.

    stage = TLSStage()
    transport, peer = stage.server(Witness())    ours is the server, the peer a client
    transport, peer = stage.client(Witness())    the other way round
    stage.settle()                               until nothing more happens at either end

The sockets are real ones, connected pairs within this process: what one end sends is there at
once for the other, so that nothing here waits.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from support import FakeClock

from reactor import Protocol, Reactor
from reactor.tls import ServerTLS, TLSTransport, client_context

CERTIFICATES = Path(__file__).parent / "certificates"


def certificate(name: str) -> str:
    """Return the path of a file of tests/certificates, see its README."""
    return str(CERTIFICATES / f"{name}.pem")


AUTHORITY = certificate("authority")


# Python 3.9 and PyPy set it, and would take a truncated stream for one that has ended cleanly.
_OP_IGNORE_UNEXPECTED_EOF = 1 << 7


def trusting_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return a plain client's context, of one version of TLS only if that is given."""
    context = ssl.create_default_context(cafile=AUTHORITY)
    context.options &= ~_OP_IGNORE_UNEXPECTED_EOF
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def serving_context(name: str = "server") -> ssl.SSLContext:
    """Return a plain server's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(name))
    return context


class TLSPeer:
    """Speak TLS in memory, and move the bytes only when ``pump`` is called.

    Attributes:
        received: all that arrived, decrypted.
        is_ready: whether the handshake is over.
        has_clean_end: whether close_notify has arrived.
        has_eof: whether the socket's stream has ended, cleanly or not.
        error: what broke the stream.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._unsent = bytearray()
        self.received = bytearray()
        self.is_ready = False
        self.has_clean_end = False
        self.has_eof = False
        self.error: Exception | None = None

    @property
    def common_name(self) -> str:
        """Whom the other end's certificate names."""
        found: Any = self.tls.getpeercert()
        return str(dict(part for parts in found["subject"] for part in parts)["commonName"])

    def write(self, data: bytes) -> None:
        """Encrypt bytes, each call in records of its own; ``pump`` sends them."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]

    def end(self) -> None:
        """Say close_notify; ``pump`` sends it."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass

    def encrypted(self) -> bytes:
        """Take what would be sent, to send it otherwise, or not at all."""
        self.step()
        data = bytes(self._unsent) + self._outgoing.read()
        self._unsent.clear()
        return data

    def pump(self, size: int = 1024 * 1024) -> bool:
        """Receive up to a size, go on with TLS, send; tell whether anything moved."""
        has_received = self.receive(size)
        self.step()
        return self.send() or has_received

    def close(self) -> None:
        self.sock.close()

    # --- the steps of pump ------------------------------------------------------------------

    def receive(self, size: int = 1024 * 1024) -> bool:
        """Receive up to a size; tell whether anything came."""
        if self.has_eof:
            return False
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return False
        except OSError as error:
            self.has_eof = True
            self.error = error
            return True
        if data:
            self._incoming.write(data)
        else:
            self.has_eof = True
            self._incoming.write_eof()
        return True

    def step(self) -> None:
        """Go on with the handshake, then decrypt what has been received."""
        if self.error is not None or self.has_clean_end:
            return
        try:
            if not self.is_ready:
                self.tls.do_handshake()
                self.is_ready = True
            while True:
                data = self.tls.read(65536)
                if not data:
                    self.has_clean_end = True
                    return
                self.received += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except ssl.SSLZeroReturnError:
            self.has_clean_end = True
        except ssl.SSLError as error:
            self.error = error

    def send(self) -> bool:
        """Send what was encrypted, as far as the socket takes it; tell whether it took any."""
        self._unsent += self._outgoing.read()
        if not self._unsent:
            return False
        try:
            del self._unsent[: self.sock.send(self._unsent)]
        except BlockingIOError:
            return False
        except OSError:
            self._unsent.clear()
        return True


class TLSStage:
    """A reactor, and streams of which one end is ours; closes everything at the end."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.reactor = Reactor(clock=self.clock)
        self.tls = ServerTLS(certificate("server"))
        self._trusting = client_context(AUTHORITY)
        self._peers: list[TLSPeer] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> TLSStage:
        return self

    def __exit__(self, *exception: object) -> None:
        self.reactor.close()
        for peer in self._peers:
            peer.close()
        for sock in self._sockets:
            sock.close()

    def accept(
        self, protocol: Protocol, tls: ServerTLS | None = None, send_buffer: int | None = None
    ) -> tuple[TLSTransport, socket.socket]:
        """Return a server's transport and the other end, on which nothing has been said yet."""
        ours, theirs = self._pair(send_buffer)
        transport = (tls or self.tls).make_transport(self.reactor, ours, protocol, "the peer")
        transport.start()
        return transport, theirs

    def server(
        self,
        protocol: Protocol,
        tls: ServerTLS | None = None,
        *,
        context: ssl.SSLContext | None = None,
        send_buffer: int | None = None,
    ) -> tuple[TLSTransport, TLSPeer]:
        """Return a server's transport and its client."""
        transport, theirs = self.accept(protocol, tls, send_buffer)
        return transport, self.peer(theirs, context)

    def client(
        self,
        protocol: Protocol,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str = "localhost",
        server: ssl.SSLContext | None = None,
    ) -> tuple[TLSTransport, TLSPeer]:
        """Return a client's transport and its server."""
        ours, theirs = self._pair(None)
        transport = TLSTransport(
            self.reactor,
            ours,
            protocol,
            context=context or self._trusting,
            server_hostname=server_hostname,
        )
        transport.start()
        return transport, self.peer(theirs, server or serving_context(), None)

    def peer(
        self,
        sock: socket.socket,
        context: ssl.SSLContext | None = None,
        server_hostname: str | None = "localhost",
    ) -> TLSPeer:
        """Speak TLS at the other end; ``settle`` pumps it from now on."""
        peer = TLSPeer(sock, context or trusting_context(), server_hostname)
        self._peers.append(peer)
        return peer

    def settle(self, turns: int = 3000) -> None:
        """Run turns and pump the peers until nothing more happens."""
        for _ in range(turns):
            self.reactor.run_once(0)
            has_moved = [peer.pump() for peer in self._peers]
            if self.is_quiet() and not any(has_moved):
                return
        raise AssertionError(f"still busy after {turns} turns")

    def settle_alone(self, turns: int = 200) -> None:
        """Run turns until nothing more happens at our end; the peers stand still."""
        for _ in range(turns):
            if self.is_quiet():
                return
            self.reactor.run_once(0)
        raise AssertionError(f"still busy after {turns} turns")

    def is_quiet(self) -> bool:
        """Tell whether a turn would do nothing: neither sockets nor callbacks are ready."""
        return self.reactor.next_timeout() != 0 and not self.reactor._selector.select(0)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.settle()

    def _pair(self, send_buffer: int | None) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        if send_buffer is not None:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._sockets.append(theirs)
        return ours, theirs
