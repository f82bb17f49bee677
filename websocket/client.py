"""The client: connect, open the handshake, and hand over to a ``Connection``.

    Connector ── ClientHandshake ── Connection (yours)
       │               │
       └───────────────┴── refused or unreachable: on_error, and nothing else

One deadline, ``limits.handshake_timeout``, covers look-up, connecting and the handshake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from reactor import ConnectFailed, Connector, Protocol, Reactor, Transport
from websocket.causes import Cause
from websocket.connection import Connection
from websocket.errors import HandshakeError
from websocket.handshake_client import build_request, judge_response, parse_url
from websocket.head_reader import HeadReader
from websocket.http11 import Response, parse_response
from websocket.key import new_key
from websocket.lifecycle import Lifecycle
from websocket.limits import Limits
from websocket.upgrade import SESSION_NAME

AnyConnection = TypeVar("AnyConnection", bound=Connection)


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
) -> AnyConnection:
    """Connect to a WebSocket server. Reactor's thread only; returns at once.

    Args:
        reactor: runs the connection.
        url: ``ws://host[:port]/path?query``.
        connection_class: its ``on_open`` is called when the connection is open; ``on_error``,
            and nothing else, with a ``HandshakeError`` or ``ConnectFailed`` when it cannot be.
        subprotocols: what to offer, the preferred one first; by default those of the class.
        origin: the value of Origin, for a client that acts for a web page.
        headers: further fields of the request, for example Authorization.
        session_id: ``Connection.session_id`` of an earlier connection, to resume its session.
        limits: every limit and deadline.

    Returns:
        The connection, in state CONNECTING.

    Raises:
        ValueError: the URL or a header is malformed, or wss, which needs TLS, is asked for.
    """
    limits = Limits() if limits is None else limits
    offered = connection_class.subprotocols if subprotocols is None else subprotocols
    parsed = parse_url(url)
    if parsed.is_secure:
        raise ValueError("wss:// needs TLS, which this version does not speak: use ws://")
    fields = list(headers)
    if session_id is not None:
        fields.append(("Cookie", f"{SESSION_NAME}={session_id}"))
    key = new_key()
    request = build_request(parsed, key, offered, origin, fields)
    handshake = ClientHandshake(reactor, limits, request, key, offered)
    connection = connection_class(reactor, limits, is_client=True, on_end=handshake.give_up)
    connection.session_id = session_id
    handshake.start(connection, (parsed.host, parsed.port))
    return connection


class ClientHandshake(Protocol):
    """Send one request and judge the answer."""

    __slots__ = (
        "_connection",
        "_connector",
        "_head_reader",
        "_key",
        "_limits",
        "_offered",
        "_reactor",
        "_request",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        reactor: Reactor,
        limits: Limits,
        request: bytes,
        key: str,
        offered: Sequence[str],
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._request = request
        self._key = key
        self._offered = offered
        self._head_reader = HeadReader(limits, is_response=True)
        self._transport: Transport | None = None

    def start(self, connection: Connection, target: tuple[str, int]) -> None:
        """Begin to connect, and to watch the clock."""
        timeout = self._limits.handshake_timeout
        self._connection = connection
        self._timer = self._reactor.call_later(timeout, self._time_out)
        self._connector = Connector(self._reactor, self, target, self._unreachable, timeout=timeout)

    def give_up(self, connection: Lifecycle) -> None:
        """Stop whatever is under way; called when the connection is over, for any reason."""
        self._timer.cancel()
        self._connector.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- called by the transport ------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """Send the request."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: memoryview) -> None:
        """Read the answer; open the connection once it is complete."""
        try:
            head = self._head_reader.feed(data)
            if head is None:
                return
            response = parse_response(head)
            subprotocol = judge_response(response, self._key, self._offered)
        except HandshakeError as error:
            self._refuse(error)
            return
        self._hand_over(response, subprotocol)

    def connection_lost(self, error: Exception | None) -> None:
        """Report a server that hung up before it answered."""
        self._transport = None
        what = "closed the connection" if error is None else str(error)
        self._refuse(HandshakeError(0, f"no answer to the handshake: {what}"))

    # --- outcomes ---------------------------------------------------------------------------

    def _hand_over(self, response: Response, subprotocol: str | None) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        self._timer.cancel()
        self._connection.session_id = _session_of(response) or self._connection.session_id
        self._connection.open(transport, subprotocol=subprotocol)
        if self._head_reader.leftover:
            self._connection.data_received(memoryview(self._head_reader.leftover))

    def _refuse(self, error: Exception, cause: Cause = Cause.HANDSHAKE_FAILED) -> None:
        self._connection.refuse(error, cause)

    def _unreachable(self, error: ConnectFailed) -> None:
        self._refuse(error, Cause.CONNECT_FAILED)

    def _time_out(self) -> None:
        if self._transport is None:
            self._unreachable(ConnectFailed("cannot connect within the time for the handshake"))
        else:
            self._refuse(HandshakeError(0, "the handshake took too long"))


def _session_of(response: Response) -> str | None:
    """Return the session id that the server set as a cookie."""
    for cookie in response.headers.get_all("set-cookie"):
        name, _, value = cookie.partition(";")[0].partition("=")
        if name.strip() == SESSION_NAME:
            return value.strip()
    return None
