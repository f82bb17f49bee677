"""A reader of frames that is simple and slow: the dumb twin of the real one.

It is given all bytes at once, looks at one rule after the other in the order in which they can
be judged, joins the fragments anew for every frame, and takes UTF-8 from the grammar of the RFC
instead of from a decoder.
"""

from __future__ import annotations

import re

from frame_table import BINARY, CLOSE, TEXT, VALID_OPCODES, Item, xor_loop

from websocket.limits import Limits

# RFC 3629, 4.
_UTF8 = re.compile(
    rb"""(?: [\x00-\x7f]
    | [\xc2-\xdf] [\x80-\xbf]
    | \xe0 [\xa0-\xbf] [\x80-\xbf]
    | [\xe1-\xec] [\x80-\xbf]{2}
    | \xed [\x80-\x9f] [\x80-\xbf]
    | [\xee-\xef] [\x80-\xbf]{2}
    | \xf0 [\x90-\xbf] [\x80-\xbf]{2}
    | [\xf1-\xf3] [\x80-\xbf]{3}
    | \xf4 [\x80-\x8f] [\x80-\xbf]{2}
    )*""",
    re.VERBOSE,
)
# Whatever a character lacks, one of these completes it.
_TAILS = (b"", b"\x80", b"\x80\x80", b"\xbf\x80", b"\x80\x80\x80", b"\xbf\x80\x80")


def is_text(data: bytes) -> bool:
    """Tell whether the octets are UTF-8."""
    return _UTF8.fullmatch(data) is not None


def may_become_text(data: bytes) -> bool:
    """Tell whether the octets are UTF-8, or would be with some more."""
    return any(is_text(data + tail) for tail in _TAILS)


def read_by_hand(data: bytes, is_masked: bool, limits: Limits) -> tuple[list[Item], str]:
    """Read everything at once, slowly; return the items, and what is wrong or ``""``."""
    items: list[Item] = []
    message: list[bytes] = []
    kind = 0
    while len(data) >= 2:
        fin, bits, opcode = data[0] // 128, data[0] // 16 % 8, data[0] % 16
        if bits not in (0, 4):
            return items, "reserved bit RSV2 or RSV3 is set"
        if bits:
            return items, "reserved bit RSV1 is set"
        if opcode not in VALID_OPCODES:
            return items, f"opcode {opcode} is reserved"
        if (data[1] >= 128) != is_masked:
            return items, f"{'client frame is not' if is_masked else 'server frame is'} masked"
        length, data = data[1] % 128, data[2:]
        if opcode >= 8 and not fin:
            return items, "control frame is fragmented"
        if opcode >= 8 and length > 125:
            return items, "control frame is longer than 125 bytes"
        if length > 125:
            size, smallest = (2, 126) if length == 126 else (8, 65536)
            if len(data) < size:
                break
            length, data = int.from_bytes(data[:size], "big"), data[size:]
            if length < smallest:
                return items, "length is not in its shortest form"
            if length >= 2**63:
                return items, "most significant bit of the length is set"
        if opcode in (TEXT, BINARY):
            if kind:
                return items, "new message inside a fragmented one"
        elif opcode == 0:
            if not kind:
                return items, "continuation frame continues nothing"
            if len(message) == limits.max_fragments:
                return items, "too many fragments"
        if opcode < 8 and len(b"".join(message)) + length > limits.max_message_size:
            return items, f"message is larger than {limits.max_message_size} bytes"
        key = data[:4] if is_masked else bytes(4)
        if len(key) < 4:
            break
        data = data[4:] if is_masked else data
        payload, data = xor_loop(data[:length], key), data[length:]
        is_whole = len(payload) == length
        if opcode >= 8:
            if is_whole:
                items.append((opcode, payload))
            if opcode == CLOSE or not is_whole:
                break
            continue
        kind = opcode or kind
        message.append(payload)
        so_far = b"".join(message)
        if kind == TEXT and not (is_text if fin and is_whole else may_become_text)(so_far):
            return items, "text is not valid UTF-8"
        if not is_whole:
            break
        if fin:
            items.append((kind, so_far.decode() if kind == TEXT else so_far))
            kind, message = 0, []
    return items, ""
