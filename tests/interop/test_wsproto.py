"""Our frame reader beside that of the ``wsproto`` library, on random streams of frames.

What both must agree on, and where they are known not to, stands in ``tools/fuzzing/oracle.py``.
"""

from __future__ import annotations

import pytest
from frame_table import RFC_EXAMPLES, ROWS, Example, Row, all_on_wire
from fuzzing import oracle
from fuzzing.oracle import Reading, check_beside_wsproto
from fuzzing.properties import Broken
from fuzzing.random_engine import Unit, explore
from offence_table import OFFENCES

both_roles = pytest.mark.parametrize("is_masked", [True, False], ids=["client", "server"])


@pytest.mark.parametrize("target", ["wsproto-of-client", "wsproto-of-server"])
def test_random_streams_are_read_alike(target: str) -> None:
    result = explore(Unit(target, "interop", 4_000))
    assert result.finding is None, str(result.finding)
