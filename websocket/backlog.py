"""Messages that wait in front of a transport for a peer to catch up, and those that may be dropped.

    put       kept  ──▶ ┐
              loose ──▶ ┴─ in the order of sending ──▶ pop ── the transport
                │
                └── room ends: the oldest loose one is dropped, never a kept one

A loose message was sent under a policy that lets it be dropped; with a key, a newer one takes
its place in the line: so a key that changes often keeps no other key waiting.

Bytes only: who may wait and for how long is decided in ``sender.py``. A message waits as it was
given: it is compressed when it leaves, since whatever a compressor with takeover has seen must
be sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import NamedTuple

# Of the objects that hold a message of one byte, on top of its bytes.
OVERHEAD = 384


class Waiting(NamedTuple):
    """Hold a message that waits.

    Attributes:
        buffers: its frame; or its payload alone, if it is to be compressed when it leaves.
        head: in the latter case the first octet of the frame, else None.
    """

    buffers: tuple[bytes, ...]
    head: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes, the objects included."""
        return sum(map(len, self.buffers)) + OVERHEAD


class Backlog:
    """Hold the messages that wait for one peer.

    Attributes:
        size: bytes that they take, ``OVERHEAD`` for each included.
        dropped: how many have been dropped since the beginning.
    """

    __slots__ = ("_kept", "_loose", "_next", "_told", "dropped", "size")

    def __init__(self) -> None:
        # Both in the order of sending, which is the number that comes first.
        self._kept: deque[tuple[int, Waiting]] = deque()
        self._loose: OrderedDict[Hashable, tuple[int, Waiting]] = OrderedDict()
        self._next = 0
        self._told = 0
        self.dropped = 0
        self.size = 0

    def __len__(self) -> int:
        """Return the number of messages that wait."""
        return len(self._kept) + len(self._loose)

    def keep(self, message: Waiting) -> None:
        """Put a message at the end, never to be dropped."""
        self._kept.append((self._number(), message))
        self.size += message.size

    def put(self, message: Waiting, room: int) -> bool:
        """Put a message at the end, and drop the oldest of its kind that have no room.

        Args:
            message: may be dropped later.
            room: bytes that all may take.

        Returns:
            False when there is no room for this one itself.
        """
        number = self._number()
        return self._put(number, number, message, room)

    def put_latest(self, message: Waiting, key: Hashable, room: int) -> bool:
        """Put a message in the place of the one with the same key, or at the end; see ``put``."""
        # Numbers are keys, too: those of ``put``.
        name = (key,)
        older = self._loose.get(name)
        if older is None:
            return self._put(name, self._number(), message, room)
        self.size -= older[1].size
        self.dropped += 1
        return self._put(name, older[0], message, room)

    def pop(self) -> Waiting:
        """Take out the message that was sent first.

        Raises:
            IndexError, KeyError: there is none.
        """
        kept, loose = self._kept, self._loose
        if kept and not (loose and next(iter(loose.values()))[0] < kept[0][0]):
            message = kept.popleft()[1]
        else:
            message = loose.popitem(last=False)[1][1]
        self.size -= message.size
        return message

    def clear(self) -> None:
        """Let go of all that waits."""
        self._kept.clear()
        self._loose.clear()
        self.size = 0

    def tell(self) -> int:
        """Return how many were dropped since the last call."""
        count, self._told = self.dropped - self._told, self.dropped
        return count

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _put(self, name: Hashable, number: int, message: Waiting, room: int) -> bool:
        loose = self._loose
        loose[name] = (number, message)
        self.size += message.size
        while self.size > room and loose:
            # The newest goes last, wherever in the line it stands.
            others = (each for each in loose if each != name)
            self.size -= loose.pop(next(others, name))[1].size
            self.dropped += 1
        return name in loose
