"""All sessions of a server: made, found, attached, detached, expired, destroyed, and counted.

Ids are 256 random bits and chosen here alone: an id that a client brings is looked up, never
adopted, so nobody can be led into a session prepared by somebody else (session fixation).

Not for: closing connections. ``attach`` and expiry tell the ``ConnectionManager``, which does.
"""

from __future__ import annotations

import hmac
import os
import time
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Callable

from websocket.address import is_exempt
from websocket.errors import InvalidState, SessionLimit
from websocket.expiry import ExpiryQueue
from websocket.frame_writer import Payload, encode_message
from websocket.ledger import Ledger
from websocket.opcodes import Opcode
from websocket.persistence import ID_LENGTH, Restoration, SessionSaver, SessionStore, encode_data
from websocket.replay import Replay
from websocket.session import ManagedConnection, Session, SessionConnection
from websocket.statistics import SessionStatistics

if TYPE_CHECKING:
    from websocket.clock import Clock
    from websocket.limits import Limits

_ID_BATCH = 64
_unused_ids: list[str] = []
if hasattr(os, "register_at_fork"):
    # Else a child process would give out the same ids as its parent.
    os.register_at_fork(after_in_child=_unused_ids.clear)


class SessionManager:
    """Own all sessions of a server and their timers; use it in the reactor's thread.

    Args:
        clock: the reactor.
        limits: how many sessions, and how long they live.
        on_expired: called once with each session that expired (not with destroyed ones),
            after its removal. It may call back into this object.
        store: saves the sessions and brings those that it has, for example a ``SQLiteStore``;
            without one they end with the process.
        ledger: is charged with what is kept for clients that are away; by default one that
            belongs to nobody else.
        wall_clock: returns Unix time in seconds; only for what is saved.

    Attributes:
        limits: as given.

    Raises:
        OSError: the store cannot be used.
    """

    def __init__(
        self,
        clock: Clock,
        limits: Limits,
        *,
        on_expired: Callable[[Session], object] | None = None,
        store: SessionStore | None = None,
        ledger: Ledger | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.limits = limits
        self._on_expired = on_expired
        # A client on its way through the handshake is waited for even if detached ones are not.
        self._arrival_time = max(limits.detached_lifetime, limits.handshake_timeout)
        self._sessions: dict[str, Session] = {}
        self._count_by_address: dict[str, int] = {}
        self._queue = ExpiryQueue(clock, self._on_due)
        self._saver = None if store is None else SessionSaver(clock, store, wall_clock)
        self._ledger = Ledger(clock, limits) if ledger is None else ledger
        self._replay_size = 0
        self._attached = 0
        self._created = 0
        self._resumed = 0
        self._expired = 0
        self._destroyed = 0
        self.open()

    def open(self) -> None:
        """Open the store, if there is one, and take in the sessions that it has. Idempotent.

        Only needed after ``close``.

        Raises:
            OSError: the store cannot be used.
        """
        for restoration in () if self._saver is None else self._saver.load():
            self._restore(restoration)

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
            SessionLimit: there are ``max_sessions``, or ``max_sessions_per_ip`` of this address.
                None is sacrificed for the new one: else endless anonymous clients would push
                out everybody who is away.
        """
        limits, now = self.limits, self._clock.time
        if len(self._sessions) >= limits.max_sessions:
            raise SessionLimit("too many sessions", limits.detached_lifetime)
        most = limits.max_sessions_per_ip
        if most is not None and self._count_by_address.get(address_key, 0) >= most:
            raise SessionLimit("too many sessions of one address", limits.detached_lifetime, 429)
        session = Session(self, _new_id(), user_id, address_key, now)
        session._awaited_until = now + self._arrival_time
        self._add(session)
        self._created += 1
        if self._saver is not None:
            self._saver.add(session)
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

    def attach(self, session: Session, connection: SessionConnection) -> SessionConnection | None:
        """Make a connection the owner of a session; the last one wins.

        Returns:
            The owner until now, for the caller to close; None if there was none.

        Raises:
            InvalidState: the session has ended.
        """
        if self._sessions.get(session.id) is not session:
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
        if self._sessions.get(session.id) is not session:
            return
        self._attached -= 1
        now = self._clock.time
        session._awaited_until = max(session._awaited_until, now + self.limits.detached_lifetime)
        if session.expires_at <= now:
            self._expire(session)
            return
        self._queue.place(session)
        if self._saver is not None:
            self._saver.mark(session)

    def touch(self, session: Session) -> None:
        """Note that the client was active now, elsewhere than by a message."""
        session._touched_at = self._clock.time

    def keep(self, session: Session, message: Payload) -> bool:
        """Keep a message for a client that is away; see ``Session.send``."""
        limits = self.limits
        head, payload = encode_message(message)
        is_over = session not in self or session.expires_at <= self._clock.time
        if is_over or not limits.replay_messages:
            return False
        if session._replay is None:
            session._replay = Replay()
        replay = session._replay
        before = replay.size
        # What it has now has room already.
        room = before + min(
            limits.replay_total_size - self._replay_size, self._ledger.room(session.address_key)
        )
        is_kept = replay.keep(
            payload,
            is_text=head & 0x0F == Opcode.TEXT,
            max_count=limits.replay_messages,
            # What is sent at once must not be too much for a connection to take.
            max_size=min(
                limits.replay_size,
                limits.write_hard_mark,
                room,
            ),
        )
        self._charge(session, replay.size - before)
        if self._saver is not None:
            self._saver.mark(session)
        return is_kept

    def replay(self, session: Session) -> None:
        """Send what was kept for a client that is back, after the gap if there is one.

        What the connection does not take, because it is closed meanwhile, is kept.
        """
        replay, connection = session._replay, session.connection
        if replay is None or connection is None or not connection.is_open:
            return
        dropped = replay.dropped
        if dropped:
            connection.report_gap(dropped)
            # It calls the application, which may have ended the connection or the session.
            if not connection.is_open or session.connection is not connection:
                return
            replay.dropped -= dropped
        before = replay.size
        while replay and connection.send_missed(replay.first()):
            replay.pop()
        self._charge(session, replay.size - before)
        if not replay:
            session._replay = None
        if self._saver is not None:
            self._saver.mark(session)

    def _charge(self, session: Session, size: int) -> None:
        """Write down that more is kept for a client that is away, or less."""
        self._replay_size += size
        self._ledger.add(session.address_key, size)

    def save(self, session: Session) -> bool:
        """Save a session now; see ``Session.save``."""
        if self._saver is None or session not in self:
            return False
        encode_data(session.data)
        return self._saver.save(session)

    def destroy(self, session: Session) -> bool:
        """End a session now, as after a logout; its connection is left to the caller.

        Returns:
            True when this call ended it; False when it had ended already.
        """
        if session not in self:
            return False
        self._remove(session)
        self._destroyed += 1
        if self._saver is not None:
            self._saver.delete_now(session)
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
            replay_size=self._replay_size,
            save_failures=0 if self._saver is None else self._saver.failures,
        )

    def close(self) -> None:
        """Let go of all sessions, so that no timer is left; with a store, they are in it.

        Without one they are destroyed.
        """
        sessions = list(self._sessions.values())
        if self._saver is not None:
            self._saver.close([each for each in sessions if each.connected])
        for session in sessions:
            self._remove(session)
            self._destroyed += self._saver is None

    def _add(self, session: Session) -> None:
        """Take a session into the books."""
        self._sessions[session.id] = session
        if self._is_counted(session.address_key):
            key = session.address_key
            self._count_by_address[key] = self._count_by_address.get(key, 0) + 1
        self._queue.place(session)

    def _is_counted(self, key: str) -> bool:
        """Tell whether the limit per address holds for this address."""
        return not is_exempt(key, self.limits)

    def _restore(self, restoration: Restoration) -> None:
        """Take in a session from the store, and wait for its client anew."""
        session = Session(
            self,
            restoration.id,
            restoration.user_id,
            restoration.address_key,
            restoration.created_at,
            restoration.ends_at,
        )
        session.resume_count = restoration.resume_count
        session._data = restoration.data or None
        if restoration.missed:
            session._replay = Replay(restoration.missed)
        session._touched_at = self._clock.time
        session._awaited_until = self._clock.time + self.limits.detached_lifetime
        self._add(session)

    def _on_due(self, session: Session) -> None:
        """Expire the session, or wait on when activity has moved its end."""
        if session.expires_at <= self._clock.time:
            self._expire(session)
        else:
            self._queue.place(session)

    def _expire(self, session: Session) -> None:
        self._remove(session)
        self._expired += 1
        if self._saver is not None:
            self._saver.delete(session)
        if self._on_expired is not None:
            self._on_expired(session)

    def _remove(self, session: Session) -> None:
        """Take the session out of the books; it keeps its connection for the callbacks."""
        del self._sessions[session.id]
        self._queue.remove(session)
        if session.connection is not None:
            self._attached -= 1
        if session._replay is not None:
            self._charge(session, -session._replay.size)
            session._replay = None
        key = session.address_key
        if self._is_counted(key):
            left = self._count_by_address.pop(key) - 1
            if left:
                self._count_by_address[key] = left


def _new_id() -> str:
    """Return 43 characters that hold 258 random bits; in any thread.

    Drawn in batches: asking the system for each costs seven times as much.
    """
    try:
        return _unused_ids.pop()
    except IndexError:
        # 33 bytes are 44 characters, and an id has one less.
        text = urlsafe_b64encode(os.urandom(33 * _ID_BATCH)).decode("ascii")
        own, *others = (text[at : at + ID_LENGTH] for at in range(0, len(text), 44))
        _unused_ids.extend(others)
        return own
