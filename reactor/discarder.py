"""Who stands in for a protocol that wants no further input; see ``Transport.linger``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactor.protocol import Protocol

if TYPE_CHECKING:
    from reactor.transport import Transport
    from reactor.wheel import Timer


class Discarder(Protocol):
    """Discard input, up to a limit.

    Args:
        transport: is aborted beyond the limit.
        protocol: the one to stand in for; it is still told how writing goes, and of the end.
        max_size: the limit in bytes.
        timer: to be cancelled at the end.
    """

    __slots__ = ("_allowance", "_protocol", "_timer", "_transport")

    def __init__(
        self, transport: Transport, protocol: Protocol, max_size: int, timer: Timer
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._allowance = max_size
        self._timer = timer

    def __repr__(self) -> str:
        return repr(self._protocol)

    def data_received(self, data: memoryview) -> None:
        """Count the bytes and forget them."""
        self._allowance -= len(data)
        if self._allowance < 0:
            self._transport.abort()

    def unsent_changed(self, size: int) -> None:
        """Pass it on: what is unsent still takes memory."""
        self._protocol.unsent_changed(size)

    def connection_lost(self, error: Exception | None) -> None:
        """Pass it on."""
        self._timer.cancel()
        self._protocol.connection_lost(error)
