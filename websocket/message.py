"""The binary message envelope: what travels in binary messages of the subprotocol ``webos``.

Big-endian, one envelope a WebSocket message::

    offset  size  field
         0     4  magic 57 45 42 53 ("WEBS")
         4     1  version, 1
         5     1  opcode, 1-11
         6     8  timestamp, Unix nanoseconds, not negative as a signed integer
        14     4  payload length, at most 16 MiB
        18     n  payload, and nothing after it

``decode`` judges in the order of the error codes, after making sure that there is a header::

    shorter than a header           -5 buffer too small
    wrong magic                     -1 invalid magic
    version other than 1            -2 invalid version
    opcode 0 or above 11            -3 invalid opcode
    declared length above 16 MiB    -4 payload too large
    fewer bytes than declared       -5 buffer too small
    more bytes than declared        -4 payload too large (for what its header says)
    timestamp below 0               -6 invalid timestamp

A ``Message`` obeys the same rules from its construction on, so that ``encode`` never emits
what ``decode`` refuses. Nothing is ever allocated from a declared length.

Not for: sending. ``connection.send(message.encode())`` does that. No clock is read here
either: pass ``timestamp=time.time_ns()``.
"""

from __future__ import annotations

import json
import operator
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from websocket.errors import EnvelopeError, InvalidState

SUBPROTOCOL = "webos"
MAGIC = b"WEBS"
VERSION = 1
MAX_PAYLOAD_SIZE = 16 * 1024 * 1024
# Room for any sensible description; beyond it the cost of parsing would be the peer's choice.
MAX_ERROR_SIZE = 16 * 1024

_HEADER = struct.Struct(">4sBBqI")
HEADER_SIZE = _HEADER.size
_MAX_TIMESTAMP = 2**63 - 1


class MessageOpcode(IntEnum):
    """Name what an envelope carries."""

    DISPLAY = 1
    INPUT = 2
    FILESYSTEM = 3
    NETWORK = 4
    PROCESS = 5
    AUTH = 6
    CONNECT = 7
    DISCONNECT = 8
    """Followed by the closing handshake."""
    PING = 9
    """Answered by a pong with the same timestamp."""
    PONG = 10
    ERROR = 11
    """Carries JSON: code, message, details."""


class ErrorCode(IntEnum):
    """Name what is wrong with an envelope."""

    INVALID_MAGIC = -1
    INVALID_VERSION = -2
    INVALID_OPCODE = -3
    PAYLOAD_TOO_LARGE = -4
    BUFFER_TOO_SMALL = -5
    INVALID_TIMESTAMP = -6


class ErrorDetails(NamedTuple):
    """Hold what an error message says.

    Attributes:
        code: an ``ErrorCode``, or a number that the peer made up.
        message: what went wrong, for people.
        details: any JSON value; None when the peer gave no details.
    """

    code: int
    message: str
    details: Any


@dataclass(frozen=True, init=False, repr=False)
class Message:
    """Hold one envelope; immutable, hashable, safe to share between threads.

    Args:
        opcode: a ``MessageOpcode`` or its number.
        payload: any bytes-like object of at most 16 MiB; all but ``bytes`` is copied.
        timestamp: Unix time in nanoseconds, as ``time.time_ns()`` returns it.

    Raises:
        EnvelopeError: -3, -4 or -6, judged in that order.
        TypeError: the payload is not bytes-like or the timestamp no integer.
    """

    __slots__ = ("opcode", "payload", "timestamp")

    opcode: MessageOpcode
    payload: bytes
    timestamp: int

    def __init__(
        self, opcode: int, payload: bytes | bytearray | memoryview = b"", timestamp: int = 0
    ) -> None:
        known = _known_opcode(opcode)
        _check_size(memoryview(payload).nbytes)
        timestamp = operator.index(timestamp)
        if not 0 <= timestamp <= _MAX_TIMESTAMP:
            raise EnvelopeError(
                ErrorCode.INVALID_TIMESTAMP, "the timestamp is outside 0 to 2**63-1"
            )
        # The class is frozen: attributes are set once, here.
        object.__setattr__(self, "opcode", known)
        object.__setattr__(self, "payload", bytes(payload))
        object.__setattr__(self, "timestamp", timestamp)

    @classmethod
    def error(cls, code: int, message: str, details: Any = None, timestamp: int = 0) -> Message:
        """Return an error message.

        Args:
            code: an ``ErrorCode``, or a number that the application agreed on.
            message: what went wrong, for people.
            details: any value that JSON can hold.
            timestamp: Unix time in nanoseconds.

        Raises:
            TypeError, ValueError: JSON cannot hold the details.
        """
        content = {"code": int(code), "message": message, "details": details}
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        return cls(MessageOpcode.ERROR, text.encode("ascii"), timestamp)

    @classmethod
    def pong_for(cls, ping: Message) -> Message:
        """Return the answer to a ping: the same timestamp, and the payload echoed.

        Raises:
            InvalidState: the message is no ping.
        """
        if ping.opcode is not MessageOpcode.PING:
            raise InvalidState(f"only a ping is answered by a pong, not {ping.opcode.name}")
        return cls(MessageOpcode.PONG, ping.payload, ping.timestamp)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Message:
        """Return the message that these bytes are.

        Args:
            data: one whole WebSocket message; it is copied, a view need not outlive the call.

        Raises:
            EnvelopeError: the bytes are no envelope; see the module's table for the codes.
        """
        if len(data) < HEADER_SIZE:
            raise EnvelopeError(
                ErrorCode.BUFFER_TOO_SMALL, f"{len(data)} bytes are less than a header"
            )
        magic, version, opcode, timestamp, declared = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise EnvelopeError(ErrorCode.INVALID_MAGIC, "the first four bytes are not WEBS")
        if version != VERSION:
            raise EnvelopeError(ErrorCode.INVALID_VERSION, f"version {version} is not 1")
        opcode = _known_opcode(opcode)
        _check_size(declared)
        present = len(data) - HEADER_SIZE
        if present < declared:
            raise EnvelopeError(
                ErrorCode.BUFFER_TOO_SMALL, f"{present} of {declared} payload bytes are present"
            )
        if present > declared:
            raise EnvelopeError(
                ErrorCode.PAYLOAD_TOO_LARGE, f"{present - declared} bytes follow the payload"
            )
        return cls(opcode, data[HEADER_SIZE:], timestamp)

    def encode(self) -> bytes:
        """Return the bytes to send as one binary WebSocket message."""
        header = _HEADER.pack(MAGIC, VERSION, self.opcode, self.timestamp, len(self.payload))
        return header + self.payload

    def error_details(self) -> ErrorDetails:
        """Return what this error message says.

        Raises:
            EnvelopeError: -4, the payload is above 16 KiB; -3, it is not the JSON that
                opcode 11 promises. Do not answer it: errors about errors never end.
            InvalidState: this is no error message.
        """
        if self.opcode is not MessageOpcode.ERROR:
            raise InvalidState(f"only an error has error details, not {self.opcode.name}")
        if len(self.payload) > MAX_ERROR_SIZE:
            raise EnvelopeError(ErrorCode.PAYLOAD_TOO_LARGE, "error details are above 16 KiB")
        try:
            content = json.loads(self.payload.decode("utf-8"))
        # Deep nesting ends in RecursionError; ValueError covers bad UTF-8 and bad JSON.
        except (ValueError, RecursionError):
            content = None
        if not _is_error_content(content):
            raise EnvelopeError(ErrorCode.INVALID_OPCODE, "the payload is no error in JSON")
        return ErrorDetails(content["code"], content["message"], content.get("details"))

    def __repr__(self) -> str:
        return (
            f"<Message {self.opcode.name} timestamp={self.timestamp}"
            f" payload={len(self.payload)} bytes>"
        )

    def __reduce__(self) -> tuple[type[Message], tuple[int, bytes, int]]:
        # Copying and pickling would otherwise set attributes, which a frozen class refuses.
        return type(self), (self.opcode, self.payload, self.timestamp)


def _known_opcode(number: int) -> MessageOpcode:
    """Return the opcode of that number, or raise EnvelopeError -3."""
    try:
        return MessageOpcode(number)
    except ValueError:
        raise EnvelopeError(
            ErrorCode.INVALID_OPCODE, f"opcode {number} is outside 1 to 11"
        ) from None


def _check_size(size: int) -> None:
    """Raise EnvelopeError -4 for a payload above the maximum."""
    if size > MAX_PAYLOAD_SIZE:
        raise EnvelopeError(
            ErrorCode.PAYLOAD_TOO_LARGE, f"payload of {size} bytes is above {MAX_PAYLOAD_SIZE}"
        )


def _is_error_content(content: Any) -> bool:
    """Tell whether this JSON value has the members of an error, with the right types."""
    return (
        isinstance(content, dict)
        and type(content.get("code")) is int  # a bool would pass for an int
        and isinstance(content.get("message"), str)
    )
