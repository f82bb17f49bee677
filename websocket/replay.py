"""What was sent to a session while its client was away: the last messages, in bounded room.

    keep(a) keep(b) keep(c)          a b c
    keep(d), and there is room       a b c d
    keep(e), and there is none       . b c d e       dropped = 1

The oldest give way, so that what was dropped lies before all that is kept: the client is told
of one gap, and then gets everything that follows it.

Not for: messages that a connection has taken. Those it did not deliver before it broke are lost,
as always with WebSocket; whoever cannot bear that has the client acknowledge them.
"""

from __future__ import annotations

from collections import deque

# Of the objects that hold a message of one byte: what 128 empty messages cost is not nothing.
OVERHEAD = 128


class Replay:
    """Keep the last messages for one session.

    Attributes:
        dropped: how many messages were kept here or should have been, and are lost.
        size: bytes that are held, ``OVERHEAD`` for each message included.
    """

    __slots__ = ("_messages", "dropped", "size")

    def __init__(self, dropped: int = 0) -> None:
        self._messages: deque[tuple[bool, bytes]] = deque()
        self.dropped = dropped
        self.size = 0

    def __len__(self) -> int:
        """Return the number of messages that are held."""
        return len(self._messages)

    def keep(self, payload: bytes, *, is_text: bool, max_count: int, max_size: int) -> bool:
        """Take a message in, and drop from the oldest on what has no room any more.

        Args:
            payload: of a text, its UTF-8.
            is_text: whether it is a text.
            max_count: messages to hold at the most.
            max_size: bytes to hold at the most.

        Returns:
            False when there is no room for this one itself.
        """
        self._messages.append((is_text, payload))
        self.size += len(payload) + OVERHEAD
        while self._messages and (len(self._messages) > max_count or self.size > max_size):
            self.pop()
            self.dropped += 1
        return bool(self._messages)

    def first(self) -> str | bytes:
        """Return the oldest message.

        Raises:
            IndexError: there is none.
        """
        is_text, payload = self._messages[0]
        return payload.decode() if is_text else payload

    def pop(self) -> None:
        """Let go of the oldest message.

        Raises:
            IndexError: there is none.
        """
        self.size -= len(self._messages.popleft()[1]) + OVERHEAD
