"""Compressed connections as a whole, both roles, in memory; ``test_deflate`` has the codec."""

from __future__ import annotations

import platform
import random
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from reactions import both_roles, our_socket
from scripted import ACCEPT, LIMITS, ScriptedServer, answer_of, opened, refused, turn, url_of
from support import (
    FakeClock,
    MemorySocket,
    Peer,
    Recorder,
    Stage,
    header,
    read_head,
    run_until,
    upgrade_request,
)
from sweeps import rounds

from reactor import Protocol, Reactor, Transport
from websocket import Cause, Deflate, HandshakeError, Limits, Opcode, Server, State
from websocket.deflate import Agreement
from websocket.deflate_codec import Compressor
from websocket.frame import FIN, MASK, RSV1, RSV2
from websocket.headers import parse_extensions
from websocket.masking import apply_mask

MIB = 1024 * 1024
TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
TAIL = b"\x00\x00\xff\xff"
# A policy whose every message is compressed, so that short ones will do.
EAGER = Deflate(threshold=0)
TAKEOVER = Deflate(threshold=0, compress_takeover=True, inflate_takeover=True)
PLAIN = Agreement(15, 15, compress_takeover=False, inflate_takeover=False)
KEPT = Agreement(15, 15, compress_takeover=True, inflate_takeover=True)
LONG = "so much to say, and nothing new: " * 100


def words(seed: int, size: int) -> str:
    """Return text that compresses well, but not to nothing."""
    source = random.Random(seed)
    vocabulary = ["".join(source.choices("abcdefgh", k=source.randint(2, 9))) for _ in range(99)]
    return " ".join(source.choices(vocabulary, k=size))[:size]


def deflated(payload: bytes, bits: int = 15, history: bytes = b"") -> bytes:
    """Compress by a stream of our own, as a peer might."""
    if history:
        stream = zlib.compressobj(9, zlib.DEFLATED, -bits, 9, zlib.Z_DEFAULT_STRATEGY, history)
    else:
        stream = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + TAIL)


class Wire(NamedTuple):
    """One frame as it was on the wire, unmasked."""

    head: int
    payload: bytes


def frames_of(data: bytes) -> list[Wire]:
    """Read whole frames of either role, by hand."""
    frames = []
    while data:
        head, length, at = data[0], data[1] & ~MASK, 2
        if length > 125:
            size = 2 if length == 126 else 8
            length, at = int.from_bytes(data[2 : 2 + size], "big"), 2 + size
        key = data[at : at + 4] if data[1] & MASK else b""
        at += len(key)
        payload = data[at : at + length]
        assert len(payload) == length
        frames.append(Wire(head, apply_mask(payload, key) if key else payload))
        data = data[at + length :]
    return frames


def compressing(
    stage: Stage,
    is_client: bool = False,
    policy: Deflate = EAGER,
    agreement: Agreement = PLAIN,
    limits: Limits | None = None,
) -> tuple[Recorder, Peer]:
    """Return an open connection that compresses, and its peer."""
    connection = Recorder(stage.reactor, limits or Limits(), is_client=is_client)
    connection.compress_with(policy, agreement)
    transport, theirs = stage.network.transport(stage.reactor, Protocol())
    connection.open(transport)
    stage.settle()
    connection.events.clear()
    return connection, Peer(theirs, is_client=not is_client)


def sent(stage: Stage, peer: Peer) -> list[Wire]:
    """Return the frames that we have sent to a peer since."""
    stage.settle()
    return frames_of(peer.sock.take())


def send_compressed(peer: Peer, payload: bytes, opcode: int = TEXT, **flags: Any) -> None:
    peer.send_frame(opcode, payload, rsv1=True, **flags)


# --- sending ----------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("message", [LONG, LONG.encode()], ids=["text", "binary"])
def test_a_message_leaves_compressed(stage: Stage, is_client: bool, message: str | bytes) -> None:
    connection, peer = compressing(stage, is_client)
    assert connection.is_compressed
    assert connection.send(message)
    (frame,) = sent(stage, peer)
    opcode = TEXT if isinstance(message, str) else BINARY
    assert frame.head == FIN | RSV1 | opcode
    assert inflated(frame.payload) == LONG.encode()
    assert len(frame.payload) < len(LONG) / 20


@both_roles
def test_without_an_agreement_nothing_is_compressed(stage: Stage, is_client: bool) -> None:
    connection, peer = stage.connection(is_client=is_client)
    assert not connection.is_compressed
    connection.send(LONG)
    assert sent(stage, peer) == [Wire(FIN | TEXT, LONG.encode())]


@both_roles
@pytest.mark.parametrize("threshold", [100, 1024])
def test_what_is_shorter_than_the_threshold_goes_as_it_is(
    stage: Stage, is_client: bool, threshold: int
) -> None:
    connection, peer = compressing(stage, is_client, Deflate(threshold=threshold))
    connection.send("x" * (threshold - 1))
    connection.send("x" * threshold)
    plain, compressed = sent(stage, peer)
    assert plain == Wire(FIN | TEXT, b"x" * (threshold - 1))
    assert compressed.head == FIN | RSV1 | TEXT
    assert inflated(compressed.payload) == b"x" * threshold


@both_roles
def test_one_message_may_be_sent_as_it_is(stage: Stage, is_client: bool) -> None:
    connection, peer = compressing(stage, is_client, TAKEOVER, KEPT)
    connection.send(LONG, compress=False)
    connection.send(LONG)
    plain, compressed = sent(stage, peer)
    assert plain == Wire(FIN | TEXT, LONG.encode())
    assert compressed.head == FIN | RSV1 | TEXT
    # What the peer's inflater has not seen is not referred to either.
    assert inflated(compressed.payload) == LONG.encode()


@both_roles
def test_control_frames_are_never_compressed(stage: Stage, is_client: bool) -> None:
    connection, peer = compressing(stage, is_client)
    connection.ping(b"x" * 125)
    peer.send_frame(Opcode.PING, b"y" * 125)
    stage.settle()
    connection.close(1000, "z" * 123)
    assert sent(stage, peer) == [
        Wire(FIN | Opcode.PING, b"x" * 125),
        Wire(FIN | Opcode.PONG, b"y" * 125),
        Wire(FIN | Opcode.CLOSE, b"\x03\xe8" + b"z" * 123),
    ]


def test_with_takeover_a_message_refers_to_the_one_before(stage: Stage) -> None:
    message = words(1, 2000)
    sizes = {}
    for agreement in (PLAIN, KEPT):
        connection, peer = compressing(stage, policy=TAKEOVER, agreement=agreement)
        connection.send(message)
        connection.send(message)
        sizes[agreement] = [len(frame.payload) for frame in sent(stage, peer)]
    assert sizes[PLAIN][0] == sizes[PLAIN][1]
    assert sizes[KEPT][1] < sizes[KEPT][0] / 10


def test_nothing_is_compressed_for_a_connection_that_is_over(stage: Stage) -> None:
    connection, peer = compressing(stage)
    connection.close()
    assert not connection.send(LONG)
    assert [frame.head for frame in sent(stage, peer)] == [FIN | Opcode.CLOSE]


# --- receiving --------------------------------------------------------------------------------


@both_roles
@pytest.mark.parametrize("message", [LONG, "", "grüße 🔑", LONG.encode(), b"", b"\xff\x00"])
def test_a_compressed_message_is_delivered(
    stage: Stage, is_client: bool, message: str | bytes
) -> None:
    connection, peer = compressing(stage, is_client)
    payload = message.encode() if isinstance(message, str) else message
    send_compressed(peer, deflated(payload), TEXT if isinstance(message, str) else BINARY)
    stage.settle()
    assert connection.messages == [message]
    assert connection.is_open


@both_roles
@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x02\x00", b"\x03\x00"], ids=bytes.hex)
def test_h84_every_form_of_an_empty_message(stage: Stage, is_client: bool, payload: bytes) -> None:
    connection, peer = compressing(stage, is_client)
    send_compressed(peer, payload)
    send_compressed(peer, deflated(b"next"))
    stage.settle()
    assert connection.messages == ["", "next"]


@both_roles
def test_h84_messages_may_be_compressed_or_not_in_any_order(stage: Stage, is_client: bool) -> None:
    connection, peer = compressing(stage, is_client, TAKEOVER, KEPT)
    history = b""
    expected = []
    source = random.Random(7692)
    for number in range(40):
        message = words(number % 5, 300)
        expected.append(message)
        if source.random() < 0.5:
            peer.send(message)
        else:
            send_compressed(peer, deflated(message.encode(), history=history))
            history = (history + message.encode())[-(2**15) :]
    stage.settle()
    assert connection.messages == expected


@both_roles
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_h81_fragments_with_control_frames_between_them(
    stage: Stage, is_client: bool, size: int
) -> None:
    connection, peer = compressing(stage, is_client)
    message = words(size, 300) + "é🔑"
    payload = deflated(message.encode())
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    # RFC 7692, 6: RSV1 stands on the first fragment only.
    send_compressed(peer, b"", fin=False)
    for number, piece in enumerate(pieces):
        if number < 20:
            peer.send_frame(Opcode.PING, b"%d" % number)
        peer.send_frame(CONTINUATION, piece, fin=False)
    peer.send_frame(CONTINUATION, b"")
    stage.settle()
    pings = min(len(pieces), 20)
    assert connection.events == [("ping", b"%d" % n) for n in range(pings)] + [("message", message)]
    assert [frame.head for frame in sent(stage, peer)] == [FIN | Opcode.PONG] * pings


@both_roles
def test_a_plain_fragmented_message_on_a_compressed_connection(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = compressing(stage, is_client)
    peer.send_frame(TEXT, b"hel", fin=False)
    peer.send_frame(CONTINUATION, b"lo")
    send_compressed(peer, deflated(b"world"))
    stage.settle()
    assert connection.messages == ["hello", "world"]


@both_roles
def test_the_result_does_not_depend_on_how_the_stream_is_cut(stage: Stage, is_client: bool) -> None:
    connections = [compressing(stage, is_client) for _ in range(12)]
    source = random.Random(3)
    message = words(3, 500)
    for number, (_, each) in enumerate(connections):
        send_compressed(each, deflated(message.encode())[:50], fin=False)
        each.send_frame(CONTINUATION, deflated(message.encode())[50:])
        inbox = our_socket(each).inbox
        stream = bytes(inbox)
        inbox.clear()
        cut = source.randrange(len(stream)) if number else 1
        step = cut if number % 2 else 1
        for at in range(0, len(stream), max(step, 1)):
            each.send_bytes(stream[at : at + max(step, 1)])
            stage.settle()
    assert [each.messages for each, _ in connections] == [[message]] * 12


# --- offences ---------------------------------------------------------------------------------


def check_failed(stage: Stage, connection: Recorder, peer: Peer, code: int, cause: Cause) -> None:
    stage.settle()
    closes = [frame for frame in sent(stage, peer) if frame.head == FIN | Opcode.CLOSE]
    assert [int.from_bytes(frame.payload[:2], "big") for frame in closes] == [code]
    assert connection.cause is cause
    peer.sock.end()
    stage.settle()
    assert connection.state is State.CLOSED
    assert [event[0] for event in connection.events[-2:]] == ["error", "close"]
    # Nothing of the inflater is left.
    inflater = connection._assembler.inflater
    assert inflater is None or (inflater._stream is None and not inflater._history)


class Offence(NamedTuple):
    """What a peer may not send once compression is agreed on."""

    frames: list[tuple[int, bytes]]
    code: int = 1002
    cause: Cause = Cause.PROTOCOL_ERROR


HELLO = deflated(b"Hello")
SPLIT = deflated("é".encode())
OFFENCES = {
    "H80 RSV1 on a continuation": Offence(
        [(RSV1 | TEXT, HELLO[:3]), (FIN | RSV1 | CONTINUATION, HELLO[3:])]
    ),
    "H80 RSV1 on a continuation only": Offence(
        [(TEXT, b"Hel"), (FIN | RSV1 | CONTINUATION, HELLO)]
    ),
    "H80 RSV1 on a ping": Offence([(FIN | RSV1 | Opcode.PING, HELLO)]),
    "H80 RSV1 on a pong": Offence([(FIN | RSV1 | Opcode.PONG, b"")]),
    "H80 RSV1 on a close": Offence([(FIN | RSV1 | Opcode.CLOSE, b"\x03\xe8")]),
    "H80 RSV1 on a fragmented ping": Offence([(RSV1 | Opcode.PING, HELLO)]),
    "RSV2 beside RSV1": Offence([(FIN | RSV1 | RSV2 | TEXT, HELLO)]),
    "H79 garbage": Offence([(FIN | RSV1 | BINARY, b"\x07garbage")], 1007, Cause.INVALID_DATA),
    "H79 garbage in a fragment": Offence([(RSV1 | BINARY, b"\x07")], 1007, Cause.INVALID_DATA),
    "H79 cut off": Offence([(FIN | RSV1 | BINARY, HELLO[:3])], 1007, Cause.INVALID_DATA),
    "H84 no UTF-8": Offence([(FIN | RSV1 | TEXT, deflated(b"\xff"))], 1007, Cause.INVALID_DATA),
    "H84 no UTF-8 in the first fragment": Offence(
        [(RSV1 | TEXT, deflated(b"ok \xc0\xaf") + TAIL)], 1007, Cause.INVALID_DATA
    ),
    "H84 half a character": Offence(
        [(FIN | RSV1 | TEXT, deflated("é".encode()[:1]))], 1007, Cause.INVALID_DATA
    ),
    "H83 a reference to nothing": Offence(
        [(FIN | RSV1 | BINARY, deflated(LONG.encode(), history=LONG.encode()))],
        1007,
        Cause.INVALID_DATA,
    ),
}


@both_roles
@pytest.mark.parametrize("case", OFFENCES)
def test_an_offence_fails_the_connection(stage: Stage, is_client: bool, case: str) -> None:
    offence = OFFENCES[case]
    connection, peer = compressing(stage, is_client)
    for head, payload in offence.frames:
        peer.send_bytes(b"".join(peer._writer.encode(head, payload)))
    check_failed(stage, connection, peer, offence.code, offence.cause)
    assert connection.messages == []


@both_roles
@pytest.mark.parametrize("opcode", [TEXT, BINARY, Opcode.PING])
def test_h82_rsv1_without_an_agreement(stage: Stage, is_client: bool, opcode: int) -> None:
    connection, peer = stage.connection(is_client=is_client)
    send_compressed(peer, HELLO, opcode)
    check_failed(stage, connection, peer, 1002, Cause.PROTOCOL_ERROR)
    assert connection._assembler.inflater is None


@both_roles
def test_h83_a_reference_to_an_older_message_without_takeover(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = compressing(stage, is_client, TAKEOVER, PLAIN)
    send_compressed(peer, deflated(LONG.encode()))
    send_compressed(peer, deflated(LONG.encode(), history=LONG.encode()))
    check_failed(stage, connection, peer, 1007, Cause.INVALID_DATA)
    assert connection.messages == [LONG]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Return 24 KB that inflate to 24 MiB."""
    return ((deflated(bytes(MIB)) + TAIL) * 24)[:-4]


@both_roles
@pytest.mark.parametrize("fragments", [1, 1000])
def test_h75_a_bomb_fails_the_connection(
    stage: Stage, is_client: bool, bomb: bytes, fragments: int
) -> None:
    connection, peer = compressing(stage, is_client)
    size = -(-len(bomb) // fragments)
    send_compressed(peer, b"", BINARY, fin=False)
    for at in range(0, len(bomb), size):
        peer.send_frame(CONTINUATION, bomb[at : at + size], fin=False)
    check_failed(stage, connection, peer, 1009, Cause.MESSAGE_TOO_BIG)
    assert connection.messages == []


@pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="it has no tracemalloc")
def test_h75_a_bomb_takes_little_more_than_the_limit(stage: Stage, bomb: bytes) -> None:
    import tracemalloc

    connection, peer = compressing(stage)
    send_compressed(peer, bomb, BINARY)
    tracemalloc.start()
    try:
        stage.settle()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert connection.cause is Cause.MESSAGE_TOO_BIG
    # The buffer grows by steps, and for a moment there are an old and a new one.
    assert peak < 2.5 * MIB


@both_roles
def test_h75_a_message_of_just_the_limit_passes(stage: Stage, is_client: bool) -> None:
    limits = Limits(max_message_size=10_000)
    connection, peer = compressing(stage, is_client, limits=limits)
    send_compressed(peer, deflated(bytes(10_000)), BINARY)
    stage.settle()
    assert connection.messages == [bytes(10_000)]
    send_compressed(peer, deflated(bytes(10_001)), BINARY)
    check_failed(stage, connection, peer, 1009, Cause.MESSAGE_TOO_BIG)


@both_roles
def test_h76_inflating_too_much_a_second_fails_the_connection(
    stage: Stage, is_client: bool
) -> None:
    policy = Deflate(inflate_rate=2.0 * MIB)
    connection, peer = compressing(stage, is_client, policy)
    message = deflated(bytes(MIB))
    for _ in range(3):
        # As much as is allowed, for as long as it likes.
        for _ in range(2):
            send_compressed(peer, message, BINARY)
        stage.settle()
        stage.pass_time(1)
    assert connection.is_open
    assert len(connection.messages) == 6
    for _ in range(3):
        send_compressed(peer, message, BINARY)
    check_failed(stage, connection, peer, 1008, Cause.RATE_LIMITED)
    assert len(connection.messages) == 8


@both_roles
def test_h76_what_has_gathered_while_we_did_not_read_is_no_flood(
    stage: Stage, is_client: bool
) -> None:
    policy = Deflate(inflate_rate=2.0 * MIB)
    connection, peer = compressing(stage, is_client, policy)
    connection.pause()
    message = deflated(bytes(MIB))
    for _ in range(6):
        send_compressed(peer, message, BINARY)
        stage.settle()
        stage.pass_time(0.5)
    connection.resume()
    stage.settle()
    assert connection.is_open
    assert len(connection.messages) == 6


def test_h76_a_trickle_after_a_pause_saves_up_no_credit(stage: Stage) -> None:
    policy = Deflate(inflate_rate=1.0 * MIB)
    connection, peer = compressing(stage, False, policy)
    for _ in range(200):  # more than one turn handles, so reading stops for a moment
        peer.send_frame(BINARY, b"")
    stage.settle()
    for _ in range(600):
        peer.send_frame(BINARY, b"x")
        stage.settle()
        stage.pass_time(0.05)
    before = len(connection.messages)
    bomb = deflated(bytes(MIB))
    for _ in range(5):
        send_compressed(peer, bomb, BINARY)
    check_failed(stage, connection, peer, 1008, Cause.RATE_LIMITED)
    assert len(connection.messages) - before <= 2


def test_the_time_for_a_message_covers_compressed_ones(stage: Stage) -> None:
    connection, peer = compressing(stage, limits=Limits(ping_interval=None, message_timeout=60.0))
    send_compressed(peer, HELLO[:2], fin=False)
    stage.pass_time(60.1)
    assert connection.cause is Cause.MESSAGE_TIMEOUT


@both_roles
def test_a_connection_that_ends_inside_a_message_leaves_nothing(
    stage: Stage, is_client: bool
) -> None:
    connection, peer = compressing(stage, is_client, TAKEOVER, KEPT)
    send_compressed(peer, deflated(LONG.encode()))
    send_compressed(peer, deflated(LONG.encode())[:20], fin=False)
    stage.settle()
    inflater = connection._assembler.inflater
    assert inflater is not None
    assert inflater._stream is not None
    assert inflater._history
    peer.sock.end()
    stage.settle()
    assert connection.messages == [LONG]
    assert inflater._stream is None
    assert not inflater._history


# --- both ends of ours ------------------------------------------------------------------------

POLICIES = {
    "defaults": Deflate(),
    "everything": EAGER,
    "takeover both ways": TAKEOVER,
    "takeover there": Deflate(threshold=0, compress_takeover=True),
    "takeover back": Deflate(threshold=0, inflate_takeover=True),
    "small windows": Deflate(threshold=0, compress_bits=9, inflate_bits=9),
    "large windows": Deflate(
        threshold=0,
        compress_bits=15,
        inflate_bits=15,
        compress_takeover=True,
        inflate_takeover=True,
    ),
}


def joined(
    stage: Stage, server_policy: Deflate, client_policy: Deflate
) -> tuple[Recorder, Recorder]:
    """Return a server's and a client's connection that talk to each other."""
    offer = client_policy.offer()
    accepted = server_policy.accept(parse_extensions([offer]))
    assert accepted is not None
    theirs, answer = accepted
    ours = client_policy.agree(parse_extensions([answer]))
    assert ours is not None
    ends = stage.network.pair(capacity=64 * 1024)
    server = Recorder(stage.reactor, Limits())
    server.compress_with(server_policy, theirs)
    client = Recorder(stage.reactor, Limits(), is_client=True)
    client.compress_with(client_policy, ours)
    for connection, sock in zip((server, client), ends):
        connection.open(started(stage, sock))
    return server, client


def started(stage: Stage, sock: MemorySocket) -> Transport:
    socket: Any = sock
    transport = Transport(stage.reactor, socket, Protocol(), sock.getpeername())
    transport.start()
    return transport


@pytest.mark.parametrize("server_policy", POLICIES)
@pytest.mark.parametrize("client_policy", POLICIES)
def test_two_of_our_ends_understand_each_other(
    stage: Stage, server_policy: str, client_policy: str
) -> None:
    server, client = joined(stage, POLICIES[server_policy], POLICIES[client_policy])
    source = random.Random(f"{server_policy} {client_policy}")
    messages: list[str | bytes] = []
    for number in range(rounds(12, 60)):
        size = source.choice([0, 1, 100, 2000, 40_000])
        kinds: list[str | bytes] = [
            words(number % 3, size),
            bytes(size),
            source.getrandbits(8 * size + 8).to_bytes(size + 1, "big"),
        ]
        messages.append(source.choice(kinds))
    for message in messages:
        compress = source.random() < 0.9
        assert server.send(message, compress=compress)
        assert client.send(message, compress=compress)
        stage.settle()
    assert client.messages == server.messages == messages
    client.close()
    stage.settle()
    assert (server.state, client.state) == (State.CLOSED, State.CLOSED)
    assert client.is_clean


def test_a_message_that_is_as_large_as_the_limit_passes_however_it_compresses(stage: Stage) -> None:
    server, client = joined(stage, EAGER, EAGER)
    noise = random.Random(1).getrandbits(8 * MIB).to_bytes(MIB, "big")
    client.send(noise)
    stage.settle()
    assert server.messages == [noise]


# --- broadcasts -------------------------------------------------------------------------------

OFFER = "permessage-deflate; client_max_window_bits"


@pytest.fixture
def compressed_payloads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what is compressed from now on."""
    payloads: list[bytes] = []
    compress = Compressor.compress

    def counting(compressor: Compressor, payload: bytes) -> bytes:
        payloads.append(payload)
        return compress(compressor, payload)

    monkeypatch.setattr(Compressor, "compress", counting)
    return payloads


def clients(stage: Stage, server: Server, *offers: str) -> list[Peer]:
    """Return a client for each offer; ``""`` for none."""
    return [
        stage.open_client(server, **({"Sec_WebSocket_Extensions": offer} if offer else {}))
        for offer in offers
    ]


def test_a_broadcast_is_compressed_once_for_all(
    stage: Stage, compressed_payloads: list[bytes]
) -> None:
    server = stage.server(compression=True)
    peers = clients(stage, server, *[OFFER, ""] * 10)
    server.broadcast(LONG)
    assert compressed_payloads == [LONG.encode()]
    received = [sent(stage, peer) for peer in peers]
    assert received[1::2] == [[Wire(FIN | TEXT, LONG.encode())]] * 10
    assert len({tuple(frames) for frames in received[::2]}) == 1
    ((frame,),) = received[:1]
    assert frame.head == FIN | RSV1 | TEXT
    assert inflated(frame.payload) == LONG.encode()


def test_a_broadcast_is_compressed_once_for_each_window(
    stage: Stage, compressed_payloads: list[bytes]
) -> None:
    server = stage.server(compression=True)
    narrow = "permessage-deflate; server_max_window_bits=9"
    peers = clients(stage, server, *[OFFER, narrow, OFFER, narrow])
    server.broadcast(LONG)
    assert len(compressed_payloads) == 2
    for peer in peers:
        (frame,) = sent(stage, peer)
        assert inflated(frame.payload) == LONG.encode()


def test_with_takeover_a_broadcast_is_compressed_for_each(
    stage: Stage, compressed_payloads: list[bytes]
) -> None:
    server = stage.server(compression=TAKEOVER)
    without = f"{OFFER}; server_no_context_takeover"
    peers = clients(stage, server, OFFER, OFFER, without, without, "")
    for message in (words(1, 2000), words(1, 2000)):
        server.broadcast(message)
    # Twice for each of the first, and twice for both of the others.
    assert len(compressed_payloads) == 6
    sizes = [[len(frame.payload) for frame in sent(stage, peer)] for peer in peers]
    assert sizes[0] == sizes[1]
    assert sizes[0][1] < sizes[0][0] / 10
    assert sizes[2] == sizes[3]
    assert sizes[2][0] == sizes[2][1]
    assert sizes[4] == [2000, 2000]


def test_a_short_broadcast_goes_as_it_is_to_all(
    stage: Stage, compressed_payloads: list[bytes]
) -> None:
    server = stage.server(compression=True)
    peers = clients(stage, server, OFFER, "", OFFER)
    server.broadcast("x" * 1023)
    assert compressed_payloads == []
    for peer in peers:
        assert sent(stage, peer) == [Wire(FIN | TEXT, b"x" * 1023)]


# --- the opening handshake, the server's side -------------------------------------------------


def answer_to(stage: Stage, server: Server, offers: list[str]) -> tuple[str | None, Peer]:
    """Return what a server answers to offers, in a 101."""
    request = upgrade_request()[:-2].decode()
    request += "".join(f"Sec-WebSocket-Extensions: {offer}\r\n" for offer in offers) + "\r\n"
    peer = stage.client(server, request.encode())
    head = read_head(peer)
    assert head.startswith("HTTP/1.1 101 ")
    return header(head, "Sec-WebSocket-Extensions"), peer


def test_the_bytes_of_the_answer(stage: Stage) -> None:
    server = stage.server(compression=True)
    peer = stage.client(server, upgrade_request(Sec_WebSocket_Extensions=OFFER))
    lines = peer.sock.take().decode().split("\r\n")
    assert lines.count("") == 2
    (line,) = (line for line in lines if line.lower().startswith("sec-websocket-ext"))
    assert line == (
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
        "client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12"
    )
    (connection,) = server.connections
    assert connection.is_compressed


NO_CONTEXT = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
SERVER_ONLY = f"{NO_CONTEXT}; server_max_window_bits=12"
BOTH = f"{SERVER_ONLY}; client_max_window_bits=12"


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ([OFFER], BOTH),
        (["permessage-deflate"], SERVER_ONLY),
        (["x-unknown, permessage-deflate"], SERVER_ONLY),
        (["x-unknown", "permessage-deflate"], SERVER_ONLY),
        (["permessage-deflate; unknown, permessage-deflate"], SERVER_ONLY),
        (["permessage-deflate; server_max_window_bits=8", OFFER], BOTH),
        (
            ["permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"],
            f"{NO_CONTEXT}; server_max_window_bits=10; client_max_window_bits=11",
        ),
        ([f"{OFFER}; client_no_context_takeover, permessage-deflate"], BOTH),
    ],
)
def test_an_offer_is_accepted(stage: Stage, offers: list[str], answer: str) -> None:
    server = stage.server(compression=True)
    answered, peer = answer_to(stage, server, offers)
    assert answered == answer
    send_compressed(peer, deflated(LONG.encode(), 9))
    stage.settle()
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    assert connection.messages == [LONG]


@pytest.mark.parametrize(
    "offers",
    [
        [],
        ["x-webkit-deflate-frame"],
        ["permessage-bzip2"],
        ["permessage-deflate; server_max_window_bits=7"],
        ["permessage-deflate; server_max_window_bits=16"],
        ["permessage-deflate; server_max_window_bits=08"],
        ["permessage-deflate; server_max_window_bits"],
        ["permessage-deflate; client_max_window_bits=7"],
        ["permessage-deflate; client_max_window_bits=16"],
        ["permessage-deflate; server_no_context_takeover=1"],
        ["permessage-deflate; client_no_context_takeover; client_no_context_takeover"],
        ["permessage-deflate; __proto__=12"],
        ["permessage-deflate; constructor"],
        # H27: zlib cannot deflate with so small a window.
        ["permessage-deflate; server_max_window_bits=8"],
        # H25: more than sixteen.
        [", ".join(["x"] * 16 + ["permessage-deflate"])],
    ],
)
def test_h26_h27_an_offer_that_cannot_be_met_is_declined(stage: Stage, offers: list[str]) -> None:
    server = stage.server(compression=True)
    answer, peer = answer_to(stage, server, offers)
    assert answer is None
    (connection,) = server.connections
    assert not connection.is_compressed
    connection.send(LONG)
    assert sent(stage, peer) == [Wire(FIN | TEXT, LONG.encode())]
    send_compressed(peer, HELLO)
    stage.settle()
    assert connection.cause is Cause.PROTOCOL_ERROR


def test_a_server_that_does_not_want_it_does_not_answer(stage: Stage) -> None:
    answer, _ = answer_to(stage, stage.server(), [OFFER])
    assert answer is None


def test_a_malformed_offer_is_a_bad_request(stage: Stage) -> None:
    server = stage.server(compression=True)
    for offer in ("permessage-deflate;", 'permessage-deflate; x="', "permessage-deflate x"):
        peer = stage.client(server, upgrade_request(Sec_WebSocket_Extensions=offer))
        assert read_head(peer).startswith("HTTP/1.1 400 ")


# --- the opening handshake, the client's side -------------------------------------------------


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor(clock=FakeClock()) as reactor:
        yield reactor


def extension(value: str) -> bytes:
    return answer_of(ACCEPT, f"Sec-WebSocket-Extensions: {value}")


def test_the_offer_of_a_client(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, answer_of(ACCEPT))
    client = opened(reactor, script.url, compression=True)
    assert script.conversation.field("Sec-WebSocket-Extensions") == [BOTH]
    # The server has declined, by saying nothing.
    assert not client.is_compressed
    client.send(LONG)
    run_until(reactor, lambda: len(script.conversation.frames) > len(LONG))
    assert frames_of(script.conversation.frames) == [Wire(FIN | TEXT, LONG.encode())]


def test_a_client_agrees(reactor: Reactor) -> None:
    frame = bytes((FIN | RSV1 | TEXT, len(HELLO))) + HELLO
    script = ScriptedServer(reactor, extension(SERVER_ONLY) + frame)
    client = opened(reactor, script.url, compression=True)
    run_until(reactor, lambda: client.messages)
    assert client.is_compressed
    assert client.messages == ["Hello"]
    client.send(LONG)
    run_until(reactor, lambda: script.conversation.frames)
    turn(reactor)
    (sent_frame,) = frames_of(script.conversation.frames)
    assert sent_frame.head == FIN | RSV1 | TEXT
    assert inflated(sent_frame.payload) == LONG.encode()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("x-unknown", "not offered"),
        (f"{BOTH}, {BOTH}", "not offered"),
        ("permessage-deflate", "server_no_context_takeover is missing"),
        (NO_CONTEXT, "server_max_window_bits is missing"),
        (f"{NO_CONTEXT}; server_max_window_bits=13", "above the offer"),
        (f"{NO_CONTEXT}; server_max_window_bits=16", "8 to 15"),
        (f"{SERVER_ONLY}; client_max_window_bits", "8 to 15"),
        (f"{SERVER_ONLY}; client_max_window_bits=8", "8 bits"),
        (f"{SERVER_ONLY}; unknown", "unknown"),
        ("permessage-deflate;", "malformed"),
        ('permessage-deflate; x="', "malformed"),
    ],
)
def test_h123_an_answer_that_does_not_fit_the_offer(
    reactor: Reactor, answer: str, complaint: str
) -> None:
    script = ScriptedServer(reactor, extension(answer) + b"\xc1\x00")
    client = refused(reactor, script.url, compression=True)
    assert isinstance(client.error, HandshakeError)
    assert complaint in str(client.error)
    assert client.error.status == 101
    run_until(reactor, lambda: script.conversation.is_over)


def test_h123_an_extension_that_was_not_offered(reactor: Reactor) -> None:
    script = ScriptedServer(reactor, extension(BOTH))
    client = refused(reactor, script.url)
    assert isinstance(client.error, HandshakeError)
    assert "extension that was not offered" in str(client.error)
    assert client.error.status == 101


@pytest.mark.parametrize("policy", POLICIES)
def test_a_client_and_a_server_on_real_sockets(reactor: Reactor, policy: str) -> None:
    server = Server(
        Recorder, port=0, reactor=reactor, limits=LIMITS, compression=POLICIES[policy]
    ).start()
    client = opened(reactor, url_of(server), compression=POLICIES[policy])
    (connection,) = server.connections
    assert isinstance(connection, Recorder)
    assert connection.is_compressed
    assert client.is_compressed
    messages = [words(1, 5000), words(2, 5000), words(1, 5000), "x" * MIB, ""]
    for message in messages:
        client.send(message)
        server.broadcast(message)
    run_until(reactor, lambda: len(client.messages) == len(connection.messages) == len(messages))
    assert client.messages == connection.messages == messages
    assert server.statistics().bytes_in < 20_000
