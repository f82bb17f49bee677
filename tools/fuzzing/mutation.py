"""To change an input by chance, and to make one smaller."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MAX_SIZE = 1_024

# What grammars hang upon, and both sides of the borders between numbers.
_TELLING = bytes.fromhex("00 01 09 0a 0d 20 22 25 2c 2e 2f 3a 3b 3d 5c 7d 7e 7f 80 81 82 88 fe ff")
_MAX_CHANGES = 6
_MAX_RANGE = 16

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutate(source: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Return an input with a few random changes, at most ``MAX_SIZE`` long.

    Args:
        source: the randomness.
        data: the input.
        words: what may be put in: the target's dictionary, and other inputs.
    """
    changed = bytearray(data)
    # Few changes more often than many: each may break what the next one needs.
    for _ in range(1 + int(source.random() ** 2 * _MAX_CHANGES)):
        _CHANGES[int(source.random() * len(_CHANGES))](source, changed, words)
    return bytes(changed[:MAX_SIZE])


def _place(source: random.Random, data: bytearray) -> int:
    return int(source.random() * (len(data) + 1))


def _range(source: random.Random, data: bytearray) -> slice:
    start = _place(source, data)
    return slice(start, start + 1 + int(source.random() ** 2 * _MAX_RANGE))


def _flip_bit(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    if at < len(data):
        data[at] ^= 1 << int(source.random() * 8)


def _set_telling_octet(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    data[at : at + 1] = _TELLING[(choice := int(source.random() * len(_TELLING))) : choice + 1]


def _set_any_octet(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    data[at : at + 1] = bytes((int(source.random() * 256),))


def _change_number(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    if at < len(data):
        data[at] = (data[at] + (1 if source.random() < 0.5 else -1)) & 0xFF


def _insert_octet(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    data.insert(_place(source, data), _TELLING[int(source.random() * len(_TELLING))])


def _insert_word(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    data[at:at] = source.choice(words)


def _overwrite_with_word(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = _place(source, data)
    word = source.choice(words)
    data[at : at + len(word)] = word


def _splice(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    word = source.choice(words)
    data[_place(source, data) :] = word[int(source.random() * len(word)) :]


def _delete(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    del data[_range(source, data)]


def _repeat(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    part = data[_range(source, data)]
    at = _place(source, data)
    data[at:at] = part * (1 + int(source.random() ** 4 * 40))


def _move(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    chosen = _range(source, data)
    part = data[chosen]
    del data[chosen]
    at = _place(source, data)
    data[at:at] = part


def _cut_off(source: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    del data[_place(source, data) :]


_CHANGES: Sequence[Change] = (
    _flip_bit,
    _set_telling_octet,
    _set_any_octet,
    _change_number,
    _insert_octet,
    _insert_word,
    _overwrite_with_word,
    _splice,
    _delete,
    _repeat,
    _move,
    _cut_off,
)


def minimise(data: bytes, is_bad: Callable[[bytes], bool], attempts: int = 2_000) -> bytes:
    """Return a smaller input that is still bad.

    Ranges are taken out as long as that helps, first large ones, then small ones.

    Args:
        data: a bad input.
        is_bad: tells whether an input is.
        attempts: how often to ask at the most.
    """
    size = max(1, len(data) // 2)
    while attempts > 0:
        before = len(data)
        at = 0
        while at < len(data) and attempts > 0:
            smaller = data[:at] + data[at + size :]
            attempts -= 1
            if is_bad(smaller):
                data = smaller
            else:
                at += size
        if size == 1 and len(data) == before:
            break
        size = max(1, size // 2)
    return data
