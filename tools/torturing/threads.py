"""The row about threads: ``send`` from many of them, while clients come and go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torturing.client import Client, Misbehaviour, has_ended, request
from torturing.figures import Figure, exactly
from torturing.process import ServerProcess
from torturing.served import THREAD_MESSAGE_SIZE
from torturing.swarm import Swarm, now_and_then

_REQUEST = request("/threads")


class Hearer(Client):
    """Get what the threads send, and see that nothing is mixed up or missing.

    Attributes:
        id: the id of the connection at the server.
        heard: how many messages came, by thread.
    """

    __slots__ = ("heard", "id")

    def on_open(self) -> None:
        """Begin."""
        self.id: int | None = None
        self.heard: Counter[str] = Counter()

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Take a message, the next one of its thread."""
        assert isinstance(message, str)
        if self.id is None:
            self.id = int(message)
            return
        thread = message.partition(":")[0]
        wanted = f"{thread}:{self.heard[thread]}:".ljust(THREAD_MESSAGE_SIZE, thread[:1])
        if message != wanted:
            raise Misbehaviour(f"{message!r} came instead of {wanted!r}")
        self.heard[thread] += 1


class Guest(Hearer):
    """Listen for a while, leave in one of several ways, and have another one come."""

    __slots__ = ()
    count = 0
    is_over = False

    def on_message(self, opcode: int, message: str | bytes) -> None:
        """Go after a while."""
        super().on_message(opcode, message)
        if self.messages == 50:
            (self.close, self.leave, self.reset)[Guest.count % 3]()

    def on_end(self) -> None:
        """Have another one come."""
        Guest.count += 1
        if not Guest.is_over:
            self.swarm.open(Guest, request=_REQUEST)


def threads(
    count: int = 8, messages: int = 300, stayers: int = 20, guests: int = 20
) -> Iterator[Figure]:
    """Send from many threads to clients that stay, and to others that come and go (H107)."""
    Guest.count, Guest.is_over = 0, False
    with ServerProcess() as server, Swarm(server.address) as swarm:
        staying = swarm.open_many(stayers, Hearer, request=_REQUEST)
        for _ in range(guests):
            swarm.open(Guest, request=_REQUEST)
        server.get(f"/threads?count={count}&messages={messages}")
        seconds = swarm.run_until(
            "the threads are done", now_and_then(lambda: server.facts()["threads"]["is_done"], 0.2)
        )
        Guest.is_over = True
        for client in list(swarm.clients):
            if isinstance(client, Guest):
                client.leave()
        sent = {int(name): number for name, number in server.facts()["threads"]["sent"].items()}
        expected = sum(sent[each.id] for each in staying if each.id is not None)
        swarm.run_until("all of it has arrived", lambda: _heard(staying) >= expected, timeout=5)
        yield Figure(f"messages by {count} threads a second", sum(sent.values()) / seconds)
        yield exactly("taken by send, for those who stay", expected, count * messages * stayers)
        yield exactly("arrived, each thread's in order", _heard(staying), expected)
        yield exactly("of those who stay, ended", sum(map(has_ended, staying)), 0)
        yield Figure("clients that came and went meanwhile", Guest.count, least=guests)
        yield exactly("errors logged", len(server.faults()), 0)


def _heard(clients: Sequence[Hearer]) -> int:
    return sum(sum(client.heard.values()) for client in clients)
