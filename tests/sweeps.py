"""How far the sweeps go: a sample as part of the suite, all of them with ``TORTURE=full``."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("TORTURE") == "full"


def rounds(usual: int, full: int) -> int:
    """Return how many cases a test makes by chance; the first are always the same."""
    return full if IS_FULL else usual
