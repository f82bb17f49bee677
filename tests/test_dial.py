"""The blocking client, against servers in a thread of their own; real sockets, real time."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streams import needs_unix_sockets
from threaded import TIMEOUT, running

from reactor import ConnectFailed, Reactor
from websocket import (
    Cause,
    Connection,
    ConnectionClosed,
    Frame,
    FrameWriter,
    HandshakeError,
    Limits,
    Opcode,
    Server,
    State,
    dial,
)
from websocket.dial import _MAX_WAITING_MESSAGES, BlockingConnection
from websocket.frame import build_close

MIB = 1024 * 1024
FLOOD = 500


class Companion(Connection):
    """Echo, or do what a message asks for."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        if message == "flood":
            for number in range(FLOOD):
                self.send(str(number))
        elif message == "large flood":
            for number in range(8):
                self.send(bytes([number]) * (MIB // 2))
        elif message == "close":
            self.close(3000, "as you like")
        elif message == "close regularly":
            self.send("last words")
            self.close()
        elif message == "close without a code":
            self.end(Cause.SHUTDOWN, None, "")
        elif message == "go away":
            self.end(Cause.SHUTDOWN, 1001, "going away")
        elif message == "drop":
            self.abort()
        elif message == "break a rule":
            assert self._transport is not None
            self._transport.write(b"\xf0\x00")
        elif message == "read nothing":
            self.pause()
        elif message == "answer slowly":
            self.reactor.call_later(0.05, self.send, "slow answer")
        else:
            self.send(message)


# The floods are more than a connection may hold otherwise.
LIMITS = Limits(write_hard_mark=64 * MIB, close_timeout=0.1, ping_interval=None)


@contextlib.contextmanager
def served(handler: Any = Companion, **options: Any) -> Iterator[Server]:
    """Run a server in a thread of its own."""
    reactor = Reactor()
    server = Server(handler, port=0, reactor=reactor, **{"limits": LIMITS, **options}).start()
    with running(reactor):
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}/"


@pytest.fixture
def ws(url: str) -> Iterator[BlockingConnection]:
    with dial(url, limits=LIMITS) as ws:
        yield ws


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message", ["", b"", "hello", "grüße 🔑", b"\x00\xff", "x" * MIB, bytes(MIB)], ids=repr
)
def test_a_message_goes_there_and_back(ws: BlockingConnection, message: str | bytes) -> None:
    ws.send(message)
    received = ws.recv(TIMEOUT)
    assert type(received) is type(message)
    assert received == message


def test_many_messages_keep_their_order(ws: BlockingConnection) -> None:
    for number in range(200):
        ws.send(str(number))
    assert [ws.recv(TIMEOUT) for _ in range(200)] == [str(number) for number in range(200)]


def test_what_is_no_message_is_refused(ws: BlockingConnection) -> None:
    not_a_message: Any = 7
    with pytest.raises(TypeError):
        ws.send(not_a_message)
    ws.send("go on")
    assert ws.recv(TIMEOUT) == "go on"


def test_compression_is_an_option_like_all_of_connect() -> None:
    with served(compression=True) as server:
        with dial(f"ws://127.0.0.1:{server.port}/", compression=True) as ws:
            assert ws.connection.is_compressed
            ws.send("x" * 100_000)
            assert ws.recv(TIMEOUT) == "x" * 100_000
        assert server.statistics().bytes_in < 5_000


@needs_unix_sockets
def test_it_talks_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with served(unix_path=path), dial("ws://localhost/", unix_path=path) as ws:
        ws.send("hello")
        assert ws.recv(TIMEOUT) == "hello"


# --- waiting ----------------------------------------------------------------------------------


def test_recv_waits_for_what_comes_later(ws: BlockingConnection) -> None:
    ws.send("answer slowly")
    assert ws.recv(TIMEOUT) == "slow answer"


@pytest.mark.parametrize("timeout", [0, 0.01, -1])
def test_recv_does_not_wait_longer_than_told(ws: BlockingConnection, timeout: float) -> None:
    with pytest.raises(TimeoutError, match="longer than"):
        ws.recv(timeout)
    ws.send("still open")
    assert ws.recv(TIMEOUT) == "still open"


def test_recv_without_waiting_finds_what_is_there(ws: BlockingConnection) -> None:
    ws.send("hello")
    assert ws.connection._transport is not None
    sock = ws.connection._transport.get_extra_info("socket")
    assert select.select([sock], [], [], TIMEOUT)[0]
    assert ws.recv(0) == "hello"


def test_a_fast_server_is_paused_and_nothing_is_lost(
    server: Server, ws: BlockingConnection
) -> None:
    ws.send("flood")
    for number in range(FLOOD):
        assert ws.recv(TIMEOUT) == str(number)
        assert len(ws.connection.waiting) <= _MAX_WAITING_MESSAGES
    ws.send("large flood")
    for number in range(8):
        message = ws.recv(TIMEOUT)
        assert isinstance(message, bytes)
        assert (len(message), message[0]) == (MIB // 2, number)
        # What waits: a mebibyte, and the message that crossed it.
        assert sum(map(len, ws.connection.waiting)) < 2 * MIB
    with pytest.raises(TimeoutError):
        ws.recv(0)


def stuff(ws: BlockingConnection, message: bytes) -> int:
    """Send until the server does not keep up; return how many messages that took."""
    for count in itertools.count(1):
        try:
            ws.send(message, timeout=0.02)
        except TimeoutError:
            return count
    raise AssertionError


def resume_all(server: Server) -> None:
    for connection in server.connections:
        connection.resume()


def test_send_waits_for_a_server_that_reads_slowly(ws: BlockingConnection) -> None:
    ws.send("read nothing")
    message = bytes(MIB - 1)
    stuff(ws, message)
    assert ws.connection.is_congested
    # No further message is taken; it would end the connection as a slow consumer.
    for _ in range(3):
        with pytest.raises(TimeoutError):
            ws.send(message, timeout=0)
    assert ws.connection.is_open


def test_send_goes_on_when_the_server_reads_again(server: Server, ws: BlockingConnection) -> None:
    ws.send("read nothing")
    message = bytes(MIB - 1)
    sent = stuff(ws, message)
    server.reactor.call_soon_threadsafe(resume_all, server)
    ws.send("end")
    for _ in range(sent):
        assert ws.recv(TIMEOUT) == message
    assert ws.recv(TIMEOUT) == "end"


# --- ping -------------------------------------------------------------------------------------


def test_ping_measures_the_latency(ws: BlockingConnection) -> None:
    latency = ws.ping(TIMEOUT)
    assert 0 < latency < TIMEOUT
    assert ws.connection.latency == latency


def test_ping_does_not_wait_longer_than_told(ws: BlockingConnection) -> None:
    ws.send("read nothing")
    with pytest.raises(TimeoutError):
        ws.ping(0.02)


def test_the_pong_is_found_behind_any_number_of_messages(ws: BlockingConnection) -> None:
    ws.send("flood")
    assert ws.recv(TIMEOUT) == "0"
    assert ws.ping(TIMEOUT) > 0
    assert [ws.recv(TIMEOUT) for _ in range(FLOOD - 1)] == [str(n) for n in range(1, FLOOD)]
    ws.send("flood")
    assert [ws.recv(TIMEOUT) for _ in range(FLOOD)] == [str(n) for n in range(FLOOD)]


# --- the end ----------------------------------------------------------------------------------


def test_a_context_closes_the_connection_in_an_orderly_way(url: str) -> None:
    with dial(url) as ws:
        assert ws.connection.is_open
    assert ws.connection.state is State.CLOSED
    assert ws.connection.is_clean
    assert ws.connection.cause is Cause.CLOSED_BY_US


def test_a_context_closes_the_connection_when_its_block_raises(url: str) -> None:
    with pytest.raises(ZeroDivisionError), dial(url) as ws:
        ws.send(str(1 // 0))
    assert ws.connection.state is State.CLOSED
    assert ws.connection.is_clean


def test_code_and_reason_may_be_given(server: Server) -> None:
    ends: list[tuple[int, str]] = []
    is_over = threading.Event()

    class Watching(Companion):
        __slots__ = ()

        def on_close(self, code: int, reason: str) -> None:
            ends.append((code, reason))
            is_over.set()

    with served(Watching) as other:
        ws = dial(f"ws://127.0.0.1:{other.port}/")
        ws.close(3001, "enough")
        ws.close(3002, "again")
        assert is_over.wait(TIMEOUT)
    assert ends == [(3001, "enough")]


def test_a_bad_close_code_closes_nothing(ws: BlockingConnection) -> None:
    with pytest.raises(ValueError, match="code"):
        ws.close(1005)
    ws.send("still open")
    assert ws.recv(TIMEOUT) == "still open"


CALLS: dict[str, Callable[[BlockingConnection], object]] = {
    "send": lambda ws: ws.send("too late"),
    "recv": lambda ws: ws.recv(),
    "recv in time": lambda ws: ws.recv(0),
    "ping": lambda ws: ws.ping(),
    "iteration": lambda ws: [*ws],
}


@pytest.mark.parametrize("call", CALLS)
def test_after_close_every_call_says_so(url: str, call: str) -> None:
    ws = dial(url)
    ws.close(3000, "enough")
    for _ in range(2):
        with pytest.raises(ConnectionClosed) as caught:
            CALLS[call](ws)
        assert (caught.value.code, caught.value.is_clean) == (3000, True)
    ws.close()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("wish", "code", "is_clean"), [("close", 3000, True), ("drop", 1006, False)]
)
def test_the_end_of_the_server_is_raised(
    ws: BlockingConnection, wish: str, code: int, is_clean: bool, call: str
) -> None:
    ws.send(wish)
    with pytest.raises(ConnectionClosed):
        ws.recv(TIMEOUT)
    with pytest.raises(ConnectionClosed) as caught:
        CALLS[call](ws)
    assert (caught.value.code, caught.value.is_clean) == (code, is_clean)
    assert caught.value.reason == ("as you like" if is_clean else "")


def test_a_call_during_the_closing_handshake_says_so(ws: BlockingConnection) -> None:
    ws.connection.close()
    with pytest.raises(ConnectionClosed):
        ws.send("too late")
    with pytest.raises(ConnectionClosed):
        ws.ping(TIMEOUT)


def test_sending_after_the_other_side_has_begun_to_close(ws: BlockingConnection) -> None:
    ws.connection.close()
    assert ws.connection.state is State.CLOSING
    with pytest.raises(ConnectionClosed, match="1006: closing") as caught:
        raise ws._closed()
    assert not caught.value.is_clean


def test_messages_before_the_end_can_still_be_received(ws: BlockingConnection) -> None:
    ws.send("flood")
    ws.send("close")
    assert [ws.recv(TIMEOUT) for _ in range(FLOOD)] == [str(number) for number in range(FLOOD)]
    with pytest.raises(ConnectionClosed, match="3000: as you like"):
        ws.recv(TIMEOUT)


@pytest.mark.parametrize("wish", ["close regularly", "close without a code", "go away"])
def test_iteration_ends_with_an_orderly_end(ws: BlockingConnection, wish: str) -> None:
    for message in ("one", "two", wish):
        ws.send(message)
    assert [*ws][:2] == ["one", "two"]


@pytest.mark.parametrize(
    ("wish", "code"), [("close", 3000), ("drop", 1006), ("break a rule", 1002)]
)
def test_iteration_raises_for_any_other_end(ws: BlockingConnection, wish: str, code: int) -> None:
    ws.send("one")
    messages = iter(ws)
    assert next(messages) == "one"
    ws.send(wish)
    with pytest.raises(ConnectionClosed) as caught:
        next(messages)
    assert caught.value.code == code


def test_a_server_that_never_answers_the_close_is_not_waited_for(url: str) -> None:
    ws = dial(url, limits=LIMITS)
    ws.send("read nothing")
    with pytest.raises(TimeoutError):
        ws.recv(0.02)
    ws.close()
    assert ws.connection.cause is Cause.CLOSE_TIMEOUT
    assert not ws.connection.is_clean


# --- not connected ----------------------------------------------------------------------------


def test_a_refusal_is_raised() -> None:
    with served({"/": Companion}) as server:
        with pytest.raises(HandshakeError, match="404") as caught:
            dial(f"ws://127.0.0.1:{server.port}/elsewhere")
        assert caught.value.status == 404


def test_a_server_that_cannot_be_reached_is_raised() -> None:
    with pytest.raises(ConnectFailed, match="refused"):
        dial("ws://127.0.0.1:1/")


def test_a_server_that_does_not_answer_in_time_is_raised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(HandshakeError, match="too long"):
            dial(url, limits=Limits(handshake_timeout=0.05))


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("http://127.0.0.1/", {}, "scheme"),
        ("ws://127.0.0.1/", {"reconnect": True}, "does not reconnect"),
        ("ws://127.0.0.1/", {"headers": [("X", "\r\n")]}, "."),
    ],
)
def test_a_bad_argument_is_a_value_error(url: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        dial(url, **options)


# --- servers that end at once -----------------------------------------------------------------

BARE = FrameWriter(masks=False)
HELLO = BARE.encode_frame(Frame(Opcode.TEXT, b"hello"))
GOODBYE = BARE.encode_frame(Frame(Opcode.CLOSE, build_close(1000, "bye")))
UNREADABLE = b"\xf0\x00"


class Hasty(Connection):
    """Send bytes with the answer to the handshake, and hang up."""

    __slots__ = ()
    greeting = b""

    def on_open(self) -> None:
        assert self._transport is not None
        self._transport.write(self.greeting)
        self._transport.close()


@pytest.mark.parametrize(
    ("greeting", "code"), [(HELLO + GOODBYE, 1000), (HELLO, 1006), (HELLO + UNREADABLE, 1002)]
)
def test_what_came_with_the_answer_is_received_whatever_followed(
    greeting: bytes, code: int
) -> None:
    handler = type("Greeting", (Hasty,), {"__slots__": (), "greeting": greeting})
    with served(handler) as server, dial(f"ws://127.0.0.1:{server.port}/") as ws:
        assert ws.recv(TIMEOUT) == "hello"
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(TIMEOUT)
        assert caught.value.code == code
