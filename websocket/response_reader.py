"""The answer to a request of ours: interim answers are passed over, the final one is returned.

For: the client's opening handshake (``client.py``) and the tunnel through a proxy
(``tunnel.py``). Not for: what the answer means.
"""

from __future__ import annotations

from websocket.head_reader import HeadReader
from websocket.http11 import Response, parse_response
from websocket.limits import KIB, Limits
from websocket.masking import Bytes

# Bytes to look at in one go. What is behind a head is copied: behind each of thousands in one
# read, that would take longer than all the rest.
_STEP = 4 * KIB


class ResponseReader:
    """Find the head of the one answer that counts in a stream of bytes.

    Each interim answer is judged by its size like the final one. There may be any number of
    them: whoever waits has a deadline.

    Args:
        limits: for the sizes of a head; see ``HeadReader``.

    Attributes:
        leftover: the bytes behind the answer, once ``feed`` has returned it.
    """

    __slots__ = ("_head_reader", "_limits", "leftover")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._head_reader = HeadReader(limits, is_response=True)
        self.leftover = b""

    def feed(self, data: Bytes) -> Response | None:
        """Take bytes from the peer; call no more once an answer was returned.

        Raises:
            HandshakeError: status 0, the answer is no HTTP/1.1, or its head is too large.
        """
        for at in range(0, len(data), _STEP):
            response = self._read(data[at : at + _STEP])
            if response is not None:
                self.leftover = self._head_reader.leftover + bytes(data[at + _STEP :])
                return response
        return None

    def _read(self, data: Bytes) -> Response | None:
        while True:
            head = self._head_reader.feed(data)
            if head is None:
                return None
            response = parse_response(head)
            # RFC 9110, 15.2: a client must be able to pass over interim answers. 101 is none
            # for whoever asked for an upgrade.
            if response.status == 101 or response.status >= 200:
                return response
            data = self._head_reader.leftover
            self._head_reader = HeadReader(self._limits, is_response=True)
