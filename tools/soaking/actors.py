"""The clients of a soak. Each lives for a while, ends in its own way, and is replaced.

Prober, Listener    healthy; must never be disturbed (see torturing/healthy.py)
Churner             some messages, then an end of any kind
SlowReader          lets the server push, and reads nothing or hardly anything
Mute                answers no ping
Resumer             comes back to its session, in time, too late, or twice at once
Liar                sends bytes that are wrong
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from fuzzing.frames import DICTIONARY as FRAME_DICTIONARY
from fuzzing.frames import generate_stream
from fuzzing.heads import DICTIONARY as HEAD_DICTIONARY
from fuzzing.heads import generate_request
from fuzzing.mutation import mutate
from fuzzing.properties import seeded
from torturing.client import COMPRESSION, REQUEST, Client, Misbehaviour, Phase, frame, request
from torturing.healthy import Listener, Prober
from torturing.swarm import Swarm

from websocket import Opcode
from websocket.frame import FIN

# How long the server keeps a session for its client.
DETACHED_LIFETIME = 4.0
# Enough for the limits per address to concern only those who come from one of their own.
ADDRESSES = tuple(f"127.2.{number // 50}.{1 + number % 50}" for number in range(200))
PAYLOADS = ("a", "probe " * 50, bytes(range(256)) * 16, "\u20ac" * 30_000, b"x" * 200_000)
_PUSH = request("/push")
_PING = frame(FIN | Opcode.PING, b"p" * 100)
_REPLACED = 4000


class Actor(Client):
    """Have a source of chance."""

    __slots__ = ("chance",)

    def __init__(self, swarm: Swarm, *, chance: random.Random, **options: Any) -> None:
        super().__init__(swarm, **options)
        self.chance = chance

    def quit(self) -> None:
        """End in any way."""
        self.chance.choice((self.close, self.leave, self.reset))()


class Churner(Actor):
    """Exchange some messages and go."""

    __slots__ = ("_left",)

    def on_open(self) -> None:
        """Begin, or go at once."""
        self._left = self.chance.randint(0, 10)
        self._go_on()

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Go on."""
        self._go_on()

    def _go_on(self) -> None:
        if self._left <= 0:
            self.quit()
        else:
            self._left -= 1
            self.send(self.chance.choice(("short", "x" * 200, bytes(4_000), bytes(70_000))))


class SlowReader(Actor):
    """Read nothing, or so little that it must be cut."""

    __slots__ = ()

    def on_open(self) -> None:
        """Stop reading, but go on to talk; go after a while, cut or not."""
        self.pause()
        self._talk()
        if self.chance.random() < 0.5:
            self.swarm.call_later(0.2, self._drip)
        self.swarm.call_later(self.chance.uniform(3, 20), self.quit)

    def _talk(self) -> None:
        # Who is silent is found out by pings.
        if self.phase is Phase.OPEN:
            self.send("still here")
            self.swarm.call_later(0.5, self._talk)

    def _drip(self) -> None:
        if self.phase is Phase.OPEN:
            self.read(100)
            self.swarm.call_later(0.2, self._drip)


class Mute(Actor):
    """Answer no ping, until that is found out."""

    __slots__ = ()

    def on_open(self) -> None:
        """Say nothing any more."""
        self.answers_pings = False


class Resumer(Actor):
    """Visit a session, and come back to it: in time, too late, or while still there.

    Args:
        swarm: see ``Client``.
        visits: how many visits of the session the server must know of, this one included.
        session: the header line that names the session, None for a fresh one.
    """

    __slots__ = ("_is_replaced", "_session", "_visits")

    def __init__(
        self, swarm: Swarm, *, visits: int = 1, session: str | None = None, **options: Any
    ) -> None:
        fields = () if session is None else (session,)
        super().__init__(swarm, request=request("/session", *fields), **options)
        self._visits = visits
        self._session = session
        self._is_replaced = False

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Compare the number of visits, and come back some time."""
        if message != str(self._visits):
            raise Misbehaviour(f"the session has {message!r} visits instead of {self._visits}")
        # A server that does not know the session any more gives another one.
        self._session = self.cookie or self._session
        choice = self.chance.random()
        if choice < 0.1:
            self.quit()
        elif choice < 0.3:
            self._is_replaced = True
            self._come_back(self._visits + 1)
        elif choice < 0.5:
            self.quit()
            self.swarm.call_later(2 * DETACHED_LIFETIME, lambda: self._come_back(1))
        else:
            self.quit()
            delay = self.chance.uniform(0, 0.3) * DETACHED_LIFETIME
            self.swarm.call_later(delay, lambda: self._come_back(self._visits + 1))

    def _come_back(self, visits: int) -> None:
        source = self.chance.choice(ADDRESSES)
        self.swarm.open(
            Resumer, visits=visits, session=self._session, chance=self.chance, source=source
        )

    def on_end(self) -> None:
        """See that it was replaced if a newer one came."""
        if self._is_replaced and self.ending != "left" and self.close_code != _REPLACED:
            raise Misbehaviour(f"ended with {self.close_code} instead of being replaced")


class Liar(Actor):
    """Send a wrong request, or wrong frames after a right one; then wait for what comes."""

    __slots__ = ()

    def on_connected(self) -> None:
        """Send a request, right or wrong."""
        if self.chance.random() < 0.5:
            self.send_bytes(self._mutated(generate_request(self.chance), HEAD_DICTIONARY))
        else:
            self.send_bytes(self.request)
        self.swarm.call_later(self.chance.uniform(0.1, 3), self.quit)

    def on_open(self) -> None:
        """Send frames that are wrong, or right but far too many."""
        if self.chance.random() < 0.1:
            self.send_bytes(_PING * 1_000)
            return
        stream = generate_stream(self.chance, is_masked=True, is_compressed=self.is_compressed)
        self.send_bytes(self._mutated(stream, FRAME_DICTIONARY))

    def _mutated(self, data: bytes, words: Sequence[bytes]) -> bytes:
        return mutate(self.chance, data, words)


class Role(NamedTuple):
    """Say how often clients of a kind appear."""

    kind: type[Actor]
    every: float
    """Seconds between two appearances."""
    most: int
    """How many there may be at once."""
    options: dict[str, Any]


ROLES = (
    Role(Churner, 0.03, 40, {"request": REQUEST}),
    Role(Churner, 0.1, 20, {"request": request("/", COMPRESSION)}),
    Role(SlowReader, 0.5, 15, {"request": _PUSH, "receive_buffer": 16 * 1024}),
    Role(Mute, 0.5, 10, {}),
    Role(Resumer, 0.2, 40, {}),
    Role(Liar, 0.05, 40, {}),
    Role(Liar, 0.1, 20, {"request": request("/", COMPRESSION)}),
    Role(Liar, 0.1, 20, {"source": "127.6.6.6"}),
)


class Troupe:
    """Have the clients of a soak appear, until told to stop.

    Args:
        swarm: runs them.
        seed: of all chance.

    Attributes:
        pace: 1; below it more of them appear, above it fewer.
        latencies: the seconds that the healthy waited for their echoes.
        lateness: the seconds by which the pushed messages were late.
        healthy: those that must never end.
    """

    def __init__(self, swarm: Swarm, seed: str) -> None:
        self.pace = 1.0
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.healthy: list[Client] = []
        self._swarm = swarm
        self._chance = seeded(seed)

    def begin(self) -> None:
        """Open the healthy clients, and have the others appear from now on."""
        for number in range(10):
            fields = (COMPRESSION,) if number % 2 else ()
            prober = self._swarm.open(
                Prober,
                latencies=self.latencies,
                every=0.25,
                payloads=PAYLOADS,
                request=request("/", *fields),
            )
            self.healthy.append(prober)
        for _ in range(3):
            self.healthy.append(self._swarm.open(Listener, latencies=self.lateness, request=_PUSH))
        for role in ROLES:
            self._appear(role)

    def end(self) -> None:
        """Let nobody appear any more, or come back, and close all clients."""
        self._swarm.forget_calls()
        for client in self.healthy:
            client.close()
        for client in self._swarm.clients.difference(self.healthy):
            client.reset()

    @property
    def disturbed(self) -> list[Client]:
        """The healthy clients that have ended, or were told to."""
        return [
            client
            for client in self.healthy
            if client.phase is Phase.ENDED or client.close_code is not None
        ]

    def _appear(self, role: Role) -> None:
        self._swarm.call_later(role.every * self.pace, lambda: self._appear(role))
        present = sum(type(client) is role.kind for client in self._swarm.clients)
        if present < role.most:
            options = {"source": self._chance.choice(ADDRESSES), **role.options}
            self._swarm.open(role.kind, chance=self._chance, **options)
