"""Compressing and inflating the messages of one connection (RFC 7692, 7.2).

    Compressor   one message in, its compressed form out
    Inflater     a message in pieces, as they arrive; bounded in size, steps and rate

Not for: what was agreed on with the peer (``deflate.py``, which also has the memory figures).
"""

from __future__ import annotations

import zlib
from collections import deque

from websocket.errors import FrameTooLarge, InvalidPayload, PolicyViolation, ProtocolError
from websocket.limits import KIB
from websocket.masking import Bytes
from websocket.ratelimit import TokenBucket

# RFC 7692, 7.2.1: what a flush ends with, and a message leaves out.
_FLUSH_TAIL = b"\x00\x00\xff\xff"
# RFC 7692, 7.2.3.6: the header of an empty block, however zlib would answer a flush of nothing.
_EMPTY_MESSAGE = b"\x00"
_EMPTY_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"

# Bytes to take in and to put out at once. More would be a tenth faster with long messages only.
_STEP = 8 * KIB
# What a message of up to a step may inflate to in one go.
_AT_ONCE = 64 * KIB
# Enough to end one in each of many flushes with a final block. Each costs a new inflater and a
# copy of the rest of the step.
_MAX_FINAL_BLOCKS = 256


class Compressor:
    """Compress messages; without takeover one for all connections, with it one for each.

    With takeover it belongs to the reactor's thread, and what ``compress`` returns must be sent,
    in that order: the peer's window has to stay the same as ours. Without, any thread may use it,
    and equal payloads become equal bytes.

    Args:
        bits: the window's size, as a power of two: 9 to 15.
        level: zlib's compression level: 1 to 9.
        memory_level: zlib's memory level: 1 to 9.
        keeps_context: True where messages may refer to earlier ones.
    """

    __slots__ = ("_flush_mode", "_idle", "_settings")

    def __init__(self, bits: int, level: int, memory_level: int, *, keeps_context: bool) -> None:
        self._settings = (level, zlib.DEFLATED, -bits, memory_level)
        # A full flush makes zlib forget all that went before, for less than a new stream costs.
        self._flush_mode = zlib.Z_SYNC_FLUSH if keeps_context else zlib.Z_FULL_FLUSH
        # Taken out for a message, put back after its flush: a stream that an exception, Ctrl-C
        # for example, has interrupted holds half a message, and must not add it to another
        # connection's. And no two threads hold the same one.
        self._idle: deque[zlib._Compress] = deque(maxlen=1)

    @property
    def keeps_context(self) -> bool:
        """Tell whether messages may refer to earlier ones: then all must be sent, in order."""
        return self._flush_mode == zlib.Z_SYNC_FLUSH

    def compress(self, payload: bytes) -> bytes:
        """Return the compressed form of a whole message (RFC 7692, 7.2.1)."""
        if not payload:
            return _EMPTY_MESSAGE
        try:
            stream = self._idle.pop()
        except IndexError:
            stream = zlib.compressobj(*self._settings)
        compressed = stream.compress(payload)
        compressed += stream.flush(self._flush_mode)[: -len(_FLUSH_TAIL)]
        self._idle.append(stream)
        return compressed


class Inflater:
    """Inflate the messages of one peer, each piece as it arrives.

    To be used from the reactor's thread only. Nothing is kept between messages but, with
    takeover, the peer's window. When a method raises, the peer has broken a rule, the message is
    forgotten, and the connection must be failed.

    A reference beyond the agreed window fails where zlib has to look it up in the window. Within
    a step of 8 KiB it finds the bytes in the output, and they are the right ones.

    Args:
        bits: the window's size, as a power of two: 8 to 15.
        keeps_context: True where the peer may refer to its earlier messages.
        budget: how many bytes may come out a second; None for any number.
        now: the present time in seconds.

    Attributes:
        now: the time by which the budget is refilled; to be set once for every read.
        since: when that which is read may have come at the earliest, likewise; None for ``now``.
    """

    __slots__ = (
        "_bits",
        "_budget",
        "_final_blocks",
        "_history",
        "_keeps_context",
        "_stream",
        "now",
        "since",
    )

    def __init__(
        self, bits: int, *, keeps_context: bool, budget: TokenBucket | None, now: float
    ) -> None:
        self._bits = bits
        self._keeps_context = keeps_context
        self._budget = budget
        self._history = b""
        self._stream: zlib._Decompress | None = None
        self._final_blocks = 0
        self.now = now
        self.since: float | None = None

    def inflate(self, payload: bytes, room: int) -> bytes:
        """Inflate a message that has come whole; ``feed`` and ``end`` for all of it.

        Args:
            payload: of the message.
            room: how many bytes the message may have.

        Raises:
            ProtocolError: as ``feed`` and ``end``.
        """
        message = self._inflate_at_once(payload, room) if len(payload) <= _STEP else None
        if message is None:
            message = self.feed(payload, room)
            message += self.end(room - len(message))
        return message

    def _inflate_at_once(self, payload: bytes, room: int) -> bytes | None:
        """Inflate a short message without a flaw; None for any other, and nothing has changed.

        Most messages need no steps, and those that do are short enough to begin again.
        """
        stream, self._stream = self._new_stream(), None
        max_length = min(_AT_ONCE, room) + 1
        try:
            message = stream.decompress(payload + _FLUSH_TAIL, max_length)
        except zlib.error:
            return None
        is_cut = len(message) == max_length or stream.unconsumed_tail
        if is_cut or stream.eof or not _is_between_blocks(stream):
            return None
        try:
            self._take(message, room - len(message))
        except ProtocolError:
            self.discard()
            raise
        return message

    def feed(self, piece: Bytes, room: int) -> bytes:
        """Inflate a piece of a message.

        Args:
            piece: some of the payload, of any size.
            room: how many bytes the message may still grow by; no more than one beyond them is
                ever inflated.

        Raises:
            FrameTooLarge: the message is larger, or made of too many streams.
            InvalidPayload: the piece is no DEFLATE data, or refers to what is not there.
            PolicyViolation: the peer's messages inflate to more bytes a second than allowed.
        """
        parts: list[bytes] = []
        try:
            # In steps of the input, too: zlib copies what it has not consumed at every call.
            for at in range(0, len(piece), _STEP):
                room = self._inflate(piece[at : at + _STEP], room, parts)
        except ProtocolError:
            self.discard()
            raise
        return b"".join(parts)

    def end(self, room: int) -> bytes:
        """Complete the message; returns and raises as ``feed`` does.

        Raises:
            InvalidPayload: the message was cut off.
        """
        output = b""
        # Nothing is missing where nothing came, as some senders have it for an empty message, or
        # nothing after a final block.
        if self._stream is not None:
            # RFC 7692, 7.2.2: append what the sender has left out.
            output = self.feed(_FLUSH_TAIL, room)
            if self._stream is not None and not _is_between_blocks(self._stream):
                self.discard()
                raise InvalidPayload("compressed message is cut off")
        self._stream = None
        self._final_blocks = 0
        return output

    def discard(self) -> None:
        """Forget the message that is incomplete, and all earlier ones."""
        self._stream = None
        self._history = b""
        self._final_blocks = 0

    def _inflate(self, data: Bytes, room: int, parts: list[bytes]) -> int:
        """Append to ``parts`` what ``data`` holds; return the room that is left."""
        is_pending = len(data) > 0
        while is_pending:
            stream = self._stream or self._new_stream()
            # Never 0, which would mean no limit at all.
            max_length = max(1, min(_STEP, room + 1))
            try:
                part = stream.decompress(data, max_length)
            except zlib.error:
                raise InvalidPayload("compressed data is malformed") from None
            if part:
                room -= len(part)
                self._take(part, room)
                parts.append(part)
            data = stream.unconsumed_tail
            if stream.eof:
                data = stream.unused_data
                self._end_stream()
            # What did not fit may wait inside zlib when all input is consumed; and behind it the
            # end of a final block, which must not be looked for in the tail.
            is_pending = len(data) > 0 or (len(part) == max_length and not stream.eof)
        return room

    def _take(self, part: bytes, room: int) -> None:
        """Judge the size of what came out, and remember it where the peer may refer to it."""
        if room < 0:
            raise FrameTooLarge("message inflates to more than the size limit")
        budget = self._budget
        if budget is not None and not budget.take(self.now, len(part), self.since):
            raise PolicyViolation("messages inflate to too many bytes a second")
        if self._keeps_context:
            window = 1 << self._bits
            self._history = (self._history + part[-window:])[-window:]

    def _new_stream(self) -> zlib._Decompress:
        """Begin a message, or what follows a final block.

        Always a new stream: what another message or connection has left in a window must never
        be within the reach of a peer's references. It costs 0.2 microseconds, less than to copy
        a stream that was never used; and a history put in costs less memory than a stream kept.
        """
        if self._history:
            self._stream = zlib.decompressobj(wbits=-self._bits, zdict=self._history)
        else:
            self._stream = zlib.decompressobj(wbits=-self._bits)
        return self._stream

    def _end_stream(self) -> None:
        """Leave the stream that a final block has ended (RFC 7692, 7.2.3.4)."""
        self._stream = None
        self._final_blocks += 1
        if self._final_blocks > _MAX_FINAL_BLOCKS:
            raise FrameTooLarge("message is made of too many compressed streams")


def _is_between_blocks(stream: zlib._Decompress) -> bool:
    """Tell whether a stream has nothing begun; it is of no use afterwards.

    zlib does not say where it stands. But only there a final empty block is nothing else than
    the end.
    """
    try:
        output = stream.decompress(_EMPTY_FINAL_BLOCK, 1)
    except zlib.error:
        return False
    return stream.eof and not output and not stream.unused_data
