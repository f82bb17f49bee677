"""The client: connect, open the handshake, and hand over to a ``Connection``.

    Connector or Tunnel ── TLS? ── ClientHandshake ──┬── 101: Connection (yours)
             ▲                                       ├── redirect: once more
             └───────────────────────────────────────┘
    refused or unreachable: on_error, and nothing else

One deadline, ``limits.handshake_timeout``, covers look-up, connecting, TLS, redirects and the
handshake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from reactor import ConnectFailed, Connector, Protocol, Reactor, Transport
from websocket.causes import Cause
from websocket.connection import Connection
from websocket.deflate import Agreement, Deflate
from websocket.errors import HandshakeError
from websocket.handshake_client import WebSocketURL, build_request, judge_response, parse_url
from websocket.headers import Extension, parse_extensions
from websocket.http11 import Response
from websocket.key import new_key
from websocket.lifecycle import Lifecycle
from websocket.limits import Limits
from websocket.reconnect import Reconnect
from websocket.redirect import have_same_origin, keep_fields, redirect_target
from websocket.response_reader import ResponseReader
from websocket.tunnel import Proxy, Tunnel, parse_proxy
from websocket.upgrade import SESSION_COOKIE

if TYPE_CHECKING:
    import ssl

AnyConnection = TypeVar("AnyConnection", bound=Connection)

MAX_REDIRECTS = 10


def connect(
    reactor: Reactor,
    url: str,
    connection_class: type[AnyConnection],
    *,
    subprotocols: Sequence[str] | None = None,
    origin: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    session_id: str | None = None,
    limits: Limits | None = None,
    compression: bool | Deflate = False,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
    unix_path: str | None = None,
    max_redirects: int = MAX_REDIRECTS,
    reconnect: Reconnect | bool = False,
) -> AnyConnection:
    """Connect to a WebSocket server. Reactor's thread only; returns at once.

    Args:
        reactor: runs the connection.
        url: ``ws://host[:port]/path?query``, or the same with ``wss``.
        connection_class: its ``on_open`` is called when the connection is open; ``on_error``,
            and nothing else, with a ``HandshakeError`` or ``ConnectFailed`` when it cannot be.
        subprotocols: what to offer, the preferred one first; by default those of the class.
        origin: the value of Origin, for a client that acts for a web page.
        headers: further fields of the request, for example ``basic_credentials(...)``.
        session_id: ``Connection.session_id`` of an earlier connection, to resume its session.
        limits: every limit and deadline.
        compression: offer permessage-deflate, with ``Deflate()`` or a policy of your own.
        tls: for wss; by default ``reactor.tls.client_context()``, which checks certificates.
        proxy: ``http://[user:password@]host[:port]``, to be asked for a tunnel (CONNECT).
        unix_path: connect to this Unix socket; the URL gives Host and path then.
        max_redirects: redirects to follow; 0 for none. Never from wss to ws, and never with
            credentials to another origin.
        reconnect: after each end that was not asked for, connect a new instance of the class.
            True, if that is to end by ``self.close()`` in a method of the class; a ``Reconnect``,
            to end it from elsewhere by ``close`` or ``stop``.

    Returns:
        The connection, in state CONNECTING.

    Raises:
        ValueError: a URL, a header or a combination of arguments is wrong.
    """
    if proxy is not None and unix_path is not None:
        raise ValueError("a Unix socket needs no proxy: give one of the two")
    plan = Plan(
        reactor=reactor,
        url=parse_url(url),
        subprotocols=connection_class.subprotocols if subprotocols is None else subprotocols,
        origin=origin,
        headers=list(headers),
        limits=Limits() if limits is None else limits,
        deflate=Deflate.of(compression),
        tls=tls,
        proxy=None if proxy is None else parse_proxy(proxy),
        unix_path=unix_path,
        max_redirects=max_redirects,
    )
    keeper = Reconnect() if reconnect is True else reconnect or None
    dial = partial(_dial, plan, connection_class, keeper)
    connection = dial(session_id)
    if keeper is not None:
        keeper.begin(reactor, connection, dial)
    return connection


class Plan(NamedTuple):
    """Hold what the caller of ``connect`` asked for; the same for every try."""

    reactor: Reactor
    url: WebSocketURL
    subprotocols: Sequence[str]
    origin: str | None
    headers: list[tuple[str, str]]
    limits: Limits
    deflate: Deflate | None
    tls: ssl.SSLContext | None
    proxy: Proxy | None
    unix_path: str | None
    max_redirects: int


def _dial(
    plan: Plan,
    connection_class: type[AnyConnection],
    keeper: Reconnect | None,
    session_id: str | None,
) -> AnyConnection:
    """Make one try."""
    handshake = ClientHandshake(plan, session_id, keeper)
    connection = connection_class(
        plan.reactor, plan.limits, is_client=True, on_end=handshake.connection_ended
    )
    connection.session_id = session_id
    handshake.start(connection)
    return connection


class ClientHandshake(Protocol):
    """Send the request and judge the answer, through redirects if need be."""

    __slots__ = (
        "_connection",
        "_connector",
        "_fields",
        "_keeper",
        "_key",
        "_plan",
        "_redirects",
        "_request",
        "_response_reader",
        "_timer",
        "_transport",
        "_url",
    )

    def __init__(self, plan: Plan, session_id: str | None, keeper: Reconnect | None) -> None:
        self._plan = plan
        self._url = plan.url
        self._fields = plan.headers
        if session_id is not None:
            self._fields = _with_cookie(plan.headers, f"{SESSION_COOKIE}={session_id}")
        self._keeper = keeper
        self._redirects = 0
        self._transport: Transport | None = None

    def start(self, connection: Connection) -> None:
        """Begin to connect, and to watch the clock.

        Raises:
            ValueError: the request cannot be built of what the caller gave.
        """
        plan = self._plan
        self._connection = connection
        self._build_request()
        self._timer = plan.reactor.call_later(plan.limits.handshake_timeout, self._time_out)
        self._connect()

    def connection_ended(self, connection: Lifecycle) -> None:
        """Stop whatever is under way; called when the connection is over, for any reason."""
        self._timer.cancel()
        self._connector.cancel()
        del self._connector  # which calls back here: a circle
        self._drop_transport()
        if self._keeper is not None:
            self._keeper.ended(self._connection)

    # --- called by the transport ------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """Send the request."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: memoryview) -> None:
        """Read the answer, and act on it once it is complete."""
        try:
            response = self._response_reader.feed(data)
            if response is not None:
                self._answer(response)
        except HandshakeError as error:
            self._refuse(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Report a server that hung up before it answered."""
        self._transport = None
        what = "closed the connection" if error is None else str(error)
        refusal = HandshakeError(0, f"no answer to the handshake: {what}")
        refusal.__cause__ = error
        self._refuse(refusal)

    # --- connecting -------------------------------------------------------------------------

    def _build_request(self) -> None:
        plan = self._plan
        self._key = new_key()
        self._response_reader = ResponseReader(plan.limits)
        self._request = build_request(
            self._url,
            self._key,
            plan.subprotocols,
            plan.origin,
            self._fields,
            None if plan.deflate is None else plan.deflate.offer(),
        )

    def _connect(self) -> None:
        plan, target = self._plan, (self._url.host, self._url.port)
        options: dict[str, Any] = {
            "timeout": plan.limits.handshake_timeout,
            "transport_factory": self._transport_factory(),
        }
        self._connector: Connector | Tunnel
        if plan.proxy is not None:
            self._connector = Tunnel(
                plan.reactor,
                self,
                plan.proxy,
                target,
                self._unreachable,
                limits=plan.limits,
                **options,
            )
        else:
            self._connector = Connector(
                plan.reactor, self, plan.unix_path or target, self._unreachable, **options
            )

    def _transport_factory(self) -> Callable[..., Transport]:
        if not self._url.is_secure:
            return Transport
        # Imported here, so that programs without TLS do not load OpenSSL.
        from reactor.tls import TLSTransport

        context = _default_context() if self._plan.tls is None else self._plan.tls
        return partial(TLSTransport, context=context, server_hostname=self._url.host)

    def _drop_transport(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.set_protocol(Protocol())
            transport.abort()

    # --- outcomes ---------------------------------------------------------------------------

    def _answer(self, response: Response) -> None:
        target = None
        if self._plan.max_redirects:
            target = redirect_target(response, self._url)
        if target is not None:
            self._follow(response, target)
            return
        deflate = self._plan.deflate
        agreement = None
        try:
            subprotocol = judge_response(
                response,
                self._key,
                self._plan.subprotocols,
                extensions_were_offered=deflate is not None,
            )
            if deflate is not None:
                agreement = deflate.agree(_extensions_of(response))
        except HandshakeError as error:
            error.headers = tuple(response.headers)
            raise
        self._hand_over(response, subprotocol, agreement)

    def _follow(self, response: Response, target: WebSocketURL) -> None:
        if self._plan.unix_path is not None and not have_same_origin(self._url, target):
            raise HandshakeError(
                response.status, "the server redirects away from the Unix socket: refused"
            )
        self._redirects += 1
        if self._redirects > self._plan.max_redirects:
            raise HandshakeError(response.status, "too many redirects")
        self._drop_transport()
        self._fields = keep_fields(self._fields, self._url, target)
        self._url = target
        self._build_request()
        self._connect()

    def _hand_over(
        self, response: Response, subprotocol: str | None, agreement: Agreement | None
    ) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        self._timer.cancel()
        connection, deflate = self._connection, self._plan.deflate
        # The session of another origin must not be sent to this one when we come back.
        if have_same_origin(self._url, self._plan.url):
            connection.session_id = _session_of(response) or connection.session_id
        if deflate is not None and agreement is not None:
            connection.compress_with(deflate, agreement)
        connection.open(transport, subprotocol=subprotocol)
        if self._response_reader.leftover:
            connection.data_received(memoryview(self._response_reader.leftover))

    def _refuse(self, error: Exception, cause: Cause = Cause.HANDSHAKE_FAILED) -> None:
        self._connection.refuse(error, cause)

    def _unreachable(self, error: ConnectFailed) -> None:
        self._refuse(error, Cause.CONNECT_FAILED)

    def _time_out(self) -> None:
        if self._transport is None:
            self._connector.give_up()
        else:
            self._refuse(HandshakeError(0, "the handshake took too long"))


@cache
def _default_context() -> ssl.SSLContext:
    """Return the context for all connections that bring none: it takes 0.1 s to make."""
    from reactor.tls import client_context

    return client_context()


def _with_cookie(fields: list[tuple[str, str]], cookie: str) -> list[tuple[str, str]]:
    """Return header fields with one more cookie."""
    # RFC 6265, 5.4: there must not be more than one Cookie field.
    cookies = [value for name, value in fields if name.lower() == "cookie"]
    others = [field for field in fields if field[0].lower() != "cookie"]
    return [*others, ("Cookie", "; ".join([*cookies, cookie]))]


def _extensions_of(response: Response) -> list[Extension]:
    """Return the extensions that the server chose.

    Raises:
        HandshakeError: the field is malformed.
    """
    try:
        return parse_extensions(response.headers.get_all("sec-websocket-extensions"))
    except ValueError as error:
        raise HandshakeError(101, f"the server's extensions are malformed: {error}") from None


def _session_of(response: Response) -> str | None:
    """Return the session id that the server set as a cookie."""
    for cookie in response.headers.get_all("set-cookie"):
        name, _, value = cookie.partition(";")[0].partition("=")
        if name.strip() == SESSION_COOKIE:
            return value.strip()
    return None
