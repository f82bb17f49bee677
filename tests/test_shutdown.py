"""How a server comes to its end: in turns, with hints, cut at the deadline; or drained."""

from __future__ import annotations

import re
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    Peer,
    Recorder,
    Stage,
    as_socket,
    close_events,
    header,
    read_answer,
    read_head,
    run_until,
    upgrade_request,
)

from reactor import Reactor
from websocket import Cause, Limits, Server, State, connect
from websocket.shutdown import BATCH_INTERVAL, COME_BACK_WITHIN, LEAST_BATCH, spread

# Nothing but a shutdown ends a connection that has these.
PATIENT = Limits(close_timeout=1000.0, ping_interval=None)
HINT = re.compile(r"; retry after ([0-9]\.[0-9][0-9]) s$")


def crowd(stage: Stage, server: Server, count: int) -> list[Peer]:
    """Return many peers whose opening handshake has succeeded, without a turn for each."""
    peers = []
    for number in range(count):
        ours, theirs = stage.network.pair((f"10.0.{number // 256}.{number % 256}", 50_000))
        server.adopt(as_socket(ours), upgrade_request())
        peers.append(Peer(theirs, is_client=True))
    stage.settle()
    for peer in peers:
        assert read_head(peer).startswith("HTTP/1.1 101 ")
    return peers


def told(peers: list[Peer]) -> int:
    """Count the peers that have their close frame."""
    return sum(peer.received_close() is not None for peer in peers)


def hint_of(peer: Peer) -> float:
    closed = peer.received_close()
    assert closed is not None
    match = HINT.search(closed[1])
    assert match is not None, closed
    return float(match.group(1))


# --- in turns ---------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, LEAST_BATCH])
def test_a_few_connections_are_closed_at_once(stage: Stage, count: int) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, count)
    server.shutdown()
    stage.settle()
    assert told(peers) == count


def test_more_are_closed_in_batches(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 200)
    server.shutdown()
    counts = []
    for _ in range(5):
        stage.settle()
        counts.append(told(peers))
        stage.pass_time(BATCH_INTERVAL + 0.01)
    assert counts == [64, 128, 192, 200, 200]


@pytest.mark.parametrize("grace", [0.0, 0.1, 0.5, 1.0, 3.0])
def test_all_are_told_by_half_of_the_grace(stage: Stage, grace: float) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 500)
    server.shutdown(grace=grace)
    stage.settle()
    first = told(peers)
    batches = max(1, int(grace / 2 / BATCH_INTERVAL))
    assert first == max(LEAST_BATCH, -(-500 // batches))
    stage.pass_time(grace / 2 + 0.01)
    assert told(peers) == 500
    assert server.is_shutting_down == (grace > 0)
    stage.pass_time(grace)
    assert server.statistics().active == 0


def test_one_timer_serves_all_of_them(stage: Stage) -> None:
    server = stage.server(limits=PATIENT.replace(close_timeout=1.0))
    crowd(stage, server, 500)
    before = len(stage.reactor._wheel)
    server.shutdown()
    stage.settle()
    # That of the grace, that of the batches, and of each connection told its close timeout.
    assert len(stage.reactor._wheel) == before + 2 + LEAST_BATCH


def test_a_loop_that_was_late_catches_up(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 640)
    server.shutdown()
    stage.settle()
    stage.clock.now += 0.55
    stage.settle()
    assert told(peers) == 6 * LEAST_BATCH
    stage.pass_time(0.4)
    assert told(peers) == 640


def test_who_leaves_meanwhile_takes_no_place_in_a_batch(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 3 * LEAST_BATCH)
    server.shutdown()
    stage.settle()
    for peer in peers[LEAST_BATCH : 2 * LEAST_BATCH]:
        peer.sock.end()
    stage.pass_time(BATCH_INTERVAL + 0.01)
    assert told(peers) == 2 * LEAST_BATCH


def test_who_is_not_told_yet_is_served_as_before(stage: Stage) -> None:
    server = stage.server(lambda connection, message: connection.send(message), limits=PATIENT)
    peers = crowd(stage, server, LEAST_BATCH + 1)
    server.shutdown()
    peers[-1].send("still here?")
    stage.settle()
    server.broadcast("news")
    stage.settle()
    assert [payload for _, payload in peers[-1].receive()] == ["still here?", "news"]
    stage.pass_time(BATCH_INTERVAL + 0.01)
    assert told(peers) == len(peers)


def test_when_all_have_left_early_it_is_done(stage: Stage) -> None:
    done: list[float] = []
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 3 * LEAST_BATCH)
    server.shutdown(on_done=lambda: done.append(stage.clock.now))
    stage.settle()
    for peer in peers:
        peer.close(1001)
        peer.sock.end()
    stage.settle()
    assert done == [stage.clock.now]
    assert not server.is_draining
    later = stage.open_client(server)
    stage.pass_time(100)
    assert later.receive() == []


def test_closing_the_server_between_batches_cuts_everybody(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 3 * LEAST_BATCH)
    connections = server.connections
    server.shutdown()
    stage.settle()
    server.close()
    stage.settle()
    assert told(peers) == LEAST_BATCH
    assert [connection.cause for connection in connections] == (
        [Cause.SHUTDOWN] * LEAST_BATCH + [Cause.ABORTED] * 2 * LEAST_BATCH
    )
    assert not server.is_draining
    assert stage.reactor.next_timeout() is None


@pytest.mark.parametrize("limits", [PATIENT, PATIENT.replace(close_timeout=2.0)])
def test_who_does_not_answer_or_does_not_read_is_cut(stage: Stage, limits: Limits) -> None:
    server = stage.server(limits=limits)
    mute = stage.open_client(server)
    ours, deaf = stage.network.pair(capacity=600)
    server.adopt(as_socket(ours), upgrade_request())
    stage.settle()
    connections = [each for each in server.connections if isinstance(each, Recorder)]
    connections[1].send(b"x" * 10_000)
    stage.settle()
    done: list[float] = []
    began = stage.clock.now
    server.shutdown(grace=7, on_done=lambda: done.append(stage.clock.now - began))
    stage.pass_time(10)
    assert done == [pytest.approx(min(7, limits.close_timeout), abs=0.05)]
    assert mute.received_close() is not None
    for connection in connections:
        cause, (_, code, _) = close_events(connection)
        assert (cause, code) == (Cause.SHUTDOWN, 1001)
        assert not connection.is_clean
    assert ours.is_closed
    assert deaf.inbox


# --- hints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ({}, 1001, "the server is going away"),
        ({"restart": True}, 1012, "the server is restarting"),
        ({"reason": "see you"}, 1001, "see you"),
        ({"restart": True, "reason": "see you"}, 1012, "see you"),
        ({"restart": True, "code": 1013}, 1013, "the server is restarting"),
    ],
)
def test_the_close_frame_says_why_and_when_to_come_back(
    stage: Stage, options: dict[str, Any], code: int, reason: str
) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown(**options)
    stage.settle()
    closed = peer.received_close()
    assert closed is not None
    assert closed[0] == code
    assert HINT.sub("", closed[1]) == reason
    assert 0 <= hint_of(peer) <= COME_BACK_WITHIN


def test_a_code_of_the_applications_own_comes_without_a_hint(stage: Stage) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.shutdown(4001, "bye")
    stage.settle()
    assert peer.received_close() == (4001, "bye")


def test_the_hints_are_evenly_spread(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 500)
    server.shutdown(grace=0)
    stage.settle()
    hints = [hint_of(peer) for peer in peers]
    per_second = [sum(second <= hint < second + 1 for hint in hints) for second in range(5)]
    assert sum(per_second) == 500
    assert max(per_second) - min(per_second) <= 5


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 10_000])
def test_numbers_are_spread_over_all_of_the_range(count: int) -> None:
    """No gap is larger than the golden ratio squared times what an even spread would leave."""
    numbers = sorted(number for number, _ in zip(spread(1.0), range(count)))
    edges = [0.0, *numbers, 1.0]
    gaps = [later - earlier for earlier, later in zip(edges, edges[1:])]
    assert min(numbers) >= 0
    assert max(gaps) <= 1.62**2 / (count + 1)


# --- draining ---------------------------------------------------------------------------------


def test_a_drained_server_lets_everybody_stay(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server(lambda connection, message: connection.send(message), limits=PATIENT)
    peers = crowd(stage, server, 3)
    server.drain(on_done=lambda: done.append("done"))
    assert server.is_draining
    assert not server.is_shutting_down
    assert server.statistics().is_draining
    stage.pass_time(10_000)
    for peer in peers:
        peer.send("well?")
        stage.settle()
        assert [payload for _, payload in peer.receive()] == ["well?"]
        assert done == []
        peer.close(1000)
        stage.settle()
        assert peer.received_close() == (1000, "")
        peer.sock.end()
        stage.settle()
    assert done == ["done"]
    assert not server.is_draining
    assert not server.statistics().is_draining


def test_who_comes_while_it_drains_is_refused(stage: Stage) -> None:
    server = stage.server()
    peer = stage.open_client(server)
    server.drain()
    answer = read_answer(stage.client(server))
    assert answer.status == 503
    assert header(answer.head, "Retry-After") == "5"
    assert peer.receive() == []


def test_an_opening_handshake_under_way_is_completed(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server()
    peer = stage.client(server, upgrade_request()[:-2])
    server.drain(on_done=lambda: done.append("done"))
    stage.settle()
    assert done == []
    peer.send_bytes(b"\r\n")
    stage.settle()
    assert read_head(peer).startswith("HTTP/1.1 101 ")
    assert len(server.connections) == 1
    peer.sock.end()
    stage.settle()
    assert done == ["done"]


def test_an_opening_handshake_that_fails_ends_it(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server()
    stage.client(server, b"")
    server.drain(on_done=lambda: done.append("done"))
    stage.pass_time(Limits().handshake_timeout + Limits().linger_timeout + 0.1)
    assert done == ["done"]


def test_draining_nobody_is_done_at_once(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server()
    for _ in range(2):
        server.drain(on_done=lambda: done.append("done"))
        stage.settle()
    assert done == ["done"] * 2
    assert stage.reactor.next_timeout() is None


@pytest.mark.parametrize(("restart", "code"), [(True, 1012), (False, 1001)])
def test_after_the_timeout_those_who_are_left_are_closed(
    stage: Stage, restart: bool, code: int
) -> None:
    done: list[float] = []
    server = stage.server(limits=PATIENT)
    peers = crowd(stage, server, 100)
    began = stage.clock.now
    server.drain(60, restart=restart, on_done=lambda: done.append(stage.clock.now - began))
    peers[0].sock.end()
    stage.pass_time(59.9)
    assert told(peers) == 0
    stage.pass_time(0.15)
    assert told(peers) == LEAST_BATCH
    stage.pass_time(0.1)
    assert told(peers) == 99
    assert server.is_shutting_down
    closed = peers[1].received_close()
    assert closed is not None
    assert closed[0] == code
    assert done == []
    stage.pass_time(PATIENT.shutdown_grace)
    assert done == [pytest.approx(60 + PATIENT.shutdown_grace, abs=0.1)]


def test_a_timeout_that_is_not_needed_is_forgotten(stage: Stage) -> None:
    server = stage.server(limits=PATIENT)
    peer = stage.open_client(server)
    server.drain(60)
    peer.sock.end()
    stage.settle()
    assert not server.is_draining
    later = stage.open_client(server)
    stage.pass_time(100)
    assert later.receive() == []


def test_a_shutdown_cuts_it_short(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server(limits=PATIENT)
    peer = stage.open_client(server)
    server.drain(60, on_done=lambda: done.append("drained"))
    stage.pass_time(1)
    server.shutdown(4001, "now", on_done=lambda: done.append("shut down"))
    stage.settle()
    assert peer.received_close() == (4001, "now")
    stage.pass_time(PATIENT.shutdown_grace + 0.1)
    assert done == ["drained", "shut down"]
    stage.pass_time(100)
    assert done == ["drained", "shut down"]


def test_draining_what_is_shut_down_already_only_adds_its_on_done(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server(limits=PATIENT)
    peer = stage.open_client(server)
    server.shutdown(4001, "bye")
    server.drain(on_done=lambda: done.append("done"))
    stage.settle()
    assert server.is_shutting_down
    assert peer.received_close() == (4001, "bye")
    peer.close(4001)
    stage.settle()
    assert done == ["done"]


def test_a_second_drain_only_adds_its_on_done(stage: Stage) -> None:
    done: list[str] = []
    server = stage.server(limits=PATIENT)
    peer = stage.open_client(server)
    server.drain(on_done=lambda: done.append("first"))
    server.drain(1, on_done=lambda: done.append("second"))
    stage.pass_time(100)
    assert peer.receive() == []
    peer.sock.end()
    stage.settle()
    assert done == ["first", "second"]


def test_run_ends_when_it_is_drained(stage: Stage) -> None:
    server = stage.server(port=0, limits=PATIENT)
    peer = stage.open_client(server)
    stage.reactor.call_later(1, server.drain)
    stage.reactor.call_later(500, peer.sock.end)
    began = stage.clock.now
    server.run()
    assert stage.clock.now - began == pytest.approx(500, abs=0.1)
    assert peer.receive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cuts_it_short_and_a_second_one_ends_it(stage: Stage, number: int) -> None:
    server = stage.server(port=0, limits=PATIENT)
    peer = stage.open_client(server)
    stage.reactor.call_later(1, server.drain)
    for seconds in (5, 6):
        stage.reactor.call_later(seconds, signal.raise_signal, number)
    began = stage.clock.now
    server.run()
    assert stage.clock.now - began == pytest.approx(6, abs=0.1)
    closed = peer.received_close()
    assert closed is not None
    assert closed[0] == 1001


# --- on real sockets --------------------------------------------------------------------------


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        yield reactor


def connected(reactor: Reactor, port: int) -> Recorder:
    client = connect(reactor, f"ws://127.0.0.1:{port}/", Recorder)
    run_until(reactor, lambda: client.state is not State.CONNECTING)
    return client


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system shares no ports")
def test_another_server_on_the_port_takes_over(reactor: Reactor) -> None:
    old = Server(Recorder, port=0, reuse_port=True, reactor=reactor).start()
    port = old.port
    client = connected(reactor, port)
    new = Server(Recorder, port=port, reuse_port=True, reactor=reactor).start()
    old.drain()
    assert old.addresses == []
    others = [connected(reactor, port) for _ in range(20)]
    assert all(other.is_open for other in others)
    assert (len(old.connections), len(new.connections)) == (1, 20)
    assert client.is_open
    client.close()
    run_until(reactor, lambda: not old.is_draining)
    assert len(new.connections) == 20


def test_the_port_is_free_at_once(reactor: Reactor) -> None:
    old = Server(Recorder, port=0, reactor=reactor).start()
    port = old.port
    client = connected(reactor, port)
    old.drain()
    new = Server(Recorder, port=port, reactor=reactor).start()
    assert connected(reactor, port).is_open
    assert len(new.connections) == 1
    assert client.is_open


Ending = Callable[[Server], None]


@pytest.mark.parametrize(
    ("end", "status"), [(Server.drain, b"101"), (Server.shutdown, b"503")], ids=["drain", "close"]
)
def test_who_has_connected_before_is_answered_and_not_reset(
    reactor: Reactor, end: Ending, status: bytes
) -> None:
    """Closing a listening socket resets whoever waits in its backlog."""
    server = Server(Recorder, port=0, reactor=reactor).start()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for client in clients:
        client.sendall(upgrade_request())
    end(server)
    run_until(reactor, lambda: len(select.select(clients, [], [], 0)[0]) == len(clients))
    for client in clients:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 " + status)
    run_until(reactor, lambda: not server.is_draining)
