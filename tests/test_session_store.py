from __future__ import annotations

import json
import logging
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from websocket.errors import InvalidState
from websocket.persistence import SavedSession
from websocket.session_store import APPLICATION_ID, SQLiteStore


def saved(number: int, state: str = "{}") -> SavedSession:
    return SavedSession(f"{number:043}", 1.5 * number, 9.0e9, state)


def same(session: SavedSession) -> SavedSession:
    return session


def parsed(session: SavedSession) -> SavedSession:
    json.loads(session.state)
    return session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as store:
        yield store


def content_of(path: Path) -> list[SavedSession]:
    """Return what a new process would find."""
    with closing(SQLiteStore(path)) as store:
        return sorted(store.load(parsed))


def fill(path: Path, count: int = 50) -> list[SavedSession]:
    """Make a good file with sessions, and return them."""
    sessions = [saved(number, '{"a":"%s"}' % (str(number) * 100)) for number in range(count)]
    with closing(SQLiteStore(path)) as store:
        assert store.load(same) == []
        store.write(sessions, [])
    return sessions


# --- a good file ------------------------------------------------------------------------------


def test_what_is_written_is_there_the_next_time(path: Path, store: SQLiteStore) -> None:
    assert store.load(same) == []
    store.write([saved(1), saved(2)], [])
    store.write([saved(3), saved(1, "[1]")], [saved(2).id, "unknown"])
    store.close()
    assert content_of(path) == [saved(1, "[1]"), saved(3)]


def test_ends_may_be_infinite(path: Path, store: SQLiteStore) -> None:
    endless = saved(1)._replace(ends_at=float("inf"))
    store.load(same)
    store.write([endless], [])
    store.close()
    assert content_of(path) == [endless]


def test_a_store_can_be_closed_and_loaded_again_and_again(store: SQLiteStore) -> None:
    for number in range(3):
        assert len(store.load(same)) == number
        store.write([saved(number)], [])
        store.close()
        store.close()


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    assert content_of(path) == []


def test_what_was_committed_survives_without_a_close(path: Path, store: SQLiteStore) -> None:
    """What the process leaves behind that is killed: the file and its log."""
    store.load(same)
    store.write([saved(1)], [])
    for suffix in ("", "-wal"):
        (path.parent / f"copy{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    assert content_of(path.parent / "copy") == [saved(1)]


@pytest.mark.skipif(os.name != "posix", reason="modes mean little here")
def test_the_file_is_for_its_owner_alone(path: Path, store: SQLiteStore) -> None:
    store.load(same)
    store.write([saved(1)], [])
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600


def test_a_name_that_means_something_to_sqlite_is_a_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path(":memory:"))
    assert (tmp_path / ":memory:").stat().st_size > 0


# --- misuse -----------------------------------------------------------------------------------


def test_a_store_serves_one_server(store: SQLiteStore) -> None:
    store.load(same)
    with pytest.raises(InvalidState, match="give each server its own store"):
        store.load(same)


def test_a_closed_store_takes_nothing(store: SQLiteStore) -> None:
    with pytest.raises(InvalidState, match="not open"):
        store.write([saved(1)], [])


def test_another_process_cannot_have_the_file(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("websocket.session_store._LOCK_TIMEOUT", 0.0)
    store.load(same)
    with closing(SQLiteStore(path)) as other, pytest.raises(OSError, match="locked"):
        other.load(same)
    store.write([saved(1)], [])


def test_a_file_that_may_not_be_written_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    # Whoever runs this may be root, to whom modes mean nothing.
    monkeypatch.setattr(os, "access", lambda name, mode: False)
    with closing(SQLiteStore(path)) as store, pytest.raises(PermissionError):
        store.load(same)


def test_a_file_that_is_good_is_never_set_aside_for_an_error_of_the_system(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = fill(path)

    def fail(connection: sqlite3.Connection) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch, closing(SQLiteStore(path)) as store:
        patch.setattr("websocket.session_store._is_new", fail)
        with pytest.raises(OSError, match="disk I/O error"):
            store.load(same)
    assert content_of(path) == sessions


@pytest.mark.parametrize("name", ["missing/sessions", "."])
def test_a_path_where_no_file_can_be_is_the_callers_mistake(tmp_path: Path, name: str) -> None:
    with closing(SQLiteStore(tmp_path / name)) as store, pytest.raises(OSError, match="o "):
        store.load(same)
    assert list(tmp_path.parent.glob("*aside*")) == []


def test_a_file_that_cannot_be_set_aside_is_an_error(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, logged: list[object]
) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError(13, "permission denied")

    path.write_bytes(b"something else")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError):
        store.load(same)
    assert logged == []


# --- full disks -------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_everything_as_it_was(path: Path, store: SQLiteStore) -> None:
    store.load(same)
    store.write([saved(1)], [])
    connection = store._connection
    assert connection is not None
    ((pages,),) = connection.execute("PRAGMA page_count").fetchall()
    connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            store.write([saved(2), saved(3, "x" * 100_000)], [saved(1).id])
    connection.execute("PRAGMA max_page_count = 1000").fetchall()
    store.write([saved(4)], [])
    store.close()
    assert content_of(path) == [saved(1), saved(4)]


def test_a_value_that_sqlite_cannot_take_leaves_everything_as_it_was(
    path: Path, store: SQLiteStore
) -> None:
    store.load(same)
    with pytest.raises(UnicodeEncodeError):
        store.write([saved(1), saved(2, "\ud800")], [])
    store.write([saved(3)], [])
    store.close()
    assert content_of(path) == [saved(3)]


# --- H115: files that are no good -------------------------------------------------------------


def expect_aside(path: Path, logged: list[logging.LogRecord], reason: str, number: int = 1) -> None:
    """Check that a file is set aside as it is, with one error line, and a new one begun."""
    before = path.read_bytes()
    assert content_of(path) == []
    aside = Path(f"{path}.aside-{number}")
    assert aside.read_bytes() == before
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert reason in record.getMessage()
    assert str(aside) in record.getMessage()
    facts = vars(record)
    assert facts["event"] == "sessions_set_aside"
    assert (facts["path"], facts["aside"]) == (str(path), str(aside))
    assert facts["error"] in record.getMessage()
    assert facts["exc_info"] is None
    logged.clear()


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


BAD_FILES = {
    "another program": (("PRAGMA application_id = 1",), "it is of another program"),
    "no program": (("PRAGMA application_id = 0",), "it is of another program"),
    "an older version": (("PRAGMA user_version = 0",), "its version is 0, not 1"),
    "a newer version": (("PRAGMA user_version = 2",), "its version is 2, not 1"),
    "another table": (("CREATE TABLE other (a)",), "it has other tables"),
    "no table": (("DROP TABLE session",), "it has other tables"),
    "a trigger": (
        ("CREATE TRIGGER evil AFTER INSERT ON session BEGIN DELETE FROM session; END",),
        "it has other tables",
    ),
    "a view": (
        ("DROP TABLE session", "CREATE VIEW session AS SELECT 1, 2, 3, 4"),
        "it has other tables",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_h115_a_database_that_is_not_ours_is_set_aside(
    path: Path, logged: list[logging.LogRecord], kind: str
) -> None:
    statements, reason = BAD_FILES[kind]
    fill(path)
    execute(path, *statements)
    expect_aside(path, logged, reason)


@pytest.mark.parametrize(
    "content",
    [b"\0", b"hello\n", b"\x80\x04\x95" * 3_000, b"SQLite format 3\0", b"SQLite format 3\0" * 99],
    ids=["one byte", "text", "a pickle", "a magic", "magics"],
)
def test_h115_what_is_no_database_is_set_aside(
    path: Path, logged: list[logging.LogRecord], content: bytes
) -> None:
    path.write_bytes(content)
    expect_aside(path, logged, "is no good")


def test_h115_a_file_truncated_anywhere_is_set_aside(
    path: Path, logged: list[logging.LogRecord]
) -> None:
    sessions = fill(path)
    whole = path.read_bytes()
    assert content_of(path) == sessions
    lengths = [1, 99, 100, 101, 4095, *range(4096, len(whole), 4096)]
    # SQLite reads zeros where the end of a page is missing: what is no JSON tells it.
    lengths += [len(whole) - 1, len(whole) - 100]
    for number, length in enumerate(lengths, 1):
        path.write_bytes(whole[:length])
        expect_aside(path, logged, "is no good", number)


def test_h115_damage_is_found_wherever_pages_cannot_be_read(
    path: Path, logged: list[logging.LogRecord]
) -> None:
    fill(path)
    whole = path.read_bytes()
    for number, at in enumerate(range(4096, len(whole), 4096), 1):
        path.write_bytes(whole[:at] + b"\xff" * 64 + whole[at + 64 :])
        expect_aside(path, logged, "is no good", number)


def test_h115_whatever_octet_is_changed_the_file_is_taken_or_set_aside(
    path: Path, logged: list[logging.LogRecord]
) -> None:
    """Never an error that keeps the server from starting, and no id in the log."""
    sessions = fill(path)
    whole = path.read_bytes()
    random_source = random.Random(115)
    places = [*range(100), *(random_source.randrange(100, len(whole)) for _ in range(60))]
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        found = content_of(path)
        assert len(found) == (0 if logged else len(sessions))
        for record in logged:
            assert "00000000" not in record.getMessage()
        logged.clear()
        for each in path.parent.iterdir():
            each.unlink()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owners here")
def test_h115_a_file_of_another_user_is_set_aside(
    path: Path, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path)
    # What belongs to it goes with it, so that the next one does not take it for its own.
    Path(f"{path}-wal").write_bytes(b"a log")
    before = path.read_bytes()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with closing(SQLiteStore(path)) as store:
        assert store.load(same) == []
        store.write([saved(1)], [])
    assert Path(f"{path}.aside-1").read_bytes() == before
    assert Path(f"{path}.aside-1-wal").read_bytes() == b"a log"
    (record,) = logged
    assert "it belongs to another user" in record.getMessage()


def test_h115_a_session_that_cannot_be_restored_spoils_the_file(
    path: Path, logged: list[logging.LogRecord]
) -> None:
    def restore(session: SavedSession) -> SavedSession:
        if session == sessions[30]:
            raise ValueError("the state of a session is none")
        return session

    sessions = fill(path)
    with closing(SQLiteStore(path)) as store:
        assert store.load(restore) == []
    (record,) = logged
    assert "the state of a session is none" in record.getMessage()


def test_the_mark_of_our_files_can_be_found_by_others(path: Path) -> None:
    """``file`` and backup tools read it at this place."""
    fill(path)
    assert path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"WSES"
