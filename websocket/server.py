"""The server: listen, open handshakes, route to connection classes, broadcast, shut down.

    Listener ── ServerHandshake (upgrade.py) ── Connection (yours)
                       │                            │
                       └── ConnectionManager: limits, sessions, statistics

A server runs on a reactor of its own or on one that it shares with other servers, clients and
timers. It can be started and shut down several times; ``shutdown.py`` and ``running.py`` do that.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reactor import AcceptCounts, Listener, Reactor, send_at_once
from websocket import events
from websocket.binding import Binding
from websocket.connection import Connection
from websocket.deflate import Deflate
from websocket.errors import InvalidState
from websocket.frame import build_close
from websocket.frame_writer import Payload
from websocket.handshake import Upgrader
from websocket.handshake_timeouts import Handshakes
from websocket.hooks import Hooks
from websocket.http11 import Request
from websocket.lifecycle import Lifecycle
from websocket.limits import Limits
from websocket.manager import ConnectionManager
from websocket.policies import SlowConsumer
from websocket.running import run
from websocket.session import Session
from websocket.shared_message import SharedMessage
from websocket.shutdown import Shutdown, goodbye
from websocket.statistics import StatisticsSnapshot
from websocket.upgrade import AnyHandler, HTTPResponse, Routes, ServerHandshake

if TYPE_CHECKING:
    from reactor.tls import ServerTLS
    from websocket.ledger import Ledger
    from websocket.persistence import SessionStore


class Server:
    """Accept WebSocket connections and give each an instance of your class.

    Own thread of the reactor only, except ``broadcast``, ``drain``, ``shutdown`` and
    ``statistics``.

    Args:
        handler: a ``Connection`` subclass, or a function ``handler(connection, message)``, for
            all paths; or a mapping from path to either, other paths being refused with 404.
        host: a name or address to listen on; ``""`` for all addresses.
        port: 0 for any free port; see ``port`` for which one it became.
        unix_path: listen on this Unix socket instead.
        sockets: listen on these instead: bound, listening stream sockets. The server owns them
            from ``start`` on and closes them at its shutdown.
        reuse_port: let several processes share the port.
        tls: the certificate, for wss.
        is_secure: whether browsers reach the server through TLS, which decides what the same
            origin is; by default whether ``tls`` is given. True behind a proxy that speaks TLS.
        reactor: to share; by default the server makes and closes its own.
        limits: every limit and deadline.
        compression: accept permessage-deflate, with ``Deflate()`` or a policy of your own.
        upgrader: the policy of the opening handshake: origins, hosts, subprotocols.
        authenticate: called with the ``Request``; returns the user's id or None for nobody in
            particular, or raises ``HandshakeError`` (401, 403) to refuse. A session belongs to
            the user for whom it was made.
        on_http_request: called with a plain GET or HEAD ``Request``; returns an
            ``HTTPResponse``, or None for 404.
        on_session_expired: called with each ``Session`` that came to its end.
        session_store: keeps the sessions over a restart, for example a ``SQLiteStore``; see
            ``websocket.session_store``. It is opened here, and closed by ``close``.
        ledger: judges the memory of several servers on one reactor together, see
            ``websocket.ledger``; by default each server is judged by itself.

    Attributes:
        manager: the connections, sessions and counters of this server.

    Raises:
        OSError: the store of sessions cannot be used.
        ValueError: the ledger is one of another reactor.
    """

    def __init__(
        self,
        handler: AnyHandler | Mapping[str, AnyHandler],
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        unix_path: str | None = None,
        sockets: Iterable[socket.socket] | None = None,
        reuse_port: bool = False,
        tls: ServerTLS | None = None,
        is_secure: bool | None = None,
        reactor: Reactor | None = None,
        limits: Limits | None = None,
        compression: bool | Deflate = False,
        upgrader: Upgrader | None = None,
        authenticate: Callable[[Request], str | None] | None = None,
        on_http_request: Callable[[Request], HTTPResponse | None] | None = None,
        on_session_expired: Callable[[Session], object] | None = None,
        session_store: SessionStore | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.routes = Routes(handler)
        self._binding = Binding(
            host, port, unix_path=unix_path, sockets=sockets, reuse_port=reuse_port, tls=tls
        )
        self.is_secure = tls is not None if is_secure is None else is_secure
        self.deflate = Deflate.of(compression)
        self._owns_reactor = reactor is None
        self.reactor = Reactor() if reactor is None else reactor
        self.limits = Limits() if limits is None else limits
        self.upgrader = Upgrader() if upgrader is None else upgrader
        self.hooks = Hooks(authenticate, on_http_request, on_session_expired)
        try:
            self.manager = ConnectionManager(
                self.reactor,
                self.limits,
                on_session_expired=self.hooks.session_expired,
                session_store=session_store,
                ledger=ledger,
            )
        except BaseException:
            if self._owns_reactor:
                self.reactor.close()
            raise
        self.handshakes = Handshakes(self.reactor)
        # Made once: a method that is looked up anew for each connection is kept by each, too.
        self.on_connection_ended: Callable[[Lifecycle], None] = self._connection_ended
        self._listener: Listener | None = None
        self._accept_counts = AcceptCounts()
        self._shutdown = Shutdown(self)
        self._is_closed = False

    # --- life -------------------------------------------------------------------------------

    def start(self) -> Server:
        """Listen; connections are accepted as soon as the reactor runs.

        Returns:
            The server itself.

        Raises:
            OSError: the address cannot be bound.
            InvalidState: it is started already, or its own reactor is closed.
        """
        if self._is_closed:
            raise InvalidState("the server is closed: make a new one")
        if self._listener is not None or self.is_draining:
            raise InvalidState("the server is running already: shut it down first")
        self.manager.open()
        self._listener = self._binding.listen(
            self.reactor, self._new_handshake, self._accept_counts
        )
        events.note("listening", "listening on %s", ", ".join(map(str, self.addresses)))
        return self

    def run(self) -> None:
        """Start unless started, serve until shut down, and close.

        In the main thread SIGINT and SIGTERM begin the shutdown, a second one ends it at once,
        and SIGHUP reloads the certificate; handlers that were there before come back at the end.
        ``KeyboardInterrupt`` and ``SystemExit`` raised by a callback begin it, too, and are
        raised again at its end. ``reactor.stop`` ends it without a shutdown.

        Raises:
            OSError: the address cannot be bound.
            InvalidState: its own reactor is closed.
        """
        self._shutdown.stops_reactor = True
        try:
            run(self, self._shutdown, has_certificate=self._binding.tls is not None)
        finally:
            self._shutdown.stops_reactor = False
            self.close()

    def drain(
        self,
        timeout: float | None = None,
        *,
        restart: bool = True,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        """Accept no further connections, and let those that are open go on. Any thread.

        For a rolling restart: the port is given up at once, so that another process which
        listens on it (``reuse_port``), or another machine, gets the new clients, while the old
        ones stay until they leave by themselves. ``is_draining`` and the statistics tell that it
        goes on; at its end ``on_done`` is called and ``run`` returns. ``shutdown`` cuts it
        short. A second call changes nothing, but its ``on_done`` is called as well.

        Args:
            timeout: seconds after which those who are left are closed as by ``shutdown``; by
                default nobody is.
            restart: what they are told then, see ``shutdown``.
            on_done: called once in the reactor's thread, after the last ``on_close``.

        Raises:
            ReactorClosed: from another thread, when the reactor is closed.
        """
        self._in_own_thread(self._shutdown.drain, timeout, restart, on_done)

    def shutdown(
        self,
        code: int | None = None,
        reason: str | None = None,
        *,
        restart: bool = False,
        grace: float | None = None,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        """Accept no further connections, and close those that are open. Any thread.

        Close frames are sent at least 64 every tenth of a second, to all within half of the
        grace. With the codes 1001, 1012 and 1013 each says when to come back, "retry after 2.53
        s" at the end of its reason, spread over 5 seconds; our client waits that long
        (``retry.py``). A second call changes nothing, but its ``on_done`` is called as well.

        Args:
            code: the close code for all; by default 1001, or 1012 for a restart.
            reason: at most 123 bytes of UTF-8; up to 103 leave room for the hint.
            restart: the service will be back.
            grace: seconds after which what is still there is aborted; by default
                ``limits.shutdown_grace``.
            on_done: called once in the reactor's thread, after the last ``on_close``.

        Raises:
            ValueError: a code that must not be sent, or too long a reason.
            ReactorClosed: from another thread, when the reactor is closed.
        """
        usual_code, usual_reason = goodbye(restart)
        code = usual_code if code is None else code
        reason = usual_reason if reason is None else reason
        build_close(code, reason)
        self._in_own_thread(self._shutdown.close, code, reason, grace, on_done)

    def close(self) -> None:
        """Abort everything that is left, at once. Not from within a callback of its own reactor."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self._shutdown.abort()
        self.manager.close()
        if self._owns_reactor:
            self._is_closed = True
            self.reactor.close()

    def adopt(self, sock: socket.socket, received: bytes = b"") -> None:
        """Take over a connection that another HTTP server has accepted.

        From another thread: ``reactor.call_soon_threadsafe(server.adopt, sock, received)``.

        Args:
            sock: connected; the server owns it from here on.
            received: what has been read from it, from the first byte of the request on; with
                TLS nothing can have been.
        """
        sock.setblocking(False)
        send_at_once(sock)
        try:
            peername = sock.getpeername()
        except OSError:
            peername = None
        handshake = ServerHandshake(self)
        self._binding.transport_factory(self.reactor, sock, handshake, peername).start()
        if received:
            handshake.data_received(memoryview(received))

    def reload_certificates(self) -> None:
        """Read the certificate's files again; new connections get the new one.

        Raises:
            InvalidState: the server has no ``tls``.
            OSError: a file cannot be read, or certificate and key do not match; the old
                certificate stays in use.
        """
        if self._binding.tls is None:
            raise InvalidState("there is no certificate to reload: the server has no tls")
        self._binding.tls.reload()

    # --- asking -----------------------------------------------------------------------------

    @property
    def is_draining(self) -> bool:
        """Tell whether nobody new is taken in: from ``drain`` or ``shutdown`` to the last end.

        For the answer of a health check, in ``on_http_request`` of another server for example.
        """
        return self._shutdown.is_draining

    @property
    def is_shutting_down(self) -> bool:
        """Tell whether everybody is sent away: from ``shutdown`` to the last end."""
        return self._shutdown.is_closing

    @property
    def addresses(self) -> list[Any]:
        """The addresses that are listened on, as sockets give them; empty when not started."""
        return [] if self._listener is None else self._listener.addresses

    @property
    def port(self) -> int:
        """The TCP port that is listened on.

        Raises:
            InvalidState: not started, or not on TCP.
        """
        for address in self.addresses:
            if isinstance(address, tuple):
                return int(address[1])
        raise InvalidState("the server listens on no TCP port")

    @property
    def connections(self) -> list[Connection]:
        """The open connections, as a list of its own."""
        return [each for each in self.manager.pool.connections() if isinstance(each, Connection)]

    def statistics(self) -> StatisticsSnapshot:
        """Return all numbers as they are now. Any thread."""
        counts = self._accept_counts
        return self.manager.statistics()._replace(
            is_draining=self.is_draining,
            log_failures=events.log_failures(),
            lag=self.reactor.lag,
            accept_failures=counts.failures,
            turned_away=counts.turned_away,
            abandoned=counts.abandoned,
        )

    # --- messages ---------------------------------------------------------------------------

    def broadcast(
        self,
        message: Payload,
        to: Iterable[Connection] | None = None,
        *,
        policy: SlowConsumer | str | None = None,
        key: Hashable = None,
    ) -> None:
        """Send one message to many; it is encoded once. Any thread.

        Args:
            message: see ``Connection.send``.
            to: whom; by default all connections that are open when the broadcast begins.
            policy: what becomes of it where a peer is slow; by default as for each connection's
                own messages.
            key: where one is given, by default as for ``Connection.send_latest``.

        Raises:
            TypeError, ValueError: see ``Connection.send``; or there is no such policy.
            ReactorClosed: from another thread, when the reactor is closed.
        """
        receivers = None if to is None else list(to)
        if policy is not None:
            policy = SlowConsumer(policy)
        elif key is not None:
            policy = SlowConsumer.LATEST
        hash(key)
        self._in_own_thread(self._broadcast, SharedMessage(message, policy, key), receivers)

    def _broadcast(self, shared: SharedMessage, to: list[Connection] | None) -> None:
        for connection in self.connections if to is None else to:
            connection.send_shared(shared)

    # --- for its parts ------------------------------------------------------------------------

    def _connection_ended(self, connection: Lifecycle) -> None:
        """Let go of a connection that is over; called by the connection."""
        assert connection.cause is not None
        self.manager.closed(connection, connection.cause)
        self.check_drained()

    def check_drained(self) -> None:
        """Finish a shutdown when the last stream is gone."""
        self._shutdown.check()

    def stop_listening(self) -> None:
        """Accept nobody but those who have connected already; called by the shutdown."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.finish()

    # --- details ----------------------------------------------------------------------------

    def _new_handshake(self) -> ServerHandshake:
        return ServerHandshake(self)

    def _in_own_thread(self, method: Callable[..., object], *args: object) -> None:
        """Call a method in the reactor's thread: now, or soon if this is another one."""
        if self.reactor.is_own_thread():
            method(*args)
        else:
            self.reactor.call_soon_threadsafe(method, *args)
