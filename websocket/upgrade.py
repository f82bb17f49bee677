"""One accepted stream from accept to 101, or to a refusal: the server's opening handshake.

    accepted ── admitted? ── head complete? ── plain HTTP? ── answer, close
                  │no           │no, in time      │no
                  ▼             ▼                 ▼
                503, 429      408               route, judge, authenticate, session
                                                  │
                                                  ├── refused: 400 401 403 404 405 426 500 503
                                                  └── 101, and a Connection takes over

Every refusal is one complete response with ``Connection: close``; what follows in the stream
is discarded, never parsed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from reactor import Protocol, Transport
from websocket import events
from websocket.connection import Connection
from websocket.deflate import Deflate
from websocket.errors import HandshakeError
from websocket.handshake import Upgrade, Upgrader, accept_response, is_upgrade, refusal
from websocket.head_reader import HeadReader, TlsClientHello
from websocket.headers import parse_extensions
from websocket.http11 import MAX_QUERY_PARAMETERS, Request, build_response, parse_request
from websocket.message_connection import Handler, handler_class
from websocket.plain_request import read_plain_request
from websocket.pool import Slot
from websocket.session import Session

if TYPE_CHECKING:
    from websocket.server import Server

# The cookie has a name of our own: cookies ignore ports, and "session" is many frameworks'.
SESSION_COOKIE = "websocket_session"
SESSION_PARAMETER = "session"
# Ours have 43 characters; what is much longer is no mistake.
_MAX_SESSION_ID = 128
_HTTP = "http"
_INTERNAL_ERROR = HandshakeError(500, "internal error")


AnyHandler = Union[type[Connection], Handler]


class Routes:
    """Know which connection class serves which path.

    Args:
        handler: see ``Server``.

    Raises:
        TypeError: a handler is neither a ``Connection`` subclass nor a function.
    """

    __slots__ = ("_by_path", "_everywhere")

    def __init__(self, handler: AnyHandler | Mapping[str, AnyHandler]) -> None:
        self._by_path: dict[str, type[Connection]] = {}
        self._everywhere: type[Connection] | None = None
        if isinstance(handler, Mapping):
            self._by_path = {path: _as_class(each) for path, each in handler.items()}
        else:
            self._everywhere = _as_class(handler)

    def find(self, path: str) -> type[Connection] | None:
        """Return the class that serves a path, None where nothing does."""
        return self._everywhere or self._by_path.get(path)


def _as_class(handler: AnyHandler) -> type[Connection]:
    """Return a connection class for a class or a function."""
    if isinstance(handler, type):
        if issubclass(handler, Connection):
            return handler
        raise TypeError(f"{handler.__name__} is no subclass of websocket.Connection")
    if callable(handler):
        return handler_class(handler)
    raise TypeError(f"a handler is a Connection subclass or a function, not {handler!r}")


class HTTPResponse(NamedTuple):
    """Hold the answer to a plain HTTP request; see ``Server``.

    Attributes:
        body: the content; str is sent as UTF-8.
        status: 200 to 599.
        headers: further fields; Content-Length and Connection are added.
    """

    body: bytes | str = b""
    status: int = 200
    headers: Sequence[tuple[str, str]] = (("Content-Type", "text/plain; charset=utf-8"),)


class ServerHandshake(Protocol):
    """Read one request and answer it.

    Attributes:
        due: when the handshake must be over, in seconds of the reactor's clock.
    """

    __slots__ = (
        "_head_reader",
        "_leftover",
        "_outcome",
        "_plain_head",
        "_server",
        "_slot",
        "_transport",
        "due",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._head_reader: HeadReader | None = None
        self._leftover = b""
        self._plain_head: bytes | None = None
        self._slot: Slot | None = None
        self._transport: Transport | None = None
        self._outcome: str | None = None
        self.due = server.reactor.time + server.limits.handshake_timeout

    # --- called by the transport ------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """Ask for a slot and start the deadline."""
        server = self._server
        self._transport = transport
        server.handshakes.add(self)
        try:
            self._slot = server.manager.admit(host_of(transport.get_extra_info("peername")))
            if server.is_draining:
                raise HandshakeError(503, "the server is going away", (("Retry-After", "5"),))
        except HandshakeError as error:
            self.refuse(error)

    def data_received(self, data: memoryview) -> None:
        """Read the head; answer once it is complete."""
        if self._outcome is not None:
            return
        request = None
        try:
            request = self._read(bytes(data))
            if request is not None:
                self._introduce(request)
                self._answer(request)
        except TlsClientHello:
            events.report(
                self._server.reactor,
                "tls",
                "tls_on_plain",
                "a client speaks TLS to a port without it: is it a wss:// URL?",
                remote_address=self._host,
            )
            self._outcome = "tls"
            self.abort()
        except HandshakeError as error:
            self.refuse(error, request)
        except Exception as error:
            what = f"answering {events.clip(request)} raised"
            events.answer_failed(self._host, error, what)
            if self._outcome is None:
                self.refuse(_INTERNAL_ERROR, request)
            else:
                self.abort()

    def _read(self, data: bytes) -> Request | None:
        """Return the request once it is complete."""
        reader = self._head_reader
        if reader is None:
            plain = read_plain_request(data, self._server.limits)
            if plain is not None:
                request, leftover = plain
                self._leftover = leftover
                self._plain_head = data[: len(data) - len(leftover)]
                return request
            reader = self._head_reader = HeadReader(self._server.limits)
        head = reader.feed(data)
        self._leftover = reader.leftover
        return None if head is None else parse_request(head)

    def connection_lost(self, error: Exception | None) -> None:
        """Free the slot; the stream never became a connection."""
        self._outcome = self._outcome or _word_for(error)
        self._server.handshakes.discard(self)
        if self._slot is not None and self._outcome == _HTTP:
            self._server.manager.http_answered(self._slot)
        elif self._slot is not None:
            self._server.manager.handshake_failed(self._slot, self._outcome)
        self._server.check_drained()

    # --- outcomes ---------------------------------------------------------------------------

    def refuse(self, error: HandshakeError, request: Request | None = None) -> None:
        """Answer with a refusal and close, so that the client can read it. Idempotent."""
        if self._outcome is not None:
            return
        try:
            response = refusal(error, request, _date())
        except Exception as failure:
            # The application's own error: a status that is none, a header that breaks the answer.
            what = f"cannot send the refusal {events.clip(error)}"
            events.answer_failed(self._host, failure, what)
            error = _INTERNAL_ERROR
            response = refusal(error, request, _date())
        self._outcome = str(error.status)
        if error is not _INTERNAL_ERROR:  # that is in the log, with its traceback
            reason = events.clip(error.message)
            events.report(
                self._server.reactor,
                self._outcome,
                "refused",
                "%s: refused with %d: %s",
                self._host,
                error.status,
                reason,
                remote_address=self._host,
                status=error.status,
                reason=reason,
            )
        self._finish(response)

    def abort(self) -> None:
        """Drop the stream without an answer."""
        assert self._transport is not None
        self._outcome = self._outcome or "aborted"
        self._transport.abort()

    def _finish(self, response: bytes) -> None:
        assert self._transport is not None
        self._server.handshakes.answered(self)
        server, timeout = self._server, self._server.limits.linger_timeout
        self._transport.write(response)
        self._transport.flush()
        if self._transport.get_write_buffer_size():
            # A page that the kernel did not take at once, or TLS that is not up yet: what is
            # left of the time for the handshake is for that.
            timeout = max(timeout, self.due - server.reactor.time)
        self._transport.linger(timeout, server.limits.linger_size)

    def deadline(self) -> float:
        """Return ``due``, put off by what the loop has lost meanwhile: no fault of the peer."""
        server = self._server
        return self.due + server.reactor.lost_since(self.due - server.limits.handshake_timeout)

    def time_out(self) -> None:
        """Answer 408 because ``due`` has come."""
        self.refuse(HandshakeError(408, "the request took too long"))
        assert self._transport is not None
        if self._transport.get_write_buffer_size():
            # It stalls in the TLS handshake: it could not read the answer, and has had its time.
            self.abort()

    @property
    def _host(self) -> str:
        """The peer's address, for the log."""
        assert self._transport is not None
        return host_of(self._transport.get_extra_info("peername"))

    # --- answering --------------------------------------------------------------------------

    def _introduce(self, request: Request) -> None:
        """Say who asks, for the hooks of the application."""
        assert self._transport is not None
        request.remote_address = self._transport.get_extra_info("peername")
        request.peer_certificate = self._transport.get_extra_info("peercert") or None

    def _answer(self, request: Request) -> None:
        if is_upgrade(request):
            self._upgrade(request)
        else:
            self._serve_http(request)

    def _serve_http(self, request: Request) -> None:
        server = self._server
        server.upgrader.judge_host(request, is_secure=server.is_secure)
        response = server.hooks.answer_http(request)
        body = response.body
        if isinstance(body, str):
            body = body.encode()
        encoded = build_response(
            response.status,
            [*_date(), *response.headers],
            body,
            http_version=request.http_version,
            is_head=request.method == "HEAD",
        )
        self._outcome = _HTTP
        self._finish(encoded)

    def _upgrade(self, request: Request) -> None:
        server = self._server
        connection_class = server.routes.find(request.path)
        upgrade = server.upgrader.judge(
            request,
            is_secure=server.is_secure,
            subprotocols=_subprotocols(connection_class, server.upgrader),
            allow=server.hooks.allow,
        )
        if connection_class is None:
            raise HandshakeError(404, "no WebSocket is served at this path")
        user_id = server.hooks.authenticate(request)
        session, cookie = self._open_session(request, user_id)
        connection = connection_class(
            server.reactor,
            server.limits,
            statistics=server.manager.counters,
            ledger=server.manager.ledger,
            on_end=server.on_connection_ended,
        )
        self._hand_over(connection, request, upgrade, session, cookie)

    def _open_session(self, request: Request, user_id: str | None) -> tuple[Session, str | None]:
        """Return the client's session, and the cookie for one that is new."""
        assert self._slot is not None
        session, is_resumed = self._server.manager.open_session(
            _wanted_session(request), user_id, self._slot.address_key
        )
        if is_resumed:
            return session, None
        # Strict: another site's page must not reach the session through a visitor's browser.
        cookie = f"{SESSION_COOKIE}={session.id}; Path=/; HttpOnly; SameSite=Strict"
        if self._server.is_secure:
            cookie += "; Secure"
        return session, cookie

    def _hand_over(
        self,
        connection: Connection,
        request: Request,
        upgrade: Upgrade,
        session: Session,
        cookie: str | None,
    ) -> None:
        """Answer 101 and let the connection take over, with what came after the head."""
        assert self._transport is not None
        assert self._slot is not None
        self._outcome = "101"
        server = self._server
        server.handshakes.discard(self)
        extensions = _compress(server.deflate, connection, request)
        self._transport.write(accept_response(upgrade, extensions=extensions, cookie=cookie))
        connection.session = session
        connection.session_id = session.id
        server.manager.opened(connection, self._slot)
        kept = self._to_keep(connection, request)
        connection.open(self._transport, kept, upgrade.subprotocol)
        server.manager.replay(connection)
        if self._leftover:
            connection.data_received(memoryview(self._leftover))

    def _to_keep(self, connection: Connection, request: Request) -> Request | bytes:
        """Return what the connection is to keep: the head alone, if that says it all."""
        assert self._transport is not None
        is_as_it_came = (
            request.remote_address is self._transport.get_extra_info("peername")
            and request.peer_certificate is None
            and connection.limits is self._server.limits
        )
        if self._plain_head is not None and is_as_it_came:
            return self._plain_head
        request.compact()
        return request


def _word_for(error: Exception | None) -> str:
    """Return the word under which a stream is counted that ended before its answer."""
    if error is None:
        return "eof"
    return "reset" if isinstance(error, ConnectionError) else "broken"


def _compress(deflate: Deflate | None, connection: Connection, request: Request) -> str | None:
    """Agree on compression, if both want it; return what the answer says of it."""
    if deflate is None:
        return None
    accepted = deflate.accept(parse_extensions(request.headers.get_all("sec-websocket-extensions")))
    if accepted is None:
        return None
    agreement, answer = accepted
    connection.compress_with(deflate, agreement)
    return answer


def _date() -> tuple[tuple[str, str]]:
    """Return the Date field; RFC 9110, 6.6.1: to be sent by a server that has a clock."""
    return (("Date", formatdate(usegmt=True)),)


def _subprotocols(connection_class: type[Connection] | None, upgrader: Upgrader) -> Sequence[str]:
    """Return what a route speaks: first what its class says, then the server's own."""
    if connection_class is None or not connection_class.subprotocols:
        return upgrader.subprotocols
    return (*connection_class.subprotocols, *upgrader.subprotocols)


def host_of(peername: Any) -> str:
    """Return the host of a socket address; ``""`` for a Unix socket's."""
    return str(peername[0]) if isinstance(peername, tuple) else ""


def _may_name_session(query: str) -> bool:
    """Tell whether a query must be parsed, for the parameter or for the number of them."""
    return bool(query) and (
        SESSION_PARAMETER in query or "%" in query or query.count("&") >= MAX_QUERY_PARAMETERS
    )


def _wanted_session(request: Request) -> str | None:
    """Return the id of the session that the client asks for: cookie first, then query."""
    wanted = None
    # Both are looked through before they are parsed: a stranger's have no such name in them.
    if "cookie" in request.headers.first and any(
        SESSION_COOKIE in cookies for cookies in request.headers.get_all("cookie")
    ):
        wanted = request.cookies.get(SESSION_COOKIE)
    if wanted is None and _may_name_session(request.query):
        wanted = request.query_parameters.get(SESSION_PARAMETER, [None])[0]
    if wanted is not None and len(wanted) > _MAX_SESSION_ID:
        raise HandshakeError(400, "the session id is too long")
    return wanted
