"""What a server listens on: an address, a Unix socket, or sockets made elsewhere; TLS or not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from reactor import (
    AcceptCounts,
    Listener,
    Protocol,
    Reactor,
    Transport,
    open_tcp_sockets,
    open_unix_socket,
)
from reactor.sockets import SocketFile
from websocket.errors import InvalidState

if TYPE_CHECKING:
    from reactor.tls import ServerTLS


class Binding:
    """Hold where and how to listen; see ``Server`` for the arguments."""

    __slots__ = ("_host", "_port", "_reuse_port", "_sockets", "_unix_path", "tls")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        unix_path: str | None,
        sockets: Iterable[socket.socket] | None,
        reuse_port: bool,
        tls: ServerTLS | None,
    ) -> None:
        self._host = host
        self._port = port
        self._unix_path = unix_path
        self._sockets = None if sockets is None else list(sockets)
        self._reuse_port = reuse_port
        self.tls = tls

    @property
    def transport_factory(self) -> Callable[..., Transport]:
        """Return what makes the transport of an accepted connection."""
        return Transport if self.tls is None else self.tls.make_transport

    def listen(
        self,
        reactor: Reactor,
        protocol_factory: Callable[[], Protocol],
        counts: AcceptCounts | None = None,
    ) -> Listener:
        """Return a listener.

        Args:
            reactor, protocol_factory, counts: see ``Listener``.

        Raises:
            OSError: the address cannot be bound.
            InvalidState: the sockets that were given are closed, by an earlier shutdown say.
        """
        return Listener(
            reactor,
            self._open_sockets(),
            protocol_factory,
            transport_factory=self.transport_factory,
            socket_file=self._socket_file(),
            counts=counts,
        )

    def _open_sockets(self) -> list[socket.socket]:
        if self._sockets is not None:
            if any(sock.fileno() < 0 for sock in self._sockets):
                raise InvalidState("the sockets to listen on are closed: make a new server")
            for sock in self._sockets:
                sock.setblocking(False)
            return list(self._sockets)
        if self._unix_path is not None:
            return [open_unix_socket(self._unix_path)]
        return open_tcp_sockets(self._host, self._port, reuse_port=self._reuse_port)

    def _socket_file(self) -> SocketFile | None:
        """Return the file to remove at the end; that of a socket made elsewhere is not ours."""
        if self._sockets is not None or self._unix_path is None:
            return None
        return SocketFile(self._unix_path)
