"""Messages that no compression makes shorter: how they are sent, and what limit they meet."""

from __future__ import annotations

import random
import zlib
from functools import partial
from typing import Any

import pytest
from reactions import both_roles
from support import Peer, Recorder, Stage

from reactor import Reactor
from websocket import Deflate, Limits
from websocket.deflate import Agreement
from websocket.frame import FIN, RSV1
from websocket.opcodes import Opcode

POLICY = Deflate()
NO_TAKEOVER = Agreement(12, 12, compress_takeover=False, inflate_takeover=False)
TAKEOVER = Agreement(12, 12, compress_takeover=True, inflate_takeover=True)
AS_IT_IS = FIN | Opcode.BINARY
COMPRESSED = FIN | Opcode.BINARY | RSV1

# What no compression makes shorter.
NOISE = random.Random("noise").getrandbits(8 * 4096).to_bytes(4096, "big")


def compressing(
    agreement: Agreement, reactor: Reactor, limits: Limits, *, is_client: bool
) -> Recorder:
    connection = Recorder(reactor, limits, is_client=is_client)
    connection.compress_with(POLICY, agreement)
    return connection


def opened(
    stage: Stage, is_client: bool, agreement: Agreement = NO_TAKEOVER, limit: int = 2**20
) -> tuple[Any, Peer]:
    make = partial(compressing, agreement)
    limits = Limits(max_message_size=limit)
    return stage.connection(make, is_client=is_client, limits=limits)


def deflated(payload: bytes, level: int = 6, memory_level: int = 8) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -12, memory_level)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(
    ("agreement", "message", "head"),
    [
        (NO_TAKEOVER, bytes(4096), COMPRESSED),
        (NO_TAKEOVER, NOISE, AS_IT_IS),
        (TAKEOVER, bytes(4096), COMPRESSED),
        (TAKEOVER, NOISE, COMPRESSED),
    ],
)
@both_roles
def test_without_takeover_what_does_not_become_shorter_goes_as_it_is(
    stage: Stage, is_client: bool, agreement: Agreement, message: bytes, head: int
) -> None:
    connection, peer = opened(stage, is_client, agreement)
    assert connection.send(message)
    stage.settle()
    assert peer.sock.take()[0] == head


def test_it_goes_as_it_is_in_a_broadcast(stage: Stage) -> None:
    server = stage.server(compression=POLICY)
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    peers = [stage.open_client(server, **offer) for _ in range(2)]
    server.broadcast(NOISE)
    stage.settle()
    assert [peer.receive() for peer in peers] == [[(Opcode.BINARY, NOISE)]] * 2


@pytest.mark.parametrize("limit", [1, 100, 4096])
@pytest.mark.parametrize(("level", "memory_level"), [(0, 8), (1, 1), (6, 1), (9, 9)])
@pytest.mark.parametrize("pieces", [1, 3])
@both_roles
def test_a_message_may_be_longer_on_the_wire_than_the_limit(
    stage: Stage, is_client: bool, pieces: int, level: int, memory_level: int, limit: int
) -> None:
    connection, peer = opened(stage, is_client, limit=limit)
    wire = deflated(NOISE[:limit], level, memory_level)
    assert len(wire) > limit
    step = -(-len(wire) // pieces)
    for at in range(0, len(wire), step):
        opcode = Opcode.CONTINUATION if at else Opcode.BINARY
        fin = at + step >= len(wire)
        peer.send_frame(opcode, wire[at : at + step], fin=fin, rsv1=not at)
    stage.settle()
    assert connection.messages == [NOISE[:limit]]


@pytest.mark.parametrize("limit", [1, 100, 4095])
@both_roles
def test_the_limit_is_exact_for_what_a_message_inflates_to(
    stage: Stage, is_client: bool, limit: int
) -> None:
    connection, peer = opened(stage, is_client, limit=limit)
    peer.send_frame(Opcode.BINARY, deflated(NOISE[: limit + 1]), rsv1=True)
    stage.settle()
    assert connection.messages == []
    assert peer.received_close() == (1009, "message inflates to more than the size limit")


@both_roles
def test_what_never_inflates_to_anything_meets_a_limit_too(stage: Stage, is_client: bool) -> None:
    connection, peer = opened(stage, is_client, limit=4096)
    empty_blocks = b"\x00\x00\x00\xff\xff" * 2000
    peer.send_frame(Opcode.BINARY, empty_blocks, rsv1=True)
    stage.settle()
    assert connection.messages == []
    assert peer.received_close() == (1009, "message is larger than 4096 bytes")
