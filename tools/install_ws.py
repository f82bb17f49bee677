"""Install Node's ws into a folder, for the tests in tests/interop; say so where there is no Node.

    python tools/install_ws.py FOLDER VERSION      -> FOLDER/node_modules/ws

Started by tox. The exit status is 0 also without Node and npm: then there are no tests with ws.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

TIMEOUT = 5 * 60.0


def main(folder: Path, version: str) -> int:
    """Install unless this version is there, and return the exit status."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        print("install_ws: no node or no npm on PATH: ws is NOT tested here")
        return 0
    if installed_version(folder) == version:
        return 0
    command = [
        *(npm, "install", f"ws@{version}", "--prefix", str(folder), "--no-save"),
        *("--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(folder / "npm")),
    ]
    return subprocess.run(command, timeout=TIMEOUT, check=False).returncode


def installed_version(folder: Path) -> str | None:
    """Return which ws is in a folder, None for none."""
    try:
        text = (folder / "node_modules" / "ws" / "package.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    version: str = json.loads(text)["version"]
    return version


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
