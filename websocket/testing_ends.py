"""The ends of WebSocket connections that a test holds: one that records, and one of raw frames.

``websocket.testing`` has both; import them from there.
"""

from __future__ import annotations

from typing import Any

from reactor import Transport
from reactor.testing import MemorySocket, VirtualReactor
from websocket.assembler import Assembler
from websocket.connection import Connection
from websocket.frame import Frame, build_close, parse_close
from websocket.frame_reader import FrameReader
from websocket.frame_writer import FrameWriter
from websocket.http11 import Request
from websocket.limits import Limits
from websocket.opcodes import Opcode

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Recorder(Connection):
    """Write down everything that the connection tells; subclass it to react as well.

    Attributes:
        events: tuples of the method's name without ``on_``, and what it was called with; for
            errors their class and text.
        transport: what the connection was opened on, or None.
    """

    __slots__ = ("_received", "events", "transport")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.events: list[tuple[Any, ...]] = []
        self.transport: Transport | None = None
        self._received = 0

    def open(
        self,
        transport: Transport,
        request: Request | bytes | None = None,
        subprotocol: str | None = None,
    ) -> None:
        """Keep the transport; see ``Connection``."""
        self.transport = transport
        super().open(transport, request, subprotocol)

    def on_open(self) -> None:
        """Write it down."""
        self.events.append(("open",))

    def on_message(self, message: str | bytes) -> None:
        """Write it down."""
        self.events.append(("message", message))

    def on_ping(self, payload: bytes) -> None:
        """Write it down."""
        self.events.append(("ping", payload))

    def on_pong(self, payload: bytes) -> None:
        """Write it down."""
        self.events.append(("pong", payload))

    def on_drop(self, dropped: int) -> None:
        """Write it down."""
        self.events.append(("drop", dropped))

    def on_writable(self) -> None:
        """Write it down."""
        self.events.append(("writable",))

    def on_close(self, code: int, reason: str) -> None:
        """Write it down."""
        self.events.append(("close", code, reason))

    def on_error(self, error: Exception) -> None:
        """Write it down."""
        self.events.append(("error", type(error), str(error)))

    @property
    def messages(self) -> list[str | bytes]:
        """All messages so far."""
        return [event[1] for event in self.events if event[0] == "message"]

    def receive(self) -> str | bytes:
        """Return the next message; first let everything happen that can without time.

        Raises:
            AssertionError: none has come.
        """
        if isinstance(self.reactor, VirtualReactor):
            self.reactor.settle()
        messages = self.messages[self._received :]
        assert messages, f"no message has come to {self!r}"
        self._received += 1
        return messages[0]

    @property
    def socket(self) -> MemorySocket:
        """This end of the stream in memory, for its faults: ``reactor/memory.py``."""
        assert self.transport is not None, "the connection was never opened"
        found = self.transport.get_extra_info("socket")
        sock = getattr(found, "lower", found)  # below TLS
        assert isinstance(sock, MemorySocket), "the connection is not in memory"
        return sock


class Peer:
    """One end of a stream, held by a test: raw bytes or frames out, frames in.

    Args:
        sock: the test's end.
        is_client: whether the peer is a client, whose frames are masked.

    Attributes:
        frames: all frames that ``receive`` has returned.
    """

    def __init__(self, sock: MemorySocket, *, is_client: bool) -> None:
        self.sock = sock
        self._writer = FrameWriter(masks=is_client)
        limits = Limits(max_message_size=2**40, max_fragments=10**9)
        self._reader = FrameReader(
            Assembler(limits), must_be_masked=not is_client, max_message_size=2**40
        )
        self.frames: list[tuple[int, Any]] = []

    def send_bytes(self, data: bytes) -> None:
        """Send whatever bytes."""
        self.sock.feed(data)

    def send_frame(self, opcode: int, payload: bytes = b"", **flags: Any) -> None:
        """Send a frame, good or bad; flags as ``Frame`` has them."""
        self.sock.feed(self._writer.encode_frame(Frame(opcode, payload, **flags)))

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""
        if isinstance(message, str):
            self.send_frame(Opcode.TEXT, message.encode())
        else:
            self.send_frame(Opcode.BINARY, message)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.send_frame(Opcode.CLOSE, build_close(code, reason))

    def receive(self) -> list[tuple[int, Any]]:
        """Return what has arrived since: pairs of opcode and str, bytes or payload."""
        frames = self._reader.feed(self.sock.take())
        assert self._reader.error is None, self._reader.error
        self.frames += frames
        return frames

    def received_close(self) -> tuple[int | None, str] | None:
        """Return code and reason of the one close frame that has arrived, if any has."""
        self.receive()
        closes = [payload for opcode, payload in self.frames if opcode == Opcode.CLOSE]
        assert len(closes) <= 1, "more than one close frame"
        return parse_close(closes[0]) if closes else None

    def read_head(self) -> str:
        """Take the head of an HTTP response off the stream, and return it."""
        data = self.sock.take()
        head, separator, rest = data.partition(b"\r\n\r\n")
        assert separator, data
        self.sock.inbox[:0] = rest
        return head.decode("latin-1")

    @property
    def sees_end(self) -> bool:
        """Tell whether the other end has ended the stream in an orderly way."""
        return self.sock.has_eof and not self.sock.is_reset


def upgrade_request(path: str = "/", **fields: str) -> bytes:
    """Return an opening handshake; further fields as keywords, ``_`` standing for ``-``."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
