from __future__ import annotations

import random
from collections import Counter

import pytest
from fakeclock import FakeClock
from fakeconnection import FakeConnection

from websocket.errors import ConnectionLimit
from websocket.limits import Limits
from websocket.pool import ConnectionPool, Slot
from websocket.session import ManagedConnection
from websocket.session_manager import SessionManager

LIMITS = Limits(max_connections=10_000, max_connections_per_ip=128, handshakes_per_minute=64.0)
UNRATED = LIMITS.replace(handshakes_per_minute=None)


def refusal(pool: ConnectionPool, host: str, now: float = 0.0) -> tuple[int, str]:
    """Return the status and the Retry-After of the refusal that this host gets."""
    admitted = pool.admitted
    with pytest.raises(ConnectionLimit) as caught:
        pool.admit(host, now)
    assert pool.admitted == admitted
    fields = dict(caught.value.headers)
    return caught.value.status, fields["Retry-After"]


def opened(pool: ConnectionPool, user_id: str | None = None, host: str = "") -> FakeConnection:
    """Return a connection that is open in the pool."""
    sessions = SessionManager(FakeClock(), LIMITS)
    connection = FakeConnection(sessions.create(user_id, address_key="any"))
    pool.add(connection, pool.admit(host, 0.0))
    return connection


# --- limits -----------------------------------------------------------------------------------


def test_one_connection_too_many_is_refused_and_the_others_stay() -> None:
    pool = ConnectionPool(UNRATED.replace(max_connections=3))
    slots = [pool.admit(f"192.0.2.{number}", 0.0) for number in range(3)]
    assert refusal(pool, "192.0.2.9") == (503, "10")
    assert refusal(pool, "127.0.0.1") == (503, "10")
    pool.release(slots[0])
    pool.admit("192.0.2.9", 0.0)
    assert pool.admitted == 3


def test_connection_129_of_one_address_is_refused() -> None:
    pool = ConnectionPool(UNRATED)
    slots = [pool.admit("192.0.2.1", 0.0) for _ in range(128)]
    assert refusal(pool, "192.0.2.1") == (429, "10")
    pool.admit("192.0.2.2", 0.0)
    pool.release(slots.pop())
    pool.admit("192.0.2.1", 0.0)
    assert refusal(pool, "192.0.2.1") == (429, "10")


def test_handshake_65_in_a_minute_is_refused() -> None:
    pool = ConnectionPool(LIMITS)
    for _ in range(64):
        pool.release(pool.admit("192.0.2.1", 0.0))
    assert refusal(pool, "192.0.2.1") == (429, "1")
    assert pool.admitted == 0
    pool.admit("192.0.2.2", 0.0)
    pool.admit("192.0.2.1", 60 / 64)
    assert refusal(pool, "192.0.2.1", 60 / 64) == (429, "1")


def test_retry_after_is_long_enough() -> None:
    pool = ConnectionPool(LIMITS.replace(handshakes_per_minute=0.5))
    pool.admit("192.0.2.1", 0.0)
    status, seconds = refusal(pool, "192.0.2.1", 30.0)
    assert (status, seconds) == (429, "90")
    pool.admit("192.0.2.1", 120.0)


def test_a_refusal_for_another_reason_costs_no_handshake() -> None:
    pool = ConnectionPool(LIMITS.replace(max_connections_per_ip=1, handshakes_per_minute=2.0))
    slot = pool.admit("192.0.2.1", 0.0)
    for _ in range(10):
        assert refusal(pool, "192.0.2.1") == (429, "10")
    pool.release(slot)
    pool.admit("192.0.2.1", 0.0)


def test_one_host_by_two_protocols_is_one_address() -> None:
    pool = ConnectionPool(UNRATED.replace(max_connections_per_ip=2))
    pool.admit("192.0.2.1", 0.0)
    pool.admit("::ffff:192.0.2.1", 0.0)
    assert refusal(pool, "192.0.2.1")[0] == 429
    assert refusal(pool, "::ffff:192.0.2.1")[0] == 429


def test_one_ipv6_network_is_one_address() -> None:
    pool = ConnectionPool(LIMITS)
    refused = 0
    for number in range(300):
        try:
            pool.admit(f"2001:db8::{number:x}", 0.0)
        except ConnectionLimit:
            refused += 1
    assert refused == 300 - 64
    pool.admit("2001:db8:0:1::", 0.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", ""])
def test_loopback_is_free_of_the_limits_per_address(host: str) -> None:
    pool = ConnectionPool(LIMITS)
    slots = [pool.admit(host, 0.0) for _ in range(300)]
    assert pool.admitted == 300
    for slot in slots:
        pool.release(slot)
    assert pool.admitted == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_loopback_is_not_exempt_when_told_so(host: str) -> None:
    pool = ConnectionPool(UNRATED.replace(loopback_is_exempt=False))
    for _ in range(128):
        pool.admit(host, 0.0)
    assert refusal(pool, host)[0] == 429


def test_limits_per_address_can_be_switched_off() -> None:
    pool = ConnectionPool(UNRATED.replace(max_connections_per_ip=None))
    for _ in range(1_000):
        pool.admit("192.0.2.1", 0.0)
    assert pool.admitted == 1_000


# --- slots ------------------------------------------------------------------------------------


def test_a_slot_is_freed_exactly_once() -> None:
    pool = ConnectionPool(UNRATED)
    kept = pool.admit("192.0.2.1", 0.0)
    slot = pool.admit("192.0.2.1", 0.0)
    assert pool.release(slot)
    assert not pool.release(slot)
    assert pool.admitted == 1
    assert pool.release(kept)
    assert pool.admitted == 0


def test_a_connection_is_removed_exactly_once_by_either_way() -> None:
    pool = ConnectionPool(UNRATED)
    connection = FakeConnection()
    assert not pool.remove(connection)
    slot = pool.admit("192.0.2.1", 0.0)
    pool.add(connection, slot)
    assert pool.remove(connection)
    assert not pool.remove(connection)
    assert not pool.release(slot)
    assert (pool.admitted, len(pool)) == (0, 0)

    slot = pool.admit("192.0.2.1", 0.0)
    pool.add(connection, slot)
    assert pool.release(slot)
    assert not pool.remove(connection)
    assert (pool.admitted, len(pool)) == (0, 0)


def test_the_counters_are_exact_after_mixed_ends() -> None:
    random_source = random.Random(39)
    limits = LIMITS.replace(max_connections=200, max_connections_per_ip=22)
    pool = ConnectionPool(limits.replace(handshakes_per_minute=None))
    hosts = [f"192.0.2.{number}" for number in range(8)] + ["::1", "2001:db8::5"]
    held: list[tuple[str, Slot, FakeConnection | None]] = []
    refused: Counter[int] = Counter()
    for _ in range(5_000):
        per_host = Counter(host for host, _, _ in held)
        if random_source.random() < 0.55:
            host = random_source.choice(hosts)
            is_greedy = host != "::1" and per_host[host] == 22
            expected = 503 if len(held) == 200 else 429 if is_greedy else None
            status = None
            try:
                held.append((host, pool.admit(host, 0.0), None))
            except ConnectionLimit as error:
                status = error.status
                refused[status] += 1
            assert status == expected
        elif held:
            position = random_source.randrange(len(held))
            host, slot, connection = held.pop(position)
            if connection is not None:
                pool.remove(connection)
            elif random_source.random() < 0.5:
                pool.release(slot)
            else:
                connection = FakeConnection()
                pool.add(connection, slot)
                held.append((host, slot, connection))
        assert pool.admitted == len(held)
        assert len(pool) == sum(connection is not None for _, _, connection in held)
    assert min(refused[429], refused[503]) > 10


# --- lookups ----------------------------------------------------------------------------------


def test_connections_are_found_by_what_they_are() -> None:
    pool = ConnectionPool(UNRATED)
    ann = opened(pool, "ann", "192.0.2.1")
    ann_again = opened(pool, "ann", "192.0.2.2")
    bob = opened(pool, "bob", "::ffff:192.0.2.1")
    anonymous = opened(pool, None, "192.0.2.3")
    without_session = FakeConnection()
    pool.add(without_session, pool.admit("192.0.2.3", 0.0))

    assert pool.get(ann.id) is ann
    assert pool.get(anonymous.id) is anonymous
    assert pool.get(0) is None
    assert pool.by_user("ann") == [ann, ann_again]
    assert pool.by_user("bob") == [bob]
    assert pool.by_user("nobody") == []
    assert pool.by_address("192.0.2.1") == [ann, bob]
    assert pool.by_address("192.0.2.3") == [anonymous, without_session]
    assert pool.by_address("192.0.2.9") == []
    assert pool.connections() == [ann, ann_again, bob, anonymous, without_session]

    pool.remove(ann)
    assert pool.get(ann.id) is None
    assert pool.by_user("ann") == [ann_again]
    assert pool.by_address("192.0.2.1") == [bob]
    pool.remove(ann_again)
    assert pool.by_user("ann") == []


def test_a_connection_is_forgotten_under_the_user_it_was_added_with() -> None:
    pool = ConnectionPool(UNRATED)
    connection = opened(pool, "ann")
    assert connection.session is not None
    connection.session.user_id = "bob"
    pool.remove(connection)
    assert pool.by_user("ann") == []


def test_an_opening_handshake_is_admitted_but_not_open() -> None:
    pool = ConnectionPool(UNRATED)
    slot = pool.admit("192.0.2.1", 0.0)
    assert slot.address_key == "192.0.2.1"
    assert (pool.admitted, len(pool), pool.connections()) == (1, 0, [])


def test_members_may_join_and_leave_inside_a_broadcast() -> None:
    pool = ConnectionPool(UNRATED)
    members = [opened(pool) for _ in range(6)]
    visited: list[ManagedConnection] = []
    for connection in pool:
        visited.append(connection)
        if connection is members[1]:
            pool.remove(members[0])
            pool.remove(members[4])
            pool.remove(connection)
            opened(pool)
    throughout = [members[2], members[3], members[5]]
    assert [visited.count(member) for member in throughout] == [1, 1, 1]
    assert len(visited) == 6
    assert len(pool) == 4
