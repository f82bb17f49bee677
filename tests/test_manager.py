from __future__ import annotations

from pathlib import Path

import pytest
from fakeclock import FakeClock
from fakeconnection import FakeConnection

from websocket.causes import Cause
from websocket.errors import ConnectionLimit, SessionLimit
from websocket.limits import Limits
from websocket.manager import ConnectionManager
from websocket.pool import Slot
from websocket.session import Session
from websocket.session_store import SQLiteStore
from websocket.statistics import MAX_REASONS, Statistics

LIMITS = Limits(
    max_connections=10,
    max_sessions=5,
    max_connections_per_ip=4,
    session_lifetime=1_000.0,
    detached_lifetime=120.0,
)
HOST = "192.0.2.1"


class World:
    """A clock, a manager, and what it told the application."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock = FakeClock()
        self.expired: list[Session] = []
        self.manager = ConnectionManager(self.clock, limits, on_session_expired=self.expired.append)

    def connect(
        self, session_id: str | None = None, user_id: str | None = None, host: str = HOST
    ) -> FakeConnection:
        """Return a connection that went through the whole opening handshake."""
        slot = self.manager.admit(host)
        session, _ = self.manager.open_session(session_id, user_id, slot.address_key)
        return self.open(session, slot)

    def open(self, session: Session | None, slot: Slot) -> FakeConnection:
        connection = FakeConnection(session)
        self.manager.opened(connection, slot)
        return connection


@pytest.fixture
def world() -> World:
    return World()


def session_of(connection: FakeConnection) -> Session:
    assert connection.session is not None
    return connection.session


def test_the_names_of_the_limits_can_be_read() -> None:
    manager = ConnectionManager(FakeClock(), LIMITS)
    assert (manager.max_connections, manager.max_sessions) == (10, 5)
    assert (manager.ping_interval, manager.timeout) == (20.0, 20.0)
    assert ConnectionManager(FakeClock()).limits == Limits()


def test_a_client_gets_a_fresh_session_and_comes_back_to_it(world: World) -> None:
    first = world.connect(user_id="ann")
    session = session_of(first)
    assert first.session is session
    assert session.connection is first
    world.manager.closed(first, Cause.PEER_RESET)
    assert not session.connected

    world.manager.admit(HOST)
    assert world.manager.open_session(session.id, "ann", HOST) == (session, True)
    assert first.ends == []


@pytest.mark.parametrize("session_id", [None, "", "A" * 43, "A" * 10_000])
def test_an_unknown_id_gets_a_fresh_id(world: World, session_id: str | None) -> None:
    slot = world.manager.admit("::ffff:192.0.2.1")
    session, is_resumed = world.manager.open_session(session_id, None, slot.address_key)
    assert not is_resumed
    assert session.id != session_id
    assert session.address_key == HOST


def test_a_foreign_id_gets_a_fresh_session_and_disturbs_nobody(world: World) -> None:
    victim = world.connect(user_id="ann")
    intruder = world.connect(session_of(victim).id, "bob")
    assert intruder.session is not victim.session
    assert session_of(victim).connection is victim
    assert victim.ends == []


def test_a_session_after_its_end_is_not_resumed(world: World) -> None:
    first = world.connect()
    world.manager.closed(first, Cause.CLOSED_BY_PEER)
    world.clock.advance(120)
    assert world.expired == [first.session]
    session, is_resumed = world.manager.open_session(session_of(first).id, None, HOST)
    assert not is_resumed
    assert session is not first.session


def test_of_two_connections_that_resume_at_once_the_last_wins(world: World) -> None:
    old = world.connect()
    session = session_of(old)
    slots = [world.manager.admit(HOST) for _ in range(2)]
    for _ in slots:
        assert world.manager.open_session(session.id, None, HOST) == (session, True)
    second = world.open(session, slots[0])
    third = world.open(session, slots[1])
    assert old.ends == second.ends == [(Cause.REPLACED, 4000)]
    assert third.ends == []
    assert world.manager.by_session(session.id) is third

    # Their streams end whenever they like: the owner stays the owner.
    world.manager.closed(second, Cause.REPLACED)
    world.manager.closed(old, Cause.REPLACED)
    assert session.connection is third
    assert world.manager.statistics().sessions.attached == 1
    assert world.manager.statistics().closed_by_cause[Cause.REPLACED] == 2


def test_an_expired_session_closes_its_connection(world: World) -> None:
    connection = world.connect()
    session = session_of(connection)
    world.clock.advance(1_000)
    assert connection.ends == [(Cause.SESSION_EXPIRED, 1008)]
    assert world.expired == [session]
    assert session.connection is connection
    world.manager.closed(connection, Cause.SESSION_EXPIRED)
    assert world.expired == [session]
    assert not session.connected
    assert world.clock.pending == 0


def test_sessions_expire_without_anybody_listening() -> None:
    clock = FakeClock()
    manager = ConnectionManager(clock, LIMITS)
    manager.open_session(None, None, HOST)
    clock.advance(1_000)
    assert manager.statistics().sessions.expired == 1


def test_a_session_that_ends_during_the_handshake_closes_the_new_connection(
    world: World,
) -> None:
    slot = world.manager.admit(HOST)
    session, _ = world.manager.open_session(None, None, HOST)
    world.manager.destroy_session(session)
    connection = world.open(session, slot)
    assert connection.ends == [(Cause.SESSION_EXPIRED, 1008)]
    world.manager.closed(connection, Cause.SESSION_EXPIRED)
    assert world.manager.pool.admitted == 0


def test_a_logout_closes_the_connection_and_forbids_the_return(world: World) -> None:
    connection = world.connect(user_id="ann")
    session = session_of(connection)
    world.manager.destroy_session(session)
    world.manager.destroy_session(session)
    assert connection.ends == [(Cause.SESSION_EXPIRED, 1008)]
    assert world.manager.by_session(session.id) is None
    assert world.manager.open_session(session.id, "ann", HOST)[1] is False


def test_a_connection_may_do_without_a_session(world: World) -> None:
    connection = world.open(None, world.manager.admit(HOST))
    assert list(world.manager.pool) == [connection]
    world.manager.closed(connection, Cause.CLOSED_BY_US)
    assert len(world.manager.pool) == 0


def test_a_slot_serves_until_the_stream_is_gone(world: World) -> None:
    connections = [world.connect() for _ in range(4)]
    with pytest.raises(ConnectionLimit):
        world.manager.admit(HOST)
    world.manager.closed(connections[0], Cause.CLOSED_BY_PEER)
    world.manager.closed(connections[0], Cause.CLOSED_BY_PEER)
    world.connect()
    with pytest.raises(ConnectionLimit):
        world.manager.admit(HOST)


def test_too_many_sessions_refuse_a_fresh_one_but_not_a_return(world: World) -> None:
    sessions = [world.manager.open_session(None, None, HOST)[0] for _ in range(5)]
    with pytest.raises(SessionLimit):
        world.manager.open_session(None, None, HOST)
    assert world.manager.open_session(sessions[0].id, None, HOST) == (sessions[0], True)


def test_too_many_sessions_of_one_address_are_refused_to_that_address() -> None:
    world = World(LIMITS.replace(max_sessions_per_ip=2))
    for _ in range(2):
        world.manager.open_session(None, None, HOST)
    with pytest.raises(SessionLimit) as caught:
        world.manager.open_session(None, None, HOST)
    assert caught.value.status == 429
    world.manager.open_session(None, None, "192.0.2.2")
    world.manager.open_session(None, None, "127.0.0.1")


def test_what_was_kept_goes_to_the_owner_of_the_session_alone(world: World) -> None:
    first = world.connect()
    session = session_of(first)
    world.manager.closed(first, Cause.PEER_RESET)
    session.send("kept")
    second, third = world.connect(session.id), world.connect(session.id)
    world.manager.replay(second)
    assert (second.sent, third.sent) == ([], [])
    world.manager.replay(third)
    world.manager.replay(third)
    assert (second.sent, third.sent) == ([], ["kept"])
    without = world.open(None, world.manager.admit(HOST))
    world.manager.replay(without)
    assert without.sent == []


def test_a_plain_request_frees_its_slot_once(world: World) -> None:
    slot = world.manager.admit(HOST)
    world.manager.http_answered(slot)
    world.manager.http_answered(slot)
    assert world.manager.statistics().http == 1
    assert world.manager.pool.admitted == 0


def test_with_a_store_sessions_outlive_the_manager(tmp_path: Path) -> None:
    ids = []
    for _ in range(3):
        manager = ConnectionManager(
            FakeClock(), LIMITS, session_store=SQLiteStore(tmp_path / "sessions")
        )
        ids.append(manager.open_session(None, None, HOST)[0].id)
        assert all(manager.sessions.get(each) is not None for each in ids)
        manager.close()
        assert manager.statistics().sessions.active == 0
        manager.open()
        assert manager.statistics().sessions.active == len(ids)
        manager.close()


def test_every_stream_is_counted_on_exactly_one_way(world: World) -> None:
    manager = world.manager
    first, second = world.connect(), world.connect()
    half_open, refused = manager.admit(HOST), manager.admit(HOST)
    with pytest.raises(ConnectionLimit):
        manager.admit(HOST)
    manager.handshake_failed(refused, "401")
    manager.handshake_failed(refused, "401")
    manager.closed(second, Cause.PING_TIMEOUT)
    manager.counters.messages_in += 3
    manager.counters.bytes_out += 70

    numbers = manager.statistics()
    assert (numbers.accepted, numbers.handshaking, numbers.failed) == (5, 1, 2)
    assert numbers.failed_by_reason == {"429": 1, "401": 1}
    assert (numbers.opened, numbers.active, numbers.peak, numbers.closed) == (2, 1, 2, 1)
    assert numbers.closed_by_cause[Cause.PING_TIMEOUT] == 1
    assert sum(numbers.closed_by_cause.values()) == 1
    assert set(numbers.closed_by_cause) == set(Cause)
    assert (numbers.messages_in, numbers.messages_out) == (3, 0)
    assert (numbers.bytes_in, numbers.bytes_out) == (0, 70)
    assert numbers.sessions == (2, 1, 1, 2, 0, 0, 0, 0, 0)

    manager.handshake_failed(half_open, "timeout")
    manager.closed(first, Cause.SHUTDOWN)
    later = manager.statistics()
    assert (later.handshaking, later.active, later.peak) == (0, 0, 2)
    assert manager.pool.admitted == 0
    assert numbers.active == 1
    assert "timeout" not in numbers.failed_by_reason


def test_a_snapshot_cannot_be_changed(world: World) -> None:
    numbers = world.manager.statistics()
    for table in (numbers.failed_by_reason, numbers.closed_by_cause):
        with pytest.raises(TypeError):
            table["x"] = 1  # type: ignore[index]  # that it is refused is the point


def test_reasons_cannot_fill_the_memory() -> None:
    counters = Statistics()
    for number in range(1_000):
        counters.count_failed(str(number))
        counters.count_failed("0")
    numbers = World().manager.counters.snapshot(World().manager.sessions.statistics())
    assert numbers.failed == 0
    numbers = counters.snapshot(numbers.sessions)
    assert len(numbers.failed_by_reason) == MAX_REASONS + 1
    assert numbers.failed_by_reason["0"] == 1_001
    assert numbers.failed_by_reason["other"] == 1_000 - MAX_REASONS
    assert sum(numbers.failed_by_reason.values()) == numbers.failed == 2_000


def test_closing_the_manager_leaves_no_session_and_no_timer(world: World) -> None:
    world.manager.closed(world.connect(), Cause.SHUTDOWN)
    world.manager.open_session(None, None, HOST)
    world.manager.close()
    assert world.manager.statistics().sessions.active == 0
    assert world.clock.pending == 0
    assert world.expired == []
