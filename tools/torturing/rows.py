"""The table of rows."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from torturing import exhaustion, handshakes, leaks, liveness, memory, shutdown, threads
from torturing.figures import Figure

# Whatever a row waits for has a shorter limit of its own; this is for what nobody thought of.
_SECONDS = 60


class Row(NamedTuple):
    """Name one row of the catalogue of hostile input, or one more of that kind.

    Attributes:
        name: the number in the catalogue where it has one.
        show: yields the figures.
    """

    name: str
    show: Callable[[], Iterator[Figure]]

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (self.show.__doc__ or "").partition("\n")[0]

    def figures(self) -> Iterator[Figure]:
        """Run it.

        Raises:
            TimeoutError: something did not happen in time.
            Misbehaviour: the server did what no server may do.
        """
        with limited(_SECONDS):
            yield from self.show()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; main thread only."""

    def expire(number: int, context: FrameType | None) -> None:
        raise TimeoutError(f"longer than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _fragments() -> Iterator[Figure]:
    """Send messages in one-byte fragments, unfinished or without end."""
    yield from memory.held_fragments()
    yield from memory.endless_fragments()


_TABLE = (
    Row("H01", handshakes.slowloris),
    Row("FLOOD", handshakes.flood),
    Row("H43", exhaustion.burst),
    Row("H44", exhaustion.out_of_descriptors),
    Row("H56", _fragments),
    Row("H73", memory.ping_flood),
    Row("H75", memory.bombs),
    Row("H86", memory.slow_consumers),
    Row("H87", liveness.dripping_reader),
    Row("H88", liveness.silent_peers),
    Row("H90", liveness.blocked_loop),
    Row("H107", threads.threads),
    Row("H109", leaks.cycles),
    Row("H120", shutdown.idle_clients),
    Row("H121", shutdown.unwilling_clients),
)
ROWS = {row.name: row for row in _TABLE}
# One row shows both.
ROWS["H02"] = ROWS["H01"]
