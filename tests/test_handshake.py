"""The server's half of the opening handshake: bytes in, the answer's bytes out.

Each test is named by its row of hostile inputs, and each row is fed whole, byte by byte, at random
splits, and with bytes behind it that must not matter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from splits import every_split

from websocket.errors import ConnectionLimit, HandshakeError
from websocket.handshake import (
    SAME_ORIGIN,
    Upgrade,
    Upgrader,
    accept_response,
    is_upgrade,
    refusal,
)
from websocket.head_reader import HeadReader
from websocket.http11 import Request, parse_request, parse_response
from websocket.limits import Limits

LIMITS = Limits()
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

Fields = Sequence[tuple[str, str]]

GOOD: dict[str, str] = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(
    changes: dict[str, str | None] | None = None,
    more: Fields = (),
    line: str = "GET /chat HTTP/1.1",
) -> bytes:
    """Return a good request, but for the fields that are changed, left out (None) or added."""
    fields = {**GOOD, **(changes or {})}
    pairs = [(name, value) for name, value in fields.items() if value is not None]
    lines = [line, *(f"{name}: {value}" for name, value in [*pairs, *more]), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def parsed(**options: Any) -> Request:
    return parse_request(head(**options))


def answer_once(upgrader: Upgrader, pieces: list[bytes], **options: Any) -> bytes:
    """Do what a server does with the bytes of one client."""
    reader = HeadReader(LIMITS)
    request = None
    try:
        for piece in pieces:
            found = reader.feed(piece)
            if found is not None:
                request = parse_request(found)
                return accept_response(upgrader.judge(request, **options))
    except HandshakeError as error:
        return refusal(error, request)
    raise AssertionError("the head is incomplete")


def answer(data: bytes, upgrader: Upgrader | None = None, **options: Any) -> tuple[int, str, Any]:
    """Return status, body and headers of the one answer to all splits of ``data``."""
    upgrader = upgrader or Upgrader()
    trailing = [b"", b"\x81\x85abcdefghi", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
    answers = {
        answer_once(upgrader, pieces, **options)
        for rest in trailing
        for pieces in every_split(data + rest, random_splits=4)
    }
    assert len(answers) == 1
    head, _, body = answers.pop().partition(b"\r\n\r\n")
    response = parse_response(head + b"\r\n\r\n")
    assert response.http_version == "1.1" or b"HTTP/1.0" in data
    if response.status != 101:
        assert response.headers.get_all("connection")[0] == "close"
        assert response.headers.get("content-length") == str(len(body))
        assert response.headers.get("content-type") == "text/plain; charset=utf-8"
        assert body.endswith(b"\n")
        assert body[:-1].isascii()
    return response.status, body.decode().rstrip("\n"), response.headers


# --- what is accepted -------------------------------------------------------------------------


def test_the_answer_to_a_good_request_is_complete() -> None:
    """RFC 6455, 1.3."""
    assert answer_once(Upgrader(), [head()]) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head(), id="plain"),
        pytest.param(b"\r\n" + head(), id="H29-one-empty-line"),
        pytest.param(head({"X-Name": "\xe4"}), id="H29-obs-text"),
        pytest.param(head(line="GET http://example.com/chat?a HTTP/1.1"), id="H34-absolute"),
        pytest.param(head({"Connection": "keep-alive, Upgrade"}), id="H20-Firefox"),
        pytest.param(head({"Connection": "KEEP-alive,uPGRADE"}), id="H20-mixed-case"),
        pytest.param(
            head({"Connection": "close"}, [("connection", "upgrade")]), id="H20-two-lines"
        ),
        pytest.param(head({"Upgrade": "WebSocket"}), id="H20-WebSocket"),
        pytest.param(head({"Upgrade": "h2c, websocket"}), id="H20-list"),
        pytest.param(head({"Content-Length": "0"}), id="H30-no-bytes"),
        pytest.param(head({"Sec-WebSocket-Extensions": "constructor; __proto__"}), id="H25-names"),
        pytest.param(
            head({"Sec-WebSocket-Extensions": ", ".join(f"x{n}" for n in range(1_000))}),
            id="H25-1000-offers",
        ),
        pytest.param(head({"Sec-WebSocket-Protocol": "a, b"}), id="H28-unsupported"),
    ],
)
def test_a_good_request_is_accepted(data: bytes) -> None:
    status, _, headers = answer(data)
    assert status == 101
    assert headers.get("upgrade") == "websocket"
    assert headers.get("connection") == "Upgrade"
    assert headers.get("sec-websocket-accept") == ACCEPT
    assert "sec-websocket-protocol" not in headers
    assert "sec-websocket-extensions" not in headers


# --- what is refused --------------------------------------------------------------------------

UPGRADE = "this is a WebSocket: send Upgrade: websocket"
CONNECTION = "Upgrade goes with Connection: Upgrade; is a proxy between?"
VERSION = "only Sec-WebSocket-Version 13 is spoken here"
ONE_KEY = "send Sec-WebSocket-Key exactly once"
BAD_KEY = "Sec-WebSocket-Key is not the base64 of 16 bytes"
EXTENSIONS = "Sec-WebSocket-Extensions is malformed"
NO_TOKEN = "Sec-WebSocket-Protocol is malformed: an element is empty or no token"
TWICE = "Sec-WebSocket-Protocol is malformed: an element is there twice"
NO_BODY = "a request has no body here: leave Content-Length out"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        pytest.param(
            head(line=f"GET /{'x' * 8_192} HTTP/1.1"),
            414,
            "the first line is longer than 8192 bytes",
            id="H04",
        ),
        pytest.param(
            head({"X": "y" * 8_190}), 431, "a header line is longer than 8192 bytes", id="H05"
        ),
        pytest.param(
            head(more=[("x", "y")] * 96), 431, "there are more than 100 header lines", id="H06"
        ),
        pytest.param(
            head(more=[("x", "y" * 4_000)] * 5),
            431,
            "the head is longer than 16384 bytes",
            id="H07",
        ),
        pytest.param(head(line="G@T / HTTP/1.1"), 400, "a request starts with a method", id="H10"),
        pytest.param(
            head(line="GET / HTTP/2.0"),
            505,
            "only HTTP/1.0 and HTTP/1.1 are spoken here",
            id="H12",
        ),
        pytest.param(head({"Host": None}), 400, "the Host header is missing", id="H15-none"),
        pytest.param(
            head({"Host": "a b"}),
            400,
            "the host is malformed: not of the form host[:port]",
            id="H15-space",
        ),
        pytest.param(head({"Sec-WebSocket-Key": None}), 400, ONE_KEY, id="H17-none"),
        pytest.param(head(more=[("sec-websocket-key", KEY)]), 400, ONE_KEY, id="H17-two"),
        pytest.param(head({"Sec-WebSocket-Key": ""}), 400, BAD_KEY, id="H17-empty"),
        pytest.param(head({"Sec-WebSocket-Key": "A" * 20}), 400, BAD_KEY, id="H17-15"),
        pytest.param(head({"Sec-WebSocket-Key": "A" * 23 + "="}), 400, BAD_KEY, id="H17-17"),
        pytest.param(head({"Sec-WebSocket-Key": "!" + KEY[1:]}), 400, BAD_KEY, id="H17-!"),
        pytest.param(head({"Sec-WebSocket-Key": KEY + " x"}), 400, BAD_KEY, id="H17-junk"),
        pytest.param(head({"Sec-WebSocket-Key": f"{KEY}, {KEY}"}), 400, BAD_KEY, id="H17-list"),
        pytest.param(head({"Sec-WebSocket-Version": None}), 426, VERSION, id="H18-none"),
        pytest.param(head({"Sec-WebSocket-Version": "8"}), 426, VERSION, id="H18-8"),
        pytest.param(head({"Sec-WebSocket-Version": "12"}), 426, VERSION, id="H18-12"),
        pytest.param(head({"Sec-WebSocket-Version": "99"}), 426, VERSION, id="H18-99"),
        pytest.param(head({"Sec-WebSocket-Version": "013"}), 426, VERSION, id="H18-013"),
        pytest.param(head({"Sec-WebSocket-Version": "13, 8"}), 426, VERSION, id="H18-list"),
        pytest.param(head(more=[("sec-websocket-version", "13")]), 426, VERSION, id="H18-two"),
        pytest.param(head({"Upgrade": "notwebsocket"}), 426, UPGRADE, id="H19-notwebsocket"),
        pytest.param(head({"Upgrade": "websocket2"}), 426, UPGRADE, id="H19-websocket2"),
        pytest.param(head({"Upgrade": "h2c"}), 426, UPGRADE, id="H19-h2c"),
        pytest.param(head({"Upgrade": ""}), 426, UPGRADE, id="H19-empty"),
        pytest.param(head({"Upgrade": None}), 426, UPGRADE, id="H19-none"),
        pytest.param(head({"Connection": "keep-alive"}), 426, CONNECTION, id="H19-keep-alive"),
        pytest.param(head({"Connection": "upgraded"}), 426, CONNECTION, id="H19-upgraded"),
        pytest.param(head({"Connection": None}), 426, CONNECTION, id="H19-no-Connection"),
        pytest.param(
            head({"Sec-WebSocket-Protocol": "b" + " " * 8_000 + "x"}), 400, NO_TOKEN, id="H23"
        ),
        pytest.param(
            head({"Sec-WebSocket-Extensions": 'a; b="' + "\\x" * 4_000}), 400, EXTENSIONS, id="H24"
        ),
        pytest.param(head({"Sec-WebSocket-Extensions": "a;"}), 400, EXTENSIONS, id="H24-half"),
        pytest.param(
            head({"Sec-WebSocket-Extensions": "a"}, [("Sec-WebSocket-Extensions", "")]),
            400,
            EXTENSIONS,
            id="H24-second-line",
        ),
        pytest.param(head({"Sec-WebSocket-Protocol": "a, a"}), 400, TWICE, id="H28-twice"),
        pytest.param(
            head({"Sec-WebSocket-Protocol": "a"}, [("Sec-WebSocket-Protocol", "b, a")]),
            400,
            TWICE,
            id="H28-twice-in-two-lines",
        ),
        pytest.param(head({"Sec-WebSocket-Protocol": "a b"}), 400, NO_TOKEN, id="H28-a-b"),
        pytest.param(head({"Sec-WebSocket-Protocol": "a,,b"}), 400, NO_TOKEN, id="H28-empty"),
        pytest.param(head({"Sec-WebSocket-Protocol": ""}), 400, NO_TOKEN, id="H28-nothing"),
        pytest.param(head({"Sec-WebSocket-Protocol": "a/b"}), 400, NO_TOKEN, id="H28-slash"),
        pytest.param(
            head({"X": "a\x00"}), 400, "a header value holds a control character", id="H29-NUL"
        ),
        pytest.param(head({"Content-Length": "5"}) + b"hello", 400, NO_BODY, id="H30-5"),
        pytest.param(
            head({"Transfer-Encoding": "chunked"}),
            400,
            "a request has no body here: leave Transfer-Encoding out",
            id="H30-chunked",
        ),
        pytest.param(
            head(line="GET /#a HTTP/1.1"),
            400,
            "a request target has no fragment: percent-encode the number sign",
            id="H34-fragment",
        ),
    ],
)
def test_a_bad_request_is_refused(data: bytes, status: int, message: str) -> None:
    found_status, body, headers = answer(data)
    assert (found_status, body) == (status, message)
    if status == 426:
        assert headers.get("upgrade") == "websocket"
        assert headers.get("sec-websocket-version") == "13"
        assert headers.get_all("connection") == ["close", "Upgrade"]


@pytest.mark.parametrize(
    "method", ["POST", "HEAD", "OPTIONS", "TRACE", "get", pytest.param("M" * 300, id="300")]
)
def test_only_get_opens_a_websocket(method: str) -> None:
    """H10."""
    error = refused(Upgrader(), parsed(line=f"{method} / HTTP/1.1"))
    assert (error.status, error.message) == (405, "use one of: GET")
    assert error.headers == (("Allow", "GET"),)


def test_a_405_names_the_methods_of_plain_requests_too() -> None:
    """H10."""
    status, body, headers = answer(head(line="POST / HTTP/1.1"), allow="GET, HEAD")
    assert (status, body) == (405, "use one of: GET, HEAD")
    assert headers.get("allow") == "GET, HEAD"


def test_the_answer_to_head_has_no_body() -> None:
    data = answer_once(Upgrader(), [head(line="HEAD / HTTP/1.1")])
    assert data.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert data.endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 16\r\n" in data


def test_http_1_0_is_upgraded_unless_strict() -> None:
    """H11: a 101 says HTTP/1.1 whoever asks, a refusal says what the request said."""
    data = head({"Host": None}, line="GET / HTTP/1.0")
    assert answer_once(Upgrader(), [data]).startswith(b"HTTP/1.1 101 ")
    refused_data = answer_once(Upgrader(strict_http=True), [data])
    assert refused_data.startswith(b"HTTP/1.0 426 Upgrade Required\r\n")
    assert answer(data, Upgrader(strict_http=True))[:2] == (426, "a WebSocket needs HTTP/1.1")
    assert answer(head(), Upgrader(strict_http=True))[0] == 101


def refused(upgrader: Upgrader, request: Request, **options: Any) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        upgrader.judge(request, **options)
    return caught.value


# --- hosts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_secure", "is_allowed"),
    [
        ("localhost", False, True),
        ("LOCALHOST:9", True, True),
        ("[0::1]:9", False, True),
        ("example.com", False, True),
        ("example.com:80", False, True),
        ("example.com:443", True, False),
        ("example.com", True, False),
        ("example.com:8080", False, False),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("evil-localhost", False, False),
        ("localhost.", False, False),
        ("127.0.0.1", False, False),
    ],
)
def test_a_host_must_be_one_of_ours(host: str, is_secure: bool, is_allowed: bool) -> None:
    """H16: for handshakes and for plain requests."""
    upgrader = Upgrader(allowed_hosts=["localhost", "[::1]", "Example.com:80"])
    request = parsed(changes={"Host": host})
    if is_allowed:
        upgrader.judge_host(request, is_secure=is_secure)
        assert upgrader.judge(request, is_secure=is_secure).accept == ACCEPT
        return
    error = refused(upgrader, request, is_secure=is_secure)
    assert (error.status, error.message) == (403, "this host is not served here: see allowed_hosts")


def test_a_request_without_a_host_is_for_none_of_ours() -> None:
    """H16: HTTP/1.0 is no way around."""
    request = parsed(changes={"Host": None}, line="GET / HTTP/1.0")
    assert refused(Upgrader(allowed_hosts=["a"]), request).status == 403


def test_the_authority_of_the_target_is_the_host() -> None:
    """H34: its authority wins, in the list of hosts and as the own origin."""
    request = parsed(
        changes={"Host": "evil.example", "Origin": "http://a"}, line="GET http://a/ HTTP/1.1"
    )
    assert Upgrader(allowed_hosts=["a"]).judge(request).accept == ACCEPT
    assert refused(Upgrader(allowed_hosts=["evil.example"]), request).status == 403


# --- origins ----------------------------------------------------------------------------------

FOREIGN = "pages of this Origin may not connect: see allowed_origins"
MALFORMED = "the Origin is malformed"


@pytest.mark.parametrize(
    ("origin", "host", "is_secure", "message"),
    [
        pytest.param(None, "example.com", False, None, id="H21-none"),
        pytest.param("http://example.com", "example.com", False, None, id="H21-same"),
        pytest.param("http://example.com:80", "example.com", False, None, id="H22-default-port"),
        pytest.param("HTTP://EXAMPLE.com", "example.com:80", False, None, id="H22-upper-case"),
        pytest.param("https://example.com", "example.com", True, None, id="H21-secure"),
        pytest.param("http://[::1]:8", "[0:0:0::1]:8", False, None, id="H22-IPv6-forms"),
        pytest.param("http://localhost:8", "localhost:8", False, None, id="H21-loopback"),
        pytest.param("http://evil.example", "example.com", False, FOREIGN, id="H21-foreign"),
        pytest.param("null", "example.com", False, FOREIGN, id="H21-null"),
        pytest.param("file://", "example.com", False, MALFORMED, id="H21-file"),
        pytest.param("https://example.com", "example.com", False, FOREIGN, id="H21-other-scheme"),
        pytest.param("http://localhost", "127.0.0.1", False, FOREIGN, id="H21-loopback-name"),
        pytest.param("http://localhost:9", "localhost:8", False, FOREIGN, id="H21-loopback-port"),
        pytest.param(
            "http://example.com.evil.example", "example.com", False, FOREIGN, id="H22-prefix"
        ),
        pytest.param("http://evil-example.com", "example.com", False, FOREIGN, id="H22-suffix"),
        pytest.param(
            "http://example.com:8080", "example.com:80", False, FOREIGN, id="H22-port-prefix"
        ),
        pytest.param("http://example.com.", "example.com", False, FOREIGN, id="H22-trailing-dot"),
        pytest.param(
            "http://example.com@evil.example", "example.com", False, MALFORMED, id="H22-userinfo"
        ),
        pytest.param("http://a:b", "a", False, MALFORMED, id="H22-port-no-number"),
        pytest.param("http://[::1", "[::1]", False, MALFORMED, id="H22-bracket"),
        pytest.param("http://a/", "a", False, MALFORMED, id="H22-path"),
        pytest.param("", "a", False, MALFORMED, id="H22-empty"),
        pytest.param("http://a http://b", "a", False, MALFORMED, id="H22-list"),
    ],
)
def test_by_default_only_pages_of_the_same_origin_may_connect(
    origin: str | None, host: str, is_secure: bool, message: str | None
) -> None:
    data = head({"Host": host, "Origin": origin})
    status, body, _ = answer(data, is_secure=is_secure)
    assert (status, body) == ((101, "") if message is None else (403, message))


def test_two_origins_are_malformed() -> None:
    more = [("Origin", "http://example.com")] * 2
    assert answer(head(more=more))[:2] == (403, MALFORMED)


def test_a_request_without_a_host_has_no_same_origin() -> None:
    data = head({"Host": None, "Origin": "http://a"}, line="GET / HTTP/1.0")
    assert answer(data)[:2] == (403, FOREIGN)


def test_an_origin_can_be_required() -> None:
    """H21."""
    upgrader = Upgrader(require_origin=True)
    assert answer(head(), upgrader)[:2] == (403, "only web pages may connect: send Origin")
    assert answer(head({"Origin": "http://example.com"}), upgrader)[0] == 101


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("https://shop.example", True),
        ("HTTPS://SHOP.EXAMPLE:443", True),
        ("http://[2001:db8:0::1]:8", True),
        ("app://localhost", True),
        ("http://example.com", False),
        ("http://shop.example", False),
        ("https://shop.example:444", False),
        ("https://shop.example:4433", False),
        ("https://shop.example.", False),
        ("https://shop.example.evil.example", False),
        ("https://evil.shop.example", False),
        ("https://shop.example@evil.example", False),
        ("https://shop.example/", False),
        ("app://localhost:1", False),
        ("null", False),
    ],
)
def test_a_list_of_origins_is_compared_exactly(origin: str, is_allowed: bool) -> None:
    """H22."""
    listed = ["https://shop.example", "http://[2001:db8::1]:8", "app://localhost"]
    status = answer(head({"Origin": origin}), Upgrader(allowed_origins=listed))[0]
    assert status == (101 if is_allowed else 403)


def test_the_same_origin_can_be_one_of_a_list() -> None:
    upgrader = Upgrader(allowed_origins=[SAME_ORIGIN, "https://shop.example", "null"])
    for origin in ("http://example.com", "https://shop.example", "null"):
        assert answer(head({"Origin": origin}), upgrader)[0] == 101
    assert answer(head({"Origin": "http://evil.example"}), upgrader)[0] == 403


def test_no_list_of_origins_lets_everyone_in() -> None:
    upgrader = Upgrader(allowed_origins=None)
    for origin in ("http://evil.example", "null", "junk", None):
        assert answer(head({"Origin": origin}), upgrader)[0] == 101


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowed_origins": "https://a"}, r"allowed_origins takes a list .*\['https://a'\]"),
        ({"allowed_hosts": "a"}, "allowed_hosts takes a list"),
        ({"subprotocols": "a"}, "subprotocols takes a list"),
        ({"allowed_origins": ["a"]}, "not of the form scheme://host"),
        ({"allowed_origins": ["https://a/b"]}, "not of the form host"),
        ({"allowed_hosts": ["::1"]}, "not of the form host"),
        ({"subprotocols": ["a b"]}, "empty or no token"),
        ({"subprotocols": ["a", "a"]}, "twice"),
    ],
)
def test_a_bad_policy_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Upgrader(**options)


# --- subprotocols -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "offered", "chosen"),
    [
        ([], ["a"], None),
        (["a"], [], None),
        (["a"], ["b"], None),
        (["a"], ["A"], None),
        (["a", "b"], ["b, a"], "a"),
        (["a", "b"], ["c , b"], "b"),
        (["b"], ["a", "b"], "b"),
        (["x199"], [",".join(f"x{number}" for number in range(200))], "x199"),
    ],
)
def test_the_first_of_ours_that_is_offered_is_chosen(
    ours: list[str], offered: list[str], chosen: str | None
) -> None:
    """H28."""
    more = [("Sec-WebSocket-Protocol", value) for value in offered]
    status, _, headers = answer(head(more=more), Upgrader(ours))
    assert status == 101
    assert headers.get_all("sec-websocket-protocol") == ([] if chosen is None else [chosen])


def test_a_route_may_speak_something_else() -> None:
    request = parsed(changes={"Sec-WebSocket-Protocol": "a, b"})
    upgrader = Upgrader(["a"])
    assert upgrader.judge(request).subprotocol == "a"
    assert upgrader.judge(request, subprotocols=["b"]).subprotocol == "b"
    assert upgrader.judge(request, subprotocols=()).subprotocol is None


# --- plain requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False),
        (b"HEAD / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade:\r\n\r\n", True),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nsec-websocket-version: 8\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Protocol: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Extensions: x\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (head(), True),
    ],
)
def test_half_an_upgrade_is_judged_as_one(data: bytes, expected: bool) -> None:
    assert is_upgrade(parse_request(data)) is expected


# --- answers ----------------------------------------------------------------------------------


def test_fields_can_be_added_to_a_101() -> None:
    response = accept_response(Upgrade("x", "chat"), [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    assert response.endswith(
        b"Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade",
        "connection",
        "Sec-WebSocket-Accept",
        "sec-websocket-protocol",
        "SEC-WEBSOCKET-EXTENSIONS",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_what_the_handshake_says_cannot_be_added(name: str) -> None:
    with pytest.raises(ValueError, match=f"header {name} is set elsewhere"):
        accept_response(Upgrade("x", None), [(name, "a")])


@pytest.mark.parametrize("text", ["a\r\nb: c", "a\nb", "a\x00"])
def test_a_101_cannot_be_split(text: str) -> None:
    """H35."""
    with pytest.raises(ValueError, match="forbidden character"):
        accept_response(Upgrade("x", None), [("Set-Cookie", text)])
    with pytest.raises(ValueError, match="forbidden character"):
        refusal(HandshakeError(302, "moved", [("Location", text)]))


def test_a_refusal_carries_what_the_error_says() -> None:
    error = ConnectionLimit(503, "the server is full", retry_after=2.5)
    assert refusal(error, headers=[("Date", "today")]) == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 19\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Retry-After: 3\r\n"
        b"Date: today\r\n"
        b"\r\n"
        b"the server is full\n"
    )


def test_a_refusal_of_bytes_that_are_no_request_needs_no_request() -> None:
    assert answer(b"\x80\x81")[:2] == (400, "a request starts with a method")


# --- any request ------------------------------------------------------------------------------


def test_no_fields_raise_anything_but_a_handshake_error() -> None:
    """Requests of odd parts, under odd policies: a 101 or a refusal, nothing else."""
    source = random.Random(6455)
    values = [
        "",
        "websocket",
        "Upgrade",
        "13",
        KEY,
        "a, b",
        "a b",
        "null",
        "http://a",
        "http://a:b",
    ]
    values += ["[::1", "\xe4", ",", ";", '"', 'a; b="\\x"', "x" * 300, "http://[::1]:99999", "*"]
    names = [*GOOD, "Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Cookie"]
    lines = ["GET / HTTP/1.1", "GET http://[::1]/ HTTP/1.1", "HEAD / HTTP/1.0", "GET / HTTP/1.0"]
    upgraders = [
        Upgrader(["a"], require_origin=True, strict_http=True),
        Upgrader(allowed_hosts=["a", "[::1]"], allowed_origins=["http://a"]),
        Upgrader(),
    ]
    statuses = set()
    for _ in range(5_000):
        names_changed = source.choices(names, k=source.randint(0, 3))
        changes: dict[str, str | None] = {
            name: source.choice([None, *values]) for name in names_changed
        }
        more = [(source.choice(names), source.choice(values))] if source.random() < 0.2 else []
        data = head(changes, more, source.choice(lines))
        response = answer_once(source.choice(upgraders), [data])
        statuses.add(int(response[9:12]))
    assert statuses == {101, 400, 403, 405, 426}
