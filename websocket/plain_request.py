"""The straight path of reading a request: a head that is whole, and nothing to object to.

Nearly every opening handshake is a GET with a simple path, sent in one piece, in which no header
stands twice. Such a head is read here in one go. Anything else is left to ``HeadReader`` and
``parse_request``, with all of their rules: so nothing here raises, and nothing is decided here
but "this one is good".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from websocket import speedups
from websocket.headers import distinct_headers, parse_distinct_fields
from websocket.http11 import FRAMES_BODY, Request
from websocket.origin import parse_authority

if TYPE_CHECKING:
    from websocket.limits import Limits

    PlainHead = tuple[str, str, str, str, dict[str, str]]

_END_OF_HEAD = b"\r\n\r\n"
# Without what ``http11`` has to look at twice: a percent sign, a backslash or a dot in the path, a
# second slash at its beginning, an encoded NUL in the query.
_PLAIN_LINE = re.compile(
    r'GET ((/(?!/)[!"$&-\-/->@-\[\]-~]*)(?:\?(?!\S*%00)([!"$-~]*))?) HTTP/1\.1\r\n'
)


def read_plain_request(data: bytes, limits: Limits) -> tuple[Request, bytes] | None:
    """Read a request from the first bytes of a stream, if it is a plain one.

    Args:
        data: what arrived.
        limits: as for ``HeadReader``.

    Returns:
        The request, and the bytes behind it. None when it is incomplete, or not plain.
    """
    end = data.find(_END_OF_HEAD)
    # Not above any limit of a line, because not even the whole is.
    if not 0 < end <= limits.max_header_line or end > limits.max_request_line:
        return None
    end += len(_END_OF_HEAD)
    if end > limits.max_head_size:
        return None
    parts = split_plain_head(data, end)
    if parts is None:
        return None
    target, path, query, block, first = parts
    if len(first) > limits.max_header_count or not FRAMES_BODY.isdisjoint(first):
        return None
    try:
        authority = parse_authority(first.get("host", ""))
    except ValueError:
        return None
    headers = distinct_headers(block, first)
    return Request("GET", target, path, query, "1.1", headers, authority), data[end:]


def split_plain_head_pure(data: bytes, size: int) -> PlainHead | None:
    """Split a head by its grammar alone, without a limit.

    Args:
        data: begins with the head.
        size: bytes of the head, the empty line at its end included.

    Returns:
        Target, path, query, field lines, and the values of the fields by their names in lower
        case. None when it is not plain.
    """
    text = data[:size].decode("latin-1")
    match = _PLAIN_LINE.match(text)
    if match is None:
        return None
    target, path, query = match.groups("")
    block = text[match.end() : -2]
    first = parse_distinct_fields(block)
    return None if first is None else (target, path, query, block, first)


# In Python a fifth of what an upgrade costs, and more for a browser's head; in C a third of that
# at the most.
split_plain_head = speedups.split_plain_head or split_plain_head_pure
