from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from reactions import assert_over, both_roles, encode
from support import Peer, Recorder, Stage, close_events, header, read_head, upgrade_request

from websocket import Cause, Connection, Frame, Message, MessageConnection, MessageOpcode
from websocket.frame import build_close
from websocket.message import SUBPROTOCOL, ErrorCode
from websocket.message_connection import handler_class
from websocket.opcodes import Opcode

NOW = 1_700_000_000_000_000_000
GOOD = Message(MessageOpcode.INPUT, b"payload", 12345)


class Clerk(Recorder, MessageConnection):
    """Write down envelopes, too."""

    __slots__ = ()

    on_message = MessageConnection.on_message

    def on_envelope(self, message: Message) -> None:
        self.events.append(("envelope", message))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    with Stage() as stage:
        yield stage


def receive_envelope(peer: Peer) -> Message:
    """Return the one message that has arrived, which must be an envelope."""
    ((opcode, data),) = peer.receive()
    assert opcode == Opcode.BINARY
    return Message.decode(data)


def changed(at: int, value: bytes) -> bytes:
    """Return the bytes of a good envelope with some of them replaced."""
    data = bytearray(GOOD.encode())
    data[at : at + len(value)] = value
    return bytes(data)


BAD = [
    (changed(0, b"WEBX"), ErrorCode.INVALID_MAGIC),
    (changed(4, b"\x02"), ErrorCode.INVALID_VERSION),
    (changed(5, b"\x00"), ErrorCode.INVALID_OPCODE),
    (changed(5, b"\x0c"), ErrorCode.INVALID_OPCODE),
    (changed(14, b"\xff\xff\xff\xff"), ErrorCode.PAYLOAD_TOO_LARGE),
    (GOOD.encode() + b"trailing", ErrorCode.PAYLOAD_TOO_LARGE),
    (b"", ErrorCode.BUFFER_TOO_SMALL),
    (GOOD.encode()[:17], ErrorCode.BUFFER_TOO_SMALL),
    (GOOD.encode()[:-1], ErrorCode.BUFFER_TOO_SMALL),
    (changed(6, b"\xff" * 8), ErrorCode.INVALID_TIMESTAMP),
]


# --- envelopes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "opcode", [each for each in MessageOpcode if each not in {8, 9}], ids=lambda each: each.name
)
@both_roles
def test_an_envelope_is_handed_on(stage: Stage, is_client: bool, opcode: MessageOpcode) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    message = Message(opcode, b"payload", 12345)
    peer.send(message.encode())
    stage.settle()
    assert connection.events == [("open",), ("envelope", message)]
    assert peer.receive() == []
    assert connection.is_open


@both_roles
def test_an_envelope_is_sent_as_one_binary_message(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    assert connection.send_envelope(GOOD) is True
    stage.settle()
    assert peer.receive() == [(Opcode.BINARY, GOOD.encode())]
    connection.close()
    assert connection.send_envelope(GOOD) is False


@pytest.mark.parametrize("timestamp", [0, 1, NOW, 2**63 - 1])
@pytest.mark.parametrize("payload", [b"", b"echo"])
@both_roles
def test_a_ping_is_answered_with_its_timestamp_and_not_handed_on(
    stage: Stage, is_client: bool, payload: bytes, timestamp: int
) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    peer.send(Message(MessageOpcode.PING, payload, timestamp).encode())
    stage.settle()
    assert receive_envelope(peer) == Message(MessageOpcode.PONG, payload, timestamp)
    assert connection.events == [("open",)]


@pytest.mark.parametrize(("data", "code"), BAD)
@both_roles
def test_what_is_no_envelope_is_answered_with_an_error_and_the_connection_lives_on(
    stage: Stage, is_client: bool, data: bytes, code: ErrorCode
) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    peer.send(data)
    stage.settle()
    answer = receive_envelope(peer)
    assert (answer.opcode, answer.timestamp) == (MessageOpcode.ERROR, NOW)
    content = json.loads(answer.payload)
    assert set(content) == {"code", "message", "details"}
    assert content["code"] == code
    assert content["message"]
    assert connection.events == [("open",)]
    peer.send(GOOD.encode())
    stage.settle()
    assert connection.events == [("open",), ("envelope", GOOD)]


def test_every_error_has_been_provoked() -> None:
    assert {code for _, code in BAD} == set(ErrorCode)


@both_roles
def test_a_text_message_is_no_envelope_and_ends_the_connection(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    peer.send_bytes(encode(not is_client, "text", GOOD.encode()))
    stage.settle()
    assert peer.received_close() == (1003, "envelopes are binary")
    peer.close(1003)
    peer.sock.end()
    stage.settle()
    assert connection.events == [("open",), ("close", 1003, "envelopes are binary")]
    assert connection.cause is Cause.PROTOCOL_ERROR
    assert_over(stage, connection, peer)


@both_roles
def test_a_disconnect_is_handed_on_and_followed_by_the_closing_handshake(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = stage.connection(Clerk, is_client=is_client)
    goodbye = Message(MessageOpcode.DISCONNECT, b"bye", 1)
    peer.send_bytes(encode(not is_client, goodbye.encode(), GOOD.encode()))
    stage.settle()
    assert connection.events == [("open",), ("envelope", goodbye)]
    assert peer.receive() == [(Opcode.CLOSE, build_close(1000))]
    peer.close()
    peer.sock.end()
    stage.settle()
    assert close_events(connection) == (Cause.CLOSED_BY_US, ("close", 1000, ""))
    assert_over(stage, connection, peer)


@pytest.mark.parametrize("method", ["close", "abort", "pause"])
def test_on_envelope_may_end_the_connection_before_the_disconnect_does(
    stage: Stage, method: str
) -> None:
    class Hasty(Clerk):
        __slots__ = ()

        def on_envelope(self, message: Message) -> None:
            super().on_envelope(message)
            self.send_envelope(GOOD)
            getattr(self, method)(*([4000, "mine"] if method == "close" else []))

    connection, peer = stage.connection(Hasty)
    peer.send(Message(MessageOpcode.DISCONNECT).encode())
    stage.settle()
    expected = {
        "close": [(Opcode.BINARY, GOOD.encode()), (Opcode.CLOSE, build_close(4000, "mine"))],
        "pause": [(Opcode.BINARY, GOOD.encode()), (Opcode.CLOSE, build_close(1000))],
        "abort": [],
    }[method]
    assert peer.receive() == expected
    peer.close(4000)
    peer.sock.end()
    stage.settle()
    assert_over(stage, connection, peer)


def test_on_envelope_that_raises_costs_the_connection(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    class Clumsy(Clerk):
        __slots__ = ()

        def on_envelope(self, message: Message) -> None:
            raise ZeroDivisionError

    connection, peer = stage.connection(Clumsy)
    peer.send(Message(MessageOpcode.DISCONNECT).encode())
    stage.settle()
    assert peer.received_close() == (1011, "internal error")
    assert connection.cause is Cause.HANDLER_ERROR
    assert len(logged) == 1


def test_two_message_connections_do_not_answer_each_others_errors_for_ever(stage: Stage) -> None:
    connection, peer = stage.connection(Clerk)
    peer.send(b"no envelope")
    stage.settle()
    error = receive_envelope(peer)
    peer.send(error.encode())
    stage.settle()
    assert connection.events == [("open",), ("envelope", error)]
    assert peer.receive() == []


def test_the_defaults_do_nothing(stage: Stage) -> None:
    connection, peer = stage.connection(MessageConnection)
    peer.send(GOOD.encode())
    peer.send_frame(Opcode.PING)
    peer.send_frame(Opcode.PONG)
    stage.settle()
    assert connection.is_open
    assert MessageConnection.subprotocols == (SUBPROTOCOL,) == ("webos",)
    _, plain_peer = stage.connection(Connection)
    plain_peer.send("hello")
    plain_peer.send_frame(3)
    stage.settle()
    assert plain_peer.received_close() is not None
    congested, slow_peer = stage.connection(Connection, capacity=4096)
    while not congested.is_congested:
        congested.send(bytes(4096))
    while congested.is_congested:
        slow_peer.receive()
        stage.settle()
    assert congested.is_open


# --- functions as handlers ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offer", "sent", "received"),
    [
        (None, "text", "text"),
        (None, b"bytes", b"bytes"),
        (None, GOOD.encode(), GOOD.encode()),
        ("webos", GOOD.encode(), GOOD),
        ("other, webos", GOOD.encode(), GOOD),
        ("other", GOOD.encode(), GOOD.encode()),
    ],
)
def test_a_function_gets_what_the_subprotocol_says(
    stage: Stage, offer: str | None, sent: str | bytes, received: str | bytes | Message
) -> None:
    def handle(connection: Connection, message: Message | str | bytes) -> None:
        calls.append((connection, message))

    calls: list[tuple[Connection, Any]] = []
    server = stage.server(handle)
    fields = {} if offer is None else {"Sec_WebSocket_Protocol": offer}
    peer = stage.client(server, upgrade_request(**fields))
    head = read_head(peer)
    assert header(head, "Sec-WebSocket-Protocol") == (
        "webos" if offer is not None and "webos" in offer else None
    )
    peer.send(sent)
    stage.settle()
    assert calls == [(server.connections[0], received)]


@pytest.mark.parametrize("subprotocol", [None, "webos"])
def test_a_function_answers_by_its_first_argument(stage: Stage, subprotocol: str | None) -> None:
    def echo(connection: Connection, message: Message | str | bytes) -> None:
        assert connection.subprotocol == subprotocol
        connection.send(message.encode() if isinstance(message, Message) else message)

    connection, peer = stage.connection(handler_class(echo))
    connection.subprotocol = subprotocol
    peer.send(GOOD.encode())
    stage.settle()
    assert peer.receive() == [(Opcode.BINARY, GOOD.encode())]
    peer.send(Message(MessageOpcode.PING, b"", 7).encode())
    stage.settle()
    answer = MessageOpcode.PING if subprotocol is None else MessageOpcode.PONG
    assert receive_envelope(peer) == Message(answer, b"", 7)


def test_the_class_of_a_function_bears_its_name() -> None:
    def chat(connection: Connection, message: Message | str | bytes) -> None: ...

    assert handler_class(chat).__name__ == "chat"
    assert issubclass(handler_class(chat), MessageConnection)
    assert handler_class(partial(chat)).__name__ == "handler"
    assert handler_class(chat) is not handler_class(chat)


def test_any_callable_will_do(stage: Stage) -> None:
    class Desk:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def __call__(self, connection: Connection, message: Message | str | bytes) -> None:
            self.messages.append(message)

        def method(self, connection: Connection, message: Message | str | bytes) -> None:
            self.messages.append(message)

    desk = Desk()
    for handler in (desk, desk.method, partial(Desk.method, desk)):
        _, peer = stage.connection(handler_class(handler))
        peer.send("hello")
        peer.send_bytes(encode(True, Frame(Opcode.PING)))
        stage.settle()
    assert desk.messages == ["hello"] * 3
