"""H88 to H92, H99: who is alive, as judged by a loop that stalls, sleeps, or is interrupted.

In virtual time, on the public kit. The arithmetic of deadlines is in ``test_deadlines.py``, the
measures of lag in ``test_lag.py``, the wheel in ``test_wheel.py``, signals in ``test_signals.py``.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

import pytest

from reactor.testing import MemoryNetwork
from websocket import Cause, Connection, Frame, FrameWriter, Limits, Opcode
from websocket.testing import Peer, Recorder, VirtualServer, upgrade_request

KIB = 1024
TICK = 0.01
LIMITS = Limits(loopback_is_exempt=True)
# Clients that never ping: what they send is what the test makes them send.
QUIET = LIMITS.replace(ping_interval=None)


class Holder(Recorder):
    """Hold the loop for as many seconds as a message says."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        super().on_message(message)
        self.reactor._clock.now += float(message)  # type: ignore[attr-defined]  # a VirtualClock


def speak(server: VirtualServer) -> Peer:
    """Return an open client that does nothing by itself, not even answer a ping."""
    peer = server.stranger()
    peer.sock.feed(upgrade_request())
    server.settle()
    assert peer.read_head().startswith("HTTP/1.1 101 ")
    return peer


def pings(peer: Peer) -> list[bytes]:
    return [payload for opcode, payload in peer.receive() if opcode == Opcode.PING]


def answer(peer: Peer) -> None:
    for payload in pings(peer):
        peer.send_frame(Opcode.PONG, payload)


def causes(server: VirtualServer) -> dict[Cause, int]:
    statistics = server.server.statistics()
    return {cause: count for cause, count in statistics.closed_by_cause.items() if count}


# --- H88: half-open -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_traffic", [False, True], ids=["idle", "sent to"])
def test_h88_a_pulled_cable_is_noticed_to_the_tick(is_traffic: bool) -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect(limits=QUIET)
        (connection,) = server.connections
        if is_traffic:
            server.reactor.call_later(15, connection.send, "what nobody gets")
        client.socket.cut()
        server.pass_time(40 - TICK)
        assert connection.is_open
        server.pass_time(3 * TICK)
        assert connection.cause is Cause.PING_TIMEOUT
        assert causes(server) == {Cause.PING_TIMEOUT: 1}


def test_h88_a_stopped_peer_that_goes_on_in_time_is_not_cut() -> None:
    with VirtualServer(Recorder) as server:
        peer = speak(server)
        for _ in range(5):
            server.pass_time(39)
            answer(peer)
            server.settle()
        assert len(server.connections) == 1


# --- H89: any byte, and our own queue -----------------------------------------------------------


def test_h89_a_message_that_takes_eight_minutes_to_arrive() -> None:
    """Silence is not its trouble; its own deadline is switched off here."""
    limits = Limits(max_message_size=8 * 1024 * KIB, message_timeout=None)
    with VirtualServer(Recorder, limits=limits) as server:
        peer = speak(server)
        (connection,) = server.connections
        assert isinstance(connection, Recorder)
        message = bytes(5 * 1024 * KIB)
        wire = FrameWriter(masks=True).encode_frame(Frame(Opcode.BINARY, message))
        for start in range(0, len(wire), 10 * KIB):
            peer.send_bytes(wire[start : start + 10 * KIB])
            server.pass_time(1)
        assert connection.messages == [message]
        assert pings(peer) == []


@pytest.mark.parametrize("reads_again_after", [1, 10, 25])
def test_h89_the_time_for_the_answer_begins_when_the_ping_has_left(reads_again_after: int) -> None:
    with VirtualServer(Recorder) as server:
        peer = speak(server)
        (connection,) = server.connections
        server.pass_time(10)
        # Below the soft mark, so that only the ping behind it is late.
        peer.sock.capacity = 0
        connection.send(bytes(32 * KIB))
        server.pass_time(10 + TICK)  # the ping is written
        assert connection.last_ping is not None
        server.pass_time(reads_again_after)
        peer.sock.capacity = 10**6
        server.settle()
        left_at = server.clock.now
        assert connection.last_ping == left_at
        server.pass_time(20 - TICK)
        assert connection.is_open
        (payload,) = pings(peer)
        peer.send_frame(Opcode.PONG, payload)
        server.pass_time(2 * TICK)
        assert connection.is_open
        assert connection.latency == pytest.approx(20, abs=0.1)


def deafen(server: VirtualServer) -> tuple[Connection, Peer]:
    """Return a connection that has something to send, and its peer, which reads nothing."""
    peer = speak(server)
    (connection,) = server.connections
    peer.sock.capacity = 0
    connection.send(bytes(KIB))
    return connection, peer


def test_h89_a_ping_that_has_left_and_is_not_answered_is_judged_as_ever() -> None:
    with VirtualServer(Recorder) as server:
        connection, peer = deafen(server)
        server.pass_time(30)
        peer.sock.capacity = 10**6
        server.settle()
        server.pass_time(20 - TICK)
        assert connection.is_open
        server.pass_time(3 * TICK)
        assert connection.cause is Cause.PING_TIMEOUT


def test_h89_a_ping_that_cannot_leave_is_not_waited_for_without_end() -> None:
    with VirtualServer(Recorder) as server:
        connection, _ = deafen(server)
        server.pass_time(20 + 30 - TICK)
        assert connection.is_open
        server.pass_time(3 * TICK)
        assert connection.cause is Cause.SLOW_CONSUMER


def test_h89_a_peer_that_talks_while_the_ping_waits_is_not_judged_by_it() -> None:
    with VirtualServer(Recorder) as server:
        connection, peer = deafen(server)
        server.pass_time(25)
        peer.send("I am here")
        server.settle()
        peer.sock.capacity = 10**6
        server.settle()
        assert len(pings(peer)) == 1
        server.pass_time(20 - TICK)  # after which the next silence is asked about
        assert pings(peer) == []
        server.pass_time(3 * TICK)
        assert len(pings(peer)) == 1
        assert connection.is_open


# --- H90: a loop that is held -------------------------------------------------------------------


def test_h90_a_handler_that_blocks_for_a_minute_costs_none_of_a_thousand(
    logged: list[logging.LogRecord],
) -> None:
    with VirtualServer(Holder) as server:
        peers = [speak(server) for _ in range(1000)]
        server.pass_time(19.5)
        peers[0].send("60")
        server.reactor.run_once(0)
        # Their answers and words have come meanwhile, or are still under way.
        for peer in peers[1:500]:
            answer(peer)
        server.settle()
        for _ in range(4):
            server.pass_time(5)
            for peer in peers:
                answer(peer)
            server.settle()
        assert len(server.connections) == 1000
        assert causes(server) == {}
        (line,) = logged
        assert line.levelno == logging.WARNING
        assert "held for 60.0 s" in line.getMessage()
        assert "<Holder " in line.getMessage()
        lag = server.server.statistics().lag
        assert lag is not None
        assert lag.holds == {0.01: 0, 0.1: 0, 1.0: 0, 10.0: 1}
        assert lag.longest_hold == 60
        assert (lag.stalls, lag.lost) == (1, 60)


def test_h90_those_who_were_asked_before_the_stall_get_the_rest_of_their_time(
    logged: list[logging.LogRecord],
) -> None:
    with VirtualServer(Holder) as server:
        speak(server)
        holder = speak(server)
        connection, _ = server.connections
        server.pass_time(20 + TICK)
        answer(holder)
        server.pass_time(15)  # five seconds are left
        holder.send("19")
        server.settle()
        server.pass_time(4.9)
        assert connection.is_open
        server.pass_time(0.2)
        assert connection.cause is Cause.PING_TIMEOUT
        assert len(logged) == 1


@pytest.mark.parametrize(
    ("begin", "left", "cause"),
    [
        (lambda connection, peer: connection.close(), 5.0, Cause.CLOSE_TIMEOUT),
        (lambda connection, peer: peer.send_bytes(b"\x01\x81mask"), 60.0, Cause.MESSAGE_TIMEOUT),
    ],
    ids=["closing", "fragmented"],
)
def test_h90_other_deadlines_are_put_off_as_well(
    begin: Callable[[Connection, Peer], object],
    left: float,
    cause: Cause,
    logged: list[logging.LogRecord],
) -> None:
    with VirtualServer(Holder, limits=QUIET.replace(linger_timeout=1e-3)) as server:
        peer, holder = speak(server), speak(server)
        connection, _ = server.connections
        begin(connection, peer)
        server.settle()
        holder.send("100")
        server.settle()
        server.pass_time(left - 0.1)
        assert connection in server.connections or connection.cause is None
        server.pass_time(0.3)
        assert connection.cause is cause
        assert connection not in server.connections
        assert len(logged) == 1


def test_h90_a_handshake_is_not_over_because_the_loop_was_held(
    logged: list[logging.LogRecord],
) -> None:
    with VirtualServer(Holder) as server:
        holder, newcomer = speak(server), server.stranger()
        server.pass_time(4)
        holder.send("30")
        server.settle()
        server.pass_time(5.9)
        newcomer.sock.feed(upgrade_request())
        server.settle()
        assert newcomer.read_head().startswith("HTTP/1.1 101 ")
        silent = server.stranger()
        server.pass_time(10 + TICK)
        assert silent.sock.take().startswith(b"HTTP/1.1 408 ")
        assert len(logged) == 1


# --- H91: jumps ---------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-1, 1])
def test_h91_the_wall_clock_touches_nothing(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    with VirtualServer(Recorder) as server:
        client = server.connect()
        monkeypatch.setattr(time, "time", lambda: wall() + days * 86_400)
        server.pass_time(120)
        (connection,) = server.connections
        connection.send("still here")
        assert client.receive() == "still here"
        assert causes(server) == {}


@pytest.mark.parametrize("asked_before", [False, True], ids=["silent", "asked already"])
def test_h91_after_a_sleep_pings_go_out_first(asked_before: bool) -> None:
    with VirtualServer(Recorder) as server:
        peers = [speak(server) for _ in range(200)]
        server.pass_time(20 + TICK if asked_before else 15)
        for peer in peers:
            assert len(pings(peer)) == asked_before
        server.clock.now += 3 * 3600
        server.settle()
        assert len(server.connections) == 200
        for peer in peers[:100]:
            answer(peer)
        for peer in peers[100:]:
            assert len(pings(peer)) == 1
        server.pass_time(20 - TICK)
        assert len(server.connections) == 200
        server.pass_time(3 * TICK)
        assert causes(server) == {Cause.PING_TIMEOUT: 100}


# --- H92: many timers ---------------------------------------------------------------------------


def test_h92_fifty_thousand_timers_in_one_slot_and_a_fifth_of_them_cancelled() -> None:
    source = random.Random(92)
    fired: list[tuple[float, float]] = []
    with MemoryNetwork().reactor() as reactor:

        def fire(due: float) -> None:
            fired.append((due, reactor.time))

        start = reactor.time
        dues = [start + delay for delay in (5.0, -1.0, 0.0, 30 * 86_400.0)]
        dues += [start + 5.0 + source.random() * TICK for _ in range(50_000)]
        timers = [reactor.call_at(due, fire, due) for due in dues]
        for timer in timers[4::5]:
            timer.cancel()
        kept = {id(timer): due for timer, due in zip(timers, dues) if timer.is_pending}
        reactor.pass_time(31 * 86_400)
        assert sorted(due for due, _ in fired) == sorted(kept.values())
        assert [due for due, _ in fired] == sorted(due for due, _ in fired)
        assert all(0 <= at - due <= 2 * TICK for due, at in fired if due > start)


# --- H99: interruptions -------------------------------------------------------------------------


def test_h99_a_wait_that_is_interrupted_again_and_again_loses_nothing() -> None:
    interrupted = 0

    def interrupt(name: str, fd: int) -> None:
        nonlocal interrupted
        if name == "select" and interrupted < 1000 and source.random() < 0.5:
            interrupted += 1
            raise InterruptedError

    source = random.Random(99)
    with VirtualServer(Recorder) as server:
        client = server.connect()
        (connection,) = server.connections
        assert isinstance(connection, Recorder)
        server.network.on_call = interrupt
        for number in range(100):
            client.send(str(number))
            server.pass_time(1)
        assert connection.messages == [str(number) for number in range(100)]
        assert interrupted > 50
        server.network.on_call = None
