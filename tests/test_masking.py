"""All ways of masking against the loop of the RFC: both of Python, and the accelerator's."""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from typing import Any

import pytest
from frame_table import KEY, xor_loop

from websocket import masking, speedups
from websocket.masking import Bytes, apply_mask, apply_mask_pure, rotate_key

# Where words, vectors and the two ways of Python begin and end.
SIZES = [*range(9), 15, 16, 17, 31, 63, 64, 65, 124, 125, 126, 127, 128, 255, 398, 399, 400, 401]
LARGE = [402, 403, 1000, 1001, 65_535, 70_000]
KEYS = [KEY, bytes(4), b"\xff\xff\xff\xff", b"\x00\x01\x00\x00", b"\x80\x00\x00\x7f"]

Mask = Callable[[Bytes, bytes], bytes]
WAYS: dict[str, Mask] = {"pure": apply_mask_pure}
if speedups.apply_mask is not None:
    WAYS["accelerated"] = speedups.apply_mask
every_way = pytest.mark.parametrize("mask", WAYS.values(), ids=WAYS)


def random_bytes(size: int) -> bytes:
    return bytes(random.Random(size).choices(range(256), k=size))


def test_the_way_in_use_is_the_accelerators_where_it_is_there() -> None:
    assert masking.apply_mask is WAYS.get("accelerated", apply_mask_pure)


@every_way
def test_it_agrees_with_the_loop_of_the_rfc(mask: Mask) -> None:
    for size in (*SIZES, *LARGE):
        data = random_bytes(size)
        for key in KEYS:
            assert mask(data, key) == xor_loop(data, key), (size, key)


@every_way
def test_it_agrees_with_the_loop_for_any_size_and_key(mask: Mask) -> None:
    source = random.Random(6455)
    for _ in range(300):
        data = bytes(source.choices(range(256), k=source.randrange(1_000)))
        key = bytes(source.choices(range(256), k=4))
        assert mask(data, key) == xor_loop(data, key)


@every_way
def test_twice_is_nothing(mask: Mask) -> None:
    for size in (*SIZES, *LARGE):
        data = random_bytes(size)
        assert mask(mask(data, KEY), KEY) == data, size


@every_way
@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))]
)
def test_it_returns_bytes_and_leaves_its_argument_alone(
    mask: Mask, kind: Callable[[bytes], Bytes]
) -> None:
    for size in (*SIZES, *LARGE):
        data = random_bytes(size)
        given = kind(data)
        masked = mask(given, KEY)
        assert type(masked) is bytes
        assert masked == xor_loop(data, KEY), size
        assert given == data, size


@every_way
def test_a_view_may_begin_at_any_address(mask: Mask) -> None:
    for size in (*SIZES, 1000):
        # The memory of an array ends with its last octet, as the address sanitizer knows.
        whole = memoryview(array("B", random_bytes(size + 16)))
        for offset in range(17):
            view = whole[offset : offset + size]
            assert mask(view, KEY) == xor_loop(bytes(view), KEY), (size, offset)


@every_way
@pytest.mark.parametrize("step", [2, 3, -1, -2])
def test_a_view_may_have_gaps_and_run_backwards(mask: Mask, step: int) -> None:
    for size in (*SIZES, 1000):
        view = memoryview(random_bytes(size))[::step]
        assert mask(view, KEY) == xor_loop(bytes(view), KEY), size


@every_way
def test_a_bytearray_can_be_changed_again_afterwards(mask: Mask) -> None:
    data = bytearray(random_bytes(500))
    mask(data, KEY)
    with pytest.raises(ValueError, match="4 octets"):
        mask(data, b"")
    data.clear()  # raises BufferError while a view of it is held


@every_way
@pytest.mark.parametrize("size", [0, 1, 3, 5, 8])
@pytest.mark.parametrize("data", [b"", b"data", bytes(500)], ids=len)
def test_a_key_of_another_size_is_refused(mask: Mask, size: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"^a masking key has 4 octets, not {size}$"):
        mask(data, bytes(size))


@every_way
@pytest.mark.parametrize("data", ["text", None, 5], ids=repr)
def test_what_has_no_octets_is_refused(mask: Mask, data: Any) -> None:
    with pytest.raises(TypeError):
        mask(data, KEY)


@every_way
@pytest.mark.parametrize("arguments", [(), (b"data",), (b"data", KEY, KEY)], ids=len)
def test_it_takes_two_arguments(mask: Callable[..., bytes], arguments: tuple[bytes, ...]) -> None:
    with pytest.raises(TypeError):
        mask(*arguments)


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
