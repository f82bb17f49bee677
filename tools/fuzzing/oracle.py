"""The frame reader beside the library ``wsproto``, which reads the same streams.

Both are given the same octets, cut in the same ways, and must find the same messages, the same
control frames in the same places, and fail with the same close code or not at all.

Three differences are known, and treated by name:

- wsproto judges later: RSV and the mask only when the extended length is there, the order of the
  frames only when there is payload, and what would be a surrogate only at its third octet, which
  may stand behind other offences. Where we fail, it is given the octets up to there, and with
  ``_MORE`` enough to make up its mind.
- wsproto has no limits on sizes; ours are set out of the way.
- wsproto does not know close code 1014, which IANA has registered: there we are laxer.

It is as strict as we are about lengths in their shortest form, codes that must not be sent,
surrogates and the rest of UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from fuzzing.frames import new_reader
from fuzzing.properties import Broken, same_for_every_split
from websocket.errors import ProtocolError
from websocket.frame import parse_close
from websocket.limits import Limits
from websocket.opcodes import CloseCode, Opcode

IS_INSTALLED = find_spec("wsproto") is not None

_NO_LIMITS = Limits(max_message_size=2**63, max_fragments=2**31)
# A final, empty continuation frame where a frame begins, a long length where one is missing, and
# the end of any character inside a payload.
_MORE = {True: b"\x80\x80\x00\x00\x00\x00" * 4, False: b"\x80\x00" * 8}


class Reading(NamedTuple):
    """Hold what was read from a stream.

    Attributes:
        items: messages as ``str`` and ``bytes``, control frames as pairs of opcode and content;
            the content of a close frame is the pair of its code and reason.
        failure: the close code to fail with, None when all is well.
    """

    items: list[Any]
    failure: int | None


def check_beside_wsproto(data: bytes, *, is_masked: bool) -> None:
    """Read a stream with both."""
    ours = same_for_every_split(partial(read_ours, is_masked=is_masked), data)
    theirs = same_for_every_split(partial(read_theirs, is_masked=is_masked), data)
    if ours != theirs and ours.failure is not None:
        offence = _find_failure(data, is_masked=is_masked)
        theirs = read_theirs([data[:offence], _MORE[is_masked]], is_masked=is_masked)
    if ours != theirs and not _is_bad_gateway(ours, theirs):
        raise Broken(f"we read {ours}, wsproto {theirs}")


def _find_failure(data: bytes, *, is_masked: bool) -> int:
    """Return how many octets of a stream it takes us to fail."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        if read_ours([data[:middle]], is_masked=is_masked).failure is None:
            low = middle + 1
        else:
            high = middle
    return low


def _is_bad_gateway(ours: Reading, theirs: Reading) -> bool:
    """Tell whether all that differs is a close frame with code 1014."""
    *items, last = ours.items or [None]
    return (
        isinstance(last, tuple)
        and last[0] == Opcode.CLOSE
        and last[1][0] == CloseCode.BAD_GATEWAY
        and theirs == Reading(items, CloseCode.PROTOCOL_ERROR)
    )


def read_ours(pieces: Sequence[bytes], *, is_masked: bool) -> Reading:
    """Read a stream with our frame reader, of a client (masked) or of a server."""
    reader = new_reader(_NO_LIMITS, is_masked=is_masked)
    items: list[Any] = []
    for piece in pieces:
        for opcode, content in reader.feed(piece):
            if opcode == Opcode.CLOSE:
                assert isinstance(content, bytes)
                try:
                    code, reason = parse_close(content)
                except ProtocolError as error:
                    return Reading(items, error.close_code)
                items.append((opcode, (CloseCode.NO_STATUS if code is None else code, reason)))
            elif opcode in (Opcode.TEXT, Opcode.BINARY):
                items.append(content)
            else:
                items.append((opcode, content))
    return Reading(items, None if reader.error is None else reader.error.close_code)


def read_theirs(pieces: Sequence[bytes], *, is_masked: bool) -> Reading:
    """Read a stream with wsproto."""
    wsproto = import_module("wsproto.frame_protocol")
    protocol = wsproto.FrameProtocol(client=not is_masked, extensions=[])
    items: list[Any] = []
    message: list[Any] = []
    try:
        for piece in pieces:
            protocol.receive_bytes(piece)
            for frame in protocol.received_frames():
                if frame.opcode.iscontrol():
                    items.append((int(frame.opcode), frame.payload))
                    continue
                message.append(frame.payload)
                if frame.message_finished:
                    items.append(message[0][:0].join(message))
                    message = []
    except wsproto.ParseFailed as error:
        return Reading(items, int(error.code))
    return Reading(items, None)
