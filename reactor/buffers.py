"""The list of what waits to be sent: what remains of it, and how it stays short.

A peer that does not read may be sent thousands of tiny messages: each as an object of its own
would take ten times its bytes, and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

Buffer = Union[bytes, memoryview]

# Larger ones are not copied to be joined.
_SMALL = 32 * 1024


def drop_first(buffers: Sequence[Buffer], size: int) -> list[Buffer]:
    """Return what remains when the first ``size`` bytes are gone."""
    whole = 0
    for buffer in buffers:
        if size < len(buffer):
            break
        size -= len(buffer)
        whole += 1
    rest = list(buffers[whole:])
    if size:
        rest[0] = memoryview(rest[0])[size:]
    return rest


def join_last(buffers: list[Buffer]) -> None:
    """Make one of the small buffers at the end, up to a large one."""
    at = len(buffers)
    while at and len(buffers[at - 1]) < _SMALL:
        at -= 1
    if len(buffers) - at > 1:
        buffers[at:] = [b"".join(buffers[at:])]
