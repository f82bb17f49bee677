"""The checks of the opening handshake: heads of requests and responses, judged and answered.

What is accepted is answered, and the answer read by the other side's code; what is refused must
be refused with a documented status, and the refusal be a response that can be read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from fuzzing.properties import mostly_first, require, require_equal, same_for_every_split
from websocket.errors import HandshakeError
from websocket.handshake import Upgrader, accept_response, is_upgrade, refusal
from websocket.handshake_client import judge_response
from websocket.head_reader import HeadReader
from websocket.headers import Headers, is_token
from websocket.http11 import Request, Response, build_head, parse_request, parse_response
from websocket.limits import Limits

# Small enough for inputs to cross every one.
LIMITS = Limits(max_request_line=300, max_header_line=250, max_header_count=14, max_head_size=600)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OFFERED = ("chat.v2", "chat.v1")

_POLICIES = (
    Upgrader(OFFERED),
    Upgrader(OFFERED, allowed_origins=None, allowed_hosts=["example.com", "[::1]:8080"]),
    Upgrader(
        ["webos"],
        allowed_origins=["https://example.com", "http://[::1]:8080"],
        require_origin=True,
        strict_http=True,
    ),
)
# RFC 9112, 5, and RFC 9110, 5.6.2 and 5.5.
_FIELD_LINE = re.compile(rb"[!#-'*+\-.^-z|~A-Z0-9]+:[\t\x20-\x7e\x80-\xff]*")
_READER_STATUSES = {400, 414, 431}
_PARSER_STATUSES = {400, 505}
_JUDGE_STATUSES = {400, 403, 405, 426}

_METHODS = ("GET", "HEAD", "POST", "get", "CONNECT", "M-SEARCH", "")
_TARGETS = (
    "/chat?room=1",
    "/",
    "/a/%2e%2e/b",
    "http://example.com/x",
    "*",
    "//a",
    "/%",
    "/a;b=c?d=%00&e&f=%ff#g",
    "example.com:80",
)
_VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.11", "http/1.1")
# The first value of each is right.
_REQUEST_FIELDS = (
    ("Host", ("example.com", "[::1]:8080", "example.com:443", "a,b", "")),
    ("Upgrade", ("websocket", "WebSocket", "h2c, websocket", "websockets")),
    ("Connection", ("Upgrade", "keep-alive, Upgrade", "close")),
    ("Sec-WebSocket-Key", (KEY, "dGhlIHNhbXBsZSBub25jZR==", "")),
    ("Sec-WebSocket-Version", ("13", "8", "13, 8")),
    ("Origin", ("http://example.com", "https://example.com", "null", "http://[::1]:8080")),
    ("Sec-WebSocket-Protocol", ("chat.v1, chat.v2", "webos", "a, a", ",")),
    ("Sec-WebSocket-Extensions", ("permessage-deflate; client_max_window_bits", "x;", ' x;y="z"')),
)
_RESPONSE_FIELDS = (
    ("Upgrade", ("websocket", "WebSocket", "h2c")),
    ("Connection", ("Upgrade", "upgrade, close", "close")),
    ("Sec-WebSocket-Accept", (ACCEPT, ACCEPT.lower(), "")),
    ("Sec-WebSocket-Protocol", ("chat.v1", "chat.v3", "chat.v1, chat.v2")),
)
_MORE_FIELDS = (
    "Cookie: session=0123456789; theme=dark",
    'Cookie: a="b"; c; =d; session=second',
    "Content-Length: 0",
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Host: second.example",
    "Sec-WebSocket-Key: again",
    "X-Latin: \xe9\xff",
    "X-Tab:\tv \t",
    " folded: line",
    "Space : before",
    "no colon",
    ": no name",
    "X-Long: " + "y" * 240,
    "Set-Cookie: session=abc; Path=/",
    "Sec-WebSocket-Protocol: chat.v1",
    "Sec-WebSocket-Extensions: permessage-deflate",
)
_TLS_CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
_BEHIND = (b"", b"\x81\x85\x00\x00\x00\x00Hello", b"GET / HTTP/1.1\r\n\r\n", b"\r\n")

DICTIONARY = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b": ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    _TLS_CLIENT_HELLO,
    b"http://",
    b"%2e%2e/",
    b"%00",
    b"x" * 250,
    *(f"{name}: {value}\r\n".encode() for name, values in _REQUEST_FIELDS for value in values),
    *(f"{name}: {value}\r\n".encode() for name, values in _RESPONSE_FIELDS for value in values),
    *(f"{line}\r\n".encode("latin-1") for line in _MORE_FIELDS),
)

TARGET_DICTIONARY = (
    *(target.encode() for target in _TARGETS),
    *(b"/.", b"/..", b"%2e", b"%2F", b"%5c", b"%0d%0a", b"%C0%AE", b"\\", b";", b"?", b"&", b"="),
    *(b"#", b"@", b"[::1]", b":65536", b"HTTPS://", b" HTTP/1.1\r\nHost: b", b"a&" * 60),
)

COOKIE_DICTIONARY = (
    *(b"session=", b"; ", b";", b"=", b'"', b'""', b",", b"\\", b"\t", b"\xe9", b"$Version=1"),
    *(b"\r\nCookie: ", b"__Host-id=", b"a=b"),
)


# --- generators ---------------------------------------------------------------------------------


def generate_request(source: random.Random) -> bytes:
    """Return a request, most times a right one, and what may stand behind it."""
    if source.random() < 0.01:
        return _TLS_CLIENT_HELLO
    method, target = mostly_first(source, _METHODS), mostly_first(source, _TARGETS)
    first_line = f"{method} {target} {mostly_first(source, _VERSIONS)}"
    head = _generate_head(source, first_line, _REQUEST_FIELDS)
    return (b"\r\n" if source.random() < 0.1 else b"") + head


def generate_response(source: random.Random) -> bytes:
    """Return a response, most times a right one, and what may stand behind it."""
    status = mostly_first(source, ("101 Switching Protocols", "101 ", "101", "403 No", "99 x"))
    first_line = f"{mostly_first(source, _VERSIONS)} {status}"
    return _generate_head(source, first_line, _RESPONSE_FIELDS)


def _generate_head(
    source: random.Random, first_line: str, fields: Sequence[tuple[str, Sequence[str]]]
) -> bytes:
    lines = [
        f"{name}: {mostly_first(source, values)}"
        for name, values in fields
        if source.random() < 0.95
    ]
    while source.random() < 0.4:
        lines.append(source.choice(_MORE_FIELDS))
    if source.random() < 0.2:
        source.shuffle(lines)
    if source.random() < 0.1:
        lines = ["Host: a", *["A: b"] * source.randint(10, 16)]
    text = "".join(f"{line}\r\n" for line in [first_line, *lines, ""])
    return text.encode("latin-1") + mostly_first(source, _BEHIND)


def generate_target(source: random.Random) -> bytes:
    """Return a request target."""
    words = source.choices(TARGET_DICTIONARY, k=source.randint(0, 3))
    return source.choice(_TARGETS).encode() + b"".join(words)


def generate_cookies(source: random.Random) -> bytes:
    """Return the value of a Cookie field."""
    return b"; ".join(
        mostly_first(source, (b"session", b"a b", b"")) + b"=" + source.choice(COOKIE_DICTIONARY)
        for _ in range(source.randint(1, 4))
    )


# --- checks -------------------------------------------------------------------------------------


def check_request(data: bytes) -> None:
    """Read a request, judge it by several policies, and answer it."""
    outcome = same_for_every_split(lambda pieces: _read_head(pieces, is_response=False), data)
    head = _head_of(outcome, data, _READER_STATUSES)
    if head is None:
        return
    request = _parse_request(head)
    if request is None:
        return
    _check_round_trip(request)
    is_upgrade(request)
    for policy in _POLICIES:
        _check_judgement(policy, request)


def check_response(data: bytes) -> None:
    """Read a response and judge it as the client does."""
    outcome = same_for_every_split(lambda pieces: _read_head(pieces, is_response=True), data)
    head = _head_of(outcome, data, {0})
    if head is None:
        return
    try:
        response = parse_response(head)
    except HandshakeError as error:
        require_equal("the status of what is no response", error.status, 0)
        return
    _check_lines(head)
    line = f"HTTP/{response.http_version} {response.status} {response.reason}"
    again = parse_response(build_head(line, response.headers))
    require_equal("the fields, written and read", list(again.headers), list(response.headers))
    require_equal("the response, written and read", repr(again), repr(response))
    try:
        subprotocol = judge_response(response, KEY, OFFERED)
    except HandshakeError as error:
        require_equal("the status of a failure", error.status, response.status)
    else:
        require_equal("the status", response.status, 101)
        require_equal("the proof", response.headers.get_all("sec-websocket-accept"), [ACCEPT])
        require(subprotocol in (None, *OFFERED), "a subprotocol was agreed on, but not offered")


def check_target(data: bytes) -> None:
    """Read a request target: path, query, authority."""
    request = _parse_request(b"GET " + data + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    if request is not None:
        _check_round_trip(request)


def check_cookies(data: bytes) -> None:
    """Read cookies; what is read can be sent again."""
    request = _parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + data + b"\r\n\r\n")
    if request is None:
        return
    cookies = request.cookies
    pairs = set()
    for line in request.headers.get_all("cookie"):
        for name, _, text in (pair.partition("=") for pair in line.split(";")):
            pairs.add((name.strip(" \t"), text.strip(" \t")))
    for name, text in cookies.items():
        require(is_token(name), "the name of a cookie is no token")
        require({(name, text), (name, f'"{text}"')} & pairs, "a cookie was never sent")
    value = "; ".join(f'{name}="{value}"' for name, value in cookies.items())
    head = build_head("GET / HTTP/1.1", [("Host", "a"), ("Cookie", value)])
    require_equal("the cookies, written and read", parse_request(head).cookies, cookies)


def _read_head(pieces: Sequence[bytes], *, is_response: bool) -> tuple[Any, ...]:
    """Return what the reader finds: an error, or the head and what stands behind it."""
    reader = HeadReader(LIMITS, is_response)
    for index, piece in enumerate(pieces):
        try:
            head = reader.feed(memoryview(piece))
        except HandshakeError as error:
            return type(error).__name__, error.status, error.message
        if head is not None:
            return head, reader.leftover + b"".join(pieces[index + 1 :])
    return ()


def _head_of(outcome: tuple[Any, ...], data: bytes, statuses: set[int]) -> bytes | None:
    """Return the head that was found, None when there is none."""
    if not outcome:
        return None
    if len(outcome) == 3:
        require(outcome[1] in statuses, f"{outcome} is not documented")
        return None
    head, rest = outcome
    assert isinstance(head, bytes)
    require(data in (head + rest, b"\r\n" + head + rest), "head and rest are not the input")
    require_equal("the first empty line", head.find(b"\r\n\r\n"), len(head) - 4)
    return head


def _parse_request(head: bytes) -> Request | None:
    """Return the request of a head, None for one that is refused as documented."""
    try:
        request = parse_request(head)
    except HandshakeError as error:
        require(error.status in _PARSER_STATUSES, f"status {error.status} is not documented")
        _check_refusal(error, None)
        return None
    _check_lines(head)
    _check_path(request.path)
    try:
        require(isinstance(request.query_parameters, dict), "the query is no dictionary")
    except HandshakeError as error:
        require_equal("the status of a long query", error.status, 400)
    require(isinstance(request.cookies, dict), "the cookies are no dictionary")
    return request


def _check_lines(head: bytes) -> None:
    """Hold the field lines of a head that was accepted against the grammar, one by one."""
    _, *lines = head[:-4].split(b"\r\n")
    require(all(map(_FIELD_LINE.fullmatch, lines)), "what is no field line was accepted")


def _check_path(path: str) -> None:
    """Hold a path against what the docstring of ``Request`` promises."""
    decoded = unquote_to_bytes(path)
    require(path[:1] == "/" and path[:2] != "//", "a path begins with one slash")
    require(not {b".", b".."} & set(decoded.split(b"/")), "a path leads out of its folder")
    require(min(decoded) >= 0x20 and b"\x7f" not in decoded, "a path holds a control character")
    require(b"\\" not in decoded, "a path holds a backslash")


def _check_round_trip(request: Request) -> None:
    """Write a request that was read, and read it again."""
    line = f"{request.method} {request.target} HTTP/{request.http_version}"
    again = parse_request(build_head(line, request.headers))
    for name in ("method", "target", "path", "query", "http_version", "authority", "cookies"):
        require_equal(f"the {name}, read again", getattr(again, name), getattr(request, name))
    require_equal("the fields, read again", list(again.headers), list(request.headers))


def _check_judgement(policy: Upgrader, request: Request) -> None:
    """Judge a request; the client must agree with the answer."""
    try:
        upgrade = policy.judge(request)
    except HandshakeError as error:
        require(error.status in _JUDGE_STATUSES, f"status {error.status} is not documented")
        _check_refusal(error, request)
        return
    headers = request.headers
    keys = headers.get_all("sec-websocket-key")
    require_equal("the number of keys", len(keys), 1)
    require_equal("the method", request.method, "GET")
    require_equal("the version", headers.get_all("sec-websocket-version"), ["13"])
    require("websocket" in _elements(headers, "upgrade"), "no upgrade was asked for")
    require("upgrade" in _elements(headers, "connection"), "the connection is not to be upgraded")
    offered = _elements(headers, "sec-websocket-protocol", is_lower=False)
    response, rest = _read_answer(accept_response(upgrade))
    chosen = judge_response(response, keys[0], offered)
    require_equal("the subprotocol that the client sees", chosen, upgrade.subprotocol)
    require_equal("what stands behind the answer", rest, b"")


def _elements(headers: Headers, name: str, *, is_lower: bool = True) -> list[str]:
    """Return the elements of a list that may stand in several fields."""
    text = ",".join(headers.get_all(name))
    return [element.strip(" \t") for element in (text.lower() if is_lower else text).split(",")]


def _check_refusal(error: HandshakeError, request: Request | None) -> None:
    """Read a refusal as a client does."""
    response, body = _read_answer(refusal(error, request))
    require_equal("the status of the refusal", response.status, error.status)
    if request is None or request.method != "HEAD":
        length = response.headers.get("content-length")
        require_equal("the length of the refusal", length, str(len(body)))


def _read_answer(answer: bytes) -> tuple[Response, bytes]:
    reader = HeadReader(Limits(), is_response=True)
    head = reader.feed(answer)
    require(head is not None, "an answer has no end")
    assert head is not None
    return parse_response(head), reader.leftover
