"""What the tests of the frame reader share."""

from __future__ import annotations

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


def reader_of(is_masked: bool, limits: Limits = DEFAULTS) -> FrameReader:
    return FrameReader(
        Assembler(limits), must_be_masked=is_masked, max_message_size=limits.max_message_size
    )


def feed_all(reader: FrameReader, pieces: Iterable[bytes]) -> list[Item]:
    return [item for piece in pieces for item in reader.feed(piece)]
