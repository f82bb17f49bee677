"""Find the Pythons of this machine that the project supports.

Looked at are the names ``python3.9`` to ``python3.15`` and PyPy's on PATH, and the versions of
pyenv. A name proves nothing (pyenv's shims stand on PATH also for versions that are not active),
so each candidate is asked: it runs a line that tells what it is. What fails to answer, is older
than 3.9, or is neither CPython nor PyPy, is passed over.

Apart from these stands Python 2.7, which the Autobahn test suite runs on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

OLDEST = (3, 9)
NAMES_ON_PATH = (
    *(f"python3.{minor}" for minor in range(9, 16)),
    *(f"pypy3.{minor}" for minor in range(9, 16)),
    "python3",
    "pypy3",
)

# Free-threaded builds answer with a name of their own: tox must not take one for the usual build.
PROBE = """
import sys, sysconfig
name = sys.implementation.name + ("-t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
print(name, *sys.version_info[:3], sys.executable)
"""
# What that suite imports that some builds of Python lack, and what its installation takes.
PROBE_27 = "import pip, setuptools, ssl, sys, zlib; sys.exit(sys.version_info[:2] != (2, 7))"
TITLES = {"cpython": "CPython", "pypy": "PyPy"}
PREFIXES = {"cpython": "py", "pypy": "pypy"}


class Interpreter(NamedTuple):
    """One Python, as it told itself."""

    implementation: str
    version: tuple[int, int, int]
    executable: str

    @property
    def environment(self) -> str:
        """Return tox's name for it: py39, pypy310."""
        return PREFIXES[self.implementation] + "".join(map(str, self.version[:2]))

    def __str__(self) -> str:
        return f"{TITLES[self.implementation]} {'.'.join(map(str, self.version))}"


def find_interpreters() -> dict[str, Interpreter]:
    """Return the supported Pythons of this machine by environment, CPython first, oldest first."""
    candidates = dict.fromkeys([sys.executable, *on_path(), *in_pyenv(os.environ, Path.home())])
    with ThreadPoolExecutor() as executor:
        answers = executor.map(ask, candidates)
        return choose(parse_answer(answer) for answer in answers)


def on_path() -> Iterator[str]:
    """Yield the programs on PATH that bear the name of a Python."""
    for name in NAMES_ON_PATH:
        program = shutil.which(name)
        if program is not None:
            yield program


def in_pyenv(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    """Yield the programs of pyenv's versions.

    Args:
        environment: where PYENV_ROOT may stand.
        home: where pyenv lives without it.
    """
    root = Path(environment.get("PYENV_ROOT") or home / ".pyenv")
    for program in sorted(root.glob("versions/*/bin/python")):
        yield str(program)


def ask(program: str) -> str:
    """Return what a program says to the probe; nothing when it fails."""
    try:
        answer = subprocess.run(
            [program, "-c", PROBE],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout


def parse_answer(answer: str) -> Interpreter | None:
    """Return the interpreter behind an answer to the probe, None for one that is no use."""
    words = answer.strip().split(" ", 4)
    if len(words) != 5 or words[0] not in TITLES:
        return None
    version = (int(words[1]), int(words[2]), int(words[3]))
    return Interpreter(words[0], version, words[4]) if version >= OLDEST else None


def choose(found: Iterable[Interpreter | None]) -> dict[str, Interpreter]:
    """Return the newest patch release of each version, by its environment."""
    ordered = sorted(interpreter for interpreter in found if interpreter is not None)
    return {interpreter.environment: interpreter for interpreter in ordered}


def find_python27(environment: Mapping[str, str], home: Path) -> str | None:
    """Return the first Python 2.7 that can run the Autobahn test suite, None where none can.

    Args:
        environment: where AUTOBAHN_PYTHON, PATH and PYENV_ROOT may stand.
        home: where pyenv lives without PYENV_ROOT.
    """
    return next(filter(can_run_autobahn, candidates27(environment, home)), None)


def candidates27(environment: Mapping[str, str], home: Path) -> Iterator[str]:
    """Yield the programs that may be a Python 2.7; one that the user names is the only one."""
    named = environment.get("AUTOBAHN_PYTHON")
    if named:
        yield named
        return
    program = shutil.which("python2.7", path=environment.get("PATH"))
    if program is not None:
        yield program
    for program in in_pyenv(environment, home):
        if Path(program).parent.parent.name.startswith("2.7"):
            yield program


def can_run_autobahn(program: str) -> bool:
    """Tell whether a program is a Python 2.7 that has all that the suite takes."""
    command = [program, "-E", "-s", "-c", PROBE_27]
    try:
        subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
