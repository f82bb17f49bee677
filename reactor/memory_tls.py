"""TLS over memory sockets: real handshakes and records, in virtual time, under every fault.

    server = VirtualServer(Echo, tls=MemoryServerTLS("server.pem"))
    client = server.connect(tls=in_memory(client_context("authority.pem")))

What an ``ssl.SSLSocket`` does to a descriptor, ``MemoryTLSSocket`` does to a ``MemorySocket``, with
an ``ssl.SSLObject`` between: it asks for a record's header and then for the rest, takes a write
whole or not at all and wants the same bytes again, and says SSLWantReadError or SSLWantWriteError
when the socket below would block. The faults of that socket are thus what they are in life; and
``MemoryTLSSocket.fail`` is for what OpenSSL may say of its own accord.

Not imported by ``testing.py``, so that tests without TLS do not load OpenSSL.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from reactor.loop import Reactor
from reactor.memory import MemorySocket
from reactor.protocol import Protocol
from reactor.tls import ServerTLS, TLSTransport

Result = TypeVar("Result")

# RFC 8446, 5.1: type, version, and the length of what follows.
_HEADER_SIZE = 5


def in_memory(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return a context whose ``wrap_socket`` takes memory sockets, for ``TLSTransport``."""
    return cast(ssl.SSLContext, _MemoryContext(context))


class MemoryServerTLS(ServerTLS):
    """Hold a server's certificate for streams in memory; takes the arguments of ``ServerTLS``."""

    def make_transport(
        self, reactor: Reactor, sock: socket.socket, protocol: Protocol, peername: Any = None
    ) -> TLSTransport:
        """Return a transport with the present certificate."""
        return TLSTransport(reactor, sock, protocol, peername, context=in_memory(self.context))


class _MemoryContext:
    """The one method of a context that a transport calls."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(
        self, sock: MemorySocket, *, server_side: bool, server_hostname: str | None, **_: Any
    ) -> MemoryTLSSocket:
        return MemoryTLSSocket(sock, self._context, server_side, server_hostname)


class MemoryTLSSocket:
    """Speak TLS over a memory socket, in the manner of ``ssl.SSLSocket``.

    Attributes:
        lower: the socket below, with faults of its own.
        errors: see ``fail``.
    """

    def __init__(
        self,
        lower: MemorySocket,
        context: ssl.SSLContext,
        server_side: bool,
        server_hostname: str | None,
    ) -> None:
        self.lower = lower
        self.family = lower.family
        self.errors: dict[str, deque[Exception]] = {}
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname
        )
        self._record = bytearray()
        self._unsent = bytearray()
        self._taken = b""

    def fail(self, method: str, *errors: Exception, times: int = 1) -> None:
        """Make the next calls of a method raise before they do any work.

        Args:
            method: ``"do_handshake"``, ``"recv_into"``, ``"send"`` or ``"unwrap"``.
            errors: ``ssl.SSLWantReadError()``, ``ssl.SSLWantWriteError()``...
            times: how often to go through them.
        """
        self.errors.setdefault(method, deque()).extend(errors * times)

    # --- what a TLS transport uses ----------------------------------------------------------

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        self._enter("do_handshake")
        assert self._tls is not None
        self._run(self._tls.do_handshake)
        self._push()

    def recv_into(self, buffer: memoryview) -> int:
        """Return the number of bytes decrypted, of one record; 0 at the end of the stream."""
        self._enter("recv_into")
        tls = self._tls
        if tls is None:
            return self.lower.recv_into(buffer)
        try:
            # The types leave it out: with a buffer, what is returned is a count.
            return cast(int, self._run(lambda: tls.read(len(buffer), cast(bytearray, buffer))))
        except ssl.SSLEOFError:
            return 0  # what suppress_ragged_eofs does

    def send(self, data: bytes | memoryview) -> int:
        """Return the number of bytes that were encrypted and sent: a record, or less."""
        self._enter("send")
        tls = self._tls
        if tls is None:
            return self.lower.send(data)
        if not self._taken:
            count = self._run(lambda: tls.write(data))
            self._taken = bytes(data[:count])
        elif bytes(data[: len(self._taken)]) != self._taken:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, "bad write retry")
        self._push()
        count, self._taken = len(self._taken), b""
        return count

    def unwrap(self) -> MemorySocket:
        """Send close_notify, and wait for the peer's."""
        self._enter("unwrap")
        if self._tls is None:
            raise ValueError("there is no TLS any more")
        self._run(self._tls.unwrap)
        self._push()
        self._tls = None
        return self.lower

    def pending(self) -> int:
        """Return how many bytes are decrypted and unread."""
        return 0 if self._tls is None else self._tls.pending()

    def version(self) -> str | None:
        """Return the version of TLS, None before the handshake and after the end."""
        return None if self._tls is None else self._tls.version()

    def getpeercert(self) -> Any:
        """Return the peer's certificate."""
        return None if self._tls is None else self._tls.getpeercert()

    def shutdown(self, how: int) -> None:
        """End this half of the stream; from here on there is no TLS."""
        self._tls = None
        self.lower.shutdown(how)

    def close(self) -> None:
        """Close the socket below."""
        self._tls = None
        self.lower.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket below."""
        return self.lower.fileno()

    def setsockopt(self, *args: object) -> None:
        """Set an option of the socket below."""
        self.lower.setsockopt(*args)

    def getpeername(self) -> Any:
        """Return the address of the other end."""
        return self.lower.getpeername()

    def getsockname(self) -> Any:
        """Return the address of this end."""
        return self.lower.getsockname()

    # --- between the socket and TLS ---------------------------------------------------------

    def _enter(self, method: str) -> None:
        if self.errors.get(method):
            raise self.errors[method].popleft()

    def _run(self, step: Callable[[], Result]) -> Result:
        """Take a step of TLS, with as much input as it asks for and there is."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if not self._taken:
                    self._push()  # the peer may be waiting for it
                self._pull()
            except ssl.SSLError:
                self._push_alert()
                raise

    def _pull(self) -> None:
        """Receive what is left of a record's header, or of its rest."""
        wanted = _HEADER_SIZE - len(self._record)
        if wanted <= 0:
            wanted += int.from_bytes(self._record[3:_HEADER_SIZE], "big")
        buffer = bytearray(wanted)
        try:
            count = self.lower.recv_into(memoryview(buffer))
        except (BlockingIOError, InterruptedError):
            raise ssl.SSLWantReadError("would block") from None
        if not count:
            self._incoming.write_eof()
            return
        self._incoming.write(buffer[:count])
        self._record += buffer[:count]
        if count == wanted and len(self._record) != _HEADER_SIZE:
            self._record.clear()

    def _push(self) -> None:
        """Send what was encrypted."""
        self._unsent += self._outgoing.read()
        try:
            while self._unsent:
                del self._unsent[: self.lower.send(bytes(self._unsent))]
        except (BlockingIOError, InterruptedError):
            raise ssl.SSLWantWriteError("would block") from None

    def _push_alert(self) -> None:
        """Tell the peer, if the socket takes it."""
        try:
            self._push()
        except OSError:
            pass
