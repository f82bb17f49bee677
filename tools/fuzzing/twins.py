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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType

from fuzzing import frames
from fuzzing.properties import require_equal, same_for_every_split
from websocket import speedups
from websocket.masking import apply_mask, apply_mask_pure

IS_ACCELERATED = speedups.IS_ACCELERATED

_KEY_SIZE = 4
_MAX_OFFSET = 8
# About words and vectors, and about where the way in Python changes.
_SIZES = (*range(70), 127, 128, 129, 399, 400, 401, 1023)
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
