"""The checks of the frame reader, for both roles, and the generator of streams of frames.

With compression in use one thing is let pass: where a message is wrong in several ways (malformed,
too large, no text), it depends on the split which one is reported. zlib does not tell what it had
made of a piece when it finds the next octet wrong.
"""

from __future__ import annotations

import random
import struct
import zlib
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any, Optional

from fuzzing.properties import mostly_first, require, require_equal, same_for_every_split
from websocket.assembler import Assembler
from websocket.deflate_codec import Inflater
from websocket.errors import ProtocolError
from websocket.frame import FIN, MAX_CLOSE_REASON, RSV1, Frame, build_close, parse_close
from websocket.frame_reader import FrameReader
from websocket.frame_writer import FrameWriter, encode_message
from websocket.limits import Limits
from websocket.masking import apply_mask
from websocket.opcodes import CloseCode, Opcode

# The items, and of the error its name, message and close code.
Reading = tuple[list[tuple[int, Any]], Optional[tuple[str, str, CloseCode]]]

# Small enough for inputs to cross both, large enough for both ways of masking.
LIMITS = Limits(max_message_size=500, max_fragments=5)

_CODES = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.INVALID_DATA,
    CloseCode.POLICY_VIOLATION,
    CloseCode.MESSAGE_TOO_BIG,
}
# What is found in the content of a message, not in its frames.
_CODES_OF_CONTENT = {CloseCode.INVALID_DATA, CloseCode.MESSAGE_TOO_BIG}
_KEYS = (b"\x37\xfa\x21\x3d", b"\0\0\0\0", b"\xff\x00\xff\x00")
_SIZES = (5, 0, 1, 2, 60, 124, 125, 126, 127, 399, 400, 499, 500, 501)
_LETTERS = "az\x00\x7f\u0080\u07ff\u0800\ud7ff\uffff\U00010000\U0010ffff"
_CLOSES = (b"\x03\xe8", b"", b"\x03", b"\x03\xe8bye", b"\x03\xed", b"\x0f\xa0\xe2\x82", b"\x03\xf6")
_NOT_TEXT = (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x90")

DICTIONARY = (
    *(bytes((head, second)) for head in (0x81, 0x82, 0x01, 0x02, 0x00, 0x80) for second in (0, 5)),
    *(bytes((head, 0x80)) + bytes(4) for head in (0x81, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A)),
    *(bytes((head, 0x82)) + bytes(4) + b"\x03\xe8" for head in (0x88, 0x89, 0x81, 0x01)),
    *(b"\x88\x00", b"\x89\x00", b"\x8a\x01a", b"\x88\x02\x03\xe8", b"\x88\x01\x03"),
    *(b"\x7e\x00\x7e", b"\xfe\x00\x7d", b"\x7f\0\0\0\0\0\1\0\0", b"\xff\x80\0\0\0\0\0\0\0"),
    *_NOT_TEXT,
    "\u00e9\u20ac\U00010348".encode(),
    b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\xf3\x48\xcd\xc9\xc9\x07\x00",
    b"\x00\x00\xff\xff",
)


def generate_stream(
    source: random.Random, *, is_masked: bool, is_compressed: bool = False
) -> bytes:
    """Return frames of one peer: messages in fragments, control frames anywhere, a fault or none.

    Args:
        source: the randomness.
        is_masked: True for the frames of a client.
        is_compressed: True to compress most messages, with takeover.
    """
    stream = bytearray()
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    for _ in range(source.randint(1, 4)):
        head, payload = _generate_message(source)
        if is_compressed and source.random() < 0.8:
            head |= RSV1
            payload = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
            payload = payload[: mostly_first(source, (-4, None, -5))]
        cuts = sorted(source.choices(range(len(payload) + 1), k=source.choice((0, 0, 1, 2, 5))))
        for start, end in zip([0, *cuts], cuts):
            stream += _encode(source, head, payload[start:end], is_masked)
            head = Opcode.CONTINUATION
            if source.random() < 0.3:
                stream += _encode(source, *_generate_control(source), is_masked)
        stream += _encode(source, FIN | head, payload[cuts[-1] if cuts else 0 :], is_masked)
    if source.random() < 0.3:
        stream += _encode(source, FIN | Opcode.CLOSE, source.choice(_CLOSES), is_masked)
    return bytes(stream)


def _generate_message(source: random.Random) -> tuple[int, bytes]:
    size = mostly_first(source, _SIZES)
    if source.random() < 0.5:
        return Opcode.BINARY, bytes(source.choices(range(256), k=size))
    text = "".join(source.choices(_LETTERS, k=size // 2)).encode()
    return Opcode.TEXT, text + mostly_first(source, (b"", *_NOT_TEXT))


def _generate_control(source: random.Random) -> tuple[int, bytes]:
    return FIN | source.choice((Opcode.PING, Opcode.PONG)), b"x" * source.choice((0, 4, 125))


def _encode(source: random.Random, head: int, payload: bytes, is_masked: bool) -> bytes:
    """Return a frame; one in fifty is wrong in its header."""
    length = len(payload)
    is_wrong = source.random() < 0.02
    head ^= source.choice((0x80, 0x40, 0x20, 0x10, 0x04, 0x03)) if is_wrong else 0
    mask = 0x80 if is_masked ^ (source.random() < 0.005) else 0
    if length > 65_535 or source.random() < 0.01:
        header = struct.pack("!BBQ", head, mask | 127, length)
    elif length > 125 or source.random() < 0.01:
        header = struct.pack("!BBH", head, mask | 126, length)
    else:
        header = struct.pack("!BB", head, mask | length)
    if not mask:
        return header + payload
    key = source.choice(_KEYS)
    return header + key + apply_mask(payload, key)


def new_reader(limits: Limits, *, is_masked: bool, is_compressed: bool = False) -> FrameReader:
    """Return a reader of the frames of a client (masked) or of a server.

    Args:
        limits: what it obeys.
        is_masked: True for the frames of a client.
        is_compressed: compression was agreed on, with takeover.
    """
    assembler = Assembler(limits)
    if is_compressed:
        assembler.inflater = Inflater(15, keeps_context=True, budget=None, now=0.0)
    return FrameReader(
        assembler, must_be_masked=is_masked, max_message_size=limits.max_message_size
    )


def check_frames(data: bytes, *, is_masked: bool, is_compressed: bool = False) -> None:
    """Read a stream of frames; what is read can be written and read again."""
    read = partial(read_stream, is_masked=is_masked, is_compressed=is_compressed)
    items, error = same_for_every_split(read, data)
    if error is not None:
        _, reason, code = error
        require(code in _CODES, f"close code {code} is not documented")
        require(reason.isascii() and len(reason) <= MAX_CLOSE_REASON, "no reason for a close")
    for opcode, message in items:
        _check_item(opcode, message)
    written = _write(items, is_masked=is_masked)
    require_equal("written and read", read([written]), (items, None))


def read_stream(pieces: Sequence[bytes], *, is_masked: bool, is_compressed: bool) -> Reading:
    """Return the items, and the error or None."""
    reader = new_reader(LIMITS, is_masked=is_masked, is_compressed=is_compressed)
    # The memory of an array ends with its last octet: the sanitizer sees the next one read.
    items = [item for piece in pieces for item in reader.feed(memoryview(array("B", piece)))]
    if reader.error is not None or reader.is_finished:
        require_equal("what is read after the end", reader.feed(b"\x81\x00\x89\x80" * 4), [])
    error = reader.error
    if error is None:
        return items, None
    if is_compressed and error.close_code in _CODES_OF_CONTENT:
        return items, ("any", "wrong in its content", CloseCode.INVALID_DATA)
    return items, (type(error).__name__, str(error), error.close_code)


def _check_item(opcode: int, message: str | bytes) -> None:
    """Hold an item against what ``FrameReader.feed`` promises."""
    require(
        isinstance(message, str) == (opcode == Opcode.TEXT), f"opcode {opcode} with {message!r}"
    )
    encoded = message.encode() if isinstance(message, str) else message
    is_control = opcode >= Opcode.CLOSE
    limit = 125 if is_control else LIMITS.max_message_size
    require(len(encoded) <= limit, f"{len(encoded)} bytes are above the limit")
    if opcode == Opcode.CLOSE:
        assert isinstance(message, bytes)
        try:
            code, reason = parse_close(message)
        except ProtocolError as error:
            require(error.close_code in _CODES, f"{error.close_code} is not documented")
        else:
            require_equal("the close payload, written", build_close(code, reason), message)


def _write(items: Sequence[tuple[int, Any]], *, is_masked: bool) -> bytes:
    """Return the items as frames, one for each."""
    writer = FrameWriter(masks=is_masked)
    stream = b""
    for opcode, message in items:
        _, payload = encode_message(message)
        stream += writer.encode_frame(Frame(opcode, payload, mask=_KEYS[0] if is_masked else None))
    return stream
