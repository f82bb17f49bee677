"""Transports: all that arrives once and in order, every callback when it is due, every end once."""

from __future__ import annotations

import errno
import gc
import logging
import random
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streams
from memory_streams import drain, our_socket, start
from streams import Echo, Witness, needs_unix_sockets
from support import Stage, as_socket, run_until

from reactor import READ, WRITE, Listener, Protocol, Reactor, Transport, open_unix_socket
from reactor.write_transport import HIGH_WATERMARK

KIB = 1024
MIB = 1024 * 1024

RESET = OSError(errno.ECONNRESET, "connection reset by peer")


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
    theirs.feed(bytes(2 * MIB))
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
