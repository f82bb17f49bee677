"""Say whether the C accelerator is in use, and hand out its functions.

The accelerator is optional. ``websocket/_speedups.c`` is compiled at installation where there is
a compiler (never on PyPy, whose own is better at this); with ``REACTOR_WEBSOCKET_PURE=1`` in the
environment it is left out then, or at run time not imported. What it does is written in Python,
too, with the same results: the accelerator makes a program faster, never different.

    $ python -c "from websocket import speedups; print(speedups.IMPLEMENTATION)"
    accelerated

It is decided here, once, when this is first imported. Each function is None where it is not in
use; the module with its twin in Python chooses between the two.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from websocket.assembler import Message
    from websocket.frame_writer import Payload
    from websocket.masking import Bytes
    from websocket.plain_request import PlainHead

    PlainReader = Callable[[Bytes, int, int, bool, int, int, list[tuple[int, Message]]], int]

apply_mask: Callable[[Bytes, bytes], bytes] | None = None
"""The twin of ``masking.apply_mask_pure``."""

read_plain_frames: PlainReader | None = None
"""The twin of ``plain_frames.read_plain_frames_pure``."""

frame_message: Callable[[Payload], tuple[bytes, ...]] | None = None
"""The twin of ``frame_writer.frame_message_pure``."""

split_plain_head: Callable[[bytes, int], PlainHead | None] | None = None
"""The twin of ``plain_request.split_plain_head_pure``."""

accept_key: Callable[[str], str] | None = None
"""The twin of ``key.accept_key_pure``."""

IS_ACCELERATED = False
"""True where the functions of ``websocket._speedups`` are in use."""

if os.environ.get("REACTOR_WEBSOCKET_PURE") != "1":
    try:
        import websocket._speedups as accelerator
    except ImportError:
        pass  # not built, or not for this Python
    else:
        IS_ACCELERATED = True
        apply_mask = accelerator.apply_mask
        read_plain_frames = accelerator.read_plain_frames
        frame_message = accelerator.frame_message
        split_plain_head = accelerator.split_plain_head
        accept_key = accelerator.accept_key

IMPLEMENTATION = "accelerated" if IS_ACCELERATED else "pure"
"""What is in use: "accelerated" or "pure"."""
