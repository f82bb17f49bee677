"""The connection manager: one owner of a server's pool, sessions and statistics.

What a server tells it, in the life of one stream::

    admit(host) -> slot                     accepted; may raise ConnectionLimit
    open_session(...) -> session            authenticated; may raise SessionLimit
    opened(connection, slot)                the 101 response is written
    replay(connection)                      on_open was called
    closed(connection, cause)               the stream is gone
    handshake_failed(slot, reason)          instead of the last two
    http_answered(slot)                     instead of the last three: a plain request

What it does of its own accord: it closes a connection whose session was taken over by a newer
one (``REPLACED``) or came to its end (``SESSION_EXPIRED``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from websocket.causes import Cause
from websocket.errors import ConnectionLimit, InvalidState
from websocket.ledger import Ledger
from websocket.limits import Limits
from websocket.opcodes import CloseCode
from websocket.pool import ConnectionPool, Slot
from websocket.session import ManagedConnection, Session, SessionConnection
from websocket.session_manager import SessionManager
from websocket.statistics import Statistics, StatisticsSnapshot

if TYPE_CHECKING:
    from websocket.clock import Clock
    from websocket.persistence import SessionStore


class ConnectionManager:
    """Own the connections and sessions of one server.

    Use it in the reactor's thread; only ``statistics`` may be called from others.

    Args:
        clock: the reactor.
        limits: by default ``Limits()``.
        on_session_expired: called once with each session that expired. If it had a
            connection, that is closing already; ``session.connection`` still tells it.
        session_store: saves the sessions; without one they end with the process.
        ledger: of this clock, to share with other managers; by default one of its own.

    Attributes:
        limits: as given.
        pool: the connections, to look up and to iterate over.
        sessions: the sessions, to look up.
        counters: for the connections to count their traffic in.
        ledger: for the connections to be charged in with what is kept for them.

    Raises:
        OSError: the store of sessions cannot be used.
        ValueError: the ledger is one of another reactor.
    """

    def __init__(
        self,
        clock: Clock,
        limits: Limits | None = None,
        *,
        on_session_expired: Callable[[Session], object] | None = None,
        session_store: SessionStore | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if ledger is not None and ledger.clock is not clock:
            raise ValueError("the ledger is one of another reactor: servers there need their own")
        self._clock = clock
        self._on_session_expired = on_session_expired
        self.limits = Limits() if limits is None else limits
        self.pool = ConnectionPool(self.limits)
        self.ledger = Ledger(clock, self.limits) if ledger is None else ledger
        self.sessions = SessionManager(
            clock,
            self.limits,
            on_expired=self._session_expired,
            store=session_store,
            ledger=self.ledger,
        )
        self.counters = Statistics()

    @property
    def max_connections(self) -> int:
        """The most streams at once, opening handshakes included."""
        return self.limits.max_connections

    @property
    def max_sessions(self) -> int:
        """The most sessions at once, detached ones included."""
        return self.limits.max_sessions

    @property
    def ping_interval(self) -> float | None:
        """Seconds of silence before a ping; None for no pings."""
        return self.limits.ping_interval

    @property
    def timeout(self) -> float | None:
        """Seconds after a ping in which something must arrive; None for no timeout."""
        return self.limits.ping_timeout

    def admit(self, host: str) -> Slot:
        """Take a slot for a stream that was just accepted.

        Args:
            host: the peer's address in text form.

        Raises:
            ConnectionLimit: no; the refusal is counted, and there is no slot to release.
        """
        self.counters.count_accepted()
        try:
            return self.pool.admit(host, self._clock.time)
        except ConnectionLimit as refusal:
            self.counters.count_failed(str(refusal.status))
            raise

    def open_session(
        self, session_id: str | None, user_id: str | None, address_key: str
    ) -> tuple[Session, bool]:
        """Return the session for a client whose handshake is about to succeed.

        Args:
            session_id: the id that the client brought, if any.
            user_id: who it is, as authentication said.
            address_key: what its slot is counted under.

        Returns:
            The session, and True when it is the one the client asked for; else it is fresh.

        Raises:
            SessionLimit: there are too many sessions for a fresh one.
        """
        if session_id is not None:
            session = self.sessions.resume(session_id, user_id)
            if session is not None:
                return session, True
        return self.sessions.create(user_id, address_key=address_key), False

    def handshake_failed(self, slot: Slot, reason: str) -> None:
        """Free the slot of a stream that will not become a connection.

        Args:
            slot: what ``admit`` returned.
            reason: the HTTP status of the answer, or a word such as "eof" or "tls".
        """
        if self.pool.release(slot):
            self.counters.count_failed(reason)

    def http_answered(self, slot: Slot) -> None:
        """Free the slot of a stream whose plain HTTP request was answered."""
        if self.pool.release(slot):
            self.counters.count_http()

    def opened(self, connection: SessionConnection, slot: Slot) -> None:
        """Take in a connection that is now open, and give it its session.

        The session's previous connection, if it has one, is closed. A session that ended
        during the handshake closes the new connection.
        """
        self.pool.add(connection, slot)
        self.counters.count_opened()
        session = connection.session
        if session is None:
            return
        try:
            previous = self.sessions.attach(session, connection)
        except InvalidState:
            _end_expired(connection)
            return
        if previous is not None:
            previous.end(Cause.REPLACED, CloseCode.SESSION_REPLACED, "a newer connection took over")

    def replay(self, connection: ManagedConnection) -> None:
        """Send what was kept for a client that has come back; its ``on_open`` was called."""
        session = connection.session
        if session is not None and session.connection is connection:
            self.sessions.replay(session)

    def closed(self, connection: ManagedConnection, cause: Cause) -> None:
        """Let a connection go whose stream is gone; only the first call counts."""
        if not self.pool.remove(connection):
            return
        self.counters.count_closed(cause)
        # Last, because it may call the application.
        if connection.session is not None:
            self.sessions.detach(connection.session, connection)

    def by_session(self, session_id: str) -> ManagedConnection | None:
        """Return the connection that owns this session now, or None."""
        session = self.sessions.get(session_id)
        return None if session is None else session.connection

    def destroy_session(self, session: Session) -> None:
        """End a session now, as after a logout, and close its connection."""
        if self.sessions.destroy(session) and session.connection is not None:
            _end_expired(session.connection)

    def statistics(self) -> StatisticsSnapshot:
        """Return all numbers as they are now; callable from any thread."""
        snapshot = self.counters.snapshot(self.sessions.statistics())
        return snapshot._replace(memory=self.ledger.snapshot())

    def open(self) -> None:
        """Take in the sessions that the store has, if there is one. Only needed after ``close``.

        Raises:
            OSError: the store cannot be used.
        """
        self.sessions.open()

    def close(self) -> None:
        """Let go of all sessions: without a store they are destroyed."""
        self.sessions.close()

    def _session_expired(self, session: Session) -> None:
        if session.connection is not None:
            _end_expired(session.connection)
        if self._on_session_expired is not None:
            self._on_session_expired(session)


def _end_expired(connection: ManagedConnection) -> None:
    """Close a connection whose session has ended."""
    connection.end(Cause.SESSION_EXPIRED, CloseCode.POLICY_VIOLATION, "the session has ended")
