"""What the checks share: the ways to cut an input, and the error of a broken promise."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Outcome = TypeVar("Outcome")
Word = TypeVar("Word")

# Longer inputs are cut to single octets in a window of this size only.
_WINDOW = 32
_MAX_CUTS = 5
_MAX_REPR = 200


def seeded(seed: int | str) -> random.Random:
    """Return a source of chance that repeats itself."""
    return random.Random(seed)  # noqa: S311  # what must be repeatable is no secret


class Broken(Exception):
    """Report a promise that the code under test did not keep."""


def require(is_kept: object, promise: str) -> None:
    """Raise ``Broken`` unless a promise is kept; an assertion that ``python -O`` leaves in."""
    if not is_kept:
        raise Broken(promise)


def require_equal(what: str, one: object, other: object) -> None:
    """Raise ``Broken`` unless two things are equal."""
    if one != other:
        raise Broken(f"{what}: {_short(one)} is not {_short(other)}")


def _short(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= _MAX_REPR else f"{text[:_MAX_REPR]}... ({len(text)} characters)"


def same_for_every_split(read: Callable[[Sequence[bytes]], Outcome], data: bytes) -> Outcome:
    """Return what reading gives, however the input is cut."""
    whole, *others = splits(data)
    outcome = read(whole)
    for pieces in others:
        again = read(pieces)
        if again != outcome:
            sizes = [len(piece) for piece in pieces]
            raise Broken(f"cut into {sizes}: {_short(again)}; whole: {_short(outcome)}")
    return outcome


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Yield an input whole, octet by octet (the long ones in part), and cut at a few places.

    The same input is always cut at the same places.
    """
    yield [data]
    size = len(data)
    if size < 2:
        return
    source = seeded(zlib.crc32(data))
    start = max(0, int(source.random() * (size + _WINDOW)) - _WINDOW) if size > _WINDOW else 0
    yield cut(data, range(start, min(size, start + _WINDOW)))
    count = 1 + int(source.random() * _MAX_CUTS)
    yield cut(data, sorted(int(source.random() * size) for _ in range(count)))


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the pieces of ``data`` between some places in rising order; some may be empty."""
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)])]


def mostly_first(source: random.Random, words: Sequence[Word]) -> Word:
    """Choose one of several, three times out of four the first, which is the one that is right."""
    return words[0] if source.random() < 0.75 else source.choice(words)
