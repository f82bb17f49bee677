"""The decisions of setup.py: for whom the accelerator is built, and what happens when it fails."""

from __future__ import annotations

import platform
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("setuptools", minversion="77")

ROOT = Path(__file__).resolve().parent.parent
SETUP = runpy.run_path(str(ROOT / "setup.py"))


@pytest.fixture
def cpython(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be CPython, and not told to leave the accelerator out."""
    monkeypatch.setattr(platform, "python_implementation", lambda: "CPython")
    monkeypatch.delenv("REACTOR_WEBSOCKET_PURE", raising=False)


def settings() -> dict[str, Any]:
    made: dict[str, Any] = SETUP["build_settings"]()
    return made


@pytest.mark.usefixtures("cpython")
@pytest.mark.parametrize(
    ("version", "is_free_threaded", "is_stable"),
    [
        ((3, 9), 0, False),
        ((3, 10), None, False),
        ((3, 11), None, True),
        ((3, 13), 0, True),
        ((3, 13), 1, False),
    ],
)
def test_one_binary_is_for_all_pythons_that_have_the_stable_abi(
    monkeypatch: pytest.MonkeyPatch,
    version: tuple[int, int],
    is_free_threaded: int | None,
    is_stable: bool,
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: is_free_threaded)
    made = settings()
    names = [extension.name for extension in made["ext_modules"]]
    assert names == ["websocket._speedups", "reactor._speedups"]
    for extension in made["ext_modules"]:
        assert extension.optional
        assert extension.py_limited_api == is_stable
        assert extension.define_macros == ([("Py_LIMITED_API", "0x030B0000")] if is_stable else [])
    tag = {"bdist_wheel": {"py_limited_api": "cp311"}} if is_stable else {}
    assert made["options"] == tag


@pytest.mark.usefixtures("cpython")
def test_the_accelerator_is_left_out_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REACTOR_WEBSOCKET_PURE", "1")
    assert settings() == {}


@pytest.mark.usefixtures("cpython")
def test_the_accelerator_is_left_out_on_pypy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    assert settings() == {}


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is not named by CC")
@pytest.mark.skipif(
    platform.python_implementation() != "CPython", reason="nothing is compiled for this Python"
)
def test_without_a_compiler_the_build_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for package in ("reactor", "websocket"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.delenv("REACTOR_WEBSOCKET_PURE", raising=False)
    done = subprocess.run(
        [sys.executable, "setup.py", "build"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no C accelerator was compiled, pure Python will do all" in done.stdout + done.stderr
    assert list(tmp_path.glob("build/*/websocket/speedups.py"))
    assert not list(tmp_path.glob("build/**/_speedups.*so"))
