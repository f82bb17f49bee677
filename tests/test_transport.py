"""Transports: every byte once and in order, every callback when it is due, every end once."""

from __future__ import annotations

import errno
import gc
import logging
import random
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streams
from streams import Echo, Witness, connected_pair, needs_unix_sockets
from support import MemorySocket, Stage, as_socket, run_until

from reactor import READ, WRITE, Listener, Protocol, Reactor, Transport, open_unix_socket
from reactor.transport import HIGH_WATERMARK

KIB = 1024
MIB = 1024 * 1024

RESET = OSError(errno.ECONNRESET, "connection reset by peer")


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


def start(
    stage: Stage, protocol: Protocol, capacity: int = 256 * KIB
) -> tuple[Transport, MemorySocket]:
    return stage.network.transport(stage.reactor, protocol, capacity=capacity)


def our_socket(theirs: MemorySocket) -> MemorySocket:
    assert theirs.peer is not None
    return theirs.peer


def drain(stage: Stage, theirs: MemorySocket) -> bytes:
    """Read at the test's end until nothing more comes."""
    data = bytearray()
    while True:
        stage.settle()
        part = theirs.take()
        if not part:
            return bytes(data)
        data += part


def read_to_the_end(sock: socket.socket) -> None:
    while sock.recv(MIB):
        pass


def raise_boom(*args: object) -> None:
    raise ValueError("boom")


# --- beginning -----------------------------------------------------------------------------------


def test_the_protocol_gets_the_transport_before_anything_else(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    assert witness.events == [("made", transport)]
    theirs.feed(b"x")
    stage.settle()
    assert witness.names == ["made", "data"]


def test_a_protocol_whose_connection_made_raises_loses_its_stream_only(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    other = Witness()
    _, other_end = start(stage, other)
    witness = Witness(made=raise_boom)
    transport, theirs = start(stage, witness)
    assert transport.is_closing()
    other_end.feed(b"x")
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ValueError)
    assert theirs.has_eof
    assert other.names == ["made", "data"]
    assert [record.exc_info is not None for record in logged] == [True]


def test_a_socket_that_cannot_be_watched_is_closed_and_the_caller_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "too many watches")

    ours, _ = stage.network.pair()
    witness = Witness()
    monkeypatch.setattr(stage.reactor._selector, "register", refuse)
    with pytest.raises(OSError, match="too many watches"):
        Transport(stage.reactor, as_socket(ours), witness).start()
    assert ours.is_closed
    assert witness.events == []


def test_its_picture_tells_state_peer_and_protocol(stage: Stage) -> None:
    transport, _ = start(stage, Protocol())
    assert repr(transport).startswith("<Transport open to ('203.0.113.7', 50000) for <")
    transport.close()
    assert repr(transport).startswith("<Transport closing to ")


# --- asking --------------------------------------------------------------------------------------


def test_get_extra_info_knows_socket_and_both_addresses(stage: Stage) -> None:
    transport, theirs = start(stage, Protocol())
    assert transport.get_extra_info("socket") is theirs.peer
    assert transport.get_extra_info("peername") == ("203.0.113.7", 50_000)
    assert transport.get_extra_info("sockname") == ("127.0.0.1", 80)


def test_get_extra_info_gives_the_default_for_what_it_does_not_know(stage: Stage) -> None:
    ours, _ = stage.network.pair()
    transport = Transport(stage.reactor, as_socket(ours), Protocol())
    transport.start()
    assert transport.get_extra_info("cipher") is None
    assert transport.get_extra_info("cipher", "none") == "none"
    assert transport.get_extra_info("peername", "unknown") == "unknown"


def test_get_extra_info_gives_the_default_for_the_address_of_a_closed_socket(stage: Stage) -> None:
    transport, _ = start(stage, Protocol())
    transport.abort()
    assert transport.get_extra_info("sockname", "gone") == "gone"


def test_set_protocol_hands_the_stream_over(stage: Stage) -> None:
    first, second = Witness(), Witness()
    transport, theirs = start(stage, first)
    assert transport.get_protocol() is first
    theirs.feed(b"one")
    stage.settle()
    transport.set_protocol(second)
    assert transport.get_protocol() is second
    theirs.feed(b"two")
    theirs.end()
    stage.settle()
    assert first.names == ["made", "data"]
    assert second.events == [("data", b"two"), ("eof",), ("lost", None)]


# --- reading -------------------------------------------------------------------------------------


def test_what_the_peer_sends_arrives_once_and_in_order(stage: Stage) -> None:
    witness = Witness()
    _, theirs = start(stage, witness)
    data = random.Random(1).randbytes(MIB)
    theirs.feed(data)
    stage.settle()
    assert witness.received == data


def test_one_event_is_one_receive(stage: Stage) -> None:
    witness = Witness()
    _, theirs = start(stage, witness)
    theirs.feed(bytes(MIB))
    stage.reactor.run_once(0)
    assert our_socket(theirs).calls["recv_into"] == 1
    assert len(witness.received) == len(stage.reactor.receive_buffer)


def test_a_view_that_is_kept_is_dead_and_never_shows_other_bytes(stage: Stage) -> None:
    kept: list[memoryview] = []
    _, theirs = start(stage, Witness(data=kept.append))
    theirs.feed(b"secret")
    stage.settle()
    with pytest.raises(ValueError, match="released"):
        bytes(kept[0])


def test_a_view_that_is_kept_is_dead_even_when_the_protocol_raised(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    kept: list[memoryview] = []

    def keep_and_raise(data: memoryview) -> None:
        kept.append(data)
        raise_boom()

    _, theirs = start(stage, Witness(data=keep_and_raise))
    theirs.feed(b"secret")
    stage.settle()
    with pytest.raises(ValueError, match="released"):
        bytes(kept[0])
    assert len(logged) == 1


def test_paused_reading_leaves_the_input_where_it_is(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.pause_reading()
    assert not transport.is_reading()
    theirs.feed(b"later")
    stage.settle()
    assert witness.names == ["made"]
    transport.resume_reading()
    assert transport.is_reading()
    stage.settle()
    assert witness.received == b"later"


def test_reading_can_be_paused_from_within_connection_made(stage: Stage) -> None:
    witness = Witness(made=lambda transport: transport.pause_reading())
    transport, theirs = start(stage, witness)
    theirs.feed(b"later")
    stage.settle()
    assert witness.received == b""
    transport.resume_reading()
    stage.settle()
    assert witness.received == b"later"


def test_pausing_and_resuming_after_the_end_is_harmless(stage: Stage) -> None:
    witness = Witness()
    transport, _ = start(stage, witness)
    transport.abort()
    transport.pause_reading()
    transport.resume_reading()
    stage.settle()
    assert not transport.is_reading()
    assert witness.names == ["made", "lost"]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR], ids=["EAGAIN", "EINTR"])
def test_a_receive_that_has_to_be_repeated_is(stage: Stage, number: int) -> None:
    witness = Witness()
    _, theirs = start(stage, witness)
    our_socket(theirs).fail("recv_into", OSError(number, "again"))
    theirs.feed(b"x")
    stage.settle()
    assert witness.received == b"x"


def test_a_reset_while_reading_ends_the_stream_with_the_error(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    theirs.reset()
    stage.settle()
    assert isinstance(witness.losses[0], ConnectionResetError)
    assert transport.is_closing()
    assert our_socket(theirs).is_closed


# --- the peer's end of stream --------------------------------------------------------------------


def test_the_peers_end_closes_our_half_too(stage: Stage) -> None:
    witness = Witness()
    _, theirs = start(stage, witness)
    theirs.feed(b"last words")
    theirs.end()
    stage.settle()
    assert witness.names == ["made", "data", "eof", "lost"]
    assert witness.losses == [None]
    assert theirs.has_eof


def test_what_is_written_in_answer_to_the_end_is_sent_before_closing(stage: Stage) -> None:
    witness = Witness(eof=lambda: witness.transport.write(b"goodbye"))
    _, theirs = start(stage, witness)
    theirs.end()
    stage.settle()
    assert theirs.take() == b"goodbye"
    assert theirs.has_eof
    assert witness.losses == [None]


def test_a_protocol_may_keep_our_half_open(stage: Stage) -> None:
    witness = Witness(eof=lambda: True)
    transport, theirs = start(stage, witness)
    theirs.end()
    stage.settle()
    assert not transport.is_closing()
    assert not transport.is_reading()
    transport.write(b"still here")
    stage.settle()
    assert theirs.take() == b"still here"
    assert not theirs.has_eof
    transport.close()
    stage.settle()
    assert theirs.has_eof
    assert witness.names == ["made", "eof", "lost"]


def test_the_end_is_reported_once_even_if_reading_is_resumed_after_it(stage: Stage) -> None:
    witness = Witness(eof=lambda: True)
    transport, theirs = start(stage, witness)
    theirs.end()
    stage.settle()
    transport.resume_reading()
    stage.settle()
    assert not transport.is_reading()
    assert witness.names == ["made", "eof"]


@pytest.mark.parametrize("ending", ["abort", "close"])
def test_eof_received_may_end_the_transport_itself(stage: Stage, ending: str) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    witness.hooks["eof"] = getattr(transport, ending)
    theirs.end()
    stage.settle()
    assert witness.names == ["made", "eof", "lost"]
    assert witness.losses == [None]


# --- writing -------------------------------------------------------------------------------------


def test_what_is_written_in_one_turn_leaves_in_one_call(stage: Stage) -> None:
    transport, theirs = start(stage, Witness())
    for number in range(100):
        stage.reactor.call_soon(transport.write, b"%d," % number)
    stage.settle()
    assert theirs.take() == b"".join(b"%d," % number for number in range(100))
    assert our_socket(theirs).sent_sizes == [290]


def test_nothing_leaves_before_the_end_of_the_turn(stage: Stage) -> None:
    transport, theirs = start(stage, Witness())
    transport.write(b"x")
    assert theirs.take() == b""
    assert transport.get_write_buffer_size() == 1
    stage.settle()
    assert theirs.take() == b"x"
    assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_what_may_change_is_copied(stage: Stage, kind: Callable[[bytearray], Any]) -> None:
    transport, theirs = start(stage, Witness())
    data = bytearray(b"before")
    transport.write(kind(data))
    data[:] = b"after!"
    stage.settle()
    assert theirs.take() == b"before"


def test_writing_nothing_is_harmless(stage: Stage) -> None:
    transport, theirs = start(stage, Witness())
    transport.write(b"")
    transport.writelines([])
    transport.write(b"x")
    transport.writelines((b"", b"y", b""))
    stage.settle()
    assert theirs.take() == b"xy"
    assert transport.get_write_buffer_size() == 0


def test_large_buffers_are_gathered_and_not_joined(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=MIB)
    transport.set_write_buffer_limits(MIB)
    transport.writelines((b"header", bytes(100 * KIB)))
    stage.settle()
    assert theirs.take() == b"header" + bytes(100 * KIB)
    assert our_socket(theirs).calls["sendmsg"] == 1
    assert "send" not in our_socket(theirs).calls


def test_small_buffers_are_joined(stage: Stage) -> None:
    transport, theirs = start(stage, Witness())
    transport.writelines((b"header", b"payload"))
    stage.settle()
    assert our_socket(theirs).calls["send"] == 1
    assert "sendmsg" not in our_socket(theirs).calls


def test_without_a_gathering_call_everything_is_joined(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.transport._HAS_SENDMSG", False)
    transport, theirs = start(stage, Witness(), capacity=50 * KIB)
    data = [bytes([number]) * 40 * KIB for number in range(5)]
    transport.writelines(data)
    assert drain(stage, theirs) == b"".join(data)
    assert "sendmsg" not in our_socket(theirs).calls


def test_more_buffers_than_one_call_takes_need_more_calls(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX calls the limit IOV_MAX; what exceeds it is an error, EMSGSIZE."""
    counts: list[int] = []
    sendmsg = MemorySocket.sendmsg

    def counted(self: MemorySocket, buffers: list[bytes]) -> int:
        counts.append(len(buffers))
        if len(buffers) > 1024:
            raise OSError(errno.EMSGSIZE, "message too long")
        return sendmsg(self, buffers)

    monkeypatch.setattr(MemorySocket, "sendmsg", counted)
    transport, theirs = start(stage, Witness(), capacity=4 * MIB)
    transport.set_write_buffer_limits(8 * MIB)
    data = [b"%07d," % number * 10 for number in range(3000)]
    transport.writelines(data)
    stage.settle()
    assert theirs.take() == b"".join(data)
    assert counts == [1024, 1024, 952]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR], ids=["EAGAIN", "EINTR"])
@pytest.mark.parametrize("method", ["send", "sendmsg"])
def test_a_send_that_has_to_be_repeated_is(stage: Stage, number: int, method: str) -> None:
    transport, theirs = start(stage, Witness(), capacity=MIB)
    our_socket(theirs).fail(method, OSError(number, "again"), OSError(number, "again"))
    data = [b"x"] if method == "send" else [b"x", bytes(70 * KIB)]
    transport.writelines(data)
    stage.settle()
    assert theirs.take() == b"".join(data)


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.ETIMEDOUT])
@pytest.mark.parametrize("method", ["send", "sendmsg"])
def test_a_send_that_fails_ends_the_stream_with_the_error(
    stage: Stage, number: int, method: str
) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    error = OSError(number, "broken")
    our_socket(theirs).fail(method, error)
    transport.writelines([b"x"] if method == "send" else [b"x", bytes(70 * KIB)])
    stage.settle()
    assert witness.events[1:] == [("lost", error)]
    assert transport.get_write_buffer_size() == 0
    assert our_socket(theirs).is_closed


def test_a_send_that_fails_after_close_is_reported(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    our_socket(theirs).fail("send", RESET)
    transport.write(b"x")
    transport.close()
    stage.settle()
    assert witness.losses == [RESET]


def test_writing_while_blocked_waits_its_turn(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=4)
    transport.write(b"0123456789")
    stage.settle()
    transport.write(b"abcdef")
    assert drain(stage, theirs) == b"0123456789abcdef"


def test_a_blocked_transport_costs_no_calls_until_it_is_writable(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=4)
    transport.write(b"0123456789")
    stage.settle()
    calls = our_socket(theirs).calls["send"]
    stage.pass_time(60)
    transport.write(b"more")
    stage.pass_time(60)
    assert our_socket(theirs).calls["send"] == calls


def test_reading_goes_on_while_writing_is_blocked(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=4)
    transport.write(b"0123456789")
    stage.settle()
    theirs.feed(b"input")
    stage.settle()
    assert witness.received == b"input"
    theirs.feed(b", more input")
    assert drain(stage, theirs) == b"0123456789"  # readable and writable at once
    assert witness.received == b"input, more input"


@pytest.mark.parametrize("capacity", range(1, 28))
def test_every_place_at_which_a_gathered_write_can_be_cut(stage: Stage, capacity: int) -> None:
    buffers = [b"", b"a", b"bcd", b"", b"efghijkl", b"m", b"nopqrstuvwxyz", b""]
    transport, theirs = start(stage, Witness(), capacity=capacity)
    transport.set_write_buffer_limits(100)
    transport.writelines(buffers)
    assert drain(stage, theirs) == b"abcdefghijklmnopqrstuvwxyz"
    assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("seed", range(30))
def test_short_writes_lose_and_double_nothing(stage: Stage, seed: int) -> None:
    """Against a dumb twin, one bytearray: random writes, random room, random times."""
    rng = random.Random(seed)
    twin = bytearray()
    arrived = bytearray()
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=1)
    letter = 0
    for _ in range(300):
        theirs.capacity = rng.choice([1, 2, 7, 100, 5000, 70 * KIB])
        action = rng.random()
        if action < 0.5:
            buffers = []
            for _ in range(rng.choice([0, 1, 2, 5, 40])):
                letter = (letter + 1) % 256
                size = rng.choice([0, 1, 3, 100, 4000, rng.randrange(40_000)])
                buffers.append(bytes([letter]) * size)
            twin += b"".join(buffers)
            transport.writelines(buffers)
        elif action < 0.6:
            error = rng.choice([errno.EAGAIN, errno.EINTR])
            our_socket(theirs).fail(rng.choice(["send", "sendmsg"]), OSError(error, "again"))
        elif action < 0.8:
            arrived += theirs.take()
        else:
            stage.reactor.run_once(0)
        assert transport.get_write_buffer_size() + len(arrived + theirs.inbox) == len(twin)
    theirs.capacity = MIB
    transport.close()
    arrived += drain(stage, theirs)
    assert arrived == twin
    assert witness.losses == [None]
    pressure = [name for name in witness.names if name in ("pause", "resume")]
    assert pressure == ["pause", "resume"] * (len(pressure) // 2) + ["pause"] * (len(pressure) % 2)


# --- watermarks ----------------------------------------------------------------------------------


def test_the_protocol_is_paused_above_the_high_watermark_and_resumed_at_the_low_one(
    stage: Stage,
) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=10)
    transport.set_write_buffer_limits(high=100, low=30)
    transport.write(bytes(100))
    assert witness.names == ["made"]
    stage.settle()  # 10 bytes go to the peer, 90 stay
    transport.write(bytes(10))
    assert witness.names == ["made"]
    transport.write(bytes(1))
    assert witness.names == ["made", "pause"]
    transport.write(bytes(50))
    assert witness.names == ["made", "pause"]
    for size in range(151, 31, -10):
        assert transport.get_write_buffer_size() == size
        assert witness.names == ["made", "pause"]
        theirs.take()
        stage.settle()
    assert transport.get_write_buffer_size() == 31
    theirs.take()
    stage.settle()
    assert witness.names == ["made", "pause", "resume"]
    drain(stage, theirs)
    assert witness.names == ["made", "pause", "resume"]


def test_what_the_socket_takes_at_once_pauses_nobody(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=10 * MIB)
    for _ in range(20):
        transport.write(bytes(HIGH_WATERMARK))
    stage.settle()
    assert len(theirs.take()) == 20 * HIGH_WATERMARK
    assert witness.names == ["made"]


def test_a_protocol_that_writes_more_when_resumed_is_paused_again(stage: Stage) -> None:
    witness = Witness(resume=lambda: witness.transport.write(bytes(200)))
    transport, theirs = start(stage, witness, capacity=10)
    transport.set_write_buffer_limits(high=100, low=0)
    transport.write(bytes(200))
    stage.settle()
    for _ in range(100):
        theirs.take()
        stage.settle()
    pressure = witness.names[1:]
    assert len(pressure) > 6
    assert pressure == (["pause", "resume"] * len(pressure))[: len(pressure)]


@pytest.mark.parametrize("ending", ["abort", "close"])
def test_an_ending_transport_resumes_nobody(stage: Stage, ending: str) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=10)
    transport.set_write_buffer_limits(100)
    transport.write(bytes(200))
    stage.settle()
    getattr(transport, ending)()
    drain(stage, theirs)
    assert witness.names == ["made", "pause", "lost"]


def test_a_write_that_breaks_the_stream_pauses_nobody(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    our_socket(theirs).fail("send", RESET)
    transport.write(bytes(HIGH_WATERMARK + 1))
    assert witness.names == ["made"], "connection_lost must not come from within write()"
    stage.settle()
    assert witness.names == ["made", "lost"]


def test_the_low_watermark_is_a_quarter_by_default(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=1)
    transport.set_write_buffer_limits(8)
    transport.write(bytes(10))
    stage.settle()
    while "resume" not in witness.names:
        assert transport.get_write_buffer_size() > 2
        theirs.take()
        stage.settle()
    assert transport.get_write_buffer_size() == 2


@pytest.mark.parametrize(("high", "low"), [(10, 11), (10, -1), (-1, None), (-4, -4)])
def test_watermarks_out_of_order_are_refused(stage: Stage, high: int, low: int | None) -> None:
    transport, _ = start(stage, Witness())
    with pytest.raises(ValueError, match="does not hold"):
        transport.set_write_buffer_limits(high, low)


# --- ending our half -----------------------------------------------------------------------------


def test_write_eof_with_nothing_waiting_ends_our_half_at_once(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.write_eof()
    assert theirs.has_eof
    theirs.feed(b"answer")
    stage.settle()
    assert witness.received == b"answer"
    assert not transport.is_closing()


def test_write_eof_comes_after_all_that_was_written(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=3)
    transport.write(b"0123456789")
    transport.write_eof()
    stage.settle()
    assert not theirs.has_eof
    assert drain(stage, theirs) == b"0123456789"
    assert theirs.has_eof


def test_writing_after_write_eof_has_no_effect(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=3)
    transport.write(b"0123456789")
    transport.write_eof()
    transport.write(b"too late")
    assert drain(stage, theirs) == b"0123456789"
    transport.write(b"too late")
    assert drain(stage, theirs) == b""


def test_write_eof_twice_or_after_close_is_harmless(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.write_eof()
    transport.write_eof()
    assert our_socket(theirs).calls["shutdown"] == 1
    transport.close()
    transport.write_eof()
    stage.settle()
    assert our_socket(theirs).calls["shutdown"] == 1
    assert witness.losses == [None]


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_half_close_that_fails_ends_the_stream_with_the_error(
    stage: Stage, is_waiting: bool
) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    error = OSError(errno.ENOTCONN, "not connected")
    our_socket(theirs).fail("shutdown", error)
    if is_waiting:
        transport.write(b"x")
    transport.write_eof()
    stage.settle()
    assert witness.losses == [error]


def test_closing_between_write_eof_and_its_flush_closes_after_the_flush(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.write_eof()
    transport.close()
    assert drain(stage, theirs) == b"0123456789"
    assert witness.losses == [None]
    assert our_socket(theirs).is_closed


# --- ending all ----------------------------------------------------------------------------------


def test_close_sends_what_waits_and_then_closes(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.close()
    assert transport.is_closing()
    stage.settle()
    assert witness.losses == []
    assert drain(stage, theirs) == b"0123456789"
    assert witness.losses == [None]
    assert theirs.has_eof


def test_close_reads_no_further(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.close()
    assert not transport.is_reading()
    theirs.feed(b"unheard")
    drain(stage, theirs)
    assert witness.names == ["made", "lost"]


def test_abort_drops_what_waits(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    stage.settle()
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert drain(stage, theirs) == b"012"
    assert witness.losses == [None]


def test_abort_ends_a_close_that_takes_too_long(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.close()
    stage.pass_time(3600)
    assert witness.losses == []
    transport.abort()
    stage.settle()
    assert witness.losses == [None]
    assert theirs.has_eof


@pytest.mark.parametrize("ending", ["abort", "close"])
@pytest.mark.parametrize("place", ["made", "data", "resume"])
def test_connection_lost_is_a_call_of_its_own(stage: Stage, place: str, ending: str) -> None:
    """The witness checks that it comes from within no other call."""
    witness: Witness
    witness = Witness(**{place: lambda *args: getattr(witness.transport, ending)()})
    transport, theirs = start(stage, witness, capacity=3)
    transport.set_write_buffer_limits(3)
    transport.write(bytes(10))
    theirs.feed(b"x")
    drain(stage, theirs)
    assert witness.losses == [None]
    assert witness.names[-1] == "lost"


def test_connection_lost_comes_once_however_often_the_end_comes(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    theirs.feed(b"unheard")
    theirs.reset()
    transport.abort()
    transport.close()
    transport.abort()
    transport.linger(1, 1)
    transport.on_failure(RESET)
    stage.pass_time(60)
    assert witness.events[1:] == [("lost", None)]


def test_writing_after_close_has_no_effect(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.close()
    transport.write(b"too late")
    transport.writelines([b"too", b"late"])
    assert drain(stage, theirs) == b"0123456789"
    transport.write(b"too late")
    assert drain(stage, theirs) == b""
    assert witness.losses == [None]


def test_a_lost_transport_is_forgotten(stage: Stage) -> None:
    transport, _ = start(stage, Witness())
    transport.abort()
    stage.settle()
    assert transport.fd == -1
    assert transport.interest == 0


def test_a_lost_transport_is_kept_alive_by_nothing(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.write(b"x")
    transport.linger(timeout=5, max_size=1000)
    stage.settle()
    theirs.end()
    stage.settle()
    is_alive = weakref.ref(witness)
    del witness, transport
    gc.collect()
    assert is_alive() is None


def test_the_interest_follows_what_is_wanted(stage: Stage) -> None:
    transport, theirs = start(stage, Witness(), capacity=3)
    interests = [transport.interest]
    transport.write(b"0123456789")
    stage.settle()
    interests.append(transport.interest)
    transport.pause_reading()
    interests.append(transport.interest)
    drain(stage, theirs)
    interests.append(transport.interest)
    assert interests == [READ, READ | WRITE, WRITE, 0]


# --- giving the socket away ----------------------------------------------------------------------


def test_a_detached_socket_stays_open_for_a_second_layer(stage: Stage) -> None:
    first, second = Witness(), Witness()
    transport, theirs = start(stage, first)
    sock = transport.detach()
    assert sock.fileno() == our_socket(theirs).fileno() >= 0
    Transport(stage.reactor, sock, second).start()
    theirs.feed(b"for the second layer")
    second.transport.write(b"from the second layer")
    stage.settle()
    assert theirs.take() == b"from the second layer"
    assert second.received == b"for the second layer"
    assert first.names == ["made"]


def test_a_transport_can_be_detached_from_within_its_callback(stage: Stage) -> None:
    second = Witness()

    def hand_over(data: memoryview) -> None:
        Transport(stage.reactor, first.transport.detach(), second).start()

    first = Witness(data=hand_over)
    _, theirs = start(stage, first)
    theirs.feed(b"one")
    stage.settle()
    theirs.feed(b"two")
    stage.settle()
    assert first.names == ["made", "data"]
    assert second.received == b"two"


def test_a_detached_transport_does_nothing_any_more(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.write(b"lost")
    sock = transport.detach()
    for call in (transport.write_eof, transport.close, transport.abort, transport.resume_reading):
        call()
    transport.write(b"lost, too")
    stage.settle()
    assert theirs.take() == b""
    assert transport.is_closing()
    assert witness.names == ["made"]
    sock.close()


# --- exceptions in callbacks ---------------------------------------------------------------------


@pytest.mark.parametrize("place", ["data", "eof", "resume", "pause"])
def test_an_exception_ends_its_own_stream_and_no_other(
    stage: Stage, place: str, logged: list[logging.LogRecord]
) -> None:
    other = Witness()
    _, other_end = start(stage, other)
    witness = Witness(**{place: raise_boom})
    transport, theirs = start(stage, witness, capacity=3)
    transport.set_write_buffer_limits(3)
    transport.write(bytes(10))
    theirs.feed(b"x")
    if place == "eof":
        theirs.end()
    drain(stage, theirs)
    other_end.feed(b"alive")
    stage.settle()
    assert witness.names[-2:] == [place, "lost"]
    assert isinstance(witness.losses[0], ValueError)
    assert our_socket(theirs).is_closed
    assert other.received == b"alive"
    assert not other.is_lost
    (record,) = logged
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR


def test_an_exception_in_connection_lost_is_logged(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    witness = Witness(lost=raise_boom)
    transport, _ = start(stage, witness)
    transport.abort()
    stage.pass_time(1)
    assert witness.names == ["made", "lost"]
    assert len(logged) == 1


def test_a_receiver_of_a_broadcast_that_raises_does_not_cost_the_sender(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    receiver = Witness(pause=raise_boom)
    transport, _ = start(stage, receiver, capacity=3)
    sender = Witness(data=lambda data: transport.write(bytes(HIGH_WATERMARK + 4)))
    _, senders_end = start(stage, sender)
    senders_end.feed(b"x")
    stage.settle()
    assert sender.names == ["made", "data"]
    assert receiver.names == ["made", "pause", "lost"]
    assert len(logged) == 1


# --- linger --------------------------------------------------------------------------------------


def test_linger_sends_half_closes_and_waits_for_the_peer_to_close(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"goodbye")
    transport.linger(timeout=5, max_size=1000)
    theirs.feed(b"what the peer was still sending")
    assert drain(stage, theirs) == b"goodbye"
    assert theirs.has_eof
    assert not theirs.is_reset
    assert witness.names == ["made"]
    theirs.end()
    stage.settle()
    assert witness.events[1:] == [("lost", None)]
    assert not theirs.is_reset


def test_linger_ends_at_its_deadline(stage: Stage) -> None:
    witness = Witness()
    transport, _ = start(stage, witness)
    transport.linger(timeout=5, max_size=1000)
    stage.pass_time(4.9)
    assert witness.losses == []
    stage.pass_time(0.2)
    assert witness.losses == [None]


def test_linger_ends_at_its_deadline_though_the_peer_reads_nothing(stage: Stage) -> None:
    witness = Witness()
    transport, _ = start(stage, witness, capacity=3)
    transport.write(b"goodbye")
    transport.linger(timeout=5, max_size=1000)
    stage.pass_time(5.1)
    assert witness.losses == [None]


def test_linger_discards_no_more_than_its_limit(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.linger(timeout=5, max_size=1000)
    theirs.feed(bytes(1000))
    stage.settle()
    assert witness.losses == []
    theirs.feed(bytes(1))
    stage.settle()
    assert witness.losses == [None]
    assert witness.received == b""


def test_linger_reads_although_reading_was_paused(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness)
    transport.pause_reading()
    transport.linger(timeout=5, max_size=1000)
    theirs.feed(b"x")
    theirs.end()
    stage.settle()
    assert witness.events[1:] == [("lost", None)]


def test_linger_after_the_peers_end_just_closes(stage: Stage) -> None:
    witness = Witness(eof=lambda: True)
    transport, theirs = start(stage, witness, capacity=3)
    theirs.end()
    stage.settle()
    transport.write(b"goodbye")
    transport.linger(timeout=5, max_size=1000)
    assert drain(stage, theirs) == b"goodbye"
    assert witness.losses == [None]


def test_linger_from_within_eof_received_just_closes(stage: Stage) -> None:
    witness = Witness(eof=lambda: witness.transport.linger(5, 1000))
    _, theirs = start(stage, witness)
    theirs.end()
    stage.settle()
    assert witness.names == ["made", "eof", "lost"]


def test_linger_twice_keeps_the_first_deadline(stage: Stage) -> None:
    witness = Witness()
    transport, _ = start(stage, witness)
    transport.linger(timeout=5, max_size=1000)
    stage.pass_time(3)
    transport.linger(timeout=5, max_size=1000)
    stage.pass_time(2.1)
    assert witness.losses == [None]


def test_linger_after_close_has_no_effect(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=3)
    transport.write(b"0123456789")
    transport.close()
    transport.linger(timeout=5, max_size=1000)
    stage.pass_time(60)
    assert witness.losses == []
    drain(stage, theirs)
    assert witness.losses == [None]


def test_linger_cut_short_leaves_no_timer_behind(stage: Stage) -> None:
    transport, theirs = start(stage, Witness())
    transport.linger(timeout=5, max_size=1000)
    theirs.end()
    stage.settle()
    assert stage.reactor.next_timeout() is None


# --- what stays unsent ---------------------------------------------------------------------------


class Bookkeeper(Witness):
    """Write down what it is told of unsent bytes."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.unsent: list[int] = []
        self.raises = raises

    def unsent_changed(self, size: int) -> None:
        self.unsent.append(size)
        if self.raises:
            raise_boom()


def test_nothing_is_told_of_what_the_socket_takes_at_once(stage: Stage) -> None:
    witness = Bookkeeper()
    transport, theirs = start(stage, witness)
    for _ in range(3):
        transport.write(bytes(1000))
        transport.write(bytes(1000))
        stage.settle()
    assert len(theirs.take()) == 6000
    assert witness.unsent == []
    assert not transport.is_blocked()


@pytest.mark.parametrize("high", [1000, 20_000, MIB])
def test_what_is_stuck_is_told_when_it_grows_and_when_it_is_gone(stage: Stage, high: int) -> None:
    witness = Bookkeeper()
    transport, theirs = start(stage, witness, capacity=100)
    transport.set_write_buffer_limits(high)
    transport.write(bytes(600))
    stage.settle()
    assert witness.unsent == [500]
    assert transport.is_blocked()
    for _ in range(100):
        before = transport.get_write_buffer_size()
        transport.write(bytes(700))
        assert witness.unsent[-1] >= before - 8 * 1024
    # Not for each write, but around the mark.
    assert len(witness.unsent) < 15
    theirs.capacity = MIB
    stage.settle()
    assert witness.unsent[-1] == transport.get_write_buffer_size() == 0
    assert not transport.is_blocked()


def test_thousands_of_tiny_writes_to_a_peer_that_does_not_read_are_joined(stage: Stage) -> None:
    witness = Bookkeeper()
    transport, theirs = start(stage, witness, capacity=100)
    data = b"".join(b"%08d" % number for number in range(20_000))
    for at in range(0, len(data), 8):
        transport.write(data[at : at + 8])
    assert len(transport._buffers) < 1100
    theirs.capacity = MIB
    assert drain(stage, theirs) == data


def test_a_protocol_whose_unsent_changed_raises_loses_its_stream_and_the_writer_nothing(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    witness = Bookkeeper(raises=True)
    transport, _ = start(stage, witness, capacity=10)
    transport.set_write_buffer_limits(100)
    transport.write(bytes(200))
    stage.settle()
    assert isinstance(witness.losses[0], ValueError)
    assert len(logged) == 1


@pytest.mark.parametrize("is_stuck", [False, True])
def test_abort_has_the_system_forget_what_the_peer_does_not_read(
    stage: Stage, is_stuck: bool
) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=10)
    transport.write(bytes(200 if is_stuck else 5))
    stage.settle()
    options = our_socket(theirs).calls.get("setsockopt", 0)
    transport.abort()
    stage.settle()
    assert our_socket(theirs).calls.get("setsockopt", 0) - options == is_stuck
    transport.abort()
    assert our_socket(theirs).calls.get("setsockopt", 0) - options == is_stuck
    assert witness.losses == [None]


def test_abort_works_where_the_option_fails(stage: Stage) -> None:
    witness = Witness()
    transport, theirs = start(stage, witness, capacity=10)
    transport.write(bytes(200))
    stage.settle()
    our_socket(theirs).fail("setsockopt", OSError(errno.EINVAL, "invalid argument"))
    transport.abort()
    stage.settle()
    assert our_socket(theirs).is_closed
    assert witness.losses == [None]


def test_an_aborted_peer_that_does_not_read_is_reset_at_once() -> None:
    with Reactor() as reactor, socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        ours.setblocking(False)
        with theirs:
            transport = Transport(reactor, ours, Witness())
            transport.start()
            transport.write(bytes(8 * MIB))
            reactor.run_once(0)
            assert transport.is_blocked()
            transport.abort()
            with pytest.raises(ConnectionResetError):
                read_to_the_end(theirs)


# --- real sockets --------------------------------------------------------------------------------


@streams.with_every_selector
def test_a_megabyte_there_and_back_through_real_buffers(selector: Callable[[], Any]) -> None:
    data = bytes(range(256)) * 4096
    with Reactor(selector) as reactor:
        echo, asker = Echo(), Witness()
        ours, theirs = socket.socketpair()
        for sock, protocol in ((ours, echo), (theirs, asker)):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            Transport(reactor, sock, protocol).start()
        asker.transport.write(data)
        run_until(reactor, lambda: len(asker.received) == len(data))
        assert asker.received == data
        asker.transport.close()
        run_until(reactor, lambda: echo.is_lost)
        assert echo.losses == asker.losses == [None]


def test_many_small_buffers_pass_a_real_gathering_call() -> None:
    """More than IOV_MAX buffers in one turn: the system would refuse them in one call."""
    with Reactor() as reactor:
        witness = Witness()
        with connected_pair(reactor, Witness()) as (transport, theirs):
            transport.set_write_buffer_limits(MIB)
            theirs.setblocking(False)
            Transport(reactor, theirs, witness).start()
            data = [b"%07d," % number * 4 for number in range(5000)]
            transport.writelines(data)
            run_until(reactor, lambda: len(witness.received) == 160_000)
            assert witness.received == b"".join(data)
            witness.transport.abort()


def test_half_close_over_real_sockets() -> None:
    with Reactor() as reactor:
        witness = Witness(eof=lambda: True)
        with connected_pair(reactor, witness) as (transport, theirs):
            theirs.sendall(b"request")
            theirs.shutdown(socket.SHUT_WR)
            run_until(reactor, lambda: "eof" in witness.names)
            transport.write(b"response")
            transport.write_eof()
            run_until(reactor, lambda: not transport.get_write_buffer_size())
            assert theirs.recv(100) == b"response"
            assert theirs.recv(100) == b""
            transport.close()


def test_a_real_reset_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Reactor() as reactor:
        with socket.create_connection(server.getsockname()) as theirs:
            ours, peername = server.accept()
            ours.setblocking(False)
            witness = Witness()
            Transport(reactor, ours, witness, peername).start()
            # Linger time 0: close() sends a reset instead of an end.
            linger_zero = b"\1\0\0\0\0\0\0\0"
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        run_until(reactor, lambda: witness.is_lost)
        assert isinstance(witness.losses[0], ConnectionResetError)
        assert witness.names == ["made", "lost"]


def test_a_peer_that_stops_reading_and_goes_breaks_the_pipe() -> None:
    with Reactor() as reactor:
        witness = Witness()
        with connected_pair(reactor, witness) as (transport, theirs):
            transport.pause_reading()
            transport.write(bytes(8 * MIB))
            reactor.run_once(0)
            assert transport.get_write_buffer_size()
            theirs.close()
            run_until(reactor, lambda: witness.is_lost)
        assert isinstance(witness.losses[0], (BrokenPipeError, ConnectionResetError))
        assert witness.names == ["made", "pause", "lost"]


def test_linger_spares_a_real_peer_the_reset() -> None:
    """Closing with unread input would send a reset, and the answer might be lost with it."""
    with socket.create_server(("127.0.0.1", 0)) as server, Reactor() as reactor:
        with socket.create_connection(server.getsockname()) as theirs:
            theirs.settimeout(streams.FAIL_SAFE)
            ours, _ = server.accept()
            ours.setblocking(False)
            witness = Witness()
            transport = Transport(reactor, ours, witness)
            transport.start()
            transport.write(b"413")
            transport.linger(timeout=streams.FAIL_SAFE, max_size=MIB)
            theirs.sendall(bytes(64 * KIB))
            run_until(reactor, lambda: not transport.get_write_buffer_size())
            assert theirs.recv(100) == b"413"
            assert theirs.recv(100) == b""
        run_until(reactor, lambda: witness.is_lost)
        assert witness.events[1:] == [("lost", None)]


@needs_unix_sockets
def test_a_unix_socket_is_a_stream_like_any_other(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    echo = Echo()
    with Reactor() as reactor:
        listener = Listener(reactor, [open_unix_socket(path)], lambda: echo)
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.settimeout(streams.FAIL_SAFE)
            theirs.connect(path)
            theirs.sendall(b"hello")
            run_until(reactor, lambda: echo.received == b"hello")
            assert theirs.recv(100) == b"hello"
            assert echo.transport.get_extra_info("sockname") == path
        run_until(reactor, lambda: echo.is_lost)
        listener.close()


# --- what has left -----------------------------------------------------------------------------


def test_when_sent_calls_back_at_once_if_the_socket_takes_everything(stage: Stage) -> None:
    transport, theirs = start(stage, Protocol())
    calls: list[bytes] = []
    transport.write(b"hello")
    transport.when_sent(lambda: calls.append(theirs.take()))
    assert calls == [b"hello"]


def test_when_sent_calls_back_when_the_last_byte_before_it_has_left(stage: Stage) -> None:
    transport, theirs = start(stage, Protocol(), capacity=10)
    calls: list[int] = []
    transport.write(bytes(25))
    transport.when_sent(lambda: calls.append(len(received)))
    received = bytearray()
    while len(received) < 60:
        transport.write(b"later")  # so that the buffer is never empty
        stage.settle()
        received += theirs.take()
    # The turn in which the 25th byte was taken.
    assert calls == [20]


def test_a_second_when_sent_takes_the_place_of_the_first(stage: Stage) -> None:
    transport, theirs = start(stage, Protocol(), capacity=10)
    calls: list[str] = []
    transport.write(bytes(25))
    transport.when_sent(lambda: calls.append("first"))
    transport.when_sent(lambda: calls.append("second"))
    drain(stage, theirs)
    assert calls == ["second"]


@pytest.mark.parametrize("is_late", [False, True])
def test_when_sent_says_nothing_of_what_never_left(stage: Stage, is_late: bool) -> None:
    transport, _ = start(stage, Protocol(), capacity=10)
    calls: list[str] = []
    transport.write(bytes(25))
    if is_late:
        transport.abort()
    transport.when_sent(lambda: calls.append("sent"))
    transport.abort()
    stage.settle()
    assert calls == []
    assert transport.get_protocol().__class__ is Protocol
