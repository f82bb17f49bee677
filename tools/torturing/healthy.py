"""Clients that several rows need: those that are well-behaved and look at the time."""

from __future__ import annotations

import time
import zlib
from typing import Any

from torturing.client import Client, Misbehaviour, Phase, frame
from torturing.served import PUSH_HEADER
from torturing.swarm import Swarm
from websocket.frame import RSV1
from websocket.frame_writer import encode_message


class Prober(Client):
    """Send a message again and again, and see that it comes back, and how soon.

    The time includes what our own thread takes to notice, so it is rather too long.

    Args:
        swarm: see ``Client``.
        every: seconds between two messages.
        payloads: what to send, in turn.
        latencies: where the times go, in seconds; one list for many probers.
    """

    __slots__ = ("_awaited", "_every", "_number", "_payloads", "_sent_at", "latencies")

    def __init__(
        self,
        swarm: Swarm,
        *,
        latencies: list[float],
        every: float = 0.05,
        payloads: tuple[str | bytes, ...] = ("probe",),
        **options: Any,
    ) -> None:
        super().__init__(swarm, **options)
        self.latencies = latencies
        self._every = every
        self._payloads = payloads
        self._number = 0
        self._awaited: str | bytes | None = None
        self._sent_at = 0.0

    def on_open(self) -> None:
        """Begin."""
        self._probe()

    def _probe(self) -> None:
        if self.phase is not Phase.OPEN:
            return
        self.swarm.call_later(self._every, self._probe)
        if self._awaited is not None:
            return
        self._awaited = self._payloads[self._number % len(self._payloads)]
        self._number += 1
        self._sent_at = time.monotonic()
        self.send(self._awaited)

    def send(self, message: Any) -> None:
        """Send a message, compressed where that was agreed on."""
        head, payload = encode_message(message)
        if self.is_compressed and payload:
            compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
            payload = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
            head, payload = head | RSV1, payload[:-4]
        self.send_bytes(frame(head, payload))

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Compare, and take the time."""
        if message != self._awaited:
            raise Misbehaviour(f"{self._awaited!r:.80} came back as {message!r:.80}")
        self.latencies.append(time.monotonic() - self._sent_at)
        self._awaited = None

    def settle(self) -> None:
        """Count an answer that is still awaited as if it came now."""
        if self._awaited is not None:
            self.latencies.append(time.monotonic() - self._sent_at)


class Visitor(Client):
    """Connect, exchange a message, close, and note how long it took to be served.

    Args:
        swarm: see ``Client``.
        times: where the seconds from connect to answer go.
    """

    __slots__ = ("_times",)

    def __init__(self, swarm: Swarm, *, times: list[float], **options: Any) -> None:
        super().__init__(swarm, **options)
        self._times = times

    def on_open(self) -> None:
        """Ask."""
        self.send("anybody there?")

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Note the time and go."""
        self._times.append(time.monotonic() - self.started_at)
        self.close()


class Listener(Client):
    """Get what the server pushes, see that nothing is missing, and how late it is.

    Args:
        swarm: see ``Client``.
        latencies: where the seconds from making to arrival go.
    """

    __slots__ = ("_latencies", "_next")

    def __init__(self, swarm: Swarm, *, latencies: list[float], **options: Any) -> None:
        super().__init__(swarm, **options)
        self._latencies = latencies
        self._next: int | None = None

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Look at number and time."""
        assert isinstance(message, bytes)
        number, made_at = PUSH_HEADER.unpack_from(message)
        if self._next not in (None, number):
            raise Misbehaviour(f"message {number} came instead of {self._next}")
        self._next = number + 1
        self._latencies.append(time.monotonic() - made_at)
