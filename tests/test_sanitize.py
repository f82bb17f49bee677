"""Tests of tools/sanitize.py without a compiler: what is run, with which packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sanitize
from fuzzing.targets import TARGETS

from websocket import speedups

# What sanitize.py starts, up to the import.
SHOW = sanitize.START.format("websocket").replace("sys.exit", "print(websocket.__file__) #")


@pytest.mark.parametrize("arguments", [[], ["ls"], ["--help"]], ids=" ".join)
def test_it_has_to_be_told_what_to_run(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sanitize.main(arguments) == 2
    assert "say what to run: fuzz or pytest" in capsys.readouterr().err


def test_where_there_are_no_sanitizers_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert sanitize.main(["fuzz"]) == 2
    assert "this takes gcc with libasan" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for Linux only")
@pytest.mark.parametrize(("answer", "is_found"), [("/usr/lib/libasan.so", True), ("x.so", False)])
def test_the_runtime_is_what_gcc_knows_the_path_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_found: bool
) -> None:
    gcc = tmp_path / "gcc"
    gcc.write_text(f"#!/bin/sh\necho {answer}\n", encoding="utf-8")
    gcc.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(gcc))
    assert sanitize.find_runtime() == (answer if is_found else None)


def test_fuzzing_is_of_what_reaches_the_accelerator_unless_told_otherwise() -> None:
    command = sanitize.command_of(["fuzz", "--seconds", "5"])
    expected = ["--targets", *sanitize.TARGETS, "--seconds", "5"]
    assert command[-len(expected) :] == expected
    command = sanitize.command_of(["fuzz", "--targets", "masking"])
    assert command[-2:] == ["--targets", "masking"]
    assert not set(sanitize.TARGETS) - {"masking"} & set(command)


@pytest.mark.skipif(not speedups.IS_ACCELERATED, reason="the accelerator is not in use")
def test_all_targets_that_hold_the_accelerator_against_python_are_fuzzed() -> None:
    twins = {name for name in TARGETS if "twins" in name}
    assert set(sanitize.TARGETS) == {*twins, "masking", "splitting", "writing"}


def test_what_is_run_imports_the_packages_that_were_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sanitize, "SITE", tmp_path / "site")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "left_over.py").touch()
    sanitize.copy_packages()
    assert {path.name for path in (tmp_path / "site").iterdir()} == {"reactor", "websocket"}
    assert not list(tmp_path.rglob("*.so"))
    variables = sanitize.variables({**os.environ, "REACTOR_WEBSOCKET_PURE": "1"}, "/libasan.so")
    assert variables.pop("LD_PRELOAD") == "/libasan.so"
    assert "REACTOR_WEBSOCKET_PURE" not in variables
    # Where the checkout is the current folder, its packages must not come first.
    command = [*sanitize.command_of(["pytest", "--version"])[:2], SHOW]
    done = subprocess.run(
        command,
        cwd=sanitize.ROOT,
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert Path(done.stdout.strip()).parent == tmp_path / "site" / "websocket"
