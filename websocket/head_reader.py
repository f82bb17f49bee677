"""The first head in a stream of bytes: found, and judged by its size while it arrives.

For: both sides of the opening handshake, before anything is parsed. Not for: what the head says
(``http11.py``). Reading stops at the first byte that crosses a limit, so a peer gets its answer
after 8 KiB of request line, not after 10 MB.
"""

from __future__ import annotations

import re

from websocket.errors import HandshakeError
from websocket.limits import Limits

_END_OF_HEAD = b"\r\n\r\n"
_TLS_HANDSHAKE_RECORD = 0x16
# So many bytes are enough to tell whether a stranger speaks HTTP at all.
_OPENING_SIZE = 24
_REQUEST_OPENING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: |\Z)")
_RESPONSE_OPENING = b"HTTP/"


class TlsClientHello(HandshakeError):
    """Report a TLS handshake on a port without TLS: drop it, no answer can be understood."""


class HeadReader:
    """Find the first head in a stream of bytes, and give up as soon as it is too large.

    The outcome does not depend on how the bytes are split, and the work is linear in their
    number: no byte is searched twice, all are kept in one growing buffer.

    Args:
        limits: ``max_request_line``, ``max_header_line``, ``max_header_count`` and
            ``max_head_size`` are obeyed.
        is_response: True for the client's side, where a status line comes first.

    Attributes:
        leftover: the bytes behind the head, once ``feed`` has returned it.
    """

    __slots__ = (
        "_buffer",
        "_has_skipped_line",
        "_is_response",
        "_limits",
        "_line_count",
        "_line_start",
        "_searched",
        "leftover",
    )

    def __init__(self, limits: Limits, is_response: bool = False) -> None:
        self.leftover = b""
        self._limits = limits
        self._is_response = is_response
        self._buffer = bytearray()
        self._has_skipped_line = is_response  # only a server tolerates an empty line
        self._line_start = 0
        self._line_count = 0
        self._searched = 0

    def feed(self, data: bytes | bytearray | memoryview) -> bytes | None:
        """Take bytes from the peer; call no more once a head was returned.

        Args:
            data: what arrived; copied as far as it is kept.

        Returns:
            The head up to and including its empty line, or None while that is missing.

        Raises:
            TlsClientHello: the peer wants TLS.
            HandshakeError: 400 for what is no HTTP, 414 for the request line, 431 for header
                lines too long or too many. On the client's side the status is always 0.
        """
        if not self._buffer:
            data = bytes(data)
            end = self._find_small_head(data)
            if end:
                self.leftover = data[end:]
                return data[:end]
        self._buffer += data
        self._judge_opening()
        end = self._read_lines()
        if not end:
            return None
        head = bytes(self._buffer[:end])
        self.leftover = bytes(self._buffer[end:])
        self._buffer = bytearray()
        return head

    def _find_small_head(self, data: bytes) -> int:
        """Return the end of a head that is whole and below every limit at a glance, or 0.

        This is how almost all heads arrive; ``_read_lines`` comes to the same result.
        """
        limits = self._limits
        end = data.find(_END_OF_HEAD)
        if (
            end <= 0
            or end > limits.max_request_line
            or end > limits.max_header_line
            or end > limits.max_head_size - len(_END_OF_HEAD)
            or not data.startswith(b"HTTP/" if self._is_response else b"GET ")
        ):
            return 0
        line_feeds = data.count(b"\n", 0, end)
        if line_feeds > limits.max_header_count or line_feeds != data.count(b"\r\n", 0, end):
            return 0
        return end + len(_END_OF_HEAD)

    def _judge_opening(self) -> None:
        """Recognise at the first bytes what can never become a head."""
        if self._searched >= _OPENING_SIZE:
            return
        buffer = self._buffer
        # RFC 9112, 2.2: a server ignores at least one empty line before the request line.
        if not self._has_skipped_line and bytes(buffer[:2]) in (b"\r", b"\r\n"):
            if len(buffer) < 2:
                return
            self._has_skipped_line = True
            self._searched = 0
            del buffer[:2]
        opening = buffer[: min(_OPENING_SIZE, self._limits.max_request_line)]
        if not opening:
            return
        if self._is_response:
            if not opening.startswith(_RESPONSE_OPENING[: len(opening)]):
                raise self._error(0, "the server's answer is no HTTP: check port and scheme")
        elif opening[0] == _TLS_HANDSHAKE_RECORD:
            raise TlsClientHello(400, "TLS on a port without TLS: use ws://")
        elif _REQUEST_OPENING.match(opening) is None:
            raise self._error(400, "a request starts with a method")

    def _read_lines(self) -> int:
        """Judge the lines that are new; return the end of the head, 0 while it is missing."""
        buffer = self._buffer
        end_of_window = min(len(buffer), self._limits.max_head_size)
        while True:
            line_feed = buffer.find(b"\n", self._searched, end_of_window)
            if line_feed < 0:
                break
            self._searched = line_feed + 1
            size = self._judge_line_size(line_feed)
            if buffer[line_feed - 1] != 0x0D:
                raise self._error(400, "a line ends in LF without CR")
            if size == 0:
                return line_feed + 1
            if self._line_count > self._limits.max_header_count:
                limit = self._limits.max_header_count
                raise self._error(431, f"there are more than {limit} header lines")
            self._line_count += 1
            self._line_start = line_feed + 1
        if self._line_start < end_of_window:
            self._judge_line_size(end_of_window)
        self._searched = end_of_window
        if len(buffer) > self._limits.max_head_size:
            limit = self._limits.max_head_size
            raise self._error(431, f"the head is longer than {limit} bytes")
        return 0

    def _judge_line_size(self, end: int) -> int:
        """Return the size of the line so far; its CR does not count."""
        size = end - self._line_start
        if size and self._buffer[end - 1] == 0x0D:
            size -= 1
        if self._line_count:
            if size > self._limits.max_header_line:
                limit = self._limits.max_header_line
                raise self._error(431, f"a header line is longer than {limit} bytes")
        elif size > self._limits.max_request_line:
            limit = self._limits.max_request_line
            raise self._error(414, f"the first line is longer than {limit} bytes")
        return size

    def _error(self, status: int, message: str) -> HandshakeError:
        return HandshakeError(0 if self._is_response else status, message)
