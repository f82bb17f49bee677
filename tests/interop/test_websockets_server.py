"""Our client against the server of the ``websockets`` library, with each way of compression."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from foreign import POLICIES
from threaded import TIMEOUT, Event, next_event, opened, reporter, running
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from reactor import Reactor
from websocket import Connection, Deflate, HandshakeError, Limits, connect

MIB = 1024 * 1024
LIMITS = Limits(max_message_size=MIB)


class House(NamedTuple):
    """A running server that does what the path says, and what it has to tell.

    Attributes:
        policy: our client's on compression.
    """

    policy: bool | Deflate
    server: Server
    told: queue.Queue[Any]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}"


@pytest.fixture(params=POLICIES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    told: queue.Queue[Any] = queue.Queue()

    def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        try:
            act(connection, connection.request.path)
        except ConnectionClosed as closed:
            told.put(closed)

    def act(connection: ServerConnection, path: str) -> None:
        if path == "/echo":
            for message in connection:
                connection.send(message)
        elif path == "/fragments":
            connection.send(["hel", "", "lo ", "κόσμε"])
            connection.send(iter([b"\x00", b"", b"\xff" * 70_000]))
            connection.send([b"x"] * 1000)
        elif path == "/ping":
            told.put(connection.ping(b"alive?").wait(TIMEOUT))
        elif path == "/close":
            connection.close(4999, "κόσμε")
        elif path == "/invalid":
            connection.send(b"\xff", text=True)
        elif path == "/record":
            # And then wait for the end: returning would start one from here.
            told.put(connection.recv(TIMEOUT))
        elif path == "/big":
            connection.send(bytes(MIB + 1))
        told.put(connection.recv(TIMEOUT))

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(403, "not you\n") if request.path == "/forbidden" else None

    def select_subprotocol(
        connection: ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        return Subprotocol("chat") if "chat" in offered else None

    server = serve(
        handle,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("chat")],
        select_subprotocol=select_subprotocol,
        process_request=process_request,
        max_size=MIB,
        open_timeout=TIMEOUT,
        close_timeout=TIMEOUT,
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield House(POLICIES[request.param], server, told)
    server.shutdown()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


class Visit:
    """Our client in a reactor thread: as a context manager, until it leaves."""

    def __init__(self, house: House, path: str, **options: Any) -> None:
        connection_class, self.events = reporter()
        self.reactor = Reactor()
        settings = {"limits": LIMITS, "compression": house.policy, **options}
        self.client: Connection = connect(
            self.reactor, house.url + path, connection_class, **settings
        )
        self._running = running(self.reactor)

    def __enter__(self) -> Visit:
        self._running.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._running.__exit__(*exception)

    def open(self) -> Connection:
        return opened(self.events)

    def next(self) -> Event:
        return next_event(self.events)


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
    "1 MiB": bytes(range(128)) * (MIB // 128),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_echoed(house: House, name: str) -> None:
    with Visit(house, "/echo") as visit:
        client = visit.open()
        # More than once: with takeover a message may refer to those before.
        for _ in range(3):
            assert client.send(MESSAGES[name])
            assert visit.next() == ("message", MESSAGES[name])


def test_compression_is_used_where_both_want_it(house: House) -> None:
    with Visit(house, "/echo") as visit:
        assert visit.open().is_compressed is bool(house.policy)


def test_a_burst_is_echoed_in_order(house: House) -> None:
    with Visit(house, "/echo") as visit:
        client = visit.open()
        for number in range(1000):
            assert client.send(f"message {number}")
        for number in range(1000):
            assert visit.next() == ("message", f"message {number}")


def test_fragments_become_messages(house: House) -> None:
    with Visit(house, "/fragments") as visit:
        visit.open()
        assert visit.next() == ("message", "hello κόσμε")
        assert visit.next() == ("message", b"\x00" + b"\xff" * 70_000)
        assert visit.next() == ("message", b"x" * 1000)


def test_the_server_pings(house: House) -> None:
    with Visit(house, "/ping") as visit:
        visit.open()
        assert visit.next() == ("ping", b"alive?")
        assert house.told.get(timeout=TIMEOUT) is True


def test_the_client_pings(house: House) -> None:
    with Visit(house, "/echo") as visit:
        assert visit.open().ping(b"alive?")
        assert visit.next() == ("pong", b"alive?")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (3000, "enough"), (4999, "κόσμε")])
def test_the_client_closes(house: House, code: int, reason: str) -> None:
    with Visit(house, "/record") as visit:
        client = visit.open()
        client.send("last words")
        client.close(code, reason)
        assert visit.next() == ("close", code, reason, True)
    assert house.told.get(timeout=TIMEOUT) == "last words"


def test_the_server_closes(house: House) -> None:
    with Visit(house, "/close") as visit:
        visit.open()
        assert visit.next() == ("close", 4999, "κόσμε", True)
    closed = house.told.get(timeout=TIMEOUT)
    assert closed.rcvd.code == 4999
    assert closed.rcvd_then_sent is False


@pytest.mark.parametrize(("path", "code"), [("/invalid", 1007), ("/big", 1009)])
def test_a_mistake_of_the_server_is_told_by_the_close_code(
    house: House, path: str, code: int
) -> None:
    with Visit(house, path) as visit:
        visit.open()
        assert visit.next()[0] == "error"
        assert visit.next()[:2] == ("close", code)
    closed = house.told.get(timeout=TIMEOUT)
    assert closed.rcvd.code == code


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x81\x00", 1002),
        (b"\x82\xff" + (MIB + 1).to_bytes(8, "big") + bytes(4), 1009),
    ],
)
def test_a_mistake_of_the_client_is_found_by_the_server(
    house: House, frame: bytes, code: int
) -> None:
    with Visit(house, "/echo") as visit:
        client = visit.open()
        visit.reactor.call_soon_threadsafe(client.send_encoded, (frame,))
        assert visit.next()[:2] == ("close", code)


def test_a_subprotocol_is_agreed_on(house: House) -> None:
    with Visit(house, "/echo", subprotocols=["other", "chat"]) as visit:
        assert visit.open().subprotocol == "chat"


def test_a_refusal_is_understood(house: House) -> None:
    with Visit(house, "/forbidden") as visit:
        name, error = visit.next()
    assert name == "error"
    assert isinstance(error, HandshakeError)
    assert error.status == 403
