"""H86, H87 and H116: peers that read slowly or send fast, and what the policies make of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from reactions import our_socket
from support import Peer, Recorder, close_events

from hostile.arena import Arena
from websocket import Cause, Excess, Limits, Opcode, SlowConsumer, State

Besiege = Callable[..., Arena]

KIB = 1024
SOFT, HARD = 4 * KIB, 20 * KIB
LIMITS = Limits(write_soft_mark=SOFT, write_hard_mark=HARD, control_rate=None)
TEXT = 1_000


def numbered(number: int) -> str:
    return f"{number:04}".ljust(TEXT, ".")


def numbers(frames: list[tuple[int, Any]]) -> list[int]:
    """Return which messages came."""
    return [int(text[:4]) for opcode, text in frames if opcode == Opcode.TEXT]


def slow_consumer(arena: Arena) -> Any:
    """Return an offender with a window of 1,000 bytes."""
    offender = arena.offender()
    offender.peer.sock.capacity = 1_000
    return offender


def read_on(arena: Arena, peer: Peer) -> list[tuple[int, Any]]:
    """Read everything that comes, without time going by."""
    frames: list[tuple[int, Any]] = []
    while True:
        arena.stage.settle()
        if not peer.sock.inbox:
            return frames
        frames += peer.receive()


def besieged(hostile: Besiege, policy: SlowConsumer, **options: Any) -> Arena:
    return hostile(limits=LIMITS.replace(slow_consumer=policy), **options)


@pytest.mark.parametrize("policy", SlowConsumer)
@pytest.mark.parametrize("is_shared", [False, True], ids=["sent", "broadcast"])
def test_h86_whoever_does_not_read_costs_no_more_than_the_hard_mark(
    hostile: Besiege, policy: SlowConsumer, is_shared: bool
) -> None:
    arena = besieged(hostile, policy)
    offender = slow_consumer(arena)
    connection = offender.connection
    for number in range(200):
        if is_shared:
            arena.server.broadcast(numbered(number), [connection])
        else:
            connection.send(numbered(number))
        if number % 50 == 0:
            arena.check_healthy()
        assert connection.buffered <= HARD + 2 * TEXT
    statistics = arena.server.statistics()
    frames = read_on(arena, offender.peer)
    if policy is SlowConsumer.CLOSE:
        assert frames[-1] == (Opcode.CLOSE, b"\x03\xf0too slow a consumer")
        assert numbers(frames) == list(range(len(frames) - 1))
        offender.leave()
        assert close_events(connection)[0] is Cause.SLOW_CONSUMER
        assert statistics.messages_dropped == 0
        return
    come = numbers(frames)
    assert come == sorted(come)
    if policy is SlowConsumer.DROP_OLDEST:
        assert come[-10:] == list(range(190, 200))
    elif policy is SlowConsumer.LATEST:
        # Without a key: of all that had to wait, one.
        assert come[-2:] == [len(come) - 2, 199]
    else:
        assert come == list(range(len(come)))
    is_told = policy is SlowConsumer.BLOCK and not is_shared
    dropped = 0 if is_told else 200 - len(come)
    assert statistics.messages_dropped == dropped == connection.messages_dropped
    ends = [event for event in connection.events if event[0] in ("drop", "writable")]
    drops = [event[1] for event in ends if event[0] == "drop"]
    assert sum(drops) == dropped
    assert ends[-1] == ("writable",)
    assert connection.is_open
    assert connection.send("at once")
    assert read_on(arena, offender.peer)[-1] == (Opcode.TEXT, "at once")
    offender.peer.close()
    offender.leave()
    arena.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)


def test_h86_a_producer_that_is_told_loses_nothing(hostile: Besiege) -> None:
    class Producer(Recorder):
        __slots__ = ()

        slow_consumer = "block"

        def on_message(self, message: str | bytes) -> None:
            self.produce()

        def on_writable(self) -> None:
            self.produce()

        def produce(self) -> None:
            while self.is_open and len(produced) < 300 and self.send(numbered(len(produced))):
                produced.append(len(produced))

    produced: list[int] = []
    arena = hostile(Producer, limits=LIMITS)
    peer = arena.stage.open_client(arena.server, "203.0.113.9")
    peer.sock.capacity = 3_000
    peer.send("go")
    assert numbers(read_on(arena, peer)) == list(range(300)) == produced
    assert arena.server.statistics().messages_dropped == 0
    peer.close()
    peer.sock.end()
    arena.stage.settle()


def test_h86_of_each_key_the_latest_comes_and_other_messages_all_do(hostile: Besiege) -> None:
    arena = hostile(limits=LIMITS)
    offender = slow_consumer(arena)
    connection = offender.connection
    while not connection.is_congested:
        connection.send(numbered(0))
    before = arena.server.manager.counters.messages_out
    for number in range(1, 1_000):
        assert connection.send_latest(f"{number % 5}: {number}", number % 5)
        if number % 333 == 0:
            assert connection.send(f"event {number}")
    assert arena.server.manager.counters.messages_out == before
    arena.check_healthy()
    frames = [text for _, text in read_on(arena, offender.peer) if not text.startswith("0000")]
    assert frames == [
        *(f"{number % 5}: {number}" for number in (996, 997, 998, 999, 995)),
        "event 333",
        "event 666",
        "event 999",
    ]
    assert arena.server.statistics().messages_dropped == 994
    arena.expect_open(offender, [])


def test_h86_others_get_a_broadcast_on_time_whatever_the_slow_ones_miss(hostile: Besiege) -> None:
    arena = hostile(limits=LIMITS)
    slow = [slow_consumer(arena) for _ in range(5)]
    quick = arena.offender()
    for number in range(100):
        arena.server.broadcast(numbered(number), policy="drop_oldest")
        arena.stage.settle()
        assert numbers(quick.peer.receive()) == [number]
        arena.healthy.receive()
        arena.check_healthy()
    for offender in slow:
        assert numbers(read_on(arena, offender.peer))[-10:] == list(range(90, 100))
    for offender in [*slow, quick]:
        assert offender.connection.is_open
        offender.peer.close()
        offender.leave()
    arena.check()


@pytest.mark.parametrize("compression", [False, True])
def test_h86_a_close_follows_what_waits(hostile: Besiege, compression: bool) -> None:
    arena = besieged(hostile, SlowConsumer.DROP_OLDEST, compression=compression)
    offender = slow_consumer(arena)
    for number in range(15):
        offender.connection.send(numbered(number))
    offender.connection.close(1000, "enough")
    assert offender.connection.send("no more") is False
    frames = read_on(arena, offender.peer)
    assert numbers(frames) == list(range(15))
    assert frames[-1] == (Opcode.CLOSE, b"\x03\xe8enough")
    offender.peer.close()
    offender.leave()
    arena.expect_over(offender, Cause.CLOSED_BY_US, 1000)


def test_h86_what_waits_is_let_go_when_the_peer_closes_or_is_gone(hostile: Besiege) -> None:
    arena = besieged(hostile, SlowConsumer.DROP_OLDEST)
    for is_reset in (False, True):
        offender = slow_consumer(arena)
        for number in range(15):
            offender.connection.send(numbered(number))
        assert len(offender.connection._backlog) > 5
        if is_reset:
            offender.peer.sock.reset()
            arena.stage.settle()
            assert close_events(offender.connection)[0] is Cause.PEER_RESET
            continue
        offender.peer.close()
        arena.stage.settle()
        frames = read_on(arena, offender.peer)
        assert len(numbers(frames)) < 8
        assert frames[-1] == (Opcode.CLOSE, b"\x03\xe8")
        offender.leave()
        arena.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)


def test_h86_control_frames_pass_by_what_waits(hostile: Besiege) -> None:
    arena = besieged(hostile, SlowConsumer.DROP_OLDEST)
    offender = slow_consumer(arena)
    for number in range(15):
        offender.connection.send(numbered(number))
    for number in range(50):
        offender.peer.send_frame(Opcode.PING, b"%d" % number)
    arena.stage.settle()
    offender.connection.ping(b"ours")
    frames = read_on(arena, offender.peer)
    assert numbers(frames) == list(range(15))
    assert [frame for frame in frames if frame[0] == Opcode.PONG] == [(Opcode.PONG, b"49")]
    # Before the messages that were still in the backlog.
    assert frames.index((Opcode.PING, b"ours")) < 10
    assert frames.index((Opcode.PONG, b"49")) < 12
    arena.expect_open(offender, [])


@pytest.mark.parametrize("policy", [SlowConsumer.CLOSE, SlowConsumer.DROP_OLDEST])
def test_h87_a_byte_a_second_is_no_progress(hostile: Besiege, policy: SlowConsumer) -> None:
    arena = besieged(hostile, policy)
    offender = arena.offender()
    offender.peer.sock.rate = 1
    offender.peer.sock.capacity = 100
    began = arena.stage.clock.now
    for number in range(10):
        offender.connection.send(numbered(number))
    while offender.connection.state is not State.CLOSED:
        offender.peer.send_frame(Opcode.PONG)
        arena.pass_time(1)
        offender.peer.sock.take()
        assert arena.stage.clock.now < began + 60
    assert 30 <= arena.stage.clock.now - began <= 31.5
    assert close_events(offender.connection)[0] is Cause.SLOW_CONSUMER
    arena.expect_over(offender, Cause.SLOW_CONSUMER, 1008)
    # What was queued for it is not kept by the system either.
    assert our_socket(offender.peer).calls.get("setsockopt")


# --- those who send fast ------------------------------------------------------------------------


def rated(hostile: Besiege, excess: Excess) -> Any:
    limits = Limits(message_rate=4.0, message_burst=8, message_excess=excess, turn_frames=3)
    arena = hostile(limits=limits)
    return arena, arena.offender()


def send_numbers(arena: Arena, offender: Any, numbers: range) -> None:
    for number in numbers:
        offender.peer.send(str(number))
    arena.stage.settle()


@pytest.mark.parametrize("excess", Excess)
def test_h116_the_burst_passes_and_one_more_does_not(hostile: Besiege, excess: Excess) -> None:
    arena, offender = rated(hostile, excess)
    send_numbers(arena, offender, range(8))
    assert offender.messages == list(map(str, range(8)))
    if excess is not Excess.CLOSE:
        arena.check_healthy()
    else:
        send_numbers(arena, offender, range(8, 9))
        arena.expect_fail(offender, 1008, Cause.RATE_LIMITED, messages=offender.messages)
        return
    send_numbers(arena, offender, range(8, 9))
    assert len(offender.messages) == 8
    assert arena.server.statistics().messages_ignored == (excess is Excess.DROP)
    arena.pass_time(0.26)
    assert len(offender.messages) == 8 + (excess is Excess.DELAY)
    arena.expect_open(offender, offender.messages)


def test_h116_exactly_on_refill_one_passes(hostile: Besiege) -> None:
    arena, offender = rated(hostile, Excess.CLOSE)
    send_numbers(arena, offender, range(8))
    for number in range(8, 30):
        arena.stage.pass_time(0.25)
        send_numbers(arena, offender, range(number, number + 1))
    assert len(offender.messages) == 30
    arena.expect_open(offender, offender.messages)


def test_h116_delayed_messages_come_all_in_order_and_at_the_rate(hostile: Besiege) -> None:
    arena, offender = rated(hostile, Excess.DELAY)
    send_numbers(arena, offender, range(40))
    offender.peer.close()
    arena.stage.settle()
    for seconds in range(8):
        assert len(offender.messages) == 8 + 4 * seconds
        # What is not handled is not read: the peer has to wait.
        send_numbers(arena, offender, range(0))
        arena.stage.pass_time(1)
        arena.healthy.receive()
    arena.stage.pass_time(0.1)
    assert offender.messages == list(map(str, range(40)))
    offender.leave()
    arena.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)


@pytest.mark.parametrize("end", ["close", "abort", "leave"])
def test_h116_an_end_ends_the_delay(hostile: Besiege, end: str) -> None:
    arena, offender = rated(hostile, Excess.DELAY)
    send_numbers(arena, offender, range(20))
    if end == "abort":
        offender.connection.abort()
    elif end == "close":
        offender.connection.close()
        offender.peer.close()
    else:
        # It is not noticed before what came before it is handled.
        offender.peer.sock.end()
        arena.pass_time(3.5)
    arena.pass_time(0.1)
    offender.leave()
    assert len(offender.messages) == (20 if end == "leave" else 8)
    causes = {"abort": Cause.ABORTED, "close": Cause.CLOSED_BY_US, "leave": Cause.PEER_EOF}
    arena.expect_over(offender, causes[end], 1000 if end == "close" else 1006)


def test_h116_what_waited_for_a_pause_of_ours_is_no_burst(hostile: Besiege) -> None:
    """A legal peer at its full rate, whom we did not read from for a minute."""
    arena, offender = rated(hostile, Excess.CLOSE)
    send_numbers(arena, offender, range(8))
    offender.connection.pause()
    for number in range(8, 248):
        offender.peer.send(str(number))
        arena.pass_time(0.25)
        if number % 40 == 0:
            arena.check_healthy()
    offender.connection.resume()
    arena.stage.settle()
    assert len(offender.messages) == 248
    # Not many more than that: the healthy client took a tenth of a second each time.
    send_numbers(arena, offender, range(248, 252))
    assert len(offender.messages) == 250
    arena.expect_fail(offender, 1008, Cause.RATE_LIMITED, messages=offender.messages)


def test_h116_what_waited_while_the_loop_was_held_is_no_burst(
    hostile: Besiege, logged: list[logging.LogRecord]
) -> None:
    arena, offender = rated(hostile, Excess.CLOSE)
    send_numbers(arena, offender, range(8))

    def hold() -> None:
        arena.stage.clock.now += 60
        for number in range(8, 248):
            offender.peer.send(str(number))

    arena.stage.reactor.call_soon(hold)
    arena.stage.settle()
    assert len(offender.messages) == 248
    assert [record.getMessage()[:24] for record in logged] == ["the loop was held for 60"]
    arena.expect_open(offender, offender.messages)
