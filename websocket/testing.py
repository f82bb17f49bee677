"""Test your handlers in memory and in virtual time: no port, no waiting, nothing random.

    class Echo(Connection):
        def on_message(self, message):
            self.send(message.upper())
            self.reactor.call_later(3600, self.send, "an hour later")

    with VirtualServer(Echo) as server:
        alice = server.connect()
        alice.send("hello")
        assert alice.receive() == "HELLO"
        server.pass_time(3600)                    takes no time
        assert alice.receive() == "an hour later"
        alice.socket.cut()                        the cable is pulled, nobody is told
        server.pass_time(41)
        assert server.connections == []           the ping was not answered

The server, its clients, reactor and protocol are the real ones; sockets, selector and clock are
those of ``reactor.testing``, which has the faults that a stream may be given. ``ConnectionPair``
is two connections and nothing else. ``Peer`` is for what no good client does: single frames, and
bytes. No test framework is needed; what a test should see fail is an ``AssertionError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from reactor import Protocol, Transport
from reactor.memory import CAPACITY
from reactor.testing import MemoryNetwork, VirtualClock, as_socket
from websocket.client import connect
from websocket.connection import Connection
from websocket.limits import Limits
from websocket.server import Server
from websocket.testing_ends import KEY, Peer, Recorder, upgrade_request
from websocket.upgrade import AnyHandler

if TYPE_CHECKING:
    import ssl

__all__ = ["KEY", "ConnectionPair", "Peer", "Recorder", "VirtualServer", "upgrade_request"]

HOST = "localhost"

AnyConnection = TypeVar("AnyConnection", bound=Connection)
Ours = TypeVar("Ours", bound=Connection)
Theirs = TypeVar("Theirs", bound=Connection)


class VirtualServer:
    """Serve a handler in memory and in virtual time. Use it as a context manager, or close it.

    Args:
        handler: as ``Server`` takes it.
        network: to share with other servers, on other ports; by default one of its own.
        port: that clients connect to.
        options: of ``Server``, but for those that say what to listen on. For TLS a
            ``reactor.memory_tls.MemoryServerTLS``.

    Attributes:
        server: the ``Server``.
        reactor: what runs it, and its clients.
        network: what joins them.
        clock: the time.
    """

    def __init__(
        self,
        handler: AnyHandler | Mapping[str, AnyHandler],
        *,
        network: MemoryNetwork | None = None,
        port: int = 80,
        **options: Any,
    ) -> None:
        self.network = MemoryNetwork() if network is None else network
        self.clock: VirtualClock = self.network.clock
        self.reactor = self.network.reactor()
        self._port = port
        self._scheme = "ws" if options.get("tls") is None else "wss"
        sockets = [as_socket(self.network.listen(HOST, port))]
        self.server = Server(handler, sockets=sockets, reactor=self.reactor, **options)
        self.server.start()

    def __enter__(self) -> VirtualServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything at once; what is still open is aborted."""
        self.server.close()
        self.reactor.close()

    @property
    def connections(self) -> list[Connection]:
        """The server's open connections, the oldest first."""
        return self.server.connections

    def settle(self) -> None:
        """Let everything happen that can without time going by."""
        self.reactor.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time go by, and happen what is due."""
        self.reactor.pass_time(seconds)

    def url(self, path: str = "/") -> str:
        """Return the URL to connect to."""
        return f"{self._scheme}://{HOST}:{self._port}{path}"

    @overload
    def connect(self, path: str = "/", **options: Any) -> Recorder: ...

    @overload
    def connect(
        self, path: str, connection_class: type[AnyConnection], **options: Any
    ) -> AnyConnection: ...

    def connect(
        self,
        path: str = "/",
        connection_class: type[Connection] = Recorder,
        *,
        address: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Connection:
        """Connect a client, and let the opening handshake happen.

        Args:
            path: of the URL.
            connection_class: the client's; by default it records what it is told.
            address: where the client seems to come from.
            tls: of ``reactor.memory_tls.in_memory``.
            options: of ``websocket.connect``.

        Raises:
            HandshakeError: the server refused.
            ConnectFailed: nobody listens any more.
        """
        with self.network.clients_from(address):
            client = connect(self.reactor, self.url(path), connection_class, tls=tls, **options)
            self.settle()
        if client.error is not None and client.opened_at is None:
            raise client.error
        return client

    def stranger(self, address: str = "127.0.0.1") -> Peer:
        """Return a peer that has connected and said nothing."""
        with self.network.clients_from(address):
            sock = self.network.listeners[HOST, self._port].connect()
            self.settle()
        return Peer(sock, is_client=True)


class ConnectionPair(Generic[Ours, Theirs]):
    """Join two connections in memory, the server's end and the client's, both open.

    There was no opening handshake: neither has a request or a session. For those, and for what
    a server does, see ``VirtualServer``.

    Args:
        server_class: of the server's end.
        client_class: of the client's end.
        limits: of both.
        subprotocol: what both believe to have agreed on.
        capacity: bytes that may be under way in one direction before the sender must wait.

    Attributes:
        server: the server's end.
        client: the client's end.
        reactor: runs both; ``settle`` and ``pass_time`` are its own, too.
    """

    @overload
    def __init__(
        self: ConnectionPair[Recorder, Recorder],
        *,
        limits: Limits | None = None,
        subprotocol: str | None = None,
        capacity: int = CAPACITY,
    ) -> None: ...

    @overload
    def __init__(
        self: ConnectionPair[Ours, Recorder],
        server_class: type[Ours],
        *,
        limits: Limits | None = None,
        subprotocol: str | None = None,
        capacity: int = CAPACITY,
    ) -> None: ...

    @overload
    def __init__(
        self,
        server_class: type[Ours],
        client_class: type[Theirs],
        *,
        limits: Limits | None = None,
        subprotocol: str | None = None,
        capacity: int = CAPACITY,
    ) -> None: ...

    def __init__(
        self,
        server_class: type[Any] = Recorder,
        client_class: type[Any] = Recorder,
        *,
        limits: Limits | None = None,
        subprotocol: str | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self.network = MemoryNetwork()
        self.reactor = self.network.reactor()
        limits = Limits() if limits is None else limits
        self.server: Ours = server_class(self.reactor, limits)
        self.client: Theirs = client_class(self.reactor, limits, is_client=True)
        ends = self.network.pair(capacity=capacity)
        for connection, sock in zip((self.server, self.client), ends):
            transport = Transport(self.reactor, as_socket(sock), Protocol(), sock.getpeername())
            transport.start()
            connection.open(transport, subprotocol=subprotocol)
        self.settle()

    def __enter__(self) -> ConnectionPair[Ours, Theirs]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything at once."""
        self.reactor.close()

    def settle(self) -> None:
        """Let everything happen that can without time going by."""
        self.reactor.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time go by, and happen what is due."""
        self.reactor.pass_time(seconds)
