"""What is due, alone and together; no clock is needed."""

from __future__ import annotations

import random

import pytest

from websocket.causes import Cause
from websocket.deadlines import Deadlines
from websocket.limits import Limits

OFF = Limits(
    ping_interval=None,
    ping_timeout=None,
    idle_timeout=None,
    message_timeout=None,
    write_stall_timeout=None,
)
START = 1000.0

# A limit, the time that it counts from, and what it comes to.
ENDS = [
    ("ping_timeout", "pinged_at", Cause.PING_TIMEOUT),
    ("idle_timeout", "message_at", Cause.IDLE_TIMEOUT),
    ("message_timeout", "message_began_at", Cause.MESSAGE_TIMEOUT),
    ("write_stall_timeout", "congested_at", Cause.SLOW_CONSUMER),
]


def test_with_everything_off_nothing_is_ever_due() -> None:
    deadlines = Deadlines(OFF, START)
    for _, since, _ in ENDS:
        setattr(deadlines, since, START)
    assert deadlines.next_due() is None
    assert deadlines.due(1e12) is None
    assert not deadlines.ping_is_due(1e12)


@pytest.mark.parametrize(("limit", "since", "cause"), ENDS)
@pytest.mark.parametrize("now", [0.0, START, 12_345.678])
def test_every_deadline_alone(limit: str, since: str, cause: Cause, now: float) -> None:
    deadlines = Deadlines(OFF.replace(**{limit: 7.0}), 0.0)
    setattr(deadlines, since, now)
    assert deadlines.next_due() == now + 7.0
    assert deadlines.due(now + 6.999) is None
    assert deadlines.due(now + 7.0) is cause
    assert deadlines.due(now + 100.0) is cause
    assert not deadlines.ping_is_due(now + 100.0)


@pytest.mark.parametrize(("limit", "since", "cause"), ENDS)
def test_a_limit_that_is_none_is_switched_off(limit: str, since: str, cause: Cause) -> None:
    deadlines = Deadlines(Limits(idle_timeout=3600.0).replace(**{limit: None}), START)
    deadlines.is_paused = True  # no pings
    for _, other, _ in ENDS:
        setattr(deadlines, other, START + 1e9)
    setattr(deadlines, since, START)
    assert deadlines.due(START + 1e8) is None, cause
    next_due = deadlines.next_due()
    assert next_due is not None
    assert next_due > START + 1e8


@pytest.mark.parametrize("since", ["pinged_at", "message_began_at", "congested_at", "close_by"])
def test_what_has_not_begun_is_not_due(since: str) -> None:
    deadlines = Deadlines(Limits(ping_interval=None), START)
    assert getattr(deadlines, since) is None
    assert deadlines.next_due() is None
    assert deadlines.due(1e12) is None


def test_a_new_connection_counts_from_now() -> None:
    deadlines = Deadlines(OFF.replace(ping_interval=20.0, idle_timeout=60.0), START)
    assert deadlines.next_due() == START + 20.0
    assert deadlines.ping_is_due(START + 20.0)
    assert deadlines.due(START + 59.0) is None
    assert deadlines.due(START + 60.0) is Cause.IDLE_TIMEOUT


# --- silence ----------------------------------------------------------------------------------


def test_silence_is_answered_with_one_ping_then_with_the_end() -> None:
    """H88."""
    deadlines = Deadlines(OFF.replace(ping_interval=20.0, ping_timeout=10.0), START)
    assert not deadlines.ping_is_due(START + 19.9)
    assert deadlines.ping_is_due(START + 20.0)
    deadlines.pinged_at = START + 20.0
    assert not deadlines.ping_is_due(START + 25.0)
    assert deadlines.next_due() == START + 30.0
    assert deadlines.due(START + 29.9) is None
    assert deadlines.due(START + 30.0) is Cause.PING_TIMEOUT


def test_any_byte_ends_the_silence() -> None:
    """H89."""
    deadlines = Deadlines(OFF.replace(ping_interval=20.0, ping_timeout=10.0), START)
    deadlines.pinged_at = START + 20.0
    deadlines.received_at, deadlines.pinged_at = START + 29.0, None
    assert deadlines.due(START + 30.0) is None
    assert deadlines.next_due() == START + 49.0
    assert deadlines.ping_is_due(START + 49.0)


def test_without_a_ping_timeout_a_ping_is_sent_once_and_never_missed() -> None:
    deadlines = Deadlines(OFF.replace(ping_interval=20.0), START)
    deadlines.pinged_at = START + 20.0
    assert deadlines.next_due() is None
    assert deadlines.due(1e12) is None


def test_while_paused_silence_proves_nothing() -> None:
    deadlines = Deadlines(Limits(ping_interval=20.0, ping_timeout=10.0), START)
    deadlines.is_paused = True
    assert not deadlines.ping_is_due(1e12)
    deadlines.pinged_at = START
    assert deadlines.due(1e12) is None
    assert deadlines.next_due() is None
    deadlines.is_paused = False
    assert deadlines.due(START + 10.0) is Cause.PING_TIMEOUT


# What we do not read cannot be held against the peer.
NOT_WHILE_PAUSED = ("pinged_at", "message_at")


@pytest.mark.parametrize(
    ("limit", "since", "cause"), [end for end in ENDS if end[1] in NOT_WHILE_PAUSED]
)
def test_while_paused_the_peers_silence_does_not_count(
    limit: str, since: str, cause: Cause
) -> None:
    deadlines = Deadlines(OFF.replace(**{limit: 7.0}), START)
    setattr(deadlines, since, START)
    assert deadlines.due(START + 7.0) is cause
    deadlines.is_paused = True
    assert deadlines.due(START + 7.0) is None


@pytest.mark.parametrize(
    ("limit", "since", "cause"), [end for end in ENDS if end[1] not in NOT_WHILE_PAUSED]
)
def test_while_paused_the_other_deadlines_count(limit: str, since: str, cause: Cause) -> None:
    deadlines = Deadlines(OFF.replace(**{limit: 7.0}), START)
    deadlines.is_paused = True
    setattr(deadlines, since, START)
    assert deadlines.due(START + 7.0) is cause


# --- closing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("close_by", [START + 5.0, 0.0, -5.0])
def test_once_closing_only_the_closing_handshake_is_waited_for(close_by: float) -> None:
    """H69: not extended by traffic; a clock may begin anywhere."""
    deadlines = Deadlines(Limits(idle_timeout=1.0), close_by - 1e6)
    for _, since, _ in ENDS:
        setattr(deadlines, since, close_by - 1e6)
    assert deadlines.due(close_by - 0.1) is not None
    deadlines.close_by, deadlines.pinged_at = close_by, None
    assert deadlines.due(close_by - 0.1) is None
    assert not deadlines.ping_is_due(close_by + 1e6)
    assert deadlines.next_due() == close_by
    assert deadlines.due(close_by) is Cause.CLOSE_TIMEOUT
    deadlines.received_at = deadlines.message_at = close_by
    deadlines.is_paused = True
    assert deadlines.due(close_by) is Cause.CLOSE_TIMEOUT


# --- all together -------------------------------------------------------------------------------


def random_deadlines(source: random.Random) -> Deadlines:
    def maybe(value: float) -> float | None:
        return value if source.random() < 0.6 else None

    limits = OFF.replace(
        ping_interval=maybe(20.0), **{limit: maybe(source.uniform(1, 60)) for limit, _, _ in ENDS}
    )
    deadlines = Deadlines(limits, START)
    deadlines.received_at = START + source.uniform(0, 60)
    deadlines.message_at = START + source.uniform(0, 60)
    deadlines.pinged_at = maybe(START + source.uniform(0, 60))
    deadlines.message_began_at = maybe(START + source.uniform(0, 60))
    deadlines.congested_at = maybe(START + source.uniform(0, 60))
    deadlines.close_by = START + source.uniform(0, 60) if source.random() < 0.2 else None
    deadlines.is_paused = source.random() < 0.2
    return deadlines


def test_nothing_is_due_before_next_due_and_something_is_then() -> None:
    """Else the connection's one timer would come too late, or again and again for nothing."""
    source = random.Random(6455)
    nevers = 0
    for _ in range(2000):
        deadlines = random_deadlines(source)
        when = deadlines.next_due()
        before = 1e12 if when is None else when - 1e-6
        assert deadlines.due(before) is None
        assert not deadlines.ping_is_due(before)
        if when is None:
            nevers += 1
        else:
            assert deadlines.due(when) is not None or deadlines.ping_is_due(when)
    assert 0 < nevers < 1000


# --- a loop that stalls -------------------------------------------------------------------------


def stalled(limits: Limits, begin: float, end: float) -> Deadlines:
    """Return deadlines of a loop that has lost the time between."""
    return Deadlines(limits, START, lambda moment: max(0.0, end - max(begin, moment)))


@pytest.mark.parametrize(("limit", "since", "cause"), ENDS)
def test_what_the_loop_has_lost_is_added(limit: str, since: str, cause: Cause) -> None:
    deadlines = stalled(OFF.replace(**{limit: 7.0}), START + 2, START + 5)
    setattr(deadlines, since, START)
    assert deadlines.next_due() == START + 10
    assert deadlines.due(START + 9.9) is None
    assert deadlines.due(START + 10) is cause
    setattr(deadlines, since, START + 5)
    assert deadlines.due(START + 12) is cause


def test_the_closing_handshake_is_given_the_lost_time_as_well() -> None:
    limits = OFF.replace(close_timeout=5.0)
    deadlines = stalled(limits, START + 2, START + 4)
    deadlines.close_by = START + 5
    assert deadlines.due(START + 6.9) is None
    assert deadlines.due(START + 7) is Cause.CLOSE_TIMEOUT


@pytest.mark.parametrize(("lost", "is_asked_again"), [(9.9, False), (10.0, True), (1e6, True)])
def test_a_ping_older_than_a_long_stall_is_sent_again(lost: float, is_asked_again: bool) -> None:
    """H91."""
    limits = OFF.replace(ping_interval=20.0, ping_timeout=10.0)
    deadlines = stalled(limits, START + 1, START + 1 + lost)
    deadlines.pinged_at = START
    now = START + 1 + lost
    assert deadlines.ping_is_due(now) is is_asked_again
    assert (deadlines.due(now + 100) is None) is is_asked_again
    deadlines.pinged_at = now
    assert deadlines.due(now + 10) is Cause.PING_TIMEOUT


def test_a_ping_counts_from_when_it_has_left() -> None:
    """H89."""
    limits = OFF.replace(ping_interval=20.0, ping_timeout=10.0, write_stall_timeout=30.0)
    deadlines = Deadlines(limits, START)
    deadlines.ping_queued_at = START + 20
    assert not deadlines.ping_is_due(START + 49)
    assert deadlines.due(START + 49) is None
    assert deadlines.due(START + 50) is Cause.SLOW_CONSUMER
    deadlines.ping_left(START + 49)
    assert deadlines.due(START + 58.9) is None
    assert deadlines.due(START + 59) is Cause.PING_TIMEOUT


def test_what_came_while_the_ping_waited_has_ended_the_silence() -> None:
    deadlines = Deadlines(OFF.replace(ping_interval=20.0, ping_timeout=10.0), START)
    deadlines.ping_queued_at = START + 20
    deadlines.received_at = START + 25
    deadlines.ping_left(START + 30)
    assert deadlines.pinged_at is None
    assert deadlines.next_due() == START + 45
