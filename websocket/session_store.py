"""Sessions in a file, so that a restart, or ``kill -9``, loses none whose id a client has.

    from websocket.session_store import SQLiteStore

    server = Server(Chat, session_store=SQLiteStore("/var/lib/chat/sessions"))

One SQLite database, one table; JSON, never pickle: what a file says can at worst be wrong, it
cannot run. The write-ahead log makes a commit one ``write`` to the operating system, about 20
microseconds, which outlives the process at once; what a power failure takes is the last moments.

The file holds ids, which are as good as passwords: it is made for its owner alone (mode 0600),
and one process has it at a time. A process of its own needs a file of its own.

A file that is not what we left there is not used, whatever the reason:

    no SQLite database, damaged, truncated      the rest may be wrong, too
    of another program, or another version      it is not ours to judge
    owned by another user                       it may have been prepared for us

It is set aside, that is renamed to ``<path>.aside-1`` and so on, with one line in the log (level
ERROR), and all sessions start anew. An empty file is a new one.

Imported by name alone, not through ``websocket``: not every Python has SQLite.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from websocket import events
from websocket.errors import InvalidState
from websocket.persistence import SavedSession

if TYPE_CHECKING:
    from collections.abc import Sequence

Restored = TypeVar("Restored")

APPLICATION_ID = 0x57534553  # "WSES", in the header of the file
SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE session (id TEXT PRIMARY KEY, created_at REAL, ends_at REAL, state TEXT)"
    " WITHOUT ROWID"
)
_READ_SCHEMA = "SELECT sql FROM sqlite_master"
# What belongs to a database and would spoil the next one.
_COMPANIONS = ("", "-wal", "-shm", "-journal")
_HEADER_SIZE = 100
_SYSTEM_ERRORS = ("is locked", "unable to open", "disk I/O", "is full")
# For a predecessor that is about to end; after that, nobody else can have the file.
_LOCK_TIMEOUT = 1.0


class SQLiteStore:
    """Keep sessions in a SQLite database; a ``SessionStore``.

    Args:
        path: the file, made if it is not there; its directory must be. On a local disk.
    """

    __slots__ = ("_connection", "path")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute, so that no name has a meaning of its own to SQLite, as ":memory:" has.
        self.path = os.path.abspath(path)
        self._connection: sqlite3.Connection | None = None

    def load(self, restore: Callable[[SavedSession], Restored]) -> list[Restored]:
        """Open the file and return its sessions, each put through ``restore``.

        Raises:
            OSError: the file cannot be made, read, written or set aside, or another process
                has it.
            InvalidState: it is open already, by another server say.
        """
        if self._connection is not None:
            raise InvalidState(f"{self.path} is in use already: give each server its own store")
        try:
            return self._open(restore)
        except (_Unusable, ValueError) as error:
            reason = str(error)
        except sqlite3.DatabaseError:
            # Its text may quote what is in the file, an id say, which is not for the log.
            reason = "SQLite cannot read it"
        aside = self._set_aside()
        events.complain(
            "sessions_set_aside",
            "%s is no good: %s; kept as %s, starting anew",
            self.path,
            reason,
            aside,
            path=self.path,
            error=reason,
            aside=aside,
        )
        return self._open(restore)

    def write(self, saved: Sequence[SavedSession], deleted: Sequence[str]) -> None:
        """Save or replace sessions and delete others, in one transaction.

        Raises:
            sqlite3.Error: nothing was written.
            InvalidState: the store is not open.
        """
        connection = self._connection
        if connection is None:
            raise InvalidState("the store of sessions is not open")
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)", saved)
            if deleted:
                connection.executemany(
                    "DELETE FROM session WHERE id = ?", [(each,) for each in deleted]
                )
            connection.execute("COMMIT")
        except BaseException:
            # Some errors have rolled it back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file; ``load`` opens it again. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- opening ----------------------------------------------------------------------------

    def _open(self, restore: Callable[[SavedSession], Restored]) -> list[Restored]:
        """Open the file and read it; what fails leaves it closed."""
        try:
            return self._read(restore)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.OperationalError) and _is_of_the_system(error):
                raise OSError(f"cannot use {self.path} for sessions: {error}") from error
            raise

    def _read(self, restore: Callable[[SavedSession], Restored]) -> list[Restored]:
        self._check_file()
        # A server may be made in one thread and run in another, never in two at a time.
        connection = self._connection = sqlite3.connect(
            self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # Held until the process ends, however it does: no other one may serve these sessions.
        _query(connection, "PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")
        if _is_new(connection):
            _query(connection, f"PRAGMA application_id = {APPLICATION_ID}")
            _query(connection, f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(_SCHEMA)
        else:
            _judge(connection)
        connection.execute("COMMIT")
        _query(connection, "PRAGMA journal_mode = WAL")
        _query(connection, "PRAGMA synchronous = NORMAL")
        rows = connection.execute("SELECT id, created_at, ends_at, state FROM session")
        return [restore(SavedSession(*row)) for row in rows]

    def _check_file(self) -> None:
        """Make the file if it is not there, for its owner alone; see that it is ours.

        Raises:
            OSError: it cannot be made, or is no file.
        """
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            return
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"cannot use {self.path} for sessions: it is no file")
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise _Unusable("it belongs to another user")
        # Not by opening it: the close would give up the locks that this process has on it.
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise PermissionError(
                errno.EACCES, "the file of sessions is not ours to use", self.path
            )
        # SQLite takes a file of one byte for a new one.
        if 0 < status.st_size < _HEADER_SIZE:
            raise _Unusable("it is truncated")

    def _set_aside(self) -> str:
        """Rename the file and what belongs to it; return its new name.

        Raises:
            OSError: that cannot be done.
        """
        number = 1
        while os.path.lexists(f"{self.path}.aside-{number}"):
            number += 1
        aside = f"{self.path}.aside-{number}"
        for companion in _COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + companion, aside + companion)
        return aside


def _is_of_the_system(error: sqlite3.OperationalError) -> bool:
    """Tell whether an error says nothing about what is in the file.

    By its text, since Python 3.11 is the first to tell the number.
    """
    text = str(error)
    return any(each in text for each in _SYSTEM_ERRORS)


class _Unusable(Exception):
    """Say why a file is to be set aside."""


def _query(connection: sqlite3.Connection, statement: str) -> list[Any]:
    """Return the first column of all rows: a statement that is not read to its end locks."""
    return [row[0] for row in connection.execute(statement).fetchall()]


def _is_new(connection: sqlite3.Connection) -> bool:
    """Tell whether nobody has written anything into this database."""
    return (
        _query(connection, _READ_SCHEMA) == []
        and _query(connection, "PRAGMA application_id") == [0]
        and _query(connection, "PRAGMA user_version") == [0]
    )


def _judge(connection: sqlite3.Connection) -> None:
    """Raise _Unusable unless this database is one of ours, and whole."""
    if _query(connection, "PRAGMA application_id") != [APPLICATION_ID]:
        raise _Unusable("it is of another program")
    (version,) = _query(connection, "PRAGMA user_version")
    if version != SCHEMA_VERSION:
        raise _Unusable(f"its version is {version}, not {SCHEMA_VERSION}")
    if _query(connection, _READ_SCHEMA) != [_SCHEMA]:
        raise _Unusable("it has other tables")
    if _query(connection, "PRAGMA quick_check(1)") != ["ok"]:
        raise _Unusable("it is damaged")
