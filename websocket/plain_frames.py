"""The straight path of reading: whole messages in one frame each, and nothing to object to.

Nearly every frame in practice is final, carries text or binary data uncompressed, and has come
whole. A run of such frames is read here in one go, before anything is judged: the first octet
that does not fit ends the run, and the frame reader takes over there, with all of its rules.
So nothing here raises, and nothing is decided here but "this one is good".

The C accelerator does the same faster, where it is in use: see ``speedups``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from websocket import speedups
from websocket.masking import STRIDE_THRESHOLD, Bytes, apply_mask

if TYPE_CHECKING:
    from websocket.assembler import Message

_from_bytes = int.from_bytes
_TEXT = 0x81
_BINARY = 0x82
_MASK = 0x80


def read_plain_frames_pure(
    data: Bytes,
    at: int,
    size: int,
    is_masked: bool,
    max_size: int,
    max_items: int,
    items: list[tuple[int, Message]],
) -> int:
    """Read plain frames from an offset on, as far as they go.

    Args:
        data: what arrived.
        at: where a frame begins.
        size: where what arrived ends.
        is_masked: every frame must have a masking key; else none may.
        max_size: the largest payload that is good.
        max_items: how many frames ``items`` may have in the end.
        items: gets the messages, in order: opcode TEXT with str, BINARY with bytes.

    Returns:
        Where the first frame begins that is incomplete, or not plain: for want of FIN, for its
        opcode or a reserved bit, its mask bit, its length or how that is written, its text.
        The twin in C also takes frames above 64 KiB, if they have come whole; here a copy of
        what may be the first piece of one would cost more than is gained.
    """
    if size - at < 2 or data[at + 1] & 127 == 127:
        return at
    if not isinstance(data, bytes):
        data = memoryview(data)[:size].tobytes()
    mask_bit, header_size = (_MASK, 6) if is_masked else (0, 2)
    while size - at >= header_size and len(items) < max_items:
        head = data[at]
        # With a wrong mask bit this is 128 or more.
        length = data[at + 1] ^ mask_bit
        start = at + header_size
        if length > 125:
            if length != 126 or size < start + 2:
                break
            length = data[at + 2] << 8 | data[at + 3]
            if length < 126:
                break
            start += 2
        end = start + length
        if end > size or length > max_size or (head != _BINARY and head != _TEXT):
            break
        payload = data[start:end]
        if is_masked and length < STRIDE_THRESHOLD:
            # As apply_mask does it, without the call.
            key = (data[start - 4 : start] * ((length + 3) >> 2))[:length]
            mask = _from_bytes(key, "little")
            payload = (_from_bytes(payload, "little") ^ mask).to_bytes(length, "little")
        elif is_masked:
            payload = apply_mask(payload, data[start - 4 : start])
        if head == _BINARY:
            items.append((2, payload))
        else:
            try:
                # Not str(payload, "utf-8"), which lets surrogates pass on PyPy.
                items.append((1, payload.decode()))
            except UnicodeDecodeError:
                break
        at = end
    return at


read_plain_frames = speedups.read_plain_frames or read_plain_frames_pure
"""``read_plain_frames_pure``, or its twin of the accelerator."""
