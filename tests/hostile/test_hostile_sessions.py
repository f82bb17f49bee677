"""H110 to H115: what is done to sessions, against a whole server.

Not in an ``Arena``, whose sessions end with their connections: here they outlive them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import (
    Peer,
    Recorder,
    Stage,
    close_events,
    header,
    read_answer,
    read_head,
    upgrade_request,
)

from websocket import (
    Cause,
    Connection,
    Limits,
    Message,
    MessageConnection,
    MessageOpcode,
    Opcode,
    Server,
    Session,
)
from websocket.persistence import ID_LENGTH
from websocket.session_store import SQLiteStore

MIB = 1024 * 1024
# Nothing ends here but by what is tested, and no pings are in the way.
LIMITS = Limits(ping_interval=None, handshakes_per_minute=None)


def cookie(session_id: str) -> dict[str, str]:
    return {"Cookie": f"websocket_session={session_id}"}


def newest(server: Server) -> tuple[Any, Session]:
    """Return the connection that was opened last, and its session."""
    connection = server.connections[-1]
    assert connection.session is not None
    return connection, connection.session


def come(stage: Stage, server: Server, session_id: str | None = None, **fields: str) -> Peer:
    """Return a client that is connected; with an id, it wants this session."""
    if session_id is not None:
        fields.update(cookie(session_id))
    return stage.open_client(server, **fields)


def leave(stage: Stage, *peers: Peer) -> None:
    for peer in peers:
        peer.sock.end()
    stage.settle()


def answer_close(stage: Stage, peer: Peer) -> None:
    """Complete the closing handshake that the server began."""
    code, _ = peer.received_close() or (None, "")
    peer.close(code)
    stage.settle()
    leave(stage, peer)


def expect_rest(stage: Stage, server: Server) -> None:
    """Check that everything is as it was before the first client came."""
    stage.pass_time(server.limits.detached_lifetime + 1)
    assert server.statistics().sessions.active == 0
    assert server.statistics().sessions.replay_size == 0
    assert server.manager.pool.admitted == 0
    assert len(stage.reactor._wheel) == 0


def expect_fresh(stage: Stage, server: Server, session: Session) -> None:
    """Check that who brings its id gets another session, and that nothing is left afterwards."""
    peer = come(stage, server, session.id)
    _, fresh = newest(server)
    assert fresh is not session
    assert not fresh.recovered
    leave(stage, peer)
    expect_rest(stage, server)


# --- H110: ids --------------------------------------------------------------------------------


def altered(session_id: str) -> Iterator[str]:
    """Yield ids that differ from a good one by little."""
    for position in (0, 20, ID_LENGTH - 1):
        letter = "A" if session_id[position] != "A" else "B"
        yield session_id[:position] + letter + session_id[position + 1 :]
    yield session_id.swapcase()
    yield session_id[:-1]
    yield session_id + "A"
    yield session_id + "="
    yield session_id[::-1]
    yield ("%41" if session_id[0] != "A" else "%42") + session_id[1:]


@pytest.mark.parametrize("way", ["cookie", "query"])
def test_h110_guessed_chosen_and_altered_ids_get_a_new_one(stage: Stage, way: str) -> None:
    server = stage.server(limits=LIMITS)
    victim = come(stage, server)
    owner, session = newest(server)
    guesses = ["", "0", "A" * ID_LENGTH, "-" * 128, "../../etc/passwd", *altered(session.id)]
    for guess in guesses:
        if way == "cookie":
            request = upgrade_request(**cookie(guess))
        else:
            request = upgrade_request(f"/?session={guess}")
        head = read_head(peer := stage.client(server, request))
        given = header(head, "Set-Cookie")
        assert given is not None
        _, fresh = newest(server)
        assert given.startswith(f"websocket_session={fresh.id};")
        assert fresh.id not in (guess, session.id)
        assert not fresh.recovered
        leave(stage, peer)
    assert session.connection is owner
    assert server.connections == [owner]
    assert server.statistics().sessions.resumed == 0
    leave(stage, victim)
    expect_rest(stage, server)


def test_h110_ten_thousand_ids_are_all_different_and_of_256_bits(stage: Stage) -> None:
    server = stage.server(limits=LIMITS.replace(max_sessions_per_ip=None))
    sessions = server.manager.sessions
    ids = [sessions.create(address_key="any").id for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    # 43 letters of six bits each.
    assert all(len({each[position] for each in ids}) == 64 for position in range(ID_LENGTH))
    server.manager.close()


@pytest.mark.parametrize("length", [129, 10_000])
@pytest.mark.parametrize("way", ["cookie", "query"])
def test_h110_an_oversized_id_is_refused(stage: Stage, way: str, length: int) -> None:
    limits = LIMITS.replace(max_request_line=20_000, max_header_line=20_000, max_head_size=40_000)
    server = stage.server(limits=limits)
    if way == "cookie":
        request = upgrade_request(**cookie("A" * length))
    else:
        request = upgrade_request("/?session=" + "A" * length)
    answer = read_answer(peer := stage.client(server, request))
    assert (answer.status, answer.body) == (400, "the session id is too long\n")
    assert server.statistics().sessions.created == 0
    leave(stage, peer)
    expect_rest(stage, server)


# --- H111: other people's sessions ------------------------------------------------------------


def of_user(request: Any) -> str | None:
    user: str | None = request.headers.get("x-user")
    return user


@pytest.mark.parametrize(
    ("owner", "visitor"), [("ann", "bob"), ("ann", None), (None, "ann"), ("ann", "Ann")]
)
def test_h111_another_users_session_cannot_be_resumed(
    stage: Stage, owner: str | None, visitor: str | None
) -> None:
    server = stage.server(limits=LIMITS, authenticate=of_user)
    first = come(stage, server, **({"X_User": owner} if owner else {}))
    connection, session = newest(server)
    session.data["secret"] = "of ann"
    thief = come(stage, server, session.id, **({"X_User": visitor} if visitor else {}))
    _, fresh = newest(server)
    assert (fresh.user_id, fresh.recovered, fresh.data) == (visitor, False, {})
    # The owner does not even notice, and comes back as ever.
    assert session.connection is connection
    assert first.receive() == []
    leave(stage, first, thief)
    session.send("for ann only")
    thief = come(stage, server, session.id, **({"X_User": visitor} if visitor else {}))
    assert thief.receive() == []
    again = come(stage, server, session.id, **({"X_User": owner} if owner else {}))
    assert newest(server)[1] is session
    assert again.receive() == [(Opcode.TEXT, "for ann only")]
    leave(stage, again, thief)
    expect_rest(stage, server)


def test_h111_after_its_end_a_session_cannot_be_resumed(stage: Stage) -> None:
    server = stage.server(limits=LIMITS)
    peer = come(stage, server)
    _, session = newest(server)
    leave(stage, peer)
    stage.pass_time(LIMITS.detached_lifetime + 0.1)
    expect_fresh(stage, server, session)


def test_h111_after_a_logout_a_session_cannot_be_resumed(stage: Stage) -> None:
    class Chat(Recorder):
        __slots__ = ()

        def on_message(self, message: str | bytes) -> None:
            assert self.session is not None
            server.manager.destroy_session(self.session)

    server = stage.server(Chat, limits=LIMITS)
    peer = come(stage, server)
    connection, session = newest(server)
    peer.send("log me out")
    stage.settle()
    assert peer.received_close() == (1008, "the session has ended")
    answer_close(stage, peer)
    assert connection.cause is Cause.SESSION_EXPIRED
    expect_fresh(stage, server, session)


def test_h111_a_session_in_which_nothing_happened_can_be_resumed(stage: Stage) -> None:
    server = stage.server(limits=LIMITS)
    peer = come(stage, server)
    _, session = newest(server)
    leave(stage, peer)
    peer = come(stage, server, session.id)
    _, again = newest(server)
    assert again is session
    assert again.recovered
    leave(stage, peer)
    expect_rest(stage, server)


# --- H112: two at once ------------------------------------------------------------------------


@pytest.mark.parametrize("old_is", ["alive", "half-open", "closing", "paused"])
def test_h112_the_last_of_two_wins_and_the_other_is_closed(stage: Stage, old_is: str) -> None:
    server = stage.server(limits=LIMITS)
    old = come(stage, server)
    older, session = newest(server)
    if old_is == "closing":
        older.close(4001, "bye")
        stage.settle()
    if old_is == "paused":
        older.pause()
    new = come(stage, server, session.id)
    newer, again = newest(server)
    assert again is session
    assert session.connection is newer
    if old_is == "closing":
        assert old.received_close() == (4001, "bye")
    else:
        assert old.received_close() == (4000, "a newer connection took over")
    # Nothing that the old one still sends reaches the application.
    old.send("too late")
    stage.settle()
    assert older.messages == []
    if old_is == "half-open":
        stage.pass_time(LIMITS.close_timeout + 0.1)
    else:
        answer_close(stage, old)
    cause, _ = close_events(older)
    assert cause is (Cause.CLOSED_BY_US if old_is == "closing" else Cause.REPLACED)
    assert session.connection is newer
    assert session.send("yours")
    stage.settle()
    assert new.receive() == [(Opcode.TEXT, "yours")]
    assert server.statistics().sessions.attached == 1
    leave(stage, new)
    expect_rest(stage, server)


def test_h112_of_twenty_that_come_in_one_turn_one_owns_the_session(stage: Stage) -> None:
    server = stage.server(limits=LIMITS)
    first = come(stage, server)
    _, session = newest(server)
    request = upgrade_request(**cookie(session.id))
    peers = [first, *(stage.client(server, b"") for _ in range(20))]
    for peer in peers[1:]:
        peer.send_bytes(request)
    stage.settle()
    owners = [each for each in server.connections if each.is_open]
    assert owners == [session.connection]
    assert server.statistics().sessions.attached == 1
    for peer in peers[1:]:
        read_head(peer)
    closed = [peer for peer in peers if peer.received_close() is not None]
    assert len(closed) == 20
    for peer in peers:
        answer_close(stage, peer) if peer in closed else leave(stage, peer)
    assert server.statistics().closed_by_cause[Cause.REPLACED] == 20
    expect_rest(stage, server)


# --- H113: replay -----------------------------------------------------------------------------


class Greeter(Recorder):
    """Say hello before anything else can be said."""

    __slots__ = ()

    def on_open(self) -> None:
        super().on_open()
        assert self.session is not None
        if not self.session.recovered:
            return
        self.send("hello")
        self.session.send("after what you missed")


def test_h113_what_was_missed_comes_between_hello_and_the_rest(stage: Stage) -> None:
    server = stage.server(Greeter, limits=LIMITS)
    leave(stage, come(stage, server))
    session = next(iter(server.manager.sessions._sessions.values()))
    for number in range(3):
        assert session.send(f"missed {number}")
    assert session.send(b"\0\xff")
    # Sent with the request, so that it is handled in the same turn as the handshake.
    request = upgrade_request(**cookie(session.id))
    peer = stage.client(server, request)
    read_head(peer)
    assert [payload for _, payload in peer.receive()] == [
        "hello",
        "missed 0",
        "missed 1",
        "missed 2",
        b"\0\xff",
        "after what you missed",
    ]
    leave(stage, peer)
    expect_rest(stage, server)


def gone(stage: Stage, server: Server, **fields: str) -> Session:
    """Return the session of a client that has come and left."""
    peer = come(stage, server, **fields)
    _, session = newest(server)
    leave(stage, peer)
    return session


def test_h113_an_overflow_is_a_gap_in_words(stage: Stage) -> None:
    server = stage.server(limits=LIMITS)
    session = gone(stage, server)
    for number in range(1_000):
        session.send(str(number))
    assert server.statistics().sessions.replay_size < 32 * 1024
    peer = come(stage, server, session.id)
    frames = [payload for _, payload in peer.receive()]
    assert frames == ['{"type":"gap","dropped":872}', *map(str, range(872, 1_000))]
    assert session.missed == 0
    leave(stage, peer)
    expect_rest(stage, server)


@pytest.mark.parametrize("handler", [MessageConnection, lambda connection, message: None])
def test_h113_a_gap_in_envelopes_is_an_envelope(stage: Stage, handler: Any) -> None:
    server = stage.server(handler, limits=LIMITS.replace(replay_messages=1))
    session = gone(stage, server, Sec_WebSocket_Protocol="webos")
    for number in range(3):
        session.send(Message(MessageOpcode.DISPLAY, b"%d" % number).encode())
    peer = come(stage, server, session.id, Sec_WebSocket_Protocol="webos")
    gap, kept = [Message.decode(payload) for _, payload in peer.receive()]
    assert gap.error_details() == (1, "messages were dropped", {"dropped": 2})
    assert kept.payload == b"2"
    leave(stage, peer)
    expect_rest(stage, server)


def test_h113_a_function_that_was_not_asked_for_envelopes_tells_in_text(stage: Stage) -> None:
    server = stage.server(lambda connection, message: None, limits=LIMITS.replace(replay_size=1))
    session = gone(stage, server)
    assert not session.send("too large")
    peer = come(stage, server, session.id)
    assert peer.receive() == [(Opcode.TEXT, '{"type":"gap","dropped":1}')]
    leave(stage, peer)
    expect_rest(stage, server)


class Raising(Recorder):
    __slots__ = ()

    def on_gap(self, dropped: int) -> None:
        raise RuntimeError("cannot cope with gaps")


def test_h113_a_mistake_in_on_gap_costs_this_connection_and_no_message(
    stage: Stage, logged: list[logging.LogRecord]
) -> None:
    server = stage.server(Raising, limits=LIMITS.replace(replay_messages=2))
    session = gone(stage, server)
    for letter in "abc":
        session.send(letter)
    peer = come(stage, server, session.id)
    assert peer.received_close() == (1011, "internal error")
    assert session.missed == 3
    answer_close(stage, peer)
    assert len(logged) == 1
    server.routes = type(server.routes)(Recorder)
    peer = come(stage, server, session.id)
    assert [payload for _, payload in peer.receive()] == [
        '{"type":"gap","dropped":1}',
        "b",
        "c",
    ]
    leave(stage, peer)
    expect_rest(stage, server)


def test_h113_a_client_that_does_not_read_what_it_missed_is_a_slow_consumer(
    stage: Stage,
) -> None:
    server = stage.server(limits=LIMITS)
    session = gone(stage, server)
    while not session.missed or session._replay is None or not session._replay.dropped:
        session.send(bytes(2_000))
    peer = stage.client(server, b"")
    peer.sock.capacity = 1_000
    peer.send_bytes(upgrade_request(**cookie(session.id)))
    stage.settle()
    connection, _ = newest(server)
    assert connection.is_congested
    stage.pass_time(LIMITS.write_stall_timeout or 0)
    cause, (_, code, _) = close_events(connection)
    assert (cause, code) == (Cause.SLOW_CONSUMER, 1008)
    expect_rest(stage, server)


def test_h113_detached_sessions_in_great_number_stay_within_their_room(stage: Stage) -> None:
    limits = LIMITS.replace(replay_total_size=MIB, max_sessions_per_ip=None)
    server = stage.server(limits=limits)
    sessions = [server.manager.sessions.create(address_key="any") for _ in range(1_000)]
    for _ in range(5):
        for session in sessions:
            session.send(bytes(1_000))
        assert server.statistics().sessions.replay_size <= MIB
    assert all(session.missed == 5 for session in sessions)
    expect_rest(stage, server)


# --- H114: the end ----------------------------------------------------------------------------


def test_h114_a_session_that_ends_while_it_sends_has_said_what_it_said(stage: Stage) -> None:
    ended: list[Session] = []

    def on_expired(session: Session) -> None:
        ended.append(session)
        assert not session.send("from beyond")

    server = stage.server(
        limits=LIMITS.replace(session_lifetime=60.0), on_session_expired=on_expired
    )
    peer = come(stage, server)
    connection, session = newest(server)

    for step in range(-100, 101):
        stage.reactor.call_at(session.ends_at + step / 100, session.send, str(step))
    stage.pass_time(62)
    *frames, (opcode, _) = peer.receive()
    assert opcode == Opcode.CLOSE
    texts = [payload for _, payload in frames]
    assert len(texts) >= 99
    assert texts == [str(step) for step in range(-100, len(texts) - 100)]
    answer_close(stage, peer)
    assert connection.cause is Cause.SESSION_EXPIRED
    assert ended == [session]
    expect_rest(stage, server)


def test_h114_a_hundred_thousand_that_end_together_keep_nobody_waiting(stage: Stage) -> None:
    ended: list[str] = []
    most = 100_000
    limits = LIMITS.replace(max_sessions=most + 1, max_sessions_per_ip=None)
    server = stage.server(limits=limits, on_session_expired=lambda each: ended.append(each.id))
    healthy = come(stage, server)
    ids = [server.manager.sessions.create(address_key="any").id for _ in range(most)]
    stage.pass_time(LIMITS.detached_lifetime - 1)
    stage.clock.now += 1
    turns = served = 0
    while len(ended) < most:
        before = len(ended)
        healthy.send_frame(Opcode.PING, b"well?")
        stage.reactor.run_once(0)
        turns += 1
        assert len(ended) - before <= 256
        served += healthy.receive() == [(Opcode.PONG, b"well?")]
        stage.clock.now += 0.1
    assert served == turns
    assert turns >= most / 256
    assert sorted(ended) == sorted(ids)
    leave(stage, healthy)
    expect_rest(stage, server)
    assert len(ended) == most + 1


def test_h114_endless_anonymous_sessions_are_capped_per_address_and_in_total(
    stage: Stage,
) -> None:
    server = stage.server(limits=LIMITS.replace(max_sessions=30, max_sessions_per_ip=10))
    peers = [come(stage, server)]
    _, first = newest(server)
    for _ in range(9):
        leave(stage, come(stage, server))
    answer = read_answer(stage.client(server))
    assert (answer.status, header(answer.head, "Retry-After")) == (429, "120")
    assert answer.body == "too many sessions of one address\n"
    # Who has one comes back all the same, and others are not concerned.
    peers.append(come(stage, server, first.id))
    for host in ("198.51.100.1", "198.51.100.2"):
        for _ in range(10):
            leave(stage, stage.open_client(server, host))
    answer = read_answer(stage.client(server, host="192.0.2.1"))
    assert (answer.status, answer.body) == (503, "too many sessions\n")
    peers.append(come(stage, server, first.id))
    assert server.statistics().sessions.active == 30
    leave(stage, *peers)
    stage.pass_time(LIMITS.detached_lifetime + 1)
    leave(stage, come(stage, server))
    expect_rest(stage, server)


# --- H115: restarts, with a real process and a real kill --------------------------------------

SERVER = """
import sys
from websocket import Connection, Server
from websocket.session_store import SQLiteStore

class Counter(Connection):
    def on_message(self, message):
        self.session.data["count"] = self.session.data.get("count", 0) + 1
        self.session.save()
        self.send(str(self.session.data["count"]))

server = Server(Counter, port=0, session_store=SQLiteStore(sys.argv[1])).start()
print(server.port, flush=True)
server.run()
"""


@contextlib.contextmanager
def process(path: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server process; it is killed at the end, as hard as the system can."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", SERVER, str(path)]
    with subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline()), server
        finally:
            server.kill()


class Client:
    """A client over a real socket, so plain that nothing can go wrong on its side."""

    def __init__(self, port: int, session_id: str | None = None) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(30)
        self.sock.sendall(upgrade_request(**({} if session_id is None else cookie(session_id))))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.close()

    def given_id(self) -> str | None:
        """Return the id in the answer; None if there is none, or no answer."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n\r\n" not in received and (piece := self.sock.recv(4096)):
                received += piece
        head, end, _ = received.decode().partition("\r\n\r\n")
        given = header(head, "Set-Cookie") if end else None
        return given and given.partition(";")[0].partition("=")[2]

    def count(self) -> str:
        """Send an empty message, masked with zeros, and return the one-letter answer."""
        self.sock.sendall(b"\x81\x80\0\0\0\0")
        answer = b""
        while len(answer) < 3:
            answer += self.sock.recv(3 - len(answer))
        return answer[2:].decode()


def test_h115_no_session_whose_id_is_known_is_lost_to_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "sessions"
    with contextlib.ExitStack() as clients:
        with process(path) as (port, server):
            # All at once, so that the kill comes in the middle of their handshakes.
            waiting = [clients.enter_context(Client(port)) for _ in range(120)]
            counting = waiting.pop(0)
            known = [counting.given_id()]
            assert [counting.count() for _ in range(3)] == ["1", "2", "3"]
            known += [client.given_id() for client in waiting[:40]]
            server.kill()
            server.wait()
        known += [client.given_id() for client in waiting[40:]]
    ids = [each for each in known if each is not None]
    assert len(ids) >= 41
    with process(path) as (port, server):
        for session_id in ids:
            with Client(port, session_id) as client:
                assert client.given_id() is None
                assert client.count() == ("4" if session_id == ids[0] else "1")
        if os.name == "posix":
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0
    assert [each.name for each in tmp_path.iterdir()] == ["sessions"]


def test_h115_a_damaged_file_is_set_aside_by_the_server(
    stage: Stage, tmp_path: Path, logged: list[logging.LogRecord]
) -> None:
    path = tmp_path / "sessions"
    path.write_bytes(b"cos\nsystem\n(S'echo hacked'\ntR.")
    server = stage.server(limits=LIMITS, session_store=SQLiteStore(path))
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert Path(f"{path}.aside-1").read_bytes().startswith(b"cos")
    peer = come(stage, server)
    _, session = newest(server)
    leave(stage, peer)
    server.close()

    again = stage.server(limits=LIMITS, session_store=SQLiteStore(path))
    peer = come(stage, again, session.id)
    assert newest(again)[1].id == session.id
    leave(stage, peer)
    expect_rest(stage, again)
    again.close()


def test_h115_a_store_that_cannot_be_used_is_an_error_before_anybody_comes(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match="no file"):
        Server(Connection, port=0, session_store=SQLiteStore(tmp_path))


def test_h115_a_server_that_starts_again_has_its_sessions_again(
    stage: Stage, tmp_path: Path
) -> None:
    store = SQLiteStore(tmp_path / "sessions")
    server = stage.server(port=0, limits=LIMITS, session_store=store)
    peer = come(stage, server)
    _, session = newest(server)
    session.data["name"] = "ann"
    server.close()
    stage.settle()
    assert peer.sock.has_eof or peer.sock.is_reset
    server.start()
    peer = come(stage, server, session.id)
    _, again = newest(server)
    assert again is not session
    assert (again.id, again.data) == (session.id, {"name": "ann"})
    server.close()
    stage.settle()
