"""H01 to H44: connecting and the opening handshake, against a whole server in memory.

The rows of ``REFUSED`` and ``ACCEPTED`` are sent whole, byte by byte and at random splits, with
more behind them that must not matter.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from reactions import our_socket
from support import (
    KEY,
    MemorySocket,
    Peer,
    Recorder,
    Stage,
    as_socket,
    header,
    read_answer,
    read_head,
)
from tls_peer import TLSStage

from hostile.arena import OFFENDER, Arena, MemoryListener, splits_of
from hostile.memory import KIB, measured
from reactor.listener import ACCEPT_BATCH
from websocket import (
    Cause,
    Frame,
    FrameWriter,
    HandshakeError,
    HTTPResponse,
    Limits,
    Opcode,
    Request,
    Server,
    Upgrader,
    connect,
)

Besiege = Callable[..., Arena]

MASKED = FrameWriter(masks=True)
HELLO = MASKED.encode_frame(Frame(Opcode.TEXT, b"hello"))


def good(*more: str, line: str = "GET / HTTP/1.1", **changes: str | None) -> bytes:
    """Return a good request, but for the fields that are changed, left out (None) or added."""
    fields: dict[str, str | None] = {
        "Host": "example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


def key(value: str | None) -> bytes:
    return good(Sec_WebSocket_Key=value)


def version(value: str | None) -> bytes:
    return good(Sec_WebSocket_Version=value)


def upgrade(value: str | None) -> bytes:
    return good(Upgrade=value)


def origin(value: str) -> bytes:
    return good(Origin=value)


def protocols(*values: str) -> bytes:
    return good(*(f"Sec-WebSocket-Protocol: {value}" for value in values))


def extensions(value: str) -> bytes:
    return good(Sec_WebSocket_Extensions=value)


def host(value: str) -> bytes:
    return good(Host=value)


def target(text: str) -> bytes:
    return good(line=f"GET {text} HTTP/1.1")


def plain(line: str = "GET / HTTP/1.1") -> bytes:
    return f"{line}\r\nHost: example.com\r\n\r\n".encode("latin-1")


def raw(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    """Return a good request with further lines, as bytes."""
    return good()[:-2] + b"".join(line + end for line in lines) + b"\r\n"


# --- what is refused --------------------------------------------------------------------------


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Refused(NamedTuple):
    """A request, the status of the refusal, and further arguments of the server."""

    name: str
    data: bytes
    status: int
    options: Mapping[str, Any] = NOTHING


LISTED: dict[str, Any] = {
    "upgrader": Upgrader(
        allowed_origins=["https://example.com", "http://[::1]:8080"], require_origin=True
    )
}
LOCAL: dict[str, Any] = {"upgrader": Upgrader(allowed_hosts=["localhost", "127.0.0.1:80"])}
STRICT: dict[str, Any] = {"upgrader": Upgrader(strict_http=True)}
WIDE: dict[str, Any] = {"limits": Limits(max_header_line=64 * KIB, max_head_size=64 * KIB)}

REFUSED = [
    Refused("H04-line-of-8193", target("/" + "x" * (8193 - 14)), 414),
    Refused("H04-line-of-20-kB", target("/" + "x" * 20_000), 414),
    Refused("H04-line-without-end", b"GET /" + b"x" * 8_188, 414),
    Refused("H05-header-of-8193", good("x: " + "y" * 8_190), 431),
    Refused("H05-header-of-70-kB", good("x: " + "y" * 70_000), 431),
    Refused("H06-101-headers", good(*["x: y"] * 96), 431),
    Refused("H06-2000-headers", good(*["x: y"] * 1_995), 431),
    Refused("H06-2000-headers-before-Upgrade", plain()[:-2] + b"x: y\r\n" * 2_000, 431),
    Refused("H07-legal-lines", good(*["x: " + "y" * 4_000] * 5), 431),
    *(
        Refused(f"H10-{name}", good(line=f"{name} / HTTP/1.1"), 405)
        for name in ("POST", "OPTIONS", "TRACE", "CONNECT", "get")
    ),
    # A choice: to be refused as a method that is not known, as long as it is a token.
    Refused("H10-300-characters", good(line="M" * 300 + " / HTTP/1.1"), 405),
    *(
        Refused(f"H10-bad-token-{text}", good(line=f"{text} / HTTP/1.1"), 400)
        for text in ("G@T", "", "(GET)")
    ),
    Refused("H11-strict", good(line="GET / HTTP/1.0"), 426, STRICT),
    Refused("H12-2.0", good(line="GET / HTTP/2.0"), 505),
    Refused("H12-0.9", good(line="GET / HTTP/0.9"), 505),
    Refused("H12-1.1x", good(line="GET / HTTP/1.1x"), 400),
    Refused("H12-http-in-lower-case", good(line="GET / http/1.1"), 400),
    Refused("H12-no-version", b"GET /\r\n\r\n", 400),
    # A choice: a target that is no path comes before the version.
    Refused("H12-preface-of-HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Refused("H15-no-Host", good(Host=None), 400),
    Refused("H15-two-Hosts", good("Host: example.com"), 400),
    *(
        Refused(f"H15-{text}", host(text), 400)
        for text in ("a b", "[::1", "a, b", "a:b", "a:99999", "u@a", "a/b", "::1", "[::1]x", "")
    ),
    Refused("H16-foreign-host", host("evil.example"), 403, LOCAL),
    Refused("H16-foreign-port", host("127.0.0.1:81"), 403, LOCAL),
    Refused("H16-look-alike", host("localhost.evil.example"), 403, LOCAL),
    Refused("H16-foreign-host-plain", plain(), 403, LOCAL),
    Refused("H17-missing", key(None), 400),
    Refused("H17-twice", good(f"Sec-WebSocket-Key: {KEY}"), 400),
    Refused("H17-list", key(f"{KEY}, {KEY}"), 400),
    Refused("H17-15-bytes", key("A" * 20), 400),
    Refused("H17-17-bytes", key("A" * 23 + "="), 400),
    Refused("H17-bad-characters", key("!" + KEY[1:]), 400),
    Refused("H17-junk-behind", key(KEY + " x"), 400),
    Refused("H17-empty", key(""), 400),
    Refused("H18-missing", version(None), 426),
    *(Refused(f"H18-{text}", version(text), 426) for text in ("8", "12", "99", "13, 8", "+13")),
    Refused("H18-twice", good("Sec-WebSocket-Version: 13"), 426),
    *(
        Refused(f"H19-{text}", upgrade(text), 426)
        for text in ("notwebsocket", "websocket2", "h2c", "web socket")
    ),
    Refused("H19-no-Upgrade", upgrade(None), 426),
    Refused("H19-keep-alive-only", good(Connection="keep-alive"), 426),
    Refused("H19-not-upgrade", good(Connection="notupgrade"), 426),
    *(
        Refused(f"H21-{text}", origin(text), 403)
        for text in ("https://evil.example", "null", "file://", "http://localhost", "*", "")
    ),
    Refused("H21-required", good(), 403, LISTED),
    *(
        Refused(f"H22-{name}", origin(text), 403, LISTED)
        for name, text in {
            "suffix": "https://example.com.evil.example",
            "prefix": "https://evil-example.com",
            "subdomain": "https://a.example.com",
            "port": "https://example.com:4430",
            "port-prefix": "http://[::1]:80801",
            "port-missing": "http://[::1]",
            "scheme": "http://example.com",
            "userinfo": "https://example.com@evil.example",
            "userinfo-before": "https://evil.example@example.com",
            "trailing-dot": "https://example.com.",
            "path": "https://example.com/",
            "mapped-address": "http://[::ffff:0:1]:8080",
            "no-brackets": "http://::1:8080",
            "malformed": "http://a:b",
            "list": "https://example.com https://example.com",
            "two": "https://example.com\r\nOrigin: https://example.com",
        }.items()
    ),
    Refused("H23-8-kB-of-spaces", protocols("b" + " " * 8_000 + "x"), 400),
    Refused("H23-32-kB-of-spaces", protocols("b" + " " * 32_000 + "x"), 400, WIDE),
    Refused("H23-32-kB-of-spaces-by-default", protocols("b" + " " * 32_000 + "x"), 431),
    Refused("H24-unclosed-8-kB", extensions('a; b="' + "\\x" * 4_000), 400),
    Refused("H24-unclosed-16-kB", extensions('a; b="' + "\\x" * 8_000), 400, WIDE),
    Refused("H24-unclosed-16-kB-of-backslashes", extensions('a; b="' + "\\" * 16_000), 400, WIDE),
    Refused("H24-many-semicolons", extensions("a" + ";" * 16_000), 400, WIDE),
    # A choice: an offer that is wrong is declined, a field that breaks the grammar is refused.
    Refused("H26-bits-empty", extensions("permessage-deflate; client_max_window_bits="), 400),
    Refused("H26-bits-quoted-empty", extensions('permessage-deflate; client_max_window_bits=""'),
            400, {"compression": True}),
    *(
        Refused(f"H28-{name}", protocols(*values), 400)
        for name, values in {
            "twice": ["a, a"],
            "twice-in-two-lines": ["a", "b, a"],
            "no-token": ["a b"],
            "empty-element": ["a,,b"],
            "empty": [""],
            "control-like": ['a"b'],
        }.items()
    ),
    *(
        Refused(f"H29-{name}", raw(line), 400)
        for name, line in {
            "obs-fold": b"X: a\r\n b",
            "obs-fold-tab": b"X: a\r\n\tb",
            "space-before-colon": b"X : a",
            "tab-before-colon": b"X\t: a",
            "no-colon": b"nonsense",
            "no-name": b": a",
            "bare-CR": b"X: a\rY: b",
            "bare-LF": b"X: a\nY: b",
            "NUL-in-value": b"X: a\x00b",
            "NUL-in-name": b"X\x00: a",
            "DEL-in-value": b"X: a\x7f",
            "escape-in-value": b"X: \x1b[2J",
            "CTL-in-name": b"X\x01: a",
            "non-ASCII-in-name": b"X\xe4: a",
            "space-in-name": b"X Y: a",
            "leading-space": b" X: a",
        }.items()
    ),
    Refused("H29-two-empty-lines", b"\r\n\r\n" + good(), 400),
    Refused("H29-all-LF", good().replace(b"\r\n", b"\n"), 400),
    Refused("H30-Content-Length", good(Content_Length="5") + b"hello" + HELLO, 400),
    Refused("H30-chunked", good(Transfer_Encoding="chunked") + b"0\r\n\r\n" + HELLO, 400),
    Refused("H30-both", good(Content_Length="5", Transfer_Encoding="chunked") + b"hello", 400),
    Refused("H30-two-lengths", good("Content-Length: 0", Content_Length="0"), 400),
    Refused("H30-two-different-lengths", good("Content-Length: 5", Content_Length="0"), 400),
    *(
        Refused(f"H30-length-{name}", good(Content_Length=text), 400)
        for name, text in {
            "signed": "+5",
            "underscore": "1_0",
            # As the bytes of UTF-8 would read.
            "Arabic": "\xd9\xa5",
            "5000-digits": "9" * 5_000,
            "negative": "-1",
            "list": "0, 0",
            "empty": "",
            "zeroes": "00",
        }.items()
    ),
    Refused("H30-plain-GET-with-body", plain()[:-2] + b"Content-Length: 5\r\n\r\nhello", 400),
    Refused("H31-403", origin("https://evil.example") + plain() + good() + HELLO, 403),
    Refused("H31-426", version("8") + plain() + good() + HELLO, 426),
    *(
        Refused(f"H34-{text}", target(text), 400)
        for text in (
            "*", "example.com:80", "/#frag", "//x", "/%00", "/?%00", "/%2e%2e/", "/a/../b", "/..",
            "/..\\", "/a%5c..%5cb", "/\x80", "/%zz", "ftp://a/", "http://", "http://a b/", "x",
        )
    ),
    Refused("H42-v1", b"PROXY TCP4 203.0.113.9 192.0.2.9 5 80\r\n" + good(), 400),
    Refused("H42-v1-long", b"PROXY TCP6 " + b"f" * 200 + b"\r\n" + good(), 400),
    Refused("H42-v2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + good(), 400),
    Refused("H42-v2-LOCAL", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" + good(), 400),
    Refused("H42-v2-lying-length", b"\r\n\r\n\x00\r\nQUIT\n\x21\xff\xff\xff" + good(), 400),
]  # fmt: skip


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
def test_a_bad_request_is_refused(hostile: Besiege, row: Refused) -> None:
    calls: list[object] = []
    arena = hostile(authenticate=calls.append, on_http_request=calls.append, **row.options)
    calls.clear()
    begin = time.process_time()
    for number, pieces in enumerate(splits_of_request(row.data)):
        peer = arena.request(pieces)
        answer = arena.expect_refusal(peer, row.status, stays=not number)
        if answer.status == 405:
            assert header(answer.head, "Allow") == "GET, HEAD"
        if answer.status == 426:
            assert header(answer.head, "Upgrade") == "websocket"
            assert header(answer.head, "Sec-WebSocket-Version") == "13"
    assert calls == []
    # H23, H24: what is not linear here takes minutes.
    assert time.process_time() - begin < 10


def splits_of_request(data: bytes) -> Iterator[list[bytes]]:
    """Yield the splits of ``splits_of``, but large requests not byte by byte."""
    if len(data) <= 2_000:
        yield from splits_of(data, random_splits=2)
        return
    yield [data]
    yield [data[at : at + 1_000] for at in range(0, len(data), 1_000)]


ENDLESS = {
    "H04-10-MB": (b"GET /", 414),
    "H08-20-MB": (b"GET / HTTP/1.1\r\nx: ", 431),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_is_endless_is_read_no_further_than_the_limit(hostile: Besiege, name: str) -> None:
    arena = hostile()
    start, status = ENDLESS[name]
    peer = arena.request([start, *[b"x" * 1_000] * 9])
    assert read_answer(peer).status == status
    flood, sent = b"x" * 64 * KIB, 0
    with measured() as memory:
        while not our_socket(peer).is_closed:
            peer.send_bytes(flood)
            arena.stage.reactor.run_once(0)
            sent += len(flood)
    assert sent <= arena.limits.linger_size + len(flood)
    memory.assert_held_below(64 * KIB)
    arena.stage.settle()
    arena.check()


def test_h08_a_header_in_single_bytes_is_judged_by_its_length_so_far(hostile: Besiege) -> None:
    arena = hostile()
    peer = arena.request([b"GET / HTTP/1.1\r\n", *[b"x"] * arena.limits.max_header_line])
    assert peer.sock.take() == b""
    peer.send_bytes(b"x")
    arena.stage.settle()
    arena.expect_refusal(peer, 431)


# --- what is accepted -------------------------------------------------------------------------


class Accepted(NamedTuple):
    """A request that must be answered with 101, and further arguments of the server.

    ``extension`` is what the answer says of compression.
    """

    name: str
    data: bytes
    options: Mapping[str, Any] = NOTHING
    subprotocol: str | None = None
    extension: str | None = None


DEFLATE: dict[str, Any] = {"compression": True}
NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TWELVE = NO_TAKEOVER + "; server_max_window_bits=12"


def deflate(parameters: str) -> str:
    return "permessage-deflate" + parameters


BAD_OFFERS = {
    "bits-7": deflate("; client_max_window_bits=7"),
    "bits-16": deflate("; server_max_window_bits=16"),
    "bits-08": deflate("; client_max_window_bits=08"),
    "bits-without-value": deflate("; server_max_window_bits"),
    "duplicated": deflate("; client_max_window_bits; client_max_window_bits"),
    "unknown": deflate("; constructor"),
    "value-of-a-flag": deflate("; server_no_context_takeover=1"),
}

ACCEPTED = [
    Accepted("H09-the-same-name-90-times", good(*["Cookie: a=b"] * 90)),
    Accepted("H11-1.0", good(line="GET / HTTP/1.0")),
    Accepted("H11-1.0-without-Host", good(line="GET / HTTP/1.0", Host=None)),
    Accepted("H16-allowed-host", host("LOCALHOST:8080"), LOCAL),
    Accepted("H20-list", good(Connection="keep-alive, Upgrade")),
    Accepted("H20-mixed-case", good(Connection="KEEP-alive,uPGRADE")),
    Accepted("H20-two-lines", good("connection: upgrade", Connection="keep-alive")),
    Accepted("H20-WebSocket", upgrade("WebSocket")),
    Accepted("H21-none", good()),
    Accepted("H21-same", origin("http://example.com")),
    Accepted("H21-same-port", good(Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080")),
    Accepted("H22-listed", origin("https://example.com"), LISTED),
    Accepted("H22-upper-case", origin("HTTPS://EXAMPLE.COM:443"), LISTED),
    Accepted("H22-address-written-out", origin("http://[0:0:0:0:0:0:0:1]:8080"), LISTED),
    *(
        Accepted(f"H25-{name}{suffix}", extensions(name + "; " + name), options)
        for suffix, options in (("", {}), ("-deflate", DEFLATE))
        for name in ("constructor", "__proto__", "__class__")
    ),
    Accepted("H25-1000-offers", extensions(", ".join(f"x{n}" for n in range(1_000))), DEFLATE),
    Accepted("H25-17-offers", extensions(", ".join(["permessage-deflate"] * 17)), DEFLATE),
    Accepted(
        "H25-16-offers", extensions(", ".join(["permessage-deflate"] * 16)), DEFLATE, None, TWELVE
    ),
    *(Accepted(f"H26-{name}", extensions(text), DEFLATE) for name, text in BAD_OFFERS.items()),
    *(
        Accepted(
            f"H26-{name}-and-a-good-one",
            extensions(f"{text}, permessage-deflate"), DEFLATE, None, TWELVE,
        )
        for name, text in BAD_OFFERS.items()
    ),
    Accepted("H27-8-bits", extensions(deflate("; server_max_window_bits=8")), DEFLATE),
    Accepted("H28-unsupported", protocols("chat, more")),
    Accepted("H28-200-names", protocols(", ".join(f"p{n}" for n in range(200)))),
    Accepted("H29-one-empty-line", b"\r\n" + good()),
    Accepted("H29-obs-text", good("x: \xe4\xff")),
    Accepted("H30-no-body", good(Content_Length="0")),
    Accepted("H34-absolute", target("http://example.com/?x")),
    Accepted(
        "H34-its-authority-wins",
        good(line="GET http://localhost/ HTTP/1.1", Host="evil.example"), LOCAL,
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name)
def test_an_odd_request_is_accepted(hostile: Besiege, row: Accepted) -> None:
    arena = hostile(**row.options)
    for pieces in splits_of_request(row.data):
        peer = arena.request(pieces)
        head = read_head(peer)
        assert head.startswith("HTTP/1.1 101 "), head
        assert header(head, "Sec-WebSocket-Protocol") == row.subprotocol
        assert header(head, "Sec-WebSocket-Extensions") == row.extension
        arena.expect_open(arena.last(peer), [])


# --- silence, drips, probes -------------------------------------------------------------------

SILENT: dict[str, Callable[[int], bytes]] = {
    "H01-silence": lambda second: b"",
    "H02-a-byte-a-second": lambda second: good()[second : second + 1],
    "H42-dripped": lambda second: b"PROXY TCP4 203"[second : second + 1],
}


@pytest.mark.parametrize("name", SILENT)
def test_the_deadline_counts_from_the_beginning(hostile: Besiege, name: str) -> None:
    arena = hostile()
    begin = arena.stage.clock.now
    peer = arena.stranger()
    timers = arena.measure()["timers"]
    for second in range(100):
        peer.send_bytes(SILENT[name](second))
        arena.stage.settle()
        assert peer.sock.take() == b""
        assert arena.measure()["timers"] == timers
        if begin + arena.limits.handshake_timeout - arena.stage.clock.now < 1.1:
            break
        arena.pass_time(1)
    arena.stage.pass_time(begin + arena.limits.handshake_timeout - arena.stage.clock.now - 0.05)
    assert peer.sock.take() == b""
    arena.stage.pass_time(0.1)
    arena.expect_refusal(peer, 408)


PROBES: dict[str, Callable[[MemorySocket], object]] = {
    "H03-close": MemorySocket.close,
    "H03-reset": MemorySocket.reset,
}


@pytest.mark.parametrize("name", PROBES)
def test_probes_of_a_load_balancer_leave_nothing_but_a_count(hostile: Besiege, name: str) -> None:
    arena = hostile()
    for _ in range(1_000):
        ours, theirs = arena.stage.network.pair((OFFENDER, 50_000))
        arena.server.adopt(as_socket(ours))
        PROBES[name](theirs)
        arena.stage.settle()
    assert arena.log.lines == []
    word = "eof" if name == "H03-close" else "reset"
    assert arena.server.statistics().failed_by_reason == {word: 1_000}
    assert len(arena.opened) == 1
    arena.check()


# --- plain HTTP -------------------------------------------------------------------------------


class Page(NamedTuple):
    """A plain request, and how its answer begins and ends."""

    name: str
    data: bytes
    start: str
    body: str


PAGES = [
    Page("H10-HEAD", plain("HEAD / HTTP/1.1"), "HTTP/1.1 200 OK", ""),
    Page("H11-plain-1.0", plain("GET / HTTP/1.0"), "HTTP/1.0 200 OK", "page"),
    Page("H32-1000-pipelined", plain() * 1_000, "HTTP/1.1 200 OK", "page"),
    Page("H31-behind-a-page", plain() + good() + HELLO, "HTTP/1.1 200 OK", "page"),
]


@pytest.mark.parametrize("row", PAGES, ids=lambda row: row.name)
def test_a_plain_request_is_answered_once(hostile: Besiege, row: Page) -> None:
    """H32: one answer, and the connection is closed; so there is no queue to bound."""
    asked: list[Request] = []

    def on_http_request(request: Request) -> HTTPResponse:
        asked.append(request)
        return HTTPResponse("page")

    arena = hostile(on_http_request=on_http_request)
    for pieces in splits_of_request(row.data):
        peer = arena.request(pieces)
        status_line, _, _ = peer.sock.inbox.decode().partition("\r\n")
        assert status_line == row.start
        assert arena.expect_refusal(peer, 200).body == row.body
        assert len(asked) == 1
        asked.clear()


# --- TLS --------------------------------------------------------------------------------------


def test_h13_tls_on_the_plain_port_is_dropped_at_the_first_byte(hostile: Besiege) -> None:
    arena = hostile()
    client_hello = bytes.fromhex("16030100c5010000c10303") + bytes(200)
    hints = []
    for pieces in ([client_hello], [client_hello[:1]], [client_hello[:5], client_hello[5:]]):
        peer = arena.request(pieces)
        hints += arena.log.lines
        arena.expect_dropped(peer, "tls")
    assert len(hints) == 1
    assert "wss://" in hints[0]
    arena.pass_time(5)
    peer = arena.request([client_hello])
    assert arena.log.lines == [f"{hints[0]} (and 2 more of this kind before)"]
    arena.expect_dropped(peer, "tls")


NO_TLS = {
    "H14-plain-HTTP": good(),
    "H14-garbage": bytes(range(256)),
    "H14-SSLv3-hello": bytes.fromhex("1603000031 0100002d0300") + bytes(43),
    "H14-SSLv2-hello": bytes.fromhex("802e0100020015000000100100800200800300800400800500800600"),
    "H14-silence": b"",
    "H14-half-a-hello": bytes.fromhex("16030100c50100"),
}


@pytest.mark.parametrize("name", NO_TLS)
def test_what_is_no_tls_costs_its_own_stream(name: str) -> None:
    """An alert or an end, within the deadline; the sockets are real, the clock is not."""
    with TLSStage() as stage:
        server = Server(Recorder, reactor=stage.reactor, tls=stage.tls)
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.settimeout(5)
            server.adopt(ours)
            theirs.sendall(NO_TLS[name])
            stage.settle()
            stage.pass_time(server.limits.handshake_timeout)
            stage.settle()
            # A choice: an alert, an end, or a reset, as there is input that nobody has read.
            with suppress(ConnectionResetError):
                received = theirs.recv(1_000)
                assert received == b"" or received[0] == 0x15
        stage.settle()
        statistics = server.statistics()
        assert (statistics.failed, statistics.handshaking, statistics.opened) == (1, 0, 0)
        assert server.manager.pool.admitted == 0
        assert len(stage.reactor._wheel) == 0
        server.close()


# --- frames with the request ------------------------------------------------------------------


def test_h33_frames_behind_the_request_are_handled_after_the_101(hostile: Besiege) -> None:
    """Hooks are synchronous: nothing has to be held while one runs."""
    arena = hostile()
    wire = good() + HELLO + MASKED.encode_frame(Frame(Opcode.PING, b"p")) + HELLO
    for pieces in splits_of(wire):
        peer = arena.request(pieces)
        assert read_head(peer).startswith("HTTP/1.1 101 ")
        assert peer.receive() == [(Opcode.PONG, b"p")]
        arena.expect_open(arena.last(peer), ["hello", "hello"])


def test_h33_64_kb_of_frames_behind_the_request(hostile: Besiege) -> None:
    arena = hostile()
    count = 64 * KIB // len(HELLO)
    peer = arena.request([good() + HELLO * count])
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    arena.expect_open(arena.last(peer), ["hello"] * count)


def test_h33_a_bad_frame_behind_the_request_fails_the_connection(hostile: Besiege) -> None:
    arena = hostile()
    for pieces in splits_of(good() + HELLO + b"\x82\x05"):
        peer = arena.request(pieces)
        assert read_head(peer).startswith("HTTP/1.1 101 ")
        arena.expect_fail(arena.last(peer), 1002, Cause.PROTOCOL_ERROR, messages=["hello"])


# --- hooks ------------------------------------------------------------------------------------

SPLITTERS = {
    "H35-CRLF": "a\r\nX-Injected: b",
    "H35-LF": "a\nb",
    "H35-NUL": "a\x00b",
    "H35-CR": "a\rb",
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_hook_cannot_split_the_response(
    hostile: Besiege, name: str, logged: list[logging.LogRecord]
) -> None:
    text = SPLITTERS[name]
    attempts: list[Callable[[], HTTPResponse]] = [
        lambda: HTTPResponse("", headers=[("Location", text)]),
        lambda: HTTPResponse("", headers=[("Set-Cookie", f"a={text}")]),
        lambda: HTTPResponse("", headers=[(f"X{text}", "a")]),
        lambda: raise_refusal(text),
    ]
    arena = hostile(on_http_request=lambda request: attempts[0]())
    while attempts:
        peer = arena.request([plain()])
        answer = arena.expect_refusal(peer, 500)
        assert text not in answer.head
        assert "Injected" not in answer.head
        assert answer.body == "internal error\n"
        assert len(logged) == 1
        logged.clear()
        attempts.pop(0)


def raise_refusal(text: str) -> HTTPResponse:
    raise HandshakeError(403, "no", [("X", text)])


@pytest.mark.parametrize("name", SPLITTERS)
def test_a_client_cannot_be_made_to_split_its_request(hostile: Besiege, name: str) -> None:
    arena = hostile()
    with pytest.raises(ValueError, match="forbidden character"):
        connect(arena.stage.reactor, "ws://a/", Recorder, headers=[("X", SPLITTERS[name])])
    arena.check()


LOUD = {
    "H36-escapes": b"GET / HTTP/1.1\r\nHost: \x1b[2J\r\n\r\n",
    "H36-line-in-a-method": b"\x1b]0;x\x07\r\n",
    "H36-long-target": b"GET /" + b"x" * 8_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "H36-long-agent": plain()[:-2] + b"User-Agent: " + b"x" * 8_000 + b"\r\n\r\n",
    "H36-percent-lines": b"GET /%0d%0aX HTTP/1.1\r\nHost: a\r\n\r\n",
    "H36-high-bytes": plain()[:-2] + b"User-Agent: \x9b2J\r\n\r\n",
}


@pytest.mark.parametrize("name", LOUD)
def test_nothing_that_is_logged_is_long_or_a_control(
    hostile: Besiege, name: str, logged: list[logging.LogRecord]
) -> None:
    """With a hook that raises, so that the request itself is named in the log."""

    def fail(request: Request) -> HTTPResponse:
        raise RuntimeError("secret")

    arena = hostile(on_http_request=fail)
    peer = arena.request([LOUD[name]])
    (line,) = {record.getMessage() for record in logged} | set(arena.log.lines)
    assert len(line) <= 300
    assert line.isprintable()
    assert line.isascii()
    arena.log.lines.clear()
    status = int(peer.sock.inbox[9:12])
    assert status in {400, 500}
    assert "secret" not in arena.expect_refusal(peer, status).body


MISTAKES: dict[str, Callable[[Request], Any]] = {
    "H38-raises": lambda request: 1 // 0,
    "H38-returns-bytes": lambda request: b"ann",
    "H38-returns-a-number": lambda request: 7,
    "H38-refuses-with-no-status": lambda request: raise_status(99),
    "H38-refuses-with-success": lambda request: raise_status(101),
}


def raise_status(status: int) -> None:
    raise HandshakeError(status, "odd")


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_of_authenticate_is_told_to_nobody(
    hostile: Besiege, name: str, logged: list[logging.LogRecord]
) -> None:
    hooks: list[Callable[[Request], Any]] = []

    def authenticate(request: Request) -> Any:
        # The healthy client comes first, and without a mistake.
        return hooks[0](request) if hooks else None

    arena = hostile(authenticate=authenticate)
    hooks.append(MISTAKES[name])
    peer = arena.request([good() + HELLO])
    answer = arena.expect_refusal(peer, 500)
    assert answer.body == "internal error\n"
    assert len(logged) == 1


@pytest.mark.parametrize("end", PROBES.values(), ids=["H38-leaves-close", "H38-leaves-reset"])
def test_a_client_may_leave_while_its_hook_runs(
    hostile: Besiege, end: Callable[[MemorySocket], object]
) -> None:
    leaving: list[Peer] = []

    def authenticate(request: Request) -> str | None:
        for peer in leaving:
            end(peer.sock)
        return None

    arena = hostile(authenticate=authenticate)
    peer = arena.stranger()
    leaving.append(peer)
    peer.send_bytes(good() + HELLO)
    arena.stage.settle()
    offender = arena.last(peer)
    # A choice: it was opened before anything could tell that the stream is gone.
    assert offender.connection.cause in {Cause.PEER_RESET, Cause.PEER_EOF, Cause.TRANSPORT_ERROR}
    arena.expect_over(offender, offender.connection.cause, 1006)


# --- numbers ----------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """Connections that are allowed, one that is too many, and the status for that."""

    name: str
    allowed: list[str]
    too_many: str
    status: int
    options: dict[str, Any]


ALONE: dict[str, Any] = {"limits": Limits(max_connections_per_ip=1)}

CROWDS = [
    Crowd("H39-connection-129", [OFFENDER] * 128, OFFENDER, 429, {}),
    Crowd("H39-connection-max+1", ["203.0.113.1", "203.0.113.2"], OFFENDER, 503,
          {"limits": Limits(max_connections=3)}),
    Crowd("H39-handshake-65", [OFFENDER] * 64, OFFENDER, 429, {"handshakes_per_minute": 64.0}),
    Crowd("H41-mapped", [OFFENDER], f"::ffff:{OFFENDER}", 429, ALONE),
    Crowd("H41-mapped-in-hexadecimal", [OFFENDER], "::ffff:cb00:7107", 429, ALONE),
    Crowd("H41-one-/64", ["2001:db8::1"], "2001:db8::ffff:1:2", 429, ALONE),
    Crowd("H41-other-/64", ["2001:db8:0:1::1", "2001:db8:0:2::1"], "2001:db8:0:1::9", 429, ALONE),
    Crowd("H41-300-of-one-/64", [f"2001:db8::{n:x}" for n in range(128)], "2001:db8::12b", 429,
          {}),
]  # fmt: skip


@pytest.mark.parametrize("row", CROWDS, ids=lambda row: row.name)
def test_one_too_many_is_refused_and_the_others_stay(hostile: Besiege, row: Crowd) -> None:
    arena = hostile(**row.options)
    guests = []
    for host_name in row.allowed:
        peer = arena.request([good()], host_name)
        assert read_head(peer).startswith("HTTP/1.1 101 ")
        guests.append(arena.last(peer))
    arena.stage.settle()
    crowded = arena.measure()
    peer = arena.stranger(row.too_many)
    answer = read_answer(peer)
    assert answer.status == row.status
    assert 0 < int(header(answer.head, "Retry-After") or 0) <= 60
    peer.sock.end()
    arena.stage.settle()
    assert arena.measure() == crowded
    assert all(guest.connection.is_open for guest in guests)
    # Each in another way; and the counters are exact.
    for number, guest in enumerate(guests):
        (guest.peer.sock.end, guest.peer.sock.reset, guest.peer.close)[number % 3]()
    arena.stage.settle()
    arena.log.lines.clear()
    arena.check()


FORWARDED = {
    "H40-X-Forwarded-For": "X-Forwarded-For: 198.51.100.1",
    "H40-chain": "X-Forwarded-For: 198.51.100.1, 203.0.113.7, junk",
    "H40-Forwarded": "Forwarded: for=198.51.100.1;proto=https",
    "H40-junk": 'X-Forwarded-For: ,,"x", ::::',
    "H40-500-entries": "X-Forwarded-For: " + ", ".join(["1.2.3.4"] * 500),
    "H40-X-Real-IP": "X-Real-IP: 198.51.100.1",
}


@pytest.mark.parametrize("name", FORWARDED)
def test_what_a_header_says_of_the_address_is_ignored(hostile: Besiege, name: str) -> None:
    """No proxy is ever trusted: the limits and ``remote_address`` go by the socket."""
    arena = hostile(limits=Limits(max_connections_per_ip=1))
    peer = arena.request([good(FORWARDED[name])])
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    guest = arena.last(peer)
    assert guest.connection.remote_address == (OFFENDER, 50_000)
    second = arena.request([good("X-Forwarded-For: 198.51.100.2")])
    assert read_answer(second).status == 429
    second.sock.end()
    arena.stage.settle()
    arena.log.lines.clear()
    arena.expect_open(guest, [])


# --- accepting --------------------------------------------------------------------------------


def test_h43_a_storm_of_connections_is_taken_in_batches(hostile: Besiege, stage: Stage) -> None:
    listener = MemoryListener(stage)
    limits = Limits(max_connections=501, max_connections_per_ip=None, max_sessions_per_ip=None)
    arena = hostile(sockets=[as_socket(listener)], limits=limits)
    peers = [listener.connect() for _ in range(1_000)]
    turns = 0
    while listener.backlog:
        before = arena.server.statistics().accepted
        arena.healthy.send_frame(Opcode.PING, b"now?")
        stage.clock.now += 0.1
        stage.reactor.run_once(0)
        assert arena.healthy.receive() == [(Opcode.PONG, b"now?")]
        assert arena.server.statistics().accepted - before <= ACCEPT_BATCH
        turns += 1
    assert turns == -(-1_000 // ACCEPT_BATCH)
    stage.settle()
    statuses = [read_head(peer)[9:12] for peer in peers]
    assert statuses == ["101"] * 500 + ["503"] * 500
    for peer in peers:
        peer.sock.end()
    stage.settle()
    # I4: one line for the 500 that were refused, none for the others.
    assert len(arena.log.lines) == 1
    arena.log.lines.clear()
    arena.check()


ACCEPT_ERRORS = {
    "H44-ECONNABORTED": (errno.ECONNABORTED, False),
    "H44-EPERM": (errno.EPERM, False),
    "H44-EINTR": (errno.EINTR, False),
    "H44-EMFILE": (errno.EMFILE, True),
    "H44-ENFILE": (errno.ENFILE, True),
    "H44-ENOBUFS": (errno.ENOBUFS, True),
    "H44-ENOMEM": (errno.ENOMEM, True),
}


@pytest.mark.parametrize("name", ACCEPT_ERRORS)
def test_accept_may_fail(
    hostile: Besiege, stage: Stage, name: str, logged: list[logging.LogRecord]
) -> None:
    """A real lack of descriptors is in ``test_listener.py``, in a process of its own."""
    number, is_exhaustion = ACCEPT_ERRORS[name]
    listener = MemoryListener(stage)
    arena = hostile(sockets=[as_socket(listener)])
    listener.fail("accept", OSError(number, os.strerror(number)))
    waiting = [listener.connect() for _ in range(80)]
    stage.settle()
    calls = listener.calls["accept"]
    arena.check_healthy()
    # Nothing spins: what waits is not tried again before the pause is over.
    assert listener.calls["accept"] - calls <= (0 if is_exhaustion else 1)
    # What is closed unread is reset; that is what the kernel does, too.
    shed = [peer for peer in waiting if peer.sock.is_reset]
    if is_exhaustion:
        assert len(shed) == ACCEPT_BATCH
        assert [record.levelname for record in logged] == ["ERROR"]
        late = listener.connect()
        stage.settle()
        assert late.sock.take() == b""
        stage.pass_time(1.1)
        assert read_head(late).startswith("HTTP/1.1 101 ")
    else:
        assert shed == []
        assert logged == []
    served = [peer for peer in waiting if peer not in shed]
    assert all(read_head(peer).startswith("HTTP/1.1 101 ") for peer in served)
    for peer in [*served, *([late] if is_exhaustion else [])]:
        peer.sock.end()
    stage.settle()
    arena.check()
