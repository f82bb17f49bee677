r"""The pool: every stream of a server from accept to its end, and the limits on their number.

    admit -> Slot ---add(connection)---> open ---remove(connection)---> slot free again
               \
                ---release: the handshake failed---------------------> slot free again

A slot is taken before the first byte is read, so that half-open handshakes count as well, and
is freed exactly once, however often that is asked for: the counters stay exact whatever order
things end in.

Not for: sessions and closing, see ``manager.py``; who has which session is known by the
session alone (``session.connection``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from websocket.address import address_key, is_exempt
from websocket.errors import ConnectionLimit
from websocket.ratelimit import BucketTable

if TYPE_CHECKING:
    from websocket.limits import Limits
    from websocket.session import ManagedConnection

# Long enough for a full server to lose some of its connections.
_RETRY_AFTER = 10.0
# Addresses whose handshakes are counted at the same time; about 5 MiB when an attack fills it.
_MAX_ADDRESSES = 16_384


class Slot:
    """Stand for one admitted stream.

    Attributes:
        address_key: the key it is counted under, see ``websocket.address``.
        connection: the open connection; None during the opening handshake.
        user_id: whose connection it is; None if it has no user.
        is_free: True once the slot was released.
    """

    # There may be 100,000 of them, too; four fit into 64 bytes.
    __slots__ = ("address_key", "connection", "is_free", "user_id")

    def __init__(self, address_key: str) -> None:
        self.address_key = address_key
        self.is_free = False
        self.connection: ManagedConnection | None = None
        self.user_id: str | None = None


class ConnectionPool:
    """Track all connections of a server; use it in the reactor's thread.

    Args:
        limits: how many connections and handshakes there may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._admitted = 0
        self._admitted_by_address: dict[str, int] = {}
        self._open: dict[int, Slot] = {}
        self._open_by_user: dict[str, dict[int, ManagedConnection]] = {}
        self._handshakes: BucketTable | None = None
        if limits.handshakes_per_minute is not None:
            per_minute = limits.handshakes_per_minute
            self._handshakes = BucketTable(per_minute / 60, max(1, per_minute), _MAX_ADDRESSES)

    @property
    def admitted(self) -> int:
        """The number of slots taken: open connections and opening handshakes."""
        return self._admitted

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def __iter__(self) -> Iterator[ManagedConnection]:
        """Iterate over the connections open at this moment; others may come and go meanwhile."""
        return iter(self.connections())

    def connections(self) -> list[ManagedConnection]:
        """Return the open connections in the order of their opening."""
        return [slot.connection for slot in self._open.values() if slot.connection is not None]

    def get(self, connection_id: int) -> ManagedConnection | None:
        """Return the open connection of this id, or None."""
        slot = self._open.get(connection_id)
        return None if slot is None else slot.connection

    def by_user(self, user_id: str) -> list[ManagedConnection]:
        """Return the open connections of a user in the order of their opening."""
        return list(self._open_by_user.get(user_id, {}).values())

    def by_address(self, key: str) -> list[ManagedConnection]:
        """Return the open connections of an address key; looks at all connections."""
        return [
            slot.connection
            for slot in self._open.values()
            if slot.address_key == key and slot.connection is not None
        ]

    def admit(self, host: str, now: float) -> Slot:
        """Take a slot for a stream that was just accepted.

        Args:
            host: the peer's address in text form.
            now: the present time in seconds.

        Raises:
            ConnectionLimit: 503 when the server is full; 429 when this address has too many
                connections or starts too many handshakes. The refusal costs no token.
        """
        if self._admitted >= self._limits.max_connections:
            raise ConnectionLimit(503, "too many connections", _RETRY_AFTER)
        key = address_key(host)
        if self._is_counted(key):
            self._check_address(key, now)
            self._admitted_by_address[key] = self._admitted_by_address.get(key, 0) + 1
        self._admitted += 1
        return Slot(key)

    def _is_counted(self, key: str) -> bool:
        """Tell whether the limits per address count this one."""
        return not is_exempt(key, self._limits)

    def _check_address(self, key: str, now: float) -> None:
        """Raise ConnectionLimit 429 unless this address may start one more handshake."""
        most = self._limits.max_connections_per_ip
        if most is not None and self._admitted_by_address.get(key, 0) >= most:
            raise ConnectionLimit(429, "too many connections of one address", _RETRY_AFTER)
        handshakes = self._handshakes
        if handshakes is not None and not handshakes.take(key, now):
            raise ConnectionLimit(
                429, "too many handshakes of one address", handshakes.wait(key, now)
            )

    def add(self, connection: ManagedConnection, slot: Slot) -> None:
        """Put a connection that is now open into its slot."""
        slot.connection = connection
        self._open[connection.id] = slot
        session = connection.session
        if session is not None and session.user_id is not None:
            # Remembered, because what the session says may change until the end.
            slot.user_id = session.user_id
            self._open_by_user.setdefault(slot.user_id, {})[connection.id] = connection

    def remove(self, connection: ManagedConnection) -> bool:
        """Free the slot of a connection that has ended.

        Returns:
            True the first time; False when it was not in the pool.
        """
        slot = self._open.get(connection.id)
        return slot is not None and self.release(slot)

    def release(self, slot: Slot) -> bool:
        """Free a slot, whatever became of its stream.

        Returns:
            True the first time; False when it was free already.
        """
        if slot.is_free:
            return False
        slot.is_free = True
        self._admitted -= 1
        if self._is_counted(slot.address_key):
            self._uncount(slot.address_key)
        if slot.connection is not None:
            self._forget(slot, slot.connection.id)
        return True

    def _uncount(self, key: str) -> None:
        """Count one stream less for an address; forget the address with its last."""
        left = self._admitted_by_address[key] - 1
        if left:
            self._admitted_by_address[key] = left
        else:
            del self._admitted_by_address[key]

    def _forget(self, slot: Slot, connection_id: int) -> None:
        """Take an open connection out of the lookups."""
        slot.connection = None
        del self._open[connection_id]
        if slot.user_id is not None:
            of_user = self._open_by_user[slot.user_id]
            del of_user[connection_id]
            if not of_user:
                del self._open_by_user[slot.user_id]
