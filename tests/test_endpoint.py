from __future__ import annotations

from typing import Any

import pytest
from reactions import (
    assert_over,
    both_roles,
    congest,
    drain,
    encode,
    our_socket,
    reacting,
)
from support import Peer, Recorder, Stage, close_events

from websocket import Cause, Frame, Limits, PolicyViolation, State
from websocket.frame import build_close
from websocket.frame_writer import FrameWriter
from websocket.opcodes import Opcode

PING = Frame(Opcode.PING, b"ping")
GOODBYE = Frame(Opcode.CLOSE, build_close(1000))
# A first octet that no frame may have.
RUBBISH = b"\x83"
QUIET = Limits(ping_interval=None)


def fragment(opcode: int, payload: bytes, *, fin: bool = False) -> Frame:
    return Frame(opcode, payload, fin=fin)


# --- messages and fragments -----------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "hello", "grüße €", b"", b"\x00\xff", "x" * 65_536])
@both_roles
def test_a_message_is_handed_on(stage: Stage, is_client: bool, message: Any) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send(message)
    stage.settle()
    assert connection.events == [("open",), ("message", message)]
    assert type(connection.messages[0]) is type(message)


@pytest.mark.parametrize("is_dripping", [False, True], ids=["whole", "byte by byte"])
@both_roles
def test_control_frames_between_fragments_come_first_and_the_message_stays_whole(
    stage: Stage, is_client: bool, is_dripping: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    data = encode(
        not is_client,
        "before",
        fragment(Opcode.TEXT, b"gr\xc3"),
        Frame(Opcode.PING, b"1"),
        fragment(Opcode.CONTINUATION, b"\xbc"),
        Frame(Opcode.PONG, b"2"),
        Frame(Opcode.PING, b"3"),
        fragment(Opcode.CONTINUATION, b""),
        fragment(Opcode.CONTINUATION, b"n", fin=True),
        b"after",
    )
    for piece in [data[at : at + 1] for at in range(len(data))] if is_dripping else [data]:
        peer.send_bytes(piece)
        stage.settle()
    assert connection.events == [
        ("open",),
        ("message", "before"),
        ("ping", b"1"),
        ("pong", b"2"),
        ("ping", b"3"),
        ("message", "grün"),
        ("message", b"after"),
    ]
    assert peer.receive() == [(Opcode.PONG, b"1"), (Opcode.PONG, b"3")]


# --- fairness -------------------------------------------------------------------------------


def messages_per_turn(stage: Stage, connection: Recorder) -> list[int]:
    """Run turns until all is quiet; return how many messages each of them brought."""
    counts = []
    while stage.reactor.next_timeout() == 0 or stage.reactor._selector.select(0):
        before = len(connection.messages)
        stage.reactor.run_once(0)
        counts.append(len(connection.messages) - before)
    return counts


@both_roles
def test_a_burst_of_frames_waits_for_others_after_each_budget(
    stage: Stage, is_client: bool
) -> None:
    order: list[str] = []
    noting = reacting(message=lambda _, message: order.append(message))
    greedy, greedy_peer = stage.connection(noting, is_client=is_client, limits=QUIET)
    modest, modest_peer = stage.connection(noting, is_client=is_client, limits=QUIET)
    greedy_peer.send_bytes(encode(not is_client, "g") * 5_000)
    modest_peer.send("m")
    counts = messages_per_turn(stage, greedy)
    assert order.index("m") <= greedy.limits.turn_frames
    # The first turn may see a second helping: after all others have had theirs.
    assert max(counts) <= 2 * greedy.limits.turn_frames
    assert max(counts[1:]) <= greedy.limits.turn_frames
    assert greedy.messages == ["g"] * 5_000
    assert modest.messages == ["m"]


def test_pausing_and_resuming_brings_no_second_budget(stage: Stage) -> None:
    def shake(connection: Recorder, _: object) -> None:
        for _ in range(3):
            connection.pause()
            connection.resume()

    limits = Limits(ping_interval=None, turn_frames=4)
    connection, peer = stage.connection(reacting(message=shake), limits=limits)
    peer.send_bytes(encode(True, *map(str, range(100))))
    counts = messages_per_turn(stage, connection)
    assert max(counts) <= 8
    assert max(counts[1:]) <= 4
    assert connection.messages == [str(number) for number in range(100)]


def test_close_within_a_burst_ends_it_and_the_answer_behind_it_is_found(stage: Stage) -> None:
    def close_at_ten(connection: Recorder, message: str) -> None:
        if message == "10":
            connection.close()

    limits = Limits(ping_interval=None, turn_frames=4)
    connection, peer = stage.connection(reacting(message=close_at_ten), limits=limits)
    peer.send_bytes(encode(True, *map(str, range(100)), GOODBYE))
    stage.settle()
    assert connection.messages == [str(number) for number in range(11)]
    assert close_events(connection) == (Cause.CLOSED_BY_US, ("close", 1000, ""))
    assert connection.is_clean
    assert_over(stage, connection, peer)


def test_an_end_of_stream_behind_a_burst_waits_for_it(stage: Stage) -> None:
    connection, peer = stage.connection(limits=QUIET)
    peer.send_bytes(encode(True, "x") * 1_000)
    peer.sock.end()
    stage.settle()
    assert len(connection.messages) == 1_000
    assert close_events(connection)[0] is Cause.PEER_EOF


# --- pings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"p", b"x" * 125])
@both_roles
def test_a_ping_is_answered_with_its_payload(stage: Stage, is_client: bool, payload: bytes) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_frame(Opcode.PING, payload)
    stage.settle()
    assert peer.receive() == [(Opcode.PONG, payload)]
    assert connection.events == [("open",), ("ping", payload)]


def test_the_pong_leaves_before_what_on_ping_sends(stage: Stage) -> None:
    connection, peer = stage.connection(reacting(ping=lambda each, _: each.send("pinged")))
    peer.send_frame(Opcode.PING, b"1")
    stage.settle()
    assert peer.receive() == [(Opcode.PONG, b"1"), (Opcode.TEXT, "pinged")]
    assert connection.is_open


@both_roles
def test_while_congested_only_the_last_ping_is_owed_a_pong(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    congest(connection, peer)
    size = connection._transport.get_write_buffer_size()
    for number in range(40):
        peer.send_frame(Opcode.PING, b"%d" % number)
        stage.settle()
    assert connection._transport.get_write_buffer_size() == size
    assert drain(stage, peer) == [(Opcode.PONG, b"39")]
    assert connection.events[-1] == ("writable",)
    # From here on each is answered again.
    peer.send_frame(Opcode.PING, b"40")
    assert drain(stage, peer) == [(Opcode.PONG, b"40")]


def test_without_a_ping_no_pong_is_owed(stage: Stage) -> None:
    connection, peer = stage.connection()
    congest(connection, peer)
    assert drain(stage, peer) == []
    assert connection.events == [("open",), ("writable",)]


def test_a_flood_of_pings_that_nobody_reads_the_answers_of_fills_no_memory(stage: Stage) -> None:
    limits = Limits(control_rate=None, ping_interval=None)
    connection, peer = stage.connection(limits=limits, capacity=4096)
    flood = encode(True, Frame(Opcode.PING, b"p" * 100)) * 2_000
    for _ in range(30):
        peer.send_bytes(flood)
        stage.settle()
        assert connection._transport.get_write_buffer_size() <= limits.write_soft_mark + 102
    assert connection.is_open
    pongs = drain(stage, peer)
    assert len(pongs) < 700
    assert set(pongs) == {(Opcode.PONG, b"p" * 100)}


# --- pongs ----------------------------------------------------------------------------------


@both_roles
def test_only_the_matching_pong_of_the_last_ping_measures(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)

    def pong(payload: bytes) -> float | None:
        stage.pass_time(1)
        peer.send_frame(Opcode.PONG, payload)
        stage.settle()
        latency: float | None = connection.latency
        return latency

    assert pong(b"unsolicited") is None
    connection.ping(b"older")
    stage.pass_time(1)
    connection.ping(b"newer")
    assert pong(b"wrong") is None
    assert pong(b"") is None
    assert pong(b"older") is None
    assert pong(b"newer") == pytest.approx(4)
    # Not measured twice.
    assert pong(b"newer") == pytest.approx(4)
    assert connection.is_open
    assert [event[0] for event in connection.events] == ["open"] + ["pong"] * 6


# --- rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
@both_roles
def test_control_frames_are_limited_to_their_rate_exactly(
    stage: Stage, is_client: bool, opcode: Opcode
) -> None:
    limits = Limits(control_rate=4.0, control_burst=3, ping_interval=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits)
    for _ in range(3):
        peer.send_frame(opcode)
    stage.settle()
    stage.pass_time(0.25)
    peer.send_frame(opcode)
    stage.settle()
    assert connection.is_open
    stage.pass_time(0.24)
    peer.send("good")
    peer.send_frame(opcode, b"one too many")
    peer.send("not handled")
    stage.settle()
    assert peer.received_close() == (1008, "too many control frames")
    assert connection.messages == ["good"]
    assert ("ping", b"one too many") not in connection.events
    peer.sock.end()
    stage.settle()
    assert close_events(connection)[0] is Cause.RATE_LIMITED
    assert_over(stage, connection, peer)


@both_roles
def test_the_answer_to_our_own_ping_does_not_count_as_a_control_frame(
    stage: Stage, is_client: bool
) -> None:
    limits = Limits(control_rate=1.0, control_burst=1, ping_interval=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits)
    for number in range(5):
        connection.ping(b"%d" % number)
        stage.settle()
        peer.send_frame(Opcode.PONG, b"%d" % number)
        stage.settle()
    peer.send_frame(Opcode.PONG, b"4")
    stage.settle()
    assert connection.is_open
    peer.send_frame(Opcode.PONG, b"4")
    stage.settle()
    assert peer.received_close() == (1008, "too many control frames")


def test_messages_and_closes_do_not_count_as_control_frames(stage: Stage) -> None:
    limits = Limits(control_rate=1.0, control_burst=1, ping_interval=None)
    connection, peer = stage.connection(limits=limits)
    peer.send_bytes(encode(True, *["x"] * 50, PING, GOODBYE))
    stage.settle()
    assert close_events(connection) == (Cause.CLOSED_BY_PEER, ("close", 1000, ""))


@both_roles
def test_messages_are_limited_to_their_rate_exactly(stage: Stage, is_client: bool) -> None:
    limits = Limits(message_rate=4.0, message_burst=3, ping_interval=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits)
    peer.send_bytes(encode(not is_client, "1", b"2", "3", PING))
    stage.settle()
    stage.pass_time(0.25)
    peer.send_bytes(encode(not is_client, fragment(Opcode.TEXT, b"4"), fragment(0, b"", fin=True)))
    stage.settle()
    assert connection.messages == ["1", b"2", "3", "4"]
    stage.pass_time(0.5)
    peer.send_bytes(encode(not is_client, "5", "6", "too many", "not handled"))
    stage.settle()
    assert connection.messages == ["1", b"2", "3", "4", "5", "6"]
    assert connection._statistics.messages_in == 6
    assert peer.received_close() == (1008, "too many messages")
    assert connection.events[-1] == ("error", PolicyViolation, "too many messages")
    peer.sock.end()
    stage.settle()
    assert close_events(connection) == (Cause.RATE_LIMITED, ("close", 1008, "too many messages"))


def test_messages_are_not_limited_by_default(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.send_bytes(encode(True, "x") * 2_000)
    stage.settle()
    assert len(connection.messages) == 2_000


# --- pausing --------------------------------------------------------------------------------


@both_roles
def test_a_paused_connection_holds_everything_back_in_order(stage: Stage, is_client: bool) -> None:
    def pause_at_two(connection: Recorder, message: str) -> None:
        if message == "2":
            connection.pause()

    connection, peer = stage.connection(reacting(message=pause_at_two), is_client=is_client)
    peer.send_bytes(encode(not is_client, "1", "2", "3", PING, "4"))
    stage.settle()
    peer.send("5")
    stage.settle()
    assert connection.messages == ["1", "2"]
    # What came after the pause lies in the kernel: the peer has to wait.
    assert our_socket(peer).inbox
    assert peer.receive() == []

    connection.resume()
    assert connection.messages == ["1", "2"]
    peer.send("6")
    stage.settle()
    assert connection.events[3:] == [
        ("message", "3"),
        ("ping", b"ping"),
        ("message", "4"),
        ("message", "5"),
        ("message", "6"),
    ]
    assert peer.receive() == [(Opcode.PONG, b"ping")]


def test_a_connection_may_be_paused_before_anything_comes(stage: Stage) -> None:
    connection, peer = stage.connection(reacting(open=lambda each: each.pause()))
    peer.send("held")
    stage.settle()
    assert connection.messages == []
    connection.resume()
    connection.resume()
    stage.settle()
    assert connection.messages == ["held"]


def test_what_came_with_the_handshake_is_held_for_a_connection_that_paused_in_on_open(
    stage: Stage,
) -> None:
    connection, peer = stage.connection(reacting(open=lambda each: each.pause()))
    # As upgrade.py does it with what followed the request.
    connection.data_received(memoryview(encode(True, "1", fragment(Opcode.TEXT, b"2"))))
    stage.pass_time(1_000)
    assert connection.events == [("open",)]
    connection.resume()
    peer.send_bytes(encode(True, fragment(Opcode.CONTINUATION, b"!", fin=True)))
    stage.settle()
    assert connection.messages == ["1", "2!"]


def test_resume_inside_on_message_changes_nothing(stage: Stage) -> None:
    connection, peer = stage.connection(reacting(message=lambda each, _: each.resume()))
    peer.send_bytes(encode(True, "1", "2"))
    stage.settle()
    assert connection.messages == ["1", "2"]


def test_pause_and_resume_inside_on_message_change_nothing(stage: Stage) -> None:
    def blink(connection: Recorder, _: object) -> None:
        connection.pause()
        connection.resume()

    connection, peer = stage.connection(reacting(message=blink))
    peer.send_bytes(encode(True, "1", "2"))
    stage.settle()
    peer.send("3")
    stage.settle()
    assert connection.messages == ["1", "2", "3"]


def test_one_message_at_a_time(stage: Stage) -> None:
    # The pattern of a handler that gives each message to a thread.
    connection, peer = stage.connection(reacting(message=lambda each, _: each.pause()))
    peer.send_bytes(encode(True, *map(str, range(200))))
    for number in range(200):
        stage.settle()
        assert len(connection.messages) == number + 1
        connection.resume()
    assert connection.messages == [str(number) for number in range(200)]


def test_silence_in_a_pause_is_not_held_against_the_peer(stage: Stage) -> None:
    connection, peer = stage.connection()
    stage.pass_time(30)
    assert [opcode for opcode, _ in peer.receive()] == [Opcode.PING]
    connection.pause()
    stage.pass_time(1_000)
    assert peer.receive() == []
    connection.resume()
    stage.pass_time(19)
    assert (connection.state, peer.receive()) == (State.OPEN, [])
    stage.pass_time(2)
    assert [opcode for opcode, _ in peer.receive()] == [Opcode.PING]
    stage.pass_time(20)
    assert close_events(connection)[0] is Cause.PING_TIMEOUT


def test_a_message_may_take_longer_by_a_pause(stage: Stage) -> None:
    limits = Limits(message_timeout=60.0, ping_interval=None)
    connection, peer = stage.connection(limits=limits)
    peer.send_frame(Opcode.TEXT, b"be", fin=False)
    stage.pass_time(50)
    connection.pause()
    peer.send_frame(Opcode.CONTINUATION, b"gi")
    stage.pass_time(100)
    assert connection.is_open
    connection.resume()
    stage.settle()
    assert connection.messages == ["begi"]
    peer.send_frame(Opcode.TEXT, b"be", fin=False)
    stage.settle()
    connection.pause()
    stage.pass_time(100)
    connection.resume()
    stage.pass_time(59)
    assert connection.is_open
    stage.pass_time(2)
    assert peer.received_close() == (1008, "message took too long")


@pytest.mark.parametrize("is_reset", [False, True], ids=["end", "reset"])
def test_the_end_of_the_stream_is_noticed_after_the_pause(stage: Stage, is_reset: bool) -> None:
    connection, peer = stage.connection()
    connection.pause()
    peer.send("last")
    if is_reset:
        peer.sock.reset()
    else:
        peer.sock.end()
    stage.pass_time(100)
    assert connection.events == [("open",)]
    connection.resume()
    stage.settle()
    cause = Cause.PEER_RESET if is_reset else Cause.PEER_EOF
    assert close_events(connection) == (cause, ("close", 1006, ""))
    assert connection.messages == ([] if is_reset else ["last"])
    assert_over(stage, connection, peer)


@both_roles
def test_close_ends_a_pause_so_that_the_answer_is_read(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.pause()
    peer.send_bytes(encode(not is_client, "dropped"))
    connection.close()
    connection.pause()
    peer.close()
    peer.sock.end()
    stage.settle()
    assert connection.events == [("open",), ("close", 1000, "")]
    assert connection.is_clean
    assert_over(stage, connection, peer)


@pytest.mark.parametrize("end", ["abort", "stall"])
def test_resuming_a_connection_that_is_over_does_nothing(stage: Stage, end: str) -> None:
    connection, peer = stage.connection()
    congest(connection, peer)
    peer.send_bytes(encode(True, "1", "2") + RUBBISH)
    connection.pause()
    if end == "abort":
        connection.abort()
    else:
        stage.pass_time(60)
    stage.settle()
    assert_over(stage, connection, peer)
    connection.resume()
    stage.pass_time(100)
    assert_over(stage, connection, peer)
    assert connection.messages == []


def test_pausing_before_the_opening_has_no_effect(stage: Stage) -> None:
    class Early(Recorder):
        __slots__ = ()

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.pause()

    connection, peer = stage.connection(Early)
    peer.send("hello")
    stage.settle()
    assert connection.messages == ["hello"]


# --- errors behind messages -----------------------------------------------------------------


@both_roles
def test_messages_before_an_error_in_the_same_read_are_good(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client, limits=Limits(turn_frames=4))
    peer.send_bytes(encode(not is_client, *map(str, range(10)), PING) + RUBBISH)
    peer.send_bytes(encode(not is_client, "behind"))
    stage.settle()
    assert connection.messages == [str(number) for number in range(10)]
    assert peer.receive()[0] == (Opcode.PONG, b"ping")
    assert [event[0] for event in connection.events[-2:]] == ["ping", "error"]


@pytest.mark.parametrize("paused_at", ["1", "3"])
@both_roles
def test_an_error_behind_a_pause_comes_after_it(
    stage: Stage, is_client: bool, paused_at: str
) -> None:
    def pause(connection: Recorder, message: str) -> None:
        if message == paused_at:
            connection.pause()

    connection, peer = stage.connection(reacting(message=pause), is_client=is_client)
    peer.send_bytes(encode(not is_client, "1", "2", "3") + RUBBISH * 2)
    stage.pass_time(100)
    assert connection.is_open
    assert connection.messages[-1] == paused_at
    connection.resume()
    stage.settle()
    assert connection.messages == ["1", "2", "3"]
    code = peer.received_close()
    assert code is not None
    assert code[0] == 1002
    peer.sock.end()
    stage.settle()
    assert_over(stage, connection, peer)


def test_a_close_of_ours_before_the_error_is_handled_stays_the_only_one(stage: Stage) -> None:
    connection, peer = stage.connection(reacting(message=lambda each, _: each.close(4000)))
    peer.send_bytes(encode(True, "1") + RUBBISH * 2)
    stage.settle()
    assert peer.received_close() == (4000, "")
    peer.sock.end()
    stage.settle()
    # The peer has not answered: its error is why this ended. on_error is for what ends a
    # connection that is open.
    assert close_events(connection) == (Cause.PROTOCOL_ERROR, ("close", 4000, ""))
    assert [event[0] for event in connection.events] == ["open", "message", "close"]


# --- after the close ------------------------------------------------------------------------


@both_roles
def test_whatever_follows_the_peers_close_is_ignored(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    rest = encode(not is_client, "data", PING, Frame(Opcode.CLOSE, build_close(3000))) + RUBBISH
    peer.send_bytes(encode(not is_client, "1", GOODBYE) + rest)
    stage.settle()
    if is_client:
        # A client waits for the server to close the stream; here it goes on instead.
        peer.send_bytes(rest)
        stage.settle()
    peer.sock.end()
    stage.settle()
    assert connection.events == [("open",), ("message", "1"), ("close", 1000, "")]
    assert peer.receive() == [(Opcode.CLOSE, build_close(1000))]
    assert connection.is_clean
    assert_over(stage, connection, peer)


@both_roles
def test_whatever_comes_between_our_close_and_the_peers_is_ignored(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.close()
    stage.settle()
    peer.send_bytes(encode(not is_client, "data", PING, Frame(Opcode.PONG), b"more"))
    stage.settle()
    peer.send_bytes(encode(not is_client, *[PING] * 200))
    stage.settle()
    assert peer.receive() == [(Opcode.CLOSE, build_close(1000))]
    assert connection.events == [("open",)]
    peer.close()
    peer.sock.end()
    stage.settle()
    assert connection.events == [("open",), ("close", 1000, "")]
    assert_over(stage, connection, peer)


# --- frames that were encoded before --------------------------------------------------------


def test_one_encoded_frame_goes_to_many(stage: Stage) -> None:
    frame = FrameWriter(masks=False).encode(Opcode.TEXT | 0x80, b"to all")
    pairs: list[tuple[Recorder, Peer]] = [stage.connection() for _ in range(3)]
    pairs[1][0].close()
    assert [connection.send_encoded(frame) for connection, _ in pairs] == [True, False, True]
    stage.settle()
    assert [peer.receive()[0][0] for _, peer in pairs] == [Opcode.TEXT, Opcode.CLOSE, Opcode.TEXT]


@pytest.mark.parametrize("ending", ["good", "bad"])
def test_nothing_is_handled_behind_the_end_of_the_stream(stage: Stage, ending: str) -> None:
    """A burst that takes several turns, a close frame behind it, and then a reset."""
    payload = build_close(1000) if ending == "good" else b"x"
    for turns in range(1, 5):
        connection, peer = stage.connection()
        for _ in range(3 * Limits().turn_frames):
            peer.send_frame(Opcode.BINARY, b"x")
        peer.send_frame(Opcode.CLOSE, payload)
        for _ in range(turns):
            stage.reactor.run_once(0)
        peer.sock.reset()
        stage.settle()
        handled = len(connection.messages)
        assert connection.state is State.CLOSED
        stage.settle()
        assert len(connection.messages) == handled
        assert connection.events[-1][0] == "close"
