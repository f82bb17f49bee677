"""The accelerator beside the code in Python: the same bytes must give the same results.

The code in Python is had by importing what reads frames a second time, as a process does that
runs with ``REACTOR_WEBSOCKET_PURE=1``. So whatever the accelerator does, and wherever it is
called, both ways are taken from the top to the bottom.
"""

from __future__ import annotations

import os
import random
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

from fuzzing import frames
from fuzzing.properties import require_equal, same_for_every_split
from websocket import speedups
from websocket.frame_writer import frame_message, frame_message_pure
from websocket.key import accept_key, accept_key_pure, is_key
from websocket.masking import apply_mask, apply_mask_pure
from websocket.plain_request import split_plain_head, split_plain_head_pure

IS_ACCELERATED = speedups.IS_ACCELERATED

_KEY_SIZE = 4
_MAX_OFFSET = 8
# About words and vectors, and about where the way in Python changes.
_SIZES = (*range(70), 127, 128, 129, 399, 400, 401, 1023)
# About the three forms of a frame's length, and about where header and payload are two pieces.
_LENGTHS: tuple[int, ...] = (
    *range(4),
    124,
    125,
    126,
    127,
    4095,
    4096,
    4097,
    65_535,
    65_536,
    65_537,
)
DICTIONARY = (bytes(_KEY_SIZE), b"\xff" * _KEY_SIZE, bytes(16), b"\xff\x00" * 8)

_SWITCH = "REACTOR_WEBSOCKET_PURE"


def import_pure(name: str) -> ModuleType:
    """Import a module once more, with all of ``websocket`` that it imports in pure Python.

    Args:
        name: the module; what is imported already stays as it is.
    """
    with _set_aside(name):
        return import_module(name)


@contextmanager
def _set_aside(name: str) -> Iterator[None]:
    """Let imports begin anew, and without the accelerator."""
    before = sys.modules.copy()
    switch = os.environ.get(_SWITCH)
    for each in before:
        if each == name or each.partition(".")[0] == "websocket":
            del sys.modules[each]
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        if switch is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = switch
        for each in sys.modules.copy():
            if each == name or each.partition(".")[0] == "websocket":
                del sys.modules[each]
        sys.modules.update(before)


pure_frames = import_pure("fuzzing.frames")


def generate_masking(source: random.Random) -> bytes:
    """Return an input of ``check_masking``."""
    size = _KEY_SIZE + 1 + source.choice(_SIZES)
    return bytes(source.choices(range(256), k=size))


def check_reading(data: bytes, *, is_masked: bool, is_compressed: bool = False) -> None:
    """Read a stream of frames in both ways."""
    ways = frames.read_stream, pure_frames.read_stream
    read, read_pure = (
        partial(way, is_masked=is_masked, is_compressed=is_compressed) for way in ways
    )
    require_equal("accelerated and pure", same_for_every_split(read, data), read_pure([data]))


def check_masking(data: bytes) -> None:
    """Mask in both ways, at any address, with and without gaps, beside the loop of the RFC.

    The input is the key, an octet for offset and step, and the payload.
    """
    if len(data) <= _KEY_SIZE:
        return
    key, choice = data[:_KEY_SIZE], data[_KEY_SIZE]
    # The memory of an array ends with its last octet: the sanitizer sees the next one read.
    whole = memoryview(array("B", data[_KEY_SIZE + 1 :]))
    view = whole[choice % _MAX_OFFSET :: (choice // _MAX_OFFSET) % 3 or 1]
    expected = bytes(octet ^ key[index % _KEY_SIZE] for index, octet in enumerate(view))
    require_equal("masked in Python", apply_mask_pure(view, key), expected)
    require_equal("masked as in use", apply_mask(view, key), expected)


def check_splitting(data: bytes) -> None:
    """Split the head of a request in both ways, and answer its key."""
    size = data.find(b"\r\n\r\n") + 4
    if size < 4:
        return
    parts = split_plain_head(data, size)
    require_equal("split as in use", parts, split_plain_head_pure(data, size))
    key = "" if parts is None else parts[-1].get("sec-websocket-key", "")
    if is_key(key):
        require_equal("answered as in use", accept_key(key), accept_key_pure(key))


def generate_writing(source: random.Random) -> bytes:
    """Return an input of ``check_writing``."""
    kind, length = source.randrange(len(_KINDS)), source.choice(_LENGTHS)
    letters = source.choice(["a", "az\u00e9\u20ac\U0001f600\ud800"])
    text = "".join(source.choices(letters, k=source.randint(1, 8)))
    return bytes([kind]) + length.to_bytes(3, "big") + text.encode("utf-8", "surrogatepass")


def check_writing(data: bytes) -> None:
    """Put a message of any type into a frame, in both ways.

    The input is an octet for the type, three for the length, and what is repeated up to that.
    """
    if len(data) < 5:
        return
    length = int.from_bytes(data[1:4], "big") % (2 * _LENGTHS[-1])
    payload = (data[4:] * (length // len(data[4:]) + 1))[:length]
    message = _KINDS[data[0] % len(_KINDS)](payload)
    accelerated, pure = _outcome(frame_message, message), _outcome(frame_message_pure, message)
    require_equal("written as in use", accelerated, pure)
    if isinstance(message, bytearray):
        message.clear()  # raises while a view of it is held


def _outcome(write: Callable[[Any], tuple[bytes, ...]], message: object) -> object:
    """Return the pieces that were written, or what was raised."""
    try:
        return write(message)
    except (TypeError, ValueError) as error:
        return type(error), str(error)


class _Octets(bytes):
    """A type of bytes that is not ``bytes``."""


class _Text(str):
    """A type of text that is not ``str``."""

    __slots__ = ()


def _as_text(payload: bytes) -> str:
    """Return text; lone surrogates, which no frame can hold, stay in it."""
    return payload.decode("utf-8", "surrogateescape")


# The types of messages, and some that are none. The memory of an array ends with its last octet.
_KINDS: tuple[Callable[[bytes], object], ...] = (
    bytes,
    bytearray,
    memoryview,
    _as_text,
    _Octets,
    lambda payload: _Text(_as_text(payload)),
    lambda payload: payload.decode("latin-1"),
    lambda payload: memoryview(array("B", payload)),
    lambda payload: memoryview(array("B", payload))[::-2],
    lambda payload: memoryview(array("H", payload[: len(payload) // 2 * 2])),
    list,
    lambda payload: None,
)
