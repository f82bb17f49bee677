"""What the tests of the frame reader share."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest
from frame_table import Item

from websocket.assembler import Assembler
from websocket.frame_reader import FrameReader
from websocket.limits import Limits

DEFAULTS = Limits()
ROLES = {True: "of a client", False: "of a server"}

# Whose frames are read: those of a client are masked.
both_roles = pytest.mark.parametrize("is_masked", ROLES, ids=ROLES.values())


def reader_of(
    is_masked: bool, limits: Limits = DEFAULTS, max_items: int = sys.maxsize
) -> FrameReader:
    return FrameReader(
        Assembler(limits),
        must_be_masked=is_masked,
        max_message_size=limits.max_message_size,
        max_items=max_items,
    )


def feed_all(reader: FrameReader, pieces: Iterable[bytes]) -> list[Item]:
    return [item for piece in pieces for item in reader.feed(piece)]


def feed_in_turns(reader: FrameReader, pieces: Iterable[bytes], max_items: int) -> list[Item]:
    """Feed a reader with a budget, and let it read on until it wants more."""
    items: list[Item] = []
    for piece in pieces:
        batch = reader.feed(piece)
        while reader.is_behind:
            assert len(batch) <= max_items
            items += batch
            batch = reader.feed(b"")
        items += batch
    return items
