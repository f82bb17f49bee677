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

Each session has one timer. Activity only stores the time; the timer, when it fires, looks at
what is really due and arms itself again. Only ``detach`` brings the end nearer, and so only
``detach`` replaces the timer.

Ids are 256 random bits and chosen here alone: an id that a client brings is looked up, never
adopted, so nobody can be led into a session prepared by somebody else (session fixation).

Not for: closing connections. ``attach`` and expiry tell the ``ConnectionManager``, which does.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Any, Callable, Protocol

from websocket.errors import InvalidState, SessionLimit
from websocket.statistics import SessionStatistics

if TYPE_CHECKING:
    from websocket.causes import Cause
    from websocket.limits import Limits

_ID_BYTES = 32
ID_LENGTH = 43
"""The characters of an id: 32 bytes in unpadded base 64."""


class Handle(Protocol):
    """Stand for one call that was asked for with ``Clock.call_at``."""

    def cancel(self) -> object:
        """Make sure that the call does not happen; harmless when it already has."""


class Clock(Protocol):
    """What is needed of a ``Reactor``: the time, and calls at a time."""

    @property
    def time(self) -> float:
        """The present time in seconds of a clock that never goes back."""

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call ``callback(*args)`` at a time, never early."""


class ManagedConnection(Protocol):
    """What is needed of a ``Connection``."""

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


class Session:
    """Hold the state of one client over its connections.

    Made by a ``SessionManager``; use it in the reactor's thread.

    Attributes:
        id: 43 characters that stand for 256 random bits. Whoever knows it can take the
            session over: keep it out of logs.
        user_id: who this is, as the application's authentication said; None if it did not.
        address_key: where the session was created from, see ``websocket.address``.
        created_at: when, in seconds of the reactor's clock.
        ends_at: when it ends at the latest, likewise. May be moved to later, not to earlier.
        connection: the connection that owns it now, or None. It stays readable while
            callbacks about the session's end run.
        resume_count: how often a client came back to it.
    """

    __slots__ = (
        "_awaited_until",
        "_data",
        "_idle_timeout",
        "_timer",
        "_touched_at",
        "address_key",
        "connection",
        "created_at",
        "ends_at",
        "id",
        "resume_count",
        "user_id",
    )

    def __init__(
        self, user_id: str | None, address_key: str, created_at: float, limits: Limits
    ) -> None:
        self.id = secrets.token_urlsafe(_ID_BYTES)
        self.user_id = user_id
        self.address_key = address_key
        self.created_at = created_at
        self.ends_at = created_at + limits.session_lifetime
        self.connection: ManagedConnection | None = None
        self.resume_count = 0
        self._idle_timeout = limits.session_idle_timeout
        self._touched_at = created_at
        self._awaited_until = created_at
        self._timer: Handle | None = None
        self._data: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """Whatever the application keeps about this client; its own to fill and to bound."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def connected(self) -> bool:
        """Tell whether a connection owns the session now."""
        return self.connection is not None

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
        if self.connection is None:
            expires_at = min(expires_at, self._awaited_until)
        if self._idle_timeout is not None:
            expires_at = min(expires_at, self.last_seen + self._idle_timeout)
        return expires_at

    def __repr__(self) -> str:
        state = "attached" if self.connected else "detached"
        return f"<Session of {self.user_id!r} from {self.address_key} {state}>"


class SessionManager:
    """Own all sessions of a server and their timers; use it in the reactor's thread.

    Args:
        clock: the reactor.
        limits: how many sessions, and how long they live.
        on_expired: called once with each session that expired (not with destroyed ones),
            after its removal. It may call back into this object.
    """

    def __init__(
        self,
        clock: Clock,
        limits: Limits,
        *,
        on_expired: Callable[[Session], object] | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._on_expired = on_expired
        # A client on its way through the handshake is waited for even if detached ones are not.
        self._arrival_time = max(limits.detached_lifetime, limits.handshake_timeout)
        self._sessions: dict[str, Session] = {}
        self._attached = 0
        self._created = 0
        self._resumed = 0
        self._expired = 0
        self._destroyed = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: object) -> bool:
        """Tell whether this session is alive here."""
        return isinstance(session, Session) and self._sessions.get(session.id) is session

    def create(self, user_id: str | None = None, *, address_key: str) -> Session:
        """Return a new, detached session.

        Args:
            user_id: who this is, as authentication said.
            address_key: where the client is, see ``websocket.address``.

        Raises:
            SessionLimit: ``max_sessions`` are alive. None is sacrificed for the new one:
                else endless anonymous clients would push out everybody who is away.
        """
        if len(self._sessions) >= self._limits.max_sessions:
            raise SessionLimit("too many sessions", self._limits.detached_lifetime)
        session = Session(user_id, address_key, self._clock.time, self._limits)
        session._awaited_until = self._clock.time + self._arrival_time
        self._sessions[session.id] = session
        self._created += 1
        self._arm(session)
        return session

    def get(self, session_id: str) -> Session | None:
        """Return the living session of this id; None for any other text."""
        if len(session_id) != ID_LENGTH:
            return None
        session = self._sessions.get(session_id)
        # The timer may be a tick late; the session is over all the same.
        if session is None or session.expires_at <= self._clock.time:
            return None
        # The lookup went by a keyed hash; this keeps the answer's timing free of the id even
        # where a dict compares in another way.
        return session if hmac.compare_digest(session.id, session_id) else None

    def resume(self, session_id: str, user_id: str | None) -> Session | None:
        """Return the session that a client comes back to, and wait for it to be attached.

        Args:
            session_id: what the client sent; anything at all.
            user_id: who the client is now, as authentication said.

        Returns:
            None when there is no such session, or when it belongs to another user: the
            client gets a fresh one and cannot tell these cases apart.
        """
        session = self.get(session_id)
        if session is None or session.user_id != user_id:
            return None
        session._awaited_until = self._clock.time + self._arrival_time
        session.resume_count += 1
        self._resumed += 1
        self.touch(session)
        return session

    def attach(self, session: Session, connection: ManagedConnection) -> ManagedConnection | None:
        """Make a connection the owner of a session; the last one wins.

        Returns:
            The owner until now, for the caller to close; None if there was none.

        Raises:
            InvalidState: the session has ended.
        """
        if session not in self:
            raise InvalidState("the session has ended; create another one")
        previous = session.connection
        if previous is connection:
            return None
        if previous is None:
            self._attached += 1
        self.touch(session)
        session.connection = connection
        session._awaited_until = self._clock.time
        return previous

    def detach(self, session: Session, connection: ManagedConnection) -> None:
        """Let a connection go that has ended, and start to wait for the client's next one.

        Nothing happens when the connection is no longer the owner.
        """
        if session.connection is not connection:
            return
        session._touched_at = session.last_seen
        session.connection = None
        if session not in self:
            return
        self._attached -= 1
        now = self._clock.time
        session._awaited_until = max(session._awaited_until, now + self._limits.detached_lifetime)
        if session.expires_at <= now:
            self._expire(session)
        else:
            self._arm(session)

    def touch(self, session: Session) -> None:
        """Note that the client was active now, elsewhere than by a message."""
        session._touched_at = self._clock.time

    def destroy(self, session: Session) -> bool:
        """End a session now, as after a logout; its connection is left to the caller.

        Returns:
            True when this call ended it; False when it had ended already.
        """
        if session not in self:
            return False
        self._remove(session)
        self._destroyed += 1
        return True

    def statistics(self) -> SessionStatistics:
        """Return the numbers as they are now; callable from any thread."""
        active, attached = len(self._sessions), self._attached
        return SessionStatistics(
            active=active,
            attached=attached,
            detached=max(0, active - attached),
            created=self._created,
            resumed=self._resumed,
            expired=self._expired,
            destroyed=self._destroyed,
        )

    def close(self) -> None:
        """Destroy all sessions, so that no timer of theirs is left."""
        for session in list(self._sessions.values()):
            self.destroy(session)

    def _arm(self, session: Session) -> None:
        """Set the session's one timer to what is due now."""
        if session._timer is not None:
            session._timer.cancel()
        session._timer = self._clock.call_at(session.expires_at, self._on_timer, session)

    def _on_timer(self, session: Session) -> None:
        """Expire the session, or wait on when activity has moved its end."""
        session._timer = None
        if session.expires_at <= self._clock.time:
            self._expire(session)
        else:
            self._arm(session)

    def _expire(self, session: Session) -> None:
        self._remove(session)
        self._expired += 1
        if self._on_expired is not None:
            self._on_expired(session)

    def _remove(self, session: Session) -> None:
        """Take the session out of the books; it keeps its connection for the callbacks."""
        del self._sessions[session.id]
        if session.connection is not None:
            self._attached -= 1
        if session._timer is not None:
            session._timer.cancel()
            session._timer = None
