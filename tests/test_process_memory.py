from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest

from websocket import process_memory
from websocket.process_memory import _cgroup_limits, usable_memory

MIB = 1024 * 1024
CGROUP = "sys/fs/cgroup"
NO_LIMIT_V1 = 2**63 - 4096

CASES: dict[str, tuple[str, dict[str, str], list[int]]] = {
    "no groups at all": ("", {}, []),
    "version 2": ("0::/app.slice/web\n", {"app.slice/web/memory.max": "1048576\n"}, [MIB]),
    "version 2, in a group that is limited itself": (
        "0::/a/b\n",
        {"a/b/memory.max": "max\n", "a/memory.max": "2097152\n", "memory.max": "4194304\n"},
        [2 * MIB, 4 * MIB],
    ),
    "version 2, no limit": ("0::/a\n", {"a/memory.max": "max\n"}, []),
    "version 2, in a container": ("0::/\n", {"memory.max": "1048576\n"}, [MIB]),
    "version 2, moved out of its container's view": (
        "0::/../other\n",
        {"memory.max": "1048576\n"},
        [MIB],
    ),
    "version 1": (
        "12:cpu:/x\n9:memory:/docker/7\n0::/\n",
        {"memory/docker/7/memory.limit_in_bytes": "1048576\n"},
        [MIB],
    ),
    "version 1, with other controllers, in a container": (
        "9:cpu,memory:/docker/7\n",
        {"memory/memory.limit_in_bytes": "1048576\n"},
        [MIB],
    ),
    "version 1, no limit": (
        "9:memory:/\n",
        {"memory/memory.limit_in_bytes": f"{NO_LIMIT_V1}\n"},
        [],
    ),
    "rubbish": ("\n:\n0\n0::/a\n", {"a/memory.max": "-5 \u00b2\n", "memory.max": "0"}, []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_groups_of_the_process_and_all_above_them_limit_it(tmp_path: Path, name: str) -> None:
    groups, files, limits = CASES[name]
    for path, text in {"../../../proc/self/cgroup": groups, **files}.items():
        file = tmp_path / CGROUP / path
        (tmp_path / CGROUP).mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert list(_cgroup_limits(tmp_path)) == limits


def fake_resource(soft: int) -> types.ModuleType:
    module = types.ModuleType("resource")
    module.RLIMIT_AS = 9  # type: ignore[attr-defined]  # a module made by hand
    module.RLIM_INFINITY = -1  # type: ignore[attr-defined]
    module.getrlimit = lambda kind: {9: (soft, -1)}[kind]  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("groups", "address_space", "pages", "expected"),
    [
        ([], -1, 1000, 4_096_000),
        ([], 5 * MIB, 1_000_000, 5 * MIB),
        ([3 * MIB, MIB], 5 * MIB, 1_000_000, MIB),
        ([], -1, -1, 1024 * MIB),
        ([], -1, None, 1024 * MIB),
    ],
)
def test_the_least_of_all_limits_holds(
    monkeypatch: pytest.MonkeyPatch,
    groups: list[int],
    address_space: int,
    pages: int | None,
    expected: int,
) -> None:
    def sysconf(name: str) -> int:
        if pages is None:
            raise ValueError("unrecognized configuration name")
        return {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}[name]

    monkeypatch.setattr(process_memory, "_cgroup_limits", lambda root: groups)
    monkeypatch.setitem(sys.modules, "resource", fake_resource(address_space))
    monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert usable_memory.__wrapped__() == expected


def test_where_nothing_can_be_found_out_a_little_is_assumed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows there is neither of the two."""
    monkeypatch.setattr(process_memory, "_cgroup_limits", lambda root: [])
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert usable_memory.__wrapped__() == 1024 * MIB


def test_this_machine_has_some_memory() -> None:
    assert usable_memory() >= 64 * MIB
