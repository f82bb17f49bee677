"""What an input brought to light."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import NamedTuple

from fuzzing import properties
from fuzzing.mutation import minimise


class TooSlow(Exception):
    """Report an input whose check does not end."""


class Finding(NamedTuple):
    """Hold an input that broke something.

    Attributes:
        target: what was fuzzed.
        data: the input.
        error: the exception, in one line.
        place: where it came from, as ``file:line``; what makes two findings the same.
    """

    target: str
    data: bytes
    error: str
    place: str

    def __str__(self) -> str:
        return f"{self.target}: {self.error}\n    at {self.place}\n    input {self.data!r}"


def judge(name: str, check: Callable[[bytes], None], data: bytes) -> Finding | None:
    """Run a check on an input; return what it brought to light, None when all is well."""
    try:
        check(data)
    except Exception as error:
        return Finding(name, data, f"{type(error).__name__}: {error}", _place_of(error))
    return None


def _place_of(error: Exception) -> str:
    """Return where an exception came from; of a broken promise, which check tells of it."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if frame.filename != properties.__file__]
    return f"{places[-1].filename}:{places[-1].lineno}"


def minimised(finding: Finding, check: Callable[[bytes], None]) -> Finding:
    """Return the same finding with a smaller input, where one is found soon."""

    def is_same(data: bytes) -> bool:
        other = judge(finding.target, check, data)
        return other is not None and other.place == finding.place

    if finding.error.startswith(TooSlow.__name__):
        return finding
    return judge(finding.target, check, minimise(finding.data, is_same)) or finding
