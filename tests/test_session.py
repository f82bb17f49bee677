from __future__ import annotations

import random
import string

import pytest
from fakeclock import FakeClock
from fakeconnection import FakeConnection

from websocket.errors import InvalidState, SessionLimit
from websocket.limits import Limits
from websocket.session import ID_LENGTH, Session, SessionManager

LIMITS = Limits(session_lifetime=1_000.0, detached_lifetime=120.0, handshake_timeout=10.0)


class World:
    """One clock, one session manager, and what it reported."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock = FakeClock()
        self.expired: list[Session] = []
        self.sessions = SessionManager(self.clock, limits, on_expired=self.expired.append)

    def create(self, user_id: str | None = None) -> Session:
        return self.sessions.create(user_id, address_key="203.0.113.7")

    def attached(self, user_id: str | None = None) -> tuple[Session, FakeConnection]:
        session = self.create(user_id)
        connection = FakeConnection(session)
        connection.last_message_at = self.clock.time
        assert self.sessions.attach(session, connection) is None
        return session, connection


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_session_is_alive_and_detached(world: World) -> None:
    session = world.create("ann")
    assert session in world.sessions
    assert len(world.sessions) == 1
    assert not session.connected
    assert session.user_id == "ann"
    assert session.address_key == "203.0.113.7"
    assert session.created_at == session.last_seen == world.clock.time
    assert session.expires_at == world.clock.time + 120
    assert world.sessions.get(session.id) is session


def test_data_is_the_applications_and_starts_empty(world: World) -> None:
    session = world.create()
    assert session.data == {}
    session.data["key"] = "value"
    assert session.data == {"key": "value"}
    assert world.create().data == {}


def test_ids_are_unguessable_and_stay_out_of_the_representation(world: World) -> None:
    ids = {world.create().id for _ in range(1_000)}
    assert len(ids) == 1_000
    alphabet = set(string.ascii_letters + string.digits + "-_")
    for session_id in ids:
        assert len(session_id) == ID_LENGTH
        assert set(session_id) <= alphabet
    session, connection = world.attached("ann")
    assert repr(session) == "<Session of 'ann' from 203.0.113.7 attached>"
    world.sessions.detach(session, connection)
    assert repr(session) == "<Session of 'ann' from 203.0.113.7 detached>"


@pytest.mark.parametrize(
    "session_id",
    ["", "x", "A" * ID_LENGTH, "\u00fc" * ID_LENGTH, "A" * 10_000, "\ud800", "\0" * 43],
)
def test_an_id_that_was_never_given_out_finds_nothing(world: World, session_id: str) -> None:
    world.create()
    assert world.sessions.get(session_id) is None
    assert world.sessions.resume(session_id, None) is None
    assert len(world.sessions) == 1


def test_an_altered_id_finds_nothing(world: World) -> None:
    session = world.create()
    for position in range(ID_LENGTH):
        letter = "A" if session.id[position] != "A" else "B"
        altered = session.id[:position] + letter + session.id[position + 1 :]
        assert world.sessions.get(altered) is None
    assert world.sessions.get(session.id + "A") is None
    assert world.sessions.get(session.id[:-1]) is None


def test_only_a_session_can_be_contained(world: World) -> None:
    session = world.create()
    assert session.id not in world.sessions
    assert session not in World().sessions


# --- attach and detach ------------------------------------------------------------------------


def test_the_last_connection_wins(world: World) -> None:
    session, first = world.attached()
    second = FakeConnection(session)
    assert world.sessions.attach(session, second) is first
    assert session.connection is second
    world.sessions.detach(session, first)
    assert session.connection is second
    assert world.sessions.statistics().attached == 1
    world.sessions.detach(session, second)
    assert not session.connected
    assert world.sessions.statistics().attached == 0


def test_attaching_the_owner_again_replaces_nobody(world: World) -> None:
    session, connection = world.attached()
    assert world.sessions.attach(session, connection) is None
    assert world.sessions.statistics().attached == 1


def test_a_session_that_ended_cannot_be_attached(world: World) -> None:
    session = world.create()
    world.sessions.destroy(session)
    with pytest.raises(InvalidState, match="the session has ended; create another one"):
        world.sessions.attach(session, FakeConnection())
    assert not session.connected


def test_a_detached_session_waits_for_its_client_and_then_expires_once(world: World) -> None:
    session, connection = world.attached()
    world.clock.advance(500)
    world.sessions.detach(session, connection)
    assert session.expires_at == world.clock.time + 120
    world.clock.advance(119)
    assert world.sessions.get(session.id) is session
    assert world.expired == []
    world.clock.advance(1)
    assert world.expired == [session]
    assert world.sessions.get(session.id) is None
    assert session not in world.sessions
    world.clock.advance(10_000)
    assert world.expired == [session]
    assert world.clock.pending == 0


def test_an_attached_session_does_not_expire_before_its_lifetime(world: World) -> None:
    session, connection = world.attached()
    world.clock.advance(999)
    assert world.expired == []
    world.clock.advance(1)
    assert world.expired == [session]
    assert session.connection is connection
    assert world.sessions.statistics().attached == 0
    world.sessions.detach(session, connection)
    assert not session.connected
    assert world.clock.pending == 0
    assert world.sessions.statistics() == (0, 0, 0, 1, 0, 1, 0)


def test_coming_back_does_not_prolong_the_lifetime(world: World) -> None:
    session, connection = world.attached()
    for _ in range(9):
        world.clock.advance(100)
        world.sessions.detach(session, connection)
        world.clock.advance(10)
        assert world.sessions.resume(session.id, None) is session
        world.sessions.attach(session, connection)
    assert session.expires_at == session.created_at + 1_000
    world.clock.advance(10)
    assert world.expired == [session]


def test_the_application_may_move_the_end_to_later(world: World) -> None:
    session, _ = world.attached()
    session.ends_at += 500
    world.clock.advance(1_499)
    assert session in world.sessions
    world.clock.advance(1)
    assert world.expired == [session]


def test_without_a_detached_lifetime_a_session_ends_with_its_connection() -> None:
    world = World(LIMITS.replace(detached_lifetime=0.0))
    session, connection = world.attached()
    world.clock.advance(5)
    world.sessions.detach(session, connection)
    assert world.expired == [session]
    assert session not in world.sessions
    assert world.clock.pending == 0


def test_a_client_in_its_handshake_is_waited_for_even_without_a_detached_lifetime() -> None:
    world = World(LIMITS.replace(detached_lifetime=0.0))
    session, first = world.attached()
    assert world.sessions.resume(session.id, None) is session
    world.sessions.detach(session, first)
    world.clock.advance(9)
    second = FakeConnection(session)
    world.sessions.attach(session, second)
    world.sessions.detach(session, second)
    assert world.expired == [session]


def test_a_session_whose_client_never_arrives_expires() -> None:
    world = World(LIMITS.replace(detached_lifetime=0.0))
    session = world.create()
    world.clock.advance(9)
    assert session in world.sessions
    world.clock.advance(1)
    assert world.expired == [session]


# --- idle timeout -----------------------------------------------------------------------------


def test_messages_and_touches_push_the_idle_timeout_without_touching_the_wheel() -> None:
    world = World(LIMITS.replace(session_idle_timeout=50.0))
    session, connection = world.attached()
    world.clock.advance(40)
    scheduled = world.clock.scheduled
    connection.last_message_at = world.clock.time
    assert world.clock.scheduled == scheduled
    assert session.expires_at == world.clock.time + 50
    world.clock.advance(40)
    world.sessions.touch(session)
    assert session.last_seen == world.clock.time
    world.clock.advance(49)
    assert world.expired == []
    world.clock.advance(1)
    assert world.expired == [session]


def test_what_a_connection_saw_last_counts_after_it_is_gone() -> None:
    world = World(LIMITS.replace(session_idle_timeout=50.0))
    session, connection = world.attached()
    world.clock.advance(30)
    connection.last_message_at = world.clock.time
    world.clock.advance(10)
    world.sessions.detach(session, connection)
    assert session.last_seen == world.clock.time - 10
    assert session.expires_at == world.clock.time + 40
    world.clock.advance(40)
    assert world.expired == [session]


def test_a_client_that_comes_back_is_active() -> None:
    world = World(LIMITS.replace(session_idle_timeout=50.0))
    session = world.create()
    world.clock.advance(40)
    world.sessions.resume(session.id, None)
    world.clock.advance(40)
    world.sessions.attach(session, FakeConnection(session))
    world.clock.advance(40)
    assert world.expired == []


def test_the_idle_timeout_can_pass_before_the_stream_is_known_to_be_gone() -> None:
    world = World(LIMITS.replace(session_idle_timeout=50.0))
    session, connection = world.attached()
    world.clock.time += 60  # the timer is late: the stream's end is handled first
    world.sessions.detach(session, connection)
    assert world.expired == [session]
    world.clock.advance(1_000)
    assert world.expired == [session]


# --- resume -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "visitor", "is_resumed"),
    [
        ("ann", "ann", True),
        (None, None, True),
        ("ann", "bob", False),
        ("ann", None, False),
        (None, "ann", False),
        ("ann", "", False),
    ],
)
def test_only_its_own_user_resumes_a_session(
    world: World, owner: str | None, visitor: str | None, is_resumed: bool
) -> None:
    session = world.create(owner)
    assert (world.sessions.resume(session.id, visitor) is session) is is_resumed
    assert session.resume_count == is_resumed
    assert world.sessions.statistics().resumed == is_resumed


def test_resuming_waits_for_the_client_anew(world: World) -> None:
    session = world.create()
    world.clock.advance(119)
    world.sessions.resume(session.id, None)
    world.clock.advance(119)
    assert session in world.sessions
    world.clock.advance(1)
    assert world.expired == [session]


def test_a_foreign_attempt_does_not_prolong_a_session(world: World) -> None:
    session = world.create("ann")
    world.clock.advance(119)
    world.sessions.resume(session.id, "bob")
    world.clock.advance(1)
    assert world.expired == [session]


def test_a_session_is_over_when_it_is_due_even_if_its_timer_is_late(world: World) -> None:
    session = world.create()
    world.clock.time += 120
    assert world.sessions.get(session.id) is None
    assert world.sessions.resume(session.id, None) is None
    assert world.expired == []
    world.clock.advance(0)
    assert world.expired == [session]


# --- limits, destruction, statistics ----------------------------------------------------------


def test_one_session_too_many_is_refused_and_none_is_sacrificed() -> None:
    world = World(LIMITS.replace(max_sessions=3))
    sessions = [world.create() for _ in range(3)]
    with pytest.raises(SessionLimit) as caught:
        world.create()
    assert caught.value.status == 503
    assert caught.value.headers == (("Retry-After", "120"),)
    assert all(session in world.sessions for session in sessions)
    world.sessions.destroy(sessions[1])
    world.create()
    assert len(world.sessions) == 3


def test_a_destroyed_session_is_gone_without_having_expired(world: World) -> None:
    session, connection = world.attached()
    assert world.sessions.destroy(session)
    assert not world.sessions.destroy(session)
    assert world.sessions.get(session.id) is None
    assert world.sessions.resume(session.id, None) is None
    assert session.connection is connection
    world.sessions.detach(session, connection)
    world.clock.advance(10_000)
    assert world.expired == []
    assert world.clock.pending == 0
    assert world.sessions.statistics() == (0, 0, 0, 1, 0, 0, 1)


def test_the_statistics_count_what_happened(world: World) -> None:
    one, connection = world.attached()
    world.attached()
    world.create()
    world.sessions.destroy(world.create())
    world.sessions.detach(one, connection)
    world.sessions.resume(one.id, None)
    assert world.sessions.statistics()._asdict() == {
        "active": 3,
        "attached": 1,
        "detached": 2,
        "created": 4,
        "resumed": 1,
        "expired": 0,
        "destroyed": 1,
    }


def test_closing_leaves_no_session_and_no_timer(world: World) -> None:
    for _ in range(5):
        world.attached()
    world.create()
    world.sessions.close()
    assert len(world.sessions) == 0
    assert world.clock.pending == 0
    assert world.sessions.statistics().destroyed == 6
    assert world.expired == []


def test_the_expiry_callback_may_call_back() -> None:
    clock = FakeClock()
    ended: list[Session] = []

    def on_expired(session: Session) -> None:
        ended.append(session)
        assert session not in sessions
        assert not sessions.destroy(session)
        for other in others:
            sessions.destroy(other)
        sessions.create(address_key="new")

    sessions = SessionManager(clock, LIMITS, on_expired=on_expired)
    others = [sessions.create(address_key="old") for _ in range(3)]
    clock.advance(120)
    assert ended == others[:1]
    assert sessions.statistics() == (1, 0, 1, 4, 0, 1, 2)


def test_without_a_callback_sessions_expire_all_the_same() -> None:
    clock = FakeClock()
    sessions = SessionManager(clock, LIMITS)
    sessions.create(address_key="a")
    clock.advance(120)
    assert sessions.statistics().expired == 1


def test_a_hundred_thousand_sessions_that_expire_together_expire_once_each() -> None:
    world = World()
    sessions = {world.create() for _ in range(100_000)}
    world.clock.advance(119)
    assert world.expired == []
    world.clock.advance(1)
    assert len(world.expired) == 100_000
    assert set(world.expired) == sessions
    assert world.sessions.statistics() == (0, 0, 0, 100_000, 0, 100_000, 0)
    assert world.clock.pending == 0


class Twin:
    """The rules of expiry for one session, written down a second time."""

    def __init__(self, now: float) -> None:
        self.created_at = self.last_seen = now
        self.waits_until = now + 40.0
        self.connection: FakeConnection | None = None

    def is_due(self, now: float) -> bool:
        is_idle = now >= self.last_seen + 90.0
        is_given_up = self.connection is None and now >= self.waits_until
        return is_idle or is_given_up or now >= self.created_at + 300.0


def test_any_history_agrees_with_a_twin_that_is_looked_at_every_second() -> None:
    random_source = random.Random(11)
    limits = LIMITS.replace(session_lifetime=300.0, session_idle_timeout=90.0)
    world = World(limits.replace(detached_lifetime=40.0))
    alive: dict[Session, Twin] = {}
    ended: list[Session] = []
    for _ in range(3_000):
        now = world.clock.time
        action = random_source.randrange(5)
        if action == 0 or not alive:
            alive[world.create()] = Twin(now)
        session, twin = random_source.choice(list(alive.items()))
        connection = twin.connection
        if action == 1:
            twin.connection = FakeConnection(session)
            twin.last_seen = now
            assert world.sessions.attach(session, twin.connection) is connection
        elif action == 2 and connection is not None:
            twin.connection = None
            twin.waits_until = now + 40.0
            world.sessions.detach(session, connection)
        elif action == 3 and connection is not None:
            connection.last_message_at = twin.last_seen = now
        elif action == 4 and connection is None:
            assert world.sessions.resume(session.id, None) is session
            twin.last_seen = now
            twin.waits_until = now + 40.0
        world.clock.advance(1)
        ended += [each for each, twin in alive.items() if twin.is_due(now + 1)]
        for each in ended:
            alive.pop(each, None)
        assert set(world.expired) == set(ended)
        assert len(world.expired) == len(ended)
        assert len(world.sessions) == len(alive) == world.clock.pending
        attached = sum(twin.connection is not None for twin in alive.values())
        assert world.sessions.statistics().attached == attached
    assert len(ended) > 100
