"""permessage-deflate: agree on it, compress messages, inflate them (RFC 7692).

For: the extension's parameters, and payloads in and out. Not for: RSV1 and frames
(``frame.py``, ``frame_reader.py``), nor the grammar of the header field (``headers.py``).

    server   accept(offers) -> Agreement, answer    ─┐     compressor(agreement) -> Compressor
    client   offer() -> header ... agree(answer)    ─┴──>  inflater(agreement)   -> Inflater

Memory, by zlib's own formulas (zconf.h); so much does a process grow for each of thousands:

                                              12 bits, memory level 5    15 bits, level 8
    compressor   2^(bits+2) + 2^(level+9) + ~6 KiB     39 KiB                262 KiB
    inflater     2^bits + ~8 KiB                       12 KiB                 40 KiB
    history      2^bits                                 4 KiB                 32 KiB

Without context takeover, the default, an idle connection holds none of these: one compressor
serves all connections, and an inflater exists only while a message is incomplete. With takeover
each connection keeps a compressor for what we send, and a history for what the peer sends.

Danger: whoever can put text of his own into a message beside a secret, and sees how long the
compressed message is, can guess the secret (CRIME, BREACH). With takeover the two need not even
stand in the same message. Do not compress secrets.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, NamedTuple

from websocket.errors import (
    FrameTooLarge,
    HandshakeError,
    InvalidPayload,
    PolicyViolation,
    ProtocolError,
)
from websocket.headers import Extension
from websocket.limits import KIB, MIB
from websocket.masking import Bytes
from websocket.ratelimit import TokenBucket

EXTENSION_NAME = "permessage-deflate"

# RFC 7692, 7.1.2: 8 to 15, without leading zeroes.
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
_MAX_BITS = 15
# zlib inflates with a window of 8 bits, but cannot deflate raw with it (madler/zlib #171).
_MIN_COMPRESS_BITS = 9

# RFC 7692, 7.2.1: what a flush ends with, and a message leaves out.
_FLUSH_TAIL = b"\x00\x00\xff\xff"
# RFC 7692, 7.2.3.6: the header of an empty block, however zlib would answer a flush of nothing.
_EMPTY_MESSAGE = b"\x00"
_EMPTY_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"

# Bytes to take in and to put out at once. More would be a tenth faster with long messages only.
_STEP = 8 * KIB
# Enough to end one in each of many flushes with a final block. Each costs a new inflater and a
# copy of the rest of the step.
_MAX_FINAL_BLOCKS = 256


class Agreement(NamedTuple):
    """Say how two endpoints compress, seen from this one.

    Attributes:
        compress_bits: the window for what we send: 2^9 to 2^15 bytes.
        inflate_bits: the window for what the peer sends: 2^8 to 2^15 bytes.
        compress_takeover: we may refer to messages that we sent before.
        inflate_takeover: the peer may refer to messages that it sent before.
    """

    compress_bits: int
    inflate_bits: int
    compress_takeover: bool
    inflate_takeover: bool


class _Parameters(NamedTuple):
    """Hold the parameters of one offer or answer, under their names in RFC 7692, 7.1."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def __str__(self) -> str:
        words = [EXTENSION_NAME]
        for name, value in zip(self._fields, self):
            if value:
                words.append(name if value is True else f"{name}={value}")
        return "; ".join(words)


def _read_parameters(extension: Extension, *, is_offer: bool) -> _Parameters:
    """Return the parameters of an offer, or of an answer.

    Raises:
        ValueError: RFC 7692, 7.1: one is unknown, there twice or has a wrong value.
    """
    values: dict[str, Any] = {}
    for name, value in extension.parameters:
        if name not in _Parameters._fields:
            raise ValueError("a parameter is unknown")
        if name in values:
            raise ValueError(f"{name} is there twice")
        if name.endswith("_takeover"):
            if value is not None:
                raise ValueError(f"{name} takes no value")
            values[name] = True
        elif value is None and is_offer and name == "client_max_window_bits":
            # RFC 7692, 7.1.2.2: no limit yet, but the client would accept one.
            values[name] = _MAX_BITS
        elif value in _WINDOW_BITS:
            values[name] = _WINDOW_BITS[value]
        else:
            raise ValueError(f"{name} must be 8 to 15")
    return _Parameters(**values)


@dataclass(frozen=True)
class Deflate:
    """Hold an endpoint's policy on compression; immutable, may be shared between threads.

    Raises:
        ValueError: a number is out of its range; the text gives the range.
    """

    # In JSON of up to 16 KiB, 12 bits find all that 15 find, with an eighth of the memory; 9 make
    # it a tenth longer.
    compress_bits: int = 12
    # The peer's window. A client that does not let itself be limited uses 15 bits.
    inflate_bits: int = 12
    # Takeover halves JSON of 250 bytes once more, and takes a quarter off 1 KiB, but costs memory
    # for each connection as long as it is open: see the table above.
    compress_takeover: bool = False
    inflate_takeover: bool = False
    # zlib's own default. Level 1 takes three quarters of the time, and makes JSON a tenth longer.
    level: int = 6
    # zlib's default of 8 is meant for files; for messages of a few KiB it gains nothing.
    memory_level: int = 5
    # Bytes from which on a message is worth compressing: a smaller one fits into a packet as it
    # is.
    threshold: int = KIB
    # Bytes a second that a connection's messages may inflate to, a second's worth at once: the
    # time of the reactor is spent by what comes out, not by what came in. None for no limit.
    inflate_rate: float | None = 16.0 * MIB

    def __post_init__(self) -> None:
        _check_range("compress_bits", self.compress_bits, _MIN_COMPRESS_BITS, _MAX_BITS)
        _check_range("inflate_bits", self.inflate_bits, _MIN_COMPRESS_BITS, _MAX_BITS)
        _check_range("level", self.level, 1, 9)
        _check_range("memory_level", self.memory_level, 1, 9)
        if self.threshold < 0:
            raise ValueError(f"threshold must not be negative, not {self.threshold!r}")
        # In these words not-a-number fails, too.
        if self.inflate_rate is not None and not 0 < self.inflate_rate < inf:
            raise ValueError(f"inflate_rate must be positive or None, not {self.inflate_rate!r}")

    @classmethod
    def of(cls, compression: bool | Deflate) -> Deflate | None:
        """Return the policy for an argument that may say just yes or no."""
        if isinstance(compression, bool):
            return cls() if compression else None
        return compression

    def accept(self, offers: Sequence[Extension]) -> tuple[Agreement, str] | None:
        """Accept the first of a client's offers that can be met.

        Args:
            offers: all extensions that the client offered, in its order; others are ignored.

        Returns:
            The agreement, and the value of Sec-WebSocket-Extensions for the 101; None where
            there is no such offer and the connection goes on uncompressed.
        """
        for offer in offers:
            if offer.name != EXTENSION_NAME:
                continue
            try:
                offered = _read_parameters(offer, is_offer=True)
            except ValueError:
                # RFC 7692, 7.1: such an offer MUST be declined; the next one may be right.
                continue
            answer = self._answer(offered)
            if answer is not None:
                return answer
        return None

    def _answer(self, offered: _Parameters) -> tuple[Agreement, str] | None:
        """Answer one offer; None where it cannot be met."""
        compress_bits = min(self.compress_bits, offered.server_max_window_bits or _MAX_BITS)
        if compress_bits < _MIN_COMPRESS_BITS:
            return None
        # RFC 7692, 7.1.2.2: a client that does not offer it cannot be limited.
        inflate_bits = _MAX_BITS
        if offered.client_max_window_bits is not None:
            inflate_bits = min(self.inflate_bits, offered.client_max_window_bits)
        # RFC 7692, 7.1.1.1 and 7.1.2.1: what is asked of the server is accepted by saying it
        # again. The rest is said only where it changes something.
        is_window_said = offered.server_max_window_bits or compress_bits < _MAX_BITS
        answer = _Parameters(
            server_no_context_takeover=not self.compress_takeover
            or offered.server_no_context_takeover,
            client_no_context_takeover=not self.inflate_takeover
            or offered.client_no_context_takeover,
            server_max_window_bits=compress_bits if is_window_said else None,
            client_max_window_bits=inflate_bits if inflate_bits < _MAX_BITS else None,
        )
        agreement = Agreement(
            compress_bits,
            inflate_bits,
            compress_takeover=not answer.server_no_context_takeover,
            inflate_takeover=not answer.client_no_context_takeover,
        )
        return agreement, str(answer)

    def offer(self) -> str:
        """Return the value of Sec-WebSocket-Extensions for a client's request."""
        return str(self._offer())

    def _offer(self) -> _Parameters:
        return _Parameters(
            server_no_context_takeover=not self.inflate_takeover,
            client_no_context_takeover=not self.compress_takeover,
            server_max_window_bits=self.inflate_bits if self.inflate_bits < _MAX_BITS else None,
            client_max_window_bits=self.compress_bits,
        )

    def agree(self, extensions: Sequence[Extension]) -> Agreement | None:
        """Judge a server's answer to ``offer``.

        Args:
            extensions: all extensions of the answer.

        Returns:
            What was agreed on; None where the server declined.

        Raises:
            HandshakeError: the answer does not fit the offer; the connection must be dropped
                (RFC 7692, 5.1 and 7.1).
        """
        if not extensions:
            return None
        if len(extensions) > 1 or extensions[0].name != EXTENSION_NAME:
            raise HandshakeError(101, "the server accepted an extension that was not offered")
        try:
            answer = _read_parameters(extensions[0], is_offer=False)
        except ValueError as error:
            raise _bad_answer(str(error)) from None
        offered = self._offer()
        # RFC 7692, 7.1.1.1 and 7.1.2.1: accepted by saying it again, the window not larger.
        if offered.server_no_context_takeover and not answer.server_no_context_takeover:
            raise _bad_answer("server_no_context_takeover is missing")
        inflate_bits = answer.server_max_window_bits or _MAX_BITS
        if inflate_bits > (offered.server_max_window_bits or _MAX_BITS):
            raise _bad_answer("server_max_window_bits is missing or above the offer")
        # RFC 7692, 7.1.2.2: the server may ignore our value; then ours is the smaller one.
        compress_bits = min(self.compress_bits, answer.client_max_window_bits or _MAX_BITS)
        if compress_bits < _MIN_COMPRESS_BITS:
            raise _bad_answer("zlib has no window of 8 bits: connect without compression")
        return Agreement(
            compress_bits,
            inflate_bits,
            compress_takeover=self.compress_takeover and not answer.client_no_context_takeover,
            inflate_takeover=not answer.server_no_context_takeover,
        )

    def compressor(self, agreement: Agreement) -> Compressor:
        """Return the compressor for a connection.

        Without takeover it is one object for all connections with the same settings: a
        broadcast may compress once for all that have it.
        """
        settings = (agreement.compress_bits, self.level, self.memory_level)
        if agreement.compress_takeover:
            return Compressor(*settings, keeps_context=True)
        return _shared_compressor(*settings)

    def inflater(self, agreement: Agreement, max_message_size: int, now: float) -> Inflater:
        """Return an inflater for one connection.

        Args:
            agreement: what was agreed on with the peer.
            max_message_size: bytes in a message; so many may always inflate at once.
            now: the present time in seconds.
        """
        rate = self.inflate_rate
        return Inflater(
            agreement.inflate_bits,
            keeps_context=agreement.inflate_takeover,
            budget=None if rate is None else TokenBucket(rate, max(rate, max_message_size), now),
            now=now,
        )


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if value not in range(low, high + 1):
        raise ValueError(f"{name} must be {low} to {high}, not {value!r}")


def _bad_answer(fault: str) -> HandshakeError:
    return HandshakeError(101, f"the server's answer to {EXTENSION_NAME} is wrong: {fault}")


class Compressor:
    """Compress messages; without takeover one for all connections, with it one for each.

    With takeover it belongs to the reactor's thread, and what ``compress`` returns must be sent,
    in that order: the peer's window has to stay the same as ours. Without, any thread may use it,
    and equal payloads become equal bytes.

    Args:
        bits: the window's size, as a power of two: 9 to 15.
        level: zlib's compression level: 1 to 9.
        memory_level: zlib's memory level: 1 to 9.
        keeps_context: True where messages may refer to earlier ones.
    """

    __slots__ = ("_flush_mode", "_idle", "_settings")

    def __init__(self, bits: int, level: int, memory_level: int, *, keeps_context: bool) -> None:
        self._settings = (level, zlib.DEFLATED, -bits, memory_level)
        # A full flush makes zlib forget all that went before, for less than a new stream costs.
        self._flush_mode = zlib.Z_SYNC_FLUSH if keeps_context else zlib.Z_FULL_FLUSH
        # Taken out for a message, put back after its flush: a stream that an exception, Ctrl-C
        # for example, has interrupted holds half a message, and must not add it to another
        # connection's. And no two threads hold the same one.
        self._idle: deque[zlib._Compress] = deque(maxlen=1)

    @property
    def keeps_context(self) -> bool:
        """Tell whether messages may refer to earlier ones: then all must be sent, in order."""
        return self._flush_mode == zlib.Z_SYNC_FLUSH

    def compress(self, payload: bytes) -> bytes:
        """Return the compressed form of a whole message (RFC 7692, 7.2.1)."""
        if not payload:
            return _EMPTY_MESSAGE
        try:
            stream = self._idle.pop()
        except IndexError:
            stream = zlib.compressobj(*self._settings)
        compressed = stream.compress(payload)
        compressed += stream.flush(self._flush_mode)[: -len(_FLUSH_TAIL)]
        self._idle.append(stream)
        return compressed


@cache
def _shared_compressor(bits: int, level: int, memory_level: int) -> Compressor:
    return Compressor(bits, level, memory_level, keeps_context=False)


class Inflater:
    """Inflate the messages of one peer, each piece as it arrives.

    To be used from the reactor's thread only. Nothing is kept between messages but, with
    takeover, the peer's window. When a method raises, the peer has broken a rule, the message is
    forgotten, and the connection must be failed.

    A reference beyond the agreed window fails where zlib has to look it up in the window. Within
    a step of 8 KiB it finds the bytes in the output, and they are the right ones.

    Args:
        bits: the window's size, as a power of two: 8 to 15.
        keeps_context: True where the peer may refer to its earlier messages.
        budget: how many bytes may come out a second; None for any number.
        now: the present time in seconds.

    Attributes:
        now: the time by which the budget is refilled; to be set once for every read.
    """

    __slots__ = (
        "_bits",
        "_budget",
        "_final_blocks",
        "_history",
        "_keeps_context",
        "_stream",
        "now",
    )

    def __init__(
        self, bits: int, *, keeps_context: bool, budget: TokenBucket | None, now: float
    ) -> None:
        self._bits = bits
        self._keeps_context = keeps_context
        self._budget = budget
        self._history = b""
        self._stream: zlib._Decompress | None = None
        self._final_blocks = 0
        self.now = now

    def feed(self, piece: Bytes, room: int) -> bytes:
        """Inflate a piece of a message.

        Args:
            piece: some of the payload, of any size.
            room: how many bytes the message may still grow by; no more than one beyond them is
                ever inflated.

        Raises:
            FrameTooLarge: the message is larger, or made of too many streams.
            InvalidPayload: the piece is no DEFLATE data, or refers to what is not there.
            PolicyViolation: the peer's messages inflate to more bytes a second than allowed.
        """
        parts: list[bytes] = []
        try:
            # In steps of the input, too: zlib copies what it has not consumed at every call.
            for at in range(0, len(piece), _STEP):
                room = self._inflate(piece[at : at + _STEP], room, parts)
        except ProtocolError:
            self.discard()
            raise
        return b"".join(parts)

    def end(self, room: int) -> bytes:
        """Complete the message; returns and raises as ``feed`` does.

        Raises:
            InvalidPayload: the message was cut off.
        """
        output = b""
        # Nothing is missing where nothing came, as some senders have it for an empty message, or
        # nothing after a final block.
        if self._stream is not None:
            # RFC 7692, 7.2.2: append what the sender has left out.
            output = self.feed(_FLUSH_TAIL, room)
            if self._stream is not None and not _is_between_blocks(self._stream):
                self.discard()
                raise InvalidPayload("compressed message is cut off")
        self._stream = None
        self._final_blocks = 0
        return output

    def discard(self) -> None:
        """Forget the message that is incomplete, and all earlier ones."""
        self._stream = None
        self._history = b""
        self._final_blocks = 0

    def _inflate(self, data: Bytes, room: int, parts: list[bytes]) -> int:
        """Append to ``parts`` what ``data`` holds; return the room that is left."""
        # What did not fit may wait inside zlib when all input is consumed. It comes out before
        # the next octet is looked at, at the latest before those of the tail.
        while len(data) > 0:
            stream = self._stream or self._new_stream()
            try:
                # Never 0, which would mean no limit at all.
                part = stream.decompress(data, max(1, min(_STEP, room + 1)))
            except zlib.error:
                raise InvalidPayload("compressed data is malformed") from None
            if part:
                room -= len(part)
                self._take(part, room)
                parts.append(part)
            data = stream.unconsumed_tail
            if stream.eof:
                data = stream.unused_data
                self._end_stream()
        return room

    def _take(self, part: bytes, room: int) -> None:
        """Judge the size of what came out, and remember it where the peer may refer to it."""
        if room < 0:
            raise FrameTooLarge("message inflates to more than the size limit")
        if self._budget is not None and not self._budget.take(self.now, len(part)):
            raise PolicyViolation("messages inflate to too many bytes a second")
        if self._keeps_context:
            window = 1 << self._bits
            self._history = (self._history + part[-window:])[-window:]

    def _new_stream(self) -> zlib._Decompress:
        """Begin a message, or what follows a final block.

        Always a new stream: what another message or connection has left in a window must never
        be within the reach of a peer's references. It costs 0.2 microseconds, less than to copy
        a stream that was never used; and a history put in costs less memory than a stream kept.
        """
        if self._history:
            self._stream = zlib.decompressobj(wbits=-self._bits, zdict=self._history)
        else:
            self._stream = zlib.decompressobj(wbits=-self._bits)
        return self._stream

    def _end_stream(self) -> None:
        """Leave the stream that a final block has ended (RFC 7692, 7.2.3.4)."""
        self._stream = None
        self._final_blocks += 1
        if self._final_blocks > _MAX_FINAL_BLOCKS:
            raise FrameTooLarge("message is made of too many compressed streams")


def _is_between_blocks(stream: zlib._Decompress) -> bool:
    """Tell whether a stream has nothing begun; it is of no use afterwards.

    zlib does not say where it stands. But only there a final empty block is nothing else than
    the end.
    """
    try:
        output = stream.decompress(_EMPTY_FINAL_BLOCK, 1)
    except zlib.error:
        return False
    return stream.eof and not output and not stream.unused_data
