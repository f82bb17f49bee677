"""Run the C accelerator under gcc's address and undefined behaviour sanitizers.

    python3 tools/sanitize.py fuzz                        what reaches the accelerator, for a minute
    python3 tools/sanitize.py fuzz --seconds 600          or with other options of tools/fuzz.py
    python3 tools/sanitize.py pytest tests/test_masking.py

Compiles the accelerator for the Python that runs this, puts it with a copy of the packages into
``.tox/sanitize/``, and runs fuzz.py or pytest with those. An access beyond what is allocated, or
anything else that the C standard leaves undefined, aborts the run and tells where it was.

It takes gcc with its sanitizers, on Linux. The exit status is that of what was run, 2 when nothing
could be run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / ".tox" / "sanitize"
PACKAGES = ("reactor", "websocket")

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Optimised as for users, and strict: standard C without a warning.
FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O3", "-g", "-shared", "-fPIC")
# Started as programs, or with the current folder on the path, these would take the packages of the
# checkout.
START = """
import sys
sys.path[:] = filter(None, sys.path)
import {0}
sys.exit({0}.main(sys.argv[1:]))
"""
TARGETS = (
    "masking",
    "splitting",
    "writing",
    "twins-of-client",
    "twins-of-server",
    "deflated-twins",
)


class CannotSanitize(Exception):
    """Report in one line why nothing can be run."""


def main(arguments: Sequence[str]) -> int:
    """Compile, run, and return the exit status."""
    try:
        command = command_of(arguments)
        runtime = find_runtime()
        if runtime is None:
            raise CannotSanitize("this takes gcc with libasan, on Linux")
        copy_packages()
        compile_accelerator()
    except CannotSanitize as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 2
    return subprocess.run(command, env=variables(os.environ, runtime), check=False).returncode


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return what to run.

    Raises:
        CannotSanitize: it is neither fuzz nor pytest.
    """
    tool, *options = arguments or [""]
    if tool not in ("fuzz", "pytest"):
        raise CannotSanitize("say what to run: fuzz or pytest, with options of theirs")
    if tool == "fuzz":
        targets = [] if "--targets" in options else ["--targets", *TARGETS]
        # atheris brings sanitizers of its own.
        options = ["--engine", "random", *targets, *options]
    return [sys.executable, "-c", START.format(tool), *options]


def find_runtime() -> str | None:
    """Return the library that must be loaded before Python's own, None where it is not here."""
    compiler = shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    command = [compiler, "-print-file-name=libasan.so"]
    answer = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    # gcc gives the bare name back where it has no such file.
    path = Path(answer.stdout.strip())
    return str(path) if path.is_absolute() else None


def copy_packages() -> None:
    """Put what is needed of the packages where the checkout's own accelerator is not."""
    shutil.rmtree(SITE, ignore_errors=True)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd")
        shutil.copytree(ROOT / package, SITE / package, ignore=ignored)


def compile_accelerator() -> None:
    """Compile the accelerator with the sanitizers.

    Raises:
        CannotSanitize: the compiler failed; what it says is on the screen then.
    """
    # As headers of the system: what they warn of is not ours.
    flags = [*FLAGS, *SANITIZERS, "-isystem", sysconfig.get_path("include")]
    for package in PACKAGES:
        sources = map(str, sorted((ROOT / package).glob("_speedups*.c")))
        target = SITE / package / f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"
        command = ["gcc", *flags, *sources, "-o", str(target)]
        if subprocess.run(command, check=False).returncode != 0:
            raise CannotSanitize(f"the accelerator of {package} does not compile")


def variables(environment: Mapping[str, str], runtime: str) -> dict[str, str]:
    """Return the variables to run with.

    Args:
        environment: the variables of this process.
        runtime: the sanitizer's library.
    """
    kept = {name: text for name, text in environment.items() if name != "REACTOR_WEBSOCKET_PURE"}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join((str(SITE), str(ROOT / "tools"))),
        "REACTOR_WEBSOCKET_REQUIRE_SPEEDUPS": "1",
        "LD_PRELOAD": runtime,
        # Python keeps some memory to the end. An abort makes faulthandler tell the Python lines.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
        "PYTHONFAULTHANDLER": "1",
        # Each object on its own: Python's allocator hides what lies beyond one.
        "PYTHONMALLOC": "malloc",
    }


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("sanitize: run this with Python 3.9 or newer")
    sys.exit(main(sys.argv[1:]))
