"""What of the sessions is saved, when it is, and how it comes back.

    session made            saved before its id is sent
    ``session.save()``      saved when that returns True
    session destroyed       removed before ``destroy`` returns
    connection gone         saved within a tick of the timers (10 ms), all in one write
    session expired         removed likewise
    manager closed          whoever is connected is saved once more

So a client that has its id finds its session again whatever happens to the process. Its data is
what it was at the last of these moments. A write of its own for each handshake costs 20
microseconds with SQLite, and would cost hardly less as one of many.

What is kept for a client that is away is not saved, only how many messages that is: after a
restart they become part of the gap.

Times are saved as wall time. At the load they are put on the clock of the new process: a session
gets the age that the wall clock says, but never less than none, so that a wall clock which was
put back makes no session live longer than it would have at first. While the process runs, no
change of the wall clock has any effect. A session waits for its client anew after a restart.

A write that fails, because the disk is full say, costs nobody anything but the promises above:
sessions live on in memory, the failure is counted and logged once a minute, and all of it is
tried again every five seconds.

Not for: where sessions are saved. That is a ``SessionStore``, see ``session_store.py``.
"""

from __future__ import annotations

import json
import logging
import math
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Protocol, TypeVar

from websocket import events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from websocket.clock import Clock, Handle
    from websocket.session import Session

Restored = TypeVar("Restored")

ID_LENGTH = 43
"""The characters of a session's id: 32 bytes in unpadded base 64."""

# Some milliseconds; the rest of what a busy turn left to save waits for the next one.
_BATCH = 256
_RETRY_AFTER = 5.0
_LOG_INTERVAL = 60.0
_MEMBERS = {
    "user_id": (str, type(None)),
    "address_key": (str,),
    "resume_count": (int,),
    "missed": (int,),
    "data": (dict,),
}


class SavedSession(NamedTuple):
    """Hold what a store keeps of one session.

    Attributes:
        id: 43 characters. Whoever knows it can take the session over.
        created_at: when, in seconds of Unix time.
        ends_at: when it ends at the latest, likewise.
        state: everything else, as JSON in ASCII.
    """

    id: str
    created_at: float
    ends_at: float
    state: str


class SessionStore(Protocol):
    """Keep sessions over the end of the process; called in the reactor's thread only."""

    def load(self, restore: Callable[[SavedSession], Restored]) -> list[Restored]:
        """Open the store and return what is in it, each put through ``restore``.

        Where that raises ValueError, what is stored is no good, and none of it is returned.

        Raises:
            OSError: the store cannot be used at all.
        """

    def write(self, saved: Sequence[SavedSession], deleted: Sequence[str]) -> None:
        """Save or replace sessions and delete others, all of it or nothing.

        When it returns, the end of the process cannot undo it. Any exception means that nothing
        was written; it is tried again.
        """

    def close(self) -> None:
        """Let go of the store until the next ``load``."""


class Restoration(NamedTuple):
    """Hold a session as it comes back, on the reactor's clock."""

    id: str
    user_id: str | None
    address_key: str
    created_at: float
    ends_at: float
    resume_count: int
    missed: int
    data: dict[str, Any]


def encode_data(data: dict[str, Any]) -> str:
    """Return the data of a session as JSON.

    Raises:
        TypeError: it would not come back as it is: JSON has texts, numbers, booleans, None,
            lists, and dicts whose keys are texts, and nothing else.
    """
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        is_same = json.loads(text) == data
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"session.data cannot be saved as JSON: {error}") from None
    if not is_same:
        raise TypeError(
            "session.data would come back from JSON changed: use lists instead of tuples, and"
            " texts as keys"
        )
    return text


class SessionSaver:
    """Tell a store what becomes of the sessions; use it in the reactor's thread.

    Args:
        clock: the reactor.
        store: where sessions are saved.
        wall_clock: returns Unix time in seconds.

    Attributes:
        failures: how many writes have failed.
    """

    __slots__ = (
        "_clock",
        "_deleted",
        "_dirty",
        "_is_open",
        "_retry_at",
        "_store",
        "_timer",
        "_unstored",
        "_wall_clock",
        "failures",
    )

    def __init__(self, clock: Clock, store: SessionStore, wall_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._store = store
        self._wall_clock = wall_clock
        self._dirty: dict[str, Session] = {}
        self._deleted: dict[str, None] = {}
        # Sessions of which the store does not know yet, because writing failed.
        self._unstored: set[str] = set()
        self._is_open = False
        self._timer: Handle | None = None
        self._retry_at = clock.time
        self.failures = 0

    def load(self) -> list[Restoration]:
        """Open the store and return the sessions that are in it; none if it is open already.

        Raises:
            OSError: the store cannot be used at all.
        """
        if self._is_open:
            return []
        restorations = self._store.load(self._restore)
        self._is_open = True
        return restorations

    def add(self, session: Session) -> None:
        """Save a new session now."""
        if not self.save(session) and self._is_open:
            self._unstored.add(session.id)

    def save(self, session: Session) -> bool:
        """Save a session now; tell whether that was done. If not, it is tried again."""
        if not self._write([session], []):
            self.mark(session)
            return False
        self._dirty.pop(session.id, None)
        self._unstored.discard(session.id)
        return True

    def mark(self, session: Session) -> None:
        """Save a session soon, as it is then."""
        if self._is_open:
            self._dirty[session.id] = session
            self._write_soon()

    def delete(self, session: Session) -> None:
        """Delete a session soon."""
        if self._forget(session):
            self._deleted[session.id] = None
            self._write_soon()

    def delete_now(self, session: Session) -> None:
        """Delete a session before this call returns, unless writing fails."""
        if self._forget(session) and not self._write([], [session.id]):
            self._deleted[session.id] = None
            self._write_soon()

    def close(self, sessions: Iterable[Session]) -> None:
        """Save some sessions, and all that is still to be saved, and close the store."""
        if not self._is_open:
            return
        for session in sessions:
            self._dirty[session.id] = session
        self._retry_at = self._clock.time
        while self._write_batch():
            pass
        if self._dirty:
            count = len(self._dirty)
            text = "%d sessions could not be saved at the end"
            events.complain("sessions_unsaved", text, count, count=count)
        self._is_open = False
        self._dirty.clear()
        self._deleted.clear()
        self._unstored.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._store.close()
        except Exception as error:
            self._failed(error)

    def _forget(self, session: Session) -> bool:
        """Drop what was to be saved of a session; tell whether the store may know it."""
        self._dirty.pop(session.id, None)
        if session.id in self._unstored:
            self._unstored.remove(session.id)
            return False
        return self._is_open

    # --- writing ----------------------------------------------------------------------------

    def _write_soon(self) -> None:
        if self._timer is None:
            due = max(self._clock.time, self._retry_at)
            self._timer = self._clock.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._write_batch()
        if self._dirty or self._deleted:
            self._write_soon()

    def _write_batch(self) -> bool:
        """Write what has waited longest; tell whether something was written."""
        sessions = list(islice(self._dirty.values(), _BATCH))
        deleted = list(islice(self._deleted, _BATCH))
        if not (sessions or deleted) or not self._write(sessions, deleted):
            return False
        for session in sessions:
            del self._dirty[session.id]
            self._unstored.discard(session.id)
        for session_id in deleted:
            del self._deleted[session_id]
        return True

    def _write(self, sessions: list[Session], deleted: list[str]) -> bool:
        """Write now, unless the last failure is too young; tell whether that was done."""
        if not self._is_open or self._clock.time < self._retry_at:
            return False
        offset = self._wall_clock() - self._clock.time
        saved = [each for session in sessions if (each := self._encode(session, offset))]
        try:
            self._store.write(saved, deleted)
        # Whatever the store raises: sessions are served from memory, and go on without it.
        except Exception as error:
            self._retry_at = self._clock.time + _RETRY_AFTER
            self._failed(error)
            return False
        return True

    def _encode(self, session: Session, offset: float) -> SavedSession | None:
        """Return what to save of a session; None to leave what is saved as it is."""
        data = "{}"
        try:
            if session._data:
                data = encode_data(session._data)
        except TypeError as error:
            self._failed(error)
            if session.id not in self._unstored:
                return None
        state = json.dumps(
            {
                "user_id": session.user_id,
                "address_key": session.address_key,
                "resume_count": session.resume_count,
                "missed": session.missed,
            }
        )
        return SavedSession(
            session.id,
            session.created_at + offset,
            session.ends_at + offset,
            f'{state[:-1]}, "data": {data}}}',
        )

    def _failed(self, error: Exception) -> None:
        """Count a failure, and log it unless another one was logged in the last minute."""
        self.failures += 1
        events.report(
            self._clock,
            f"save_failed {id(self)}",  # each store has its own
            "save_failed",
            "sessions cannot be saved, serving goes on without: %s",
            error,
            level=logging.ERROR,
            interval=_LOG_INTERVAL,
            error=events.clip(error),
        )

    # --- reading ----------------------------------------------------------------------------

    def _restore(self, saved: SavedSession) -> Restoration:
        """Return a session on the clock of this process.

        Raises:
            ValueError: that is not what we have saved.
        """
        _check(saved)
        state = _parse(saved.state)
        # H115: a clock that stands before the creation makes nobody younger than new.
        age = max(0.0, self._wall_clock() - saved.created_at)
        created_at = self._clock.time - age
        return Restoration(
            id=saved.id,
            created_at=created_at,
            ends_at=created_at + (saved.ends_at - saved.created_at),
            **state,
        )


def _check(saved: SavedSession) -> None:
    """Raise ValueError unless id and times are such as we write."""
    if not isinstance(saved.id, str) or len(saved.id) != ID_LENGTH or not saved.id.isascii():
        raise ValueError("the id of a session is none")
    times = (saved.created_at, saved.ends_at)
    # The application may have moved the end to infinity.
    if not all(isinstance(time, float) for time in times) or not (
        math.isfinite(saved.created_at) and saved.created_at <= saved.ends_at
    ):
        raise ValueError("the times of a session are none")


def _parse(text: object) -> dict[str, Any]:
    """Return the state of a session, or raise ValueError."""
    try:
        state = json.loads(text) if isinstance(text, str) else None
    except RecursionError:
        state = None
    if not isinstance(state, dict) or state.keys() != _MEMBERS.keys():
        raise ValueError("the state of a session is none")
    for name, types in _MEMBERS.items():
        # By their exact types: a bool would pass for an int.
        if type(state[name]) not in types:
            raise ValueError(f"the {name} of a session is none")
    return state
