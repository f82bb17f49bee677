"""Silence, pings and every other deadline of an open connection, in virtual time."""

from __future__ import annotations

import logging

import pytest
from reactions import assert_over, both_roles, encode, reacting
from support import Peer, Stage, close_events

from websocket import Cause, Frame, Limits
from websocket.opcodes import Opcode

QUIET = Limits(ping_interval=None)
TICK = 0.01


def opcodes(peer: Peer) -> list[int]:
    """Return what kinds of frames have arrived at a peer since."""
    return [opcode for opcode, _ in peer.receive()]


# --- keepalive ------------------------------------------------------------------------------


@both_roles
def test_a_silent_peer_is_pinged_and_then_cut(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    stage.pass_time(20 - TICK)
    assert peer.receive() == []
    stage.pass_time(2 * TICK)
    ((opcode, payload),) = peer.receive()
    assert (opcode, len(payload)) == (Opcode.PING, 8)
    assert connection.last_ping == pytest.approx(1020, abs=TICK)
    stage.pass_time(20 - 2 * TICK)
    assert connection.is_open
    stage.pass_time(3 * TICK)
    assert close_events(connection) == (
        Cause.PING_TIMEOUT,
        ("close", 1011, "no answer to a ping"),
    )
    assert peer.received_close() == (1011, "no answer to a ping")
    assert_over(stage, connection, peer)


def test_no_two_pings_are_alike(stage: Stage) -> None:
    # Pings come as often as is asked for, also when their answers may take longer than that.
    connection, peer = stage.connection(limits=Limits(ping_interval=1.0, ping_timeout=20.0))
    payloads = []
    for _ in range(20):
        stage.pass_time(1 + 2 * TICK)
        ((opcode, payload),) = peer.receive()
        assert opcode == Opcode.PING
        payloads.append(payload)
        peer.send_frame(Opcode.PONG, payload)
        stage.settle()
    assert connection.latency < 3 * TICK
    assert len(set(payloads)) == 20


@pytest.mark.parametrize("interval", [15, 30], ids=["within the interval", "after the ping"])
@pytest.mark.parametrize("kind", ["pong", "message", "part of a message", "wrong pong"])
@both_roles
def test_any_byte_proves_life(stage: Stage, is_client: bool, interval: int, kind: str) -> None:
    limits = Limits(message_timeout=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits)
    data = {
        "pong": encode(not is_client, Frame(Opcode.PONG, b"unsolicited")),
        "wrong pong": encode(not is_client, Frame(Opcode.PONG, b"12345678")),
        "message": encode(not is_client, "hello"),
        # The longest trickle of all: one byte at a time of one message.
        "part of a message": b"",
    }[kind]
    trickle = encode(not is_client, b"x" * 1000)
    for step in range(40):
        stage.pass_time(interval)
        assert opcodes(peer) == ([Opcode.PING] if interval > 20 else [])
        peer.send_bytes(data or trickle[step : step + 1])
        stage.settle()
    assert connection.is_open
    stage.pass_time(41)
    assert close_events(connection)[0] is Cause.PING_TIMEOUT


def test_without_a_ping_interval_silence_is_no_matter(stage: Stage) -> None:
    connection, _ = stage.connection(limits=QUIET)
    stage.pass_time(100_000)
    assert connection.is_open
    assert stage.reactor.next_timeout() is None


def test_without_a_ping_timeout_pings_go_out_and_nobody_is_cut(stage: Stage) -> None:
    connection, peer = stage.connection(limits=Limits(ping_timeout=None))
    stage.pass_time(1_000)
    assert connection.is_open
    assert opcodes(peer) == [Opcode.PING]


@pytest.mark.parametrize("seconds_before", [0, 19, 30])
def test_a_loop_that_stalled_cuts_nobody_whose_bytes_wait(
    stage: Stage, seconds_before: int, logged: list[logging.LogRecord]
) -> None:
    def stall(*_: object) -> None:
        stage.clock.now += 60

    slow, slow_peer = stage.connection(reacting(message=stall))
    others = [stage.connection() for _ in range(20)]
    everybody = [(slow, slow_peer), *others]
    stage.pass_time(seconds_before)
    for _ in range(3):
        slow_peer.send("hold the loop for a minute")
        stage.reactor.run_once(0)
        # Meanwhile, the peers go on as they use to.
        for connection, peer in everybody:
            for opcode, payload in peer.receive():
                if opcode == Opcode.PING:
                    peer.send_frame(Opcode.PONG, payload)
            peer.send_frame(Opcode.PING)
            assert connection.is_open
        stage.settle()
        assert all(connection.is_open for connection, _ in everybody)
    # The silence begins now, not a minute ago.
    for _, peer in everybody:
        peer.receive()
    stage.pass_time(19)
    assert all(peer.receive() == [] for _, peer in everybody)


def test_a_handler_that_is_slower_than_its_peer_does_not_make_the_peer_look_silent(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    # Reading rests while a burst is handled; the answers to pings wait in the kernel.
    def work(*_: object) -> None:
        stage.clock.now += 1

    connection, peer = stage.connection(reacting(message=work))
    peer.send_bytes(encode(True, "x") * 500 + encode(True, Frame(Opcode.TEXT, b"y", fin=False)))
    stage.reactor.run_once(0)
    peer.send_bytes(encode(True, Frame(Opcode.CONTINUATION, b"es")))
    stage.settle()
    assert connection.messages == ["x"] * 500 + ["yes"]
    assert connection.is_open
    stage.pass_time(41)
    assert close_events(connection)[0] is Cause.PING_TIMEOUT


# --- other deadlines ------------------------------------------------------------------------


@both_roles
def test_an_idle_connection_is_closed_whatever_its_pings_say(stage: Stage, is_client: bool) -> None:
    limits = Limits(idle_timeout=30.0, ping_interval=5.0)
    connection, peer = stage.connection(is_client=is_client, limits=limits)
    stage.pass_time(20)
    peer.send("a message")
    stage.pass_time(20)
    connection.send("another one")
    for _ in range(29):
        peer.send_frame(Opcode.PING)
        stage.pass_time(1)
    assert connection.is_open
    stage.pass_time(1 + TICK)
    assert peer.received_close() == (1001, "idle")
    peer.close(1001)
    peer.sock.end()
    stage.settle()
    assert close_events(connection) == (Cause.IDLE_TIMEOUT, ("close", 1001, "idle"))
    assert connection.is_clean
    assert_over(stage, connection, peer)


@both_roles
def test_a_message_must_be_complete_a_minute_after_its_first_fragment(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_frame(Opcode.TEXT, b"first", fin=False)
    for _ in range(59):
        stage.pass_time(1)
        peer.send_frame(Opcode.CONTINUATION, b".", fin=False)
        peer.send_frame(Opcode.PING)
    stage.pass_time(1 - TICK)
    assert connection.is_open
    stage.pass_time(2 * TICK)
    assert peer.received_close() == (1008, "message took too long")
    peer.sock.end()
    stage.settle()
    assert close_events(connection)[0] is Cause.MESSAGE_TIMEOUT
    assert_over(stage, connection, peer)


def test_each_message_has_a_minute_of_its_own(stage: Stage) -> None:
    connection, peer = stage.connection(limits=QUIET)
    peer.send_frame(Opcode.TEXT, b"1", fin=False)
    for number in range(2, 6):
        stage.pass_time(50)
        # One read brings the end of a message and the beginning of the next.
        peer.send_bytes(
            encode(
                True,
                Frame(Opcode.CONTINUATION, b"!"),
                Frame(Opcode.TEXT, b"%d" % number, fin=False),
            )
        )
    stage.pass_time(50)
    peer.send_frame(Opcode.CONTINUATION, b"!")
    stage.pass_time(15)
    assert connection.messages == ["1!", "2!", "3!", "4!", "5!"]
    assert connection.is_open


def test_a_frame_that_trickles_in_is_an_incomplete_message_too(stage: Stage) -> None:
    connection, peer = stage.connection()
    for byte in encode(True, "x" * 100)[:60]:
        peer.send_bytes(bytes([byte]))
        stage.pass_time(1)
    assert connection.is_open
    stage.pass_time(7)
    assert connection.cause is Cause.MESSAGE_TIMEOUT
