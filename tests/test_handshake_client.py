"""The client's half of the opening handshake: URLs, the request, the judgement of the answer."""

from __future__ import annotations

import random

import pytest
from splits import every_split

from websocket.errors import HandshakeError
from websocket.handshake import Upgrader, accept_response
from websocket.handshake_client import (
    WebSocketURL,
    build_request,
    judge_response,
    parse_url,
)
from websocket.head_reader import HeadReader
from websocket.http11 import parse_request, parse_response
from websocket.key import accept_key, new_key
from websocket.limits import Limits

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

# --- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://a", WebSocketURL(False, "a", 80, "/", "a")),
        ("wss://a", WebSocketURL(True, "a", 443, "/", "a")),
        (
            "WS://Example.COM:8080/B",
            WebSocketURL(False, "example.com", 8080, "/B", "example.com:8080"),
        ),
        ("ws://a:80/", WebSocketURL(False, "a", 80, "/", "a")),
        ("ws://a:443/", WebSocketURL(False, "a", 443, "/", "a:443")),
        ("wss://a:443/b?c=d&e", WebSocketURL(True, "a", 443, "/b?c=d&e", "a")),
        ("wss://a:/", WebSocketURL(True, "a", 443, "/", "a")),
        ("ws://a?b", WebSocketURL(False, "a", 80, "/?b", "a")),
        ("ws://a/?b?c/d:@", WebSocketURL(False, "a", 80, "/?b?c/d:@", "a")),
        ("ws://[::1]:9/", WebSocketURL(False, "::1", 9, "/", "[::1]:9")),
        ("ws://[2001:DB8:0:0::1]", WebSocketURL(False, "2001:db8::1", 80, "/", "[2001:db8::1]")),
        ("ws://127.0.0.1", WebSocketURL(False, "127.0.0.1", 80, "/", "127.0.0.1")),
        (
            "ws://b\xfccher.example/",
            WebSocketURL(False, "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example"),
        ),
        ("ws://b\xfccher:81", WebSocketURL(False, "xn--bcher-kva", 81, "/", "xn--bcher-kva:81")),
        ("ws://a/\xe4?\xf6=%41%zz", WebSocketURL(False, "a", 80, "/%C3%A4?%C3%B6=%41%zz", "a")),
    ],
)
def test_a_url_has_the_parts_that_the_rfc_names(url: str, expected: WebSocketURL) -> None:
    """RFC 6455, 3."""
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "reads ws://"),
        ("a", "reads ws://"),
        ("ws:/a", "reads ws://"),
        ("//a", "reads ws://"),
        ("http://a", "is ws or wss, not http"),
        ("ws+unix://a", "is ws or wss, not ws\\+unix"),
        ("ws://a/#b", "has no fragment"),
        ("ws://a#", "has no fragment"),
        ("ws://user:secret@a", "send a header instead"),
        ("ws://@a", "send a header instead"),
        ("ws://", "host is malformed"),
        ("ws:///a", "host is malformed"),
        ("ws://:80", "host is malformed"),
        ("ws://a:b", "host is malformed"),
        ("ws://a:65536", "host is malformed: the port is above 65535"),
        ("ws://a:0", "nothing listens on port 0"),
        ("ws://::1/", "host is malformed"),
        ("ws://[::1/", "host is malformed"),
        ("ws://[v1.a]/", "host is malformed"),
        ("ws://a,b", "host is malformed"),
        ("ws://a\\b", "host is malformed"),
        ("ws://\xfc..a", "no international name"),
        ("ws://" + "\xfc" * 64, "no international name"),
        ("ws://" + "\xfc" * 300, "host is too long"),
        ("ws://\xfc\uff0fa", "host is malformed|no international name"),
        ("ws://a b", "no white space"),
        (" ws://a", "no white space"),
        ("ws://a\n", "no white space"),
        ("ws://a/\r\nX: y", "no white space"),
        ("ws://a/\t", "no white space"),
        ("ws://a/\x00", "no white space"),
        ("ws://a/\ud800", "half a surrogate pair"),
    ],
)
def test_anything_else_is_no_url(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_url(url)


# --- the request ------------------------------------------------------------------------------


def test_the_request_is_complete() -> None:
    request = build_request(
        parse_url("wss://example.com:8443/chat?x"),
        KEY,
        subprotocols=["a", "b"],
        origin="https://example.com",
        headers=[("Authorization", "Bearer x"), ("Cookie", "c=d")],
    )
    assert request == (
        b"GET /chat?x HTTP/1.1\r\n"
        b"Host: example.com:8443\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Origin: https://example.com\r\n"
        b"Sec-WebSocket-Protocol: a, b\r\n"
        b"Authorization: Bearer x\r\n"
        b"Cookie: c=d\r\n"
        b"\r\n"
    )


def test_nothing_that_was_not_asked_for_is_sent() -> None:
    request = build_request(parse_url("ws://a"), KEY)
    assert b"Origin" not in request
    assert b"Protocol" not in request
    assert request.endswith(b"Sec-WebSocket-Version: 13\r\n\r\n")


@pytest.mark.parametrize(
    "name", ["Host", "upgrade", "Connection", "Origin", "sec-websocket-KEY", "Content-Length"]
)
def test_what_the_handshake_says_cannot_be_added(name: str) -> None:
    with pytest.raises(ValueError, match=f"header {name} is set elsewhere"):
        build_request(parse_url("ws://a"), KEY, headers=[(name, "x")])


def test_a_request_cannot_be_split() -> None:
    """H35."""
    url = parse_url("ws://a")
    with pytest.raises(ValueError, match="forbidden character"):
        build_request(url, KEY, headers=[("X", "a\r\nb: c")])
    with pytest.raises(ValueError, match="forbidden character"):
        build_request(url._replace(resource_name="/\r\nb: c"), KEY)
    with pytest.raises(ValueError, match="forbidden character"):
        build_request(url, KEY + "\r\n")
    with pytest.raises(ValueError, match="no token"):
        build_request(url, KEY, subprotocols=["a\r\nb: c"])
    with pytest.raises(ValueError, match="twice"):
        build_request(url, KEY, subprotocols=["a", "a"])
    with pytest.raises(ValueError, match="not of the form"):
        build_request(url, KEY, origin="https://a\r\nb: c")


# --- the answer -------------------------------------------------------------------------------

GOOD: dict[str, str] = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": accept_key(KEY),
}


def answer(
    changes: dict[str, str | None] | None = None,
    more: list[tuple[str, str]] | None = None,
    line: str = "HTTP/1.1 101 Switching Protocols",
) -> bytes:
    """Return a good answer, but for the fields that are changed, left out (None) or added."""
    fields = {**GOOD, **(changes or {})}
    pairs = [(name, value) for name, value in fields.items() if value is not None]
    lines = [line, *(f"{name}: {value}" for name, value in [*pairs, *(more or [])]), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def judge_once(pieces: list[bytes], offered: tuple[str, ...]) -> str:
    """Do what a client does with the bytes of a server; return the outcome as text."""
    reader = HeadReader(Limits(), is_response=True)
    try:
        for piece in pieces:
            head = reader.feed(piece)
            if head is not None:
                return f"chose {judge_response(parse_response(head), KEY, offered)}"
    except HandshakeError as error:
        return f"{error.status} {error.message}"
    raise AssertionError("the head is incomplete")


def judge(data: bytes, offered: tuple[str, ...] = ()) -> str:
    """Return the one outcome of all splits of ``data``."""
    outcomes = {
        judge_once(pieces, offered)
        for trailing in (b"", b"\x81\x01x", b"HTTP/1.1 200 OK\r\n\r\n")
        for pieces in every_split(data + trailing, random_splits=6)
    }
    assert len(outcomes) == 1
    return outcomes.pop()


@pytest.mark.parametrize(
    ("data", "offered", "subprotocol"),
    [
        (answer(), (), None),
        (answer(), ("a",), None),
        (answer({"Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"}), (), None),
        (answer({"Sec-WebSocket-Protocol": "b"}), ("a", "b"), "b"),
        (answer(line="HTTP/1.1 101"), (), None),
    ],
)
def test_a_good_answer_is_accepted(
    data: bytes, offered: tuple[str, ...], subprotocol: str | None
) -> None:
    assert judge(data, offered) == f"chose {subprotocol}"


NO_UPGRADE = "101 the server's answer lacks Upgrade: websocket"
NO_CONNECTION = "101 the server's answer lacks Connection: Upgrade"
ONE_ACCEPT = "101 the server's answer needs exactly one Sec-WebSocket-Accept"
BAD_ACCEPT = "101 the server's Sec-WebSocket-Accept does not belong to our key: is a cache between?"
EXTENSION = "101 the server answered with an extension that was not offered"
SUBPROTOCOL = "101 the server chose a subprotocol that was not offered"
SUBPROTOCOLS = "101 the server chose more than one subprotocol"


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        pytest.param(
            answer(line="HTTP/1.1 200 OK"),
            "200 the server answered 200 OK instead of 101",
            id="200",
        ),
        pytest.param(
            answer(line="HTTP/1.0 404"), "404 the server answered 404 instead of 101", id="404"
        ),
        pytest.param(
            b"HTTP/1.1 426 Upgrade Required\r\n\r\n",
            "426 the server answered 426 Upgrade Required instead of 101",
            id="426",
        ),
        pytest.param(answer({"Upgrade": None}), NO_UPGRADE, id="H123-no-Upgrade"),
        pytest.param(answer({"Upgrade": "websocket2"}), NO_UPGRADE, id="H123-websocket2"),
        pytest.param(answer({"Upgrade": "websocket, h2c"}), NO_UPGRADE, id="H123-Upgrade-list"),
        pytest.param(answer(more=[("Upgrade", "websocket")]), NO_UPGRADE, id="H123-two-Upgrades"),
        pytest.param(answer({"Connection": None}), NO_CONNECTION, id="H123-no-Connection"),
        pytest.param(answer({"Connection": "close"}), NO_CONNECTION, id="H123-close"),
        pytest.param(answer({"Sec-WebSocket-Accept": None}), ONE_ACCEPT, id="H123-no-Accept"),
        pytest.param(
            answer(more=[("sec-websocket-accept", accept_key(KEY))]),
            ONE_ACCEPT,
            id="H123-two-Accepts",
        ),
        pytest.param(answer({"Sec-WebSocket-Accept": ""}), BAD_ACCEPT, id="H123-empty-Accept"),
        pytest.param(answer({"Sec-WebSocket-Accept": KEY}), BAD_ACCEPT, id="H123-key-as-Accept"),
        pytest.param(
            answer({"Sec-WebSocket-Accept": accept_key(KEY).lower()}), BAD_ACCEPT, id="H123-case"
        ),
        pytest.param(
            answer({"Sec-WebSocket-Accept": accept_key(new_key())}), BAD_ACCEPT, id="H123-other-key"
        ),
        pytest.param(
            answer({"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=16"}),
            EXTENSION,
            id="H123-extension",
        ),
        pytest.param(
            answer({"Sec-WebSocket-Extensions": ""}), EXTENSION, id="H123-empty-extension"
        ),
        pytest.param(answer({"Sec-WebSocket-Protocol": "c"}), SUBPROTOCOL, id="H123-subprotocol"),
        pytest.param(answer({"Sec-WebSocket-Protocol": "A"}), SUBPROTOCOL, id="H123-case-of-it"),
        pytest.param(answer({"Sec-WebSocket-Protocol": ""}), SUBPROTOCOL, id="H123-empty"),
        pytest.param(answer({"Sec-WebSocket-Protocol": "a, b"}), SUBPROTOCOL, id="H123-list"),
        pytest.param(
            answer({"Sec-WebSocket-Protocol": "a"}, [("Sec-WebSocket-Protocol", "a")]),
            SUBPROTOCOLS,
            id="H123-two",
        ),
        pytest.param(
            b"SSH-2.0-x\r\n\r\n",
            "0 the server's answer is no HTTP: check port and scheme",
            id="SSH",
        ),
        pytest.param(
            b"HTTP/1.1 xyz\r\n\r\n",
            "0 the server's answer is no HTTP/1.1: its status line is malformed",
            id="no-status",
        ),
        pytest.param(
            answer(more=[("X", "a\x00")]),
            "0 the server's answer is no HTTP/1.1: a header value holds a control character",
            id="NUL",
        ),
    ],
)
def test_a_bad_answer_is_an_error(data: bytes, outcome: str) -> None:
    assert judge(data, offered=("a", "b")) == outcome


def test_both_halves_understand_each_other() -> None:
    source = random.Random(4)
    names = ["a", "b", "c", "d"]
    for _ in range(200):
        offered = source.sample(names, source.randint(0, 4))
        ours = source.sample(names, source.randint(0, 4))
        key = new_key()
        url = parse_url(source.choice(["ws://a/b?c", "wss://[::1]:9", "ws://\xfc/\xe4"]))
        scheme = "https" if url.is_secure else "http"
        origin = source.choice([None, f"{scheme}://{url.host_header}"])
        request = parse_request(build_request(url, key, offered, origin))
        upgrade = Upgrader(ours).judge(request, is_secure=url.is_secure)
        response = parse_response(accept_response(upgrade))
        expected = next((name for name in ours if name in offered), None)
        assert judge_response(response, key, offered) == expected


def test_no_answer_raises_anything_but_a_handshake_error() -> None:
    """Answers with bytes changed: accepted or refused, nothing else."""
    source = random.Random(123)
    good = answer({"Sec-WebSocket-Protocol": "a"})
    outcomes = set()
    for _ in range(5_000):
        mutant = bytearray(good)
        for _ in range(source.randint(1, 3)):
            mutant[source.randrange(len(mutant))] = source.choice(b"\x00\r\n ,;aA1:\x80\xff")
        outcomes.add(judge_once([bytes(mutant), b"\r\n\r\n" * 2], ("a",))[:3])
    assert {"cho", "101", "0 t"} <= outcomes
