from __future__ import annotations

import copy
import json
import pickle
import random
import struct
from typing import Any, Callable

import pytest

from websocket.errors import EnvelopeError, InvalidState
from websocket.message import (
    HEADER_SIZE,
    MAGIC,
    MAX_ERROR_SIZE,
    MAX_PAYLOAD_SIZE,
    SUBPROTOCOL,
    VERSION,
    ErrorCode,
    Message,
    MessageOpcode,
)

GOLDEN = [
    (
        Message(MessageOpcode.DISPLAY, b"hi", 1),
        "57454253 01 01 0000000000000001 00000002 6869",
    ),
    (
        Message(MessageOpcode.PING, b"", 1_700_000_000_123_456_789),
        "57454253 01 09 17979cfe3d85cd15 00000000",
    ),
    (
        Message(MessageOpcode.ERROR, bytes(range(3)), 2**63 - 1),
        "57454253 01 0b 7fffffffffffffff 00000003 000102",
    ),
]


def envelope(
    magic: bytes = MAGIC,
    version: int = VERSION,
    opcode: int = 1,
    timestamp: int = 7,
    declared: int = 3,
    payload: bytes = b"abc",
) -> bytes:
    return magic + struct.pack(">BBqI", version, opcode, timestamp, declared) + payload


def code_of(data: bytes) -> int:
    with pytest.raises(EnvelopeError) as caught:
        Message.decode(data)
    assert caught.value.message.isascii()
    return caught.value.code


@pytest.mark.parametrize(("message", "golden"), GOLDEN)
def test_the_bytes_are_those_of_the_existing_peers(message: Message, golden: str) -> None:
    assert message.encode() == bytes.fromhex(golden)
    assert Message.decode(bytes.fromhex(golden)) == message


def test_the_names_and_numbers_are_those_of_the_existing_peers() -> None:
    assert SUBPROTOCOL == "webos"
    assert (HEADER_SIZE, MAX_PAYLOAD_SIZE) == (18, 16_777_216)
    assert " ".join(opcode.name.lower() for opcode in MessageOpcode) == (
        "display input filesystem network process auth connect disconnect ping pong error"
    )
    assert list(MessageOpcode) == list(range(1, 12))
    assert list(ErrorCode) == [-1, -2, -3, -4, -5, -6]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("opcode", MessageOpcode)
def test_every_opcode_survives_the_round_trip(
    opcode: MessageOpcode, kind: Callable[[bytes], bytes]
) -> None:
    message = Message(opcode, kind(b"payload"), 12345)
    decoded = Message.decode(kind(message.encode()))
    assert decoded == message
    assert decoded.opcode is opcode
    assert type(decoded.payload) is bytes
    assert decoded.payload == b"payload"
    assert decoded.timestamp == 12345


def test_a_payload_of_the_maximum_size_survives_the_round_trip() -> None:
    message = Message(MessageOpcode.FILESYSTEM, bytes(MAX_PAYLOAD_SIZE))
    assert Message.decode(message.encode()) == message


@pytest.mark.parametrize("length", range(HEADER_SIZE + 3))
def test_every_truncation_is_too_small(length: int) -> None:
    assert code_of(envelope()[:length]) == ErrorCode.BUFFER_TOO_SMALL


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.BUFFER_TOO_SMALL),
        (b"\xff" * 17, ErrorCode.BUFFER_TOO_SMALL),
        (envelope(magic=b"WEBs"), ErrorCode.INVALID_MAGIC),
        (envelope(magic=bytes(4)), ErrorCode.INVALID_MAGIC),
        (envelope(version=0), ErrorCode.INVALID_VERSION),
        (envelope(version=2), ErrorCode.INVALID_VERSION),
        (envelope(version=255), ErrorCode.INVALID_VERSION),
        (envelope(opcode=0), ErrorCode.INVALID_OPCODE),
        (envelope(opcode=12), ErrorCode.INVALID_OPCODE),
        (envelope(opcode=255), ErrorCode.INVALID_OPCODE),
        (envelope(declared=MAX_PAYLOAD_SIZE + 1), ErrorCode.PAYLOAD_TOO_LARGE),
        (envelope(declared=2**32 - 1), ErrorCode.PAYLOAD_TOO_LARGE),
        (envelope(declared=4), ErrorCode.BUFFER_TOO_SMALL),
        (envelope(declared=MAX_PAYLOAD_SIZE), ErrorCode.BUFFER_TOO_SMALL),
        (envelope(declared=2), ErrorCode.PAYLOAD_TOO_LARGE),
        (envelope(declared=0), ErrorCode.PAYLOAD_TOO_LARGE),
        (envelope() * 2, ErrorCode.PAYLOAD_TOO_LARGE),
        (envelope(timestamp=-1), ErrorCode.INVALID_TIMESTAMP),
        (envelope(timestamp=-(2**63)), ErrorCode.INVALID_TIMESTAMP),
    ],
)
def test_what_is_no_envelope_is_refused_with_its_code(data: bytes, code: ErrorCode) -> None:
    assert code_of(data) == code


def test_of_several_faults_the_first_code_is_told() -> None:
    faults: list[tuple[ErrorCode, dict[str, Any]]] = [
        (ErrorCode.INVALID_MAGIC, {"magic": b"BEWS"}),
        (ErrorCode.INVALID_VERSION, {"version": 9}),
        (ErrorCode.INVALID_OPCODE, {"opcode": 99}),
        (ErrorCode.PAYLOAD_TOO_LARGE, {"declared": 2**32 - 1}),
        (ErrorCode.INVALID_TIMESTAMP, {"timestamp": -1}),
    ]
    for first, (code, _) in enumerate(faults):
        fields: dict[str, Any] = {}
        for _, fault in faults[first:]:
            fields.update(fault)
        assert code_of(envelope(**fields)) == code
    assert code_of(envelope(declared=4, timestamp=-1)) == ErrorCode.BUFFER_TOO_SMALL


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((0,), ErrorCode.INVALID_OPCODE),
        ((12,), ErrorCode.INVALID_OPCODE),
        ((1, bytes(MAX_PAYLOAD_SIZE + 1)), ErrorCode.PAYLOAD_TOO_LARGE),
        ((1, b"", -1), ErrorCode.INVALID_TIMESTAMP),
        ((1, b"", 2**63), ErrorCode.INVALID_TIMESTAMP),
        ((1, b"", 10**5000), ErrorCode.INVALID_TIMESTAMP),
    ],
)
def test_what_cannot_be_decoded_cannot_be_constructed(
    arguments: tuple[Any, ...], code: ErrorCode
) -> None:
    with pytest.raises(EnvelopeError) as caught:
        Message(*arguments)
    assert caught.value.code == code


@pytest.mark.parametrize("arguments", [(1, "text"), (1, 5), (1, None), (1, b"", 1.5)])
def test_a_wrong_type_is_the_callers_mistake(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        Message(*arguments)


def test_mutated_envelopes_decode_to_themselves_or_raise_an_envelope_error() -> None:
    random_source = random.Random(8)
    originals = [message.encode() for message, _ in GOLDEN]
    decoded = 0
    codes: set[int] = set()
    for _ in range(5_000):
        data = bytearray(random_source.choice(originals))
        for _ in range(random_source.randrange(3)):
            data[random_source.randrange(len(data))] = random_source.randrange(256)
        if random_source.random() < 0.2:
            del data[random_source.randrange(len(data)) :]
        if random_source.random() < 0.2:
            data += bytes(random_source.randrange(4))
        try:
            message = Message.decode(data)
        except EnvelopeError as error:
            codes.add(error.code)
        else:
            decoded += 1
            assert message.encode() == data
    assert codes == set(ErrorCode)
    assert decoded > 500


def test_a_message_is_a_value() -> None:
    message = Message(MessageOpcode.INPUT, b"key", 5)
    assert message == Message(2, bytearray(b"key"), 5)
    assert hash(message) == hash(Message(2, b"key", 5))
    assert message != Message(2, b"key", 6)
    fields: object = (2, b"key", 5)
    assert message != fields
    assert copy.copy(message) == copy.deepcopy(message) == message
    assert pickle.loads(pickle.dumps(message)) == message
    with pytest.raises(AttributeError):
        message.timestamp = -1  # type: ignore[misc]  # that it is refused is the point


def test_a_message_does_not_follow_the_buffer_it_was_made_of() -> None:
    data = bytearray(envelope())
    message = Message.decode(memoryview(data))
    data[-1:] = b"X"
    assert message.payload == b"abc"


def test_the_representation_of_a_large_message_is_short() -> None:
    message = Message(MessageOpcode.DISPLAY, bytes(1_000_000), 5)
    assert repr(message) == "<Message DISPLAY timestamp=5 payload=1000000 bytes>"


def test_a_ping_is_answered_with_its_timestamp_and_payload() -> None:
    ping = Message(MessageOpcode.PING, b"echo", 42)
    assert Message.pong_for(ping) == Message(MessageOpcode.PONG, b"echo", 42)


def test_only_a_ping_is_answered() -> None:
    with pytest.raises(InvalidState, match="only a ping is answered by a pong, not PONG"):
        Message.pong_for(Message(MessageOpcode.PONG))


def test_an_error_carries_json_with_three_members() -> None:
    message = Message.error(ErrorCode.INVALID_MAGIC, "not WEBS", {"got": "\u00fc\ud800"}, 9)
    assert message.opcode is MessageOpcode.ERROR
    assert message.timestamp == 9
    assert json.loads(message.payload) == {
        "code": -1,
        "message": "not WEBS",
        "details": {"got": "\u00fc\ud800"},
    }
    assert Message.error(-7, "x").payload == b'{"code":-7,"message":"x","details":null}'


def test_error_details_survive_the_round_trip() -> None:
    sent = Message.error(ErrorCode.PAYLOAD_TOO_LARGE, "too \u00fc", [1, {"a": None}])
    assert Message.decode(sent.encode()).error_details() == (-4, "too \u00fc", [1, {"a": None}])


def test_error_details_may_lack_details_and_have_more_members() -> None:
    payload = b'{"message": "m", "code": -2, "more": 1}'
    details = Message(MessageOpcode.ERROR, payload).error_details()
    assert (details.code, details.message, details.details) == (-2, "m", None)


@pytest.mark.parametrize("details", [object(), float("nan")])
def test_details_that_json_cannot_hold_are_the_callers_mistake(details: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Message.error(-1, "m", details)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"code": "1", "message": "m"}',
        b'{"code": true, "message": "m"}',
        b'{"code": 1.0, "message": "m"}',
        b'{"code": 1}',
        b'{"code": 1, "message": null}',
        b'{"code": 1, "message": "\xff"}',
        b"[" * MAX_ERROR_SIZE,
        b'{"a":' * (MAX_ERROR_SIZE // 5),
        b'{"code": 1, "message": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_payload_that_is_no_error_is_refused(payload: bytes) -> None:
    with pytest.raises(EnvelopeError) as caught:
        Message(MessageOpcode.ERROR, payload).error_details()
    assert caught.value.code == ErrorCode.INVALID_OPCODE


def test_error_details_are_not_parsed_above_their_limit() -> None:
    overhead = len(Message.error(-1, "").payload)
    longest = Message.error(-1, "m" * (MAX_ERROR_SIZE - overhead))
    assert len(longest.payload) == MAX_ERROR_SIZE
    assert longest.error_details().code == -1
    with pytest.raises(EnvelopeError) as caught:
        Message(MessageOpcode.ERROR, longest.payload + b" ").error_details()
    assert caught.value.code == ErrorCode.PAYLOAD_TOO_LARGE


def test_only_an_error_has_error_details() -> None:
    with pytest.raises(InvalidState, match="only an error has error details, not PING"):
        Message(MessageOpcode.PING).error_details()
