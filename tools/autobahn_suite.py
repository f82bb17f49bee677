"""The Autobahn test suite as a program: find a Python 2.7, install the suite, start it.

The suite runs on Python 2.7 only. It is installed into a folder of its own,
``.tox/autobahn-suite/``, from the pins in ``autobahn-requirements.txt``; that Python needs pip and
setuptools, and neither virtualenv nor the right to write to its own site-packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from autobahn_report import parse_case_names
from check import ROOT, read
from commands import output_of, run_logged
from interpreters import find_python27

# Not .tox/autobahn, which is the folder of tox's own environment of that name.
WORK = ROOT / ".tox" / "autobahn-suite"
PINS = ROOT / "tools" / "autobahn-requirements.txt"

# The folder takes part like a site-packages, since zope is put together by a .pth file in it.
# Imported in this order: wstest chooses Twisted's reactor, and must be the first to do so.
# The fuzzing server would listen on every address; nobody else is meant to reach it.
START = """
import functools, site, sys
folder = sys.argv.pop(1)
sys.path.insert(0, folder)
site.addsitedir(folder)
from autobahntestsuite import wstest, fuzzing
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
sys.exit(wstest.run())
"""
LIST_CASES = """
import site, sys
sys.path.insert(0, sys.argv[1])
site.addsitedir(sys.argv[1])
from autobahntestsuite.case import Cases
print("\\n".join(case.__name__ for case in Cases))
"""

INSTALL_TIMEOUT = 15 * 60.0
LIST_TIMEOUT = 60.0


class CannotRun(Exception):
    """Report in one line why the suite cannot be run here."""


class Suite:
    """The suite, installed."""

    def __init__(self, python: str, folder: Path) -> None:
        self._python = python
        self._folder = str(folder)

    def list_cases(self) -> list[str]:
        """Return the numbers of all cases, in order.

        Raises:
            CannotRun: the suite does not start.
        """
        command = [self._python, "-s", "-c", LIST_CASES, self._folder]
        try:
            answer = output_of(command, LIST_TIMEOUT)
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotRun(f"the suite does not start; remove {self._folder}: {error}") from None
        return parse_case_names(answer)

    def command(self, mode: str, specification: Path) -> list[str]:
        """Return the command that starts the suite.

        Args:
            mode: fuzzingclient or fuzzingserver.
            specification: the file that says what to run.
        """
        options = ["--mode", mode, "--spec", str(specification), "--webport", "0"]
        return [self._python, "-s", "-u", "-c", START, self._folder, *options]


def prepare() -> Suite:
    """Return the suite, which is installed first unless it is there.

    Raises:
        CannotRun: there is no Python 2.7, or the installation failed.
    """
    python = find_python(os.environ, Path.home())
    folder = WORK / "site"
    stamp = folder / "installed.txt"
    wanted = f"{python}\n{PINS.read_text(encoding='utf-8')}"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        install(python, folder)
        stamp.write_text(wanted, encoding="utf-8")
    return Suite(python, folder)


def find_python(environment: Mapping[str, str], home: Path) -> str:
    """Return the Python 2.7 that is to run the suite; see ``find_python27``.

    Raises:
        CannotRun: there is none.
    """
    python = find_python27(environment, home)
    if python is not None:
        return python
    what = "Python 2.7 with pip, setuptools, ssl and zlib"
    if environment.get("AUTOBAHN_PYTHON"):
        raise CannotRun(f"AUTOBAHN_PYTHON names no {what}")
    raise CannotRun(f"there is no {what}: `pyenv install 2.7.18`, or name one in AUTOBAHN_PYTHON")


def install(python: str, folder: Path) -> None:
    """Install the pinned packages into an empty folder.

    Raises:
        CannotRun: pip failed, or took too long.
    """
    print("installing the suite into", folder.relative_to(ROOT), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    log = WORK / "install.log"
    command = [
        *(python, "-s", "-m", "pip", "install", "--no-deps"),
        *("--target", str(folder), "--requirement", str(PINS)),
    ]
    try:
        run_logged(command, WORK, log, INSTALL_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        print(read(log))
        raise CannotRun(f"cannot install the suite; see {log.relative_to(ROOT)}: {error}") from None
