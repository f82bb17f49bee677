"""Which code is in use, and that the accelerator's does the same as Python's.

Each function of the accelerator is held against its twin where the twin is tested, as in
``test_masking``. Here whole streams are read and written both ways: what does so is imported once
more without the accelerator.
"""

from __future__ import annotations

import os
import platform
import runpy
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fuzzing import twins
from fuzzing.random_engine import Unit, make_inputs
from fuzzing.targets import TARGETS, Target

import websocket
from websocket import speedups
from websocket.frame_reader import FrameReader

IS_SWITCHED_OFF = os.environ.get("REACTOR_WEBSOCKET_PURE") == "1"
IS_REQUIRED = os.environ.get("REACTOR_WEBSOCKET_REQUIRE_SPEEDUPS") == "1"
# Whatever is declared there.
FUNCTIONS = tuple(name for name in speedups.__annotations__ if name.islower())

needs_the_accelerator = pytest.mark.skipif(
    not speedups.IS_ACCELERATED, reason="the accelerator is not in use"
)


# --- which is in use ----------------------------------------------------------------------------


def decide(monkeypatch: pytest.MonkeyPatch, accelerator: object, switch: str) -> dict[str, Any]:
    """Return what ``websocket.speedups`` comes to, with this for the accelerator."""
    monkeypatch.setitem(sys.modules, "websocket._speedups", accelerator)
    monkeypatch.setattr(websocket, "_speedups", accelerator, raising=False)
    monkeypatch.setenv("REACTOR_WEBSOCKET_PURE", switch)
    return runpy.run_path(speedups.__file__)


@pytest.mark.skipif(not IS_REQUIRED, reason="nothing requires the accelerator here")
def test_the_accelerator_is_in_use_where_it_must_be() -> None:
    is_cpython = platform.python_implementation() == "CPython"
    is_expected = is_cpython and not IS_SWITCHED_OFF
    assert is_expected == speedups.IS_ACCELERATED


def test_it_is_said_which_is_in_use() -> None:
    names = {True: "accelerated", False: "pure"}
    assert names[speedups.IS_ACCELERATED] == speedups.IMPLEMENTATION
    assert not (speedups.IS_ACCELERATED and IS_SWITCHED_OFF)


@pytest.mark.parametrize("switch", ["", "0"])
def test_the_accelerator_is_used_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    accelerator = SimpleNamespace(**{name: object() for name in FUNCTIONS})
    decided = decide(monkeypatch, accelerator, switch)
    assert (decided["IS_ACCELERATED"], decided["IMPLEMENTATION"]) == (True, "accelerated")
    assert {name: decided[name] for name in FUNCTIONS} == vars(accelerator)


@pytest.mark.parametrize(
    ("accelerator", "switch"),
    [(SimpleNamespace(), "1"), (None, ""), (None, "1")],
    ids=["switched off", "not there", "both"],
)
def test_python_does_everything_otherwise(
    monkeypatch: pytest.MonkeyPatch, accelerator: object, switch: str
) -> None:
    decided = decide(monkeypatch, accelerator, switch)
    assert (decided["IS_ACCELERATED"], decided["IMPLEMENTATION"]) == (False, "pure")
    assert {decided[name] for name in FUNCTIONS} == {None}


@needs_the_accelerator
def test_every_function_of_the_accelerator_is_handed_out() -> None:
    accelerator = sys.modules["websocket._speedups"]
    offered = {name for name in vars(accelerator) if not name.startswith("_")}
    assert offered == set(FUNCTIONS)
    assert all(getattr(speedups, name) is getattr(accelerator, name) for name in FUNCTIONS)


# --- both ways ----------------------------------------------------------------------------------


TWINS = [target for name, target in TARGETS.items() if "twins" in name]


def test_the_packages_imported_once_more_are_pure_and_leave_the_others_alone() -> None:
    pure = twins.import_pure("websocket.speedups")
    assert pure.IMPLEMENTATION == "pure"
    assert pure is not speedups
    assert sys.modules["websocket.speedups"] is speedups
    assert sys.modules["websocket"] is websocket
    assert (os.environ.get("REACTOR_WEBSOCKET_PURE") == "1") == IS_SWITCHED_OFF
    assert twins.pure_frames.FrameReader is not FrameReader


@needs_the_accelerator
def test_streams_are_read_both_ways_in_both_roles_and_compressed() -> None:
    assert {target.name for target in TWINS} == {
        "twins-of-client",
        "twins-of-server",
        "deflated-twins",
    }


@pytest.mark.parametrize("target", TWINS, ids=lambda target: str(target.name))
def test_both_ways_read_the_same(target: Target) -> None:
    for data in make_inputs(target, Unit(target.name, "both ways", 600)):
        target.check(data)


@needs_the_accelerator
@pytest.mark.parametrize("name", ["masking", *(target.name for target in TWINS)])
def test_no_memory_is_lost(name: str) -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    target = TARGETS[name]
    inputs = list(make_inputs(target, Unit(name, "memory", 20)))

    def run(times: int) -> int:
        for _ in range(times):
            for data in inputs:
                target.check(data)
        traced: int = tracemalloc.get_traced_memory()[0]
        return traced

    tracemalloc.start()
    try:
        before = run(2)
        growth = run(5) - before
    finally:
        tracemalloc.stop()
    # One object lost by each input would be 5 kB.
    assert growth < 3_000
