"""The loads that servers are put under, and the payloads that they carry.

An operation is what processor time is divided by: an echo, a delivery to one receiver, a whole
life of a connection, an opening handshake.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzzing.properties import seeded

KIB = 1024
TEXT, BINARY = 1, 2

DEFLATE = "deflate"
TLS = "tls"

_SEED = 6455
_VENUES = ("Berlin", "Lagos", "Lima", "Osaka", "Oslo", "Quebec", "Sydney", "Tunis")
_STATES = ("open", "partly filled", "filled", "cancelled", "expired")


@dataclass(frozen=True)
class Payload:
    """Say what the messages carry.

    Args:
        size: bytes of each.
        is_text: text, else binary.
        is_compressed: as a client compresses; text then, of several different messages.
    """

    size: int
    is_text: bool = False
    is_compressed: bool = False

    @property
    def opcode(self) -> int:
        """The opcode of the messages."""
        return TEXT if self.is_text else BINARY

    def messages(self) -> list[bytes]:
        """Return the messages before compression, always the same."""
        source = seeded(_SEED)
        if self.is_compressed:
            return [_json_text(source, self.size) for _ in range(64)]
        if self.is_text:
            return [bytes(source.choices(range(0x20, 0x7F), k=self.size))]
        return [bytes(source.getrandbits(8) for _ in range(self.size))]

    def on_the_wire(self) -> list[bytes]:
        """Return what stands in the frames, before it is masked."""
        messages = self.messages()
        return [deflate(each) for each in messages] if self.is_compressed else messages

    def write(self, path: Path) -> None:
        """Write the file that the generator reads: each payload behind its size."""
        parts = (len(each).to_bytes(4, "little") + each for each in self.on_the_wire())
        path.write_bytes(b"".join(parts))


def deflate(message: bytes) -> bytes:
    """Compress a message in a way that any agreement on windows and takeover allows.

    RFC 7692, 7.2.1: the last four bytes of the flush are left out. The window is the smallest
    that holds a whole message, and each message is compressed by itself.
    """
    compressor = zlib.compressobj(6, zlib.DEFLATED, -10)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _json_text(source: random.Random, size: int) -> bytes:
    """Return JSON of orders, as a program might send them, of just this many bytes."""
    orders: list[dict[str, object]] = []
    text = b"[]"
    while len(text) < size:
        orders.append(
            {
                "id": source.randrange(10**9),
                "venue": source.choice(_VENUES),
                "state": source.choice(_STATES),
                "price": round(source.uniform(1, 1000), 2),
            }
        )
        longer = json.dumps(orders).encode()
        if len(longer) > size:
            break
        text = longer
    return text.ljust(size)


@dataclass(frozen=True)
class Scenario:
    """Describe one load.

    Args:
        name: short, for the command line.
        title: for tables.
        mode: the generator's: echo, fanout, churn or hold.
        connections: how many; of a churn, how many at the same time.
        payload: what messages carry.
        depth: messages that each connection keeps in flight.
        operation: what one operation is.
        needs: what a server must be able to do.
        addresses: from how many addresses of 127.0.0.0/8 connections come.
    """

    name: str
    title: str
    mode: str
    connections: int
    payload: Payload
    depth: int = 1
    operation: str = "echo"
    needs: frozenset[str] = frozenset()
    addresses: int = 250

    @property
    def in_flight(self) -> int:
        """Operations that are under way when the window begins, and are completed in it at once."""
        return self.connections * self.depth if self.mode in ("echo", "churn") else 0

    def options(self, seconds: float, warm_up: float) -> Sequence[str]:
        """Return the generator's options that follow from this load.

        Args:
            seconds: length of the window.
            warm_up: seconds of load before it.
        """
        options = [self.mode, "--connections", str(self.connections), "--depth", str(self.depth)]
        options += ["--seconds", f"{seconds:g}", "--warm-up", f"{warm_up:g}"]
        options += ["--addresses", str(self.addresses)]
        options += ["--text"] if self.payload.is_text else []
        options += ["--deflate"] if self.payload.is_compressed else []
        return options + (["--tls"] if TLS in self.needs else [])


_SMALL = Payload(32)
_LARGE = Payload(64 * KIB)

_ALL = (
    Scenario("E1", "echo, 100 connections x 1 in flight x 32 B", "echo", 100, _SMALL),
    Scenario("E2", "echo, 100 x 16 in flight x 32 B", "echo", 100, _SMALL, 16),
    Scenario("E3", "echo, 1 x 1 x 32 B (round trips)", "echo", 1, _SMALL),
    Scenario("E4", "echo, 20 x 64 KiB", "echo", 20, _LARGE),
    Scenario("E5", "echo, 4 x 1 MiB", "echo", 4, Payload(KIB * KIB)),
    Scenario("E6", "echo, 1,000 x 256 B text", "echo", 1000, Payload(256, is_text=True)),
    Scenario("F5", "fan-out of 128 B to 5,000", "fanout", 5000, Payload(128), operation="delivery"),
    Scenario(
        "C1",
        "connect, upgrade, one echo, close; 50 at a time",
        "churn",
        50,
        _SMALL,
        operation="connection",
    ),
    Scenario(
        "E1d",
        "echo, 100 x 1 KiB JSON text, permessage-deflate",
        "echo",
        100,
        Payload(KIB, is_text=True, is_compressed=True),
        needs=frozenset({DEFLATE}),
    ),
    Scenario(
        "I1",
        "10,000 connections opened, 64 at a time, and held",
        "hold",
        10_000,
        _SMALL,
        operation="handshake",
    ),
    Scenario("E1t", "E1 over TLS", "echo", 100, _SMALL, needs=frozenset({TLS})),
    Scenario("E4t", "E4 over TLS", "echo", 20, _LARGE, needs=frozenset({TLS})),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
