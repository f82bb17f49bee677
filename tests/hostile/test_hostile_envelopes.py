"""H117, H118: what is no envelope, or hides something in one, against a whole server.

The envelope has neither ids nor attachments nor flags, and its one JSON text is an error's; so
what the catalogue says of those is here said of what there is: lengths, opcodes, and that text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from reactions import encode
from support import Recorder

from hostile.arena import OFFENDER, Arena, Offender, splits_of
from hostile.memory import KIB, measured
from websocket import Cause, Frame, Limits, Message, MessageConnection, MessageOpcode, Opcode
from websocket.errors import EnvelopeError
from websocket.frame import build_close, parse_close
from websocket.message import MAX_ERROR_SIZE, ErrorCode, ErrorDetails

Besiege = Callable[..., Arena]

MIB = 1024 * KIB
GOOD = Message(MessageOpcode.INPUT, b"payload", 12345)


class Clerk(Recorder, MessageConnection):
    """Write down envelopes, and what errors say; answer nothing."""

    __slots__ = ()

    on_message = MessageConnection.on_message

    def on_envelope(self, message: Message) -> None:
        found: Any = message.payload
        if message.opcode is MessageOpcode.ERROR:
            try:
                found = message.error_details()
            except EnvelopeError as error:
                found = error.code
        self.events.append(("envelope", message.opcode, found))


def besieged(hostile: Besiege, **options: Any) -> tuple[Arena, Offender]:
    """Return a server of envelopes, and an offender who has asked for them."""
    arena = hostile(Clerk, **options)
    return arena, offender_of(arena)


def offender_of(arena: Arena) -> Offender:
    peer = arena.stage.open_client(arena.server, OFFENDER, Sec_WebSocket_Protocol="webos")
    connection = arena.server.connections[-1]
    assert isinstance(connection, Clerk)
    return Offender(arena.stage, peer, connection)


def answers_to(offender: Offender) -> list[Message]:
    """Return the envelopes that have arrived, and nothing else has."""
    frames = offender.peer.receive()
    assert all(opcode == Opcode.BINARY for opcode, _ in frames)
    return [Message.decode(data) for _, data in frames]


def expect_closed(arena: Arena, offender: Offender, cause: Cause, code: int) -> None:
    """Check that the one thing sent was our close frame, and lead it to its end."""
    ((opcode, payload),) = offender.peer.receive()
    assert (opcode, parse_close(payload)[0]) == (Opcode.CLOSE, code)
    offender.send([encode(True, b"late", Frame(Opcode.CLOSE, build_close(code)))])
    offender.leave()
    arena.expect_over(offender, cause, code)


def envelope(
    magic: bytes = b"WEBS",
    version: int = 1,
    opcode: int = 2,
    timestamp: int = 12345,
    declared: int = 7,
    payload: bytes = b"payload",
) -> bytes:
    return magic + struct.pack(">BBqI", version, opcode, timestamp, declared) + payload


# --- H117: no envelopes -----------------------------------------------------------------------

NO_ENVELOPES = {
    "nothing": (b"", ErrorCode.BUFFER_TOO_SMALL),
    "one-byte": (b"W", ErrorCode.BUFFER_TOO_SMALL),
    "a-header-that-is-short": (GOOD.encode()[:17], ErrorCode.BUFFER_TOO_SMALL),
    "another-magic": (envelope(magic=b"WEBX"), ErrorCode.INVALID_MAGIC),
    "the-magic-reversed": (envelope(magic=b"SBEW"), ErrorCode.INVALID_MAGIC),
    "text": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ErrorCode.INVALID_MAGIC),
    "version-0": (envelope(version=0), ErrorCode.INVALID_VERSION),
    "version-255": (envelope(version=255), ErrorCode.INVALID_VERSION),
    "opcode-0": (envelope(opcode=0), ErrorCode.INVALID_OPCODE),
    "opcode-12": (envelope(opcode=12), ErrorCode.INVALID_OPCODE),
    "opcode-255": (envelope(opcode=255), ErrorCode.INVALID_OPCODE),
    "a-length-too-small": (envelope(declared=6), ErrorCode.PAYLOAD_TOO_LARGE),
    "a-length-too-large": (envelope(declared=8), ErrorCode.BUFFER_TOO_SMALL),
    "a-length-of-16-MiB": (envelope(declared=2**24), ErrorCode.BUFFER_TOO_SMALL),
    "a-length-above-16-MiB": (envelope(declared=2**24 + 1), ErrorCode.PAYLOAD_TOO_LARGE),
    "a-length-of-4-GiB": (envelope(declared=2**32 - 1), ErrorCode.PAYLOAD_TOO_LARGE),
    "a-negative-time": (envelope(timestamp=-1), ErrorCode.INVALID_TIMESTAMP),
    "two-envelopes": (GOOD.encode() * 2, ErrorCode.PAYLOAD_TOO_LARGE),
    "all-wrong": (envelope(b"\xff\xff\xff\xff", 255, 255, -1, 2**32 - 1), ErrorCode.INVALID_MAGIC),
}


@pytest.mark.parametrize("case", NO_ENVELOPES)
def test_h117_what_is_no_envelope(hostile: Besiege, case: str) -> None:
    """It is answered with an error of its code, once, and costs nobody else a message."""
    data, code = NO_ENVELOPES[case]
    arena, offender = besieged(hostile)
    expected: list[tuple[Any, ...]] = [("open",)]
    for pieces in splits_of(encode(True, data, GOOD.encode())):
        offender.send(pieces)
        expected.append(("envelope", GOOD.opcode, GOOD.payload))
        (answer,) = answers_to(offender)
        details = answer.error_details()
        assert (details.code, details.details) == (code, None)
        assert details.message.isprintable()
        assert len(details.message) < 60
    assert offender.connection.events == expected
    arena.expect_open(offender, [])


def test_h117_a_length_that_is_only_declared_takes_no_memory(hostile: Besiege) -> None:
    arena, offender = besieged(hostile)
    wires = [
        encode(True, envelope(opcode=opcode, declared=declared))
        for opcode in (2, 9, 11)
        for declared in (2**24, 2**32 - 1)
    ]
    offender.send(wires[:1])
    answers_to(offender)
    with measured() as memory:
        for wire in wires:
            offender.send([wire])
            answers_to(offender)
    memory.assert_peak_below(64 * KIB)
    memory.assert_held_below(16 * KIB)
    arena.expect_open(offender, [])


@pytest.mark.parametrize("data", [GOOD.encode(), b""], ids=["an-envelope", "nothing"])
def test_h117_text(hostile: Besiege, data: bytes) -> None:
    """An envelope is binary: what is text is no mistake in one, but another protocol."""
    arena = hostile(Clerk)
    for pieces in splits_of(encode(True, data.decode("ascii"), b"late")):
        offender = offender_of(arena)
        offender.send(pieces)
        expect_closed(arena, offender, Cause.PROTOCOL_ERROR, 1003)


@pytest.mark.parametrize("opcode", [MessageOpcode.PONG, MessageOpcode.ERROR])
def test_h117_answers_to_what_was_never_asked(hostile: Besiege, opcode: MessageOpcode) -> None:
    """There are no ids to answer to, and an answer is never answered; so it may come twice."""
    arena, offender = besieged(hostile)
    wire = encode(True, Message(opcode, b"{}", 1).encode())
    offender.send([wire, wire])
    assert answers_to(offender) == []
    assert [event[:2] for event in offender.connection.events[1:]] == [("envelope", opcode)] * 2
    arena.expect_open(offender, [])


def test_h117_what_comes_behind_a_disconnect(hostile: Besiege) -> None:
    arena, offender = besieged(hostile)
    goodbye = Message(MessageOpcode.DISCONNECT, b"bye", 1)
    offender.send([encode(True, goodbye.encode(), GOOD.encode(), b"no envelope")])
    assert offender.connection.events == [("open",), ("envelope", goodbye.opcode, b"bye")]
    expect_closed(arena, offender, Cause.CLOSED_BY_US, 1000)


@pytest.mark.parametrize(
    "data",
    [b"", Message(MessageOpcode.PING, bytes(KIB)).encode()],
    ids=["no-envelopes", "pings"],
)
def test_h117_a_flood_whose_answers_are_not_read(hostile: Besiege, data: bytes) -> None:
    """Answers are messages like others: what they pile up to has an end."""
    arena, offender = besieged(hostile)
    transport = offender.connection.transport
    assert transport is not None
    offender.peer.sock.capacity = 0
    wire, most = encode(True, *[data] * 100), 0
    while offender.connection.is_open:
        offender.peer.send_bytes(wire)
        arena.stage.reactor.run_once(0)
        most = max(most, transport.get_write_buffer_size())
    # And the answer that crossed it, and our close frame.
    assert arena.limits.write_soft_mark < most <= arena.limits.write_hard_mark + 2 * KIB
    arena.pass_time(arena.limits.close_timeout + arena.limits.linger_timeout)
    arena.expect_over(offender, Cause.SLOW_CONSUMER, 1008)


# --- H118: deep and long ------------------------------------------------------------------------


def counted(text: str) -> bytes:
    """Return an error's JSON with something for its details."""
    return ('{"code":1,"message":"m","details":' + text + "}").encode()


HOSTILE_JSON: dict[str, tuple[bytes, object]] = {
    # Above 16 KiB nothing is parsed.
    "depth-of-100000": (counted("[" * 100_000 + "]" * 100_000), ErrorCode.PAYLOAD_TOO_LARGE),
    "a-million-details": (counted("[" + "0," * 999_999 + "0]"), ErrorCode.PAYLOAD_TOO_LARGE),
    "a-number-of-a-million-digits": (counted("9" * 1_000_000), ErrorCode.PAYLOAD_TOO_LARGE),
    "one-byte-too-much": (b" " * (MAX_ERROR_SIZE + 1), ErrorCode.PAYLOAD_TOO_LARGE),
    # Below, what Python refuses by itself is a bad error, not an exception.
    "arrays-that-never-end": (b"[" * MAX_ERROR_SIZE, ErrorCode.INVALID_OPCODE),
    "objects-that-never-end": (b'{"a":' * 3000, ErrorCode.INVALID_OPCODE),
    "a-code-of-10000-digits": (
        b'{"code":' + b"9" * 10_000 + b',"message":"m"}',
        ErrorCode.INVALID_OPCODE,
    ),
    "a-code-that-is-infinite": (b'{"code":1e999,"message":"m"}', ErrorCode.INVALID_OPCODE),
    "a-code-that-is-no-number": (b'{"code":NaN,"message":"m"}', ErrorCode.INVALID_OPCODE),
    "text-that-is-not-UTF-8": (b'{"code":1,"message":"\xff"}', ErrorCode.INVALID_OPCODE),
    "JSON-in-UTF-16": ('{"code":1,"message":"m"}'.encode("utf-16"), ErrorCode.INVALID_OPCODE),
    # RFC 8259, 4: with names that are not unique it is unpredictable; here the last one counts.
    "names-that-come-twice": (
        b'{"code":true,"message":1,"code":7,"message":"last","details":{"a":1,"a":2}}',
        ErrorDetails(7, "last", {"a": 2}),
    ),
    "names-of-Python": (
        b'{"code":1,"message":"m","__class__":"os.system","__proto__":{}}',
        ErrorDetails(1, "m", None),
    ),
}


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_h118_hostile_json(hostile: Besiege, case: str) -> None:
    payload, found = HOSTILE_JSON[case]
    arena, offender = besieged(hostile, limits=Limits(max_message_size=4 * MIB))
    message = Message(MessageOpcode.ERROR, payload, 1)
    offender.send([encode(True, message.encode(), GOOD.encode())])
    assert offender.connection.events == [
        ("open",),
        ("envelope", MessageOpcode.ERROR, found),
        ("envelope", GOOD.opcode, GOOD.payload),
    ]
    assert answers_to(offender) == []
    arena.expect_open(offender, [])


@pytest.mark.parametrize("case", [case for case in HOSTILE_JSON if "0" in case])
def test_h118_the_limit_is_looked_at_before_anything_is_parsed(case: str) -> None:
    message = Message(MessageOpcode.ERROR, HOSTILE_JSON[case][0], 1)
    with measured() as memory, pytest.raises(EnvelopeError):
        message.error_details()
    memory.assert_peak_below(64 * KIB)


def test_h118_a_handler_that_did_not_expect_it(
    hostile: Besiege, logged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs the offender its connection, and nobody else anything."""
    monkeypatch.setattr(Clerk, "on_envelope", lambda self, message: message.error_details())
    arena, offender = besieged(hostile)
    offender.send([encode(True, Message(MessageOpcode.ERROR, b"[" * 9000).encode())])
    assert len(logged) == 1
    arena.log.lines.clear()
    expect_closed(arena, offender, Cause.HANDLER_ERROR, 1011)


def test_h118_an_envelope_above_the_limit_of_messages(hostile: Besiege) -> None:
    """The frame says how long it is, and that is enough."""
    arena, offender = besieged(hostile)
    wire = encode(True, envelope(declared=2**24, payload=bytes(2**24)))
    with measured() as memory:
        offender.send([wire[:100]])
    memory.assert_peak_below(64 * KIB)
    arena.expect_fail(offender, 1009, Cause.MESSAGE_TOO_BIG)
