"""The masking of client frames (RFC 6455, 5.3).

Octet i of the payload is XORed with octet i mod 4 of the masking key. Python has no fast loop
over bytes, but two ways to do many at once. Short payloads are turned into one big integer and
XORed with the repeated key. From ``STRIDE_THRESHOLD`` on it pays to translate every fourth
byte with a table, four times; that costs about a nanosecond a byte. The tests hold both against
the loop of the RFC.

The C accelerator does better, where it is in use: see ``speedups``.
"""

from __future__ import annotations

from typing import Union

from websocket import speedups

Bytes = Union[bytes, bytearray, memoryview]

# Measured on CPython 3.11 and 3.13: the integers win below, the tables above.
STRIDE_THRESHOLD = 400

# Looked up once, which for a short payload saves a quarter of the time.
_from_bytes = int.from_bytes
_ALL_OCTETS = int.from_bytes(bytes(range(256)), "little")
_ONES = int.from_bytes(b"\x01" * 256, "little")
# _TABLES[k] translates every octet o to o XOR k.
_TABLES = [(_ALL_OCTETS ^ (_ONES * key)).to_bytes(256, "little") for key in range(256)]


def apply_mask_pure(data: Bytes, key: bytes) -> bytes:
    """Mask or unmask a payload; the two are the same operation.

    Args:
        data: the payload, or a piece of it; not changed. A view may have gaps, but its items
            must be octets.
        key: the four octets of the masking key. For a piece that begins at offset n of the
            payload, rotate the key: see ``rotate_key``.

    Raises:
        ValueError: the key is of another size.
    """
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 octets, not {len(key)}")
    size = len(data)
    if size < STRIDE_THRESHOLD:
        repeated = _from_bytes((key * ((size + 3) >> 2))[:size], "little")
        return (_from_bytes(data, "little") ^ repeated).to_bytes(size, "little")
    if not isinstance(data, bytes):
        data = bytes(data)  # a view has no translate
    masked = bytearray(size)
    for offset in range(4):
        masked[offset::4] = data[offset::4].translate(_TABLES[key[offset]])
    return bytes(masked)


apply_mask = speedups.apply_mask or apply_mask_pure
"""``apply_mask_pure``, or its twin of the accelerator."""


def rotate_key(key: bytes, offset: int) -> bytes:
    """Return the key as it applies from an offset of the payload on."""
    start = offset & 3
    return key[start:] + key[:start]
