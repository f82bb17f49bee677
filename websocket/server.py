"""The server: listen, open handshakes, route to connection classes, broadcast, shut down.

    Listener ── ServerHandshake (upgrade.py) ── Connection (yours)
                       │                            │
                       └── ConnectionManager: limits, sessions, statistics

A server runs on a reactor of its own or on one that it shares with other servers, clients and
timers. It can be started and shut down several times.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reactor import Listener, Reactor, Timer, send_at_once
from websocket.binding import Binding
from websocket.causes import Cause
from websocket.connection import Connection
from websocket.deflate import Deflate
from websocket.deflate_codec import Compressor
from websocket.errors import HandshakeError, InvalidState
from websocket.frame import build_close
from websocket.frame_writer import Payload, encode_message
from websocket.handshake import Upgrader
from websocket.http11 import Request
from websocket.lifecycle import Lifecycle
from websocket.limits import Limits
from websocket.manager import ConnectionManager
from websocket.opcodes import CloseCode
from websocket.ratelimit import BucketTable
from websocket.session import Session
from websocket.statistics import MAX_REASONS, StatisticsSnapshot
from websocket.upgrade import AnyHandler, HTTPResponse, Routes, ServerHandshake

if TYPE_CHECKING:
    from reactor.tls import ServerTLS

logger = logging.getLogger("websocket")

_NOT_FOUND = HTTPResponse("this is a WebSocket server, and no page\n", 404)


class Server:
    """Accept WebSocket connections and give each an instance of your class.

    Own thread of the reactor only, except ``broadcast``, ``shutdown`` and ``statistics``.

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

    Attributes:
        manager: the connections, sessions and counters of this server.
        is_shutting_down: True from ``shutdown`` until the last stream is gone.
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
        self._authenticate = authenticate
        self._on_http_request = on_http_request
        self._on_session_expired = on_session_expired
        self.manager = ConnectionManager(
            self.reactor, self.limits, on_session_expired=self._session_expired
        )
        self.handshakes: set[ServerHandshake] = set()
        self.is_shutting_down = False
        self._listener: Listener | None = None
        self._grace_timer: Timer | None = None
        self._on_drained: list[Callable[[], object]] = []
        self._is_in_run = False
        self._is_closed = False
        self._reports = BucketTable(1 / 5, 1, MAX_REASONS)

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
        if self._listener is not None or self.is_shutting_down:
            raise InvalidState("the server is running already: shut it down first")
        self._listener = self._binding.listen(self.reactor, self._new_handshake)
        logger.info("listening on %s", ", ".join(map(str, self.addresses)))
        return self

    def run(self) -> None:
        """Start unless started, serve until shut down, and close.

        In the main thread SIGINT and SIGTERM begin the shutdown, a second one ends it at once,
        and SIGHUP reloads the certificate.
        ``KeyboardInterrupt`` and ``SystemExit`` raised by a callback begin it, too, and are
        raised again at its end. ``reactor.stop`` ends it without a shutdown.

        Raises:
            OSError: the address cannot be bound.
            InvalidState: its own reactor is closed.
        """
        self._is_in_run = True
        try:
            if self._listener is None and not self.is_shutting_down:
                self.start()
            with self._signals_handled():
                try:
                    self.reactor.run()
                except (KeyboardInterrupt, SystemExit):
                    self.shutdown()
                    self.reactor.run()
                    raise
        finally:
            self._is_in_run = False
            self.close()

    def shutdown(
        self,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "the server is going away",
        *,
        grace: float | None = None,
        on_done: Callable[[], object] | None = None,
    ) -> None:
        """Accept no further connections, and close those that are open. Any thread.

        A second call changes nothing, but its ``on_done`` is called as well.

        Args:
            code: the close code for all.
            reason: at most 123 bytes of UTF-8.
            grace: seconds after which what is still there is aborted; by default
                ``limits.shutdown_grace``.
            on_done: called once in the reactor's thread, after the last ``on_close``.

        Raises:
            ValueError: a code that must not be sent, or too long a reason.
            ReactorClosed: from another thread, when the reactor is closed.
        """
        build_close(code, reason)
        if not self.reactor.is_own_thread():
            self.reactor.call_soon_threadsafe(self._shut_down, code, reason, grace, on_done)
        else:
            self._shut_down(code, reason, grace, on_done)

    def close(self) -> None:
        """Abort everything that is left, at once. Not from within a callback of its own reactor."""
        self._stop_listening()
        self._abort_all()
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
        return self.manager.statistics()

    # --- messages ---------------------------------------------------------------------------

    def broadcast(self, message: Payload, to: Iterable[Connection] | None = None) -> None:
        """Send one message to many; it is encoded once. Any thread.

        Args:
            message: see ``Connection.send``.
            to: whom; by default all connections that are open when the broadcast begins.

        Raises:
            TypeError, ValueError: see ``Connection.send``.
            ReactorClosed: from another thread, when the reactor is closed.
        """
        head, payload = encode_message(message)
        receivers = None if to is None else list(to)
        if not self.reactor.is_own_thread():
            self.reactor.call_soon_threadsafe(self._broadcast, head, payload, receivers)
        else:
            self._broadcast(head, payload, receivers)

    def _broadcast(self, head: int, payload: bytes, to: list[Connection] | None) -> None:
        frames: dict[Compressor | None, tuple[bytes, ...]] = {}
        for connection in self.connections if to is None else to:
            connection.send_shared(head, payload, frames)

    # --- for the opening handshake ----------------------------------------------------------

    def authenticate(self, request: Request) -> str | None:
        """Return the user's id, or None for nobody in particular.

        Raises:
            HandshakeError: the user may not connect.
            TypeError: the application's hook returned something else.
        """
        if self._authenticate is None:
            return None
        user_id = self._authenticate(request)
        if user_id is not None and not isinstance(user_id, str):
            raise TypeError(f"authenticate() returned {type(user_id).__name__}, not str or None")
        return user_id

    def answer_http(self, request: Request) -> HTTPResponse:
        """Return the answer to a plain request."""
        response = None
        if self._on_http_request is not None:
            response = self._on_http_request(request)
        return _NOT_FOUND if response is None else response

    @property
    def allow(self) -> str:
        """The methods that are allowed, for the Allow field of a refusal."""
        return "GET" if self._on_http_request is None else "GET, HEAD"

    def connection_ended(self, connection: Lifecycle) -> None:
        """Let go of a connection that is over; called by the connection."""
        assert connection.cause is not None
        self.manager.closed(connection, connection.cause)
        self.check_drained()

    def check_drained(self) -> None:
        """Finish a shutdown when the last stream is gone."""
        if self._grace_timer is None or self.handshakes or self.manager.pool.admitted:
            return
        self._grace_timer.cancel()
        self._grace_timer = None
        self.is_shutting_down = False
        done, self._on_drained = self._on_drained, []
        # Soon, not now: the last connection is about to call on_close.
        for callback in (*done, self._stop_run):
            self.reactor.call_soon(callback)

    def report(self, kind: str, text: str, *values: object) -> None:
        """Log what a peer did; of each kind at most one line in five seconds.

        The statistics count all of them: a flood must fill neither the disk nor the log.
        """
        if self._reports.take(kind, self.reactor.time):
            logger.info(text, *values)

    # --- details ----------------------------------------------------------------------------

    def _new_handshake(self) -> ServerHandshake:
        return ServerHandshake(self)

    def _shut_down(
        self,
        code: int,
        reason: str,
        grace: float | None,
        on_done: Callable[[], object] | None,
    ) -> None:
        if on_done is not None:
            self._on_drained.append(on_done)
        if self.is_shutting_down:
            self.reactor.call_soon(self.check_drained)
            return
        self.is_shutting_down = True
        self._stop_listening()
        seconds = self.limits.shutdown_grace if grace is None else grace
        # Soon, not now: it may be a hook that calls, whose request is to be answered first.
        self.reactor.call_soon(self._end_all, code, reason, seconds)

    def _end_all(self, code: int, reason: str, grace: float) -> None:
        self._grace_timer = self.reactor.call_later(grace, self._abort_all)
        for handshake in list(self.handshakes):
            handshake.refuse(HandshakeError(503, reason, (("Retry-After", "5"),)))
        for connection in self.connections:
            connection.end(Cause.SHUTDOWN, code, reason)
        self.check_drained()

    def _stop_run(self) -> None:
        if self._is_in_run:
            self.reactor.stop()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _abort_all(self) -> None:
        for handshake in list(self.handshakes):
            handshake.abort()
        for connection in self.connections:
            connection.abort()

    def _session_expired(self, session: Session) -> None:
        try:
            if self._on_session_expired is not None:
                self._on_session_expired(session)
        except Exception:
            # It must not cost the connection of the session its on_close.
            logger.exception("on_session_expired raised")

    @contextmanager
    def _signals_handled(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM begin the shutdown, SIGHUP reload; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {signal.SIGINT: self._on_stop_signal, signal.SIGTERM: self._on_stop_signal}
        if self._binding.tls is not None and hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._on_reload_signal
        for number, handler in handlers.items():
            self.reactor.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                self.reactor.remove_signal_handler(number)

    def _on_reload_signal(self) -> None:
        try:
            self.reload_certificates()
        except OSError as error:
            logger.error("the new certificate is refused, the old one stays: %s", error)
        else:
            logger.info("certificate reloaded")

    def _on_stop_signal(self) -> None:
        if self.is_shutting_down:
            logger.info("second signal: closing at once")
            self._abort_all()
        else:
            logger.info("shutting down")
            self.shutdown()
