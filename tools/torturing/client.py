"""One client on a plain socket: it can keep every rule, or break it.

    CONNECTING ── CONNECTED ── OPEN ──┐
        └──────────── └───────────────┴── ENDED

Written without the library's loop, transports and connections on purpose: what is measured must
not measure itself. Frames are read by ``FrameReader``, which fuzzing holds against another
library; a server that breaks a rule makes it raise ``Misbehaviour``.
"""

from __future__ import annotations

import errno
import os
import re
import selectors
import socket
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING

from websocket import FrameReader, FrameWriter, Limits, Opcode
from websocket.assembler import Assembler
from websocket.deflate_codec import Inflater
from websocket.frame import FIN, build_close, parse_close
from websocket.frame_writer import Payload, encode_message

if TYPE_CHECKING:
    from torturing.swarm import Swarm

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_WRITER = FrameWriter(masks=True)
_LIMITS = Limits()
_RECEIVE_SIZE = 256 * 1024
# Linux has had it since 4.2; without it, each source address has 28,000 ports for all servers.
_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
_TCP_ESTABLISHED = 1
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_COOKIE = re.compile(rb"\r\nset-cookie: *(websocket_session=[^;\r]+)", re.IGNORECASE)


class Misbehaviour(Exception):
    """Tell what the server did that it must not do, whatever is done to it."""


class Phase(IntEnum):
    """Name where a client is in its life."""

    CONNECTING = 0
    CONNECTED = 1
    OPEN = 2
    ENDED = 3


def request(path: str = "/", *fields: str) -> bytes:
    """Return the request of an opening handshake.

    Args:
        path: the target.
        fields: further header lines.
    """
    lines = (
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *fields,
    )
    return "".join(f"{text}\r\n" for text in (*lines, "")).encode()


COMPRESSION = "Sec-WebSocket-Extensions: permessage-deflate"
REQUEST = request()


def frame(head: int, payload: bytes) -> bytes:
    """Return one masked frame."""
    return b"".join(_WRITER.encode(head, payload))


class Client:
    """Be one client; override the ``on_`` methods.

    Args:
        swarm: what runs it; ``Swarm.open`` makes and connects clients.
        request: what to send once connected; ``on_connected`` does.
        source: the address to come from.
        receive_buffer: the kernel's buffer for what is not read yet, in bytes.

    Attributes:
        answers_pings, answers_close: set them to False for a peer that does not.
        phase: where it is in its life.
        status: of the answer to the request, None before it.
        head: the head of that answer.
        close_code: of the server's close frame, None before it.
        closed_at: when that came.
        started_at, opened_at, ended_at: on the clock of ``time.monotonic``.
        ending: "eof" or "reset" by the server, "left" by us, or the connect's error.
        messages, pings: how many came.
    """

    __slots__ = (
        "_incoming",
        "_interest",
        "_is_closing",
        "_is_reading",
        "_outgoing",
        "_reader",
        "answers_close",
        "answers_pings",
        "close_code",
        "closed_at",
        "ended_at",
        "ending",
        "head",
        "messages",
        "opened_at",
        "phase",
        "pings",
        "request",
        "socket",
        "started_at",
        "status",
        "swarm",
    )

    def __init__(
        self,
        swarm: Swarm,
        *,
        request: bytes = REQUEST,
        source: str | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.swarm = swarm
        self.request = request
        self.answers_pings = True
        self.answers_close = True
        self.phase = Phase.CONNECTING
        self.status: int | None = None
        self.head = b""
        self.close_code: int | None = None
        self.closed_at: float | None = None
        self.started_at = time.monotonic()
        self.opened_at: float | None = None
        self.ended_at: float | None = None
        self.ending = ""
        self.messages = 0
        self.pings = 0
        self._incoming = b""
        self._outgoing: list[bytes | memoryview] = []
        self._reader: FrameReader | None = None
        self._interest = 0
        self._is_reading = True
        self._is_closing = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            self.socket.bind((source, 0))

    # --- to override --------------------------------------------------------------------------

    def on_connected(self) -> None:
        """Send the request."""
        self.send_bytes(self.request)

    def on_open(self) -> None:
        """Handle the completed opening handshake."""

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Handle a message."""

    def on_end(self) -> None:
        """Handle the end."""

    # --- what it can do -----------------------------------------------------------------------

    def connect(self) -> None:
        """Begin; called by ``Swarm.open``."""
        result = self.socket.connect_ex(self.swarm.address)
        if result not in (0, errno.EINPROGRESS):
            self._end(os.strerror(result))
        else:
            self._update_interest()

    def send_bytes(self, data: bytes) -> None:
        """Send any bytes after those sent before."""
        if self.phase is not Phase.ENDED and data:
            self._outgoing.append(data)
            self._flush()

    def send(self, message: Payload) -> None:
        """Send a message."""
        self.send_bytes(frame(*encode_message(message)))

    def close(self, code: int = 1000) -> None:
        """Start the closing handshake."""
        self._is_closing = True
        self.send_bytes(frame(FIN | Opcode.CLOSE, build_close(code, "")))

    def leave(self) -> None:
        """Close the stream without a word."""
        self._end("left")

    def reset(self) -> None:
        """Close the stream by a reset, as a killed program with unread input does."""
        if self.phase is not Phase.ENDED:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._end("left")

    def pause(self) -> None:
        """Read no further."""
        self._is_reading = False
        self._update_interest()

    def resume(self) -> None:
        """Read on."""
        self._is_reading = True
        self._update_interest()

    def read(self, size: int) -> None:
        """Read a few bytes now, paused or not."""
        if self.phase is not Phase.ENDED:
            self._read(size)

    def is_cut(self) -> bool:
        """Tell whether the server has ended the stream, even when nothing is read."""
        if self.phase is Phase.ENDED:
            return True
        # tcp(7): the first octet of TCP_INFO is the state.
        state = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return self.phase > Phase.CONNECTING and state != _TCP_ESTABLISHED

    # --- what happens to it -------------------------------------------------------------------

    def on_ready(self, mask: int) -> None:
        """Do what the socket is ready for."""
        if self.phase is Phase.CONNECTING:
            result = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if result:
                self._end(os.strerror(result))
                return
            self._enter(Phase.CONNECTED)
            self.on_connected()
        elif mask & WRITE:
            self._flush()
        if mask & READ and self.phase is not Phase.ENDED:
            self._read(_RECEIVE_SIZE)
        self._update_interest()

    def _flush(self) -> None:
        if self.phase is Phase.CONNECTING:
            return
        outgoing = self._outgoing
        try:
            while outgoing:
                sent = self.socket.send(outgoing[0])
                if sent < len(outgoing[0]):
                    outgoing[0] = memoryview(outgoing[0])[sent:]
                    break
                del outgoing[0]
        except BlockingIOError:
            pass
        except OSError:
            # What the server said before it closed may still be there to be read.
            outgoing.clear()
            self._is_closing = True
        self._update_interest()

    def _read(self, size: int) -> None:
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            self._end("reset")
            return
        if not data:
            self._end("eof")
        elif self.phase is Phase.CONNECTED:
            self._read_head(data)
        else:
            self._read_frames(data)

    def _read_head(self, data: bytes) -> None:
        self._incoming += data
        head, blank, rest = self._incoming.partition(b"\r\n\r\n")
        if not blank or self.status is not None:
            return
        self.head = head
        self.status = int(head.split(b" ", 2)[1])
        if self.status != 101:
            return
        self._incoming = b""
        self.opened_at = time.monotonic()
        self._enter(Phase.OPEN)
        self.on_open()
        if rest:
            self._read_frames(rest)

    def _read_frames(self, data: bytes) -> None:
        if self._reader is None:
            self._reader = self._new_reader()
        for opcode, message in self._reader.feed(data):
            if self.phase is not Phase.OPEN:
                return
            self._receive(opcode, message)
        if self._reader.error is not None:
            raise Misbehaviour(f"the server's frames: {self._reader.error}")

    def _new_reader(self) -> FrameReader:
        assembler = Assembler(_LIMITS)
        if self.is_compressed:
            assembler.inflater = Inflater(15, keeps_context=True, budget=None, now=0.0)
        return FrameReader(
            assembler, must_be_masked=False, max_message_size=_LIMITS.max_message_size
        )

    def _receive(self, opcode: int, message: str | bytes) -> None:
        if opcode == Opcode.CLOSE:
            assert isinstance(message, bytes)
            self.close_code = parse_close(message)[0]
            self.closed_at = time.monotonic()
            if self.answers_close and not self._is_closing:
                self.close()
        elif opcode == Opcode.PING:
            assert isinstance(message, bytes)
            self.pings += 1
            if self.answers_pings and not self._is_closing:
                self.send_bytes(frame(FIN | Opcode.PONG, message))
        elif opcode != Opcode.PONG:
            self.messages += 1
            self.on_message(opcode, message)

    @property
    def is_compressed(self) -> bool:
        """Tell whether compression was agreed on."""
        return b"permessage-deflate" in self.head

    @property
    def cookie(self) -> str | None:
        """Return the header line that brings the session back, if the server gave one."""
        match = _COOKIE.search(self.head)
        return None if match is None else f"Cookie: {match.group(1).decode()}"

    # --- details ------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self.swarm.counts[self.phase] -= 1
        self.swarm.counts[phase] += 1
        self.phase = phase

    def _end(self, ending: str) -> None:
        if self.phase is Phase.ENDED:
            return
        self.ending = ending
        self.ended_at = time.monotonic()
        self._outgoing.clear()
        self._set_interest(0)
        self.socket.close()
        self._enter(Phase.ENDED)
        self.swarm.clients.discard(self)
        self.on_end()

    def _update_interest(self) -> None:
        if self.phase is not Phase.ENDED:
            writes = WRITE if self._outgoing or self.phase is Phase.CONNECTING else 0
            self._set_interest(writes | (READ if self._is_reading else 0))

    def _set_interest(self, interest: int) -> None:
        selector = self.swarm.selector
        if interest == self._interest:
            return
        if not interest:
            selector.unregister(self.socket)
        elif not self._interest:
            selector.register(self.socket, interest, self)
        else:
            selector.modify(self.socket, interest, self)
        self._interest = interest


def has_ended(client: Client) -> bool:
    """Tell whether a client has come to its end."""
    return client.phase is Phase.ENDED
