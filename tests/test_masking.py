"""Both ways of masking against the loop of the RFC."""

from __future__ import annotations

import random

import pytest
from frame_table import KEY, xor_loop

from websocket.masking import apply_mask, rotate_key

SIZES = [*range(9), 124, 125, 126, 127, 398, 399, 400, 401, 402, 403, 1000, 1001, 70_000]
KEYS = [KEY, bytes(4), b"\xff\xff\xff\xff", b"\x00\x01\x00\x00", b"\x80\x00\x00\x7f"]


def random_bytes(size: int) -> bytes:
    return bytes(random.Random(size).choices(range(256), k=size))


@pytest.mark.parametrize("size", SIZES)
def test_it_agrees_with_the_loop_of_the_rfc(size: int) -> None:
    data = random_bytes(size)
    for key in KEYS:
        assert apply_mask(data, key) == xor_loop(data, key)


@pytest.mark.parametrize("size", SIZES)
def test_twice_is_nothing(size: int) -> None:
    data = random_bytes(size)
    assert apply_mask(apply_mask(data, KEY), KEY) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_returns_bytes_and_leaves_its_argument_alone(size: int, kind: type) -> None:
    data = random_bytes(size)
    given = kind(data)
    masked = apply_mask(given, KEY)
    assert type(masked) is bytes
    assert masked == xor_loop(data, KEY)
    assert given == data


@pytest.mark.parametrize("size", [7, 450, 1000])
def test_pieces_with_the_key_rotated_make_the_whole(size: int) -> None:
    data = random_bytes(size)
    whole = xor_loop(data, KEY)
    for offset in range(size + 1):
        first = apply_mask(data[:offset], KEY)
        assert first + apply_mask(data[offset:], rotate_key(KEY, offset)) == whole


def test_rotating_piece_by_piece_is_rotating_by_the_sum() -> None:
    for first in range(9):
        for second in range(9):
            rotated = rotate_key(rotate_key(KEY, first), second)
            assert rotated == rotate_key(KEY, first + second)


def test_a_key_returns_to_itself_after_four_octets() -> None:
    turned = [rotate_key(b"abcd", offset) for offset in range(5)]
    assert turned == [b"abcd", b"bcda", b"cdab", b"dabc", b"abcd"]
