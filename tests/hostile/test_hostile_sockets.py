"""Some of H01 to H85 once more, over real sockets: what only a kernel can show.

A reset that eats the answer, for one: here it would show, with everything the offender has sent
still unread. Each row checks that the offender reads the answer and then an end, that a healthy
client is served meanwhile, and that nothing is left.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from frame_table import encode_by_hand, on_wire
from scripted import opened, turn
from support import FakeClock, Recorder, run_until, upgrade_request

from reactor import Reactor
from reactor.listener import ACCEPT_BATCH
from websocket import Cause, Limits, Server

KIB = 1024
# The clock stands still: nothing ends but by what is sent.
LIMITS = Limits(detached_lifetime=0.0, max_connections=1_000)


class Field:
    """A server on the loopback interface, and a healthy client of it."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.server = Server(
            Recorder, port=0, reactor=reactor, limits=LIMITS, compression=True
        ).start()
        self.healthy = opened(reactor, f"ws://127.0.0.1:{self.server.port}/")
        self.baseline = self.measure()

    def connect(self) -> socket.socket:
        offender = socket.create_connection(("127.0.0.1", self.server.port))
        offender.settimeout(0)
        return offender

    def exchange(self, data: bytes) -> bytes:
        """Send something, and read the answer up to its end; a reset is an error."""
        received = bytearray()
        with self.connect() as offender:
            unsent = memoryview(data)
            while True:
                if unsent:
                    try:
                        unsent = unsent[offender.send(unsent) :]
                    except BlockingIOError:
                        pass
                self.reactor.run_once(0)
                try:
                    piece = offender.recv(64 * KIB)
                except BlockingIOError:
                    continue
                if not piece:
                    break
                received += piece
        return bytes(received)

    def check(self) -> None:
        pongs = self.healthy.events.count(("pong", b"well?"))
        self.healthy.ping(b"well?")
        run_until(self.reactor, lambda: self.healthy.events.count(("pong", b"well?")) > pongs)
        run_until(self.reactor, lambda: self.measure() == self.baseline)

    def measure(self) -> tuple[int, ...]:
        pool = self.server.manager.pool
        sessions = self.server.statistics().sessions.active
        handshakes = len(self.server.handshakes)
        wheel = len(self.reactor._wheel)
        return len(self.reactor._handlers), wheel, pool.admitted, handshakes, sessions


@pytest.fixture
def field() -> Iterator[Field]:
    with Reactor(clock=FakeClock()) as reactor:
        yield Field(reactor)


REFUSED = {
    "H04-20-kB": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
    "H05-70-kB": (upgrade_request(X="y" * 70_000), 431),
    "H07-legal-lines": (upgrade_request(**{f"X{n}": "y" * 4_000 for n in range(5)}), 431),
    "H12-preface-of-HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "H17-missing": (upgrade_request().replace(b"-Key", b"-Kex"), 400),
    "H21-foreign": (upgrade_request(Origin="https://evil.example"), 403),
    "H30-body": (upgrade_request(Content_Length="5") + b"hello" + b"\x81\x80abcd", 400),
    "H31-pipelined": (upgrade_request(Origin="null") + upgrade_request() * 100, 403),
    "H42-PROXY": (b"PROXY TCP4 203.0.113.9 192.0.2.9 5 80\r\n" + upgrade_request(), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_read_whole_and_then_an_end(field: Field, name: str) -> None:
    data, status = REFUSED[name]
    head, separator, body = field.exchange(data).partition(b"\r\n\r\n")
    assert separator
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert field.server.statistics().opened == 1
    field.check()


def test_h13_tls_on_the_plain_port_is_dropped_without_a_wait(field: Field) -> None:
    with field.connect() as offender:
        offender.sendall(b"\x16")
        run_until(field.reactor, lambda: field.server.statistics().failed == 1)
        assert offender.recv(100) == b""
    field.check()


class Failed(NamedTuple):
    """Frames that fail a connection, the close code, and what the connection says."""

    name: str
    wire: bytes
    code: int
    cause: Cause


def bomb() -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    data = stream.compress(bytes(24 * KIB * KIB)) + stream.flush(zlib.Z_SYNC_FLUSH)
    return encode_by_hand(0xC2, data[:-4], b"key!")


BEHIND = on_wire("81 04", b"late", is_masked=True)

FAILED = [
    Failed("H45-unmasked", b"\x82\x05", 1002, Cause.PROTOCOL_ERROR),
    Failed("H46-RSV2", on_wire("a1 00", b"", is_masked=True), 1002, Cause.PROTOCOL_ERROR),
    Failed("H52-top-bit", on_wire("82 7f" + " ff" * 8, None, is_masked=True), 1002,
           Cause.PROTOCOL_ERROR),
    Failed("H53-too-large", on_wire("82 7f 00 00 01 00 00 00 00 00", None, is_masked=True), 1009,
           Cause.MESSAGE_TOO_BIG),
    Failed("H56-fragments", on_wire("01 01", b"x", is_masked=True)
           + on_wire("00 01", b"x", is_masked=True) * 10_000, 1008, Cause.TOO_MANY_FRAGMENTS),
    Failed("H63-bad-text", on_wire("01 02", b"\xc0\xaf", is_masked=True), 1007,
           Cause.INVALID_DATA),
    Failed("H65-code-1006", on_wire("88 02", b"\x03\xee", is_masked=True), 1002,
           Cause.PROTOCOL_ERROR),
    Failed("H72-with-200-kB-behind", b"\x82\x05" + bytes(200 * KIB), 1002, Cause.PROTOCOL_ERROR),
    Failed("H73-pings", on_wire("89 7d", b"p" * 125, is_masked=True) * 500, 1008,
           Cause.RATE_LIMITED),
    Failed("H75-bomb", bomb(), 1009, Cause.MESSAGE_TOO_BIG),
]  # fmt: skip


@pytest.mark.parametrize("row", FAILED, ids=lambda row: row.name)
def test_a_close_frame_is_read_whole_and_then_an_end(field: Field, row: Failed) -> None:
    request = upgrade_request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    received = field.exchange(request + row.wire + BEHIND)
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    while frames[:1] == b"\x8a":
        frames = frames[2 + frames[1] :]
    assert frames[0] == 0x88
    assert len(frames) == 2 + frames[1]
    assert int.from_bytes(frames[2:4], "big") == row.code
    assert frames[4:].isascii()
    field.check()
    assert field.server.statistics().closed_by_cause[row.cause] == 1


@pytest.mark.parametrize("is_reset", [False, True], ids=["H71-eof", "H71-reset"])
def test_a_stream_that_ends_inside_a_frame_leaves_nothing(field: Field, is_reset: bool) -> None:
    with field.connect() as offender:
        offender.sendall(upgrade_request() + b"\x82\x85abcdhel")
        run_until(field.reactor, lambda: field.server.statistics().opened == 2)
        if is_reset:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            offender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            offender.shutdown(socket.SHUT_WR)
            run_until(field.reactor, lambda: field.server.statistics().closed == 1)
    field.check()
    cause = Cause.PEER_RESET if is_reset else Cause.PEER_EOF
    assert field.server.statistics().closed_by_cause[cause] == 1


def test_h03_probes_leave_nothing(field: Field) -> None:
    for _ in range(100):
        field.connect().close()
    run_until(field.reactor, lambda: field.server.statistics().failed == 100)
    field.check()


def test_h43_a_storm_is_accepted_in_batches(field: Field) -> None:
    storm = [field.connect() for _ in range(200)]
    turn(field.reactor, 0)
    accepted = field.server.statistics().accepted
    while field.server.statistics().accepted < 201:
        field.reactor.run_once(0)
        assert field.server.statistics().accepted - accepted <= ACCEPT_BATCH
        accepted = field.server.statistics().accepted
    for offender in storm:
        offender.close()
    field.check()
