"""Tests of tools/install_ws.py, with programs in place of node and npm."""

from __future__ import annotations

import shutil
from pathlib import Path

import install_ws
import pytest

# Does what npm would, as far as it can be seen from here.
NPM = """#!/bin/sh
echo "$@" > {folder}/asked
mkdir -p {folder}/node_modules/ws
echo '{{"version": "8.1.2"}}' > {folder}/node_modules/ws/package.json
exit {status}
"""


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, **scripts: str) -> None:
    """Let programs of these names, and no others, be found."""
    programs = folder / "programs"
    programs.mkdir()
    for name, script in scripts.items():
        (programs / name).write_text(script, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: _in(programs, name))


def _in(programs: Path, name: str) -> str | None:
    return str(programs / name) if (programs / name).exists() else None


@pytest.mark.parametrize("present", ["node", "npm", ""])
def test_without_node_or_npm_it_says_so_and_nothing_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    present: str,
) -> None:
    put_on_path(monkeypatch, tmp_path, **({present: "#!/bin/sh\nexit 1\n"} if present else {}))
    assert install_ws.main(tmp_path, "8.1.2") == 0
    assert "ws is NOT tested here" in capsys.readouterr().out


@pytest.mark.parametrize("status", [0, 1])
def test_npm_installs_the_version_and_its_status_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    put_on_path(monkeypatch, tmp_path, node="", npm=NPM.format(folder=tmp_path, status=status))
    assert install_ws.main(tmp_path, "8.1.2") == status
    assert "install ws@8.1.2 " in (tmp_path / "asked").read_text(encoding="utf-8")
    assert install_ws.installed_version(tmp_path) == "8.1.2"


def test_a_version_that_is_there_is_not_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(monkeypatch, tmp_path, node="", npm=NPM.format(folder=tmp_path, status=0))
    install_ws.main(tmp_path, "8.1.2")
    (tmp_path / "asked").unlink()
    assert install_ws.main(tmp_path, "8.1.2") == 0
    assert not (tmp_path / "asked").exists()
    assert install_ws.main(tmp_path, "8.1.3") == 0
    assert (tmp_path / "asked").exists()
