"""H45 to H74: frames and messages that must not be, against a whole server.

``offence_table.py`` says what is wrong and when; here its rows meet the whole endpoint. The rest
are the rows of the catalogue that are about more than one frame, or about time, or memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from frame_table import BINARY, CLOSE, PING, PONG, TEXT, HandFrame, all_on_wire, on_wire
from offence_table import CLOSE_OFFENCES, OFFENCES, CloseOffence, Offence
from reactions import our_socket
from support import Peer

from hostile.arena import Arena, Frames, Offender, splits_of
from hostile.memory import KIB, measured
from websocket import Cause, Frame, FrameWriter, Limits, Opcode, State

Besiege = Callable[..., Arena]

MASKED = FrameWriter(masks=True)


def identify(row: Offence | CloseOffence) -> str:
    return row.name.replace(",", "").replace(" ", "-")


# --- one bad frame ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in OFFENCES if True in row.roles], ids=identify)
def test_a_bad_frame_fails_the_connection(hostile: Besiege, row: Offence) -> None:
    arena = hostile(limits=row.limits)
    wire = row.good_wire(is_masked=True) + row.bad_wire(is_masked=True)
    delivered = [item for opcode, item in row.items if opcode in (TEXT, BINARY)]
    pongs = [(PONG, item) for opcode, item in row.items if opcode == PING]
    for number, pieces in enumerate(splits_of(wire, random_splits=0)):
        offender = arena.offender()
        offender.send(pieces)
        arena.expect_fail(
            offender,
            row.verdict.close_code,
            row.verdict.cause,
            messages=delivered,
            answers=pongs,
            stays=not number,
        )


@pytest.mark.parametrize("row", CLOSE_OFFENCES, ids=identify)
def test_a_bad_close_frame_fails_the_connection(hostile: Besiege, row: CloseOffence) -> None:
    arena = hostile()
    wire = on_wire(f"88 {len(row.payload):02x}", row.payload, is_masked=True)
    for number, pieces in enumerate(splits_of(wire, random_splits=0)):
        offender = arena.offender()
        offender.send(pieces)
        arena.expect_fail(offender, row.verdict.close_code, row.verdict.cause, stays=not number)


# --- what only looks hostile ------------------------------------------------------------------


class Legal(NamedTuple):
    """Frames that must be taken, what is delivered, and what is answered."""

    name: str
    frames: list[HandFrame]
    messages: list[str | bytes]
    answers: Frames = ()


LEGAL = [
    Legal("H51-ping-between-fragments", [("01 01", b"a"), ("89 01", b"p"), ("80 01", b"b")],
          ["ab"], [(PONG, b"p")]),
    Legal("H51-pings-between-every-fragment",
          [("02 01", b"a"), *[("89 01", b"p"), ("00 01", b"b")] * 5, ("80 00", b"")],
          [b"abbbbb"], [(PONG, b"p")] * 5),
    Legal("H51-pong-between-fragments", [("01 01", b"a"), ("8a 01", b"p"), ("80 01", b"b")],
          ["ab"]),
    Legal("H57-three-empty-continuations",
          [("01 00", b""), *[("00 00", b"")] * 3, ("80 01", b"x")], ["x"]),
    Legal("H57-nothing-but-empty-fragments", [("01 00", b""), ("00 00", b""), ("80 00", b"")],
          [""]),
    Legal("H62-code-point-in-two-fragments", [("01 01", b"\xc3"), ("80 01", b"\xa9")], ["\u00e9"]),
    Legal("H62-code-point-in-four-fragments",
          [("01 01", b"\xf0"), ("00 01", b"\x9f"), ("00 01", b"\x98"), ("80 01", b"\x80")],
          ["\U0001f600"]),
    Legal("H62-code-point-around-a-ping",
          [("01 01", b"\xe2"), ("89 00", b""), ("80 02", b"\x82\xac")], ["\u20ac"],
          [(PONG, b"")]),
    Legal("H74-unsolicited-pongs", [("8a 00", b""), ("8a 03", b"abc"), ("81 01", b"x")], ["x"]),
]  # fmt: skip


@pytest.mark.parametrize("row", LEGAL, ids=lambda row: row.name)
def test_a_legal_sequence_is_taken(hostile: Besiege, row: Legal) -> None:
    arena = hostile()
    for pieces in splits_of(all_on_wire(row.frames, is_masked=True)):
        offender = arena.offender()
        offender.send(pieces)
        assert offender.peer.receive() == list(row.answers)
        arena.expect_open(offender, row.messages)


# --- closing ----------------------------------------------------------------------------------

CLOSES = {
    "H64-empty": (b"", 1005),
    "H64-1000": (b"\x03\xe8", 1000),
    "H64-3000": (b"\x0b\xb8", 3000),
    "H64-4999": (b"\x13\x87", 4999),
    "H64-123-byte-reason": (b"\x03\xe8" + b"r" * 123, 1000),
}


@pytest.mark.parametrize("name", CLOSES)
def test_a_close_is_echoed_and_the_server_ends_first(hostile: Besiege, name: str) -> None:
    arena = hostile()
    payload, code = CLOSES[name]
    for pieces in splits_of(on_wire(f"88 {len(payload):02x}", payload, is_masked=True)):
        offender = arena.offender()
        offender.send(pieces)
        assert offender.peer.receive() == [(CLOSE, payload[:2])]
        assert offender.peer.sees_end
        arena.expect_over(offender, Cause.CLOSED_BY_PEER, code)


CLOSE_FRAME: HandFrame = ("88 02", b"\x03\xe8")

BEHIND_A_CLOSE: dict[str, list[HandFrame]] = {
    "H67-text": [("81 01", b"x")],
    "H67-ping": [("89 01", b"x")],
    "H67-second-close": [("88 02", b"\x0f\xa0")],
    "H67-garbage": [("ff 05", b"hello")],
    "H67-bad-text": [("81 01", b"\xff")],
}


@pytest.mark.parametrize("name", BEHIND_A_CLOSE)
def test_what_comes_behind_a_close_is_ignored(hostile: Besiege, name: str) -> None:
    arena = hostile()
    wire = all_on_wire([CLOSE_FRAME, *BEHIND_A_CLOSE[name]], is_masked=True)
    for pieces in splits_of(wire):
        offender = arena.offender()
        offender.send(pieces)
        assert offender.peer.receive() == [(CLOSE, b"\x03\xe8")]
        assert offender.peer.sees_end
        assert offender.messages == []
        # We end first all the same; but not by a reset, which might eat our close frame.
        offender.leave()
        arena.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)


def test_h68_a_close_inside_a_fragmented_message_is_echoed(hostile: Besiege) -> None:
    arena = hostile()
    wire = all_on_wire([("01 01", b"a"), ("89 00", b""), CLOSE_FRAME], is_masked=True)
    for pieces in splits_of(wire):
        offender = arena.offender()
        offender.send(pieces)
        assert offender.peer.receive() == [(PONG, b""), (CLOSE, b"\x03\xe8")]
        assert offender.messages == []
        arena.expect_over(offender, Cause.CLOSED_BY_PEER, 1000)


CHATTER: dict[str, Callable[[Peer], None]] = {
    "H69-messages": lambda peer: peer.send("more"),
    "H69-pongs": lambda peer: peer.send_frame(PONG),
    "H69-pings": lambda peer: peer.send_frame(PING),
    "H69-silence": lambda peer: None,
}


@pytest.mark.parametrize("name", CHATTER)
def test_no_chatter_delays_the_end_of_our_closing_handshake(hostile: Besiege, name: str) -> None:
    arena = hostile()
    offender = arena.offender()
    offender.connection.close(4000, "enough")
    for _ in range(49):
        CHATTER[name](offender.peer)
        arena.pass_time(0.1)
    assert offender.peer.receive() == [(CLOSE, b"\x0f\xa0enough")]
    assert offender.connection.state is State.CLOSING
    arena.pass_time(0.2)
    assert offender.messages == []
    arena.expect_over(offender, Cause.CLOSE_TIMEOUT, 4000)


def test_h69_a_peer_that_answers_and_stays_is_closed_by_the_server(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    offender.connection.close(4000)
    arena.stage.settle()
    offender.peer.close(4000)
    arena.stage.settle()
    assert offender.peer.sees_end
    arena.expect_over(offender, Cause.CLOSED_BY_US, 4000)


def test_h69_a_server_that_answers_and_stays_is_cut_by_the_client(hostile: Besiege) -> None:
    """RFC 6455, 7.1.1: it is the server's to close first, but not for ever."""
    arena = hostile()
    offender = arena.offending_server()
    offender.connection.close(4000)
    arena.stage.settle()
    offender.peer.close(4000)
    arena.pass_time(arena.limits.close_timeout + 0.1)
    # A choice: the handshake was complete, so that the cause is ours and the end is clean.
    assert offender.connection.is_clean
    assert our_socket(offender.peer).is_closed
    assert offender.connection.cause in (Cause.CLOSED_BY_US, Cause.CLOSE_TIMEOUT)


@pytest.mark.parametrize("is_client", [False, True], ids=["H70-server", "H70-client"])
def test_both_may_close_at_once(hostile: Besiege, is_client: bool) -> None:
    arena = hostile()
    offender = arena.offending_server() if is_client else arena.offender()
    offender.connection.close(4001, "ours")
    offender.peer.close(4002, "theirs")
    arena.stage.settle()
    assert offender.peer.received_close() == (4001, "ours")
    if is_client:
        offender.leave()
    assert offender.connection.is_clean
    arena.expect_over(offender, Cause.CLOSED_BY_US, 4001)


# --- the end of the stream --------------------------------------------------------------------

CUT_SHORT: dict[str, bytes] = {
    "H71-at-rest": b"",
    "H71-inside-a-header": b"\x82",
    "H71-inside-a-payload": on_wire("82 05", b"hello", is_masked=True)[:-1],
    "H71-inside-a-message": on_wire("02 05", b"hello", is_masked=True),
    "H71-inside-a-close": on_wire("88 02", b"\x03\xe8", is_masked=True)[:-1],
}


@pytest.mark.parametrize("is_reset", [False, True], ids=["eof", "reset"])
@pytest.mark.parametrize("name", CUT_SHORT)
def test_a_stream_may_end_anywhere(hostile: Besiege, name: str, is_reset: bool) -> None:
    arena = hostile()
    for pieces in splits_of(CUT_SHORT[name]):
        offender = arena.offender()
        offender.send(pieces)
        if is_reset:
            offender.peer.sock.reset()
        else:
            offender.peer.sock.end()
        arena.stage.settle()
        assert offender.peer.receive() == []
        assert offender.messages == []
        arena.expect_over(offender, Cause.PEER_RESET if is_reset else Cause.PEER_EOF, 1006)


@pytest.mark.parametrize("size", [1, 200_000], ids=["H72-one-byte", "H72-200-kB"])
def test_unread_input_does_not_cost_the_peer_the_close_frame(hostile: Besiege, size: int) -> None:
    arena = hostile()
    offender = arena.offender()
    offender.peer.send_bytes(b"\x82\x05")
    arena.stage.reactor.run_once(0)
    offender.peer.send_bytes(bytes(size))
    arena.stage.settle()
    arena.expect_fail(offender, 1002, Cause.PROTOCOL_ERROR)


def test_h72_the_linger_has_a_bound(hostile: Besiege) -> None:
    """What comes is discarded up to a size; then the stream is cut, whatever the peer sees."""
    arena = hostile()
    offender = arena.offender()
    offender.send([b"\x82\x05"])
    assert offender.peer.received_close() == (1002, "client frame is not masked")
    offender.send([bytes(100_000)] * 3)
    arena.expect_over(offender, Cause.PROTOCOL_ERROR, 1002)


# --- fragments: number, size, time ------------------------------------------------------------


def one_byte_fragments(count: int) -> bytes:
    """Return one-byte continuations; the first frame is not among them."""
    return on_wire("00 01", b"x", is_masked=True) * count


def push(offender: Offender, data: bytes, size: int = 64 * KIB) -> None:
    """Hand over what was read, past the network in memory, which would be measured too."""
    view = memoryview(data)
    for at in range(0, len(view), size):
        offender.connection.data_received(view[at : at + size])


FIRST = on_wire("02 01", b"x", is_masked=True)


def test_h56_fragments_without_end_are_counted(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    wire = FIRST + one_byte_fragments(131_000)
    with measured() as memory:
        push(offender, wire)
    # One read is looked at as a whole.
    memory.assert_peak_below((64 + 2 * 4 + 4) * KIB)
    arena.stage.settle()
    arena.expect_fail(offender, 1008, Cause.TOO_MANY_FRAGMENTS)


def test_h56_the_memory_is_that_of_the_payload(hostile: Besiege) -> None:
    """With the limit out of the way: twice the payload and 4 KiB, however it is cut."""
    count = 10_000
    # Without pings, which would end the silence sooner.
    arena = hostile(limits=Limits(max_fragments=2 * count, ping_interval=None))
    offender = arena.offender()
    push(offender, FIRST)
    wire = one_byte_fragments(count)
    with measured() as memory:
        push(offender, wire, size=1400)
    memory.assert_held_below(2 * count + 4 * KIB)
    memory.assert_peak_below(2 * count + 16 * KIB)
    arena.pass_time(59)
    assert offender.connection.is_open
    arena.pass_time(1.1)
    arena.expect_fail(offender, 1008, Cause.MESSAGE_TIMEOUT)


def test_h57_empty_fragments_without_end_are_counted(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    offender.send([on_wire("02 00", b"", is_masked=True)])
    offender.send([on_wire("00 00", b"", is_masked=True) * 4_095])
    assert offender.connection.is_open
    offender.send([on_wire("00 00", b"", is_masked=True)])
    arena.expect_fail(offender, 1008, Cause.TOO_MANY_FRAGMENTS)


# What is cheap when little has arrived must be as cheap when much has.
TRICKLES = {
    "H58-fragments": (
        {"little": "02 01", "much": "02 7f 00 00 00 00 00 0e 00 00"},
        one_byte_fragments(5_000),
        7,
    ),
    "H59-one-byte-reads": (
        dict.fromkeys(("little", "much"), "82 7f 00 00 00 00 00 0f 00 00"),
        bytes(5_000),
        1,
    ),
}


@pytest.mark.parametrize("name", TRICKLES)
def test_the_work_does_not_grow_with_what_has_arrived(hostile: Besiege, name: str) -> None:
    """The trickle behind 900 kB costs what it costs behind one byte; so the whole is linear."""
    arena = hostile(limits=Limits(max_fragments=10**6))
    header, trickle, step = TRICKLES[name]
    counts = {"little": 1, "much": 0xE0000}
    arrived = {
        kind: on_wire(header[kind], bytes(count), is_masked=True) for kind, count in counts.items()
    }
    seconds = {"little": 1e9, "much": 1e9}
    for _ in range(3):
        for kind, wire in arrived.items():
            offender = arena.offender()
            push(offender, wire)
            begin = time.process_time()
            push(offender, trickle, size=step)
            seconds[kind] = min(seconds[kind], time.process_time() - begin)
            assert offender.connection.is_open
            offender.leave()
    assert seconds["much"] < 4 * seconds["little"] + 0.02


def test_h59_one_byte_reads_leave_one_growing_buffer(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    size = 16 * KIB - 1
    wire = on_wire(f"82 7e {size >> 8:02x} {size & 255:02x}", bytes(size), is_masked=True)
    with measured() as memory:
        push(offender, wire[:-1], size=1)
    memory.assert_held_below(2 * size + 4 * KIB)
    memory.assert_peak_below(2 * size + 8 * KIB)
    offender.send([wire[-1:]])
    arena.expect_open(offender, [bytes(size)])


def test_h60_a_fragment_now_and_then_does_not_keep_a_message_alive(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    offender.send([FIRST])
    for _ in range(3):
        arena.pass_time(19)
        assert offender.connection.is_open
        offender.send([one_byte_fragments(1)])
    arena.pass_time(2.9)
    assert offender.connection.is_open
    arena.pass_time(0.2)
    arena.expect_fail(offender, 1008, Cause.MESSAGE_TIMEOUT)


def test_h61_a_burst_of_tiny_frames_lets_the_others_run(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    count = 50_000
    offender.peer.send_bytes(on_wire("81 01", b"x", is_masked=True) * count)
    arena.stage.reactor.run_once(0)
    arena.healthy.send_frame(Opcode.PING, b"now?")
    for _ in range(2):
        before = len(offender.connection.events)
        arena.stage.reactor.run_once(0)
        assert len(offender.connection.events) - before <= 2 * arena.limits.turn_frames
    assert arena.healthy.receive() == [(PONG, b"now?")]
    for _ in range(count // arena.limits.turn_frames + 10):
        arena.stage.reactor.run_once(0)
    arena.expect_open(offender, ["x"] * count)


def test_h53_nothing_is_allocated_for_a_length_that_was_only_declared(hostile: Besiege) -> None:
    """Also where the limit allows the length."""
    arena = hostile(limits=Limits(max_message_size=2**41))
    offender = arena.offender()
    wire = on_wire("82 7f 00 00 01 00 00 00 00 00", b"some", is_masked=True)
    with measured() as memory:
        push(offender, wire)
    memory.assert_peak_below(16 * KIB)
    assert offender.connection.is_open
    offender.leave()
    arena.expect_over(offender, Cause.PEER_EOF, 1006)


# --- pings and pongs --------------------------------------------------------------------------


def test_h73_a_flood_of_pings_fails_the_connection(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    wire = on_wire("89 64", b"p" * 100, is_masked=True) * 60_000
    for at in range(0, len(wire), 256 * KIB):
        offender.peer.send_bytes(wire[at : at + 256 * KIB])
        arena.stage.reactor.run_once(0)
        if our_socket(offender.peer).is_closed:
            break
    arena.stage.settle()
    assert offender.peer.received_close() == (1008, "too many control frames")
    assert offender.peer.frames[:-1] == [(PONG, b"p" * 100)] * arena.limits.control_burst
    # So much input is more than the linger takes.
    arena.expect_over(offender, Cause.RATE_LIMITED, 1008)


def test_h73_to_a_peer_that_does_not_read_one_pong_is_owed(hostile: Besiege) -> None:
    """Without the rate, too: what waits to be sent are the pongs of two turns, and one."""
    arena = hostile(limits=Limits(control_rate=None))
    offender = arena.offender()
    offender.peer.sock.capacity = 4096
    wire = on_wire("89 64", b"p" * 100, is_masked=True) * 600
    peak = 0
    for _ in range(40):
        offender.peer.send_bytes(wire)
        for _ in range(11):
            arena.stage.reactor.run_once(0)
        transport = offender.connection._transport
        assert transport is not None
        peak = max(peak, transport.get_write_buffer_size())
    assert peak <= (2 * 64 + 1) * 102
    arena.check_healthy()
    arena.stage.settle()
    last = MASKED.encode_frame(Frame(Opcode.PING, b"the latest"))
    offender.send([last, last])
    while offender.peer.sock.inbox:
        offender.peer.receive()
        arena.stage.settle()
    assert offender.peer.frames.count((PONG, b"the latest")) == 1
    assert offender.peer.frames[-1] == (PONG, b"the latest")
    arena.expect_open(offender, [])


def test_h74_only_a_matching_pong_measures_the_latency(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offender()
    connection = offender.connection
    connection.ping(b"old")
    connection.ping(b"new")
    arena.pass_time(1)
    for payload in (b"", b"other", b"old"):
        offender.peer.send_frame(PONG, payload)
        arena.stage.settle()
        assert connection.latency is None
    offender.peer.send_frame(PONG, b"new")
    arena.stage.settle()
    assert connection.latency == pytest.approx(1.0, abs=0.2)
    measured_latency = connection.latency
    arena.pass_time(1)
    offender.peer.send_frame(PONG, b"new")
    arena.stage.settle()
    assert connection.latency == measured_latency
    assert offender.peer.receive() == [(PING, b"old"), (PING, b"new")]
    arena.expect_open(offender, [])


INBOUND = {
    "H74-pong-of-another-ping": on_wire("8a 03", b"any", is_masked=True),
    "H74-part-of-a-frame": b"\x82",
}


@pytest.mark.parametrize("name", INBOUND)
def test_any_byte_satisfies_the_deadline_of_a_ping(hostile: Besiege, name: str) -> None:
    arena = hostile()
    offender = arena.offender()
    arena.pass_time(39)
    assert [opcode for opcode, _ in offender.peer.receive()] == [PING]
    offender.send([INBOUND[name]])
    arena.pass_time(19)
    assert offender.connection.is_open
    arena.pass_time(22)
    assert offender.connection.state is State.CLOSED
    assert offender.peer.received_close() == (1011, "no answer to a ping")
    arena.expect_over(offender, Cause.PING_TIMEOUT, 1011)
