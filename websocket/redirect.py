"""Following redirects of the opening handshake (RFC 6455, 4.1; RFC 9110, 15.4).

What a server may make a client do is limited: not leave TLS, not carry credentials to another
origin, and not go round in circles for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin

from websocket.errors import HandshakeError
from websocket.handshake_client import WebSocketURL, parse_url
from websocket.http11 import Response

STATUSES = frozenset({301, 302, 303, 307, 308})

# What belongs to the origin that the caller named, and to no other.
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_SCHEME = re.compile(r"[A-Za-z][0-9A-Za-z+.\-]*:")
_WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


def redirect_target(response: Response, url: WebSocketURL) -> WebSocketURL | None:
    """Return where a response redirects to; None when it is no redirect.

    Args:
        response: the server's answer.
        url: what was asked for.

    Raises:
        HandshakeError: the target is missing, malformed, or leaves TLS.
    """
    if response.status not in STATUSES:
        return None
    locations = response.headers.get_all("location")
    if len(locations) != 1:
        raise HandshakeError(response.status, "the server redirects, but not to one Location")
    try:
        target = parse_url(_absolute(locations[0], url))
    except ValueError as error:
        raise HandshakeError(response.status, f"the server redirects badly: {error}") from None
    if url.is_secure and not target.is_secure:
        raise HandshakeError(response.status, "the server redirects from wss to ws: refused")
    return target


def keep_fields(
    fields: Iterable[tuple[str, str]], source: WebSocketURL, target: WebSocketURL
) -> list[tuple[str, str]]:
    """Return the header fields that may go along to a redirect's target."""
    if have_same_origin(source, target):
        return list(fields)
    return [field for field in fields if field[0].lower() not in _CREDENTIALS]


def have_same_origin(one: WebSocketURL, other: WebSocketURL) -> bool:
    """Tell whether what belongs to the origin of one URL may be sent to the other."""
    return (one.is_secure, one.host, one.port) == (other.is_secure, other.host, other.port)


def _absolute(location: str, url: WebSocketURL) -> str:
    """Return a location as an absolute URL, ws or wss if it was http or https.

    Raises:
        ValueError: it is no URL at all.
    """
    # RFC 3986, 2: a URL holds none. What urljoin would do is take some of them out.
    if not location.isprintable() or " " in location:
        raise ValueError("the URL holds white space or a control character")
    target = location.partition("#")[0]
    if not _SCHEME.match(target):
        # urljoin knows how to join http URLs, and no others.
        base = f"{'https' if url.is_secure else 'http'}://{url.host_header}{url.resource_name}"
        target = urljoin(base, target)
    scheme, _, rest = target.partition(":")
    return f"{_WEBSOCKET_SCHEMES.get(scheme.lower(), scheme)}:{rest}"
