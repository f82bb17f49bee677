"""Writing: every byte once and in order, whatever the socket takes, and the right pressure."""

from __future__ import annotations

import errno
import logging
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from memory_streams import drain, our_socket, start
from streams import Witness, connected_pair
from support import MemorySocket, Stage, run_until

from reactor import Protocol, Reactor, Transport
from reactor.write_transport import HIGH_WATERMARK

KIB = 1024
MIB = 1024 * 1024

RESET = OSError(errno.ECONNRESET, "connection reset by peer")


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
    monkeypatch.setattr("reactor.write_transport._HAS_SENDMSG", False)
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
            raise ValueError("boom")


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


# --- what has left -------------------------------------------------------------------------------


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


# --- real sockets --------------------------------------------------------------------------------


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
