"""The opening handshake, the client's half: ask, judge the answer (RFC 6455, 4.1).

For: ws and wss URLs, the request that asks for an upgrade, and the rules for what a server may
answer. Not for: connecting, TLS, redirects, retries (``client.py``,
``redirect.py``, ``reconnect.py``).

    parse_url -> WebSocketURL -> build_request -> bytes
    Response  -> judge_response -> the subprotocol that was agreed on

The rules for the answer, in the order of judging; each failure is a ``HandshakeError`` with the
status that was received:

    the status is 101
    Upgrade is websocket, Connection names upgrade
    there is exactly one Sec-WebSocket-Accept, and it belongs to our key
    there is no extension, and at most one subprotocol, that we did not offer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from websocket.errors import HandshakeError
from websocket.headers import has_token, parse_tokens
from websocket.http11 import Response, build_fields, build_head
from websocket.key import accept_key
from websocket.origin import DEFAULT_PORTS, parse_authority, parse_origin

_URL = re.compile(r"(?P<scheme>[A-Za-z][0-9A-Za-z+.\-]*)://(?P<authority>[^/?]*)(?P<resource>.*)")
_WHITE_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_VISIBLE_ASCII = "".join(map(chr, range(0x21, 0x7F)))

# RFC 1035, 2.3.4; the codec for international names is slow with more.
_MAX_HOST_LENGTH = 253

_SET_BY_HANDSHAKE = frozenset(
    {
        "host",
        "upgrade",
        "connection",
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "content-length",
        "transfer-encoding",
    }
)


class WebSocketURL(NamedTuple):
    """Hold the parts of a ws or wss URL (RFC 6455, 3).

    Attributes:
        is_secure: True for wss.
        host: what to connect to, ASCII, lower case; an IPv6 address without brackets.
        port: what to connect to.
        resource_name: path and query, ASCII, at least "/".
        host_header: the value of Host: without the port when that is the default.
    """

    is_secure: bool
    host: str
    port: int
    resource_name: str
    host_header: str


def parse_url(url: str) -> WebSocketURL:
    """Return the parts of a URL.

    International host names become ASCII (IDNA), other characters are percent-encoded as UTF-8;
    what is percent-encoded already stays as it is.

    Args:
        url: "ws://host[:port][/path][?query]" or the same with wss.

    Raises:
        ValueError: it is anything else; the text says what to change.
    """
    if _WHITE_SPACE_OR_CONTROL.search(url):
        raise ValueError("a URL holds no white space and no control characters")
    # RFC 6455, 3: fragment identifiers must not be used.
    if "#" in url:
        raise ValueError("a WebSocket URL has no fragment: percent-encode the number sign")
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("a WebSocket URL reads ws://host[:port]/path or wss://...")
    scheme = match["scheme"].lower()
    if scheme not in ("ws", "wss"):
        raise ValueError(f"the scheme of a WebSocket URL is ws or wss, not {scheme}")
    if "@" in match["authority"]:
        raise ValueError("user and password do not belong into the URL: send a header instead")
    host, port = _parse_host(match["authority"])
    resource = match["resource"]
    host_header = f"[{host}]" if ":" in host else host
    if port is None:
        port = DEFAULT_PORTS[scheme]
    # RFC 6455, 4.1: Host names the port only when it is not the default.
    elif port != DEFAULT_PORTS[scheme]:
        host_header = f"{host_header}:{port}"
    return WebSocketURL(
        is_secure=scheme == "wss",
        host=host,
        port=port,
        resource_name=_quote(resource if resource[:1] == "/" else "/" + resource),
        host_header=host_header,
    )


def _parse_host(authority: str) -> tuple[str, int | None]:
    """Return host and port, the host in ASCII."""
    if not authority.isascii():
        name, colon, port = authority.partition(":")
        if len(name) > _MAX_HOST_LENGTH:
            raise ValueError("the URL's host is too long")
        try:
            authority = name.encode("idna").decode("ascii") + colon + port
        except UnicodeError:
            raise ValueError(f"the URL's host is no international name: {name!r}") from None
    try:
        host, number = parse_authority(authority)
    except ValueError as error:
        raise ValueError(f"the URL's host is malformed: {error}") from None
    if number == 0:
        raise ValueError("nothing listens on port 0")
    return host, number


def _quote(resource: str) -> str:
    try:
        return quote(resource, safe=_VISIBLE_ASCII)
    except UnicodeEncodeError:
        raise ValueError("the URL holds half a surrogate pair") from None


def build_request(
    url: WebSocketURL,
    key: str,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    headers: Iterable[tuple[str, str]] = (),
    extensions: str | None = None,
) -> bytes:
    """Return the request that asks a server for a WebSocket connection.

    Args:
        url: as ``parse_url`` returned it.
        key: a fresh ``key.new_key()``; keep it for ``judge_response``.
        subprotocols: what we speak, the preferred one first.
        origin: the value of Origin, for clients that act for a web page.
        headers: further fields, for example Authorization or Cookie.
        extensions: the offer, as the value of Sec-WebSocket-Extensions.

    Raises:
        ValueError: something would break the request or belongs to the handshake alone.
    """
    fields = [
        ("Host", url.host_header),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", "13"),
    ]
    if origin is not None:
        parse_origin(origin)
        fields.append(("Origin", origin))
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(parse_tokens(subprotocols))))
    if extensions is not None:
        fields.append(("Sec-WebSocket-Extensions", extensions))
    head = build_head(f"GET {url.resource_name} HTTP/1.1", fields)
    return head[:-2] + build_fields(headers, _SET_BY_HANDSHAKE)


def judge_response(
    response: Response,
    key: str,
    offered_subprotocols: Sequence[str] = (),
    *,
    extensions_were_offered: bool = False,
) -> str | None:
    """Return the subprotocol that the server chose, None when it chose none.

    Args:
        response: the server's answer.
        key: the key that was sent.
        offered_subprotocols: what was offered.
        extensions_were_offered: some were; whoever offered them judges the answer to that.

    Raises:
        HandshakeError: the connection must be dropped (RFC 6455, 4.1, items 1 to 6).
    """
    headers = response.headers
    message = _find_fault(response, key)
    if message is None and "sec-websocket-extensions" in headers and not extensions_were_offered:
        message = "the server answered with an extension that was not offered"
    if message is not None:
        raise HandshakeError(response.status, message)
    return _judge_subprotocol(response, offered_subprotocols)


def _find_fault(response: Response, key: str) -> str | None:
    """Return why the answer is no valid upgrade, None when it is one."""
    headers = response.headers
    if response.status != 101:
        answer = f"{response.status} {response.reason}".strip()
        return f"the server answered {answer} instead of 101"
    if [value.lower() for value in headers.get_all("upgrade")] != ["websocket"]:
        return "the server's answer lacks Upgrade: websocket"
    if not has_token(headers.get_all("connection"), "upgrade"):
        return "the server's answer lacks Connection: Upgrade"
    accepts = headers.get_all("sec-websocket-accept")
    if len(accepts) != 1:
        return "the server's answer needs exactly one Sec-WebSocket-Accept"
    if accepts[0] != accept_key(key):
        return "the server's Sec-WebSocket-Accept does not belong to our key: is a cache between?"
    return None


def _judge_subprotocol(response: Response, offered: Sequence[str]) -> str | None:
    values = response.headers.get_all("sec-websocket-protocol")
    if not values:
        return None
    # RFC 6455, 11.3.4: at most one in a response.
    if len(values) > 1:
        raise HandshakeError(response.status, "the server chose more than one subprotocol")
    if values[0] not in offered:
        raise HandshakeError(response.status, "the server chose a subprotocol that was not offered")
    return values[0]
