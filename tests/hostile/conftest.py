from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Stage

from hostile.arena import Arena


@pytest.fixture
def hostile(stage: Stage) -> Iterator[Callable[..., Arena]]:
    """Return what makes an ``Arena``; its invariants are checked once more at the end."""
    arenas: list[Arena] = []

    def besiege(*args: Any, **options: Any) -> Arena:
        assert not arenas, "one arena a test: its baseline is the whole reactor"
        arenas.append(Arena(stage, *args, **options))
        return arenas[0]

    yield besiege
    for arena in arenas:
        arena.close()
