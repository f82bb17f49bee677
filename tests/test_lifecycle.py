"""Every end that a connection can have: its cause, its close frame, and what is left behind."""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from reactions import (
    EVENTS,
    KIB,
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
from support import Peer, Recorder, Stage, as_socket, close_events
from sweeps import rounds

from reactor import Protocol, Transport
from websocket import Cause, Frame, Limits, Server, State
from websocket.frame import build_close
from websocket.opcodes import Opcode

QUIET = Limits(ping_interval=None)
TICK = 0.01


def opcodes(peer: Peer) -> list[int]:
    """Return what kinds of frames have arrived at a peer since."""
    return [opcode for opcode, _ in peer.receive()]


def failing(*events: str, error: type[BaseException] = ZeroDivisionError) -> type[Recorder]:
    """Return a recorder class whose methods for these events raise."""

    def fail(*_: object) -> None:
        raise error("by a test")

    return reacting(**dict.fromkeys(events, fail))


# --- every cause ----------------------------------------------------------------------------


class World(NamedTuple):
    """One connection with what is around it; the server is None on the client's side."""

    stage: Stage
    connection: Recorder
    peer: Peer
    server: Server | None


class Story(NamedTuple):
    """How a connection ends, and what everybody is told about it.

    Attributes:
        tell: makes it happen.
        code, reason: what on_close is told.
        wire: code and reason of the close frame that the peer gets, if it gets one.
        error: the class of what on_error is told, if it is.
        limits: of the connection.
        connection_class: of the connection.
    """

    cause: Cause
    tell: Callable[[World], object]
    code: int = 1006
    reason: str = ""
    wire: tuple[int | None, str] | None = None
    is_clean: bool = False
    error: str | None = None
    limits: Limits = QUIET
    connection_class: type[Recorder] = Recorder


def close_from_here(world: World) -> None:
    world.connection.close(3000, "bye")
    world.stage.settle()
    world.peer.close(3000)
    world.stage.settle()
    world.peer.sock.end()


def close_from_there(world: World) -> None:
    world.peer.close(3000, "bye")
    world.stage.settle()
    world.peer.sock.end()


def break_stream(world: World) -> None:
    our_socket(world.peer).fail("recv_into", OSError(errno.EHOSTUNREACH, "no route to host"))
    world.peer.send("unreadable")


def send_rubbish(*items: str | bytes | Frame) -> Callable[[World], None]:
    def tell(world: World) -> None:
        world.peer.send_bytes(encode(not world.connection.is_client, *items))

    return tell


def overfill(world: World) -> None:
    world.peer.sock.capacity = 4096
    while world.connection.send(KIB):
        pass
    drain(world.stage, world.peer)


def stop_reading(world: World) -> None:
    congest(world.connection, world.peer)
    world.stage.pass_time(31)


def expire_session(world: World) -> None:
    assert world.server is not None
    assert world.connection.session is not None
    world.server.manager.destroy_session(world.connection.session)
    world.stage.settle()
    world.peer.close(1008)


def replace(world: World) -> None:
    assert world.server is not None
    cookie = f"websocket_session={world.connection.session_id}"
    newer = world.stage.open_client(world.server, Cookie=cookie)
    assert len(world.server.connections) == 2
    world.peer.close(4000)
    world.stage.settle()
    newer.sock.end()


def shut_down(world: World) -> None:
    assert world.server is not None
    world.server.shutdown()
    world.stage.settle()
    world.peer.close(1001)


def wait(seconds: float) -> Callable[[World], None]:
    return lambda world: world.stage.pass_time(seconds)


TOO_LONG = Limits(ping_interval=None, max_message_size=10)
TOO_MANY = Limits(ping_interval=None, max_fragments=2)
FIRST = Frame(Opcode.BINARY, b"1", fin=False)
NEXT = Frame(Opcode.CONTINUATION, b"2", fin=False)

STORIES = {
    "close": Story(Cause.CLOSED_BY_US, close_from_here, 3000, "bye", (3000, "bye"), is_clean=True),
    "peer's close": Story(
        Cause.CLOSED_BY_PEER, close_from_there, 3000, "bye", (3000, ""), is_clean=True
    ),
    "end of stream": Story(Cause.PEER_EOF, lambda world: world.peer.sock.end()),
    "reset": Story(
        Cause.PEER_RESET, lambda world: world.peer.sock.reset(), error="ConnectionResetError"
    ),
    "no route": Story(Cause.TRANSPORT_ERROR, break_stream, error="OSError"),
    "reserved opcode": Story(
        Cause.PROTOCOL_ERROR,
        send_rubbish(Frame(3)),
        1002,
        "opcode 3 is reserved",
        (1002, "opcode 3 is reserved"),
        error="InvalidOpcode",
    ),
    "half a close code": Story(
        Cause.PROTOCOL_ERROR,
        send_rubbish(Frame(Opcode.CLOSE, b"\x03")),
        1002,
        "close frame has half a close code",
        (1002, "close frame has half a close code"),
        error="InvalidFrame",
    ),
    "bad text": Story(
        Cause.INVALID_DATA,
        send_rubbish(Frame(Opcode.TEXT, b"\xff")),
        1007,
        "text is not valid UTF-8",
        (1007, "text is not valid UTF-8"),
        error="InvalidPayload",
    ),
    "large message": Story(
        Cause.MESSAGE_TOO_BIG,
        send_rubbish("x" * 11),
        1009,
        "message is larger than 10 bytes",
        (1009, "message is larger than 10 bytes"),
        error="FrameTooLarge",
        limits=TOO_LONG,
    ),
    "many fragments": Story(
        Cause.TOO_MANY_FRAGMENTS,
        send_rubbish(FIRST, NEXT, NEXT),
        1008,
        "too many fragments",
        (1008, "too many fragments"),
        error="PolicyViolation",
        limits=TOO_MANY,
    ),
    "many pings": Story(
        Cause.RATE_LIMITED,
        send_rubbish(*[Frame(Opcode.PING)] * 51),
        1008,
        "too many control frames",
        (1008, "too many control frames"),
        error="PolicyViolation",
    ),
    "hard mark": Story(
        Cause.SLOW_CONSUMER,
        overfill,
        1008,
        "too slow a consumer",
        (1008, "too slow a consumer"),
    ),
    "write stall": Story(Cause.SLOW_CONSUMER, stop_reading, 1008, "too slow a consumer"),
    "silence": Story(
        Cause.PING_TIMEOUT,
        wait(41),
        1011,
        "no answer to a ping",
        (1011, "no answer to a ping"),
        limits=Limits(),
    ),
    "idleness": Story(
        Cause.IDLE_TIMEOUT,
        wait(31),
        1001,
        "idle",
        (1001, "idle"),
        limits=Limits(ping_interval=None, idle_timeout=30.0),
    ),
    "unfinished message": Story(
        Cause.MESSAGE_TIMEOUT,
        send_rubbish(FIRST),
        1008,
        "message took too long",
        (1008, "message took too long"),
        error="PolicyViolation",
    ),
    "unanswered close": Story(
        Cause.CLOSE_TIMEOUT,
        lambda world: world.connection.close(),
        1000,
        "",
        (1000, ""),
    ),
    "handler error": Story(
        Cause.HANDLER_ERROR,
        lambda world: world.peer.send("hello"),
        1011,
        "internal error",
        (1011, "internal error"),
        error="ZeroDivisionError",
        connection_class=failing("message"),
    ),
    "abort": Story(Cause.ABORTED, lambda world: world.connection.abort()),
    "shortage": Story(
        Cause.MEMORY,
        lambda world: world.connection.shed(),
        1013,
        "out of memory",
        (1013, "out of memory"),
    ),
}

SERVER_STORIES = {
    "session expired": Story(
        Cause.SESSION_EXPIRED,
        expire_session,
        1008,
        "the session has ended",
        (1008, "the session has ended"),
        is_clean=True,
    ),
    "replaced": Story(
        Cause.REPLACED,
        replace,
        4000,
        "a newer connection took over",
        (4000, "a newer connection took over"),
        is_clean=True,
    ),
    "shutdown": Story(
        Cause.SHUTDOWN,
        shut_down,
        1001,
        "the server is going away; retry after 3.09 s",
        (1001, "the server is going away; retry after 3.09 s"),
        is_clean=True,
    ),
}

REFUSALS = (Cause.HANDSHAKE_FAILED, Cause.CONNECT_FAILED)


def test_every_cause_has_a_story() -> None:
    told = {story.cause for story in [*STORIES.values(), *SERVER_STORIES.values()]}
    assert told | set(REFUSALS) == set(Cause)


def judge(world: World, story: Story) -> None:
    """Assert what everybody was told about an end that is just behind."""
    connection, peer = world.connection, world.peer
    assert connection.cause is story.cause
    assert connection.is_clean is story.is_clean
    assert close_events(connection)[1] == ("close", story.code, story.reason)
    assert connection.events[0] == ("open",)
    errors = [event[1].__name__ for event in connection.events if event[0] == "error"]
    assert errors == ([] if story.error is None else [story.error])
    assert errors == ([] if connection.error is None else [type(connection.error).__name__])
    assert peer.received_close() == story.wire
    assert connection.closed is not None
    assert connection.closed.code == story.code
    assert connection.state is State.CLOSED
    assert our_socket(peer).is_closed


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
@both_roles
def test_a_story_leaves_nothing_behind(
    stage: Stage, is_client: bool, story: Story, logged: list[logging.LogRecord]
) -> None:
    ended: list[tuple[object, State]] = []
    connection, peer = stage.connection(
        partial(story.connection_class, on_end=lambda each: ended.append((each, each.state))),
        is_client=is_client,
        limits=story.limits,
    )
    world = World(stage, connection, peer, None)
    story.tell(world)
    stage.pass_time(70)
    judge(world, story)
    assert_over(stage, connection, peer)
    assert ended == [(connection, State.CLOSED)]
    assert len(logged) == (story.cause is Cause.HANDLER_ERROR)


ALL_STORIES = {**STORIES, **SERVER_STORIES}


@pytest.mark.parametrize("story", ALL_STORIES.values(), ids=ALL_STORIES.keys())
def test_a_story_leaves_a_server_as_it_was(
    stage: Stage, story: Story, logged: list[logging.LogRecord]
) -> None:
    server = stage.server(story.connection_class, limits=story.limits)
    peer = stage.open_client(server)
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    world = World(stage, connection, peer, server)
    assert server.manager.statistics().active == 1
    story.tell(world)
    stage.pass_time(70)
    judge(world, story)
    numbers = server.manager.statistics()
    assert (numbers.active, numbers.handshaking, numbers.failed) == (0, 0, 0)
    assert numbers.closed_by_cause[story.cause] == 1
    assert numbers.sessions.attached == 0
    assert server.manager.pool.admitted == 0
    assert server.connections == []
    server.manager.close()
    assert_idle(stage)
    assert len(logged) == (story.cause is Cause.HANDLER_ERROR)


@pytest.mark.parametrize("cause", REFUSALS)
@pytest.mark.parametrize("method", [None, "close", "abort", "send", "pause", "resume", "ping"])
def test_a_client_that_is_not_opened_gets_one_error_and_no_close(
    stage: Stage, cause: Cause, method: str | None
) -> None:
    def react(connection: Recorder, _: Exception) -> None:
        if method is not None:
            getattr(connection, method)(*(["x"] if method == "send" else []))

    ended: list[Any] = []
    client_class = reacting(error=react)
    connection = client_class(stage.reactor, QUIET, is_client=True, on_end=ended.append)
    connection.refuse(OSError("no"), cause)
    connection.refuse(OSError("no again"), Cause.ABORTED)
    stage.settle()
    assert connection.events == [("error", OSError, "no")]
    assert (connection.state, connection.cause) == (State.CLOSED, cause)
    assert str(connection.error) == "no"
    assert connection.opened_at is None
    assert ended == [connection]
    assert_idle(stage)


# --- the closing handshake ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (None, "", 1005),
        (1000, "", 1000),
        (1001, "going away", 1001),
        (1014, "", 1014),
        (3000, "", 3000),
        (4999, "x" * 123, 4999),
        (4000, "grüße €", 4000),
    ],
)
@both_roles
def test_the_peers_close_is_answered_with_its_code(
    stage: Stage, is_client: bool, code: int | None, reason: str, told: int
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.close(code, reason)
    stage.settle()
    assert peer.received_close() == (code, "")
    assert connection.cause is Cause.CLOSED_BY_PEER
    # RFC 6455, 7.1.1: the server closes the stream first, the client waits for that.
    assert peer.sees_end is not is_client
    peer.sock.end()
    stage.settle()
    assert close_events(connection) == (Cause.CLOSED_BY_PEER, ("close", told, reason))
    assert connection.is_clean
    assert_over(stage, connection, peer)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        *(
            (code.to_bytes(2, "big"), 1002)
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8\xe2\x82", 1007),
    ],
)
@both_roles
def test_a_close_frame_that_must_not_be_sent_fails_the_connection(
    stage: Stage, is_client: bool, payload: bytes, code: int
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_frame(Opcode.CLOSE, payload)
    stage.settle()
    close = peer.received_close()
    assert close is not None
    assert close[0] == code
    assert peer.sees_end
    peer.sock.end()
    stage.settle()
    assert not connection.is_clean
    assert [event[0] for event in connection.events] == ["open", "error", "close"]
    assert connection.events[-1][1] == code
    assert_over(stage, connection, peer)


@both_roles
def test_a_close_in_the_middle_of_a_message_discards_it(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_frame(Opcode.TEXT, b"half", fin=False)
    peer.close(1000)
    peer.send_frame(Opcode.CONTINUATION, b"whole")
    peer.sock.end()
    stage.settle()
    assert peer.received_close() == (1000, "")
    assert connection.events == [("open",), ("close", 1000, "")]
    assert_over(stage, connection, peer)


def test_a_server_closes_the_stream_when_its_close_is_answered(stage: Stage) -> None:
    connection, peer = stage.connection()
    connection.close()
    stage.settle()
    assert not peer.sees_end
    peer.close()
    stage.settle()
    assert peer.sees_end
    assert_over(stage, connection, peer)


def test_a_client_waits_for_the_server_to_close_the_stream_but_not_for_long(
    stage: Stage,
) -> None:
    connection, peer = stage.connection(is_client=True)
    peer.close()
    stage.pass_time(4.9)
    assert connection.state is State.CLOSING
    assert not peer.sock.has_eof
    stage.pass_time(0.2)
    assert close_events(connection) == (Cause.CLOSED_BY_PEER, ("close", 1000, ""))
    assert connection.is_clean
    assert_over(stage, connection, peer)


@both_roles
def test_two_closes_that_cross_are_a_clean_end(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.close(4000, "ours")
    peer.close(4001, "theirs")
    stage.settle()
    assert peer.received_close() == (4000, "ours")
    peer.sock.end()
    stage.settle()
    assert connection.events == [("open",), ("close", 4000, "ours")]
    assert (connection.cause, connection.is_clean) == (Cause.CLOSED_BY_US, True)
    assert_over(stage, connection, peer)


def ends_of_one_stream(stage: Stage) -> tuple[Recorder, Recorder]:
    """Return a server's and a client's connection that talk to each other."""
    connections = []
    for is_client, sock in zip((False, True), stage.network.pair()):
        connection = Recorder(stage.reactor, Limits(), is_client=is_client)
        transport = Transport(stage.reactor, as_socket(sock), Protocol())
        transport.start()
        connection.open(transport)
        connections.append(connection)
    server, client = connections
    return server, client


@pytest.mark.parametrize("closers", ["server", "client", "both"])
def test_our_two_ends_close_cleanly_in_every_order(stage: Stage, closers: str) -> None:
    server, client = ends_of_one_stream(stage)
    server.send("to the client")
    client.send("to the server")
    if closers != "client":
        server.close(4000, "from the server")
    if closers != "server":
        client.close(4001, "from the client")
    stage.settle()
    for connection, other in ((server, "client"), (client, "server")):
        assert connection.is_clean
        received = [] if closers == "both" else [f"to the {connection_name(connection)}"]
        if connection_name(connection) == closers:
            received = []
        assert connection.messages == received
        assert close_events(connection)[0] is (
            Cause.CLOSED_BY_PEER if closers == other else Cause.CLOSED_BY_US
        )
    assert_idle(stage)


def connection_name(connection: Recorder) -> str:
    return "client" if connection.is_client else "server"


def test_our_two_ends_keep_each_other_alive(stage: Stage) -> None:
    server, client = ends_of_one_stream(stage)
    stage.pass_time(600)
    assert server.is_open
    assert client.is_open


@both_roles
def test_the_close_deadline_is_not_put_off_by_traffic(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.close()
    for _ in range(49):
        peer.send("data")
        peer.send_frame(Opcode.PONG)
        stage.pass_time(0.1)
    assert connection.state is State.CLOSING
    peer.send("data")
    stage.pass_time(0.1 + TICK)
    assert close_events(connection) == (Cause.CLOSE_TIMEOUT, ("close", 1000, ""))
    assert connection.messages == []
    assert_over(stage, connection, peer)


def test_a_server_whose_answer_is_not_read_aborts_at_the_close_deadline(stage: Stage) -> None:
    connection, peer = stage.connection()
    congest(connection, peer)
    peer.close()
    stage.pass_time(4.9)
    assert not our_socket(peer).is_closed
    stage.pass_time(0.2)
    assert close_events(connection) == (Cause.CLOSED_BY_PEER, ("close", 1000, ""))
    assert_over(stage, connection, peer)


@pytest.mark.parametrize("ending", ["end", "reset"])
@both_roles
def test_a_stream_that_ends_in_the_middle_of_a_frame(
    stage: Stage, is_client: bool, ending: str
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_bytes(encode(not is_client, "x" * 1000)[:500])
    stage.settle()
    getattr(peer.sock, ending)()
    stage.settle()
    cause = {"end": Cause.PEER_EOF, "reset": Cause.PEER_RESET}[ending]
    assert close_events(connection) == (cause, ("close", 1006, ""))
    assert connection.messages == []
    assert_over(stage, connection, peer)


@pytest.mark.parametrize(
    ("ending", "cause"),
    [("end", Cause.PEER_EOF), ("reset", Cause.PEER_RESET)],
)
@both_roles
def test_a_stream_that_ends_instead_of_answering_our_close(
    stage: Stage, is_client: bool, ending: str, cause: Cause
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    connection.close(4000, "bye")
    stage.settle()
    getattr(peer.sock, ending)()
    stage.settle()
    # No on_error: the connection was about to end anyway.
    assert connection.events == [("open",), ("close", 4000, "bye")]
    assert (connection.cause, connection.is_clean) == (cause, False)
    assert_over(stage, connection, peer)


@both_roles
def test_a_peer_that_ends_its_half_and_reads_nothing_is_dropped_in_time(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client, limits=QUIET)
    congest(connection, peer)
    peer.sock.end()
    stage.pass_time(4.9)
    assert not our_socket(peer).is_closed
    stage.pass_time(0.2)
    assert close_events(connection) == (Cause.PEER_EOF, ("close", 1006, ""))
    assert_over(stage, connection, peer)


def test_a_peer_that_ends_its_half_may_read_the_rest(stage: Stage) -> None:
    connection, peer = stage.connection()
    congest(connection, peer)
    connection.send("the rest")
    peer.sock.end()
    assert drain(stage, peer) == [(Opcode.TEXT, "the rest")]
    assert peer.sees_end
    assert_over(stage, connection, peer)


# --- failing the connection -----------------------------------------------------------------


@both_roles
def test_a_peer_that_goes_on_sending_still_gets_the_close_frame(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(is_client=is_client)
    peer.send_frame(3)
    for _ in range(9):
        peer.send_bytes(bytes(1000))
        stage.pass_time(0.1)
    assert peer.received_close() == (1002, "opcode 3 is reserved")
    assert peer.sees_end
    peer.sock.close()
    stage.settle()
    assert [event[0] for event in connection.events] == ["open", "error", "close"]
    assert_over(stage, connection, peer)


def test_the_patience_with_a_failed_peer_is_bounded_in_time(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.send_frame(3)
    stage.pass_time(0.9)
    assert connection.state is State.CLOSING
    stage.pass_time(0.2)
    assert close_events(connection)[0] is Cause.PROTOCOL_ERROR
    assert_over(stage, connection, peer)


def test_the_patience_with_a_failed_peer_is_bounded_in_bytes(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.send_frame(3)
    stage.settle()
    for _ in range(5):
        peer.send_bytes(bytes(64 * 1024))
        stage.settle()
    assert close_events(connection)[0] is Cause.PROTOCOL_ERROR
    assert_over(stage, connection, peer)


def test_nothing_is_handled_after_the_failure(stage: Stage) -> None:
    connection, peer = stage.connection()
    peer.send_frame(3)
    stage.settle()
    peer.send("late")
    peer.send_frame(Opcode.PING)
    peer.close()
    stage.settle()
    peer.sock.end()
    stage.settle()
    assert [event[0] for event in connection.events] == ["open", "error", "close"]
    assert opcodes(peer) == [Opcode.CLOSE]
    assert not connection.is_clean


def test_on_error_comes_when_nothing_can_be_sent_any_more(stage: Stage) -> None:
    seen: list[Any] = []
    asking = reacting(error=lambda each, _: seen.append((each.is_open, each.send("x"))))
    connection, peer = stage.connection(asking)
    peer.send_frame(3)
    stage.settle()
    other, other_peer = stage.connection(asking)
    other_peer.sock.reset()
    stage.settle()
    assert seen == [(False, False)] * 2
    assert opcodes(peer) == [Opcode.CLOSE]
    assert connection.cause is Cause.PROTOCOL_ERROR
    assert other.cause is Cause.PEER_RESET


def test_close_in_on_error_does_not_hide_how_the_stream_ended(stage: Stage) -> None:
    connection, peer = stage.connection(reacting(error=lambda each, _: each.close(4000, "me")))
    peer.sock.reset()
    stage.settle()
    assert close_events(connection) == (Cause.PEER_RESET, ("close", 1006, ""))
    assert_over(stage, connection, peer)


# --- slow consumers -------------------------------------------------------------------------


@both_roles
def test_congestion_begins_above_the_soft_mark_and_ends_with_one_on_writable(
    stage: Stage, is_client: bool
) -> None:
    limits = Limits(write_soft_mark=10_000, ping_interval=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits, capacity=4096)
    connection.send(bytes(4000))
    stage.settle()
    connection.send(bytes(9_900))
    assert not connection.is_congested
    connection.send(KIB)
    assert connection.is_congested
    assert connection.send("more is taken all the same")
    peer.receive()
    stage.settle()
    # Below the soft mark; not below the low one, a quarter of it.
    assert connection.is_congested
    drain(stage, peer)
    assert not connection.is_congested
    assert connection.events == [("open",), ("writable",)]
    congest(connection, peer)
    drain(stage, peer)
    assert connection.events == [("open",), ("writable",), ("writable",)]


def test_a_peer_that_reads_again_in_time_is_no_slow_consumer(stage: Stage) -> None:
    connection, peer = stage.connection(limits=QUIET)
    for _ in range(3):
        congest(connection, peer)
        stage.pass_time(29)
        assert connection.is_open
        drain(stage, peer)
    assert connection.is_open


@both_roles
def test_a_peer_that_does_not_read_is_cut_after_the_stall(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    congest(connection, peer)
    for _ in range(29):
        peer.send_frame(Opcode.PONG)
        stage.pass_time(1)
    assert connection.is_open
    stage.pass_time(1 + TICK)
    assert close_events(connection) == (
        Cause.SLOW_CONSUMER,
        ("close", 1008, "too slow a consumer"),
    )
    assert_over(stage, connection, peer)


@both_roles
def test_a_send_above_the_hard_mark_closes_the_connection(stage: Stage, is_client: bool) -> None:
    limits = Limits(write_soft_mark=4096, write_hard_mark=20_000, ping_interval=None)
    connection, peer = stage.connection(is_client=is_client, limits=limits, capacity=1000)
    sent = 0
    while connection.send(KIB):
        sent += 1
    assert 19 <= sent <= 21
    assert connection.state is State.CLOSING
    assert connection._statistics.messages_out == sent
    assert connection.send("dropped") is False
    drain(stage, peer)
    assert [payload for _, payload in peer.frames[:-1]] == [KIB] * sent
    assert peer.received_close() == (1008, "too slow a consumer")
    # A connection that closes has nothing to say about the end of its congestion.
    assert ("writable",) not in connection.events
    peer.close(1008)
    peer.sock.end()
    stage.settle()
    assert close_events(connection) == (
        Cause.SLOW_CONSUMER,
        ("close", 1008, "too slow a consumer"),
    )
    assert_over(stage, connection, peer)


def test_a_large_burst_is_no_slow_consumption_as_long_as_the_peer_reads(stage: Stage) -> None:
    connection, peer = stage.connection(capacity=10 * 1024 * 1024)
    assert all(connection.send(KIB) for _ in range(5_000))
    stage.settle()
    assert len(peer.receive()) == 5_000
    assert connection.events == [("open",)]


# --- exceptions of the user's methods -------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS)
@both_roles
def test_a_method_that_raises_costs_its_own_connection_only(
    stage: Stage, is_client: bool, event: str, logged: list[logging.LogRecord]
) -> None:
    other, other_peer = stage.connection(is_client=is_client)
    connection, peer = stage.connection(failing(event), is_client=is_client)
    provoke(stage, event, connection, peer)
    assert len(logged) == 1
    assert repr(connection.id) in logged[0].getMessage()
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[0] is ZeroDivisionError
    assert logged[0].exc_info[2] is not None

    if event in {"close", "error"}:
        assert connection.cause in {Cause.CLOSED_BY_PEER, Cause.PEER_RESET}
    else:
        assert peer.received_close() == (1011, "internal error")
        assert connection.events[-1] == ("error", ZeroDivisionError, "by a test")
        peer.close(1011)
        peer.sock.end()
        stage.settle()
        assert close_events(connection) == (
            Cause.HANDLER_ERROR,
            ("close", 1011, "internal error"),
        )
    assert close_events(connection)
    assert our_socket(peer).is_closed

    other_peer.send("are you there?")
    stage.settle()
    assert other.messages == ["are you there?"]
    assert len(logged) == 1


@pytest.mark.parametrize("error", [MemoryError, RecursionError, StopIteration, OSError])
def test_exceptions_of_every_kind_are_contained(
    stage: Stage, error: type[Exception], logged: list[logging.LogRecord]
) -> None:
    connection, peer = stage.connection(failing("message", error=error))
    peer.send("hello")
    stage.settle()
    assert peer.received_close() == (1011, "internal error")
    assert connection.events[-1] == ("error", error, "by a test")
    assert len(logged) == 1


def test_an_error_of_on_error_is_logged_and_changes_nothing(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    connection, peer = stage.connection(failing("message", "error", "close"))
    peer.send("hello")
    stage.settle()
    assert ["handler" in record.getMessage() for record in logged] == [True, False]
    peer.close(1011)
    stage.settle()
    assert close_events(connection) == (Cause.HANDLER_ERROR, ("close", 1011, "internal error"))
    assert len(logged) == 3
    assert_over(stage, connection, peer)


def test_messages_behind_the_one_that_raised_are_not_handled(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    connection, peer = stage.connection(failing("message"))
    peer.send_bytes(encode(True, "1", "2", Frame(Opcode.CLOSE, build_close(1000))))
    stage.settle()
    assert connection.messages == ["1"]
    assert connection.is_clean
    assert close_events(connection)[0] is Cause.HANDLER_ERROR
    assert len(logged) == 1


def test_a_method_that_closes_and_then_raises_is_logged_and_the_close_stands(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    def close_and_raise(connection: Recorder, _: object) -> None:
        connection.close(4000, "mine")
        raise ZeroDivisionError

    connection, peer = stage.connection(reacting(message=close_and_raise))
    peer.send("hello")
    stage.settle()
    assert peer.received_close() == (4000, "mine")
    assert connection.events == [("open",), ("message", "hello")]
    assert len(logged) == 1


def test_an_error_of_whoever_waits_for_the_end_does_not_hide_it_from_on_close(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    connection, peer = stage.connection(partial(Recorder, on_end=fail))
    connection.abort()
    stage.settle()
    assert_over(stage, connection, peer)
    assert len(logged) == 1


@pytest.mark.parametrize("behind", [2, 200], ids=["within the budget", "above the budget"])
def test_ctrl_c_passes_and_nothing_is_handled_twice_or_forgotten(stage: Stage, behind: int) -> None:
    def interrupt(_: Recorder, message: str) -> None:
        if message == "1":
            raise KeyboardInterrupt

    connection, peer = stage.connection(reacting(message=interrupt))
    messages = [str(number) for number in range(2 + behind)]
    peer.send_bytes(encode(True, *messages))
    with pytest.raises(KeyboardInterrupt):
        stage.settle()
    assert connection.messages == ["0", "1"]
    assert connection.is_open
    stage.settle()
    assert connection.messages == messages
    peer.send("and on it goes")
    stage.settle()
    assert connection.messages[-1] == "and on it goes"


# --- any story at all -----------------------------------------------------------------------


class Chaos:
    """Do anything to a connection, from both ends, in a random but repeatable order."""

    def __init__(self, stage: Stage, is_client: bool, seed: int) -> None:
        self.random = random.Random(seed)
        self.stage = stage
        self.has_closed = False
        self.late: list[tuple[Any, ...]] = []
        limits = Limits(
            turn_frames=3, write_soft_mark=2000, write_hard_mark=20_000, idle_timeout=300.0
        )
        chaotic = reacting(**{event: partial(self.react, event) for event in EVENTS})
        self.connection, self.peer = stage.connection(
            chaotic, is_client=is_client, limits=limits, capacity=4096
        )

    def react(self, event: str, connection: Recorder, *details: object) -> None:
        if self.has_closed and event not in {"close", "error"}:
            self.late.append((event, *details))
        if self.random.random() < 0.2:
            self.act(connection)

    def act(self, connection: Recorder) -> None:
        """Do something at our end."""
        action = self.random.choice(
            ["send", "send", "ping", "pause", "resume", "resume", "flood", "close", "abort"]
        )
        if action == "send":
            connection.send("x" * self.random.choice([0, 10, 1000]))
        elif action == "flood":
            for _ in range(6):
                connection.send(KIB)
        else:
            getattr(connection, action)()
            self.has_closed = self.has_closed or action in {"close", "abort"}

    def disturb(self) -> None:
        """Do something at the peer's end."""
        peer, choose = self.peer, self.random.choice
        action = choose(["send"] * 12 + ["read"] * 6 + ["close", "rubbish", "end", "reset"])
        frames: list[str | Frame] = [
            "text",
            Frame(Opcode.PING, b"p"),
            Frame(Opcode.PONG),
            Frame(Opcode.TEXT, b"first", fin=False),
            Frame(Opcode.CONTINUATION, b"next", fin=False),
            Frame(Opcode.CONTINUATION, b"last"),
        ]
        is_client = not self.connection.is_client
        if action == "send":
            peer.send_bytes(encode(is_client, *[choose(frames[:3]) for _ in range(7)]))
        elif action == "read":
            peer.receive()
        elif action == "close":
            peer.close(choose([None, 1000, 4000]))
        elif action == "rubbish":
            peer.send_bytes(encode(is_client, choose(frames)))
        elif our_socket(peer).is_closed:
            pass
        elif action == "end":
            peer.sock.end()
        else:
            peer.sock.reset()

    def run(self) -> None:
        """Let anything happen for a while, then let everything come to its end."""
        for _ in range(25):
            choice = self.random.random()
            if choice < 0.5:
                self.disturb()
            elif choice < 0.7:
                self.act(self.connection)
            elif choice < 0.9:
                self.stage.settle()
            else:
                self.stage.pass_time(self.random.choice([0.1, 3, 21]))
        while self.connection.state is not State.CLOSED:
            self.connection.resume()
            self.stage.pass_time(30)


PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
@both_roles
def test_any_story_has_one_beginning_and_one_end(is_client: bool, part: int) -> None:
    for seed in range(part, rounds(150, 1_500), PARTS):
        with Stage() as stage:
            assert_has_one_end(stage, Chaos(stage, is_client, seed))


def assert_has_one_end(stage: Stage, chaos: Chaos) -> None:
    chaos.run()
    stage.settle()
    assert chaos.late == []
    assert_over(stage, chaos.connection, chaos.peer)
    # At most one close frame, and nothing that cannot be read, however it went.
    chaos.peer.received_close()
    assert [event[0] for event in chaos.connection.events].count("error") <= 1
    chaos.connection.resume()
    stage.pass_time(100)
    assert_over(stage, chaos.connection, chaos.peer)
