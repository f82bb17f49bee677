"""H122 to H128: hostile servers, and a client of ours.

Frames come over the network in memory; whatever has to do with connecting, over real sockets on
the loopback interface, with a clock that stands still until the test says so.
"""

from __future__ import annotations

import random
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from frame_table import PONG, on_wire
from offence_table import OFFENCES, Offence
from scripted import (
    ACCEPT,
    GOOD,
    LIMITS,
    Conversation,
    ScriptedServer,
    answer_of,
    check_refused,
    opened,
    refused,
    turn,
)
from support import FakeClock, Recorder, run_until
from tls_peer import AUTHORITY, certificate

from hostile.arena import Arena, splits_of
from hostile.memory import KIB, measured
from reactor import Reactor
from reactor.tls import ServerTLS, client_context
from websocket import (
    Cause,
    Frame,
    FrameWriter,
    HandshakeError,
    Opcode,
    Reconnect,
    Server,
    State,
    connect,
)

Besiege = Callable[..., Arena]

BARE = FrameWriter(masks=False)


# --- frames -----------------------------------------------------------------------------------


def of_a_server(row: Offence) -> bool:
    """Tell whether the catalogue names it for servers; the rest is the same parser again."""
    return False in row.roles and row.name[:3] in {"H45", "H52", "H53"}


@pytest.mark.parametrize(
    "row",
    [row for row in OFFENCES if of_a_server(row)],
    ids=lambda row: f"H122-{row.name}".replace(",", "").replace(" ", "-"),
)
def test_a_bad_frame_of_a_server_fails_the_connection(hostile: Besiege, row: Offence) -> None:
    arena = hostile(limits=row.limits)
    wire = row.good_wire(is_masked=False) + row.bad_wire(is_masked=False)
    for number, pieces in enumerate(splits_of(wire, random_splits=1)):
        offender = arena.offending_server()
        offender.send(pieces)
        arena.expect_fail(offender, row.verdict.close_code, row.verdict.cause, stays=not number)


def test_h122_a_bomb_of_a_server_is_inflated_up_to_the_limit(world: World) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -12)
    bomb = (stream.compress(bytes(24 * KIB * KIB)) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    extension = (
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
        "client_no_context_takeover; server_max_window_bits=12"
    )
    size = len(bomb).to_bytes(2, "big").hex(" ")
    script = world.script(answer_of(ACCEPT, extension))
    client = opened(world.reactor, script.url, compression=True)
    wire = on_wire(f"c2 7e {size}", bomb, is_masked=False)
    with measured() as memory:
        client.data_received(memoryview(wire))
    memory.assert_peak_below(client.limits.max_message_size + 192 * KIB)
    run_until(world.reactor, lambda: len(script.conversation.frames) >= 4)
    assert client.cause is Cause.MESSAGE_TOO_BIG
    assert client.messages == []
    script.conversation.transport.close()
    run_until(world.reactor, lambda: client.state is State.CLOSED)
    assert client.events[-1][:2] == ("close", 1009)
    world.check()


def test_h122_endless_pings_of_a_server_are_answered_one_at_a_time(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offending_server()
    pings = [BARE.encode_frame(Frame(Opcode.PING, b"%d" % number)) for number in range(50)]
    offender.send([b"".join(pings)])
    assert offender.peer.receive() == [(PONG, b"%d" % number) for number in range(50)]
    offender.send(pings[:1])
    pongs = offender.peer.frames[:50]
    arena.expect_fail(offender, 1008, Cause.RATE_LIMITED, answers=pongs)


def test_h126_every_frame_has_a_masking_key_of_its_own(hostile: Besiege) -> None:
    arena = hostile()
    offender = arena.offending_server()
    for _ in range(10_000):
        assert offender.connection.send(b"")
    arena.stage.settle()
    wire = offender.peer.sock.take()
    assert len(wire) == 6 * 10_000
    found = {wire[at + 2 : at + 6] for at in range(0, len(wire), 6)}
    # By chance two of them are the same once in a hundred runs, three of them never.
    assert len(found) >= 10_000 - 2
    bits = sum(bin(octet).count("1") for each in found for octet in each)
    assert 0.49 < bits / (32 * len(found)) < 0.51
    offender.leave()
    arena.check()


# --- the answer to the handshake --------------------------------------------------------------


class World:
    """A reactor on real sockets, a server and a healthy client of it, and hostile servers."""

    def __init__(self, reactor: Reactor, clock: FakeClock) -> None:
        self.reactor = reactor
        self.clock = clock
        self.server = Server(Recorder, port=0, reactor=reactor, limits=LIMITS).start()
        self.healthy = opened(reactor, f"ws://127.0.0.1:{self.server.port}/")
        self.baseline = self.measure()

    def script(self, *answer: bytes, hangs_up: bool = False) -> ScriptedServer:
        script = ScriptedServer(self.reactor, *answer, hangs_up=hangs_up)
        self.baseline = self.measure()
        return script

    def check(self) -> None:
        """Check that the healthy client is served, and that nothing is left of the others."""
        turn(self.reactor)
        pongs = self.healthy.events.count(("pong", b"well?"))
        self.healthy.ping(b"well?")
        run_until(self.reactor, lambda: self.healthy.events.count(("pong", b"well?")) > pongs)
        run_until(self.reactor, lambda: self.measure() == self.baseline)

    def measure(self) -> tuple[int, int]:
        return len(self.reactor._handlers), len(self.reactor._wheel)


@pytest.fixture
def world() -> Iterator[World]:
    clock = FakeClock()
    with Reactor(clock=clock) as reactor:
        yield World(reactor, clock)


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Answer(NamedTuple):
    """An answer to the opening handshake that must be an error."""

    name: str
    data: bytes
    options: Mapping[str, Any] = NOTHING


def extension(value: str) -> bytes:
    return answer_of(ACCEPT, f"Sec-WebSocket-Extensions: {value}")


OFFERED: dict[str, Any] = {"compression": True}

ANSWERS = [
    Answer("H123-wrong-Accept", answer_of("Sec-WebSocket-Accept: AAAA")),
    Answer("H123-no-Accept", answer_of()),
    Answer("H123-two-Accepts", answer_of(ACCEPT, ACCEPT)),
    Answer("H123-no-Upgrade", answer_of("Connection: Upgrade", ACCEPT, upgrade=False)),
    Answer("H123-no-Connection", answer_of("Upgrade: websocket", ACCEPT, upgrade=False)),
    Answer("H123-Upgrade-h2c", answer_of("Upgrade: h2c", "Connection: Upgrade", ACCEPT,
                                         upgrade=False)),
    Answer("H123-extension-not-offered", extension("permessage-deflate")),
    Answer("H123-other-extension", extension("x-webkit-deflate-frame"), OFFERED),
    Answer("H123-two-extensions", extension("permessage-deflate, permessage-deflate"), OFFERED),
    Answer("H123-window-16", extension("permessage-deflate; server_max_window_bits=16"), OFFERED),
    Answer("H123-window-7", extension("permessage-deflate; server_max_window_bits=7"), OFFERED),
    Answer("H123-window-larger", extension("permessage-deflate; server_max_window_bits=15; "
                                           "server_no_context_takeover"), OFFERED),
    Answer("H123-window-ignored", extension("permessage-deflate"), OFFERED),
    Answer("H123-malformed-extension", extension('permessage-deflate; a="'), OFFERED),
    Answer("H123-subprotocol-not-offered", answer_of(ACCEPT, "Sec-WebSocket-Protocol: x")),
    Answer("H123-other-subprotocol", answer_of(ACCEPT, "Sec-WebSocket-Protocol: x"),
           {"subprotocols": ["y"]}),
    Answer("H123-no-HTTP", b"SSH-2.0-OpenSSH_9.0\r\n"),
    Answer("H123-HTTP/2.0", b"HTTP/2.0 101 \r\n\r\n"),
    Answer("H123-LF-only", GOOD.replace(b"\r\n", b"\n")),
    Answer("H123-status-200", answer_of(ACCEPT, status="200 OK")),
    Answer("H124-to-nowhere", answer_of(status="302 Found", upgrade=False)),
    Answer("H124-two-Locations",
           answer_of("Location: /a", "Location: /b", status="302 Found", upgrade=False)),
    Answer("H124-to-a-file", answer_of("Location: file:///etc/passwd", status="302 Found")),
    Answer("H124-with-userinfo", answer_of("Location: ws://u:p@a/", status="302 Found")),
    Answer("H124-loop", answer_of("Location: /", status="307 Again", upgrade=False)),
    Answer("H125-long-header", answer_of("X: " + "y" * 9_000)),
    Answer("H125-many-headers", answer_of(*["x: y"] * 200)),
    Answer("H125-long-status-line", b"HTTP/1.1 101 " + b"x" * 9_000),
]  # fmt: skip


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row.name)
def test_a_bad_answer_ends_the_handshake(world: World, row: Answer) -> None:
    for answer in ([row.data], [row.data[: len(row.data) // 2], row.data[len(row.data) // 2 :]]):
        script = world.script(*answer)
        client = refused(world.reactor, script.url, **row.options)
        assert isinstance(client.error, HandshakeError)
        assert len(str(client.error)) < 200
        world.check()


# --- redirects --------------------------------------------------------------------------------


class Redirector(ScriptedServer):
    """Redirect so many times, then answer."""

    def __init__(self, reactor: Reactor, location: str, hops: int) -> None:
        super().__init__(reactor)
        self._location = location
        self._hops = hops

    def answer_to(self, conversation: Conversation) -> list[bytes]:
        if len(self.conversations) <= self._hops:
            return [answer_of(f"Location: {self._location}", status="302 Found", upgrade=False)]
        return [GOOD]


@pytest.mark.parametrize(
    ("hops", "is_followed"), [(10, True), (11, False)], ids=["H124-10-hops", "H124-11-hops"]
)
def test_redirects_are_followed_ten_times(world: World, hops: int, is_followed: bool) -> None:
    script = Redirector(world.reactor, "/again", hops)
    world.baseline = world.measure()
    if is_followed:
        client = opened(world.reactor, script.url)
        client.abort()
        turn(world.reactor)
    else:
        client = refused(world.reactor, script.url)
        assert "too many redirects" in str(client.error)
    assert len(script.conversations) == 11
    world.check()


SECRETS = [("Authorization", "Basic x"), ("Cookie", "a=b"), ("Proxy-Authorization", "Basic y")]


def test_h124_credentials_do_not_go_to_another_origin(world: World) -> None:
    target = world.script(GOOD)
    script = Redirector(world.reactor, target.url, 1)
    world.baseline = world.measure()
    client = opened(
        world.reactor, script.url, headers=[*SECRETS, ("X-Kept", "1")], session_id="s" * 43
    )
    first, second = script.conversation, target.conversation
    for name, _ in SECRETS:
        assert first.field(name)
        assert second.field(name) == []
    assert second.field("X-Kept") == ["1"]
    client.abort()
    world.check()


def test_h124_a_redirect_does_not_leave_tls(world: World) -> None:
    script = world.script(GOOD)

    class Elsewhere(Recorder):
        __slots__ = ()

    def redirect(request: Any) -> str | None:
        raise HandshakeError(302, "elsewhere", [("Location", script.url)])

    tls = ServerTLS(certificate("server"))
    server = Server(Elsewhere, port=0, reactor=world.reactor, tls=tls, authenticate=redirect)
    server.start()
    world.baseline = world.measure()
    client = connect(
        world.reactor, f"wss://localhost:{server.port}/", Recorder,
        tls=client_context(AUTHORITY), limits=LIMITS,
    )  # fmt: skip
    run_until(world.reactor, lambda: client.state is State.CLOSED)
    check_refused(client)
    assert "from wss to ws" in str(client.error)
    assert script.conversations == []
    world.check()


# --- endless answers --------------------------------------------------------------------------

ENDLESS: dict[str, Callable[[int], bytes]] = {
    "H125-endless-1xx": lambda second: b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "H125-header-drip": lambda second: GOOD[second : second + 1],
    "H125-silence": lambda second: b"",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_answer_ends_at_the_deadline(world: World, name: str) -> None:
    script = world.script()
    client = connect(world.reactor, script.url, Recorder, limits=LIMITS)
    run_until(world.reactor, lambda: script.has_request)
    for second in range(9):
        script.conversation.transport.write(ENDLESS[name](second))
        world.clock.now += 1
        turn(world.reactor)
        assert client.state is State.CONNECTING
    world.clock.now += 1.1
    run_until(world.reactor, lambda: client.state is State.CLOSED)
    check_refused(client)
    world.check()


def test_h125_the_body_of_a_refusal_is_not_read(world: World) -> None:
    """A choice: its head says all; the catalogue would allow 64 KiB."""
    script = world.script(
        answer_of("Content-Length: 1073741824", status="403 Forbidden", upgrade=False)
    )
    with measured() as memory:
        client = connect(world.reactor, script.url, Recorder, limits=LIMITS)
        run_until(world.reactor, lambda: script.has_request)
        script.conversation.transport.write(bytes(512 * KIB))
        run_until(world.reactor, lambda: client.state is State.CLOSED)
        turn(world.reactor)
    # Half of that is what the test itself writes.
    memory.assert_peak_below(2 * 512 * KIB + 64 * KIB)
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 403
    check_refused(client)
    world.check()


# --- reconnecting -----------------------------------------------------------------------------


def wait_of(keeper: Reconnect) -> float:
    """Return how long the next try is away."""
    assert keeper._timer is not None
    return keeper._timer.due - keeper._reactor.time


def state_of(keeper: Reconnect) -> State:
    assert keeper.connection is not None
    return keeper.connection.state


def test_h127_a_server_that_is_gone_for_an_hour_is_tried_again_and_again(world: World) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    keeper = Reconnect(random_source=random.Random(127).random)
    connect(world.reactor, f"ws://127.0.0.1:{port}/", Recorder, limits=LIMITS, reconnect=keeper)
    begin = world.clock.now
    waits = []
    tried: list[Recorder] = []
    while world.clock.now - begin < 3600:
        run_until(world.reactor, lambda: keeper.is_waiting)
        # One timer waits, whatever came before.
        assert world.measure() == (world.baseline[0], world.baseline[1] + 1)
        connection = keeper.connection
        assert isinstance(connection, Recorder)
        assert [event[0] for event in connection.events] == ["error"]
        tried.append(connection)
        waits.append(wait_of(keeper))
        world.clock.now += waits[-1] + 0.1
        run_until(world.reactor, lambda: keeper.connection is not tried[-1])
    assert len({connection.id for connection in tried}) == len(waits)
    assert 60 < len(waits) < 300
    assert max(waits) <= 60.1
    # Full jitter: short waits among the long ones.
    assert min(waits[10:]) < 15
    assert max(waits) > 45
    keeper.stop()
    run_until(world.reactor, lambda: state_of(keeper) is State.CLOSED)
    world.check()


class Refusal(NamedTuple):
    """How a server turns a client away, and the least wait that follows; None for no retry."""

    name: str
    answer: Sequence[bytes]
    wait: float | None


def status(text: str, *fields: str) -> list[bytes]:
    return [answer_of(*fields, status=text, upgrade=False)]


def closing(code: int) -> list[bytes]:
    return [GOOD, b"\x88\x02" + code.to_bytes(2, "big")]


REFUSALS = [
    Refusal("H127-401", status("401 Unauthorized"), None),
    Refusal("H127-403", status("403 Forbidden", "Retry-After: 5"), None),
    Refusal("H127-429", status("429 Too Many Requests", "Retry-After: 30"), 30),
    Refusal("H127-503", status("503 Service Unavailable", "Retry-After: 7"), 7),
    Refusal("H127-huge-hint", status("503 Later", "Retry-After: 99999999999999999999"), 3600),
    Refusal("H127-no-number", status("503 Later", "Retry-After: 1e9"), 0),
    # A choice: a rate that was too high may be right later; the wait grows with each time.
    Refusal("H127-closes-1008", closing(1008), 0),
    Refusal("H127-closes-1012", closing(1012), 0),
    Refusal("H127-session-replaced", closing(4000), None),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.name)
def test_a_client_comes_back_unless_it_is_not_wanted(world: World, row: Refusal) -> None:
    script = world.script(*row.answer, hangs_up=True)
    keeper = Reconnect(random_source=lambda: 0.5)
    first = connect(world.reactor, script.url, Recorder, limits=LIMITS, reconnect=keeper)
    run_until(world.reactor, lambda: first.state is State.CLOSED)
    turn(world.reactor)
    if row.wait is None:
        assert not keeper.is_waiting
    else:
        assert keeper.is_waiting
        # The hint, and half of the five seconds within which the first try comes.
        assert wait_of(keeper) == pytest.approx(row.wait + 2.5, abs=0.1)
        world.clock.now += wait_of(keeper) + 0.1
        run_until(world.reactor, lambda: len(script.conversations) == 2)
        keeper.stop()
        run_until(world.reactor, lambda: state_of(keeper) is State.CLOSED)
    world.check()


# --- certificates -----------------------------------------------------------------------------


class Impostor(NamedTuple):
    """A server's certificate, the name that is asked for, and whom the client trusts."""

    name: str
    certificate: str
    host: str
    trusts: str | None


IMPOSTORS = [
    Impostor("H128-wrong-host-name", "stranger", "localhost", AUTHORITY),
    Impostor("H128-unknown-authority", "server", "localhost", None),
    Impostor("H128-expired", "expired", "localhost", AUTHORITY),
]


@pytest.mark.parametrize("row", IMPOSTORS, ids=lambda row: row.name)
def test_a_certificate_that_proves_nothing_is_refused(world: World, row: Impostor) -> None:
    tls = ServerTLS(certificate(row.certificate))
    server = Server(Recorder, port=0, reactor=world.reactor, tls=tls, limits=LIMITS).start()
    world.baseline = world.measure()
    client = connect(
        world.reactor,
        f"wss://{row.host}:{server.port}/",
        Recorder,
        tls=None if row.trusts is None else client_context(row.trusts),
        limits=LIMITS,
    )
    run_until(world.reactor, lambda: client.state is State.CLOSED)
    check_refused(client)
    assert "certificate" in str(client.error).lower()
    assert server.statistics().opened == 0
    world.check()
