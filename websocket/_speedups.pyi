# The functions of _speedups.c; what they promise stands at their twins in Python.

from websocket.assembler import Message
from websocket.frame_writer import Payload
from websocket.masking import Bytes
from websocket.plain_request import PlainHead

def apply_mask(data: Bytes, key: bytes, /) -> bytes: ...
def read_plain_frames(
    data: Bytes,
    at: int,
    size: int,
    is_masked: bool,
    max_size: int,
    max_items: int,
    items: list[tuple[int, Message]],
    /,
) -> int: ...
def frame_message(message: Payload, /) -> tuple[bytes, ...]: ...
def split_plain_head(data: bytes, size: int, /) -> PlainHead | None: ...
def accept_key(key: str, /) -> str: ...
