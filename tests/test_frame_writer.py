"""Frames to bytes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest
from frame_table import (
    BINARY,
    KEY,
    RFC_EXAMPLES,
    ROWS,
    TEXT,
    Example,
    Row,
    all_on_wire,
    encode_by_hand,
    octets,
    on_wire,
    xor_loop,
)

from websocket.frame import Frame
from websocket.frame_writer import (
    FrameWriter,
    Payload,
    encode_message,
    frame_message,
    frame_message_pure,
)

CLIENT = FrameWriter(masks=True)
SERVER = FrameWriter(masks=False)


@pytest.fixture
def fixed_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the operating system be not so random."""
    monkeypatch.setattr(os, "urandom", lambda size: KEY[:size])


@pytest.fixture
def counted_keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list to which every key that is asked for is added."""
    keys: list[bytes] = []
    number = itertools.count(1)

    def urandom(size: int) -> bytes:
        keys.append(next(number).to_bytes(size, "big"))
        return keys[-1]

    monkeypatch.setattr(os, "urandom", urandom)
    return keys


def frames_of(row: Row) -> list[tuple[int, bytes]]:
    return [(bytes.fromhex(header)[0], payload) for header, payload in row.frames]


# --- the tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_server_writes_the_frames_of_the_table(row: Row) -> None:
    written = [buffer for frame in frames_of(row) for buffer in SERVER.encode(*frame)]
    assert b"".join(written) == all_on_wire(row.frames, is_masked=False)


@pytest.mark.usefixtures("fixed_key")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_client_writes_the_frames_of_the_table(row: Row) -> None:
    written = [buffer for frame in frames_of(row) for buffer in CLIENT.encode(*frame)]
    assert b"".join(written) == all_on_wire(row.frames, is_masked=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_both_write_the_frames_of_the_table_as_objects(row: Row) -> None:
    for header, payload in row.frames:
        frame = Frame.from_head(bytes.fromhex(header)[0], payload, KEY)
        assert CLIENT.encode_frame(frame) == on_wire(header, payload, is_masked=True)
        assert SERVER.encode_frame(frame) == on_wire(header, payload, is_masked=False)


@pytest.mark.usefixtures("fixed_key")
@pytest.mark.parametrize("example", RFC_EXAMPLES, ids=lambda example: example.name)
def test_the_examples_of_the_rfc_are_written_byte_by_byte(example: Example) -> None:
    """RFC 6455, 5.7; its fragmented one is made of two frames."""
    writer = CLIENT if example.is_masked else SERVER
    [(opcode, message)] = example.items
    payload = message.encode() if isinstance(message, str) else message
    frames = [(0x80 | opcode, payload)]
    if "fragmented" in example.name:
        frames = [(0x01, b"Hel"), (0x80, b"lo")]
    assert b"".join(b"".join(writer.encode(*frame)) for frame in frames) == example.wire


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 16383, 16384, 65535, 65536])
def test_every_head_is_written_as_it_is_told(length: int) -> None:
    payload = octets(length)
    for head in range(256):
        assert b"".join(SERVER.encode(head, payload)) == encode_by_hand(head, payload, None)


def test_all_short_lengths() -> None:
    for length in range(300):
        payload = octets(length)
        written = b"".join(SERVER.encode(0x82, payload))
        assert written == encode_by_hand(0x82, payload, None)


# --- masking ------------------------------------------------------------------------------------


def test_every_frame_is_masked_with_a_fresh_key_of_the_operating_system(
    counted_keys: list[bytes],
) -> None:
    """H126."""
    for length in (0, 5, 125, 126, 20_000, 70_000):
        payload = octets(length)
        for head in (0x81, 0x02, 0x80, 0x88, 0x89, 0x8A):
            written = b"".join(CLIENT.encode(head, payload))
            assert written == encode_by_hand(head, payload, counted_keys[-1])
    assert len(counted_keys) == len(set(counted_keys)) == 36


def test_keys_do_not_repeat() -> None:
    """H126: ten thousand of the real ones. A few pairs may meet by chance, in 2^32."""
    keys = {b"".join(CLIENT.encode(0x82, b""))[2:] for _ in range(10_000)}
    assert len(keys) > 9_990


def test_a_frame_without_a_key_gets_a_fresh_one(counted_keys: list[bytes]) -> None:
    frame = Frame(TEXT, b"hello")
    first, second = CLIENT.encode_frame(frame), CLIENT.encode_frame(frame)
    assert counted_keys == [first[2:6], second[2:6]]
    assert first[6:] == xor_loop(b"hello", first[2:6])


def test_a_frame_with_a_key_keeps_it(counted_keys: list[bytes]) -> None:
    frame = Frame(BINARY, octets(300), mask=KEY)
    assert CLIENT.encode_frame(frame) == encode_by_hand(0x82, octets(300), KEY)
    assert counted_keys == []


def test_a_server_asks_for_no_key(counted_keys: list[bytes]) -> None:
    SERVER.encode(0x81, b"hello")
    SERVER.encode_frame(Frame(TEXT, b"hello", mask=KEY))
    assert counted_keys == []


# --- buffers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 125, 126, 16_383])
def test_a_short_frame_is_one_buffer(length: int) -> None:
    assert len(SERVER.encode(0x82, octets(length))) == 1
    assert len(CLIENT.encode(0x82, octets(length))) == 1


@pytest.mark.parametrize("length", [16_384, 65_535, 65_536, 200_000])
def test_a_long_payload_is_not_copied_to_join_it_to_its_header(length: int) -> None:
    payload = octets(length)
    header, kept = SERVER.encode(0x82, payload)
    assert kept is payload
    assert len(header) in (4, 10)
    header, masked = CLIENT.encode(0x82, payload)
    assert len(header) in (8, 14)
    assert len(masked) == length


@pytest.mark.usefixtures("fixed_key")
def test_what_is_written_is_bytes_and_cannot_change() -> None:
    for writer in (CLIENT, SERVER):
        for length in (5, 500, 50_000):
            assert {type(buffer) for buffer in writer.encode(0x82, octets(length))} == {bytes}
            assert type(writer.encode_frame(Frame(BINARY, octets(length)))) is bytes


# --- messages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "Hello", "\u00e9\u20ac\U00010348", "\x00"])
def test_text_becomes_a_text_frame(text: str) -> None:
    assert encode_message(text) == (0x81, text.encode())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_become_a_binary_frame(kind: type) -> None:
    for data in (b"", b"\xff\x00", octets(70_000)):
        head, payload = encode_message(kind(data))
        assert (head, type(payload), payload) == (0x82, bytes, data)


def test_bytes_are_not_copied() -> None:
    data = octets(1000)
    assert encode_message(data)[1] is data


@pytest.mark.parametrize("view", [bytearray, lambda data: memoryview(bytearray(data))])
def test_what_may_change_is_copied(view: Any) -> None:
    """H108."""
    data = view(b"before")
    _, payload = encode_message(data)
    data[:] = b"after!"
    assert payload == b"before"


def test_a_view_that_skips_octets_is_flattened() -> None:
    assert encode_message(memoryview(b"a-b-c-")[::2]) == (0x82, b"abc")


@pytest.mark.parametrize("text", ["\ud800", "ok\udfff", "\ude00\ud83d"])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    """H108."""
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode_message(text)


@pytest.mark.parametrize(
    ("message", "name"), [(None, "NoneType"), (7, "int"), (["a"], "list"), ({"a": 1}, "dict")]
)
def test_anything_else_is_refused(message: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"a message is str or bytes-like, not {name}"):
        encode_message(message)


# --- one frame for a message --------------------------------------------------------------------

FRAMERS = [frame_message_pure, frame_message]
both_framers = pytest.mark.parametrize("frame", FRAMERS, ids=["pure", "in use"])


@both_framers
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 16383, 16384, 65535, 65536, 70000])
def test_a_message_becomes_the_frame_that_the_writer_makes_of_it(
    frame: Callable[[Payload], tuple[bytes, ...]], size: int
) -> None:
    writer = FrameWriter(masks=False)
    for message in ("x" * size, "\xe4" * (size // 2), b"\xff" * size):
        assert frame(message) == writer.encode(*encode_message(message))
    copied = (bytearray(size), memoryview(bytes(size * 2))[::2])
    for view in copied:
        assert b"".join(frame(view)) == b"".join(writer.encode(0x82, bytes(size)))


@both_framers
def test_a_large_payload_is_not_copied_to_be_framed(
    frame: Callable[[Payload], tuple[bytes, ...]],
) -> None:
    payload = bytes(70_000)
    assert frame(payload)[1] is payload


@both_framers
@pytest.mark.parametrize(
    ("message", "error"),
    [(7, TypeError), (None, TypeError), ([1], TypeError), ("\ud800", ValueError)],
)
def test_what_is_no_message_is_refused_alike(
    frame: Callable[[Any], tuple[bytes, ...]], message: Any, error: type[Exception]
) -> None:
    with pytest.raises(error) as refusal:
        frame(message)
    with pytest.raises(error) as twin:
        encode_message(message)
    assert str(refusal.value) == str(twin.value)
