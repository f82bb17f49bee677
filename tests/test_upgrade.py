from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from splits import every_split
from support import (
    ACCEPT,
    Peer,
    Recorder,
    Stage,
    as_socket,
    header,
    read_answer,
    read_head,
    upgrade_request,
)

from reactor import Reactor
from websocket import (
    Connection,
    Frame,
    FrameWriter,
    HandshakeError,
    HTTPResponse,
    Limits,
    Opcode,
    Request,
    Server,
    Upgrader,
)
from websocket.frame import FIN, build_close

HOST = "203.0.113.7"
LIMITS = Limits()
MASKED = FrameWriter(masks=True)
HELLO = MASKED.encode_frame(Frame(Opcode.TEXT, b"hello"))
WORLD = MASKED.encode_frame(Frame(Opcode.TEXT, b"world"))


def get(target: str = "/", method: str = "GET", **fields: str) -> bytes:
    """Return a plain request."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    head = [f"{method} {target} HTTP/1.1", "Host: example.com", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1")


def leave(stage: Stage, *peers: Peer) -> None:
    """Let clients vanish without a word."""
    for peer in peers:
        peer.sock.end()
    stage.settle()


def opened(server: Server) -> Recorder:
    """Return the connection that was opened last."""
    connection = server.connections[-1]
    assert isinstance(connection, Recorder)
    return connection


def check_at_rest(stage: Stage, server: Server) -> None:
    """Check that nothing is left of clients that are gone: no slot, socket or timer."""
    statistics = server.statistics()
    assert not server.handshakes
    assert not server.connections
    assert server.manager.pool.admitted == 0
    assert server.manager.pool._admitted_by_address == {}
    assert (statistics.handshaking, statistics.active) == (0, 0)
    assert statistics.accepted == statistics.failed + statistics.http + statistics.opened
    assert statistics.failed == sum(statistics.failed_by_reason.values())
    server.manager.close()
    assert stage.reactor.next_timeout() is None
    wakeup_alone = 1
    assert len(stage.reactor._selector.get_map()) == wakeup_alone


# --- success ----------------------------------------------------------------------------------


def test_a_client_is_answered_and_its_connection_opened(stage: Stage) -> None:
    server = stage.server()
    peer = stage.client(server, upgrade_request("/chat?room=1"))
    head = read_head(peer)
    assert head.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert header(head, "Upgrade") == "websocket"
    assert header(head, "Connection") == "Upgrade"
    assert header(head, "Sec-WebSocket-Accept") == ACCEPT
    assert header(head, "Content-Length") is None
    connection = opened(server)
    assert connection.events == [("open",)]
    assert connection.request is not None
    assert connection.request.path == "/chat"
    assert connection.request.query_parameters == {"room": ["1"]}
    assert connection.remote_address == (HOST, 50_000)
    assert server.statistics().active == 1
    leave(stage, peer)
    check_at_rest(stage, server)


def test_the_request_is_read_again_when_somebody_asks_for_it_later(stage: Stage) -> None:
    server = stage.server()
    stage.client(server, upgrade_request("/chat?room=1"))
    connection = opened(server)
    request = connection.request
    assert request is connection.request
    assert request is not None
    assert (request.method, request.target, request.query) == ("GET", "/chat?room=1", "room=1")
    assert request.headers.get("upgrade") == "websocket"
    assert request.remote_address == connection.remote_address


def test_on_open_sees_the_request_that_is_there_later(stage: Stage) -> None:
    seen: list[Request | None] = []

    class Asking(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            seen.append(self.request)

    server = stage.server(Asking)
    stage.client(server, upgrade_request("/chat"))
    assert opened(server).request is seen[0]


def test_what_authenticate_writes_into_the_request_stays_there(stage: Stage) -> None:
    def authenticate(request: Request) -> None:
        request.remote_address = ("198.51.100.9", 1)

    server = stage.server(authenticate=authenticate)
    stage.client(server, upgrade_request("/chat"))
    request = opened(server).request
    assert request is not None
    assert request.remote_address == ("198.51.100.9", 1)


def test_a_connection_with_narrower_limits_keeps_its_request(stage: Stage) -> None:
    class Narrow(Recorder):
        __slots__ = ()

        def __init__(self, reactor: Reactor, limits: Limits, **options: Any) -> None:
            super().__init__(reactor, limits.replace(max_head_size=50), **options)

    server = stage.server(Narrow)
    stage.client(server, upgrade_request("/chat"))
    request = opened(server).request
    assert request is not None
    assert request.path == "/chat"


def test_the_subprotocols_are_those_of_the_class(stage: Stage) -> None:
    class Chat(Recorder):
        __slots__ = ()
        subprotocols = ("chat.v2", "chat.v1")

    server = stage.server({"/chat": Chat, "/plain": Recorder})
    fields = {"Sec_WebSocket_Protocol": "chat.v1, chat.v2"}
    head = read_head(stage.client(server, upgrade_request("/chat", **fields)))
    assert header(head, "Sec-WebSocket-Protocol") == "chat.v2"
    assert opened(server).subprotocol == "chat.v2"
    head = read_head(stage.client(server, upgrade_request("/plain", **fields)))
    assert header(head, "Sec-WebSocket-Protocol") is None
    assert opened(server).subprotocol is None


FRAMES_BEHIND = upgrade_request() + HELLO + WORLD[:3]


@pytest.mark.parametrize(
    "pieces", [*every_split(FRAMES_BEHIND, 20)], ids=lambda pieces: f"{len(pieces)} pieces"
)
def test_frames_that_come_with_the_request_are_handled_after_on_open(
    stage: Stage, pieces: list[bytes]
) -> None:
    server = stage.server()
    peer = stage.client(server, b"")
    for piece in pieces:
        peer.send_bytes(piece)
        stage.settle()
    peer.send_bytes(WORLD[3:])
    stage.settle()
    assert opened(server).events == [("open",), ("message", "hello"), ("message", "world")]


def test_frames_that_come_with_the_request_are_answered_behind_the_101(stage: Stage) -> None:
    server = stage.server(lambda connection, message: connection.send(message))
    peer = stage.client(server, upgrade_request() + HELLO + WORLD)
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    assert peer.receive() == [(Opcode.TEXT, "hello"), (Opcode.TEXT, "world")]


def test_a_connection_closed_in_on_open_handles_none_of_the_frames_behind(stage: Stage) -> None:
    class Closing(Recorder):
        __slots__ = ()

        def on_open(self) -> None:
            super().on_open()
            self.close(4001, "not now")

    server = stage.server(Closing)
    ours = stage.client(server, upgrade_request() + HELLO)
    read_head(ours)
    assert opened(server).messages == []
    assert ours.received_close() == (4001, "not now")


# --- time and vanishing clients ---------------------------------------------------------------


def test_a_silent_client_is_refused_at_the_deadline(stage: Stage) -> None:
    server = stage.server()
    peer = stage.client(server, b"")
    stage.pass_time(LIMITS.handshake_timeout - 0.1)
    assert peer.sock.take() == b""
    assert server.statistics().handshaking == 1
    stage.pass_time(0.2)
    assert read_answer(peer).status == 408
    stage.pass_time(LIMITS.linger_timeout)
    assert server.statistics().failed_by_reason == {"408": 1}
    check_at_rest(stage, server)


def test_a_byte_a_second_does_not_move_the_deadline(stage: Stage) -> None:
    server = stage.server()
    peer = stage.client(server, b"")
    for byte in upgrade_request()[:9]:
        peer.send_bytes(bytes([byte]))
        stage.pass_time(1)
        assert peer.sock.take() == b""
    stage.pass_time(1.1)
    assert read_answer(peer).status == 408
    stage.pass_time(LIMITS.linger_timeout)
    check_at_rest(stage, server)


STAGES = {
    "before the first byte": b"",
    "in the middle of the head": upgrade_request()[:40],
    "refused": upgrade_request(Origin="https://evil.example"),
    "answered": get(),
    "open": upgrade_request(),
    "in the middle of a frame": upgrade_request() + HELLO[:3],
}
ENDS: dict[str, Callable[[Peer], None]] = {
    "end": lambda peer: peer.sock.end(),
    "close": lambda peer: peer.sock.close(),
    "reset": lambda peer: peer.sock.reset(),
}


@pytest.mark.parametrize("is_seen_first", [True, False])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("sent", STAGES)
def test_clients_may_vanish_at_any_stage(
    stage: Stage, sent: str, end: str, is_seen_first: bool
) -> None:
    server = stage.server(limits=Limits(handshakes_per_minute=None))
    for _ in range(30):
        ours, theirs = stage.network.pair((HOST, 50_000))
        server.adopt(as_socket(ours))
        theirs.feed(STAGES[sent])
        if is_seen_first:
            stage.settle()
        ENDS[end](Peer(theirs, is_client=True))
        stage.settle()
    # What was in flight when the stream broke is lost; nothing waits longer than the linger.
    stage.pass_time(LIMITS.linger_timeout)
    statistics = server.statistics()
    assert statistics.accepted == 30
    assert statistics.opened == statistics.closed
    check_at_rest(stage, server)


def test_probes_of_a_load_balancer_leave_no_line_in_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "websocket")
    server = stage.server()
    leave(stage, stage.client(server, b""))
    assert server.statistics().failed_by_reason == {"eof": 1}
    assert caplog.messages == []


def test_tls_on_a_plain_port_is_dropped_at_once_and_hinted_at_sometimes(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "websocket")
    server = stage.server()
    client_hello = bytes.fromhex("16030100c5010000c10303")
    hints = []
    for _ in range(3):
        peer = stage.client(server, client_hello)
        assert peer.sock.take() == b""
        assert peer.sock.has_eof
        hints.append(len(caplog.messages))
        stage.pass_time(2.6)
    assert hints == [1, 1, 2]
    assert "wss://" in caplog.messages[0]
    assert server.statistics().failed_by_reason == {"tls": 3}
    check_at_rest(stage, server)


# --- refusals ---------------------------------------------------------------------------------

REFUSED = {
    "garbage": (b"\x00\x01\x02", 400),
    "a body": (upgrade_request(Content_Length="5") + b"hello" + HELLO, 400),
    "a chunked body": (upgrade_request(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400),
    "another site's page": (upgrade_request(Origin="https://evil.example"), 403),
    "an unknown path": (upgrade_request("/nowhere"), 404),
    "POST": (get("/chat", "POST"), 405),
    "a long request line": (b"GET /" + b"a" * 9000, 414),
    "another version": (upgrade_request().replace(b": 13", b": 8"), 426),
    "a long header": (upgrade_request(Cookie="a" * 9000), 431),
    "HTTP/2.0": (upgrade_request().replace(b"/1.1", b"/2.0"), 505),
    "a long session id": (upgrade_request("/chat", Cookie="websocket_session=" + "a" * 129), 400),
    "a long session id in the query": (upgrade_request("/chat?session=" + "a" * 129), 400),
    "too many parameters": (upgrade_request("/chat?" + "&" * 1000), 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_answer_and_what_follows_is_not_parsed(stage: Stage, case: str) -> None:
    request, status = REFUSED[case]
    server = stage.server({"/chat": Recorder})
    second = upgrade_request("/chat") + HELLO
    peer = stage.client(server, request + second)
    peer.send_bytes(second)
    stage.settle()
    answer = read_answer(peer)
    assert answer.status == status
    assert answer.body.endswith("\n")
    peer.send_bytes(second)
    stage.settle()
    assert peer.sock.take() == b""
    leave(stage, peer)
    assert server.statistics().failed_by_reason == {str(status): 1}
    assert server.statistics().opened == 0
    check_at_rest(stage, server)


def test_a_flood_behind_a_refusal_is_cut_off(stage: Stage) -> None:
    server = stage.server()
    peer = stage.client(server, b"\x00")
    answer = read_answer(peer)
    peer.send_bytes(bytes(LIMITS.linger_size + 1))
    stage.settle()
    assert answer.status == 400
    assert peer.sock.peer is not None
    assert peer.sock.peer.is_closed
    check_at_rest(stage, server)


def test_a_405_names_what_is_allowed(stage: Stage) -> None:
    peer = stage.client(stage.server(), get(method="POST"))
    assert header(read_answer(peer).head, "Allow") == "GET"


@pytest.mark.parametrize("request_bytes", [get(), upgrade_request()], ids=["plain", "upgrade"])
def test_a_foreign_host_reaches_no_hook(stage: Stage, request_bytes: bytes) -> None:
    calls: list[Request] = []
    server = stage.server(
        upgrader=Upgrader(allowed_hosts=["localhost"]),
        authenticate=calls.append,
        on_http_request=calls.append,
    )
    assert read_answer(stage.client(server, request_bytes)).status == 403
    assert calls == []


def test_a_refusal_is_logged_in_one_short_line(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "websocket")

    def authenticate(request: Request) -> None:
        raise HandshakeError(403, "no " * 1000)

    stage.client(stage.server(authenticate=authenticate), upgrade_request("/" + "a" * 5000))
    (line,) = caplog.messages
    assert line.startswith(f"{HOST}: refused with 403: no no ")
    assert len(line) < 300


# --- plain HTTP -------------------------------------------------------------------------------

PAGES: dict[str, tuple[HTTPResponse | None, int, str, str]] = {
    "text": (HTTPResponse("grüß"), 200, "grüß", "text/plain; charset=utf-8"),
    "bytes": (HTTPResponse(b"<p>", 201, [("Content-Type", "text/html")]), 201, "<p>", "text/html"),
    "nothing": (
        None,
        404,
        "this is a WebSocket server, and no page\n",
        "text/plain; charset=utf-8",
    ),
}


@pytest.mark.parametrize("page", PAGES)
def test_plain_requests_are_answered_by_the_hook(stage: Stage, page: str) -> None:
    response, status, body, content_type = PAGES[page]
    requests: list[Request] = []

    def on_http_request(request: Request) -> HTTPResponse | None:
        requests.append(request)
        return response

    server = stage.server(on_http_request=on_http_request)
    answer = read_answer(peer := stage.client(server, get("/page?a=1")))
    assert (answer.status, answer.body) == (status, body)
    assert header(answer.head, "Content-Length") == str(len(body.encode()))
    assert header(answer.head, "Content-Type") == content_type
    assert [request.path for request in requests] == ["/page"]
    leave(stage, peer)
    assert (server.statistics().http, server.statistics().failed) == (1, 0)
    check_at_rest(stage, server)


def test_head_is_answered_without_the_body(stage: Stage) -> None:
    server = stage.server(on_http_request=lambda request: HTTPResponse("12345"))
    answer = read_answer(stage.client(server, get(method="HEAD")))
    assert (answer.status, answer.body) == (200, "")
    assert header(answer.head, "Content-Length") == "5"


def test_http_1_0_is_answered_as_such(stage: Stage) -> None:
    peer = stage.client(stage.server(), b"GET / HTTP/1.0\r\n\r\n")
    assert read_answer(peer).head.startswith("HTTP/1.0 404 ")


def test_without_a_hook_plain_requests_find_nothing(stage: Stage) -> None:
    assert read_answer(stage.client(stage.server(), get())).status == 404


def test_of_pipelined_plain_requests_only_the_first_is_answered(stage: Stage) -> None:
    paths: list[str] = []

    def on_http_request(request: Request) -> HTTPResponse:
        paths.append(request.path)
        return HTTPResponse("page")

    server = stage.server(on_http_request=on_http_request)
    assert read_answer(stage.client(server, get("/1") + get("/2") * 999)).body == "page"
    assert paths == ["/1"]


def test_the_hook_may_refuse(stage: Stage) -> None:
    def on_http_request(request: Request) -> None:
        raise HandshakeError(403, "staff only", [("X-Why", "because")])

    server = stage.server(on_http_request=on_http_request)
    answer = read_answer(peer := stage.client(server, get()))
    assert (answer.status, answer.body) == (403, "staff only\n")
    assert header(answer.head, "X-Why") == "because"
    leave(stage, peer)
    assert server.statistics().failed_by_reason == {"403": 1}


def test_a_large_page_reaches_a_client_that_reads_slowly(stage: Stage) -> None:
    body = b"0123456789abcdef" * 4096
    server = stage.server(on_http_request=lambda request: HTTPResponse(body))
    ours, theirs = stage.network.pair(capacity=8192)
    server.adopt(as_socket(ours))
    theirs.feed(get())
    stage.settle()
    received = theirs.take()
    for _ in range(8):
        stage.pass_time(1)
        received += theirs.take()
    stage.settle()
    assert (received + theirs.take()).endswith(body)
    assert theirs.has_eof


def test_a_page_that_is_never_read_does_not_keep_the_slot(stage: Stage) -> None:
    server = stage.server(on_http_request=lambda request: HTTPResponse(bytes(100_000)))
    ours, theirs = stage.network.pair(capacity=8192)
    server.adopt(as_socket(ours))
    theirs.feed(get())
    stage.pass_time(LIMITS.handshake_timeout + 0.1)
    check_at_rest(stage, server)


# --- hooks that go wrong ----------------------------------------------------------------------


def raises(error: BaseException) -> Callable[[Request], Any]:
    def hook(request: Request) -> Any:
        raise error

    return hook


def returns(value: Any) -> Callable[[Request], Any]:
    return lambda request: value


BAD_PAGES = {
    "an exception": raises(ValueError("secret")),
    "an error without a status": raises(HandshakeError(0, "secret")),
    "an error with a broken header": raises(HandshakeError(403, "no", [("X", "secret\r\nY: 1")])),
    "an error of half a surrogate": raises(HandshakeError(403, "secret\ud800")),
    "a string": returns("secret"),
    "a number": returns(HTTPResponse(12)),  # type: ignore[arg-type]  # the mistake under test
    "half a surrogate": returns(HTTPResponse("secret\ud800")),
    "a status that is none": returns(HTTPResponse("secret", 99)),
    "a broken header": returns(HTTPResponse("secret", 200, [("X", "1\r\nSet-Cookie: a=b")])),
}


@pytest.mark.parametrize("mistake", BAD_PAGES)
def test_a_mistake_in_the_page_hook_costs_that_request(
    stage: Stage, logged: list[logging.LogRecord], mistake: str
) -> None:
    server = stage.server(on_http_request=BAD_PAGES[mistake])
    healthy = stage.open_client(server)
    peer = stage.client(server, get())
    answer = read_answer(peer)
    assert (answer.status, answer.body) == (500, "internal error\n")
    assert "secret" not in answer.head
    assert len(logged) == 1
    assert logged[0].exc_info
    leave(stage, peer)
    assert server.statistics().failed_by_reason == {"500": 1}
    healthy.send_frame(FIN | Opcode.PING, b"alive?")
    stage.settle()
    assert healthy.receive() == [(Opcode.PONG, b"alive?")]
    leave(stage, healthy)
    check_at_rest(stage, server)


BAD_USERS = {
    "an exception": raises(RuntimeError("secret")),
    "an error without a status": raises(HandshakeError(101, "secret")),
    "a number": returns(7),
    "bytes": returns(b"secret"),
    "True": returns(True),
}


@pytest.mark.parametrize("mistake", BAD_USERS)
def test_a_mistake_in_authenticate_costs_that_request(
    stage: Stage, logged: list[logging.LogRecord], mistake: str
) -> None:
    server = stage.server(authenticate=BAD_USERS[mistake])
    peer = stage.client(server, upgrade_request() + HELLO)
    answer = read_answer(peer)
    assert (answer.status, answer.body) == (500, "internal error\n")
    assert len(logged) == 1
    leave(stage, peer)
    assert server.statistics().sessions.created == 0
    check_at_rest(stage, server)


def test_authenticate_may_refuse(stage: Stage) -> None:
    challenge = ("WWW-Authenticate", 'Basic realm="chat"')
    server = stage.server(authenticate=raises(HandshakeError(401, "who is it?", [challenge])))
    answer = read_answer(peer := stage.client(server))
    assert (answer.status, answer.body) == (401, "who is it?\n")
    assert header(answer.head, "WWW-Authenticate") == challenge[1]
    leave(stage, peer)
    assert server.statistics().failed_by_reason == {"401": 1}
    check_at_rest(stage, server)


@pytest.mark.parametrize("user_id", ["ann", "", None])
def test_the_session_belongs_to_the_user_whom_authenticate_names(
    stage: Stage, user_id: str | None
) -> None:
    server = stage.server(authenticate=returns(user_id))
    stage.open_client(server)
    session = opened(server).session
    assert session is not None
    assert session.user_id == user_id
    assert server.manager.pool.by_user("ann") == (server.connections if user_id == "ann" else [])


def test_a_connection_class_that_cannot_be_made_costs_that_request(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    class Broken(Connection):
        __slots__ = ()

        def __init__(self, *args: Any, **options: Any) -> None:
            raise RuntimeError("secret")

    server = stage.server(Broken)
    peer = stage.client(server)
    assert read_answer(peer).body == "internal error\n"
    leave(stage, peer)
    check_at_rest(stage, server)


def test_a_session_that_ends_during_the_handshake_ends_the_connection(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    class Ending(Recorder):
        __slots__ = ()

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            server.manager.sessions.close()

    server = stage.server(Ending)
    peer = stage.client(server)
    assert peer.sock.has_eof
    assert server.statistics().active == 0
    check_at_rest(stage, server)


# --- sessions ---------------------------------------------------------------------------------


def session_id_of(server: Server) -> str:
    session_id = server.connections[-1].session_id
    assert session_id is not None
    return session_id


def test_a_new_session_is_told_in_a_cookie_that_scripts_and_other_sites_cannot_use(
    stage: Stage,
) -> None:
    server = stage.server()
    head = read_head(stage.client(server))
    session = server.connections[0].session
    assert session is not None
    assert session.address_key == HOST
    assert session.id == session_id_of(server)
    cookie = f"websocket_session={session.id}; Path=/; HttpOnly; SameSite=Strict"
    assert header(head, "Set-Cookie") == cookie


@pytest.mark.parametrize("way", ["cookie", "query"])
def test_a_session_is_resumed(stage: Stage, way: str) -> None:
    server = stage.server()
    first = stage.open_client(server)
    session = server.connections[0].session
    assert session is not None
    session.data["cart"] = ["milk"]
    leave(stage, first)
    stage.pass_time(LIMITS.detached_lifetime - 1)
    if way == "cookie":
        request = upgrade_request("/?session=other", Cookie=f"a=b; websocket_session={session.id}")
    else:
        request = upgrade_request(f"/?session={session.id}")
    head = read_head(stage.client(server, request))
    assert header(head, "Set-Cookie") is None
    assert server.connections[0].session is session
    assert session.data == {"cart": ["milk"]}
    assert session.resume_count == 1
    statistics = server.statistics().sessions
    assert (statistics.created, statistics.resumed, statistics.attached) == (1, 1, 1)


@pytest.mark.parametrize("wanted", ["", "a", "A" * 43, "A" * 128, "ä" * 43])
def test_an_unknown_session_id_is_not_adopted(stage: Stage, wanted: str) -> None:
    server = stage.server()
    head = read_head(stage.client(server, upgrade_request(Cookie=f"websocket_session={wanted}")))
    cookie = header(head, "Set-Cookie")
    assert cookie is not None
    assert cookie.startswith(f"websocket_session={session_id_of(server)};")
    assert session_id_of(server) != wanted
    assert server.statistics().sessions.resumed == 0


def test_a_session_of_another_user_is_not_given_away(stage: Stage) -> None:
    server = stage.server(authenticate=lambda request: request.query_parameters["user"][0])
    stage.client(server, upgrade_request("/?user=ann"))
    of_ann = server.connections[0].session
    assert of_ann is not None
    stage.client(server, upgrade_request("/?user=bob", Cookie=f"websocket_session={of_ann.id}"))
    assert opened(server).session is not of_ann
    assert of_ann.connection is server.connections[0]
    assert server.statistics().sessions.created == 2


def test_too_many_sessions_are_refused(stage: Stage) -> None:
    server = stage.server(limits=Limits(max_sessions=1))
    healthy = stage.open_client(server)
    peer = stage.client(server)
    answer = read_answer(peer)
    assert answer.status == 503
    assert header(answer.head, "Retry-After") == "120"
    leave(stage, peer, healthy)
    check_at_rest(stage, server)


# --- limits on numbers ------------------------------------------------------------------------


def test_a_full_server_refuses_before_it_reads(stage: Stage) -> None:
    server = stage.server(limits=Limits(max_connections=2))
    first = stage.open_client(server)
    half_open = stage.client(server, b"")
    refused = stage.client(server, b"", host="198.51.100.1")
    answer = read_answer(refused)
    assert answer.status == 503
    assert int(header(answer.head, "Retry-After") or "") > 0
    refused.send_bytes(upgrade_request())
    stage.settle()
    assert refused.sock.take() == b""
    first.send("still here")
    leave(stage, half_open)
    assert opened(server).messages == ["still here"]
    second = stage.open_client(server)
    leave(stage, first, second, refused)
    assert server.statistics().failed_by_reason == {"503": 1, "eof": 1}
    check_at_rest(stage, server)


def test_one_address_gets_no_more_than_its_share(stage: Stage) -> None:
    server = stage.server(limits=Limits(max_connections_per_ip=2))
    peers = [stage.open_client(server), stage.client(server, b"")]
    answer = read_answer(refused := stage.client(server))
    assert answer.status == 429
    assert int(header(answer.head, "Retry-After") or "") > 0
    peers.append(stage.open_client(server, host="198.51.100.1"))
    leave(stage, *peers, refused)
    again = stage.open_client(server)
    leave(stage, again)
    check_at_rest(stage, server)


def test_handshakes_of_one_address_are_rated(stage: Stage) -> None:
    server = stage.server(limits=Limits(handshakes_per_minute=3.0))
    for _ in range(3):
        leave(stage, stage.open_client(server))
    answer = read_answer(refused := stage.client(server))
    assert (answer.status, header(answer.head, "Retry-After")) == (429, "20")
    leave(stage, refused, stage.open_client(server, host="198.51.100.1"))
    stage.pass_time(20)
    leave(stage, stage.open_client(server))
    assert server.statistics().failed_by_reason == {"429": 1}
    check_at_rest(stage, server)


# --- shutdown ---------------------------------------------------------------------------------


def test_handshakes_under_way_are_refused_at_shutdown(stage: Stage) -> None:
    server = stage.server()
    silent = stage.client(server, b"")
    halfway = stage.client(server, upgrade_request()[:30])
    refused = stage.client(server, b"\x00")
    done: list[str] = []
    server.shutdown(reason="bye", on_done=lambda: done.append("done"))
    stage.settle()
    for peer in (silent, halfway):
        answer = read_answer(peer)
        assert (answer.status, answer.body) == (503, "bye\n")
        assert header(answer.head, "Retry-After") == "5"
    assert read_answer(refused).status == 400
    assert done == []
    leave(stage, silent, halfway, refused)
    assert done == ["done"]
    check_at_rest(stage, server)


@pytest.mark.parametrize("received", [b"", upgrade_request()])
def test_a_stream_adopted_during_the_shutdown_is_refused(stage: Stage, received: bytes) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown()
    ours, theirs = stage.network.pair()
    server.adopt(as_socket(ours), received)
    stage.settle()
    late = Peer(theirs, is_client=True)
    assert read_answer(late).status == 503
    assert len(server.connections) == 1
    leave(stage, late, peer)
    assert not server.is_shutting_down
    check_at_rest(stage, server)


def test_a_page_that_shuts_the_server_down_is_answered_first(stage: Stage) -> None:
    def on_http_request(request: Request) -> HTTPResponse:
        server.shutdown()
        return HTTPResponse("bye")

    server = stage.server(on_http_request=on_http_request)
    other = stage.open_client(server)
    answer = read_answer(peer := stage.client(server, get("/quit")))
    assert (answer.status, answer.body) == (200, "bye")
    closed = other.received_close()
    assert closed is not None
    assert closed[1].startswith("the server is going away; retry after ")
    leave(stage, peer, other)
    assert server.statistics().http == 1
    check_at_rest(stage, server)


def test_a_client_whose_authentication_shuts_the_server_down_is_opened_and_closed(
    stage: Stage,
) -> None:
    def authenticate(request: Request) -> None:
        server.shutdown(1012, "restart")

    server = stage.server(authenticate=authenticate)
    peer = stage.client(server)
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    assert peer.received_close() == (1012, "restart; retry after 3.09 s")
    peer.send_frame(FIN | Opcode.CLOSE, build_close(1012, ""))
    stage.settle()
    assert peer.sees_end
    check_at_rest(stage, server)


def test_hooks_are_told_who_asks(stage: Stage) -> None:
    seen: list[Any] = []

    def authenticate(request: Request) -> str:
        seen.append((request.remote_address, request.peer_certificate))
        return "ann"

    server = stage.server(authenticate=authenticate)
    stage.open_client(server, host="203.0.113.9")
    assert seen == [(("203.0.113.9", 50_000), None)]


@pytest.mark.parametrize("request_line", ["GET / HTTP/1.1", "POST / HTTP/1.1"])
def test_answers_carry_the_date(stage: Stage, request_line: str) -> None:
    request = f"{request_line}\r\nHost: example.com\r\n\r\n".encode()
    date = header(read_head(stage.client(stage.server(), request)), "Date")
    assert date is not None
    assert parsedate_to_datetime(date).utcoffset() == timedelta(0)


def test_the_subprotocols_of_the_upgrader_serve_every_class(stage: Stage) -> None:
    server = stage.server(upgrader=Upgrader(subprotocols=["chat.v1"]))
    peer = stage.client(server, upgrade_request(Sec_WebSocket_Protocol="chat.v2, chat.v1"))
    assert header(read_head(peer), "Sec-WebSocket-Protocol") == "chat.v1"
    assert server.connections[0].subprotocol == "chat.v1"
