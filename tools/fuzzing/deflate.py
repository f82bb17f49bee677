"""The checks of permessage-deflate: what a peer may send, and two policies with one another.

Inputs are messages with one octet of length before each (``_messages``). The dumb twin gives a
whole message to zlib at once, and, with takeover, all messages to one and the same stream.

zlib does not tell what it had made of a piece when it finds the next octet wrong. Where a message
is both malformed and too large, which of the two is reported may depend on the split. So without
a limit every failure must be the same; within one it is enough that all splits fail.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from functools import partial

from fuzzing.properties import mostly_first, require, require_equal, same_for_every_split, splits
from websocket.deflate import Agreement, Deflate
from websocket.deflate_codec import Compressor, Inflater
from websocket.errors import InvalidPayload, ProtocolError
from websocket.headers import parse_extensions
from websocket.ratelimit import TokenBucket

_TAIL = b"\x00\x00\xff\xff"
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
_LARGE, _SMALL = 4 * 1024 * 1024, 40
_TOO_LONG = 255

DICTIONARY = (
    _TAIL,
    _FINAL_BLOCK,
    _TAIL + _FINAL_BLOCK,
    *(b"\x00", b"\x01", b"\x03\x00", b"\x02\x00", b"\x00\x05\x00\xfa\xffHello"),
    *(b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"),
    *(b"\xed\xc1\x01\x0d", b"\x63\x18\x05\xa3\x60\x14\x0c", b"\x06", b"\x07", b"\x0b"),
)
_SETTINGS_SIZE = 8
NEGOTIATION_DICTIONARY = (b"\x00" * _SETTINGS_SIZE, b"\xff" * 4, b"Hello", b"\x07\x0f")


# --- generators ---------------------------------------------------------------------------------


def generate_compressed(source: random.Random) -> bytes:
    """Return compressed messages, some in several streams, some cut off, with their lengths."""
    stream = zlib.compressobj(source.choice((1, 6, 9)), zlib.DEFLATED, -15)
    data = b""
    for _ in range(source.randint(1, 4)):
        text = b" ".join(source.choices((b"lorem", b"ipsum", b"dolor", b"\x00" * 9), k=9))
        payload = text[: source.choice((5, 0, 30, 50))] * mostly_first(source, (1, 3, 500))
        if source.random() < 0.2:
            message = stream.compress(payload) + stream.flush(zlib.Z_FINISH)
            stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        else:
            message = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
            message = message[: mostly_first(source, (-4, -5, None))]
        message = message[:_TOO_LONG]
        data += bytes((len(message),)) + message
    return data


def generate_negotiation(source: random.Random) -> bytes:
    """Return octets that stand for two policies, and a payload behind them."""
    settings = bytes(source.choices(range(256), k=_SETTINGS_SIZE))
    return settings + b" ".join(source.choices((b"lorem", b"ipsum", b"\x00"), k=9))


# --- what a peer may send -----------------------------------------------------------------------


def check_inflater(data: bytes) -> None:
    """Inflate what a peer sent, with takeover and without, within limits and budgets."""
    messages = list(_messages(data))
    for message in messages:
        _check_message(message)
    _check_takeover(messages)
    _check_compressor(data)


def _messages(data: bytes) -> Iterator[bytes]:
    """Yield the messages of an input: one octet says how long each is."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        yield data[at + 1 : end]
        at = end


def _check_message(message: bytes) -> None:
    """Hold the inflater against the twin, within limits and budgets."""
    expected = _inflate_by_hand(message)
    output = same_for_every_split(partial(_inflate, room=_LARGE), message)
    require_equal("inflated", output, InvalidPayload if expected is None else expected)
    is_small = expected is not None and len(expected) <= _SMALL
    for pieces in splits(message):
        small = _inflate(pieces, room=_SMALL)
        if is_small:
            require_equal("inflated within the limit", small, expected)
        else:
            require(isinstance(small, type), "what is malformed or too large was inflated")
    # Of the last split. With 9 bits, references beyond the window may fail, not mislead.
    rationed = _inflate(pieces, room=_LARGE, budget=_SMALL)
    require_equal("whether the budget held", isinstance(rationed, bytes), is_small)
    narrow = _inflate(pieces, room=_LARGE, bits=9)
    if isinstance(narrow, bytes):
        require_equal("inflated in a narrow window", narrow, expected)


def _inflate(
    pieces: Sequence[bytes], *, room: int, budget: int | None = None, bits: int = 15
) -> bytes | type[ProtocolError]:
    """Return what a message inflates to, or the class of the error."""
    bucket = None if budget is None else TokenBucket(1.0, budget, 0.0)
    inflater = Inflater(bits, keeps_context=False, budget=bucket, now=0.0)
    return _receive(inflater, pieces, room)


def _receive(inflater: Inflater, pieces: Sequence[bytes], room: int) -> bytes | type[ProtocolError]:
    output = b""
    try:
        for piece in pieces:
            output += inflater.feed(memoryview(piece), room - len(output))
            require(len(output) <= room, "more was inflated than there is room for")
        return output + inflater.end(room - len(output))
    except ProtocolError as error:
        return type(error)


def _inflate_by_hand(message: bytes) -> bytes | None:
    """Inflate a message at once, stream after stream; None for an error."""
    rest, output = message + _TAIL, b""
    # Nothing is missing where nothing came, or nothing after a final block.
    while rest and rest != _TAIL:
        stream = zlib.decompressobj(wbits=-15)
        try:
            output += stream.decompress(rest)
            if not stream.eof:
                # Only between two blocks a final empty one is nothing but the end.
                is_end = not stream.decompress(_FINAL_BLOCK) and stream.eof
                return output if is_end and not stream.unused_data else None
        except zlib.error:
            return None
        rest = stream.unused_data
    return output


def _check_takeover(messages: Sequence[bytes]) -> None:
    """Inflate all messages with one history; the twin gives them all to one stream."""
    twin = zlib.decompressobj(wbits=-15)
    inflater = Inflater(15, keeps_context=True, budget=None, now=0.0)
    for message in messages:
        pieces = list(splits(message))[-1]
        output = _receive(inflater, pieces, _LARGE)
        try:
            expected = twin.decompress(message + _TAIL) if message else b""
        except zlib.error:
            require(isinstance(output, type), "what is malformed was inflated")
            return
        if twin.eof or isinstance(output, type):
            # The twin knows but one stream; what fails is compared without takeover.
            return
        require_equal("inflated with takeover", output, expected)


def _check_compressor(payload: bytes) -> None:
    """Compress a payload twice, and inflate it."""
    bits, keeps_context = 9 + len(payload) % 7, bool(zlib.crc32(payload) & 1)
    compressor = Compressor(bits, 6, 5, keeps_context=keeps_context)
    inflater = Inflater(bits, keeps_context=keeps_context, budget=None, now=0.0)
    for _ in range(2):
        output = _receive(inflater, [compressor.compress(payload)], len(payload))
        require_equal("compressed and inflated", output, payload)


# --- two policies with one another --------------------------------------------------------------


def check_negotiation(data: bytes) -> None:
    """Let a client and a server agree, and each understand what the other compresses."""
    settings, payload = data[:_SETTINGS_SIZE], data[_SETTINGS_SIZE:]
    settings = settings.ljust(_SETTINGS_SIZE, b"\x00")
    client, server = _policy(settings[:4]), _policy(settings[4:])
    accepted = server.accept(parse_extensions([client.offer()]))
    require(accepted is not None, "our server declines our client's offer")
    assert accepted is not None
    theirs, answer = accepted
    ours = client.agree(parse_extensions([answer]))
    require(ours is not None, "our client sees no answer")
    assert ours is not None
    # More than the smallest window holds, so that the sizes of the windows matter.
    payloads = (payload, payload[::-1] * 20, payload * 20, b"")
    _check_direction(client, ours, server, theirs, payloads)
    _check_direction(server, theirs, client, ours, payloads)


def _policy(octets: bytes) -> Deflate:
    """Return the policy that four octets stand for."""
    return Deflate(
        compress_bits=9 + octets[0] % 7,
        inflate_bits=9 + octets[1] % 7,
        compress_takeover=bool(octets[2] & 1),
        inflate_takeover=bool(octets[2] & 2),
        level=1 + octets[3] % 9,
        memory_level=1 + octets[3] // 9 % 3,  # more takes time, and changes nothing here
    )


def _check_direction(
    sender: Deflate,
    sends: Agreement,
    receiver: Deflate,
    receives: Agreement,
    payloads: Sequence[bytes],
) -> None:
    """Send messages one way."""
    require(sends.compress_bits <= receives.inflate_bits, "the windows do not fit")
    require(sends.compress_takeover <= receives.inflate_takeover, "the takeovers do not fit")
    compressor = sender.compressor(sends)
    inflater = receiver.inflater(receives, _LARGE, 0.0)
    for payload in payloads:
        *_, pieces = splits(compressor.compress(payload))
        require_equal("sent and received", _receive(inflater, pieces, _LARGE), payload)
