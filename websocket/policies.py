"""What becomes of messages that are too many: for a peer that reads slowly, of one that sends fast.

Each name may also be given as text: ``slow_consumer = "latest"``.
"""

from __future__ import annotations

from enum import Enum


class _Policy(str, Enum):
    def __str__(self) -> str:
        return str(self.value)


class SlowConsumer(_Policy):
    """Name what ``send`` does while more than ``write_soft_mark`` bytes wait for the peer.

    Whatever the policy, a message that has begun to leave is never cut, control frames neither
    wait nor get lost, and what is delivered comes in the order of sending; with ``LATEST`` a
    message stands where the one stood that it replaces.
    """

    CLOSE = "close"
    """Take it, up to ``write_hard_mark`` bytes in all; close the connection beyond that (1008)."""
    DROP_OLDEST = "drop_oldest"
    """Take it, and drop the oldest of such messages that have no room below the hard mark."""
    DROP_NEWEST = "drop_newest"
    """Take it, up to the hard mark; drop it beyond that."""
    LATEST = "latest"
    """Take it in the place of the one with the same key that still waits; else as ``DROP_OLDEST``.

    Messages without a key replace one another.
    """
    BLOCK = "block"
    """Do not take it: ``send`` returns False, and ``on_writable`` tells when to go on.

    Where nobody could be told, in a broadcast or from another thread, as ``DROP_NEWEST``.
    """


class Excess(_Policy):
    """Name what becomes of a message that comes faster than ``message_rate`` allows."""

    CLOSE = "close"
    """It fails the connection (1008)."""
    DROP = "drop"
    """It is not handled, as if it had never come."""
    DELAY = "delay"
    """It waits until it is allowed, and nothing more is read from the peer meanwhile."""
