"""Request and response heads of HTTP/1.1: parsed, judged, written.

For: the part of RFC 9112 that an opening handshake and a small plain answer need, for both
sides. Not for: bodies of requests (any is refused), the meaning of fields (``handshake.py``).

    bytes -> HeadReader (head_reader.py) -> one head -> parse_request -> Request     (server)
                                                     -> parse_response -> Response   (client)
    build_head, build_response -> bytes

The head reader judges sizes while the bytes arrive, the parsers judge the grammar once the head is
whole. Neither ever repairs anything: two readers that repair differently are how requests get
smuggled (RFC 9112, 11.2). What is wrong is a ``HandshakeError`` with the status to answer with.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

from websocket.errors import HandshakeError
from websocket.headers import (
    TOKEN,
    WHITESPACE,
    Headers,
    check_field,
    is_token,
    is_value,
    parse_fields,
)
from websocket.origin import Authority, parse_authority

MAX_QUERY_PARAMETERS = 1_000


# RFC 9112, 3: single spaces only. RFC 9112, 3.2: no fragment; RFC 3986, 2: ASCII only.
_REQUEST_LINE = re.compile(rf'({TOKEN}) ([!"$-~]+) HTTP/([0-9]\.[0-9])')
# RFC 9112, 4: the space before an empty reason is often left out, and nothing hangs on it.
_STATUS_LINE = re.compile(r"HTTP/([0-9]\.[0-9]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_ABSOLUTE_FORM = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL_OR_BACKSLASH = re.compile(rb"[\x00-\x1f\x7f\\]")

# One object each, instead of a copy that every request keeps.
_METHODS = {"GET": "GET", "HEAD": "HEAD"}
_VERSIONS = {"1.0": "1.0", "1.1": "1.1"}

FRAMES_BODY = frozenset({"content-length", "transfer-encoding"})

_REASONS = {status.value: status.phrase for status in HTTPStatus}
# The names that changed between the Python versions (RFC 9110, 15.5.14 to 15.5.21).
_REASONS.update(
    {
        413: "Content Too Large",
        414: "URI Too Long",
        416: "Range Not Satisfiable",
        422: "Unprocessable Content",
    }
)


class Request:
    """Hold the head of a request; every part is legal HTTP.

    Attributes:
        method: as sent; methods are case-sensitive.
        target: the request target as sent.
        path: the target's path, percent-encoding untouched. It begins with one slash and has,
            decoded too, no ``.`` or ``..`` segment, no backslash and no control character.
        query: what follows the question mark, raw; empty when there is none.
        http_version: "1.0" or "1.1".
        headers: the fields.
        authority: host and port that were asked for; None in HTTP/1.0 without Host.
        remote_address: the peer's address, as sockets give it; None where nobody set it.
        peer_certificate: the client's certificate, as ``ssl.SSLSocket.getpeercert`` gives it;
            None without TLS or without a certificate.
    """

    __slots__ = (
        "_cookies",
        "_query_parameters",
        "authority",
        "headers",
        "http_version",
        "method",
        "path",
        "peer_certificate",
        "query",
        "remote_address",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        path: str,
        query: str,
        http_version: str,
        headers: Headers,
        authority: Authority | None,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.http_version = http_version
        self.headers = headers
        self.authority = authority
        self.remote_address: Any = None
        self.peer_certificate: dict[str, Any] | None = None
        self._query_parameters: dict[str, list[str]] | None = None
        self._cookies: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} HTTP/{self.http_version}>"

    def compact(self) -> None:
        """Let go of what can be made again, for the life of a connection."""
        self.headers.compact()
        self._query_parameters = None
        self._cookies = None

    @property
    def query_parameters(self) -> dict[str, list[str]]:
        """Names and values of the query, decoded as UTF-8 (``urllib.parse.parse_qs``).

        A name without a value has the value "".

        Raises:
            HandshakeError: 400, there are more than ``MAX_QUERY_PARAMETERS``.
        """
        if self._query_parameters is None:
            if self.query.count("&") >= MAX_QUERY_PARAMETERS:
                raise HandshakeError(400, f"more than {MAX_QUERY_PARAMETERS} query parameters")
            self._query_parameters = parse_qs(self.query, keep_blank_values=True)
        return self._query_parameters

    @property
    def cookies(self) -> dict[str, str]:
        """Names and values of the cookies; what is no cookie is left out (RFC 6265, 5.4).

        Of two with one name the first counts: it belongs to the more specific path.
        """
        if self._cookies is None:
            self._cookies = _parse_cookies(self.headers.get_all("cookie"))
        return self._cookies


class Response:
    """Hold the head of a response; every part is legal HTTP.

    Attributes:
        http_version: "1.0" or "1.1".
        status: 100 to 599.
        reason: the reason phrase, possibly empty.
        headers: the fields.
    """

    __slots__ = ("headers", "http_version", "reason", "status")

    def __init__(self, http_version: str, status: int, reason: str, headers: Headers) -> None:
        self.http_version = http_version
        self.status = status
        self.reason = reason
        self.headers = headers

    def __repr__(self) -> str:
        return f"<Response HTTP/{self.http_version} {self.status} {self.reason}>"


def parse_request(head: bytes) -> Request:
    """Return the request of a head.

    Args:
        head: everything up to and including the empty line, as ``HeadReader`` returns it.

    Raises:
        HandshakeError: 505 for another version than 1.0 and 1.1, 400 for all that is malformed,
            for a bad Host and for a body.
    """
    try:
        first_line, block = _split_head(head)
        match = _REQUEST_LINE.fullmatch(first_line)
        if match is None:
            raise ValueError(_explain_request_line(first_line))
        method, target, digits = match.groups()
        # RFC 9110, 2.5 would let us read 1.2 as 1.1; nothing speaks it but probes.
        version = _VERSIONS.get(digits)
        if version is None:
            raise HandshakeError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        authority, path, query = _split_target(target)
        headers = parse_fields(block)
        host = _judge_host(headers, version)
        if not FRAMES_BODY.isdisjoint(headers.first):
            _judge_body(headers)
    except ValueError as error:
        raise HandshakeError(400, str(error)) from None
    # RFC 9112, 3.2.2: the authority of an absolute-form target replaces Host.
    return Request(
        _METHODS.get(method, method), target, path, query, version, headers, authority or host
    )


def parse_response(head: bytes) -> Response:
    """Return the response of a head.

    Args:
        head: everything up to and including the empty line, as ``HeadReader`` returns it.

    Raises:
        HandshakeError: status 0, the answer is no HTTP/1.0 or HTTP/1.1.
    """
    try:
        first_line, block = _split_head(head)
        match = _STATUS_LINE.fullmatch(first_line)
        if match is None or match[1] not in ("1.0", "1.1"):
            raise ValueError("its status line is malformed")
        version, status, reason = match.groups("")
        return Response(version, int(status), reason, parse_fields(block))
    except ValueError as error:
        raise HandshakeError(0, f"the server's answer is no HTTP/1.1: {error}") from None


def _split_head(head: bytes) -> tuple[str, str]:
    """Return the first line and the block of field lines."""
    text = head.decode("latin-1")
    first_line, line_end, block = text.partition("\r\n")
    if not line_end or not text.endswith("\r\n\r\n"):
        raise ValueError("the head does not end in an empty line")
    return first_line, block[:-2]


def _explain_request_line(line: str) -> str:
    """Return what is wrong with a request line that does not match the grammar."""
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if not is_token(method):
        return "a request starts with a method"
    if not re.fullmatch(r"HTTP/[0-9]\.[0-9]", version):
        return "a request line reads: method, target, HTTP/1.1, with single spaces between"
    if "#" in target:
        return "a request target has no fragment: percent-encode the number sign"
    return "a request target is ASCII without spaces: percent-encode the rest"


def _split_target(target: str) -> tuple[Authority | None, str, str]:
    """Return authority (if any), path and query of a request target (RFC 9112, 3.2)."""
    authority = None
    if target[0] != "/":
        match = _ABSOLUTE_FORM.fullmatch(target)
        if match is None:
            raise ValueError("a request target begins with a slash")
        authority = _parse_host(match[1])
        target = match[2] if match[2][:1] == "/" else "/" + match[2]
    path, _, query = target.partition("?")
    if path[:2] == "//":
        raise ValueError("a path begins with one slash, not two")
    if "%" in path or "/." in path or "\\" in path:
        _judge_path(path)
    if "%00" in query:
        raise ValueError("the query holds a NUL")
    return authority, path, query


def _judge_path(path: str) -> None:
    """Refuse what some file system or other could read as a way out of a directory."""
    if _BAD_PERCENT.search(path):
        raise ValueError("the path holds a percent sign without two hexadecimal digits")
    decoded = unquote_to_bytes(path)
    if _CONTROL_OR_BACKSLASH.search(decoded):
        raise ValueError("the path holds a control character or a backslash")
    segments = decoded.split(b"/")
    if b"." in segments or b".." in segments:
        raise ValueError("the path holds a segment . or ..: resolve it before asking")


def _judge_host(headers: Headers, version: str) -> Authority | None:
    """Return what Host says; RFC 9112, 3.2: exactly one in HTTP/1.1, and well-formed."""
    hosts = headers.get_all("host")
    if len(hosts) == 1:
        return _parse_host(hosts[0])
    if hosts:
        raise ValueError("there are several Host headers: send one")
    if version == "1.1":
        raise ValueError("the Host header is missing")
    return None


def _parse_host(text: str) -> Authority:
    try:
        return parse_authority(text)
    except ValueError as error:
        raise ValueError(f"the host is malformed: {error}") from None


def _judge_body(headers: Headers) -> None:
    """Refuse any body, whatever the method: its bytes must never be read as frames.

    RFC 9112, 6.1 and 6.3. The length is compared as text: what ``int`` takes for a number
    ("+0", "0_0", other scripts' digits) is not what the next reader takes for one.
    """
    if "transfer-encoding" in headers:
        raise ValueError("a request has no body here: leave Transfer-Encoding out")
    lengths = headers.get_all("content-length")
    if lengths and lengths != ["0"]:
        raise ValueError("a request has no body here: leave Content-Length out")


def _parse_cookies(values: list[str]) -> dict[str, str]:
    """Return the cookies of some Cookie fields; linear, and never an error."""
    cookies: dict[str, str] = {}
    for value in values:
        for pair in value.split(";"):
            name, equals, text = pair.partition("=")
            name, text = name.strip(WHITESPACE), text.strip(WHITESPACE)
            if len(text) >= 2 and text[0] == text[-1] == '"':
                text = text[1:-1]
            if equals and is_token(name):
                cookies.setdefault(name, text)
    return cookies


def build_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return a head, its empty line included.

    Args:
        first_line: the request line or status line.
        headers: names and values, written in this order.

    Raises:
        ValueError: CR, LF, NUL or another control character stands anywhere, a name is no
            token, or a character is outside latin-1. Nothing has been written then.
    """
    if not is_value(first_line):
        raise ValueError(f"the first line holds a forbidden character: {first_line!r}")
    return f"{first_line}\r\n".encode("latin-1") + build_fields(headers)


def build_fields(
    headers: Iterable[tuple[str, str]], reserved: Container[str] = frozenset()
) -> bytes:
    """Return the rest of a head: field lines and the empty line.

    Args:
        headers: names and values, written in this order.
        reserved: names, in lower case, that are not for the caller's caller to set.

    Raises:
        ValueError: as ``build_head``, or a name is reserved.
    """
    lines = []
    for name, value in headers:
        check_field(name, value)
        if name.lower() in reserved:
            raise ValueError(f"the header {name} is set elsewhere: leave it out")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def build_response(
    status: int,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    http_version: str = "1.1",
    reason: str | None = None,
    is_head: bool = False,
) -> bytes:
    """Return a complete response, the last one of its connection.

    Content-Length and ``Connection: close`` are added. There is no Date, since this module knows
    no clock: RFC 9110, 6.6.1 wants the caller to add it.

    Args:
        status: 200 to 599.
        headers: further fields; Content-Length and Transfer-Encoding are not the caller's.
        body: the content.
        http_version: of the status line; answer HTTP/1.0 with "1.0".
        reason: the reason phrase, by default the registered one.
        is_head: True to answer HEAD: ``body`` is counted, not sent.

    Raises:
        ValueError: as ``build_head``, or a status or header that this function cannot send.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"a final status is 200 to 599, not {status}")
    if reason is None:
        reason = _REASONS.get(status, "")
    framing = [("Connection", "close")]
    # RFC 9110, 8.6 and 15.4.5: neither 204 nor 304 has content.
    if status in (204, 304):
        body = b""
    else:
        framing.append(("Content-Length", str(len(body))))
    head = build_head(f"HTTP/{http_version} {status} {reason}", framing)
    head = head[:-2] + build_fields(headers, FRAMES_BODY)
    return head if is_head else head + body
