"""Heads of HTTP/1.1: found, judged and written; each test is named by its row of hostile inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from splits import every_split
from sweeps import rounds

from websocket.errors import HandshakeError
from websocket.head_reader import HeadReader, TlsClientHello
from websocket.headers import Headers
from websocket.http11 import (
    MAX_QUERY_PARAMETERS,
    Request,
    Response,
    build_fields,
    build_head,
    build_response,
    parse_request,
    parse_response,
)
from websocket.limits import Limits

LIMITS = Limits()
SMALL = Limits(max_request_line=40, max_header_line=30, max_header_count=4, max_head_size=100)

Parsed = TypeVar("Parsed", Request, Response)


def read(
    pieces: list[bytes], limits: Limits = LIMITS, is_response: bool = False
) -> tuple[bytes | None, bytes]:
    """Return the head and all that follows it."""
    reader = HeadReader(limits, is_response)
    for index, piece in enumerate(pieces):
        head = reader.feed(memoryview(piece))
        if head is not None:
            return head, reader.leftover + b"".join(pieces[index + 1 :])
    return None, b""


def error_of(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(HandshakeError) as caught:
        call()
    return caught.value.status, caught.value.message


def read_error(data: bytes, limits: Limits = LIMITS, is_response: bool = False) -> tuple[int, str]:
    """Return the one outcome of all splits."""
    outcomes = {
        error_of(partial(read, pieces, limits, is_response)) for pieces in every_split(data)
    }
    assert len(outcomes) == 1
    return outcomes.pop()


def request(line: str = "GET / HTTP/1.1", fields: str = "Host: a\r\n") -> Request:
    return parse_request(f"{line}\r\n{fields}\r\n".encode("latin-1"))


# --- HeadReader -------------------------------------------------------------------------------

HEAD = b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\n\r\n"
BARE = b"GET / HTTP/1.0\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("trailing", [b"", b"\x81\x00", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n" * 3])
@pytest.mark.parametrize("head", [HEAD, POST, BARE], ids=["GET", "POST", "no-fields"])
def test_a_head_is_found_however_it_is_split(head: bytes, trailing: bytes) -> None:
    for pieces in every_split(head + trailing):
        assert read(pieces) == (head, trailing)


def test_a_response_head_is_found_however_it_is_split() -> None:
    for pieces in every_split(ANSWER + b"\x81\x00"):
        assert read(pieces, is_response=True) == (ANSWER, b"\x81\x00")


def test_one_empty_line_before_the_request_is_ignored() -> None:
    """H29."""
    for pieces in every_split(b"\r\n" + HEAD + b"x"):
        assert read(pieces) == (HEAD, b"x")


def test_nothing_is_returned_while_the_head_is_incomplete() -> None:
    for end in range(len(HEAD)):
        for pieces in every_split(HEAD[:end], random_splits=2):
            assert read(pieces) == (None, b"")
    assert HeadReader(LIMITS).feed(b"") is None


def test_any_kind_of_bytes_is_taken_and_copied() -> None:
    data = bytearray(HEAD[:10])
    reader = HeadReader(LIMITS)
    assert reader.feed(data) is None
    data[:] = b"x" * 10
    assert reader.feed(HEAD[10:]) == HEAD


REQUEST_LINE = b"GET /%b HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        pytest.param(
            REQUEST_LINE % (b"x" * 8_179) + b"\r\n",
            414,
            "the first line is longer than 8192 bytes",
            id="H04-8193",
        ),
        pytest.param(
            b"GET /" + b"x" * 20_000, 414, "the first line is longer than 8192 bytes", id="H04-20k"
        ),
        pytest.param(
            b"G" * 9_000, 414, "the first line is longer than 8192 bytes", id="H04-method"
        ),
        pytest.param(
            HEAD[:-2] + b"x: " + b"y" * 8_190 + b"\r\n\r\n",
            431,
            "a header line is longer than 8192 bytes",
            id="H05-8193",
        ),
        pytest.param(
            HEAD[:-2] + b"x: " + b"y" * 15_000,
            431,
            "a header line is longer than 8192 bytes",
            id="H05-15k",
        ),
        pytest.param(
            HEAD[:-2] + b"x: y\r\n" * 99 + b"\r\n",
            431,
            "there are more than 100 header lines",
            id="H06-101",
        ),
        pytest.param(
            BARE[:-2] + b"a:b\r\n" * 2_000 + b"Upgrade: websocket\r\n\r\n",
            431,
            "there are more than 100 header lines",
            id="H06-2000",
        ),
        pytest.param(
            BARE[:-2] + (b"x: " + b"y" * 5_000 + b"\r\n") * 4 + b"\r\n",
            431,
            "the head is longer than 16384 bytes",
            id="H07-legal-lines",
        ),
        pytest.param(b"\x80", 400, "a request starts with a method", id="H10-garbage"),
        pytest.param(b" GET / HTTP/1.1", 400, "a request starts with a method", id="H10-space"),
        pytest.param(b"GE\x00", 400, "a request starts with a method", id="H10-NUL"),
        pytest.param(b"G@T /", 400, "a request starts with a method", id="H10-delimiter"),
        pytest.param(b"GET\t/ HTTP", 400, "a request starts with a method", id="H10-tab"),
        pytest.param(b"\n" + HEAD, 400, "a request starts with a method", id="H29-LF-first"),
        pytest.param(b"\rX", 400, "a request starts with a method", id="H29-CR-first"),
        pytest.param(
            b"\r\n\r\n" + HEAD, 400, "a request starts with a method", id="H29-two-empty-lines"
        ),
        pytest.param(
            b"\x16\x03\x01\x02\x00\x01",
            400,
            "TLS on a port without TLS: use ws://",
            id="H13-ClientHello",
        ),
        pytest.param(
            b"GET / HTTP/1.1\nHost: a\n\n", 400, "a line ends in LF without CR", id="H29-LF"
        ),
        pytest.param(
            HEAD[:-2] + b"a: b\nc: d\r\n\r\n", 400, "a line ends in LF without CR", id="H29-one-LF"
        ),
        pytest.param(HEAD[:-2] + b"\n", 400, "a line ends in LF without CR", id="H29-last-LF"),
    ],
)
def test_what_can_never_become_a_head_is_refused(data: bytes, status: int, message: str) -> None:
    assert read_error(data) == (status, message)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(REQUEST_LINE % (b"x" * 8_178) + b"Host: a\r\n\r\n", id="H04-8192"),
        pytest.param(BARE[:-2] + b"x: " + b"y" * 8_189 + b"\r\n\r\n", id="H05-8192"),
        pytest.param(BARE[:-2] + b"x: y\r\n" * 100 + b"\r\n", id="H06-100"),
        pytest.param(
            BARE[:-2] + b"x: " + b"y" * 8_000 + b"\r\nx: " + b"y" * 8_354 + b"\r\n\r\n",
            id="H07-16384",
        ),
    ],
)
def test_what_is_exactly_at_the_limit_passes(data: bytes) -> None:
    limits = LIMITS.replace(max_header_line=8_400) if len(data) > 16_000 else LIMITS
    for pieces in every_split(data + b"trailing", random_splits=4):
        assert read(pieces, limits) == (data, b"trailing")


def test_a_head_of_one_byte_more_than_the_limit_is_refused() -> None:
    """H07: to the byte, also when the last line would be the empty one."""
    limits = LIMITS.replace(max_head_size=len(HEAD))
    assert read([HEAD], limits) == (HEAD, b"")
    less = LIMITS.replace(max_head_size=len(HEAD) - 1)
    assert read_error(HEAD, less) == (431, f"the head is longer than {len(HEAD) - 1} bytes")


def test_reading_stops_at_the_limit() -> None:
    """H04, H08: the error comes with the first byte too many, not later."""
    reader = HeadReader(LIMITS)
    assert reader.feed(b"GET /" + b"x" * 8_187) is None
    assert reader.feed(b"\r") is None
    assert error_of(lambda: reader.feed(b"x"))[0] == 414


def test_tls_has_an_error_of_its_own() -> None:
    """H13: so that the caller can drop it at its first byte without an answer."""
    with pytest.raises(TlsClientHello):
        HeadReader(LIMITS).feed(b"\x16")


def test_a_head_of_the_largest_size_in_single_bytes_is_read() -> None:
    """H08: with work for the whole buffer at each byte this would not come to an end."""
    size = 300_000
    limits = Limits(max_header_line=size, max_head_size=size + 100)
    reader = HeadReader(limits)
    reader.feed(b"GET / HTTP/1.1\r\nx: ")
    for _ in range(size - 3):
        assert reader.feed(b"y") is None
    head = reader.feed(b"\r\n\r\n")
    assert head is not None
    assert len(head) == size + 20


def test_the_limits_do_not_depend_on_the_split() -> None:
    """Any stream, any split: the same head or the same error."""
    source = random.Random(8)
    pieces = [b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"\r\n", b"\n", b"\r", b"x" * 11, b"y: ", b"\x16"]
    pieces += [b"HTTP/1.1 101\r\n", b"GET "]
    outcomes = set()
    for seed in range(rounds(1_200, 12_000)):
        data = b"".join(source.choices(pieces, k=source.randint(1, 12)))
        is_response = source.random() < 0.3
        found = set()
        for split in every_split(data, random_splits=3, seed=seed):
            try:
                found.add(str(read(split, SMALL, is_response)))
            except HandshakeError as error:
                found.add(f"{error.status} {error.message}")
        assert len(found) == 1, (data, found)
        outcomes |= {outcome[:4] for outcome in found}
    assert {"414 ", "431 ", "400 ", "(b'G", "(Non", "(b'H"} <= outcomes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the server's answer is no HTTP: check port and scheme"),
        (b"HTTX", "the server's answer is no HTTP: check port and scheme"),
        (b"\x15\x03\x01", "the server's answer is no HTTP: check port and scheme"),
        (b"\r\n" + ANSWER, "the server's answer is no HTTP: check port and scheme"),
        (b"HTTP/1.1 200 " + b"x" * 9_000, "the first line is longer than 8192 bytes"),
        (ANSWER[:-2] + b"a: b\r\n" * 200, "there are more than 100 header lines"),
        (ANSWER[:-2] + b"\n", "a line ends in LF without CR"),
    ],
)
def test_an_answer_that_is_no_head_has_no_status(data: bytes, message: str) -> None:
    assert read_error(data, is_response=True) == (0, message)


# --- parse_request ----------------------------------------------------------------------------


def test_a_request_has_its_parts() -> None:
    found = request("GET /a/b%20c?d=e&f HTTP/1.1", "Host: Example.com:80\r\nX: \xe4\r\n")
    assert (found.method, found.target, found.http_version) == ("GET", "/a/b%20c?d=e&f", "1.1")
    assert (found.path, found.query) == ("/a/b%20c", "d=e&f")
    assert found.authority == ("example.com", 80)
    assert list(found.headers) == [("Host", "Example.com:80"), ("X", "\xe4")]
    assert repr(found) == "<Request GET /a/b%20c?d=e&f HTTP/1.1>"


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "TRACE", "get", "M" * 300, "!#$%&'*+-.^_`|~"]
)
def test_any_token_is_a_method(method: str) -> None:
    """H10: whether it is allowed is another question."""
    assert request(f"{method} / HTTP/1.1").method == method


METHOD = "a request starts with a method"
LINE = "a request line reads: method, target, HTTP/1.1, with single spaces between"
ASCII = "a request target is ASCII without spaces: percent-encode the rest"
VERSION = "only HTTP/1.0 and HTTP/1.1 are spoken here"
SLASH = "a request target begins with a slash"
TWO_SLASHES = "a path begins with one slash, not two"
PERCENT = "the path holds a percent sign without two hexadecimal digits"
CONTROL = "the path holds a control character or a backslash"
DOTS = "the path holds a segment . or ..: resolve it before asking"
HOST = "the host is malformed: not of the form host[:port]"
HOST_MISSING = "the Host header is missing"
BODY_LENGTH = "a request has no body here: leave Content-Length out"
BODY_CODING = "a request has no body here: leave Transfer-Encoding out"


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        pytest.param("G@T / HTTP/1.1", 400, METHOD, id="H10-bad-token"),
        pytest.param(" GET / HTTP/1.1", 400, METHOD, id="H10-space-first"),
        pytest.param("", 400, METHOD, id="H10-empty"),
        pytest.param("G\xc4T / HTTP/1.1", 400, METHOD, id="H10-non-ASCII"),
        pytest.param("GET / HTTP/2.0", 505, VERSION, id="H12-2.0"),
        pytest.param("GET / HTTP/0.9", 505, VERSION, id="H12-0.9"),
        pytest.param("GET / HTTP/1.2", 505, VERSION, id="H12-1.2"),
        pytest.param("PRI * HTTP/2.0", 505, VERSION, id="H12-preface"),
        pytest.param("GET / HTTP/1.1x", 400, LINE, id="H12-1.1x"),
        pytest.param("GET / HTTP/1.10", 400, LINE, id="H12-1.10"),
        pytest.param("GET / HTTP/11", 400, LINE, id="H12-11"),
        pytest.param("GET / http/1.1", 400, LINE, id="H12-lower-case"),
        pytest.param("GET / HTTP/\u00b9.1", 400, LINE, id="H12-superscript"),
        pytest.param("GET /", 400, LINE, id="H12-none"),
        pytest.param("GET", 400, LINE, id="H12-only-method"),
        pytest.param("GET  / HTTP/1.1", 400, LINE, id="two-spaces-before-target"),
        pytest.param("GET /  HTTP/1.1", 400, LINE, id="two-spaces-after-target"),
        pytest.param("GET / HTTP/1.1 ", 400, LINE, id="space-last"),
        pytest.param("GET\t/\tHTTP/1.1", 400, METHOD, id="tabs"),
        pytest.param("GET / a HTTP/1.1", 400, LINE, id="space-in-target"),
        pytest.param("GET /\x00 HTTP/1.1", 400, ASCII, id="H34-NUL"),
        pytest.param("GET /\r HTTP/1.1", 400, ASCII, id="H34-CR"),
        pytest.param("GET /\x80 HTTP/1.1", 400, ASCII, id="H34-0x80"),
        pytest.param("GET /?\xe4 HTTP/1.1", 400, ASCII, id="H34-0xe4-in-query"),
        pytest.param(
            "GET /a#b HTTP/1.1",
            400,
            "a request target has no fragment: percent-encode the number sign",
            id="H34-fragment",
        ),
        pytest.param("OPTIONS * HTTP/1.1", 400, SLASH, id="H34-asterisk"),
        pytest.param("CONNECT a:80 HTTP/1.1", 400, SLASH, id="H34-authority"),
        pytest.param("GET a/b HTTP/1.1", 400, SLASH, id="H34-relative"),
        pytest.param("GET ?a HTTP/1.1", 400, SLASH, id="H34-query-only"),
        pytest.param("GET ftp://a/ HTTP/1.1", 400, SLASH, id="H34-other-scheme"),
        pytest.param("GET ws://a/ HTTP/1.1", 400, SLASH, id="H34-ws-scheme"),
        pytest.param("GET //x HTTP/1.1", 400, TWO_SLASHES, id="H34-two-slashes"),
        pytest.param("GET http://a//x HTTP/1.1", 400, TWO_SLASHES, id="H34-absolute-two-slashes"),
        pytest.param("GET /%00 HTTP/1.1", 400, CONTROL, id="H34-%00"),
        pytest.param("GET /a%0d%0aB HTTP/1.1", 400, CONTROL, id="H34-%0d%0a"),
        pytest.param("GET /%7f HTTP/1.1", 400, CONTROL, id="H34-%7f"),
        pytest.param("GET /..\\a HTTP/1.1", 400, CONTROL, id="H34-backslash"),
        pytest.param("GET /a\\b HTTP/1.1", 400, CONTROL, id="H34-only-backslash"),
        pytest.param("GET /..%5ca HTTP/1.1", 400, CONTROL, id="H34-%5c"),
        pytest.param("GET /?a=%00 HTTP/1.1", 400, "the query holds a NUL", id="H34-%00-in-query"),
        pytest.param("GET /../a HTTP/1.1", 400, DOTS, id="H34-dots"),
        pytest.param("GET /a/.. HTTP/1.1", 400, DOTS, id="H34-dots-last"),
        pytest.param("GET /./a HTTP/1.1", 400, DOTS, id="H34-dot"),
        pytest.param("GET /%2e%2e/a HTTP/1.1", 400, DOTS, id="H34-%2e%2e"),
        pytest.param("GET /.%2E/a HTTP/1.1", 400, DOTS, id="H34-.%2E"),
        pytest.param("GET /a%2f..%2fb HTTP/1.1", 400, DOTS, id="H34-%2f"),
        pytest.param("GET /% HTTP/1.1", 400, PERCENT, id="H34-%"),
        pytest.param("GET /%4 HTTP/1.1", 400, PERCENT, id="H34-%4"),
        pytest.param("GET /%zz HTTP/1.1", 400, PERCENT, id="H34-%zz"),
        pytest.param("GET http:///a HTTP/1.1", 400, HOST, id="H34-absolute-no-host"),
        pytest.param("GET http://u@a/ HTTP/1.1", 400, HOST, id="H34-absolute-userinfo"),
        pytest.param("GET http://a:b/ HTTP/1.1", 400, HOST, id="H34-absolute-port"),
    ],
)
def test_a_bad_request_line_is_refused(line: str, status: int, message: str) -> None:
    assert error_of(lambda: request(line)) == (status, message)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/?", "/", ""),
        ("/a//b", "/a//b", ""),
        ("/.well-known/x", "/.well-known/x", ""),
        ("/a...b/c..", "/a...b/c..", ""),
        ("/%E4%2Fx", "/%E4%2Fx", ""),
        ("/a?/../?%zz\\", "/a", "/../?%zz\\"),
        ("/a|b{c}?d[]=^", "/a|b{c}", "d[]=^"),
        ("http://other:81/a?b", "/a", "b"),
        ("HTTPS://other:81?b", "/", "b"),
        ("http://OTHER:81", "/", ""),
    ],
)
def test_a_good_target_is_split_and_left_as_it_is(target: str, path: str, query: str) -> None:
    """H34: the authority of an absolute target wins over Host."""
    found = request(f"GET {target} HTTP/1.1")
    assert (found.target, found.path, found.query) == (target, path, query)
    assert found.authority == (("a", None) if target[0] == "/" else ("other", 81))


@pytest.mark.parametrize(
    ("version", "fields", "message"),
    [
        pytest.param("1.1", "", HOST_MISSING, id="H15-none"),
        pytest.param(
            "1.1",
            "Host: a\r\nhost: a\r\n",
            "there are several Host headers: send one",
            id="H15-two",
        ),
        pytest.param(
            "1.0",
            "Host: a\r\nHost: b\r\n",
            "there are several Host headers: send one",
            id="H15-1.0",
        ),
        pytest.param("1.1", "Host: a b\r\n", HOST, id="H15-space"),
        pytest.param("1.1", "Host: [::1\r\n", HOST, id="H15-bracket"),
        pytest.param("1.1", "Host: a, b\r\n", HOST, id="H15-list"),
        pytest.param("1.1", "Host: a,b\r\n", HOST, id="H15-comma"),
        pytest.param("1.1", "Host:\r\n", HOST, id="H15-empty"),
        pytest.param("1.1", "Host: \xe4\r\n", HOST, id="H15-non-ASCII"),
        pytest.param("1.1", "Host: u@a\r\n", HOST, id="H15-userinfo"),
        pytest.param("1.1", "Host: a/b\r\n", HOST, id="H15-path"),
        pytest.param(
            "1.1",
            "Host: a:70000\r\n",
            "the host is malformed: the port is above 65535",
            id="H15-port",
        ),
        pytest.param(
            "1.1",
            "Host: a\r\n b\r\n",
            "a header line starts with white space (line folding is obsolete)",
            id="H29-obs-fold",
        ),
        pytest.param(
            "1.1",
            "Host: a\r\nb\x00: c\r\n",
            "a header name holds a character that is not allowed there",
            id="H29-NUL",
        ),
        pytest.param(
            "1.1",
            "Host: a\r\nb: \r c\r\n",
            "a header value holds a control character",
            id="H29-bare-CR",
        ),
        pytest.param("1.1", "Host: a\r\nContent-Length: 5\r\n", BODY_LENGTH, id="H30-5"),
        pytest.param("1.1", "Host: a\r\nContent-Length: +0\r\n", BODY_LENGTH, id="H30-plus"),
        pytest.param("1.1", "Host: a\r\nContent-Length: 1_0\r\n", BODY_LENGTH, id="H30-underscore"),
        pytest.param("1.1", "Host: a\r\nContent-Length: \xb2\r\n", BODY_LENGTH, id="H30-digit"),
        pytest.param(
            "1.1", "Host: a\r\nContent-Length: \xd9\xa0\r\n", BODY_LENGTH, id="H30-Arabic-digit"
        ),
        pytest.param(
            "1.1",
            f"Host: a\r\nContent-Length: {'9' * 5_000}\r\n",
            BODY_LENGTH,
            id="H30-5000-digits",
        ),
        pytest.param("1.1", "Host: a\r\nContent-Length:\r\n", BODY_LENGTH, id="H30-empty"),
        pytest.param("1.1", "Host: a\r\nContent-Length: 0, 0\r\n", BODY_LENGTH, id="H30-list"),
        pytest.param(
            "1.1",
            "Host: a\r\nContent-Length: 0\r\ncontent-length: 0\r\n",
            BODY_LENGTH,
            id="H30-two",
        ),
        pytest.param("1.1", "Host: a\r\nTransfer-Encoding: chunked\r\n", BODY_CODING, id="H30-TE"),
        pytest.param("1.0", "Transfer-Encoding: identity\r\n", BODY_CODING, id="H30-TE-1.0"),
        pytest.param(
            "1.1",
            "Host: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            BODY_CODING,
            id="H30-both",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bad_fields_are_refused(method: str, version: str, fields: str, message: str) -> None:
    assert error_of(lambda: request(f"{method} / HTTP/{version}", fields)) == (400, message)


def test_an_empty_body_is_tolerated() -> None:
    """H30."""
    assert request(fields="Host: a\r\nContent-Length: 0\r\n").method == "GET"


def test_http_1_0_needs_no_host() -> None:
    """H11, H15."""
    found = request("GET / HTTP/1.0", "")
    assert found.http_version == "1.0"
    assert found.authority is None


def test_a_good_authority_does_not_excuse_a_bad_host() -> None:
    assert error_of(lambda: request("GET http://b/ HTTP/1.1", "")) == (400, HOST_MISSING)


@pytest.mark.parametrize("head", [b"", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"x\r\n\r\ny"])
def test_half_a_head_is_no_head(head: bytes) -> None:
    message = "the head does not end in an empty line"
    assert error_of(lambda: parse_request(head)) == (400, message)


def test_query_parameters_are_decoded_when_asked_for() -> None:
    found = request("GET /?a=1&b=%C3%A4+c&a=2&d&e=%ff HTTP/1.1")
    expected = {"a": ["1", "2"], "b": ["\xe4 c"], "d": [""], "e": ["\ufffd"]}
    assert found.query_parameters == expected
    assert found.query_parameters is found.query_parameters
    assert request().query_parameters == {}


def test_the_number_of_query_parameters_is_bounded() -> None:
    most = request(f"GET /?{'a&' * (MAX_QUERY_PARAMETERS - 1)}a HTTP/1.1")
    assert len(most.query_parameters["a"]) == MAX_QUERY_PARAMETERS
    more = request(f"GET /?{'a&' * MAX_QUERY_PARAMETERS}a HTTP/1.1")
    expected = (400, f"more than {MAX_QUERY_PARAMETERS} query parameters")
    assert error_of(lambda: more.query_parameters) == expected


@pytest.mark.parametrize(
    ("value", "cookies"),
    [
        ("a=b; c=d", {"a": "b", "c": "d"}),
        ("a=b;c=d ;\te=f", {"a": "b", "c": "d", "e": "f"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=", {"a": ""}),
        ('a="b c"', {"a": "b c"}),
        ('a="', {"a": '"'}),
        ('a="b', {"a": '"b'}),
        ("a=1; a=2", {"a": "1"}),
        ("a; =b; c d=e; ;; f=g", {"f": "g"}),
        ("a=\xe4", {"a": "\xe4"}),
        ("", {}),
    ],
)
def test_cookies_are_read_without_complaint(value: str, cookies: dict[str, str]) -> None:
    found = request(fields=f"Host: a\r\nCookie: {value}\r\n")
    assert found.cookies == cookies
    assert found.cookies is found.cookies


def test_several_cookie_fields_are_one() -> None:
    found = request(fields="Host: a\r\nCookie: a=1\r\nCookie: b=2; a=3\r\n")
    assert found.cookies == {"a": "1", "b": "2"}
    assert request().cookies == {}


# --- parse_response ---------------------------------------------------------------------------


def test_a_response_has_its_parts() -> None:
    found = parse_response(b"HTTP/1.0 404 Not F\xf6und\r\nA: b\r\n\r\n")
    assert (found.http_version, found.status, found.reason) == ("1.0", 404, "Not F\xf6und")
    assert list(found.headers) == [("A", "b")]
    assert repr(found) == "<Response HTTP/1.0 404 Not F\xf6und>"


@pytest.mark.parametrize("line", [b"HTTP/1.1 200", b"HTTP/1.1 200 "])
def test_the_reason_may_be_missing(line: bytes) -> None:
    assert parse_response(line + b"\r\n\r\n").reason == ""


STATUS_LINE = "the server's answer is no HTTP/1.1: its status line is malformed"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"HTTP/2.0 200 OK\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1 99 x\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1 600 x\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1 1000 x\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1  200 x\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1 200\tx\r\n\r\n", STATUS_LINE),
        (b"HTTP/1.1 200 a\x00\r\n\r\n", STATUS_LINE),
        (b"ICY 200 OK\r\n\r\n", STATUS_LINE),
        (
            b"HTTP/1.1 200 OK\r\n a: b\r\n\r\n",
            (
                "the server's answer is no HTTP/1.1: a header line starts with white space"
                " (line folding is obsolete)"
            ),
        ),
        (b"x", "the server's answer is no HTTP/1.1: the head does not end in an empty line"),
    ],
)
def test_a_malformed_response_has_no_status(head: bytes, message: str) -> None:
    assert error_of(lambda: parse_response(head)) == (0, message)


# --- any bytes --------------------------------------------------------------------------------


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Return ``data`` with bytes changed, removed, doubled and swapped, many times."""
    source = random.Random(seed)
    interesting = b'\x00\x01\t\n\r "#%,-./:;=?@[\\]\x7f\x80\xff09AZaz'
    results = []
    for _ in range(count):
        mutant = bytearray(data)
        for _ in range(source.randint(1, 4)):
            start = source.randrange(len(mutant) + 1)
            end = min(len(mutant), start + source.choice([0, 1, 1, 1, 2, 8]))
            mutant[start:end] = bytes(source.choices(interesting, k=source.choice([0, 1, 1, 2])))
        results.append(bytes(mutant))
    return results


@pytest.mark.parametrize(
    ("data", "parse"),
    [
        (HEAD[:-2] + b"Cookie: a=b\r\nContent-Length: 0\r\n\r\n", parse_request),
        (b"GET http://[::1]:80/a%20b?c=%41 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", parse_request),
        (ANSWER, parse_response),
    ],
)
def test_no_bytes_raise_anything_but_the_right_error(
    data: bytes, parse: Callable[[bytes], Parsed]
) -> None:
    accepted = 0
    refused: list[HandshakeError] = []
    is_response = parse is parse_response
    for mutant in mutations(data, count=rounds(3_000, 30_000), seed=len(data)):
        try:
            head, _ = read([mutant], is_response=is_response)
            found = parse(mutant if head is None else head)
        except HandshakeError as error:
            refused.append(error)
            continue
        accepted += 1
        assert all("\r" not in value and "\n" not in value for _, value in found.headers)
        if isinstance(found, Request):
            assert found.path[0] == "/"
            assert isinstance(found.query_parameters, dict)
            assert isinstance(found.cookies, dict)
    assert accepted > 50
    assert {error.status for error in refused} <= ({0} if is_response else {400, 505})
    assert all(error.message.isascii() and error.message.isprintable() for error in refused)


# --- writers ----------------------------------------------------------------------------------


def test_a_head_is_written_in_order() -> None:
    head = build_head("GET / HTTP/1.1", [("Host", "a"), ("X", ""), ("Y", "\xe4\t1")])
    assert head == b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\nY: \xe4\t1\r\n\r\n"
    assert list(parse_request(head).headers) == [("Host", "a"), ("X", ""), ("Y", "\xe4\t1")]


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\rb", "a\x00", "a\x1b", "a\x7f", "a\u20ac"])
def test_nothing_that_ends_a_line_is_ever_written(text: str) -> None:
    """H35: in a first line, a reason phrase, a name, a value, a redirect target, a cookie."""
    with pytest.raises(ValueError, match="first line holds a forbidden character"):
        build_head(text, [])
    with pytest.raises(ValueError, match="first line holds a forbidden character"):
        build_response(200, reason=text)
    with pytest.raises(ValueError, match="header name must be a token"):
        build_response(200, [(text, "a")])
    for name in ("X", "Location", "Set-Cookie"):
        with pytest.raises(ValueError, match=f"value of header {name} holds a forbidden"):
            build_response(200, [(name, text)])


def test_a_response_closes_its_connection_and_has_a_length() -> None:
    assert build_response(404, [("X", "y")], b"no\n") == (
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 3\r\nX: y\r\n\r\nno\n"
    )


def test_a_response_without_a_body_says_so() -> None:
    assert build_response(200).endswith(b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_neither_body_nor_length(status: int) -> None:
    response = build_response(status, [], b"lost")
    assert b"Content-Length" not in response
    assert response.endswith(b"\r\n\r\n")


def test_an_answer_to_head_counts_the_body_without_sending_it() -> None:
    response = build_response(200, body=b"12345", is_head=True)
    assert response.endswith(b"Content-Length: 5\r\n\r\n")


def test_the_status_line_can_say_http_1_0() -> None:
    """H11."""
    assert build_response(200, http_version="1.0").startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (414, None, b"HTTP/1.1 414 URI Too Long"),
        (426, None, b"HTTP/1.1 426 Upgrade Required"),
        (431, None, b"HTTP/1.1 431 Request Header Fields Too Large"),
        (599, None, b"HTTP/1.1 599 "),
        (200, "Fine", b"HTTP/1.1 200 Fine"),
    ],
)
def test_the_reason_is_the_registered_one(status: int, reason: str | None, line: bytes) -> None:
    assert build_response(status, reason=reason).split(b"\r\n")[0] == line


@pytest.mark.parametrize("status", [0, 101, 199, 600])
def test_only_a_final_status_ends_a_connection(status: int) -> None:
    with pytest.raises(ValueError, match="a final status is 200 to 599"):
        build_response(status)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-ENCODING"])
def test_the_framing_is_not_the_callers(name: str) -> None:
    with pytest.raises(ValueError, match=f"header {name} is set elsewhere"):
        build_response(200, [(name, "5")])


def test_fields_may_be_reserved() -> None:
    assert build_fields([("A", "b")], {"c"}) == b"A: b\r\n\r\n"
    with pytest.raises(ValueError, match="header C is set elsewhere"):
        build_fields([("C", "b")], {"c"})


def test_what_is_written_is_read_back() -> None:
    response = parse_response(build_response(403, [("A", "b")], b"x")[:-1])
    assert isinstance(response.headers, Headers)
    assert (response.status, response.headers.get("a")) == (403, "b")
