"""What stands on the wire and what it means: the tables that drive reader and writer.

    ROWS            frames and the items that a reader makes of them, for both roles
    RFC_EXAMPLES    RFC 6455, 5.7, byte by byte
    CLOSES          payloads of close frames

Headers are written by hand, in hex, as a server sends them; ``on_wire`` makes a client's of
them. Nothing here uses the code under test. What must not be sent: ``offence_table.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple, Union

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
VALID_OPCODES = (0, TEXT, BINARY, CLOSE, PING, PONG)
RESERVED_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)

Item = tuple[int, Union[str, bytes]]
HandFrame = tuple[str, bytes]

KEY = bytes.fromhex("37 fa 21 3d")


def xor_loop(data: bytes, key: bytes) -> bytes:
    """Mask as RFC 6455, 5.3 writes it down."""
    return bytes([octet ^ turned for octet, turned in zip(data, cycle(key))])


def on_wire(header: str, payload: bytes | None, *, is_masked: bool) -> bytes:
    """Return a frame of a client (masked) or a server; without payload the header alone."""
    start = bytes.fromhex(header)
    if is_masked:
        start = bytes([start[0], start[1] | 0x80]) + start[2:]
    if payload is None:
        return start
    return start + (KEY + xor_loop(payload, KEY) if is_masked else payload)


def all_on_wire(frames: Sequence[HandFrame], *, is_masked: bool) -> bytes:
    return b"".join(on_wire(*frame, is_masked=is_masked) for frame in frames)


def encode_by_hand(head: int, payload: bytes, key: bytes | None) -> bytes:
    """Encode any frame, for the tests that make them at random."""
    length, mask = len(payload), 0 if key is None else 0x80
    if length > 65535:
        header = struct.pack("!BBQ", head, mask | 127, length)
    elif length > 125:
        header = struct.pack("!BBH", head, mask | 126, length)
    else:
        header = struct.pack("!BB", head, mask | length)
    return header + (payload if key is None else key + xor_loop(payload, key))


class Row(NamedTuple):
    """Frames, and the items that the reader returns for them."""

    name: str
    frames: Sequence[HandFrame]
    items: Sequence[Item]


class Example(NamedTuple):
    """Bytes that the RFC prints, and what they mean."""

    name: str
    is_masked: bool
    wire: bytes
    items: Sequence[Item]


LENGTHS = {
    0: "00",
    1: "01",
    125: "7d",
    126: "7e 00 7e",
    127: "7e 00 7f",
    65535: "7e ff ff",
    65536: "7f 00 00 00 00 00 01 00 00",
    70000: "7f 00 00 00 00 00 01 11 70",
}


def octets(length: int) -> bytes:
    """Return a payload in which no octet equals its neighbours."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


def letters(length: int) -> str:
    """Return text of two-byte characters that is ``length`` bytes long in UTF-8."""
    return "\u00e9" * (length // 2) + "!" * (length % 2)


def _binary_row(length: int) -> Row:
    payload = octets(length)
    frames = [(f"82 {LENGTHS[length]}", payload)]
    return Row(f"binary of {length} bytes", frames, [(BINARY, payload)])


def _text_row(length: int) -> Row:
    text = letters(length)
    frames = [(f"81 {LENGTHS[length]}", text.encode())]
    return Row(f"text of {length} bytes", frames, [(TEXT, text)])


def _control_rows() -> list[Row]:
    return [
        Row(
            f"opcode {opcode} with {length} bytes",
            [(f"{0x80 | opcode:02x} {LENGTHS[length]}", octets(length))],
            [(opcode, octets(length))],
        )
        for opcode in (CLOSE, PING, PONG)
        for length in (0, 1, 125)
    ]


ROWS = [
    *(_binary_row(length) for length in LENGTHS),
    *(_text_row(length) for length in (0, 1, 125, 126, 127, 70000)),
    *_control_rows(),
    Row("two messages", [("81 01", b"a"), ("82 01", b"b")], [(TEXT, "a"), (BINARY, b"b")]),
    Row(
        "every opcode in one go",
        [
            ("01 01", b"a"),
            ("80 01", b"b"),
            ("82 01", b"c"),
            ("89 01", b"d"),
            ("8a 01", b"e"),
            ("88 02", b"\x03\xe8"),
        ],
        [(TEXT, "ab"), (BINARY, b"c"), (PING, b"d"), (PONG, b"e"), (CLOSE, b"\x03\xe8")],
    ),
    Row("text in two fragments", [("01 03", b"Hel"), ("80 02", b"lo")], [(TEXT, "Hello")]),
    Row(
        "binary in three fragments",
        [("02 01", b"\xff"), ("00 01", b"\x00"), ("80 01", b"\xfe")],
        [(BINARY, b"\xff\x00\xfe")],
    ),
    Row(
        "a long fragment after a short one",
        [("02 01", b"x"), ("80 7e 00 80", octets(128))],
        [(BINARY, b"x" + octets(128))],
    ),
    Row(
        "a short fragment after a long one",
        [("02 7e 00 80", octets(128)), ("80 01", b"x")],
        [(BINARY, octets(128) + b"x")],
    ),
    Row("only empty fragments", [("01 00", b""), ("00 00", b""), ("80 00", b"")], [(TEXT, "")]),
    Row(
        "empty fragments around data",
        [("02 00", b""), ("00 00", b""), ("00 02", b"hi"), ("00 00", b""), ("80 00", b"")],
        [(BINARY, b"hi")],
    ),
    Row(
        "control frames between fragments",
        [
            ("01 01", b"a"),
            ("89 01", b"1"),
            ("00 01", b"b"),
            ("8a 00", b""),
            ("89 00", b""),
            ("80 01", b"c"),
        ],
        [(PING, b"1"), (PONG, b""), (PING, b""), (TEXT, "abc")],
    ),
    Row(
        "a ping after an empty first fragment",
        [("02 00", b""), ("89 04", b"ping"), ("80 02", b"ok")],
        [(PING, b"ping"), (BINARY, b"ok")],
    ),
    Row(
        "two fragmented messages in a row",
        [("01 01", b"a"), ("80 01", b"b"), ("02 01", b"c"), ("80 01", b"d")],
        [(TEXT, "ab"), (BINARY, b"cd")],
    ),
    Row(
        "a whole message after a fragmented one",
        [("01 01", b"a"), ("80 01", b"b"), ("81 01", b"c")],
        [(TEXT, "ab"), (TEXT, "c")],
    ),
    Row(
        "every character cut into fragments (H62)",
        [
            (f"{head:02x} 01", bytes([octet]))
            for head, octet in zip([1, *[0] * 8, 0x80], "\u00e9\u20ac\U00010348!".encode())
        ],
        [(TEXT, "\u00e9\u20ac\U00010348!")],
    ),
    Row(
        "the ends of the ranges of UTF-8",
        [("81 1a", "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff".encode())],
        [(TEXT, "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff")],
    ),
    Row(
        "bytes that are no text in a binary message",
        [("02 02", b"\xc0\xaf"), ("80 01", b"\xed")],
        [(BINARY, b"\xc0\xaf\xed")],
    ),
    Row(
        "a close frame inside a fragmented message (H68)",
        [("01 01", b"a"), ("88 02", b"\x03\xe8")],
        [(CLOSE, b"\x03\xe8")],
    ),
    Row(
        "a close frame with code and reason",
        [("88 07", b"\x03\xe9later")],
        [(CLOSE, b"\x03\xe9later")],
    ),
]

RFC_EXAMPLES = [
    Example(
        "a single-frame unmasked text message",
        False,
        bytes.fromhex("81 05 48 65 6c 6c 6f"),
        [(TEXT, "Hello")],
    ),
    Example(
        "a single-frame masked text message",
        True,
        bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"),
        [(TEXT, "Hello")],
    ),
    Example(
        "a fragmented unmasked text message",
        False,
        bytes.fromhex("01 03 48 65 6c 80 02 6c 6f"),
        [(TEXT, "Hello")],
    ),
    Example(
        "unmasked ping request", False, bytes.fromhex("89 05 48 65 6c 6c 6f"), [(PING, b"Hello")]
    ),
    Example(
        "masked ping response",
        True,
        bytes.fromhex("8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
        [(PONG, b"Hello")],
    ),
    Example(
        "256 bytes binary message in a single unmasked frame",
        False,
        bytes.fromhex("82 7e 01 00") + octets(256),
        [(BINARY, octets(256))],
    ),
    Example(
        "64KiB binary message in a single unmasked frame",
        False,
        bytes.fromhex("82 7f 00 00 00 00 00 01 00 00") + octets(65536),
        [(BINARY, octets(65536))],
    ),
]


class CloseRow(NamedTuple):
    """The payload of a close frame, and what it says (H64)."""

    payload: bytes
    code: int | None
    reason: str


# RFC 6455, 7.4.1, the IANA registry, and both ends of what 7.4.2 leaves to libraries and users.
SENDABLE_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]

CLOSES = [
    CloseRow(b"", None, ""),
    *(CloseRow(code.to_bytes(2, "big"), code, "") for code in SENDABLE_CODES),
    CloseRow(b"\x03\xe8bye", 1000, "bye"),
    CloseRow(b"\x0f\xa0" + b"x" * 123, 4000, "x" * 123),
    CloseRow(b"\x03\xe9" + "\u20ac".encode() * 41, 1001, "\u20ac" * 41),
]
