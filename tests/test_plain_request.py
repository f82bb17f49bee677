"""The straight path of reading a request, held against the reader and the parser with the rules."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from websocket import speedups
from websocket.errors import HandshakeError
from websocket.head_reader import HeadReader
from websocket.http11 import Request, parse_request
from websocket.limits import Limits
from websocket.plain_request import read_plain_request, split_plain_head_pure

LIMITS = Limits()
SMALL = Limits(max_request_line=160, max_header_line=160, max_header_count=6, max_head_size=164)

SHORT = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
LIBRARY = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BROWSER = (
    b"GET /rooms/5?as=guest&of=%41 HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n"
    b"Pragma: no-cache\r\nCache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (Linux x86_64)\r\n"
    b"Upgrade: websocket\r\nOrigin: https://example.com\r\nSec-WebSocket-Version: 13\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: theme=dark;\tname=\xe9 \r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
HEADS = [SHORT, LIBRARY, BROWSER]
# What a head is made of, and what breaks one.
PIECES = [
    *(bytes([octet]) for octet in b"\r\n \t:/.%\\?#&\x00\x7f\x80\xff0a"),
    *(b"\r\n", b"//", b"/..", b"%00", b"\r\n\r\n", b"GET ", b"HEAD", b" HTTP/1.0", b"\r\n x\r\n"),
    *(b"Host: b\r\n", b"host:\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
]

Parts = tuple[object, ...]

needs_the_accelerator = pytest.mark.skipif(
    speedups.split_plain_head is None, reason="the accelerator is not in use"
)


def parts_of(request: Request, leftover: bytes) -> Parts:
    names = ("method", "target", "path", "query", "http_version", "authority")
    return (*(getattr(request, name) for name in names), list(request.headers), leftover)


def read_by_the_rules(data: bytes, limits: Limits) -> Parts | None:
    """Return what the reader and the parser make of it; None when it is refused or incomplete."""
    reader = HeadReader(limits)
    try:
        head = reader.feed(data)
        return None if head is None else parts_of(parse_request(head), reader.leftover)
    except HandshakeError:
        return None


def check(data: bytes, limits: Limits = LIMITS) -> bool:
    """Check that what is taken is read as by the rules; tell whether it is taken."""
    plain = read_plain_request(data, limits)
    if plain is None:
        return False
    assert parts_of(*plain) == read_by_the_rules(data, limits)
    return True


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Yield heads, each broken in a place or two, or made another good one."""
    source = random.Random(seed)
    for _ in range(count):
        data = bytearray(source.choice(HEADS))
        for _ in range(source.randint(1, 2)):
            at = source.randrange(len(data))
            data[at : at + source.randint(0, 2)] = source.choice(PIECES)
        yield bytes(data)


@pytest.mark.parametrize("head", HEADS, ids=["short", "library", "browser"])
@pytest.mark.parametrize("trailing", [b"", b"\x81\x00", b"\r\n\r\n"])
def test_the_usual_heads_take_the_straight_path(head: bytes, trailing: bytes) -> None:
    assert check(head + trailing)


@pytest.mark.parametrize("head", HEADS, ids=["short", "library", "browser"])
def test_what_is_incomplete_is_left_alone(head: bytes) -> None:
    for size in range(len(head)):
        assert read_plain_request(head[:size], LIMITS) is None


@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["default", "small"])
def test_whatever_is_taken_is_what_the_rules_make_of_it(limits: Limits) -> None:
    assert sum(check(data, limits) for data in mutants(9112, 6_000)) > 200


@needs_the_accelerator
def test_both_ways_split_the_same() -> None:
    assert speedups.split_plain_head is not None
    taken = 0
    for data in mutants(9110, 6_000):
        size = data.find(b"\r\n\r\n") + 4
        if size >= 4:
            parts = speedups.split_plain_head(data, size)
            assert parts == split_plain_head_pure(data, size)
            taken += parts is not None
    assert taken > 200


@needs_the_accelerator
@pytest.mark.parametrize("octet", range(256))
def test_both_ways_judge_each_octet_the_same(octet: int) -> None:
    assert speedups.split_plain_head is not None
    for place in (b"/a", b"?", b"q=1", b"Nam", b"me:", b": v", b"valu"):
        head = b"GET /a?q=1 HTTP/1.1\r\nName: value\r\n\r\n"
        at = head.index(place) + len(place)
        data = head[:at] + bytes([octet]) + head[at:]
        parts = speedups.split_plain_head(data, len(data))
        assert parts == split_plain_head_pure(data, len(data))


@needs_the_accelerator
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((LIBRARY,), TypeError),
        ((LIBRARY, 4, 5), TypeError),
        ((bytearray(LIBRARY), 4), TypeError),
        ((LIBRARY, "4"), TypeError),
        ((LIBRARY, 1), ValueError),
        ((LIBRARY, -1), ValueError),
        ((LIBRARY, len(LIBRARY) + 1), ValueError),
    ],
)
def test_the_accelerator_reads_nothing_but_a_head_in_bytes(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    assert speedups.split_plain_head is not None
    with pytest.raises(error):
        speedups.split_plain_head(*arguments)


@pytest.mark.parametrize(
    "field", ["max_request_line", "max_header_line", "max_head_size", "max_header_count"]
)
def test_no_limit_is_passed_by(field: str) -> None:
    taken = [check(LIBRARY, LIMITS.replace(**{field: limit})) for limit in range(1, 200)]
    assert taken == sorted(taken)
    assert not taken[0]
    assert taken[-1]


def test_compact_headers_are_read_again_when_asked_for() -> None:
    plain = read_plain_request(BROWSER, LIMITS)
    assert plain is not None
    request, _ = plain
    before = parts_of(request, b""), request.cookies, request.query_parameters
    request.compact()
    assert (parts_of(request, b""), request.cookies, request.query_parameters) == before
    assert request.cookies == {"theme": "dark", "name": "\xe9"}
