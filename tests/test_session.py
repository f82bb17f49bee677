from __future__ import annotations

import math
import os
import random
import string
import sys
from typing import TYPE_CHECKING, Any

import pytest
from fakeclock import FakeClock
from fakeconnection import FakeConnection

from websocket.address import address_key
from websocket.errors import InvalidState, SessionLimit
from websocket.expiry import BATCH
from websocket.limits import Limits
from websocket.persistence import ID_LENGTH
from websocket.session import Session
from websocket.session_manager import SessionManager

if TYPE_CHECKING:
    from websocket.frame_writer import Payload

LIMITS = Limits(
    session_lifetime=1_000.0,
    detached_lifetime=120.0,
    handshake_timeout=10.0,
    max_sessions_per_ip=None,
)


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_gives_out_ids_of_its_own(world: World) -> None:
    world.create()  # and others are drawn with its id
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(sender, world.create().id.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(receiver, 100).decode()
    os.close(receiver)
    os.close(sender)
    assert len(theirs) == ID_LENGTH
    assert theirs not in {world.create().id for _ in range(200)}


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
    assert world.sessions.statistics() == (0, 0, 0, 1, 0, 1, 0, 0, 0)


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
    assert world.sessions.statistics() == (0, 0, 0, 1, 0, 0, 1, 0, 0)


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
        "replay_size": 0,
        "save_failures": 0,
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
    assert sessions.statistics() == (1, 0, 1, 4, 0, 1, 2, 0, 0)


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
    assert world.sessions.statistics() == (0, 0, 0, 100_000, 0, 100_000, 0, 0, 0)
    assert world.clock.pending == 0


def test_sessions_that_end_together_end_in_several_turns(world: World) -> None:
    for _ in range(1_000):
        world.create()
    sizes = []
    world.clock.advance(119)
    world.clock.time += 1
    while world.clock.pending:
        before = len(world.expired)
        world.clock.run_due()
        sizes.append(len(world.expired) - before)
    assert sizes == [BATCH, BATCH, BATCH, 1_000 - 3 * BATCH]


def test_a_later_end_moves_nothing_and_is_kept_all_the_same(world: World) -> None:
    """A session is looked at where it stands, and then again when its end has come."""
    session, connection = world.attached()
    world.clock.advance(100)
    world.sessions.detach(session, connection)
    assert session.expires_at == world.clock.time + 120
    world.clock.advance(119)
    assert session in world.sessions
    world.clock.advance(2)
    assert world.expired == [session]


def test_all_sessions_share_one_timer(world: World) -> None:
    for _ in range(100):
        world.attached()
        world.create()
        world.clock.advance(0.3)
        assert world.clock.pending == 1
    world.clock.advance(10_000)
    assert len(world.expired) == 200
    assert world.clock.pending == 0


def test_the_end_of_one_session_may_end_or_prolong_others_of_the_same_second() -> None:
    clock = FakeClock()
    ended: list[Session] = []

    def on_expired(session: Session) -> None:
        ended.append(session)
        if len(ended) == 1:
            assert sessions.destroy(others[1])
            connection = FakeConnection(others[2])
            sessions.attach(others[2], connection)
            sessions.detach(others[2], connection)

    sessions = SessionManager(clock, LIMITS, on_expired=on_expired)
    others = [sessions.create(address_key="old") for _ in range(4)]
    clock.advance(120)
    assert ended == [others[0], others[3]]
    clock.advance(119)
    assert len(ended) == 2
    clock.advance(1)
    assert ended == [others[0], others[3], others[2]]
    assert clock.pending == 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_callback_that_raises_delays_the_others_and_loses_none(
    error: type[BaseException],
) -> None:
    clock = FakeClock()
    ended: list[Session] = []

    def on_expired(session: Session) -> None:
        ended.append(session)
        raise error

    sessions = SessionManager(clock, LIMITS, on_expired=on_expired)
    others = [sessions.create(address_key="old") for _ in range(3)]
    for _ in others:
        with pytest.raises(error):
            clock.advance(120)
    clock.advance(1_000)
    assert ended == others
    assert clock.pending == 0


@pytest.mark.parametrize("lifetime", [0.5, 127.9, 128.1, 200.0, 5_000.0, 300_000.0])
@pytest.mark.parametrize("started", [1_000.0, 999.999, 0.0, 1e9 + 0.5])
def test_no_session_ends_early_or_more_than_a_second_late(started: float, lifetime: float) -> None:
    random_source = random.Random(114)
    clock = FakeClock(started)
    late: list[float] = []
    sessions = SessionManager(
        clock,
        LIMITS.replace(session_lifetime=lifetime),
        on_expired=lambda session: late.append(clock.time - session.ends_at),
    )
    for _ in range(100):
        session = sessions.create(address_key="any")
        sessions.attach(session, FakeConnection(session))
        session.ends_at += 3 * random_source.random()
        clock.advance(3 * random_source.random())
    clock.advance(1e6)
    assert len(late) == 100
    assert min(late) >= 0
    assert max(late) <= 1


def test_an_end_that_was_moved_to_infinity_never_comes(world: World) -> None:
    session, _ = world.attached()
    session.ends_at = math.inf
    world.clock.advance(10 * 86_400)
    assert world.expired == []
    assert world.clock.pending == 1
    session.ends_at = world.clock.time
    world.clock.advance(86_400)
    assert world.expired == [session]


# --- messages ---------------------------------------------------------------------------------


def come_back(world: World, session: Session) -> FakeConnection:
    """Return the connection of a client that came back, after its ``on_open``."""
    connection = FakeConnection(session)
    world.sessions.attach(session, connection)
    world.sessions.replay(session)
    return connection


def test_a_message_goes_over_the_connection_if_there_is_one(world: World) -> None:
    session, connection = world.attached()
    assert session.send("hello")
    assert session.send(b"\0")
    assert connection.sent == ["hello", b"\0"]
    assert session.missed == 0
    assert session._replay is None


def test_messages_to_a_client_that_is_away_wait_for_it(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    messages: list[Any] = ["a", b"b", bytearray(b"c"), memoryview(b"d"), "\u00fc"]
    for message in messages:
        assert session.send(message)
    messages[2][:] = b"x"
    assert session.missed == 5
    second = come_back(world, session)
    assert second.sent == ["a", b"b", b"c", b"d", "\u00fc"]
    assert (second.gaps, first.sent) == ([], [])
    assert session.send("now")
    assert second.sent[-1] == "now"
    assert world.sessions.statistics().replay_size == 0


def test_a_connection_that_is_closing_is_as_good_as_gone(world: World) -> None:
    session, first = world.attached()
    first.is_open = False
    assert session.send("a")
    world.sessions.detach(session, first)
    assert session.send("b")
    assert come_back(world, session).sent == ["a", "b"]


def test_what_is_sent_in_on_open_comes_after_what_was_kept(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    session.send("old")
    second = FakeConnection(session)
    world.sessions.attach(session, second)
    session.send("new")
    assert second.sent == []
    world.sessions.replay(session)
    assert second.sent == ["old", "new"]


def test_what_had_to_be_dropped_is_told_before_the_rest(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    for number in range(130):
        assert session.send(str(number))
    second = come_back(world, session)
    assert second.gaps == [2]
    assert second.sent == [str(number) for number in range(2, 130)]
    world.sessions.detach(session, second)
    assert come_back(world, session).gaps == []


def test_bytes_are_bounded_as_messages_are(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    assert all(session.send(bytes(100_000)) for _ in range(10))
    assert not session.send(bytes(256 * 1024))
    assert world.sessions.statistics().replay_size == 0
    assert session.send("last")
    second = come_back(world, session)
    assert (second.gaps, second.sent) == ([11], ["last"])


def test_what_waits_is_never_more_than_a_connection_takes_at_once() -> None:
    world = World(LIMITS.replace(write_hard_mark=10_000))
    session, first = world.attached()
    world.sessions.detach(session, first)
    for _ in range(100):
        session.send(bytes(1_000))
    second = come_back(world, session)
    assert sum(len(message) for message in second.sent) < 10_000
    assert second.gaps == [100 - len(second.sent)]


def test_all_clients_together_are_bounded() -> None:
    world = World(LIMITS.replace(replay_total_size=100_000))
    away = []
    for _ in range(20):
        session, connection = world.attached()
        world.sessions.detach(session, connection)
        away.append(session)
    for _ in range(3):
        for session in away:
            session.send(bytes(5_000))
            assert 0 < world.sessions.statistics().replay_size <= 100_000
    assert {session.missed for session in away} == {3}
    received = [come_back(world, session) for session in away]
    assert sum(len(connection.sent) for connection in received) == 100_000 // 5_128
    for connection in received:
        assert sum(connection.gaps) + len(connection.sent) == 3
    assert world.sessions.statistics().replay_size == 0


def test_without_room_nothing_is_kept_and_nothing_missed() -> None:
    world = World(LIMITS.replace(replay_messages=0))
    session, connection = world.attached()
    world.sessions.detach(session, connection)
    assert not session.send("lost")
    assert session.missed == 0
    assert come_back(world, session).gaps == []


def test_a_session_that_is_over_takes_nothing(world: World) -> None:
    session, connection = world.attached()
    world.sessions.detach(session, connection)
    session.send("kept")
    world.clock.time += 120  # its timer is late
    assert not session.send("too late")
    world.clock.advance(0)
    assert world.expired == [session]
    assert not session.send("too late")
    assert session.missed == 0
    assert world.sessions.statistics().replay_size == 0

    session, connection = world.attached()
    world.sessions.destroy(session)
    connection.is_open = False
    assert not session.send("too late")


@pytest.mark.parametrize("bad", [3, None, "\ud800"])
def test_what_is_no_message_is_an_error_for_a_client_that_is_away(world: World, bad: Any) -> None:
    session, connection = world.attached()
    world.sessions.detach(session, connection)
    with pytest.raises((TypeError, ValueError)):
        session.send(bad)
    assert session.missed == 0


def test_what_the_connection_does_not_take_waits_for_the_next(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    for letter in "abcd":
        session.send(letter)

    class Choosy(FakeConnection):
        def send(self, message: Payload) -> bool:
            self.is_open = len(self.sent) < 2
            return super().send(message)

    second = Choosy(session)
    world.sessions.attach(session, second)
    world.sessions.replay(session)
    assert second.sent == ["a", "b"]
    assert session.missed == 2
    world.sessions.detach(session, second)
    assert come_back(world, session).sent == ["c", "d"]


@pytest.mark.parametrize("event", ["closed", "destroyed", "replaced"])
def test_telling_of_the_gap_may_end_everything(event: str) -> None:
    world = World(LIMITS.replace(replay_messages=1))
    session, first = world.attached()
    world.sessions.detach(session, first)
    session.send("dropped")
    session.send("kept")

    class Ending(FakeConnection):
        def report_gap(self, dropped: int) -> None:
            super().report_gap(dropped)
            if event == "closed":
                self.is_open = False
            elif event == "destroyed":
                world.sessions.destroy(session)
                self.is_open = False
            else:
                world.sessions.attach(session, third)

    third = FakeConnection(session)
    second = Ending(session)
    world.sessions.attach(session, second)
    world.sessions.replay(session)
    assert (second.gaps, second.sent) == ([1], [])
    if event == "destroyed":
        assert session.missed == 0
    else:
        # Nobody has told the client: the next connection will.
        world.sessions.attach(session, third)
        world.sessions.replay(session)
        assert (third.gaps, third.sent) == ([1], ["kept"])
    assert world.sessions.statistics().replay_size == 0


def test_nothing_is_sent_again_where_nobody_is(world: World) -> None:
    session, first = world.attached()
    world.sessions.detach(session, first)
    session.send("kept")
    world.sessions.replay(session)
    closing = FakeConnection(session)
    closing.is_open = False
    world.sessions.attach(session, closing)
    world.sessions.replay(session)
    assert session.missed == 1


def test_what_waits_goes_with_its_session(world: World) -> None:
    for _ in range(10):
        session, connection = world.attached()
        world.sessions.detach(session, connection)
        session.send(bytes(1_000))
    assert world.sessions.statistics().replay_size > 10_000
    world.clock.advance(121)
    assert world.sessions.statistics().replay_size == 0


# --- limits of an address ---------------------------------------------------------------------


def test_one_address_gets_no_more_than_its_share_of_sessions() -> None:
    world = World(LIMITS.replace(max_sessions_per_ip=3))
    sessions = [world.create() for _ in range(3)]
    with pytest.raises(SessionLimit, match="too many sessions of one address") as caught:
        world.create()
    assert caught.value.status == 429
    assert caught.value.headers == (("Retry-After", "120"),)
    world.sessions.create(address_key="192.0.2.1")
    world.sessions.destroy(sessions[0])
    world.create()
    world.clock.advance(121)
    assert len(world.sessions) == 0
    assert world.sessions._count_by_address == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
@pytest.mark.parametrize("is_exempt", [True, False])
def test_loopback_may_have_any_number_unless_told_otherwise(host: str, is_exempt: bool) -> None:
    limits = LIMITS.replace(max_sessions_per_ip=3, loopback_is_exempt=is_exempt)
    sessions = SessionManager(FakeClock(), limits)
    made = 0
    for _ in range(10):
        try:
            sessions.create(address_key=address_key(host))
            made += 1
        except SessionLimit:
            pass
    assert made == (10 if is_exempt else 3)


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="PyPy keeps other books")
def test_an_idle_session_is_small(world: World) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    connections = [FakeConnection() for _ in range(5_000)]
    tracemalloc.start()
    try:
        for connection in connections:
            connection.session = world.create()
            world.sessions.attach(connection.session, connection)
        world.clock.advance(200)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / len(connections) < 400


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
        assert len(world.sessions) == len(alive)
        assert world.clock.pending == bool(alive)
        attached = sum(twin.connection is not None for twin in alive.values())
        assert world.sessions.statistics().attached == attached
    assert len(ended) > 100
