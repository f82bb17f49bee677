"""Frames to bytes, for both roles (RFC 6455, 5.2).

A frame leaves as one buffer when it is short, and as header and payload side by side when it
is long, so that a large payload is never copied to be joined to its header.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

from websocket import speedups
from websocket.frame import FIN, MASK, RSV1, Frame
from websocket.masking import apply_mask
from websocket.opcodes import Opcode

if TYPE_CHECKING:
    from websocket.deflate_codec import Compressor

# What users may send: text, or anything bytes-like.
Payload = Union[str, bytes, bytearray, memoryview]

# From here on the copy costs more than a second entry in the gather list of sendmsg.
_JOIN_LIMIT = 16 * 1024

_TEXT_HEAD = int(FIN | Opcode.TEXT)
_BINARY_HEAD = int(FIN | Opcode.BINARY)

# The two-octet header of every short final frame that a server sends, ready made.
_SHORT_HEADERS = {
    head: tuple(bytes((head, length)) for length in range(126))
    for head in (0x81, 0x82, 0x88, 0x89, 0x8A)
}


class FrameWriter:
    """Encode the frames of one role. Stateless: may be shared, and used from any thread.

    Args:
        masks: True for a client, which masks every frame with a fresh key from the operating
            system (RFC 6455, 5.3 and 10.3).

    Attributes:
        frame_message: encodes a message in one uncompressed frame; takes and raises what
            ``encode_message`` does, returns what ``encode`` does.
    """

    __slots__ = ("_masks", "frame_message")

    def __init__(self, *, masks: bool) -> None:
        self._masks = masks
        self.frame_message: Callable[[Payload], tuple[bytes, ...]] = (
            self._mask_message if masks else frame_message
        )

    def encode(self, head: int, payload: bytes) -> tuple[bytes, ...]:
        """Encode one frame.

        Args:
            head: the first octet: FIN, RSV1-3 and opcode.
            payload: the unmasked payload.

        Returns:
            The frame in one or two buffers.
        """
        length = len(payload)
        if self._masks:
            key = os.urandom(4)
            header = _header(head, length, MASK) + key
            payload = apply_mask(payload, key)
        elif length < 126 and head in _SHORT_HEADERS:
            return (_SHORT_HEADERS[head][length] + payload,)
        else:
            header = _header(head, length, 0)
        if length < _JOIN_LIMIT:
            return (header + payload,)
        return (header, payload)

    def encode_compressed(
        self, head: int, payload: bytes, compressor: Compressor
    ) -> tuple[bytes, ...]:
        """Encode one message in one frame, compressed if that makes it shorter; see ``encode``."""
        compressed = compressor.compress(payload)
        # With takeover the peer must get whatever the compressor has seen. Otherwise what does
        # not become shorter goes as it is, and stays within the peer's limit if it was.
        if compressor.keeps_context or len(compressed) < len(payload):
            # RFC 7692, 6: RSV1 on the first frame of a message says that it is compressed.
            return self.encode(head | RSV1, compressed)
        return self.encode(head, payload)

    def _mask_message(self, message: Payload) -> tuple[bytes, ...]:
        return self.encode(*encode_message(message))

    def encode_frame(self, frame: Frame) -> bytes:
        """Encode a ``Frame`` into one buffer; its own mask, if any, is used for a client."""
        if self._masks and frame.mask is not None:
            header = _header(frame.head, len(frame.payload), MASK)
            return header + frame.mask + apply_mask(frame.payload, frame.mask)
        return b"".join(self.encode(frame.head, frame.payload))


def encode_message(message: Payload) -> tuple[int, bytes]:
    """Return the first octet and the payload of the one frame that carries a message.

    Raises:
        TypeError: neither str nor bytes-like.
        ValueError: text that UTF-8 cannot encode (a lone surrogate).
    """
    if isinstance(message, str):
        return _TEXT_HEAD, message.encode()
    if type(message) is bytes:
        return _BINARY_HEAD, message
    if isinstance(message, (bytes, bytearray, memoryview)):
        # Copied: the caller may change it before it is on the wire.
        return _BINARY_HEAD, bytes(message)
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


def frame_message_pure(message: Payload) -> tuple[bytes, ...]:
    """Encode a message in one unmasked, uncompressed frame: ``FrameWriter.frame_message``."""
    # By type first: a call less for what nearly all messages are.
    if type(message) is bytes:
        head, payload = _BINARY_HEAD, message
    elif type(message) is str:
        head, payload = _TEXT_HEAD, message.encode()
    else:
        head, payload = encode_message(message)
    length = len(payload)
    if length < 126:
        return (_SHORT_HEADERS[head][length] + payload,)
    if length < _JOIN_LIMIT:
        return (_header(head, length, 0) + payload,)
    return (_header(head, length, 0), payload)


frame_message = speedups.frame_message or frame_message_pure
"""``frame_message_pure``, or its twin of the accelerator."""


def _header(head: int, length: int, mask: int) -> bytes:
    """Return the header up to the masking key, the length in its shortest form."""
    if length < 126:
        return bytes((head, mask | length))
    if length < 0x10000:
        return bytes((head, mask | 126)) + length.to_bytes(2, "big")
    return bytes((head, mask | 127)) + length.to_bytes(8, "big")
