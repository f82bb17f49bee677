from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest
from fakeclock import FakeClock
from support import Peer, Stage

from websocket import Cause, Excess, Opcode, Server, SlowConsumer
from websocket.frame import build_close
from websocket.ledger import FORGIVEN, OVERHEAD, Ledger
from websocket.limits import Limits

KIB = 1024
MARK = 100 * KIB

# A pause is a warning.
pytestmark = pytest.mark.usefixtures("logged")


class FakeDebtor:
    """Stand in for a connection; what it owes is gone when it is shed."""

    def __init__(self, number: int, host: str = "203.0.113.7") -> None:
        self.id = number
        self.remote_address: Any = (host, 50_000)
        self.is_frozen = False
        self.is_shed = False
        self.on_shed: Callable[[], object] = lambda: None

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False

    def shed(self) -> None:
        self.is_shed = True
        self.on_shed()


class World:
    """A ledger, its clock and some debtors."""

    def __init__(self, debtors: int = 5, **limits: Any) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger(self.clock, Limits(**{"max_buffered": MARK, **limits}))
        self.debtors = [FakeDebtor(number) for number in range(debtors)]

    def owe(self, *sizes: int) -> None:
        """Have each debtor owe so much, the ledger's own overhead included."""
        for debtor, size in zip(self.debtors, sizes):
            self.ledger.settle(debtor, max(0, size - OVERHEAD))
        self.clock.advance(0)

    @property
    def frozen(self) -> list[int]:
        return [each.id for each in self.debtors if each.is_frozen]

    @property
    def shed(self) -> list[int]:
        return [each.id for each in self.debtors if each.is_shed]


def test_debts_are_added_up_and_paid() -> None:
    world = World()
    world.owe(10 * KIB, 20 * KIB)
    assert world.ledger.snapshot() == (30 * KIB, 30 * KIB, 2, 0, 0)
    world.owe(5 * KIB, 0)
    assert world.ledger.snapshot() == (5 * KIB, 30 * KIB, 1, 0, 0)
    world.ledger.forget(world.debtors[0])
    world.ledger.forget(world.debtors[0])
    assert world.ledger.snapshot() == (0, 30 * KIB, 0, 0, 0)
    assert world.ledger._by_address == {}


def test_next_to_nothing_is_no_debt() -> None:
    world = World()
    world.ledger.settle(world.debtors[0], FORGIVEN - 1)
    assert world.ledger.snapshot().debtors == 0
    world.ledger.settle(world.debtors[0], FORGIVEN)
    assert world.ledger.snapshot().debtors == 1
    world.ledger.settle(world.debtors[0], FORGIVEN - 1)
    assert world.ledger.snapshot()[0] == 0


def test_near_the_mark_debtors_are_not_read_from_until_there_is_room() -> None:
    world = World()
    world.owe(40 * KIB, 40 * KIB)
    assert world.frozen == []
    world.owe(40 * KIB + 1)
    assert world.frozen == [0, 1]
    # Whoever becomes one now is not read from either; whoever pays is.
    world.owe(20 * KIB, 50 * KIB, 5 * KIB)
    assert world.frozen == [0, 1, 2]
    world.owe(20 * KIB, 50 * KIB, 0)
    assert world.frozen == []
    world.owe(20 * KIB, 49 * KIB)
    assert world.frozen == []
    snapshot = world.ledger.snapshot()
    assert (snapshot.pauses, snapshot.closes) == (1, 0)
    assert world.clock.pending == 0


def test_between_the_two_marks_nothing_changes() -> None:
    world = World()
    world.owe(75 * KIB)
    assert world.frozen == []
    world.owe(81 * KIB)
    world.owe(75 * KIB)
    assert world.frozen == [0]
    world.owe(71 * KIB)
    assert world.frozen == [0]
    world.owe(70 * KIB)
    assert world.frozen == []


def test_above_the_mark_the_largest_are_closed_one_after_the_other() -> None:
    world = World()
    world.owe(10 * KIB, 30 * KIB, 20 * KIB, 25 * KIB, 40 * KIB)
    # 125 KiB less 40 are 85.
    assert world.shed == [4]
    assert world.ledger.snapshot()[0] == 85 * KIB
    assert world.frozen == [0, 1, 2, 3]
    assert world.ledger.snapshot().closes == 1


def test_nobody_is_closed_before_the_turn_is_over() -> None:
    world = World()
    for debtor in world.debtors:
        world.ledger.settle(debtor, 50 * KIB)
    assert (world.frozen, world.shed) == ([], [])
    assert world.clock.pending == 1
    world.ledger.settle(world.debtors[0], 0)
    world.ledger.settle(world.debtors[1], 0)
    world.ledger.settle(world.debtors[2], 0)
    world.ledger.settle(world.debtors[3], 0)
    world.clock.advance(0)
    assert (world.frozen, world.shed) == ([], [])


def test_a_pause_that_does_not_help_ends_by_closing_the_largest() -> None:
    world = World()
    world.owe(10 * KIB, 30 * KIB, 20 * KIB, 25 * KIB)
    assert world.frozen == [0, 1, 2, 3]
    world.clock.advance(4.9)
    assert world.shed == []
    world.clock.advance(0.2)
    assert world.shed == [1]
    assert world.frozen == []
    assert world.ledger.snapshot() == (55 * KIB, 85 * KIB, 3, 1, 1)
    assert world.clock.pending == 0


def test_the_end_of_one_may_be_the_end_of_others() -> None:
    world = World()
    world.debtors[0].on_shed = lambda: world.ledger.forget(world.debtors[1])
    world.owe(60 * KIB, 50 * KIB, 40 * KIB)
    assert world.shed == [0]
    assert world.ledger.snapshot()[0] == 40 * KIB


def test_one_connection_has_a_mark_of_its_own() -> None:
    world = World(max_buffered_per_connection=20 * KIB)
    world.owe(20 * KIB, 20 * KIB + 1, 30 * KIB)
    assert world.shed == [1, 2]
    assert world.ledger.snapshot()[0] == 20 * KIB


def test_the_connections_of_one_address_have_a_mark_together() -> None:
    world = World(max_buffered_per_ip=30 * KIB)
    world.debtors[2].remote_address = ("192.0.2.1", 50_000)
    world.debtors[3].remote_address = ("127.0.0.1", 50_000)
    world.owe(15 * KIB, 16 * KIB, 29 * KIB, 31 * KIB)
    assert world.shed == [1]
    strict = World(max_buffered_per_ip=30 * KIB, loopback_is_exempt=False)
    strict.debtors[0].remote_address = "/run/app.sock"
    strict.owe(31 * KIB)
    assert strict.shed == [0]


def test_without_marks_nothing_is_ever_done() -> None:
    world = World(max_buffered=None)
    world.owe(10**9, 10**9, 10**9)
    assert (world.frozen, world.shed) == ([], [])
    assert world.ledger.room("203.0.113.7") > 10**15
    assert world.clock.pending == 0


def test_what_is_kept_beside_connections_counts_and_has_only_the_room_that_is_left() -> None:
    world = World(max_buffered_per_ip=30 * KIB)
    assert world.ledger.room("192.0.2.1") == 30 * KIB
    world.ledger.add("192.0.2.1", 20 * KIB)
    assert world.ledger.room("192.0.2.1") == 10 * KIB
    world.owe(30 * KIB)
    world.ledger.add("192.0.2.2", 15 * KIB)
    assert world.ledger.room("192.0.2.1") == 5 * KIB
    world.ledger.add("192.0.2.2", 10 * KIB)
    assert world.ledger.room("192.0.2.1") == 0
    world.ledger.add("192.0.2.2", -25 * KIB)
    world.ledger.add("192.0.2.1", -20 * KIB)
    assert world.ledger._by_address == {"203.0.113.7": 30 * KIB}


@pytest.mark.parametrize("seed", range(20))
def test_the_marks_are_kept_and_the_books_balance_whatever_happens(seed: int) -> None:
    source = random.Random(seed)
    world = World(40, max_buffered_per_ip=60 * KIB)
    for debtor in world.debtors:
        debtor.remote_address = (f"192.0.2.{debtor.id % 4}", 50_000)
    for _ in range(500):
        debtor = source.choice(world.debtors)
        if not debtor.is_shed:
            world.ledger.settle(debtor, source.choice([0, 0, 2, 5, 10]) * KIB)
        world.clock.advance(source.choice([0, 0, 0.5]))
        accounts = world.ledger._accounts.values()
        assert world.ledger.snapshot().buffered == sum(each.size for each in accounts) <= MARK
        assert max(world.ledger._by_address.values(), default=0) <= 60 * KIB
        debtors = {each.debtor.id for each in accounts}
        assert set(world.frozen) - set(world.shed) in (set(), debtors)
    for debtor in world.debtors:
        world.ledger.forget(debtor)
    world.clock.advance(10)
    assert world.ledger.snapshot()[0] == 0
    assert world.ledger._by_address == {}
    assert world.clock.pending == 0


# --- the log ------------------------------------------------------------------------------------


def facts(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, dict[str, Any]]]:
    """Return the event, the level and the rest of what each record of ours says."""
    known = {*vars(logging.makeLogRecord({})), "message", "asctime", "event"}
    return [
        (
            vars(record)["event"],
            record.levelno,
            {name: value for name, value in vars(record).items() if name not in known},
        )
        for record in caplog.records
    ]


def test_each_pause_and_each_close_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "websocket")
    world = World()
    world.owe(10 * KIB, 30 * KIB, 20 * KIB, 25 * KIB)
    world.clock.advance(5)
    who = {"connection_id": 1, "remote_address": ("203.0.113.7", 50_000)}
    buffered = {"buffered": 85 * KIB, "debtors": 4}
    assert facts(caplog) == [
        ("reading_paused", logging.WARNING, {**buffered, "mark": MARK, "suppressed": 0}),
        (
            "debtor_closed",
            logging.INFO,
            {**buffered, **who, "size": 30 * KIB, "suppressed": 0},
        ),
        (
            "reading_resumed",
            logging.INFO,
            {"buffered": 55 * KIB, "duration": 5, "suppressed": 0},
        ),
    ]
    assert caplog.messages[0] == (
        "87040 bytes are kept for 4 peers, near max_buffered (102400): reading is paused"
    )


def test_a_flood_of_pauses_and_closes_is_summarised(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "websocket")
    world = World(60, max_buffered_per_connection=90 * KIB)
    for debtor in world.debtors[:50]:
        world.ledger.settle(debtor, 95 * KIB)
        world.clock.advance(0)
        world.ledger.settle(world.debtors[-1], 85 * KIB)
        world.clock.advance(0)
        world.ledger.settle(world.debtors[-1], 0)
        world.clock.advance(0)
    assert world.ledger.snapshot()[3:] == (50, 50)
    assert sorted(each[0] for each in facts(caplog)) == [
        "debtor_closed",
        "reading_paused",
        "reading_resumed",
    ]
    caplog.clear()
    world.clock.advance(5)
    world.owe(85 * KIB)
    (pause,) = facts(caplog)
    assert pause[2]["suppressed"] == 49
    assert caplog.messages[0].endswith(" (and 49 more of this kind before)")


# --- with a server ------------------------------------------------------------------------------


def connections(server: Server) -> list[Any]:
    return list(server.connections)


def buffered(server: Server) -> int:
    memory = server.statistics().memory
    assert memory is not None
    return memory.buffered


def begin(stage: Stage, peer: Peer, size: int) -> None:
    """Send so much of a message that does not end."""
    peer.send_frame(Opcode.BINARY, bytes(size), fin=False)
    stage.settle()


def test_each_thing_that_is_kept_for_a_peer_is_charged_and_paid() -> None:
    limits = Limits(
        ping_interval=None, slow_consumer=SlowConsumer.DROP_OLDEST, write_soft_mark=4 * KIB
    )
    with Stage() as stage:
        server = stage.server(limits=limits)
        peer = stage.open_client(server)
        connection = connections(server)[0]
        assert buffered(server) == 0
        # Fragments.
        begin(stage, peer, 10 * KIB)
        assert buffered(server) == 10 * KIB + OVERHEAD
        peer.send_frame(Opcode.CONTINUATION)
        stage.settle()
        assert buffered(server) == 0
        # A frame that has not come whole.
        wire = peer._writer.encode(0x82, bytes(20 * KIB))
        peer.send_bytes(wire[0][: 5 * KIB] if len(wire) == 1 else wire[0] + wire[1][: 5 * KIB])
        stage.settle()
        assert abs(buffered(server) - 5 * KIB - OVERHEAD) < 100
        peer.send_bytes(wire[0][5 * KIB :] if len(wire) == 1 else wire[1][5 * KIB :])
        stage.settle()
        assert buffered(server) == 0
        # Messages that the application does not handle.
        connection.pause()
        stage.settle()
        connection.resume()
        connection.pause()
        peer.send(bytes(3 * KIB))
        stage.settle()
        connection.resume()
        stage.settle()
        assert buffered(server) == 0
        # What is unsent, and what waits.
        peer.sock.capacity = 1000
        for _ in range(20):
            connection.send(bytes(KIB))
        stage.settle()
        assert buffered(server) == connection.buffered + OVERHEAD > 20 * KIB
        while peer.sock.inbox:
            peer.receive()
            stage.settle()
        assert buffered(server) == 0
        # What a session keeps for a client that is away.
        peer.sock.end()
        stage.settle()
        session = connection.session
        assert session.send(bytes(5 * KIB))
        assert 5 * KIB < buffered(server) < 6 * KIB
        server.manager.destroy_session(session)
        assert buffered(server) == 0
        assert server.manager.ledger._by_address == {}


def test_frames_that_are_held_are_charged() -> None:
    limits = Limits(
        ping_interval=None, message_rate=1.0, message_burst=1, message_excess=Excess.DELAY
    )
    with Stage() as stage:
        server = stage.server(limits=limits)
        peer = stage.open_client(server)
        connection = connections(server)[0]
        peer.send_bytes(b"".join(peer._writer.encode(0x82, bytes(KIB))[0] for _ in range(3)))
        stage.settle()
        assert len(connection.messages) == 1
        assert buffered(server) == 2 * (KIB + 128) + OVERHEAD
        stage.pass_time(2.1)
        assert len(connection.messages) == 3
        assert buffered(server) == 0


def test_the_largest_debtor_is_closed_and_lets_go_at_once() -> None:
    limits = Limits(max_buffered=500 * KIB, ping_interval=None, loopback_is_exempt=True)
    with Stage() as stage:
        server = stage.server(limits=limits)
        peers = [stage.open_client(server) for _ in range(4)]
        ends = connections(server)
        for peer, size in zip(peers, (100, 250, 120, 10)):
            begin(stage, peer, size * KIB)
        stage.pass_time(0.05)
        assert peers[1].sock.has_eof is False
        peers[3].send_frame(Opcode.CONTINUATION, bytes(KIB), fin=False)
        stage.settle()
        # They are paused: what they send stays with the system.
        assert not any(end._transport.is_reading() for end in ends)
        stage.pass_time(6)
        assert peers[1].received_close() == (1013, "out of memory")
        assert ends[1].cause is Cause.MEMORY
        assert [end.is_open for end in ends] == [True, False, True, True]
        assert all(end._transport.is_reading() for end in ends if end.is_open)
        for peer in (peers[0], peers[2]):
            peer.send_frame(Opcode.CONTINUATION)
        stage.settle()
        assert [len(end.messages) for end in ends] == [1, 0, 1, 0]
        assert buffered(server) > 10 * KIB
        for peer in peers:
            peer.send_frame(Opcode.CLOSE, build_close(1000))
            peer.sock.end()
        stage.pass_time(1)
        assert buffered(server) == 0
        memory = server.statistics().memory
        assert memory is not None
        assert (memory.pauses, memory.closes) == (1, 1)
        assert server.statistics().closed_by_cause[Cause.MEMORY] == 1


# --- several servers ----------------------------------------------------------------------------


def test_servers_that_share_a_ledger_are_judged_together() -> None:
    limits = Limits(max_buffered=500 * KIB, ping_interval=None)
    with Stage() as stage:
        ledger = Ledger(stage.reactor, limits)
        servers = [stage.server(limits=limits, ledger=ledger) for _ in range(2)]
        alone = stage.server(limits=limits)
        peers = [stage.open_client(server) for server in (*servers, servers[0], alone)]
        for peer, size in zip(peers, (200, 220, 60, 300)):
            begin(stage, peer, size * KIB)
        assert [buffered(server) // KIB for server in (*servers, alone)] == [481, 481, 300]
        ends = [connections(server)[0] for server in (*servers, alone)]
        assert [end._transport.is_reading() for end in ends] == [False, False, True]
        stage.pass_time(6)
        assert peers[1].received_close() == (1013, "out of memory")
        assert [end.is_open for end in ends] == [True, False, True]
        assert all(end._transport.is_reading() for end in ends if end.is_open)


def test_a_server_that_ends_leaves_nothing_in_a_shared_ledger() -> None:
    limits = Limits(ping_interval=None)
    with Stage() as stage:
        ledger = Ledger(stage.reactor, limits)
        first, second = (stage.server(limits=limits, ledger=ledger) for _ in range(2))
        peers = [stage.open_client(server) for server in (first, first, second)]
        away = connections(first)[0]
        peers[0].sock.end()
        stage.settle()
        assert away.session.send(bytes(20 * KIB))
        begin(stage, peers[1], 30 * KIB)
        begin(stage, peers[2], 40 * KIB)
        assert buffered(second) > 90 * KIB
        first.close()
        stage.settle()
        assert buffered(second) == 40 * KIB + OVERHEAD


def test_a_ledger_of_another_reactor_is_refused() -> None:
    with Stage() as stage, Stage() as other:
        with pytest.raises(ValueError, match="another reactor"):
            Server(lambda *_: None, reactor=stage.reactor, ledger=Ledger(other.reactor, Limits()))
        with pytest.raises(ValueError, match="another reactor"):
            Server(lambda *_: None, ledger=Ledger(stage.reactor, Limits()))
