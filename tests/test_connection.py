from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from reactions import (
    EVENTS,
    assert_idle,
    assert_over,
    both_roles,
    congest,
    drain,
    encode,
    our_socket,
    provoke,
    reacting,
)
from support import Peer, Recorder, Stage, close_events

from reactor import Protocol
from websocket import Cause, Connection, ConnectionClosed, Frame, InvalidState, Limits, State
from websocket.frame import build_close
from websocket.opcodes import Opcode

SURROGATE = "\ud800"


def connecting(stage: Stage, ended: list[Any] | None = None) -> Recorder:
    """Return a client's connection whose opening handshake is not over."""
    on_end = None if ended is None else ended.append
    return Recorder(stage.reactor, Limits(), is_client=True, on_end=on_end)


def in_thread(function: Callable[[], object]) -> Any:
    """Call a function in another thread and return what it returned."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


# --- sending --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "received"),
    [
        ("", (Opcode.TEXT, "")),
        ("grüße €", (Opcode.TEXT, "grüße €")),
        (b"", (Opcode.BINARY, b"")),
        (b"\x00\xff", (Opcode.BINARY, b"\x00\xff")),
        (bytearray(b"array"), (Opcode.BINARY, b"array")),
        (memoryview(b"a view of it")[2:6], (Opcode.BINARY, b"view")),
        (memoryview(b"12345678").cast("I"), (Opcode.BINARY, b"12345678")),
        ("x" * 126, (Opcode.TEXT, "x" * 126)),
        (b"y" * 70_000, (Opcode.BINARY, b"y" * 70_000)),
    ],
)
@both_roles
def test_text_and_anything_bytes_like_is_sent_as_one_message(
    stage: Stage, is_client: bool, message: Any, received: tuple[int, Any]
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    assert connection.send(message) is True
    stage.settle()
    assert peer.receive() == [received]
    assert connection._statistics.messages_out == 1


def test_what_the_caller_changes_after_send_is_not_what_is_sent(stage: Stage) -> None:
    connection, peer = stage.connection()
    message, ping = bytearray(b"before"), bytearray(b"ping")
    connection.send(message)
    connection.send(memoryview(message))
    connection.ping(ping)
    message[:] = b"after!"
    ping[:] = b"gnip"
    stage.settle()
    assert peer.receive() == [
        (Opcode.BINARY, b"before"),
        (Opcode.BINARY, b"before"),
        (Opcode.PING, b"ping"),
    ]


def test_a_turns_messages_leave_together_in_one_call(stage: Stage) -> None:
    connection, peer = stage.connection()
    for number in range(10):
        connection.send(str(number))
    assert not peer.sock.inbox
    stage.settle()
    assert our_socket(peer).sent_sizes == [30]
    assert [message for _, message in peer.receive()] == list("0123456789")


def test_json_is_sent_as_short_text(stage: Stage) -> None:
    connection, peer = stage.connection()
    assert connection.send_json({"a": [1, None, "ü"], "b": {}}) is True
    stage.settle()
    assert peer.receive() == [(Opcode.TEXT, '{"a":[1,null,"\\u00fc"],"b":{}}')]


@pytest.mark.parametrize(
    ("misuse", "error"),
    [
        (lambda c: c.send(1), TypeError),
        (lambda c: c.send(None), TypeError),
        (lambda c: c.send([b"x"]), TypeError),
        (lambda c: c.send(SURROGATE), ValueError),
        (lambda c: c.send_json(object()), TypeError),
        (lambda c: c.send_json(float("nan")), ValueError),
        (lambda c: c.ping(b"x" * 126), ValueError),
        (lambda c: c.ping(memoryview(bytes(128)).cast("I")), ValueError),
        (lambda c: c.ping("text"), TypeError),
        (lambda c: c.ping(5), TypeError),
        *(
            (lambda c, code=code: c.close(code), ValueError)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536)
        ),
        (lambda c: c.close(1000, "x" * 124), ValueError),
        (lambda c: c.close(1000, "ü" * 62), ValueError),
        (lambda c: c.close(1000, SURROGATE), ValueError),
        (lambda c: c.end(Cause.SHUTDOWN, 1001, "x" * 124), ValueError),
        (lambda c: c.end(Cause.SHUTDOWN, 1006, ""), ValueError),
        (lambda c: c.end(Cause.SHUTDOWN, None, "a reason without a code"), ValueError),
    ],
)
def test_misuse_raises_before_anything_happens(
    stage: Stage, misuse: Callable[[Connection], object], error: type[Exception]
) -> None:
    connection, peer = stage.connection()
    with pytest.raises(error):
        misuse(connection)
    stage.settle()
    assert (connection.state, connection.cause) == (State.OPEN, None)
    assert not peer.sock.inbox
    assert connection.send("still here")
    connection.close(1000, "x" * 123)
    stage.settle()
    assert peer.received_close() == (1000, "x" * 123)


def test_nothing_is_sent_on_a_connection_that_is_not_open(stage: Stage) -> None:
    def try_all(connection: Recorder, *_: object) -> None:
        outcomes.append((connection.send("x"), connection.send_json(1), connection.ping()))

    outcomes: list[tuple[bool, bool, bool]] = []
    connection = connecting(stage)
    try_all(connection)
    closing, peer = stage.connection(reacting(close=try_all, error=try_all))
    closing.close()
    try_all(closing)
    stage.settle()
    assert [opcode for opcode, _ in peer.receive()] == [Opcode.CLOSE]
    peer.close()
    stage.settle()
    reset, peer = stage.connection(reacting(close=try_all, error=try_all))
    peer.sock.reset()
    stage.settle()
    assert reset.events[-2][0] == "error"
    aborted, peer = stage.connection()
    aborted.abort()
    try_all(aborted)
    stage.settle()
    assert not peer.receive()
    ended, peer = stage.connection(reacting(close=try_all))
    peer.sock.end()
    stage.settle()
    assert ended.cause is Cause.PEER_EOF
    assert outcomes == [(False, False, False)] * 7


def test_a_stream_that_has_ended_takes_no_message_while_it_is_being_flushed(stage: Stage) -> None:
    connection, peer = stage.connection()
    congest(connection, peer)
    peer.sock.end()
    stage.settle()
    assert connection.state is State.CLOSING
    assert connection.send("lost") is False


# --- ping -----------------------------------------------------------------------------------


@both_roles
def test_a_ping_measures_the_latency(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    assert (connection.last_ping, connection.latency) == (None, None)
    assert connection.ping(b"x" * 125) is True
    assert connection.last_ping == stage.reactor.time
    stage.settle()
    assert peer.receive() == [(Opcode.PING, b"x" * 125)]
    stage.pass_time(0.25)
    peer.send_frame(Opcode.PONG, b"x" * 125)
    stage.settle()
    assert connection.latency == pytest.approx(0.25)
    assert connection.events == [("open",), ("pong", b"x" * 125)]


def test_a_ping_may_be_empty(stage: Stage) -> None:
    connection, peer = stage.connection()
    connection.ping()
    stage.settle()
    assert peer.receive() == [(Opcode.PING, b"")]


# --- close ----------------------------------------------------------------------------------


@both_roles
def test_close_starts_the_closing_handshake_and_only_the_first_call_counts(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.close(4001, "first")
    assert (connection.state, connection.is_open) == (State.CLOSING, False)
    connection.close(4002, "second")
    connection.end(Cause.SHUTDOWN, 1001, "third")
    stage.settle()
    assert peer.received_close() == (4001, "first")
    peer.close(4001)
    peer.sock.end()
    stage.settle()
    connection.close(4003, "fourth")
    assert close_events(connection) == (Cause.CLOSED_BY_US, ("close", 4001, "first"))
    assert connection.is_clean
    assert_over(stage, connection, peer)


def test_a_close_frame_has_the_code_1000_by_default(stage: Stage) -> None:
    connection, peer = stage.connection()
    connection.close()
    stage.settle()
    assert peer.received_close() == (1000, "")


def test_end_may_send_a_close_frame_without_a_code(stage: Stage) -> None:
    connection, peer = stage.connection()
    connection.end(Cause.CLOSED_BY_US, None, "")
    stage.settle()
    assert peer.received_close() == (None, "")
    peer.close(None)
    stage.settle()
    assert close_events(connection) == (Cause.CLOSED_BY_US, ("close", 1005, ""))


@pytest.mark.parametrize("method", ["close", "abort"])
def test_giving_up_while_connecting_ends_without_a_word(stage: Stage, method: str) -> None:
    ended: list[Any] = []
    connection = connecting(stage, ended)
    getattr(connection, method)()
    assert connection.state is State.CLOSED
    cause = connection.cause
    assert cause is {"close": Cause.CLOSED_BY_US, "abort": Cause.ABORTED}[method]
    connection.abort()
    connection.close()
    connection.refuse(OSError("too late"), Cause.CONNECT_FAILED)
    assert connection.cause is cause
    assert ended == [connection]
    assert connection.events == []
    assert not connection.is_clean


# --- abort ----------------------------------------------------------------------------------


@both_roles
def test_abort_drops_the_connection_without_a_close_frame(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.send("never sent")
    connection.abort()
    assert not connection.is_open
    connection.abort()
    # Neither of these can do anything about it.
    connection.close(4000, "too late")
    connection.resume()
    connection.pause()
    stage.settle()
    assert peer.receive() == []
    assert peer.sock.has_eof
    assert close_events(connection) == (Cause.ABORTED, ("close", 1006, ""))
    assert not connection.is_clean
    assert_over(stage, connection, peer)


def test_abort_ends_a_closing_handshake_that_is_under_way(stage: Stage) -> None:
    connection, peer = stage.connection()
    connection.close(4000, "bye")
    stage.settle()
    connection.abort()
    stage.settle()
    assert close_events(connection) == (Cause.ABORTED, ("close", 4000, "bye"))
    assert not connection.is_clean
    assert_over(stage, connection, peer)


@both_roles
def test_nothing_of_the_same_read_is_handled_after_abort(stage: Stage, is_client: bool) -> None:
    aborting = reacting(message=lambda connection, _: connection.abort())
    connection, peer = stage.connection(aborting, is_client=is_client)
    goodbye = Frame(Opcode.CLOSE, build_close(1000))
    peer.send_bytes(encode(not is_client, "one", "two", Frame(Opcode.PING), goodbye))
    stage.settle()
    assert connection.events == [("open",), ("message", "one"), ("close", 1006, "")]
    assert (connection.cause, connection.is_clean) == (Cause.ABORTED, False)
    assert_over(stage, connection, peer)


@both_roles
def test_no_message_of_the_same_read_is_handled_after_close(stage: Stage, is_client: bool) -> None:
    closing = reacting(message=lambda connection, _: connection.close())
    connection, peer = stage.connection(closing, is_client=is_client)
    goodbye = Frame(Opcode.CLOSE, build_close(1000))
    peer.send_bytes(encode(not is_client, "one", "two", Frame(Opcode.PING), goodbye, "three"))
    peer.sock.end()
    stage.settle()
    assert peer.receive() == [(Opcode.CLOSE, build_close(1000))]
    assert connection.events == [("open",), ("message", "one"), ("close", 1000, "")]
    assert (connection.cause, connection.is_clean) == (Cause.CLOSED_BY_US, True)
    assert_over(stage, connection, peer)


# --- everything from everywhere -------------------------------------------------------------


def send(connection: Recorder) -> None:
    connection.send("from inside")


def send_much(connection: Recorder) -> None:
    for _ in range(3):
        connection.send(b"x" * 100_000)


def ping(connection: Recorder) -> None:
    connection.ping(b"from inside")


def close(connection: Recorder) -> None:
    connection.close(4000, "from inside")


def abort(connection: Recorder) -> None:
    connection.abort()


def pause(connection: Recorder) -> None:
    connection.pause()


def resume(connection: Recorder) -> None:
    connection.resume()


ACTIONS: list[tuple[Callable[[Recorder], None], ...]] = [
    (send,),
    (send_much,),
    (ping,),
    (close,),
    (close, close),
    (abort,),
    (abort, abort),
    (close, abort),
    (abort, close),
    (pause,),
    (pause, resume),
    (resume,),
    (pause, close),
    (close, pause),
    (close, send),
    (abort, send),
]


def name_of(actions: tuple[Callable[[Recorder], None], ...]) -> str:
    return " and ".join(action.__name__ for action in actions)


@pytest.mark.parametrize("actions", ACTIONS, ids=name_of)
@pytest.mark.parametrize("event", EVENTS)
@both_roles
def test_everything_may_be_called_from_every_method(
    stage: Stage,
    is_client: bool,
    event: str,
    actions: tuple[Callable[[Recorder], None], ...],
) -> None:
    depths = [0]

    def react(connection: Recorder, *_: object) -> None:
        depths.append(depths[-1] + 1)
        if count(connection) == 1:
            for action in actions:
                action(connection)
        depths.append(depths[-1] - 1)

    def count(connection: Recorder) -> int:
        return [each[0] for each in connection.events].count(event)

    limits = Limits(ping_interval=None)
    connection, peer = stage.connection(
        reacting(**{event: react}), is_client=is_client, limits=limits
    )
    provoke(stage, event, connection, peer)
    # The closing handshake succeeds whatever happened before, unless the application goes on
    # pausing the connection, or has aborted it.
    connection.resume()
    stage.settle()
    connection.close()
    stage.settle()
    drain(stage, peer)
    peer.close()
    peer.sock.end()
    stage.settle()
    assert count(connection) == 1 or event == "writable"
    # Never from inside itself.
    assert max(depths) == 1
    assert_over(stage, connection, peer)
    if connection.cause is Cause.CLOSED_BY_US:
        assert connection.is_clean
    elif connection.cause is Cause.ABORTED:
        assert abort in actions
    else:
        assert event in {"close", "error"}


@both_roles
def test_close_in_on_open_comes_before_everything_else(stage: Stage, is_client: bool) -> None:
    closing = reacting(open=lambda connection: connection.close(4000))
    connection, peer = stage.connection(closing, is_client=is_client)
    peer.send("too late")
    stage.settle()
    assert peer.received_close() == (4000, "")
    assert connection.messages == []


# --- beginning, and what may be asked -------------------------------------------------------


def test_the_properties_tell_the_state(stage: Stage) -> None:
    connection, peer = stage.connection()
    assert connection.is_open
    assert connection.closed is None
    assert connection.remote_address == ("203.0.113.7", 50_000)
    assert (connection.request, connection.subprotocol, connection.session) == (None, None, None)
    assert (connection.created_at, connection.opened_at) == (1000.0, 1000.0)
    assert connection.error is None
    assert connection.reactor is stage.reactor
    assert repr(connection) == (f"<Recorder {connection.id} open peer=('203.0.113.7', 50000)>")
    other, _ = stage.connection()
    assert other.id > connection.id

    peer.close(4000, "bye")
    stage.settle()
    assert not connection.is_open
    closed = connection.closed
    assert isinstance(closed, ConnectionClosed)
    assert (closed.code, closed.reason, closed.is_clean) == (4000, "bye", True)
    assert "closed" in repr(connection)


def test_last_message_at_follows_messages_in_both_directions(stage: Stage) -> None:
    connection, peer = stage.connection()
    assert connection.last_message_at == stage.clock.now
    stage.pass_time(1)
    peer.send("in")
    stage.settle()
    assert connection.last_message_at == stage.clock.now
    stage.pass_time(1)
    connection.send("out")
    assert connection.last_message_at == stage.clock.now
    before = stage.clock.now
    stage.pass_time(1)
    peer.send_frame(Opcode.PING)
    connection.ping()
    stage.settle()
    assert connection.last_message_at == before


def test_a_connection_is_opened_once(stage: Stage) -> None:
    connection, _ = stage.connection()
    transport, _ = stage.network.transport(stage.reactor, Protocol())
    with pytest.raises(InvalidState, match="has been opened before"):
        connection.open(transport)
    given_up = connecting(stage)
    given_up.close()
    with pytest.raises(InvalidState, match="has been opened before"):
        given_up.open(transport)
    assert given_up.events == []


def test_the_traffic_is_counted(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.send("four")
    peer.send_frame(Opcode.PING, b"p")
    stage.settle()
    connection.send("five!")
    stage.settle()
    peer.receive()
    counters = connection._statistics
    assert (counters.messages_in, counters.messages_out) == (1, 1)
    # Header of two, mask of four, and the payload; ours has no mask.
    assert (counters.bytes_in, counters.bytes_out) == (10 + 7, 3 + 7)


# --- threads --------------------------------------------------------------------------------


@both_roles
def test_calls_of_another_thread_are_handed_over_in_order(stage: Stage, is_client: bool) -> None:
    def talk() -> list[bool]:
        taken = [connection.send("one"), connection.send_json(2), connection.ping(b"three")]
        connection.close(4000, "four")
        return [*taken, connection.send("taken, and dropped: it comes after the close")]

    connection, peer = stage.connection(is_client=is_client)
    assert in_thread(talk) == [True] * 4
    assert not peer.sock.inbox
    assert connection.is_open
    stage.settle()
    assert peer.receive() == [
        (Opcode.TEXT, "one"),
        (Opcode.TEXT, "2"),
        (Opcode.PING, b"three"),
        (Opcode.CLOSE, build_close(4000, "four")),
    ]


def test_another_thread_may_abort(stage: Stage) -> None:
    connection, peer = stage.connection()
    in_thread(connection.abort)
    stage.settle()
    assert close_events(connection)[0] is Cause.ABORTED
    assert_over(stage, connection, peer)


def test_misuse_raises_in_the_thread_that_misuses(stage: Stage) -> None:
    def misuse() -> int:
        for call, argument in ((connection.send, 1), (connection.ping, "x"), (connection.close, 1)):
            with pytest.raises((TypeError, ValueError)):
                call(argument)
        return 3

    connection, _ = stage.connection()
    assert in_thread(misuse) == 3
    stage.settle()
    assert connection.is_open


def use_from_outside(connection: Connection) -> Any:
    """Call everything in another thread; return what it returned."""

    def use() -> tuple[bool, bool]:
        connection.close()
        connection.abort()
        return connection.send("x"), connection.ping()

    return in_thread(use)


def test_another_thread_is_told_that_the_connection_is_not_open(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.close()
    stage.settle()
    assert use_from_outside(connection) == (False, False)
    assert use_from_outside(connecting(stage)) == (False, False)
    stage.settle()
    assert_idle(stage)


def test_nobody_minds_calls_after_the_reactor_was_closed() -> None:
    with Stage() as stage:
        connection, peer = stage.connection()
        unopened = connecting(stage)
    assert close_events(connection) == (Cause.ABORTED, ("close", 1006, ""))
    for each in (connection, unopened):
        assert each.send("x") is False
        assert each.ping() is False
        each.close()
        each.abort()
        assert use_from_outside(each) == (False, False)
    assert isinstance(peer, Peer)


def test_a_thread_that_is_late_by_a_moment_learns_that_nothing_was_sent() -> None:
    # The reactor is closed, and the thread has not seen yet that the connection is, too.
    with Stage() as stage:
        connection, _ = stage.connection()
    connection.state = State.OPEN
    assert use_from_outside(connection) == (False, False)
