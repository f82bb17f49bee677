"""The parts of tools/torture.py: figures and verdicts, the clients, and short runs of some rows."""

from __future__ import annotations

import math
import signal
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from functools import partial

import pytest

pytest.importorskip("resource", reason="the tool is for Linux")

import torture
from torturing import healthy, leaks, memory, process, rows, threads
from torturing.client import Client, Misbehaviour, Phase, frame, has_ended, request
from torturing.figures import HEADINGS, Figure, exactly, line, percentile, show, slope
from torturing.process import ServerProcess
from torturing.rows import ROWS, Row, limited
from torturing.served import PUSH_HEADER
from torturing.swarm import Swarm, everyone, now_and_then

from websocket import FrameWriter, Opcode
from websocket.frame import FIN, RSV1

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
COMPRESSED = b"HTTP/1.1 101 .\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"

needs_proc = pytest.mark.skipif(not process.is_supported(), reason="there is no /proc")


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "limit", "verdict"),
    [
        (Figure("told", 7), "", ""),
        (Figure("share", 4.9, "%", most=5), "<= 5 %", "ok"),
        (Figure("share", 5.1, "%", most=5), "<= 5 %", "MISSED"),
        (Figure("pings", 2, least=3), ">= 3", "MISSED"),
        (Figure("seconds", 2.0, "s", 2, 2.06), "2 to 2.06 s", "ok"),
        (Figure("seconds", 1.9, "s", 2, 2.06), "2 to 2.06 s", "MISSED"),
        (Figure("never measured", math.inf, "s", most=1), "<= 1 s", "MISSED"),
        (Figure("no number", math.nan, "s", most=1), "<= 1 s", "MISSED"),
        (exactly("status", 0, 0), "= 0", "ok"),
        (exactly("status", 1, 0), "= 0", "MISSED"),
    ],
)
def test_a_figure_is_judged_by_its_limits(figure: Figure, limit: str, verdict: str) -> None:
    assert figure.limit == limit
    assert figure.verdict == verdict
    assert figure.is_met == (verdict != "MISSED")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12_345, "", "12,345"),
        (2.0, "s", "2 s"),
        (2.0149, "s", "2.01 s"),
        (0.0149, "s", "0.015 s"),
        (-1.5, "KiB", "-1.50 KiB"),
        (math.inf, "s", "inf s"),
    ],
)
def test_numbers_are_shown_as_people_write_them(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_a_line_has_a_cell_for_each_heading() -> None:
    text = line("H44", Figure("CPU", 4.5, "%", most=5))
    assert text == "| H44 | CPU | 4.50 % | <= 5 % | ok |"
    assert text.count("|") == HEADINGS.partition("\n")[0].count("|")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3, 1, 2], 0.5, 2),
        ([3, 1, 2], 0.0, 1),
        ([3, 1, 2], 1.0, 3),
        (list(range(1, 101)), 0.99, 99),
        ([5], 0.99, 5),
        ([], 0.99, math.inf),
    ],
)
def test_percentiles_go_by_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0),
        ([(1, 5)], 0),
        ([(1, 5), (1, 9)], 0),
        ([(0, 1), (1, 3), (2, 5)], 2),
        ([(0, 4), (1, 4), (2, 4)], 0),
        ([(0, 0), (1, 3), (2, 0), (3, 3)], 0.6),
    ],
)
def test_the_slope_is_that_of_least_squares(
    points: list[tuple[float, float]], expected: float
) -> None:
    assert slope(points) == pytest.approx(expected)


# --- the command line -----------------------------------------------------------------------------


def planted(*figures: Figure, error: Exception | None = None) -> Row:
    """Return a row of these figures, which then raises the error."""

    def show() -> Iterator[Figure]:
        """Plant figures."""
        yield from figures
        if error is not None:
            raise error

    return Row("H0", show)


def test_the_exit_status_is_0_when_every_limit_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert torture.run([planted(exactly("sum", 4, 4)), planted(Figure("told", 9))]) == 0
    assert "| H0 | sum | 4 | = 4 | ok |" in capsys.readouterr().out


def test_a_missed_limit_is_counted_and_makes_the_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert torture.run([planted(exactly("sum", 5, 4), exactly("sum", 4, 4))]) == 1
    assert capsys.readouterr().out.endswith("\n1 limits missed\n")


def test_a_row_that_fails_does_not_keep_the_next_from_running(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing = planted(exactly("sum", 4, 4), error=Misbehaviour("a masked frame"))
    assert torture.run([failing, planted(Figure("told", 9))]) == 1
    output = capsys.readouterr().out
    assert "| H0 | Misbehaviour: a masked frame | | | FAILED |" in output
    assert "| H0 | told | 9 |  |  |" in output


def test_every_row_says_in_one_line_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert torture.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [text.split()[0] for text in lines] == list(ROWS)
    assert all(text.endswith(".") for text in lines)


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        torture.parse_arguments(["H44", "H999"])
    assert caught.value.code == 2
    assert "no such row: H999" in capsys.readouterr().err


def test_all_rows_run_by_default() -> None:
    assert torture.parse_arguments([]).rows == list(ROWS)
    assert torture.parse_arguments(["H120", "H44"]).rows == ["H120", "H44"]


def test_without_proc_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torture, "is_supported", lambda: False)
    assert torture.main([]) == 2
    assert "needs Linux" in capsys.readouterr().err


def test_a_row_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang() -> Iterator[Figure]:
        while True:
            time.monotonic()
        yield

    monkeypatch.setattr(rows, "_SECONDS", 0.01)
    with pytest.raises(TimeoutError, match=r"longer than 0\.01 s"):
        list(Row("H0", hang).figures())


def test_what_ends_in_time_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with limited(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before


# --- the clients ----------------------------------------------------------------------------------


class Peer:
    """Play the server, by hand, on a real socket."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.swarm = Swarm(self.listener.getsockname())
        self.stream = socket.socket()

    def meet(self, client: Client) -> None:
        """Accept a client and let it send its request."""
        self.stream.close()
        self.stream = self.listener.accept()[0]
        self.stream.settimeout(10)
        self.swarm.run_until("connected", lambda: client.phase is Phase.CONNECTED, timeout=10)

    def say(self, data: bytes, client: Client, attribute: str) -> None:
        """Send something, and let the client run until an attribute changes."""
        before = getattr(client, attribute)
        self.stream.sendall(data)
        self.until(lambda: getattr(client, attribute) != before)

    def until(self, condition: object) -> None:
        """Let the clients run until a condition holds."""
        assert callable(condition)
        self.swarm.run_until("the test's condition", condition, timeout=10)

    def open(self, client: Client, answer: bytes = ACCEPTED) -> None:
        """Accept a client and its handshake."""
        self.meet(client)
        assert self.stream.recv(65_536) == client.request
        self.say(answer, client, "phase")

    def close(self) -> None:
        """Close everything."""
        with self.swarm:
            self.stream.close()
            self.listener.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Give a server played by hand."""
    peer = Peer()
    yield peer
    peer.close()


def server_frame(head: int, payload: bytes) -> bytes:
    """Return a frame as a server sends it."""
    return b"".join(FrameWriter(masks=False).encode(head, payload))


def test_a_request_is_complete() -> None:
    assert request("/push", "Cookie: a=b").startswith(b"GET /push HTTP/1.1\r\nHost: ")
    assert request("/push", "Cookie: a=b").endswith(b"\r\nCookie: a=b\r\n\r\n")


def test_a_client_opens_and_receives_what_follows_the_answer(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client, ACCEPTED + server_frame(FIN | Opcode.TEXT, b"hello"))
    assert client.phase is Phase.OPEN
    assert client.status == 101
    assert client.messages == 1
    assert peer.swarm.counts[Phase.OPEN] == 1


def test_a_refusal_is_told_by_its_status(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.meet(client)
    peer.say(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno", client, "status")
    assert client.status == 503
    assert client.opened_at is None
    peer.stream.close()
    peer.until(lambda: has_ended(client))


def test_a_ping_is_answered_unless_the_client_is_mute(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    peer.say(server_frame(FIN | Opcode.PING, b""), client, "pings")
    assert peer.stream.recv(100)[0] == FIN | Opcode.PONG
    client.answers_pings = False
    peer.say(server_frame(FIN | Opcode.PING, b""), client, "pings")
    client.leave()
    assert peer.stream.recv(100) == b""


def test_a_close_frame_is_noted_and_answered(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    peer.say(server_frame(FIN | Opcode.CLOSE, struct.pack("!H", 1001)), client, "close_code")
    assert client.close_code == 1001
    assert client.closed_at is not None
    assert peer.stream.recv(100)[0] == FIN | Opcode.CLOSE
    peer.stream.close()
    peer.until(lambda: has_ended(client))
    assert client.ending == "eof"
    assert not peer.swarm.clients
    assert peer.swarm.counts[Phase.ENDED] == 1


def test_a_reset_is_told_from_an_end(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.stream.close()
    peer.until(lambda: has_ended(client))
    assert client.ending == "reset"


def test_our_own_reset_reaches_the_server_as_one(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    client.reset()
    assert client.ending == "left"
    with pytest.raises(ConnectionResetError):
        peer.stream.recv(100)


def test_a_frame_that_breaks_a_rule_is_misbehaviour(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    with pytest.raises(Misbehaviour, match="server frame"):
        peer.say(frame(FIN | Opcode.TEXT, b"masked"), client, "messages")


def test_a_refused_connect_ends_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with Swarm(address) as swarm:
        client = swarm.open(Client)
        swarm.run_until("it has ended", lambda: has_ended(client))
    assert client.ending == "Connection refused"


@needs_proc
def test_who_reads_nothing_is_seen_to_be_cut(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    client.pause()
    assert not client.is_cut()
    peer.stream.close()
    peer.until(everyone([client], Client.is_cut))
    assert client.phase is Phase.OPEN
    client.resume()
    peer.until(lambda: has_ended(client))


def test_a_paused_client_can_read_a_few_bytes(peer: Peer) -> None:
    client = peer.swarm.open(Client)
    peer.open(client)
    client.pause()
    message = server_frame(FIN | Opcode.TEXT, b"hello")
    peer.stream.sendall(message)
    for _ in message:
        assert client.messages == 0
        client.read(1)
    assert client.messages == 1


def test_what_the_socket_does_not_take_is_sent_later(peer: Peer) -> None:
    data = bytes(range(256)) * 40_000
    client = peer.swarm.open(Client)
    peer.open(client)
    client.send_bytes(data)
    received = b""
    while len(received) < len(data):
        peer.swarm.turn(0)
        received += peer.stream.recv(1 << 20)
    assert received == data


def test_a_prober_compares_echoes_and_takes_the_time(peer: Peer) -> None:
    latencies: list[float] = []
    prober = peer.swarm.open(healthy.Prober, latencies=latencies, every=60.0, payloads=("one",))
    peer.open(prober)
    assert peer.stream.recv(100)[0] == FIN | Opcode.TEXT
    peer.say(server_frame(FIN | Opcode.TEXT, b"one"), prober, "messages")
    assert len(latencies) == 1
    with pytest.raises(Misbehaviour, match="None came back as 'two'"):
        peer.say(server_frame(FIN | Opcode.TEXT, b"two"), prober, "messages")


def test_a_prober_compresses_where_that_was_agreed_on(peer: Peer) -> None:
    latencies: list[float] = []
    prober = peer.swarm.open(healthy.Prober, latencies=latencies, every=60.0, payloads=("one",))
    peer.open(prober, COMPRESSED)
    assert peer.stream.recv(100)[0] == FIN | RSV1 | Opcode.TEXT
    compressor = zlib.compressobj(wbits=-15)
    payload = (compressor.compress(b"one") + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    peer.say(server_frame(FIN | RSV1 | Opcode.TEXT, payload), prober, "messages")
    assert len(latencies) == 1


def test_an_answer_that_never_came_counts_as_well(peer: Peer) -> None:
    latencies: list[float] = []
    prober = peer.swarm.open(healthy.Prober, latencies=latencies)
    peer.open(prober)
    prober.settle()
    assert len(latencies) == 1


def test_a_listener_misses_what_is_missing(peer: Peer) -> None:
    lateness: list[float] = []
    listener = peer.swarm.open(healthy.Listener, latencies=lateness)
    peer.open(listener)
    for number in (7, 8):
        message = PUSH_HEADER.pack(number, time.monotonic())
        peer.say(server_frame(FIN | Opcode.BINARY, message), listener, "messages")
    assert len(lateness) == 2
    with pytest.raises(Misbehaviour, match="message 10 came instead of 9"):
        peer.say(server_frame(FIN | Opcode.BINARY, PUSH_HEADER.pack(10, 0.0)), listener, "messages")


def test_a_hearer_notices_messages_out_of_order(peer: Peer) -> None:
    hearer = peer.swarm.open(threads.Hearer)
    peer.open(hearer)
    for text in ("41", "3:0:".ljust(64, "3"), "5:0:".ljust(64, "5"), "3:1:".ljust(64, "3")):
        peer.say(server_frame(FIN | Opcode.TEXT, text.encode()), hearer, "messages")
    assert hearer.id == 41
    assert hearer.heard == {"3": 2, "5": 1}
    with pytest.raises(Misbehaviour, match="3:3:"):
        peer.say(
            server_frame(FIN | Opcode.TEXT, "3:3:".ljust(64, "3").encode()), hearer, "messages"
        )


# --- the swarm ------------------------------------------------------------------------------------


def test_calls_are_made_in_the_order_of_their_times() -> None:
    made: list[str] = []
    with Swarm(("127.0.0.1", 9)) as swarm:
        swarm.call_later(0.002, partial(made.append, "second"))
        swarm.call_later(0.001, partial(made.append, "first"))
        swarm.call_later(0.002, partial(made.append, "third"))
        swarm.run_until("all are made", lambda: len(made) == 3)
        swarm.call_later(0, partial(made.append, "forgotten"))
        swarm.forget_calls()
        swarm.turn(0)
    assert made == ["first", "second", "third"]


def test_waiting_for_what_does_not_come_ends() -> None:
    expected = pytest.raises(TimeoutError, match="not within 0 s: the moon is blue")
    with Swarm(("127.0.0.1", 9)) as swarm, expected:
        swarm.run_until("the moon is blue", lambda: False, timeout=0)


def test_a_condition_that_costs_much_is_looked_at_rarely() -> None:
    looks: list[int] = []

    def condition() -> bool:
        looks.append(1)
        return len(looks) > 1

    look = now_and_then(condition, interval=60)
    assert not look()
    assert not look()
    assert len(looks) == 1


# --- end to end -----------------------------------------------------------------------------------


@needs_proc
def test_a_server_process_tells_about_itself() -> None:
    with ServerProcess(ping_interval=7) as server:
        assert server.resident() > 1_000_000
        assert server.reset_peak() <= server.peak()
        assert server.cpu_seconds() > 0
        assert server.facts()["accepted"] == 1
        assert server.objects()["timers"] == server.timers() > 0
        assert leaks.is_empty(server)
        assert all(figure.is_met for figure in leaks.balanced(server))
        with pytest.raises(RuntimeError, match="GET /nothing: 404"):
            server.get("/nothing")
        server.terminate()
        with Swarm(server.address) as swarm:
            swarm.run_until("it ends", lambda: server.exit_status() is not None)
        assert server.exit_status() == 0
        assert "shutting down" in server.log()
        assert server.faults() == []


@needs_proc
def test_a_server_that_does_not_start_says_why() -> None:
    expected = pytest.raises(RuntimeError, match="ping_interval must be positive")
    with expected, ServerProcess(ping_interval=-1):
        pass


@needs_proc
def test_a_short_run_of_the_threads_keeps_its_limits() -> None:
    figures = list(threads.threads(count=2, messages=60, stayers=2, guests=1))
    assert all(figure.is_met for figure in figures), figures


@needs_proc
def test_a_short_attack_is_cut_with_the_right_code() -> None:
    data = frame(Opcode.TEXT, b"never completed") + frame(FIN | Opcode.TEXT, b"begun anew")
    code, growth = memory.cut("a new message", data, 1002, 10_000_000, connections=2)
    assert code == exactly("a new message: closed with 1002", 2, 2)
    assert growth.is_met
