"""Connecting through an HTTP proxy: CONNECT, then the stream is ours (RFC 9110, 9.3.6).

Connector ── Tunnel ── CONNECT host:port ── 2xx ── your transport and protocol
                          └── anything else: on_failed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote

from reactor import ConnectFailed, Connector, Protocol, Reactor, ReactorClosed, Transport
from websocket.credentials import basic_credentials
from websocket.errors import HandshakeError
from websocket.handshake_client import parse_url
from websocket.http11 import build_head
from websocket.limits import Limits
from websocket.response_reader import ResponseReader


class Proxy(NamedTuple):
    """Hold where a proxy is, and the fields that it wants."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...]


def parse_proxy(url: str) -> Proxy:
    """Return the proxy of a URL.

    Args:
        url: "http://[user:password@]host[:port]", characters of user and password that have a
            meaning in URLs being percent-encoded.

    Raises:
        ValueError: it is anything else.
    """
    scheme, _, rest = url.partition("://")
    user_info, at, authority = rest.rpartition("@")
    try:
        # Host and port of all URLs follow the same rules, and so does the default port.
        place = parse_url(f"ws://{authority}")
    except ValueError:
        place = None
    # An error must not show the password, so it does not say what exactly is wrong.
    if place is None or place.resource_name != "/" or scheme.lower() != "http" or "/" in user_info:
        raise ValueError("a proxy reads http://[user:password@]host[:port]")
    headers: tuple[tuple[str, str], ...] = ()
    if at:
        user, _, password = map(unquote, user_info.partition(":"))
        headers = (basic_credentials(user, password, "Proxy-Authorization"),)
    return Proxy(place.host, place.port, headers)


class Tunnel(Protocol):
    """Connect to a target through a proxy; stands in for a ``Connector``.

    Args:
        reactor: runs it.
        protocol: gets the transport to the target.
        proxy: where the proxy is.
        target: host and port to connect to.
        on_failed: called with a ``ConnectFailed``; not after ``cancel``. Where the proxy has
            refused, its ``__cause__`` is a ``HandshakeError`` with status and headers.
        timeout: seconds to reach the proxy; the owner limits the whole.
        limits: for the head of the proxy's answer.
        transport_factory: as a ``Connector`` takes it; for the stream to the target.
    """

    __slots__ = (
        "_connector",
        "_on_failed",
        "_protocol",
        "_proxy",
        "_reactor",
        "_response_reader",
        "_target",
        "_transport",
        "_transport_factory",
    )

    def __init__(
        self,
        reactor: Reactor,
        protocol: Protocol,
        proxy: Proxy,
        target: tuple[str, int],
        on_failed: Callable[[ConnectFailed], object],
        *,
        timeout: float,
        limits: Limits,
        transport_factory: Callable[..., Transport] = Transport,
    ) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self._proxy = proxy
        self._target = target
        self._on_failed = on_failed
        self._transport_factory = transport_factory
        self._response_reader = ResponseReader(limits)
        self._transport: Transport | None = None
        self._connector = Connector(
            reactor, self, (proxy.host, proxy.port), on_failed, timeout=timeout
        )

    def cancel(self) -> None:
        """Give up silently. Idempotent; no effect once through or failed."""
        self._connector.cancel()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.set_protocol(Protocol())
            transport.abort()

    def give_up(self) -> None:
        """Fail now, as when the time is over, and name what takes so long."""
        if self._transport is None:
            self._connector.give_up()
        else:
            host, port = self._target
            self._fail(f"the proxy has not connected to {host} port {port} in time")

    def connection_made(self, transport: Transport) -> None:
        """Ask the proxy to connect."""
        self._transport = transport
        host, port = self._target
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields = [("Host", authority), *self._proxy.headers]
        transport.write(build_head(f"CONNECT {authority} HTTP/1.1", fields))

    def data_received(self, data: memoryview) -> None:
        """Read the proxy's answer; hand the stream over when it is good."""
        try:
            response = self._response_reader.feed(data)
        except HandshakeError as error:
            self._fail(f"the proxy's answer is malformed: {error}")
            return
        if response is None:
            return
        if not 200 <= response.status <= 299:
            message = f"the proxy answered {response.status} {response.reason}".rstrip()
            self._fail(message, HandshakeError(response.status, message, tuple(response.headers)))
        elif self._response_reader.leftover:
            # The target speaks second, in TLS as in HTTP: these bytes are somebody else's.
            self._fail("the proxy sent more than its answer")
        else:
            self._hand_over()

    def connection_lost(self, error: Exception | None) -> None:
        """Report a proxy that hung up."""
        self._fail("the proxy hung up before it answered", error)

    def _hand_over(self) -> None:
        transport, self._transport = self._transport, None
        assert transport is not None
        peername = transport.get_extra_info("peername")
        sock = transport.detach()
        try:
            self._transport_factory(self._reactor, sock, self._protocol, peername).start()
        except (OSError, ReactorClosed) as error:
            sock.close()
            self._fail(f"cannot use the connection to the proxy: {error}", error)

    def _fail(self, message: str, cause: Exception | None = None) -> None:
        self.cancel()
        failure = ConnectFailed(message)
        failure.__cause__ = cause
        self._on_failed(failure)
