"""Bytes to messages and control frames, for both roles (RFC 6455, section 5).

The reader finds the frames, has them judged as soon as enough of the header is there, and
passes fragments through an ``Assembler``. It holds no payload itself: what has arrived of an
incomplete data frame lies unmasked in the assembler, so the reader never keeps more than a
header and a control frame (139 bytes). The result is the same however the bytes are split,
and the work is linear in their number.

Messages that come whole in one frame, nearly all of them in practice, take the straight path
(``plain_frames.py``) while nothing is incomplete; from the first frame on that it does not take,
the rules here apply.
"""

from __future__ import annotations

import sys

from websocket.assembler import Assembler, Message, invalid_text
from websocket.errors import ProtocolError
from websocket.frame import (
    FIN,
    MASK,
    OPCODE,
    RSV1,
    judge_control,
    judge_extended_length,
    judge_head,
    judge_masking,
)
from websocket.limits import KIB
from websocket.masking import Bytes, apply_mask, rotate_key
from websocket.opcodes import BINARY, CLOSE, CONTINUATION
from websocket.plain_frames import read_plain_frames

_KEY_SIZE = 4
_EXTENDED_SIZES = {126: 2, 127: 8}
_MORE = -1
# From here on a frame is worth a look before the read that it came in is copied.
_LARGE = 16 * KIB


class FrameReader:
    """Read the frames of one peer.

    Args:
        assembler: puts fragments together and knows the limits.
        must_be_masked: True where the peer is a client (RFC 6455, 5.1).
        max_message_size: bytes in a message.
        max_items: how many small frames to read in one go. The bytes of further ones stay as they
            are: a read may hold 40,000 of them, and others wait meanwhile.

    Attributes:
        error: what the peer did wrong, once it has; nothing is read from then on.
        is_between: no frame and no message is incomplete, and no end was reached.
        is_behind: there was more than ``max_items``; ``feed`` no bytes to read on.
        is_finished: a close frame was read; nothing is read from then on (RFC 6455, 5.5.1).
        is_followed: there was something behind it all the same.
    """

    __slots__ = (
        "_assembler",
        "_is_masked",
        "_key",
        "_missing",
        "_rest",
        "_max_items",
        "_whole_limit",
        "error",
        "is_behind",
        "is_between",
        "is_finished",
        "is_followed",
    )

    def __init__(
        self,
        assembler: Assembler,
        *,
        must_be_masked: bool,
        max_message_size: int,
        max_items: int = sys.maxsize,
    ) -> None:
        self._assembler = assembler
        self._is_masked = must_be_masked
        self._whole_limit = max_message_size
        self._max_items = max_items
        self.is_between = True
        self.is_behind = False
        self._rest = b""
        self._key = b""
        self._missing = 0
        self.error: ProtocolError | None = None
        self.is_finished = self.is_followed = False

    def feed(self, data: Bytes, size: int = -1) -> list[tuple[int, Message]]:
        """Read bytes from the peer.

        Args:
            data: what arrived, in any pieces. Nothing of it is kept by reference.
            size: how many bytes of ``data`` to read, from the first on; all by default.

        Returns:
            The messages and control frames that became complete, in order, as pairs: TEXT
            with str, BINARY, CLOSE, PING or PONG with bytes. When ``error`` is set
            afterwards, they came before the offence and are good.
        """
        items: list[tuple[int, Message]] = []
        at = 0
        if size < 0:
            size = len(data)
        if self.is_between:
            at = read_plain_frames(
                data, 0, size, self._is_masked, self._whole_limit, self._max_items, items
            )
            if at == size:
                return items
        if self.error is None and not self.is_finished and (at < size or self.is_behind):
            self._feed(data[at:size], items)
        return items

    @property
    def size(self) -> int:
        """Bytes that are kept: of frames and messages that are incomplete, or not read yet."""
        return len(self._rest) + self._assembler.size

    def stop(self) -> None:
        """Read nothing from here on, and forget what is incomplete."""
        self.is_finished = True
        self._forget()

    def _forget(self) -> None:
        self.is_between = self.is_behind = False
        self._missing = 0
        self._rest = b""
        self._assembler.discard()

    def _feed(self, data: Bytes, items: list[tuple[int, Message]]) -> None:
        """Read bytes that are not plain frames from beginning to end."""
        try:
            if self._missing:
                data = self._continue(data, items)
                if self._missing:
                    return
            if not self._rest and len(data) >= _LARGE:
                data = self._read_large(data, items)
            if len(data) or self.is_behind:
                self._read(self._rest + data, items)
        except ProtocolError as error:
            # Traceback and context would keep the input and this reader alive.
            error.__context__ = None
            self.error = error.with_traceback(None)
        if self.error is not None or self.is_finished:
            self.is_followed = bool(self._rest)
            self._forget()
        else:
            self.is_between = not (self._rest or self._missing or self._assembler.is_open)

    def _continue(self, data: Bytes, items: list[tuple[int, Message]]) -> Bytes:
        """Take what belongs to the incomplete data frame; return what does not."""
        missing = self._missing
        if len(data) < missing:
            # Nearly all pieces of a large frame: of it alone, and not the last.
            self._missing -= len(data)
            self._assembler.append(self._unmask(data, self._key))
            if len(data) & 3:
                self._key = rotate_key(self._key, len(data))
            return b""
        self._missing = 0
        self._assembler.append(self._unmask(data[:missing], self._key))
        self._end(self._assembler.head, items)
        return data[missing:]

    def _read_large(self, data: Bytes, items: list[tuple[int, Message]]) -> Bytes:
        """Read the large frames at the beginning without copying them; return what follows."""
        view = memoryview(data)
        while len(view) >= _LARGE and not self.is_finished:
            field = view[1] & ~MASK
            if field < 126 or (field == 126 and (view[2] << 8 | view[3]) < _LARGE):
                break
            view = view[self._read_frame(view, 0, items) :]
        return view

    def _read(self, data: bytes, items: list[tuple[int, Message]]) -> None:
        """Read the frames in ``data``, which begins with the first octet of one."""
        at, size, limit = 0, len(data), self._max_items
        while size - at >= 2 and not self.is_finished and len(items) < limit:
            end = self._read_frame(data, at, items)
            if end == _MORE:
                break
            at = end
            if not (self._assembler.is_open or self.is_finished):
                at = read_plain_frames(
                    data, at, size, self._is_masked, self._whole_limit, limit, items
                )
        self._rest = data[at:]
        self.is_behind = size - at >= 2 and len(items) >= limit

    def _read_frame(self, data: Bytes, at: int, items: list[tuple[int, Message]]) -> int:
        """Read one frame of any kind; return where it ends, or ``_MORE``."""
        head, second = data[at], data[at + 1]
        field = second & ~MASK
        judge_head(head, rsv1_is_allowed=self._assembler.inflater is not None)
        judge_masking(bool(second & MASK), must_be_masked=self._is_masked)
        is_control = bool(head & CLOSE)
        if is_control:
            judge_control(head, field)
        key_at = at + 2 + _EXTENDED_SIZES.get(field, 0)
        if key_at > len(data):
            return _MORE
        length = field
        if field > 125:
            length = int.from_bytes(data[at + 2 : key_at], "big")
            judge_extended_length(field, length)
        if not is_control:
            self._assembler.judge(head, length)
        start = key_at + (_KEY_SIZE if self._is_masked else 0)
        if start > len(data) or (is_control and start + length > len(data)):
            return _MORE
        self._take(head, length, bytes(data[key_at:start]), data[start : start + length], items)
        return min(start + length, len(data))

    def _take(
        self, head: int, length: int, key: bytes, piece: Bytes, items: list[tuple[int, Message]]
    ) -> None:
        """Take a frame with a complete header, and of its payload what has arrived."""
        opcode = head & OPCODE
        payload = self._unmask(piece, key)
        is_whole = len(piece) == length
        if opcode >= CLOSE:
            items.append((opcode, payload))
            self.is_finished = opcode == CLOSE
        elif is_whole and head & FIN and opcode != CONTINUATION:
            if head & RSV1:
                assert self._assembler.inflater is not None
                payload = self._assembler.inflater.inflate(payload, self._whole_limit)
            items.append((opcode, payload if opcode == BINARY else _text(payload)))
        else:
            self._assembler.begin(head, length)
            self._assembler.append(payload)
            if is_whole:
                self._end(head, items)
            else:
                self._key = rotate_key(key, len(piece))
                self._missing = length - len(piece)

    def _end(self, head: int, items: list[tuple[int, Message]]) -> None:
        message = self._assembler.end(head)
        if message is not None:
            items.append(message)

    def _unmask(self, piece: Bytes, key: bytes) -> bytes:
        return apply_mask(piece, key) if self._is_masked else bytes(piece)


def _text(payload: bytes) -> str:
    try:
        # Not str(payload, "utf-8"), which lets surrogates pass on PyPy.
        return payload.decode()
    except UnicodeDecodeError:
        raise invalid_text() from None
