"""The ways to cut a stream of bytes into pieces; no parser may tell them apart."""

from __future__ import annotations

import random
from collections.abc import Iterator

# Longer data is byte by byte at its beginning and its end, where heads stand.
LONG = 10_000
ENDS = 1_000


def every_split(data: bytes, random_splits: int = 12, seed: int = 6455) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, in two at its middle, and cut at random places.

    Args:
        data: what to cut; between its ends, where it is long, pieces stand for the bytes.
        random_splits: how many random ways to try.
        seed: the same seed and length give the same cuts.
    """
    yield [data]
    yield single_bytes(data)
    yield [data[: len(data) // 2], data[len(data) // 2 :]]
    source = random.Random(seed)
    for _ in range(random_splits):
        count = source.randint(0, min(len(data), 10))
        cuts = sorted(source.sample(range(len(data) + 1), count))
        yield [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]


def single_bytes(data: bytes) -> list[bytes]:
    """Return the bytes one by one, but for the middle of what is long: that in odd pieces."""
    if len(data) <= LONG:
        return [data[index : index + 1] for index in range(len(data))]
    middle = data[ENDS:-ENDS]
    pieces = [middle[start : start + 19] for start in range(0, len(middle), 19)]
    return [*single_bytes(data[:ENDS]), *pieces, *single_bytes(data[-ENDS:])]
