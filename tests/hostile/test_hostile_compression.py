"""H75 to H85: permessage-deflate, against a whole server that has agreed to it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from frame_table import encode_by_hand

from hostile.arena import Arena, Frames, Offender, splits_of
from hostile.memory import KIB, measured
from websocket import Cause, Limits
from websocket.deflate import Deflate

Besiege = Callable[..., Arena]

MIB = KIB * KIB
KEY = b"\x37\xfa\x21\x3d"
FIN, RSV1 = 0x80, 0x40
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

OFFER = "permessage-deflate; client_max_window_bits"
TAKEOVER = Deflate(inflate_takeover=True)


def deflated(data: bytes, *, is_final: bool = False, bits: int = 12, history: bytes = b"") -> bytes:
    """Return the compressed form of a message, with or without BFINAL."""
    if history:
        stream = zlib.compressobj(9, zlib.DEFLATED, -bits, 9, zlib.Z_DEFAULT_STRATEGY, history)
    else:
        stream = zlib.compressobj(9, zlib.DEFLATED, -bits, 9)
    if is_final:
        return stream.compress(data) + stream.flush() + b"\x00"
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def frame(head: int, payload: bytes = b"") -> bytes:
    return encode_by_hand(head, payload, KEY)


def compressed(payload: bytes, opcode: int = TEXT) -> bytes:
    return frame(FIN | RSV1 | opcode, payload)


def join(arena: Arena, offer: str = OFFER) -> Offender:
    """Return a client that compresses."""
    offender = arena.offender(Sec_WebSocket_Extensions=offer)
    assert offender.connection.is_compressed
    return offender


BOMB = deflated(bytes(24 * MIB))


def bomb_in_fragments() -> list[bytes]:
    step = -(-len(BOMB) // 1_000)
    pieces = [BOMB[at : at + step] for at in range(0, len(BOMB), step)]
    return [
        frame(RSV1 | BINARY, pieces[0]),
        *(frame(0, piece) for piece in pieces[1:-1]),
        frame(FIN, pieces[-1]),
    ]


BOMBS = {
    "H75-one-frame": lambda: [compressed(BOMB, BINARY)],
    "H75-1000-fragments": bomb_in_fragments,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_inflated_up_to_the_limit(hostile: Besiege, name: str) -> None:
    arena = hostile(compression=True)
    offender = join(arena)
    frames = BOMBS[name]()
    with measured() as memory:
        for each in frames:
            offender.connection.data_received(memoryview(each))
    # Above the limit: what came in, unmasked, and one step of the inflater.
    memory.assert_peak_below(arena.limits.max_message_size + 64 * KIB)
    memory.assert_held_below(64 * KIB)
    arena.stage.settle()
    arena.expect_fail(offender, 1009, Cause.MESSAGE_TOO_BIG)


def test_h76_a_bomb_for_the_processor_meets_the_bucket(hostile: Besiege) -> None:
    arena = hostile(compression=True)
    offender = join(arena)
    wire = compressed(deflated(bytes(MIB - 1)), BINARY)
    for number in range(100):
        offender.peer.send_bytes(wire)
        arena.stage.clock.now += 0.01
        arena.stage.reactor.run_once(0)
        if number % 10 == 9:
            arena.check_healthy()
    delivered = offender.messages
    # 16 MiB at once and 16 MiB a second, and a tenth of a second for each healthy ping.
    assert 16 <= len(delivered) <= 25
    arena.expect_fail(offender, 1008, Cause.RATE_LIMITED, messages=delivered)


# --- malformed --------------------------------------------------------------------------------


class Bad(NamedTuple):
    """Frames of a compressing client that fail the connection."""

    name: str
    wire: bytes
    code: int
    cause: Cause
    compression: bool | Deflate = True
    offer: str = OFFER
    messages: Sequence[str | bytes] = ()


HELLO = deflated(b"hello, hello, hello, hello")
LATER = deflated(b"hello, hello, hello, hello", history=b"hello, hello, hello, hello")
FAR = bytes(range(256)) * 2 + bytes(8 * KIB) + bytes(range(256))
# 64 ends of streams cost a byte each and more, 5,000 of them in one message are an attack.
MEMBERS = deflated(b"", is_final=True)[:-1] * 5_000

INVALID, BROKEN = (1007, Cause.INVALID_DATA), (1002, Cause.PROTOCOL_ERROR)

BAD = [
    Bad("H77-5000-members", compressed(MEMBERS), 1009, Cause.MESSAGE_TOO_BIG),
    Bad("H79-garbage", compressed(b"\xff\xff\xff\xff"), *INVALID),
    Bad("H79-reserved-block", compressed(b"\x06"), *INVALID),
    Bad("H79-truncated", compressed(HELLO[:-3]), *INVALID),
    Bad("H79-junk-behind", compressed(HELLO + b"\xff\xff\xff"), *INVALID),
    Bad("H79-junk-behind-the-end", compressed(deflated(b"a", is_final=True) + b"\xff"), *INVALID),
    Bad("H80-continuation", frame(TEXT, b"a") + frame(FIN | RSV1, b"b"), *BROKEN),
    Bad("H80-continuation-of-compressed",
        frame(RSV1 | TEXT, HELLO[:3]) + frame(FIN | RSV1, HELLO[3:]), *BROKEN),
    *(
        Bad(f"H80-opcode-{opcode}-fin-{bool(fin)}", frame(fin | RSV1 | opcode), *BROKEN)
        for opcode in (CLOSE, PING, PONG)
        for fin in (0, FIN)
    ),
    Bad("H83-refers-back-without-takeover", compressed(HELLO) + compressed(LATER), *INVALID,
        messages=["hello, hello, hello, hello"]),
    Bad("H83-refers-back-though-declared", compressed(HELLO) + compressed(LATER), *INVALID,
        TAKEOVER, OFFER + "; client_no_context_takeover", ["hello, hello, hello, hello"]),
    Bad("H84-bad-text", compressed(deflated(b"a\xff")), *INVALID),
    Bad("H84-truncated-text", compressed(deflated(b"a\xe2\x82")), *INVALID),
    Bad("H84-surrogate", compressed(deflated(b"\xed\xa0\x80")), *INVALID),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.name)
def test_bad_compressed_data_fails_the_connection(hostile: Besiege, row: Bad) -> None:
    arena = hostile(compression=row.compression)
    wires = splits_of(row.wire, 2) if len(row.wire) <= 2_000 else iter([[row.wire]])
    for number, pieces in enumerate(wires):
        offender = join(arena, row.offer)
        offender.send(pieces)
        arena.expect_fail(offender, row.code, row.cause, messages=row.messages, stays=not number)
        # H79: the inflater is freed; and H82 below: there is none where none was agreed on.
        inflater = offender.connection._assembler.inflater
        assert inflater is not None
        assert inflater._stream is None


def test_h83_a_window_larger_than_agreed_is_not_kept(hostile: Besiege) -> None:
    """A choice of zlib: within one step the bytes are there; beyond it the reference fails."""
    arena = hostile(compression=Deflate(inflate_bits=9, inflate_takeover=True))
    offender = join(arena)
    payload = deflated(FAR, bits=15)
    for index in range(len(payload)):
        offender.peer.send_bytes(
            frame(
                (RSV1 | BINARY if not index else 0) | (FIN if index == len(payload) - 1 else 0),
                payload[index : index + 1],
            )
        )
    arena.stage.settle()
    arena.expect_fail(offender, 1007, Cause.INVALID_DATA)


@pytest.mark.parametrize("is_client", [False, True], ids=["H82-server", "H82-client"])
def test_without_agreement_no_inflater_exists(hostile: Besiege, is_client: bool) -> None:
    arena = hostile(compression=True)
    offender = arena.offending_server() if is_client else arena.offender()
    assert not offender.connection.is_compressed
    offender.send([encode_by_hand(FIN | RSV1 | TEXT, HELLO, None if is_client else KEY)])
    assert offender.connection._assembler.inflater is None
    arena.expect_fail(offender, *BROKEN)


# --- what only looks hostile ------------------------------------------------------------------


class Good(NamedTuple):
    """Frames of a compressing client that must be taken, and what they answer."""

    name: str
    wire: bytes
    messages: list[str | bytes]
    answers: Frames = ()
    compression: bool | Deflate = True


GOOD = [
    Good("H78-final-block-then-another", compressed(deflated(b"one", is_final=True))
         + compressed(deflated(b"two")), ["one", "two"]),
    Good("H78-final-block-without-the-octet", compressed(deflated(b"one", is_final=True)[:-1])
         + compressed(deflated(b"two")), ["one", "two"]),
    Good("H81-ping-between-fragments", frame(RSV1 | TEXT, HELLO[:4]) + frame(FIN | PING, b"p")
         + frame(FIN, HELLO[4:]), ["hello, hello, hello, hello"], [(PONG, b"p")]),
    Good("H83-refers-back-with-takeover", compressed(HELLO) + compressed(LATER),
         ["hello, hello, hello, hello"] * 2, [], TAKEOVER),
    Good("H84-empty-message", compressed(b"\x00"), [""]),
    Good("H84-empty-payload", compressed(b""), [""]),
    Good("H84-uncompressed-message", frame(FIN | TEXT, b"plain") + compressed(HELLO),
         ["plain", "hello, hello, hello, hello"]),
    Good("H84-split-code-point", frame(RSV1 | TEXT, deflated("\u20ac".encode())[:2])
         + frame(FIN, deflated("\u20ac".encode())[2:]), ["\u20ac"]),
]  # fmt: skip


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.name)
def test_odd_compressed_messages_are_delivered(hostile: Besiege, row: Good) -> None:
    arena = hostile(compression=row.compression)
    for pieces in splits_of(row.wire):
        offender = join(arena)
        offender.send(pieces)
        assert offender.peer.receive() == list(row.answers)
        arena.expect_open(offender, row.messages)


def test_h85_idle_compressed_connections_cost_little_more_than_plain_ones(
    hostile: Besiege,
) -> None:
    """What 50 cost each, so do 5,000: without takeover the compressor is shared."""
    arena = hostile(
        compression=True,
        limits=Limits(max_connections_per_ip=None),
    )
    figures = []
    for fields in ({}, {"Sec_WebSocket_Extensions": OFFER}):
        wire = compressed(HELLO) if fields else frame(FIN | TEXT, b"hello, hello, hello, hello")
        guests = []
        with measured() as memory:
            for _ in range(50):
                guest = arena.offender(**fields)
                guest.send([wire])
                assert guest.connection.send("an answer " * 200)
                arena.stage.settle()
                guest.peer.sock.take()
                guests.append(guest)
        figures.append(memory.held)
        for guest in guests:
            guest.leave()
    plain, extra = figures
    if plain is not None and extra is not None:
        assert (extra - plain) / 50 < 2 * KIB
    arena.check()
