from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import (
    ACCEPT,
    GOOD,
    LIMITS,
    ScriptedServer,
    answer_of,
    check_refused,
    opened,
    refused,
    turn,
    url_of,
)
from splits import every_split
from support import FakeClock, Recorder, has_ipv6, run_until

from reactor import ConnectFailed, Reactor
from websocket import (
    Cause,
    Connection,
    Frame,
    FrameWriter,
    HandshakeError,
    Opcode,
    Server,
    State,
    connect,
)
from websocket.frame import FIN, build_close

MIB = 1024 * 1024
BARE = FrameWriter(masks=False)
HELLO = BARE.encode_frame(Frame(Opcode.TEXT, b"hello"))
WORLD = BARE.encode_frame(Frame(Opcode.TEXT, b"world"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reactor(clock: FakeClock) -> Iterator[Reactor]:
    with Reactor(clock=clock) as reactor:
        yield reactor


# --- the request ------------------------------------------------------------------------------


def test_the_request_is_what_the_rfc_asks_for(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, GOOD)
    client = opened(reactor, script.url + "chat?room=1")
    conversation = script.conversation
    assert conversation.head.startswith(b"GET /chat?room=1 HTTP/1.1\r\n")
    assert conversation.field("Host") == [script.url[5:-1]]
    assert conversation.field("Upgrade") == ["websocket"]
    assert conversation.field("Connection") == ["Upgrade"]
    assert conversation.field("Sec-WebSocket-Version") == ["13"]
    assert len(conversation.field("Sec-WebSocket-Key")[0]) == 24
    for absent in ("Origin", "Cookie", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"):
        assert conversation.field(absent) == []
    assert conversation.frames == b""
    assert client.events == [("open",)]
    assert client.remote_address == ("127.0.0.1", int(script.url[15:-1].rpartition(":")[2]))
    assert client.is_client
    assert (client.session, client.session_id, client.request) == (None, None, None)


def test_every_request_has_a_key_of_its_own(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, GOOD)
    for _ in range(5):
        opened(reactor, script.url)
    assert len({each.field("Sec-WebSocket-Key")[0] for each in script.conversations}) == 5


def test_what_the_caller_adds_stands_in_the_request(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, answer_of(ACCEPT, "Sec-WebSocket-Protocol: b"))
    client = opened(
        reactor,
        script.url,
        subprotocols=["a", "b"],
        origin="https://example.com",
        headers=iter([("Authorization", "Bearer x"), ("Cookie", "a=b")]),
        session_id="secret",
    )
    conversation = script.conversation
    assert conversation.field("Sec-WebSocket-Protocol") == ["a, b"]
    assert conversation.field("Origin") == ["https://example.com"]
    assert conversation.field("Authorization") == ["Bearer x"]
    assert conversation.field("Cookie") == ["a=b; websocket_session=secret"]
    assert client.subprotocol == "b"
    assert client.session_id == "secret"


@pytest.mark.parametrize(("given", "offered"), [(None, ["chat, more"]), (["x"], ["x"]), ([], [])])
def test_the_subprotocols_are_those_of_the_class_unless_others_are_given(
    reactor: Reactor, given: list[str] | None, offered: list[str]
) -> None:
    class Chat(Connection):
        __slots__ = ()
        subprotocols = ("chat", "more")

    script = ScriptedServer(reactor, GOOD)
    client = connect(reactor, script.url, Chat, subprotocols=given, limits=LIMITS)
    run_until(reactor, lambda: client.is_open)
    assert script.conversation.field("Sec-WebSocket-Protocol") == offered
    assert client.subprotocol is None


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("http://example.com/", {}, "scheme"),
        ("ws://example.com/#here", {}, "fragment"),
        ("ws://ann:secret@example.com/", {}, "password"),
        ("ws://example.com/\r\nX: y", {}, "control"),
        ("ws://", {}, "host"),
        ("ws://example.com/", {"headers": [("X", "1\r\nY: 2")]}, "."),
        ("ws://example.com/", {"headers": [("X y", "1")]}, "."),
        ("ws://example.com/", {"headers": [("Host", "other")]}, "set elsewhere"),
        ("ws://example.com/", {"session_id": "a\r\nb"}, "."),
        ("ws://example.com/", {"origin": "example.com"}, "."),
        ("ws://example.com/", {"subprotocols": ["a b"]}, "."),
        ("ws://example.com/", {"subprotocols": ["a", "a"]}, "."),
    ],
)
def test_a_bad_argument_is_a_value_error_and_nothing_is_begun(
    reactor: Reactor, url: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        connect(reactor, url, Recorder, **options)
    assert reactor.next_timeout() is None


# --- the answer -------------------------------------------------------------------------------

BAD_ANSWERS = {
    "another status": (answer_of(status="200 OK", upgrade=False), 200, "200 OK instead of 101"),
    "not found": (answer_of(status="404 Not Found", upgrade=False), 404, "404 Not Found"),
    "overloaded": (answer_of(status="503 No", upgrade=False) + b"please wait", 503, "503 No"),
    "a refusal after interim answers": (
        b"HTTP/1.1 102 Processing\r\n\r\n" * 20_000 + answer_of(status="503 No", upgrade=False),
        503,
        "503 No",
    ),
    "a wrong accept": (answer_of("Sec-WebSocket-Accept: wrong"), 101, "our key"),
    "no accept": (answer_of(), 101, "exactly one Sec-WebSocket-Accept"),
    "two accepts": (answer_of(ACCEPT, ACCEPT), 101, "exactly one Sec-WebSocket-Accept"),
    "no upgrade": (answer_of("Connection: Upgrade", ACCEPT, upgrade=False), 101, "Upgrade"),
    "no connection": (answer_of("Upgrade: websocket", ACCEPT, upgrade=False), 101, "Connection"),
    "another subprotocol": (answer_of(ACCEPT, "Sec-WebSocket-Protocol: x"), 101, "not offered"),
    "an extension": (answer_of(ACCEPT, "Sec-WebSocket-Extensions: x"), 101, "extension"),
    "garbage": (b"\x15\x03\x01\x00\x02\x02\x46", 0, "no HTTP"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", 0, "no HTTP"),
    "a broken head": (b"HTTP/1.1 101 ok\r\nno colon\r\n\r\n", 0, "no HTTP/1.1"),
    "an endless head": (b"HTTP/1.1 101 ok\r\n" + b"X: y\r\n" * 10_000, 0, "header lines"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_a_bad_answer_is_a_handshake_error(reactor: Reactor, case: str) -> None:
    answer, status, message = BAD_ANSWERS[case]
    script = ScriptedServer(reactor, answer + HELLO)
    client = refused(reactor, script.url, subprotocols=["chat"])
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == status
    assert message in str(client.error)
    assert client.cause is Cause.HANDSHAKE_FAILED
    run_until(reactor, lambda: script.conversation.is_over)
    assert script.conversation.frames == b""
    assert reactor.next_timeout() is None


FRAMES_BEHIND = GOOD + HELLO + WORLD


@pytest.mark.parametrize(
    "pieces", [*every_split(FRAMES_BEHIND)], ids=lambda pieces: f"{len(pieces)} pieces"
)
def test_frames_that_come_with_the_answer_are_handled_after_on_open(
    reactor: Reactor, pieces: list[bytes]
) -> None:
    # The accept value must stay in one piece, because the script has yet to fill it in.
    start = FRAMES_BEHIND.index(b"$accept")
    ends = (start, start + len(b"$accept"))
    cuts = [len(b"".join(pieces[:count])) for count in range(1, len(pieces))]
    cuts = [0, *(cut for cut in cuts if not ends[0] < cut < ends[1]), len(FRAMES_BEHIND)]
    whole = [FRAMES_BEHIND[start:end] for start, end in zip(cuts, cuts[1:]) if start < end]
    script = ScriptedServer(reactor, *whole)
    client = opened(reactor, script.url)
    run_until(reactor, lambda: len(client.messages) == 2)
    assert client.events == [("open",), ("message", "hello"), ("message", "world")]


def test_a_connection_closed_in_on_open_handles_none_of_the_frames_behind(
    reactor: Reactor,
) -> None:
    class Closing(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            super().on_open()
            self.close()

    script = ScriptedServer(reactor, GOOD + HELLO + BARE.encode_frame(Frame(FIN | 8)))
    client = connect(reactor, script.url, Closing, limits=LIMITS)
    run_until(reactor, lambda: script.has_request and script.conversation.frames)
    assert client.messages == []


def test_a_server_that_greets_and_hangs_up_is_heard(reactor: Reactor) -> None:
    goodbye = BARE.encode_frame(Frame(Opcode.CLOSE, build_close(1001, "bye")))
    script = ScriptedServer(reactor, GOOD + HELLO + goodbye, hangs_up=True)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert client.events == [("open",), ("message", "hello"), ("close", 1001, "bye")]
    assert client.cause is Cause.CLOSED_BY_PEER


# --- no answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swit", GOOD[:-2]])
def test_a_server_that_hangs_up_before_it_answered(reactor: Reactor, sent: bytes) -> None:
    script = ScriptedServer(reactor, sent, hangs_up=True)
    client = refused(reactor, script.url)
    assert str(client.error) == "no answer to the handshake: closed the connection"
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 0
    assert reactor.next_timeout() is None


def test_a_server_that_resets_the_connection(reactor: Reactor) -> None:
    script = ScriptedServer(reactor)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    run_until(reactor, lambda: script.has_request)
    sock = script.conversation.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    script.conversation.transport.abort()
    run_until(reactor, lambda: client.state is State.CLOSED)
    check_refused(client)
    assert str(client.error).startswith("no answer to the handshake: ")
    assert "reset" in str(client.error)


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1"] + [b" "] * 5])
def test_a_server_that_does_not_answer_in_time(
    reactor: Reactor, clock: FakeClock, pieces: list[bytes]
) -> None:
    script = ScriptedServer(reactor, *pieces)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    run_until(reactor, lambda: script.has_request)
    turn(reactor, 20)
    clock.now += LIMITS.handshake_timeout - 0.1
    turn(reactor)
    assert client.events == []
    clock.now += 0.2
    turn(reactor)
    check_refused(client)
    assert isinstance(client.error, HandshakeError)
    assert str(client.error) == "the handshake took too long"
    run_until(reactor, lambda: script.conversation.is_over)


def test_a_host_that_does_not_connect_in_time(
    reactor: Reactor, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()

    def look_up(*args: object, **options: object) -> list[Any]:
        assert may_answer.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    client = connect(reactor, "ws://slow.example/", Recorder, limits=LIMITS)
    clock.now += LIMITS.handshake_timeout + 0.1
    turn(reactor)
    check_refused(client)
    assert isinstance(client.error, ConnectFailed)
    assert str(client.error) == (
        "cannot connect to slow.example port 80 within 10 s: the name look-up has not answered"
    )
    assert client.cause is Cause.CONNECT_FAILED
    may_answer.set()


def test_a_port_where_nobody_listens(reactor: Reactor) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        client = refused(reactor, f"ws://127.0.0.1:{port}/")
    assert isinstance(client.error, ConnectFailed)
    assert "refused" in str(client.error)
    assert client.cause is Cause.CONNECT_FAILED
    assert reactor.next_timeout() is None


def test_a_host_that_does_not_exist(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*args: object, **options: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    client = refused(reactor, "ws://nowhere.example/")
    assert isinstance(client.error, ConnectFailed)
    assert "nowhere.example" in str(client.error)


def test_an_on_error_that_raises_is_logged(
    reactor: Reactor, logged: list[logging.LogRecord]
) -> None:
    class Broken(Recorder):
        __slots__ = ()

        def on_error(self, error: Exception) -> None:
            raise RuntimeError("what now?")

    script = ScriptedServer(reactor, b"garbage")
    client = connect(reactor, script.url, Broken, limits=LIMITS)
    run_until(reactor, lambda: script.conversations and script.conversation.is_over)
    assert client.state is State.CLOSED
    assert len(logged) == 1


# --- giving up --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("phase", ["looking up", "connecting", "asked"])
def test_a_client_that_gives_up_hears_nothing_more(
    reactor: Reactor, clock: FakeClock, phase: str, way: str
) -> None:
    script = ScriptedServer(reactor)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    if phase == "connecting":
        run_until(reactor, lambda: len(reactor._selector.get_map()) > 2)
        assert not script.conversations
    elif phase == "asked":
        run_until(reactor, lambda: script.has_request)
    getattr(client, way)()
    assert client.state is State.CLOSED
    client.close()
    if phase == "asked":
        run_until(reactor, lambda: script.conversation.is_over)
    turn(reactor, 20)
    clock.now += LIMITS.handshake_timeout + 1
    turn(reactor)
    assert client.events == []
    assert not any(each.received for each in script.conversations) or phase == "asked"
    assert client.cause is (Cause.CLOSED_BY_US if way == "close" else Cause.ABORTED)


def test_nothing_can_be_sent_before_the_connection_is_open(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, GOOD)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    assert client.state is State.CONNECTING
    assert client.send("early") is False
    assert client.ping() is False
    run_until(reactor, lambda: client.is_open)
    client.send("now")
    run_until(reactor, lambda: script.conversation.frames)
    turn(reactor)
    assert len(script.conversation.frames) == 2 + 4 + len("now")


def test_a_reactor_that_is_closed_meanwhile_ends_the_handshake() -> None:
    with Reactor() as reactor:
        script = ScriptedServer(reactor)
        client = connect(reactor, script.url, Recorder, limits=LIMITS)
        run_until(reactor, lambda: script.has_request)
    check_refused(client)


# --- with our own server ----------------------------------------------------------------------


class Echo(Connection):
    __slots__ = ()
    subprotocols = ("echo",)

    def on_message(self, message: str | bytes) -> None:
        self.send(message)


@pytest.fixture
def server(reactor: Reactor) -> Server:
    return Server(Echo, port=0, reactor=reactor, limits=LIMITS).start()


def test_messages_pass_both_ways_up_to_the_limit(reactor: Reactor, server: Server) -> None:
    client = opened(reactor, url_of(server))
    messages: list[str | bytes] = ["", b"", "grüß", b"\x00\xff", "x" * MIB, bytes(MIB)]

    def exchange(message: str | bytes) -> str | bytes:
        count = len(client.messages)
        assert client.send(message)
        run_until(reactor, lambda: len(client.messages) > count)
        return client.messages[-1]

    assert [exchange(message) for message in messages] == messages
    client.close(3000, "enough")
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert client.events[-1] == ("close", 3000, "enough")
    assert (client.cause, client.is_clean) == (Cause.CLOSED_BY_US, True)
    assert server.statistics().closed_by_cause[Cause.CLOSED_BY_PEER] == 1


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_it_connects_to_an_ipv6_address(reactor: Reactor) -> None:
    server = Server(Echo, "::1", 0, reactor=reactor).start()
    client = opened(reactor, f"ws://[::1]:{server.port}/")
    assert server.connections[0].request is not None
    assert server.connections[0].request.headers.get_all("host") == [f"[::1]:{server.port}"]
    assert client.remote_address[0] == "::1"


def test_many_clients_connect_at_once(reactor: Reactor, server: Server) -> None:
    clients = [connect(reactor, url_of(server), Recorder, limits=LIMITS) for _ in range(50)]
    run_until(reactor, lambda: all(client.is_open for client in clients))
    for client in clients:
        client.send(str(client.id))
    run_until(reactor, lambda: all(client.messages for client in clients))
    assert [client.messages for client in clients] == [[str(client.id)] for client in clients]


def test_the_deadline_of_the_handshake_ends_with_it(
    reactor: Reactor, clock: FakeClock, server: Server
) -> None:
    client = opened(reactor, url_of(server))
    clock.now += LIMITS.handshake_timeout + 1
    turn(reactor)
    assert client.events == [("open",)]


def test_a_subprotocol_is_agreed_on(reactor: Reactor, server: Server) -> None:
    client = opened(reactor, url_of(server), subprotocols=["other", "echo"])
    assert client.subprotocol == server.connections[0].subprotocol == "echo"


def test_a_refusal_of_the_server_arrives_with_its_status(reactor: Reactor) -> None:
    server = Server({"/here": Echo}, port=0, reactor=reactor).start()
    client = refused(reactor, url_of(server, "/there"))
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 404


def test_a_session_is_kept_by_the_client_and_resumed(reactor: Reactor, server: Server) -> None:
    first = opened(reactor, url_of(server))
    session = server.connections[0].session
    assert session is not None
    assert first.session_id == session.id
    first.abort()
    run_until(reactor, lambda: not server.connections)
    assert first.session_id == session.id
    second = opened(reactor, url_of(server), session_id=first.session_id)
    assert server.connections[0].session is session
    assert second.session_id == session.id
    third = opened(reactor, url_of(server), session_id="unknown")
    assert third.session_id == server.connections[1].session_id != "unknown"


@pytest.mark.parametrize(
    ("fields", "session_id"),
    [
        (["Set-Cookie: websocket_session=abc; Path=/; HttpOnly"], "abc"),
        (["Set-Cookie: a=b", "Set-Cookie: websocket_session = abc "], "abc"),
        (["Set-Cookie: other=abc", "Set-Cookie: websocket_sessions=abc"], "before"),
        (["Set-Cookie: websocket_session"], "before"),
        ([], "before"),
    ],
)
def test_the_session_id_is_read_from_the_cookie(
    reactor: Reactor, fields: list[str], session_id: str
) -> None:
    script = ScriptedServer(reactor, answer_of(ACCEPT, *fields))
    assert opened(reactor, script.url, session_id="before").session_id == session_id


# --- on the wire ------------------------------------------------------------------------------


def test_every_frame_is_masked_with_a_key_of_its_own(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, GOOD)
    client = opened(reactor, script.url)
    payload = bytes(6)
    for _ in range(10_000):
        client.send(payload)
    size = 2 + 4 + len(payload)
    run_until(reactor, lambda: len(script.conversation.frames) == 10_000 * size)
    data = script.conversation.frames
    frames = [data[start : start + size] for start in range(0, len(data), size)]
    assert all(frame[:2] == b"\x82\x86" for frame in frames)
    keys = [frame[2:6] for frame in frames]
    assert all(frame[6:] == (key + key)[:6] for frame, key in zip(frames, keys))
    # Of 10,000 random keys two are equal with a chance of 1 %; of a bad source many would be.
    assert len(set(keys)) > 9_990
    assert all(len({key[index] for key in keys}) == 256 for index in range(4))


def test_a_masked_frame_of_the_server_fails_the_connection(reactor: Reactor) -> None:
    masked = FrameWriter(masks=True).encode_frame(Frame(Opcode.TEXT, b"hello"))
    script = ScriptedServer(reactor, GOOD + masked, hangs_up=True)
    client = connect(reactor, script.url, Recorder, limits=LIMITS)
    run_until(reactor, lambda: client.state is State.CLOSED)
    assert client.cause is Cause.PROTOCOL_ERROR
    assert client.messages == []
    assert client.events[-1][:2] == ("close", 1002)
