"""The checks of what stands in single fields: extensions, subprotocols, credentials."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence

from fuzzing.properties import mostly_first, require, require_equal
from websocket.credentials import basic_credentials, parse_basic
from websocket.deflate import EXTENSION_NAME, Agreement, Deflate
from websocket.errors import HandshakeError
from websocket.headers import (
    MAX_EXTENSIONS,
    Extension,
    has_token,
    is_extension_list,
    is_token,
    parse_extensions,
    parse_tokens,
)

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
CREDENTIAL_DICTIONARY = (
    *(
        b"Basic ",
        b"basic ",
        b"Bearer ",
        b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        b"dXNlcjpw",
        b"Og==",
        b"=",
    ),
    *(b"dXNlcg==", b"/+", b"-_", b"w6k6w6k=", b"6Trp", b" ", b"\xe9", b"\t"),
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


def generate_credentials(source: random.Random) -> bytes:
    """Return the value of an Authorization field."""
    pair = mostly_first(source, ("user:password", "user", ":", "a:b:c", "\xe9:\u20ac"))
    return mostly_first(source, (b"Basic ", b"BASIC  ", b"")) + base64.b64encode(pair.encode())


# --- extensions ----------------------------------------------------------------


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


# --- subprotocols and credentials ----------------------------------------------------------------


def check_subprotocols(data: bytes) -> None:
    """Parse a list of tokens."""
    values = data.decode("latin-1").split("\n")
    try:
        tokens = parse_tokens(values)
    except ValueError:
        return
    require(all(map(is_token, tokens)), "an element is no token")
    require(len(set(tokens)) == len(tokens), "an element is there twice")
    require_equal("the tokens, read again", parse_tokens([", ".join(tokens)]), tokens)
    require(all(has_token(values, token.lower()) for token in tokens), "a token is not found")


def check_credentials(data: bytes) -> None:
    """Read Basic credentials; what is read can be sent again."""
    found = parse_basic(data.decode("latin-1"))
    if found is None:
        return
    try:
        _, value = basic_credentials(*found)
    except ValueError:
        # The server's side takes control characters, as RFC 7617 leaves it to the application.
        require(
            any(ord(character) < 0x20 or character == "\x7f" for character in "".join(found)),
            "what was read cannot be sent",
        )
        return
    require_equal("the credentials, read again", parse_basic(value), found)
