"""The table in README.md tells the truth: which row of the catalogue is tested where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

ROWS = [f"H{number:02}" for number in range(1, 129)]

# A row is named by the name of a test, or by the first word of its parameters.
_NAMED = re.compile(r"/test_hostile_(\w+)\.py::(?:test_h(\d+)_|\S*?[\[-]H(\d+)-)")
_TABLE_LINE = re.compile(r"^\| (H\d+) \| .+? \|(?: ([a-z_, ]+))? \|$", re.MULTILINE)
_EXCEPTION = re.compile(r"^- \*\*(H\d+)\*\*, .+: .+", re.MULTILINE)


def collected(tmp_path: Path) -> dict[str, str]:
    """Return the files of each row, as pytest finds them."""
    settings = ROOT / "pyproject.toml"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    # To rewrite the assertions of tests that are not run takes more than everything else.
    command += ["--assert=plain", "-c", str(settings), "--rootdir", str(ROOT), str(FOLDER)]
    # Not in the checkout: what is tested is what is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    output = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    files: dict[str, set[str]] = {}
    for file, name, parameter in _NAMED.findall(output.stdout):
        files.setdefault(f"H{name or parameter}", set()).add(file)
    return {row: ", ".join(sorted(files[row])) for row in sorted(files)}


def test_the_table_says_where_each_row_is_tested(tmp_path: Path) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    table = dict(_TABLE_LINE.findall(text))
    assert list(table) == ROWS
    assert {row: files for row, files in table.items() if files} == collected(tmp_path)
    # What is not tested, or not all of it, has a reason.
    exceptions = _EXCEPTION.findall(text)
    assert {row for row, files in table.items() if not files} <= set(exceptions) <= set(ROWS)
