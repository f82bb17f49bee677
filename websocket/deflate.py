"""permessage-deflate: the policy, and how two endpoints agree on it (RFC 7692, 5 and 7.1).

Not for: compressing itself (``deflate_codec.py``), RSV1 and frames (``frame.py``,
``frame_reader.py``), nor the grammar of the header field (``headers.py``).

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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, NamedTuple

from websocket.deflate_codec import Compressor, Inflater
from websocket.errors import HandshakeError
from websocket.headers import Extension
from websocket.limits import KIB, MIB
from websocket.ratelimit import TokenBucket

EXTENSION_NAME = "permessage-deflate"

# RFC 7692, 7.1.2: 8 to 15, without leading zeroes.
_WINDOW_BITS = {str(bits): bits for bits in range(8, 16)}
_MAX_BITS = 15
# zlib inflates with a window of 8 bits, but cannot deflate raw with it (madler/zlib #171).
_MIN_COMPRESS_BITS = 9


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
    # zlib's own default of 6 takes a third more time, to make JSON a tenth shorter.
    level: int = 1
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


@cache
def _shared_compressor(bits: int, level: int, memory_level: int) -> Compressor:
    return Compressor(bits, level, memory_level, keeps_context=False)
