"""The checks of hosts, origins, URLs, and of where a server may redirect to."""

from __future__ import annotations

import random

from fuzzing.properties import mostly_first, require, require_equal
from websocket.errors import HandshakeError
from websocket.handshake_client import WebSocketURL, build_request, parse_url
from websocket.http11 import parse_request, parse_response
from websocket.origin import DEFAULT_PORTS, Authority, Origin, parse_authority, parse_origin
from websocket.redirect import redirect_target
from websocket.tunnel import parse_proxy

ORIGIN_DICTIONARY = (
    *(b"null", b"https://", b"http://", b"ws://", b"example.com", b"EXAMPLE.com", b"[::1]"),
    *(b"[0:0::1]", b"[::ffff:1.2.3.4]", b"[::1%25eth0]", b":443", b":", b":00080", b":65536"),
    *(b"@", b"/", b"#", b"127.0.0.1", b"chrome-extension://abcdef", b"xn--bcher-kva.example"),
)
URL_DICTIONARY = (
    *(b"ws://", b"wss://", b"WS://", b"http://", b"example.com", b"[::1]", b":80", b":443", b":0"),
    *(b"/path?query=1", b"?q", b"#", b"@", b"%41", b"%", b"..", b"/../", b"//", b"\\", b"%00"),
    *(
        name.encode()
        for name in ("b\xfccher.example", "\u65e5\u672c", "\u2100", "\uff0e", "\u200d")
    ),
    *(b"\xff", b"\xed\xa0\x80", b"xn--", b"." * 8, b"a" * 64),
)
REDIRECT_DICTIONARY = (
    *URL_DICTIONARY,
    *(b"https://", b"//", b"/", b"?", b";", b"../", b"\r\nLocation: ", b"[", b"]", b"\xe9"),
)

_REDIRECTED = tuple(map(parse_url, ("ws://example.com:8080/a/b?c", "wss://[::1]/")))


# --- generators ---------------------------------------------------------------------------------


def generate_origin(source: random.Random) -> bytes:
    """Return an origin, or the host and port alone."""
    if source.random() < 0.02:
        return b"null"
    scheme = mostly_first(source, (b"https://", b"http://", b"", b"x-y://"))
    host = mostly_first(source, (b"example.com", b"[::1]", b"127.0.0.1", b"a,b"))
    return scheme + host + mostly_first(source, (b"", b":443", b":8080", b":", b"/"))


def generate_url(source: random.Random) -> bytes:
    """Return a URL, most times one that can be connected to."""
    host = mostly_first(source, (b"example.com", b"[::1]", "b\xfccher.example".encode(), b""))
    port = mostly_first(source, (b"", b":8080", b":443", b":0", b":65536"))
    rest = source.choice((b"", b"/", b"/a b", b"/chat?room=1", b"?q=\xc3\xa9", b"/../a", b"/%zz"))
    return mostly_first(source, (b"ws://", b"wss://", b"http://")) + host + port + rest


def generate_redirect(source: random.Random) -> bytes:
    """Return the value of a Location field."""
    locations = (
        generate_url(source),
        b"/login?next=%2F",
        b"//example.org/x",
        b"../up",
        b"?q=1",
        b"",
    )
    return mostly_first(source, locations)


# --- checks -------------------------------------------------------------------------------------


def check_origin(data: bytes) -> None:
    """Parse an origin, and the same text as an authority."""
    text = data.decode("latin-1")
    try:
        authority = parse_authority(text)
    except ValueError:
        pass
    else:
        require_equal("the authority, read again", parse_authority(_host(authority)), authority)
        require(authority.host and authority.host == authority.host.lower(), "a host is malformed")
        require((authority.port or 0) < 65_536, "a port is above 65535")
    try:
        origin = parse_origin(text)
    except ValueError:
        return
    if origin != Origin("null", "", None):
        # Without the scheme's own port: what just fits would be too long with it.
        port = None if origin.port == DEFAULT_PORTS.get(origin.scheme) else origin.port
        written = f"{origin.scheme}://{_host(Authority(origin.host, port))}"
        require_equal("the origin, read again", parse_origin(written), origin)


def _host(authority: Authority) -> str:
    """Return host and port as they are written."""
    host = f"[{authority.host}]" if ":" in authority.host else authority.host
    return host if authority.port is None else f"{host}:{authority.port}"


def check_url(data: bytes) -> None:
    """Parse a URL; our own server must understand the request for it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parse_proxy(text)
    except ValueError:
        pass
    try:
        url = parse_url(text)
    except ValueError:
        return
    scheme = "wss" if url.is_secure else "ws"
    again = parse_url(f"{scheme}://{url.host_header}{url.resource_name}")
    require_equal("the URL, read again", again, url)
    _check_request(url)


def _check_request(url: WebSocketURL) -> None:
    """Read the request for a URL as a server does."""
    head = build_request(url, "dGhlIHNhbXBsZSBub25jZQ==")
    try:
        request = parse_request(head)
    except HandshakeError as error:
        # A server may refuse a path that the client has no reason to refuse.
        is_path = error.message.startswith(("the path", "a path", "the query"))
        require(is_path, f"our server refuses our request: {error.message}")
        return
    require_equal("the target", request.target, url.resource_name)
    assert request.authority is not None
    host, port = request.authority
    default = 443 if url.is_secure else 80
    require_equal("the authority", (host, port or default), (url.host, url.port))


def check_redirect(data: bytes) -> None:
    """Follow a redirect, from ws and from wss."""
    try:
        response = parse_response(b"HTTP/1.1 302 Found\r\nLocation: " + data + b"\r\n\r\n")
    except HandshakeError:
        return
    for url in _REDIRECTED:
        try:
            target = redirect_target(response, url)
        except HandshakeError as error:
            require_equal("the status of a bad redirect", error.status, 302)
            continue
        require(target is not None, "a redirect leads nowhere")
        assert target is not None
        require(target.is_secure or not url.is_secure, "a redirect leaves TLS")
        _check_request(target)
