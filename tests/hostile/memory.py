"""What a row costs in memory (I6), measured in this process.

Python's own books are read, not the system's: they are exact, and tell nothing of other tests.
PyPy keeps none; there the rows run, and only what can be counted otherwise is asserted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

KIB = 1024


class Memory:
    """Hold the figures of one measurement, in bytes above what there was before."""

    def __init__(self) -> None:
        self.peak: int | None = None
        self.held: int | None = None

    def assert_peak_below(self, size: int) -> None:
        assert self.peak is None or self.peak < size, f"{self.peak} bytes"

    def assert_held_below(self, size: int) -> None:
        assert self.held is None or self.held < size, f"{self.held} bytes"


@contextmanager
def measured() -> Iterator[Memory]:
    """Measure what a block allocates; do not nest."""
    memory = Memory()
    try:
        import tracemalloc
    except ImportError:  # PyPy
        yield memory
        return
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield memory
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    memory.held, memory.peak = held - before, peak - before
