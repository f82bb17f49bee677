r"""Sessions: what of a client outlives its connection, and when it ends.

    create -> detached <-> attached      one connection at any time; a newer one takes over
                  \          /
                 expired, destroyed      removed at once; the id is never valid again

A session ends at the first of these moments, which together are ``Session.expires_at``:

    session_lifetime        after its creation, whatever happens
    session_idle_timeout    after the last message (or ``touch``); off by default
    detached_lifetime       after its connection was lost

While a client is in its opening handshake, its session waits for it for the handshake timeout
at least, even where ``detached_lifetime`` is 0.

Activity only stores the time. ``expiry.py`` looks at a session when its end should come, and
again later if it was active; only ``detach`` brings the end nearer, and tells.

A message to a session whose client is away waits for it in bounded room (``replay.py``). With
a store, sessions outlive the process (``persistence.py``).

Not for: keeping the books on all sessions, see ``session_manager.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from websocket.causes import Cause
    from websocket.frame_writer import Payload
    from websocket.replay import Replay
    from websocket.session_manager import SessionManager


class ManagedConnection(Protocol):
    """What is needed of a ``Connection`` to count and to close it."""

    @property
    def id(self) -> int:
        """A number that no other connection of this process has."""

    @property
    def session(self) -> Session | None:
        """The session that the handshake found or made; it does not change afterwards."""

    @property
    def last_message_at(self) -> float:
        """When the last message passed, in seconds of the clock."""

    def end(self, cause: Cause, code: int, reason: str) -> None:
        """Start the closing handshake; at any time, only the first call counts."""


class SessionConnection(ManagedConnection, Protocol):
    """What is needed of a ``Connection`` to own a session."""

    @property
    def is_open(self) -> bool:
        """Tell whether messages can be sent."""

    def send(self, message: Payload) -> bool:
        """Send a message; return False when it was not taken."""

    def send_missed(self, message: Payload) -> bool:
        """Send a message that was kept, whatever else waits; return False when it was not taken."""

    def report_gap(self, dropped: int) -> None:
        """Tell that messages to the session were dropped while the client was away."""


class Session:
    """Hold the state of one client over its connections.

    Made by a ``SessionManager``; use it in the reactor's thread.

    Attributes:
        id: 43 characters that stand for 256 random bits. Whoever knows it can take the
            session over: keep it out of logs.
        user_id: who this is, as the application's authentication said; None if it did not.
        address_key: where the session was created from, see ``websocket.address``.
        created_at: when, in seconds of the reactor's clock.
        connection: the connection that owns it now, or None. It stays readable while
            callbacks about the session's end run.
        resume_count: how often a client came back to it.
    """

    # There may be 100,000 of them: what few sessions have is made when it is needed.
    __slots__ = (
        "_awaited_until",
        "_data",
        "_ends_at",
        "_manager",
        "_replay",
        "_second",
        "_touched_at",
        "address_key",
        "connection",
        "created_at",
        "id",
        "resume_count",
        "user_id",
    )

    def __init__(
        self,
        manager: SessionManager,
        session_id: str,
        user_id: str | None,
        address_key: str,
        created_at: float,
        ends_at: float | None = None,
    ) -> None:
        self._manager = manager
        self.id = session_id
        self.user_id = user_id
        self.address_key = address_key
        self.created_at = created_at
        # None stands for the usual lifetime: a number of its own takes 32 bytes.
        self._ends_at = ends_at
        self.connection: SessionConnection | None = None
        self.resume_count = 0
        self._touched_at = created_at
        self._awaited_until = created_at
        # Where it stands in the ExpiryQueue.
        self._second: int | None = None
        self._data: dict[str, Any] | None = None
        self._replay: Replay | None = None

    @property
    def ends_at(self) -> float:
        """When it ends at the latest, in seconds of the reactor's clock.

        May be moved to later, not to earlier.
        """
        if self._ends_at is None:
            return self.created_at + self._manager.limits.session_lifetime
        return self._ends_at

    @ends_at.setter
    def ends_at(self, ends_at: float) -> None:
        self._ends_at = ends_at

    @property
    def data(self) -> dict[str, Any]:
        """Whatever the application keeps about this client; its own to fill and to bound.

        Where the sessions have a store, see ``save`` for what it may hold and when it is saved.
        """
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def connected(self) -> bool:
        """Tell whether a connection owns the session now."""
        return self.connection is not None

    @property
    def recovered(self) -> bool:
        """Tell whether a client has come back to it: False in ``on_open`` means a fresh one."""
        return self.resume_count > 0

    @property
    def missed(self) -> int:
        """How many messages wait for the client, those that had to be dropped included."""
        return 0 if self._replay is None else len(self._replay) + self._replay.dropped

    @property
    def last_seen(self) -> float:
        """When the client was last active, in seconds of the reactor's clock."""
        if self.connection is None:
            return self._touched_at
        return max(self._touched_at, self.connection.last_message_at)

    @property
    def expires_at(self) -> float:
        """When the session ends unless something happens, in seconds of the reactor's clock."""
        expires_at = self.ends_at
        # Compared in place: min() would cost more than all the rest.
        if self.connection is None and self._awaited_until < expires_at:
            expires_at = self._awaited_until
        idle_timeout = self._manager.limits.session_idle_timeout
        if idle_timeout is not None:
            expires_at = min(expires_at, self.last_seen + idle_timeout)
        return expires_at

    def send(self, message: Payload) -> bool:
        """Send a message over the session's connection, or keep it until the client is back.

        What was kept is sent right after ``on_open`` of the client's next connection, in order.
        If some of it had to be dropped, ``on_gap`` of that connection is called before. What a
        connection has taken is not sent again, even if that breaks before it was delivered.

        Args:
            message: see ``Connection.send``.

        Returns:
            False when the message is lost: the session has ended, the limits leave no room, or the
            connection is open and does not take it, see ``SlowConsumer``.

        Raises:
            TypeError, ValueError: see ``Connection.send``.
        """
        # What was kept before goes before this one: in on_open, it is still to be sent.
        connection = self.connection
        if self._replay is None and connection is not None:
            if connection.send(message):
                return True
            if connection.is_open:
                return False
        return self._manager.keep(self, message)

    def save(self) -> bool:
        """Save the session now; no effect without a store.

        Changes of ``data``, ``user_id`` and ``ends_at`` are saved by this, and whenever a
        connection of the session ends; at no other time.

        Returns:
            True when it is saved and outlives the process; False when it is not, because there
            is no store, the session has ended, or the store fails: then it is tried again.

        Raises:
            TypeError: ``data`` would not come back from JSON as it is.
        """
        return self._manager.save(self)

    def __repr__(self) -> str:
        state = "attached" if self.connected else "detached"
        return f"<Session of {self.user_id!r} from {self.address_key} {state}>"
