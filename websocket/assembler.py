"""Fragments to messages: order, size and UTF-8 (RFC 6455, 5.4, 8.1 and 10.4).

The frame reader reports each data frame as it arrives::

    judge(head, length)     the length is known: order and size are judged; nothing changes
    begin(head, length)     the header is complete
    append(piece)*          some of the payload, unmasked: text is checked at once
    end(head) -> message    the frame is complete: a message, or None when more must follow

Memory: a list of chunks, which exists only while a message is incomplete. Small pieces share a
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
from websocket.opcodes import Opcode

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")
# RFC 3629, 3: what would encode U+D800 to U+DFFF is not UTF-8.
_SURROGATES_BEGIN, _SURROGATES_END = b"\xed\xa0", b"\xee"

Message = Union[str, bytes]

# Smaller pieces are put together: a list of one-byte pieces would take sixty times their size.
_CHUNK_SIZE = 16 * KIB
# At the most, see deflate.py.
_INFLATER_SIZE = 40 * KIB
# Stands for the chunks of no message: shared by all idle connections, and never added to.
_NO_CHUNKS: list[bytes | bytearray] = []


class Assembler:
    """Put the data frames of one connection together.

    Attributes:
        is_open: a message has begun and is not complete.
        begun: how many messages have begun through this object; tells one from the next.
        inflater: inflates messages with RSV1; None where compression was not agreed on.
    """

    __slots__ = (
        "_chunks",
        "_decoder",
        "_fragments",
        "_held",
        "_is_compressed",
        "_limits",
        "_size",
        "begun",
        "inflater",
        "is_open",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.is_open = False
        self.begun = 0
        self.inflater: Inflater | None = None
        self._is_compressed = False
        self._chunks: list[bytes | bytearray] = _NO_CHUNKS
        self._held = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragments = 0
        self._size = 0

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
        limits = self._limits
        # RFC 6455, 5.4: fragments of one message MUST NOT be interleaved with another one's.
        if (head & OPCODE == Opcode.CONTINUATION) != self.is_open:
            if self.is_open:
                raise InvalidFrame("new message inside a fragmented one")
            raise InvalidFrame("continuation frame continues nothing")
        if self.is_open and self._fragments >= limits.max_fragments:
            raise PolicyViolation("too many fragments", cause=Cause.TOO_MANY_FRAGMENTS)
        if length + (self._size if self.is_open else 0) > self._wire_limit(head):
            raise FrameTooLarge(f"message is larger than {limits.max_message_size} bytes")

    def _wire_limit(self, head: int) -> int:
        """Return how many bytes the payloads of a message may have before it is inflated."""
        limit = self._limits.max_message_size
        if self._is_compressed if self.is_open else head & RSV1:
            # What cannot be compressed grows: by an eighth where each literal takes nine bits, by
            # headers of blocks where there are few of them.
            return limit + limit // 8 + 64
        return limit

    def begin(self, head: int, length: int) -> None:
        """Take note of a data frame that ``judge`` let pass."""
        if not self.is_open:
            self.is_open = True
            self.begun += 1
            self._chunks = []
            self._held = 0
            is_text = head & OPCODE == Opcode.TEXT
            self._decoder = _new_utf8_decoder() if is_text else None
            self._is_compressed = bool(head & RSV1)
            self._fragments = 0
            self._size = 0
        self._fragments += 1
        self._size += length

    def append(self, piece: Bytes) -> None:
        """Take some of the payload of the frame that has begun.

        Raises:
            InvalidPayload: text cannot become valid UTF-8 any more, or the compressed data is
                malformed.
            FrameTooLarge: compressed data inflates to more than the size limit.
            PolicyViolation: it inflates to too much a second.
        """
        if self._is_compressed:
            assert self.inflater is not None
            piece = self.inflater.feed(piece, self._room())
        self._take(piece)

    def _take(self, piece: Bytes) -> None:
        chunks = self._chunks
        self._held += len(piece)
        if len(piece) >= _CHUNK_SIZE:
            chunks.append(bytes(piece))
        elif chunks and isinstance(chunks[-1], bytearray) and len(chunks[-1]) < _CHUNK_SIZE:
            chunks[-1] += piece
        else:
            chunks.append(bytearray(piece))
        if self._decoder is not None:
            # RFC 6455, 8.1: fail as soon as the octets so far cannot be valid.
            self._check_text(piece, is_final=False)

    def end(self, head: int) -> tuple[int, Message] | None:
        """Complete the frame that has begun.

        Returns:
            Opcode and message when this was its last frame, else None.

        Raises:
            ProtocolError: as ``append``; or the text ends inside a character.
        """
        if not head & FIN:
            return None
        if self._is_compressed:
            assert self.inflater is not None
            self._take(self.inflater.end(self._room()))
        is_text = self._decoder is not None
        if is_text:
            self._check_text(b"", is_final=True)
        message = b"".join(self._chunks)
        self._close()
        if is_text:
            return Opcode.TEXT, message.decode()
        return Opcode.BINARY, message

    def discard(self) -> None:
        """Forget the message that is incomplete, and whatever the inflater remembers."""
        self._close()
        if self.inflater is not None:
            self.inflater.discard()

    @property
    def size(self) -> int:
        """Bytes that are kept of the message that is incomplete, the inflater's included."""
        if not self.is_open:
            return 0
        return self._held + _INFLATER_SIZE if self._is_compressed else self._held

    def _room(self) -> int:
        return self._limits.max_message_size - self._held

    def _close(self) -> None:
        self.is_open = False
        self._chunks = _NO_CHUNKS
        self._decoder = None

    def _check_text(self, piece: Bytes, *, is_final: bool) -> None:
        decoder = self._decoder
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
