"""The client of the ``websockets`` library against our server, with each way of compression."""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from foreign import POLICIES
from threaded import TIMEOUT, Event, next_event, opened, reporter, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from websocket import Connection, Limits, Server

MIB = 1024 * 1024
LIMITS = Limits(max_message_size=MIB)


class Echo(Connection):
    __slots__ = ()
    subprotocols = ("echo.v2", "echo.v1")

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


class House(NamedTuple):
    """A running server: an echo at /echo, and a reporter at /report with its events."""

    has_deflate: bool
    server: Server
    events: queue.Queue[Event]
    port: int

    def connect(self, path: str = "/echo", **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.port}{path}"
        settings = {"proxy": None, "open_timeout": TIMEOUT, "close_timeout": TIMEOUT}
        client = connect(url, **{**settings, **options})
        assert isinstance(client, ClientConnection)
        return client


@pytest.fixture(params=POLICIES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    policy = POLICIES[request.param]
    connection_class, events = reporter()
    handlers: dict[str, type[Connection]] = {"/echo": Echo, "/report": connection_class}
    server = Server(handlers, port=0, limits=LIMITS, compression=policy).start()
    with running(server.reactor):
        yield House(bool(policy), server, events, server.port)
        server.shutdown()


MESSAGES: dict[str, str | bytes] = {
    "text": "hello",
    "empty text": "",
    "other scripts": "κόσμε 🌍",
    "binary": b"\x00\xff",
    "empty binary": b"",
    "125 bytes": b"x" * 125,
    "126 bytes": b"x" * 126,
    "65,535 bytes": b"x" * 65_535,
    "65,536 bytes": b"x" * 65_536,
    "1 MiB of text": "x" * MIB,
    "1 MiB": bytes(MIB),
}


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_echoed(house: House, name: str, compression: str | None) -> None:
    with house.connect(compression=compression) as client:
        # More than once: with takeover a message may refer to those before.
        for _ in range(3):
            client.send(MESSAGES[name])
            assert client.recv(TIMEOUT) == MESSAGES[name]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_compression_is_used_where_both_want_it(house: House, compression: str | None) -> None:
    with house.connect("/report", compression=compression):
        both_want_it = house.has_deflate and compression is not None
        assert opened(house.events).is_compressed is both_want_it


@pytest.mark.parametrize(
    ("fragments", "whole"),
    [
        (["hel", "", "lo ", "κόσμε"], "hello κόσμε"),
        ([b"\x00", b"", b"\xff" * 70_000], b"\x00" + b"\xff" * 70_000),
        ([b"x"] * 1000, b"x" * 1000),
    ],
)
def test_fragments_become_a_message(
    house: House, fragments: list[str | bytes], whole: str | bytes
) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        client.send(iter(fragments))
        assert next_event(house.events) == ("message", whole)


def test_a_burst_is_echoed_in_order(house: House) -> None:
    messages = [f"message {number}" for number in range(1000)]
    with house.connect() as client:
        for message in messages:
            client.send(message)
        assert [client.recv(TIMEOUT) for _ in messages] == messages


def test_the_client_pings(house: House) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        assert client.ping(b"alive?").wait(TIMEOUT)
        assert next_event(house.events) == ("ping", b"alive?")


def test_the_server_pings(house: House) -> None:
    with house.connect("/report"):
        connection = opened(house.events)
        assert connection.ping(b"alive?")
        assert next_event(house.events) == ("pong", b"alive?")
        assert connection.latency is not None


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4999, "κόσμε")])
def test_the_client_closes(house: House, code: int, reason: str) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        client.close(code, reason)
        assert (client.close_code, client.close_reason) == (code, "")
    assert next_event(house.events) == ("close", code, reason, True)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "enough"), (4999, "κόσμε")])
def test_the_server_closes(house: House, code: int, reason: str) -> None:
    with house.connect("/report") as client:
        connection = opened(house.events)
        connection.send("last words")
        connection.close(code, reason)
        assert client.recv(TIMEOUT) == "last words"
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    assert next_event(house.events) == ("close", code, reason, True)


def test_the_server_shuts_down(house: House) -> None:
    with house.connect() as client:
        house.server.shutdown()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


def test_the_client_vanishes(house: House) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        client.socket.shutdown(socket.SHUT_RDWR)
        assert next_event(house.events)[:2] == ("close", 1006)


def test_a_mistake_of_the_client_is_told_by_the_close_code(house: House) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        client.send(b"\xff", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007
    assert next_event(house.events)[0] == "error"
    assert next_event(house.events)[:2] == ("close", 1007)


def test_a_message_that_is_too_big_is_told_by_the_close_code(house: House) -> None:
    with house.connect("/report") as client:
        opened(house.events)
        with contextlib.suppress(ConnectionClosed):  # before all of it was sent
            client.send(bytes(MIB + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    assert next_event(house.events)[0] == "error"
    assert next_event(house.events)[:2] == ("close", 1009)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x01\xff", 1007),
        (b"\x83\x00", 1002),
        (b"\xa1\x00", 1002),
        (b"\x80\x00", 1002),
        (b"\x82\x7f" + (MIB + 1).to_bytes(8, "big"), 1009),
    ],
)
def test_a_mistake_of_the_server_is_found_by_the_client(
    house: House, frame: bytes, code: int
) -> None:
    with house.connect("/report", max_size=MIB) as client:
        connection = opened(house.events)
        house.server.reactor.call_soon_threadsafe(connection.send_encoded, (frame,))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.sent is not None
        assert closed.value.sent.code == code
    assert next_event(house.events)[:2] == ("close", code)


def test_a_subprotocol_is_agreed_on(house: House) -> None:
    offered = [Subprotocol("other"), Subprotocol("echo.v1"), Subprotocol("echo.v2")]
    with house.connect(subprotocols=offered) as client:
        assert client.subprotocol == "echo.v2"
    with house.connect(subprotocols=offered[:1]) as client:
        assert client.subprotocol is None


def test_a_refusal_is_understood(house: House) -> None:
    for options, status in (
        ({"path": "/nowhere"}, 404),
        ({"origin": "https://evil.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as refused, house.connect(**options):
            pass
        assert refused.value.response.status_code == status
        assert refused.value.response.body


def test_a_session_is_resumed(house: House) -> None:
    with house.connect("/report") as client:
        first = opened(house.events)
        assert client.response is not None
        cookie = client.response.headers["Set-Cookie"].partition(";")[0]
    with house.connect("/report", additional_headers={"Cookie": cookie}):
        assert next_event(house.events)[0] == "close"
        second = opened(house.events)
    assert second.session is first.session
