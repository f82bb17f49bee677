"""The checks of what stands in single fields: extensions, subprotocols, origins; and of URLs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzzing.properties import mostly_first, require, require_equal
from websocket.deflate import EXTENSION_NAME, Agreement, Deflate
from websocket.errors import HandshakeError
from websocket.handshake_client import WebSocketURL, build_request, parse_url
from websocket.headers import (
    MAX_EXTENSIONS,
    Extension,
    has_token,
    is_extension_list,
    is_token,
    parse_extensions,
    parse_tokens,
)
from websocket.http11 import parse_request
from websocket.origin import Authority, Origin, parse_authority, parse_origin

_POLICIES = (
    Deflate(),
    Deflate(compress_bits=15, inflate_bits=15, compress_takeover=True, inflate_takeover=True),
    Deflate(compress_bits=9, inflate_bits=10, inflate_takeover=True),
)
_WINDOWS = ("server_max_window_bits", "client_max_window_bits")
_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_BITS = {str(bits): bits for bits in range(8, 16)}

EXTENSION_DICTIONARY = (
    *(b"permessage-deflate", b"permessage-deflate; ", b", ", b",", b";", b"; ", b"=", b'"', b"\\"),
    *(name.encode() for name in (*_WINDOWS, *_FLAGS)),
    *(b"=8", b"=15", b'="10"', b'="1\\0"', b"=08", b"=16", b"=", b"\t", b"\n", b"x-webkit-frame"),
    b"a," * 16,
)
SUBPROTOCOL_DICTIONARY = (
    *(b"chat", b"superchat", b", ", b",", b",,", b"\n", b"\t", b" ", b'"', b"\xe9", b"v1.a~b"),
)
ORIGIN_DICTIONARY = (
    *(b"null", b"https://", b"http://", b"ws://", b"example.com", b"EXAMPLE.com", b"[::1]"),
    *(b"[0:0::1]", b"[::ffff:1.2.3.4]", b"[::1%25eth0]", b":443", b":", b":00080", b":65536"),
    *(b"@", b"/", b"#", b"127.0.0.1", b"chrome-extension://abcdef", b"xn--bcher-kva.example"),
)
URL_DICTIONARY = (
    *(b"ws://", b"wss://", b"WS://", b"http://", b"example.com", b"[::1]", b":80", b":443", b":0"),
    *(b"/path?query=1", b"?q", b"#", b"@", b"%41", b"%", b"..", b"/../", b"//", b"\\", b"%00"),
    *(name.encode() for name in ("b\xfccher.example", "\u65e5\u672c", "\u2100", "\uff0e", "\u200d")),
    *(b"\xff", b"\xed\xa0\x80", b"xn--", b"." * 8, b"a" * 64),
)


# --- generators ---------------------------------------------------------------------------------


def generate_extensions(source: random.Random) -> bytes:
    """Return the lines of Sec-WebSocket-Extensions, most times right ones."""
    return b"\n".join(
        b", ".join(_generate_extension(source) for _ in range(source.randint(1, 3)))
        for _ in range(mostly_first(source, (1, 2)))
    )


def _generate_extension(source: random.Random) -> bytes:
    words = [mostly_first(source, (b"permessage-deflate", b"x-other", b"permessage-bzip2"))]
    for name in source.sample((*_WINDOWS, *_FLAGS, "unknown"), source.randint(0, 4)):
        value = mostly_first(source, ("=12", "=8", "=15", "=9", '="10"', "", "=16", "=x"))
        is_flag = name in _FLAGS and source.random() < 0.9
        words.append(name.encode() + (b"" if is_flag else value.encode()))
    return b"; ".join(words)


def generate_subprotocols(source: random.Random) -> bytes:
    """Return the lines of Sec-WebSocket-Protocol."""
    names = [b"chat", b"superchat", b"v1.a~b", b"V1.A~B", b"chat "]
    return mostly_first(source, (b", ", b",", b"\n")).join(
        source.sample(names, source.randint(1, len(names)))
    )


def generate_origin(source: random.Random) -> bytes:
    """Return an origin, or the host and port alone."""
    scheme = mostly_first(source, (b"https://", b"http://", b"", b"x-y://"))
    host = mostly_first(source, (b"example.com", b"[::1]", b"127.0.0.1", b"a,b"))
    return scheme + host + mostly_first(source, (b"", b":443", b":8080", b":", b"/"))


def generate_url(source: random.Random) -> bytes:
    """Return a URL, most times one that can be connected to."""
    host = mostly_first(source, (b"example.com", b"[::1]", "b\xfccher.example".encode(), b""))
    port = mostly_first(source, (b"", b":8080", b":443", b":0", b":65536"))
    rest = source.choice((b"", b"/", b"/a b", b"/chat?room=1", b"?q=\xc3\xa9", b"/../a", b"/%zz"))
    return mostly_first(source, (b"ws://", b"wss://", b"http://")) + host + port + rest


# --- extensions and subprotocols ----------------------------------------------------------------


def check_extensions(data: bytes) -> None:
    """Parse extensions, and negotiate compression by them, on both sides."""
    values = data.decode("latin-1").split("\n")
    try:
        extensions = parse_extensions(values)
    except ValueError:
        require(not all(map(is_extension_list, values)), "what is malformed was called right")
        return
    require(all(map(is_extension_list, values)), "what is right was called malformed")
    require(len(extensions) <= MAX_EXTENSIONS, "there are too many extensions")
    written = ", ".join(map(_write, extensions))
    if extensions:
        require_equal("the extensions, read again", parse_extensions([written]), extensions)
    for policy in _POLICIES:
        accepted = policy.accept(extensions)
        if accepted is not None:
            _check_acceptance(extensions, *accepted)
        try:
            policy.agree(extensions)
        except HandshakeError as error:
            require_equal("the status of a wrong answer", error.status, 101)


def _write(extension: Extension) -> str:
    """Return an extension as it stands in a field."""
    words = [name if value is None else f"{name}={value}" for name, value in extension.parameters]
    return "; ".join([extension.name, *words])


def _check_acceptance(offers: Sequence[Extension], agreement: Agreement, answer: str) -> None:
    """Hold an answer against the rules of RFC 7692, 7.1."""
    [extension] = parse_extensions([answer])
    require_equal("the extension", extension.name, EXTENSION_NAME)
    answered = dict(extension.parameters)
    require(any(_fits(offer, answered) for offer in offers), f"{answer!r} answers no offer")
    for name, bits in zip(_WINDOWS, (agreement.compress_bits, agreement.inflate_bits)):
        require_equal(f"the agreed {name}", bits, _BITS[answered.get(name) or "15"])
    for name, is_kept in zip(_FLAGS, (agreement.compress_takeover, agreement.inflate_takeover)):
        require_equal(f"the agreed {name}", not is_kept, name in answered)


def _fits(offer: Extension, answered: dict[str, str | None]) -> bool:
    """Tell whether an offer is a right one, and an answer to it may be this one."""
    offered = dict(offer.parameters)
    return (
        offer.name == EXTENSION_NAME
        and len(offered) == len(offer.parameters)
        and offered.keys() <= {*_WINDOWS, *_FLAGS}
        and all(offered.get(name) is None for name in _FLAGS)
        and all(_is_window(name, value) for name, value in offered.items() if name in _WINDOWS)
        # RFC 7692, 7.1.1.1: what is asked of the server, it says again.
        and (_FLAGS[0] not in offered or _FLAGS[0] in answered)
        and ("server_max_window_bits" not in offered or "server_max_window_bits" in answered)
        # RFC 7692, 7.1.2.2: only a client that offers it can be limited.
        and ("client_max_window_bits" in offered or "client_max_window_bits" not in answered)
        and all(
            _BITS[str(answered[name])] <= _BITS[offered.get(name) or "15"]
            for name in _WINDOWS
            if name in answered
        )
    )


def _is_window(name: str, value: str | None) -> bool:
    return value in _BITS or (value is None and name == "client_max_window_bits")


def check_subprotocols(data: bytes) -> None:
    """Parse a list of tokens."""
    values = data.decode("latin-1").split("\n")
    try:
        tokens = parse_tokens(values)
    except ValueError:
        return
    require(all(map(is_token, tokens)), "an element is no token")
    require_equal("the tokens, read again", parse_tokens([", ".join(tokens)]), tokens)
    require(all(has_token(values, token.lower()) for token in tokens), "a token is not found")


# --- origins and URLs ---------------------------------------------------------------------------


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
    try:
        origin = parse_origin(text)
    except ValueError:
        return
    if origin != Origin("null", "", None):
        written = f"{origin.scheme}://{_host(Authority(origin.host, origin.port))}"
        require_equal("the origin, read again", parse_origin(written), origin)


def _host(authority: Authority) -> str:
    """Return host and port as they are written."""
    host = f"[{authority.host}]" if ":" in authority.host else authority.host
    return host if authority.port is None else f"{host}:{authority.port}"


def check_url(data: bytes) -> None:
    """Parse a URL; our own server must understand the request for it."""
    text = data.decode("utf-8", "surrogateescape")
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
