"""The check of the binary message envelope (``websocket/message.py``)."""

from __future__ import annotations

import random
import struct

from fuzzing.properties import mostly_first, require, require_equal
from websocket.errors import EnvelopeError
from websocket.message import ErrorCode, Message, MessageOpcode

DICTIONARY = (
    b"WEBS\x01",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\x01\x00\x00\x00",
    b"\x01\x00\x00\x01",
    b'{"code":-1,"message":"m","details":null}',
    b'"code":',
    b'"message":',
    b"[" * 64,
    b"1e999",
    b"NaN",
    b"\\ud800",
)

_PAYLOADS = (
    b"payload",
    b"",
    b'{"code":-3,"message":"invalid opcode","details":{"opcode":12}}',
    b'{"code":1.5,"message":[]}',
    b"\xff\xfe",
)


def generate_envelope(source: random.Random) -> bytes:
    """Return an envelope, most times a right one."""
    payload = source.choice(_PAYLOADS)
    header = struct.pack(
        ">4sBBqI",
        mostly_first(source, (b"WEBS", b"webs")),
        mostly_first(source, (1, 0, 2)),
        mostly_first(source, (source.randint(1, 11), 0, 12, 255)),
        mostly_first(source, (source.getrandbits(62), 0, 2**63 - 1, -1, -(2**63))),
        mostly_first(source, (len(payload), len(payload) + 1, 0, 16 * 1024 * 1024, 2**32 - 1)),
    )
    return header + payload


def check_envelope(data: bytes) -> None:
    """Decode bytes; what can be decoded encodes to the same bytes."""
    try:
        message = Message.decode(data)
    except EnvelopeError as error:
        require(error.code in set(ErrorCode), f"{error.code} is no code of an envelope's error")
        return
    require_equal("decoded and encoded", message.encode(), data)
    require_equal("decoded from a view", Message.decode(memoryview(data)), message)
    if message.opcode is MessageOpcode.PING:
        pong = Message.decode(Message.pong_for(message).encode())
        require_equal("the pong's timestamp", pong.timestamp, message.timestamp)
    if message.opcode is MessageOpcode.ERROR:
        _check_error(message)


def _check_error(message: Message) -> None:
    """Read what an error says; what can be read can be said again."""
    try:
        code, text, details = message.error_details()
    except EnvelopeError:
        return
    try:
        again = Message.error(code, text, details)
    except (ValueError, RecursionError):
        # Python reads NaN in JSON, and nests deeper, than it is willing to write.
        return
    require_equal("the error's code", again.error_details().code, code)
    require_equal("the error's text", again.error_details().message, text)
