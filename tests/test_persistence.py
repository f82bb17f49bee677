from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

import pytest
from fakeclock import FakeClock
from fakeconnection import FakeConnection

from websocket.limits import Limits
from websocket.persistence import SavedSession, encode_data
from websocket.session import Session
from websocket.session_manager import SessionManager

LIMITS = Limits(
    session_lifetime=1_000.0,
    detached_lifetime=120.0,
    max_sessions_per_ip=None,
    loopback_is_exempt=False,
)
HOST = "203.0.113.7"
# Far from the reactor's clock, so that the two cannot be taken for each other.
WALL = 1.7e9

Restored = TypeVar("Restored")


class MemoryStore:
    """Keep sessions where a test can see them; fail when told to."""

    def __init__(self) -> None:
        self.rows: dict[str, SavedSession] = {}
        self.writes: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self.is_open = False

    def load(self, restore: Callable[[SavedSession], Restored]) -> list[Restored]:
        assert not self.is_open
        self.is_open = True
        return [restore(row) for row in self.rows.values()]

    def write(self, saved: Sequence[SavedSession], deleted: Sequence[str]) -> None:
        assert self.is_open
        self.writes.append((len(saved), len(deleted)))
        if self.error is not None:
            raise self.error
        self.rows.update({each.id: each for each in saved})
        for session_id in deleted:
            del self.rows[session_id]

    def close(self) -> None:
        self.is_open = False
        if self.error is not None:
            raise self.error


class World:
    """A server's sessions and what becomes of them from process to process."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.store = MemoryStore()
        self.wall = WALL
        self.begin()

    def begin(self, clock_time: float = 50.0) -> None:
        """Begin a process, whose clock begins anywhere."""
        self.store.is_open = False
        self.clock = FakeClock(clock_time)
        self.expired: list[Session] = []
        self.sessions = SessionManager(
            self.clock,
            self.limits,
            on_expired=self.expired.append,
            store=self.store,
            wall_clock=lambda: self.wall,
        )

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.clock.advance(seconds)

    def attached(self, user_id: str | None = None) -> tuple[Session, FakeConnection]:
        session = self.sessions.create(user_id, address_key=HOST)
        connection = FakeConnection(session)
        connection.last_message_at = self.clock.time
        self.sessions.attach(session, connection)
        return session, connection

    def resumed(self, session: Session) -> Session:
        again = self.sessions.resume(session.id, session.user_id)
        assert again is not None
        return again


@pytest.fixture
def world() -> World:
    return World()


def killed(world: World, clock_time: float = 50.0) -> None:
    """End the process without a word, and begin another."""
    world.begin(clock_time)


# --- when sessions are saved ------------------------------------------------------------------


def test_a_session_is_saved_before_its_id_is_known(world: World) -> None:
    session = world.sessions.create("ann", address_key=HOST)
    assert list(world.store.rows) == [session.id]
    killed(world)
    again = world.resumed(session)
    assert again is not session
    assert (again.id, again.user_id, again.address_key) == (session.id, "ann", HOST)
    assert again.data == {}
    assert again.recovered


def test_data_is_saved_when_the_connection_goes(world: World) -> None:
    session, connection = world.attached()
    session.data["count"] = 1
    world.pass_time(10)
    killed(world)
    assert world.resumed(session).data == {}

    world = World()
    session, connection = world.attached()
    session.data["count"] = 1
    world.sessions.detach(session, connection)
    world.clock.advance(0)
    killed(world)
    assert world.resumed(session).data == {"count": 1}


def test_data_is_saved_when_the_application_says_so(world: World) -> None:
    session, _ = world.attached()
    session.data["cart"] = ["milk"]
    session.user_id = "ann"
    assert session.save()
    session.data["cart"].append("eggs")
    killed(world)
    again = world.resumed(session)
    assert (again.data, again.user_id) == ({"cart": ["milk"]}, "ann")


def test_who_is_connected_is_saved_at_the_end(world: World) -> None:
    session, _ = world.attached()
    session.data["count"] = 1
    world.sessions.close()
    assert not world.store.is_open
    assert (len(world.sessions), world.clock.pending) == (0, 0)
    assert world.sessions.statistics().destroyed == 0
    assert world.expired == []
    killed(world)
    assert world.resumed(session).data == {"count": 1}


def test_all_that_one_turn_has_to_save_is_one_write(world: World) -> None:
    pairs = [world.attached() for _ in range(50)]
    world.store.writes.clear()
    for session, connection in pairs:
        world.sessions.detach(session, connection)
    assert world.store.writes == []
    world.clock.advance(0)
    assert world.store.writes == [(50, 0)]


def test_a_busy_turn_is_saved_in_several(world: World) -> None:
    pairs = [world.attached() for _ in range(600)]
    world.store.writes.clear()
    for session, connection in pairs:
        world.sessions.detach(session, connection)
    world.clock.advance(0)
    assert world.store.writes == [(256, 0), (256, 0), (88, 0)]


def test_nothing_is_written_while_nothing_happens(world: World) -> None:
    session, connection = world.attached()
    world.store.writes.clear()
    for _ in range(100):
        connection.last_message_at = world.clock.time
        session.send("hello")
        world.pass_time(1)
    assert world.store.writes == []


def test_a_destroyed_session_is_gone_at_once(world: World) -> None:
    session, _ = world.attached()
    world.sessions.destroy(session)
    assert world.store.rows == {}
    assert not session.save()
    world.clock.advance(0)
    assert world.store.rows == {}
    killed(world)
    assert world.sessions.resume(session.id, None) is None


def test_expired_sessions_are_removed(world: World) -> None:
    for _ in range(10):
        session, connection = world.attached()
        world.sessions.detach(session, connection)
    world.pass_time(121)
    assert len(world.expired) == 10
    assert world.store.rows == {}
    assert world.clock.pending == 0


def test_without_a_store_saving_has_no_effect() -> None:
    sessions = SessionManager(FakeClock(), LIMITS)
    session = sessions.create(address_key=HOST)
    session.data["anything"] = object()
    assert not session.save()
    sessions.open()
    assert len(sessions) == 1


def test_the_books_can_be_opened_again_after_a_close(world: World) -> None:
    session, _ = world.attached()
    world.sessions.open()
    world.sessions.close()
    lost = world.sessions.create(address_key=HOST)
    world.sessions.destroy(lost)
    world.sessions.close()
    world.sessions.open()
    world.sessions.open()
    assert len(world.sessions) == 1
    assert world.resumed(session).id == session.id


# --- how sessions come back -------------------------------------------------------------------


def test_a_session_is_as_old_as_before_on_the_new_clock(world: World) -> None:
    session, _ = world.attached()
    world.pass_time(300)
    killed(world, clock_time=7.0)
    again = world.resumed(session)
    assert again.created_at == pytest.approx(7.0 - 300)
    assert again.ends_at == pytest.approx(7.0 + 700)


def test_the_time_that_the_server_was_away_counts(world: World) -> None:
    session, _ = world.attached()
    world.wall += 990
    killed(world)
    assert world.sessions.get(session.id) is not None
    world.pass_time(10)
    assert [each.id for each in world.expired] == [session.id]
    assert world.store.rows == {}


def test_a_session_whose_time_is_over_expires_with_its_callback(world: World) -> None:
    session, _ = world.attached()
    world.wall += 1_001
    killed(world)
    assert world.sessions.get(session.id) is None
    world.clock.advance(0)
    assert [each.id for each in world.expired] == [session.id]


def test_clients_are_waited_for_anew_after_a_restart(world: World) -> None:
    session, connection = world.attached()
    world.sessions.detach(session, connection)
    world.pass_time(119)
    world.wall += 300
    killed(world)
    world.pass_time(119)
    assert world.sessions.get(session.id) is not None
    world.pass_time(1)
    assert len(world.expired) == 1


def test_an_idle_timeout_begins_anew_after_a_restart() -> None:
    world = World(LIMITS.replace(session_idle_timeout=50.0))
    session, _ = world.attached()
    world.wall += 100
    killed(world)
    world.pass_time(49)
    assert world.sessions.get(session.id) is not None
    world.pass_time(1)
    assert len(world.expired) == 1


@pytest.mark.parametrize("jump", [-86_400.0, -1e9, -WALL, 86_400.0])
def test_h91_no_jump_of_the_wall_clock_touches_a_running_server(world: World, jump: float) -> None:
    session, connection = world.attached()
    world.wall += jump
    world.pass_time(500)
    world.sessions.detach(session, connection)
    world.clock.advance(0)
    world.pass_time(119)
    assert world.expired == []
    # What is saved after the jump is right by the new time.
    killed(world)
    assert world.resumed(session).ends_at == pytest.approx(world.clock.time + 1_000 - 619)


@pytest.mark.parametrize("jump", [-600.0, -86_400.0, -WALL])
def test_h115_a_clock_before_the_creation_makes_no_session_live_longer(
    world: World, jump: float
) -> None:
    session, _ = world.attached()
    world.pass_time(500)
    world.wall += jump
    killed(world)
    again = world.resumed(session)
    assert again.created_at == world.clock.time
    assert again.ends_at == pytest.approx(world.clock.time + 1_000)


def test_an_end_may_be_moved_to_infinity(world: World) -> None:
    session, connection = world.attached()
    session.ends_at = math.inf
    session.save()
    world.pass_time(0)
    killed(world)
    again = world.resumed(session)
    assert again.ends_at == math.inf
    world.sessions.attach(again, connection)
    for _ in range(10):
        connection.last_message_at = world.clock.time
        world.pass_time(86_400)
    assert world.expired == []


def test_messages_that_were_kept_become_a_gap(world: World) -> None:
    session, connection = world.attached()
    world.sessions.detach(session, connection)
    for _ in range(3):
        assert session.send("while away")
    world.clock.advance(0)
    killed(world)
    again = world.resumed(session)
    assert again.missed == 3
    assert again.send("more")
    connection = FakeConnection(again)
    world.sessions.attach(again, connection)
    world.sessions.replay(again)
    assert (connection.gaps, connection.sent) == ([3], ["more"])
    world.clock.advance(0)
    killed(world)
    assert world.resumed(session).missed == 0


def test_sessions_from_the_store_count_as_sessions_of_their_address() -> None:
    world = World(LIMITS.replace(max_sessions_per_ip=3))
    for _ in range(2):
        world.attached()
    killed(world)
    world.attached()
    with pytest.raises(Exception, match="too many sessions of one address"):
        world.attached()


STRANGE_USERS = ["\ud800", "ann \u00fc \U0001f600", 'a"b\\c', "\0", ""]


@pytest.mark.parametrize("user_id", STRANGE_USERS)
def test_any_user_comes_back(world: World, user_id: str) -> None:
    session, _ = world.attached(user_id)
    assert world.store.rows[session.id].state.isascii()
    killed(world)
    assert world.resumed(session).user_id == user_id


# --- data that JSON cannot carry --------------------------------------------------------------


def endless() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["self"] = data
    return data


def deep() -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(200_000):
        data = {"a": data}
    return data


BAD_DATA: dict[str, dict[Any, Any]] = {
    "an object": {"a": object()},
    "bytes": {"a": b"b"},
    "a set": {"a": {1}},
    "not a number": {"a": math.nan},
    "infinity": {"a": [math.inf]},
    "a tuple": {"a": (1, 2)},
    "a number as key": {"a": {1: 2}},
    "a tuple as key": {("a",): 1},
    "itself": endless(),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_data_that_json_cannot_carry_is_an_error_for_the_caller(world: World, kind: str) -> None:
    session, _ = world.attached()
    session.data["good"] = 1
    session.save()
    world.clock.advance(0)
    session.data.update(BAD_DATA[kind])
    with pytest.raises(TypeError, match=r"^session\.data (cannot be saved|would come back)"):
        session.save()
    world.clock.advance(0)
    killed(world)
    assert world.resumed(session).data == {"good": 1}


def test_data_nested_too_deeply_is_an_error_for_the_caller() -> None:
    data = deep()
    try:
        with pytest.raises(TypeError, match="cannot be saved"):
            encode_data(data)
    finally:
        # Level by level: taken down at once, it would be too deep for some versions, too.
        while data:
            data = data.pop("a")


def test_good_data_comes_back_as_it_is(world: World) -> None:
    data = {"a": [1, 2.5, True, None, {"b": "\u00fc\ud800\0"}], "": {}, "c": 2**70, "d": 1e-300}
    session, connection = world.attached()
    session.data.update(data)
    world.sessions.detach(session, connection)
    world.clock.advance(0)
    killed(world)
    assert world.resumed(session).data == data


def test_bad_data_of_a_client_that_leaves_is_logged_and_the_rest_is_saved(
    world: World, logged: list[logging.LogRecord]
) -> None:
    bad, good = world.attached(), world.attached()
    for number, (session, connection) in enumerate((bad, good)):
        session.data["number"] = number
        if session is bad[0]:
            session.data["bad"] = object()
        world.sessions.detach(session, connection)
    world.clock.advance(0)
    (record,) = logged
    assert "not JSON serializable" in record.getMessage()
    assert world.sessions.statistics().save_failures == 1
    killed(world)
    assert world.resumed(bad[0]).data == {}
    assert world.resumed(good[0]).data == {"number": 1}


# --- a store that fails -----------------------------------------------------------------------


def test_a_full_disk_costs_nobody_anything_and_is_logged_once_a_minute(
    world: World, logged: list[logging.LogRecord]
) -> None:
    old, old_connection = world.attached()
    world.store.error = OSError("no space left on device")
    sessions = [world.attached()[0] for _ in range(10)]
    assert all(session in world.sessions for session in sessions)
    gone = world.attached()[0]
    assert world.sessions.destroy(gone)
    assert world.sessions.destroy(old)
    sessions[0].data["count"] = 7
    assert not sessions[0].save()
    for _ in range(59):
        world.pass_time(1)
    failures = world.sessions.statistics().save_failures
    assert 10 <= failures <= 13
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith("serving goes on without: no space left on device")
    facts = vars(record)
    assert (facts["event"], facts["error"]) == ("save_failed", "no space left on device")
    for _ in range(5):
        world.pass_time(1)
    assert len(logged) == 2
    assert vars(logged[1])["suppressed"] == failures - 1

    world.store.error = None
    for session in sessions:
        world.sessions.attach(session, FakeConnection(session))
    world.pass_time(5)
    assert world.store.rows.keys() == {session.id for session in sessions}
    killed(world)
    assert world.resumed(sessions[0]).data == {"count": 7}
    assert world.sessions.resume(old.id, None) is None
    assert old_connection.ends == []


def test_a_store_that_fails_is_not_asked_at_every_handshake(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.store.error = OSError("no space left on device")
    for _ in range(1_000):
        world.attached()
    assert len(world.store.writes) == 1


def test_a_session_that_comes_and_goes_while_the_disk_is_full_leaves_nothing(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.store.error = OSError("no space left on device")
    for _ in range(100):
        world.sessions.destroy(world.attached()[0])
    world.store.error = None
    world.store.writes.clear()
    world.pass_time(100)
    assert world.store.writes == []
    assert world.clock.pending == 0


def test_bad_data_is_no_reason_to_lose_a_session_that_is_not_in_the_store_yet(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.store.error = OSError("no space left on device")
    session, _ = world.attached()
    session.data["bad"] = object()
    world.store.error = None
    world.pass_time(5)
    killed(world)
    assert world.resumed(session).data == {}


def test_a_store_that_fails_to_the_last_is_reported_at_the_end(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.attached()
    world.store.error = OSError("no space left on device")
    world.attached()
    world.sessions.close()
    assert (len(world.sessions), world.clock.pending) == (0, 0)
    assert logged[-1].getMessage() == "2 sessions could not be saved at the end"
    assert (vars(logged[-1])["event"], vars(logged[-1])["count"]) == ("sessions_unsaved", 2)


def test_a_store_that_fails_only_in_closing_does_not_keep_the_server_from_it(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.store.error = OSError("no space left on device")
    world.sessions.close()
    assert len(logged) == 1


# --- what a store may bring -------------------------------------------------------------------

STATE = '{"user_id": null, "address_key": "a", "resume_count": 0, "missed": 0, "data": {}}'
GOOD = SavedSession("A" * 43, WALL, WALL + 60, STATE)
BAD_ROWS: dict[str, dict[str, Any]] = {
    "a short id": {"id": "A"},
    "an id of bytes": {"id": b"A" * 43},
    "an id in other letters": {"id": "\u00fc" * 43},
    "no id": {"id": None},
    "no time": {"created_at": None},
    "a time as text": {"ends_at": "soon"},
    "a time that is no number": {"created_at": math.nan},
    "an endless age": {"created_at": -math.inf},
    "an end before the creation": {"ends_at": WALL - 1},
    "no state": {"state": None},
    "bytes": {"state": b"\x80\x04\x95"},
    "no JSON": {"state": "\x80\x04\x95"},
    "no object": {"state": "[]"},
    "half of it": {"state": STATE[:30]},
    "a member missing": {"state": '{"user_id": null}'},
    "a member too many": {"state": STATE.replace("{", '{"x": 1, ', 1)},
    "a user of another type": {"state": STATE.replace("null", "7")},
    "data that is a list": {"state": STATE.replace("{}", "[]")},
    "a count that is a truth": {"state": STATE.replace('"missed": 0', '"missed": true')},
    "nested without end": {"state": "[" * 200_000},
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_h115_what_we_did_not_save_is_not_restored(kind: str) -> None:
    store = MemoryStore()
    store.rows["good"] = GOOD
    assert len(SessionManager(FakeClock(), LIMITS, store=store)) == 1
    store.is_open = False
    store.rows["bad"] = GOOD._replace(**BAD_ROWS[kind])
    with pytest.raises(ValueError, match=r"of a session|JSON|line 1"):
        SessionManager(FakeClock(), LIMITS, store=store)
