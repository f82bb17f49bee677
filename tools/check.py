"""Run every check of the project: the tests under each Python found here, then the rest.

    python3 tools/check.py                      everything
    python3 tools/check.py --env py39           one environment of tox.ini; may be repeated
    python3 tools/check.py --require py39,py310 fail unless these ran

All it needs is a POSIX system with one Python from 3.9 on: tox is installed into a virtual
environment of its own. One source distribution is built, from which each environment installs for
its own Python, and each runs in a tox process of its own, some at a time. Whatever is written is
in ``.tox/`` of the checkout; the whole output of each environment is in ``.tox/check/logs/``, and
of those that fail also on the screen.

Two environments take what not every machine has, and are reported as "not here" without it:
``speedups`` gcc with its sanitizers, ``autobahn`` a Python 2.7.

The last line reads ``N passed, N failed`` and counts the tests of all environments. The exit
status is 0 when everything passed, 1 when something failed, 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import interpreters
import sanitize
from interpreters import Interpreter
from results import NOT_HERE, Result, one_line, parse_counts, table, total

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".tox" / "check"
LOGS = WORK / "logs"
VENV = WORK / "venv"
PYTHON = str(VENV / "bin" / "python")

# What is needed here, and no more: tox.ini says what the checks need.
REQUIREMENTS = ("tox>=4.22,<5", "build>=1,<2")
AFTER_THE_TESTS = ("pure", "lint", "coverage", "interop")
# After these, where there is what they take; else that is what the table says.
SPEEDUPS, AUTOBAHN = "speedups", "autobahn"
LACKS = {SPEEDUPS: "no sanitizers", AUTOBAHN: "no Python 2.7"}
# A hanging environment must not hang the whole run.
TIMEOUT = 15 * 60.0


class CannotCheck(Exception):
    """Report in one line why nothing can be run."""


def main(arguments: Sequence[str]) -> int:
    """Run the checks and return the exit status."""
    options = parse_arguments(arguments)
    try:
        found = interpreters.find_interpreters()
        print("found:", ", ".join(map(str, found.values())), flush=True)
        environments = select([*found, *AFTER_THE_TESTS, *found_special()], options.env)
        prepare_tox()
        package = build_package()
    except CannotCheck as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    results = run_all(environments, package, found, options.jobs)
    results += missing(options.require, results)
    if not options.env:
        results += not_here(results)
    return report(results)


def found_special() -> Iterator[str]:
    """Yield those of the environments in ``LACKS`` that can run here."""
    if sanitize.find_runtime():
        yield SPEEDUPS
    if interpreters.find_python27(os.environ, Path.home()):
        yield AUTOBAHN


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Run the tests under every Python found here, then all other checks."
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME", help="run only this; repeatable"
    )
    parser.add_argument(
        "--require",
        type=split_names,
        default=[],
        metavar="NAMES",
        help="fail unless these environments ran, as in py39,py310",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="environments to run at the same time (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def split_names(text: str) -> list[str]:
    """Return the names of a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def select(available: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the environments to run, in the order of ``available``.

    Raises:
        CannotCheck: one is wanted that does not exist here.
    """
    unknown = [name for name in wanted if name not in available]
    if unknown:
        raise CannotCheck(f"no environment {', '.join(unknown)}; here are {', '.join(available)}")
    return [name for name in available if not wanted or name in wanted]


def prepare_tox() -> None:
    """Make the virtual environment that holds tox, unless a sound one is there.

    Raises:
        CannotCheck: there is no venv module, or the installation failed.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    if is_intact():
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise CannotCheck("this Python has no venv module; on Debian: apt install python3-venv")
    shutil.rmtree(VENV, ignore_errors=True)
    log = LOGS / "prepare.log"
    run_logged([sys.executable, "-m", "venv", str(VENV)], log, "cannot make a venv")
    install = [PYTHON, "-m", "pip", "install", "--quiet", *REQUIREMENTS]
    run_logged(install, log, "cannot install tox")


def is_intact() -> bool:
    """Tell whether tox and build start; they do not after an upgrade of their Python."""
    try:
        for tool in ("tox", "build"):
            command = [PYTHON, "-m", tool, "--version"]
            subprocess.run(command, cwd=WORK, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def build_package() -> Path:
    """Build the source distribution and return its path.

    Raises:
        CannotCheck: it could not be built.
    """
    folder = WORK / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    command = [PYTHON, "-m", "build", "--sdist", "--outdir", str(folder), str(ROOT)]
    run_logged(command, LOGS / "build.log", "cannot build the source distribution")
    return next(folder.glob("*.tar.gz"))


def run_logged(command: Sequence[str], log: Path, complaint: str) -> None:
    """Run a command that must succeed.

    Raises:
        CannotCheck: it did not; its output is on the screen then.
    """
    if run(command, log) != 0:
        print(read(log))
        raise CannotCheck(f"{complaint}; see {log.relative_to(ROOT)}")


def run(command: Sequence[str], log: Path) -> int | None:
    """Run a command with its output in a file; return its status, None when out of time."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=WORK,  # not ROOT: `python -m` would look for its modules there first
            env=variables(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            return process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            # As by Ctrl-C: tox ends what it runs. The log tells which test hung, since pytest's
            # faulthandler_timeout is shorter.
            process.send_signal(signal.SIGINT)
            process.wait()
            return None


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to run with: no settings of the caller's Python, caches in ``.tox/``.

    Args:
        environment: the variables of this process.
    """
    foreign = ("PYTHON", "PYTEST_", "COVERAGE_", "TOX_", "VIRTUAL_ENV")
    kept = {name: value for name, value in environment.items() if not name.startswith(foreign)}
    return {
        **kept,
        "PIP_CACHE_DIR": str(WORK / "pip"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "VIRTUALENV_OVERRIDE_APP_DATA": str(WORK / "virtualenv"),
    }


def run_all(
    environments: Sequence[str], package: Path, found: Mapping[str, Interpreter], jobs: int
) -> list[Result]:
    """Run the environments, some at a time, and return their results in the same order."""
    executables = [interpreter.executable for interpreter in found.values()]
    results = {}
    with ThreadPoolExecutor(jobs) as executor:
        futures = [
            executor.submit(run_environment, name, package, executables) for name in environments
        ]
        try:
            for future in as_completed(futures):
                result = future.result()
                results[result.environment] = result
                show(result)
        except KeyboardInterrupt:
            executor.shutdown(cancel_futures=True)
            raise
    return [results[name] for name in environments]


def run_environment(name: str, package: Path, executables: Sequence[str]) -> Result:
    """Run one environment of tox.ini.

    Args:
        name: the environment.
        package: the source distribution to install into it.
        executables: the Pythons that tox may take.
    """
    log = log_of(name)
    started = time.monotonic()
    status = run(
        [
            *(PYTHON, "-m", "tox", "run", "-c", str(ROOT), "-e", name),
            *("--installpkg", str(package), "--discover", *executables),
            *("--skip-missing-interpreters", "false", "--colored", "no"),
        ],
        log,
    )
    return Result(
        environment=name,
        interpreter=interpreter_of(name),
        verdict={0: "passed", None: "timed out"}.get(status, "failed"),
        seconds=time.monotonic() - started,
        counts=parse_counts(read(log)),
    )


def log_of(name: str) -> Path:
    """Return the file that keeps the output of an environment."""
    return LOGS / f"{name}.log"


def read(log: Path) -> str:
    """Return what a log holds, whatever bytes a test may have printed."""
    return log.read_text(encoding="utf-8", errors="replace")


def interpreter_of(name: str) -> str:
    """Return what an environment really ran with, as its virtual environment tells."""
    settings = ROOT / ".tox" / name / "pyvenv.cfg"
    return parse_settings(settings.read_text(encoding="utf-8")) if settings.exists() else ""


def parse_settings(text: str) -> str:
    """Return the interpreter that a ``pyvenv.cfg`` written by virtualenv names."""
    settings = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    version = ".".join(settings.get("version_info", "").split(".")[:3])
    return f"{settings.get('implementation', '')} {version}".strip()


def show(result: Result) -> None:
    """Print the line of an environment that has ended, above it the output of one that failed."""
    if not result.is_passed:
        print(f"----- {result.environment} -----\n{read(log_of(result.environment))}-----")
    print(one_line(result), flush=True)


def missing(required: Sequence[str], results: Sequence[Result]) -> list[Result]:
    """Return a result for each required environment that did not run."""
    ran = {result.environment for result in results}
    return [Result(name, "", "missing") for name in required if name not in ran]


def not_here(results: Sequence[Result]) -> list[Result]:
    """Return a result for each environment in ``LACKS`` that has none."""
    named = {result.environment for result in results}
    return [Result(name, lack, NOT_HERE) for name, lack in LACKS.items() if name not in named]


def report(results: Sequence[Result]) -> int:
    """Print the table and the sum; return the exit status."""
    counts = total(results)
    print(f"\n{table(results)}\n\n{counts.passed} passed, {counts.failed} failed")
    return 0 if all(result.is_passed for result in results) else 1


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("check: run this with Python 3.9 or newer")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("check: interrupted")
