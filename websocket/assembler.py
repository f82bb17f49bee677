"""Fragments to messages: order, size and UTF-8 (RFC 6455, 5.4, 8.1 and 10.4).

The frame reader reports each data frame as it arrives::

    judge(head, length)     the length is known: order and size are judged; nothing changes
    begin(head, length)     the header is complete
    append(piece)*          some of the payload, unmasked: text is checked at once
    end(head) -> message    the frame is complete: a message, or None when more must follow

Memory: what is known of a message exists only while it is incomplete. Small pieces share a
chunk, large ones are chunks as they are: however a message is cut, its bytes are held once, with
next to nothing around them, and nothing is allocated for a length that was only declared.

A message with RSV1 is compressed (RFC 7692): it is inflated piece by piece, and the size limit
and UTF-8 are judged by what comes out.
"""

from __future__ import annotations

import codecs
from typing import Union

from websocket.causes import Cause
from websocket.deflate_codec import Inflater
from websocket.errors import FrameTooLarge, InvalidFrame, InvalidPayload, PolicyViolation
from websocket.frame import FIN, OPCODE, RSV1
from websocket.limits import KIB, Limits
from websocket.masking import Bytes
from websocket.opcodes import BINARY, CONTINUATION, TEXT

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")
# RFC 3629, 3: what would encode U+D800 to U+DFFF is not UTF-8.
_SURROGATES_BEGIN, _SURROGATES_END = b"\xed\xa0", b"\xee"

Message = Union[str, bytes]

# Smaller pieces are put together: a list of one-byte pieces would take sixty times their size.
_CHUNK_SIZE = 16 * KIB
# At the most, see deflate.py.
_INFLATER_SIZE = 40 * KIB


class _Incomplete:
    """Hold what there is of a message.

    Attributes:
        chunks: its bytes, inflated.
        held: how many they are.
        decoder: checks them if it is text.
        is_compressed: it is to be inflated.
        fragments: how many of its frames have begun.
        head: the first octet of the last of these.
        size: what these have declared, in bytes.
    """

    __slots__ = ("chunks", "decoder", "fragments", "head", "held", "is_compressed", "size")

    def __init__(self, head: int) -> None:
        self.chunks: list[bytes | bytearray] = []
        self.held = 0
        is_text = head & OPCODE == TEXT
        self.decoder: codecs.IncrementalDecoder | None = _new_utf8_decoder() if is_text else None
        self.is_compressed = bool(head & RSV1)
        self.fragments = 0
        self.head = head
        self.size = 0


class Assembler:
    """Put the data frames of one connection together.

    Attributes:
        begun: how many messages have begun through this object; tells one from the next.
        inflater: inflates messages with RSV1; None where compression was not agreed on.
    """

    # Nearly always there is no incomplete message, and so there are few slots.
    __slots__ = ("_limits", "_message", "begun", "inflater")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._message: _Incomplete | None = None
        self.begun = 0
        self.inflater: Inflater | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether a message has begun and is not complete."""
        return self._message is not None

    @property
    def head(self) -> int:
        """The first octet of the frame that has begun."""
        assert self._message is not None
        return self._message.head

    def judge(self, head: int, length: int) -> None:
        """Judge whether a data frame may come now; changes nothing.

        Args:
            head: the first octet.
            length: the declared length of the payload.

        Raises:
            InvalidFrame: a continuation of nothing, or a new message inside another one.
            PolicyViolation: more fragments than the limit.
            FrameTooLarge: with this frame the message would cross the size limit.
        """
        limits, message = self._limits, self._message
        # RFC 6455, 5.4: fragments of one message MUST NOT be interleaved with another one's.
        if message is None:
            if head & OPCODE == CONTINUATION:
                raise InvalidFrame("continuation frame continues nothing")
            size, is_compressed = length, bool(head & RSV1)
        else:
            if head & OPCODE != CONTINUATION:
                raise InvalidFrame("new message inside a fragmented one")
            if message.fragments >= limits.max_fragments:
                raise PolicyViolation("too many fragments", cause=Cause.TOO_MANY_FRAGMENTS)
            size, is_compressed = length + message.size, message.is_compressed
        if size > self._wire_limit(is_compressed):
            raise FrameTooLarge(f"message is larger than {limits.max_message_size} bytes")

    def _wire_limit(self, is_compressed: bool) -> int:
        """Return how many bytes the payloads of a message may have before it is inflated."""
        limit = self._limits.max_message_size
        if is_compressed:
            # What cannot be compressed grows: by an eighth where each literal takes nine bits, by
            # headers of blocks where there are few of them.
            return limit + limit // 8 + 64
        return limit

    def begin(self, head: int, length: int) -> None:
        """Take note of a data frame that ``judge`` let pass."""
        message = self._message
        if message is None:
            message = self._message = _Incomplete(head)
            self.begun += 1
        message.head = head
        message.fragments += 1
        message.size += length

    def append(self, piece: Bytes) -> None:
        """Take some of the payload of the frame that has begun.

        Raises:
            InvalidPayload: text cannot become valid UTF-8 any more, or the compressed data is
                malformed.
            FrameTooLarge: compressed data inflates to more than the size limit.
            PolicyViolation: it inflates to too much a second.
        """
        message = self._message
        assert message is not None
        if message.is_compressed:
            assert self.inflater is not None
            piece = self.inflater.feed(piece, self._room(message))
        _take(message, piece)

    def end(self, head: int) -> tuple[int, Message] | None:
        """Complete the frame that has begun.

        Returns:
            Opcode and message when this was its last frame, else None.

        Raises:
            ProtocolError: as ``append``; or the text ends inside a character.
        """
        if not head & FIN:
            return None
        message = self._message
        assert message is not None
        if message.is_compressed:
            assert self.inflater is not None
            _take(message, self.inflater.end(self._room(message)))
        is_text = message.decoder is not None
        if is_text:
            _check_text(message, b"", is_final=True)
        payload = b"".join(message.chunks)
        self._message = None
        if is_text:
            return TEXT, payload.decode()
        return BINARY, payload

    def discard(self) -> None:
        """Forget the message that is incomplete, and whatever the inflater remembers."""
        self._message = None
        if self.inflater is not None:
            self.inflater.discard()

    @property
    def size(self) -> int:
        """Bytes that are kept of the message that is incomplete, the inflater's included."""
        message = self._message
        if message is None:
            return 0
        return message.held + _INFLATER_SIZE if message.is_compressed else message.held

    def _room(self, message: _Incomplete) -> int:
        return self._limits.max_message_size - message.held


def _take(message: _Incomplete, piece: Bytes) -> None:
    """Add bytes of the payload, inflated."""
    chunks = message.chunks
    message.held += len(piece)
    if len(piece) >= _CHUNK_SIZE:
        chunks.append(bytes(piece))
    elif chunks and isinstance(chunks[-1], bytearray) and len(chunks[-1]) < _CHUNK_SIZE:
        chunks[-1] += piece
    else:
        chunks.append(bytearray(piece))
    if message.decoder is not None:
        # RFC 6455, 8.1: fail as soon as the octets so far cannot be valid.
        _check_text(message, piece, is_final=False)


def _check_text(message: _Incomplete, piece: Bytes, *, is_final: bool) -> None:
    decoder = message.decoder
    assert decoder is not None
    try:
        decoder.decode(bytes(piece), is_final)
    except UnicodeDecodeError:
        raise invalid_text() from None
    # Python's decoder awaits the third octet of a surrogate; the second one tells.
    if _SURROGATES_BEGIN <= decoder.getstate()[0] < _SURROGATES_END:
        raise invalid_text()


def invalid_text() -> InvalidPayload:
    """Return the error for text that is not UTF-8."""
    return InvalidPayload("text is not valid UTF-8")
