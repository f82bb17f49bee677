"""The ways to cut a stream of bytes into pieces; no parser may tell them apart."""

from __future__ import annotations

import random
from collections.abc import Iterator


def every_split(data: bytes, random_splits: int = 12, seed: int = 6455) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, in two at its middle, and cut at random places.

    Args:
        data: what to cut.
        random_splits: how many random ways to try.
        seed: the same seed and length give the same cuts.
    """
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    yield [data[: len(data) // 2], data[len(data) // 2 :]]
    source = random.Random(seed)
    for _ in range(random_splits):
        count = source.randint(0, min(len(data), 10))
        cuts = sorted(source.sample(range(len(data) + 1), count))
        yield [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]
