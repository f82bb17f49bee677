"""Everything that a run takes, in ``.tox/benchmark/``: the peers, our packages, the generator.

The peers are pinned in ``requirements.txt`` and installed into a virtual environment of the
Python that runs the tool. One that cannot be installed, or does not start, is named and left out.
Our packages are installed as a user would, the accelerator compiled, once for each interpreter;
when a source file changes, again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from check import ROOT
from commands import output_of, run_logged

from benchmark.processes import KIB
from benchmark.scenarios import TLS, Scenario
from benchmark.servers import ACCELERATED, BUSY, SERVERS, Server, last_line

WORK = ROOT / ".tox" / "benchmark"
LOGS = WORK / "logs"
HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
GENERATOR = HERE / "generator"

# What is installed of the checkout.
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
PACKAGES = ("reactor", "websocket")

INSTALL_TIMEOUT = 10 * 60.0
PROBE_TIMEOUT = 60.0
_DIGEST_LENGTH = 12

# Prints the name of an interpreter, and what our packages are under it.
_PROBE = """
import platform
from websocket.speedups import IMPLEMENTATION
print(platform.python_implementation(), platform.python_version(), IMPLEMENTATION)
"""


class CannotRun(Exception):
    """Report in one line why nothing can be measured here."""


class Generator(NamedTuple):
    """Hold the compiled load generator."""

    program: Path
    has_tls: bool

    def can(self, scenario: Scenario) -> bool:
        """Tell whether it can make a load."""
        return self.has_tls or TLS not in scenario.needs


class Prepared(NamedTuple):
    """Hold the servers that can be measured, with their versions, and why others cannot."""

    servers: list[Server]
    versions: dict[str, str]
    missing: dict[str, str]


def prepare(names: Sequence[str], interpreters: Sequence[str]) -> Prepared:
    """Install what some servers take.

    Args:
        names: of the servers, in the order of the tables.
        interpreters: more Pythons, for ours only.

    Raises:
        CannotRun: there is no virtual environment to install into.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    python = prepare_python()
    prepared = Prepared([], {}, {})
    wanted = [SERVERS[name] for name in names]
    install_peers(python, {each for server in wanted for each in server.requirements})
    for server in wanted:
        if server.is_ours:
            continue
        trouble = try_import(python, server)
        if trouble:
            prepared.missing[server.name] = trouble
        else:
            prepared.servers.append(replace(server, python=python))
            prepared.versions.update(versions(python, server.requirements))
    ours = [server for server in wanted if server.is_ours]
    for executable in [python, *interpreters] if ours else []:
        add_ours(prepared, ours, executable, is_named=executable != python)
    prepared.servers.sort(key=lambda server: position(server.name, names))
    return prepared


def position(name: str, names: Sequence[str]) -> tuple[int, int]:
    """Return where a server stands in the tables; under a foreign interpreter, at the end."""
    base, _, interpreter = name.partition("@")
    return (1 if interpreter else 0, names.index(base))


# --- the peers ----------------------------------------------------------------------------------


def prepare_python() -> str:
    """Return the Python of the virtual environment, which is made first unless it is there.

    Raises:
        CannotRun: it cannot be made.
    """
    folder = WORK / f"venv-{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    if not python.exists():
        command = [sys.executable, "-m", "venv", "--clear", str(folder)]
        trouble = run(command, LOGS / "venv.log")
        if trouble:
            raise CannotRun(f"cannot make a virtual environment: {trouble}")
    return str(python)


def install_peers(python: str, names: Iterable[str]) -> None:
    """Install distributions that are not there, each by itself: one may fail without the others.

    What failed is found out later, when it is imported.
    """
    pins = parse_requirements(REQUIREMENTS.read_text(encoding="utf-8"))
    for name in sorted(names):
        if versions(python, [name]).get(name) != pins[name]:
            print(f"installing {name} {pins[name]}", file=sys.stderr, flush=True)
            command = [python, "-m", "pip", "install", f"{name}=={pins[name]}"]
            run(command, LOGS / f"install-{name}.log")


def parse_requirements(text: str) -> dict[str, str]:
    """Return the pinned version of each distribution."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {name.strip(): version.strip() for name, version in pairs}


def versions(python: str, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    folders = sorted(str(each) for each in Path(python).parent.parent.glob("lib/*/site-packages"))
    found = {}
    for name in names:
        for distribution in importlib.metadata.distributions(name=name, path=folders):
            found[name] = distribution.version
    return found


def try_import(python: str, server: Server) -> str:
    """Return why a library cannot be imported; empty when it can."""
    command = [python, "-c", f"import {', '.join([server.module, *extra_modules(server)])}"]
    log = LOGS / f"import-{server.name}.log"
    trouble = run(command, log, PROBE_TIMEOUT)
    if trouble and "libuv" in log.read_text(encoding="utf-8", errors="replace"):
        install_libuv()
        trouble = run(command, log, PROBE_TIMEOUT)
        trouble = trouble and f"{trouble} (try: apt-get install libuv1)"
    return trouble


def extra_modules(server: Server) -> list[str]:
    """Return what else a server imports."""
    return ["uvloop"] if "uvloop" in server.requirements else []


def install_libuv() -> None:
    """Install the library that socketify is linked to, where this user may do so."""
    program = shutil.which("apt-get")
    if program and os.geteuid() == 0:
        run([program, "install", "--yes", "libuv1"], LOGS / "libuv.log")


def run(command: Sequence[str], log: Path, timeout: float = INSTALL_TIMEOUT) -> str:
    """Run a command; return the last line of its output if it failed, else nothing."""
    try:
        run_logged(command, WORK, log, timeout)
    except subprocess.CalledProcessError:
        return last_line(log)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


# --- ours ---------------------------------------------------------------------------------------


def add_ours(prepared: Prepared, ours: Sequence[Server], python: str, is_named: bool) -> None:
    """Add our servers under one interpreter.

    Args:
        prepared: to add them to.
        ours: in which variants.
        python: the interpreter.
        is_named: whether its version is part of the servers' names.
    """
    title, folder, implementation = install_ours(python)
    for server in ours:
        name = f"{server.name}@{title}" if is_named else server.name
        if server.name in (ACCELERATED, BUSY) and implementation != "accelerated":
            prepared.missing[name] = "the accelerator was not built"
            continue
        prepared.servers.append(replace(server, name=name, python=python, folder=str(folder)))


def install_ours(python: str) -> tuple[str, Path, str]:
    """Install our packages for an interpreter, unless they are there and have not changed.

    Returns:
        The interpreter's name and version, the folder, and "accelerated" or "pure".

    Raises:
        CannotRun: it is no Python, or cannot import them.
    """
    identity = hashlib.sha256(python.encode()).hexdigest()[:_DIGEST_LENGTH]
    folder = WORK / f"ours-{identity}-{digest()}"
    if not folder.exists():
        for old in WORK.glob(f"ours-{identity}-*"):
            shutil.rmtree(old)
        build_ours(python, folder)
    command = [python, "-c", _PROBE]
    try:
        answer = output_of(command, PROBE_TIMEOUT, {"PYTHONPATH": str(folder)})
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRun(f"{python} cannot import our packages: {error}") from None
    implementation, version, speedups = answer.split()
    return f"{implementation}-{version}", folder, speedups


def build_ours(python: str, folder: Path) -> None:
    """Install our packages into a folder: by pip, or as plain files where that fails.

    pip works on a copy: it would leave its traces in the checkout.
    """
    print(f"installing our packages for {python}", file=sys.stderr, flush=True)
    copy = WORK / "source"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for source in source_files():
        target = copy / source.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)
    command = [python, "-m", "pip", "install", "--no-deps", "--target", str(folder), str(copy)]
    trouble = run(command, LOGS / "install-ours.log")
    if trouble:
        print(f"pip failed, so without the accelerator: {trouble}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        for package in PACKAGES:
            shutil.copytree(copy / package, folder / package)


def source_files() -> Iterator[Path]:
    """Yield the files that an installation depends on."""
    for name in SOURCES:
        if (ROOT / name).exists():
            yield ROOT / name
    for package in PACKAGES:
        for path in sorted((ROOT / package).iterdir()):
            if path.suffix in {".py", ".pyi", ".c", ".h", ".typed"}:
                yield path


def digest() -> str:
    """Return what changes whenever one of our source files does."""
    hashed = hashlib.sha256()
    for path in source_files():
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:_DIGEST_LENGTH]


# --- the generator ------------------------------------------------------------------------------


def compile_generator(folder: Path = WORK) -> Generator:
    """Return the generator, compiled unless it is there; without TLS where OpenSSL is missing.

    Raises:
        CannotRun: there is no C compiler, or it failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotRun("a C compiler is needed for the load generator: apt-get install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    for path in sorted(GENERATOR.iterdir()):
        hashed.update(path.read_bytes())
    base = folder / f"load-{hashed.hexdigest()[:_DIGEST_LENGTH]}"
    trouble = ""
    for has_tls in (True, False):
        program = base.with_name(base.name + ("-tls" if has_tls else ""))
        if not program.exists():
            trouble = compile_once(compiler, program, has_tls)
        if program.exists():
            return Generator(program, has_tls)
    raise CannotRun(f"the load generator cannot be compiled: {trouble}")


def compile_once(compiler: str, program: Path, has_tls: bool) -> str:
    """Compile the generator; return what the compiler complains of."""
    command = [compiler, "-O2", "-std=gnu11", "-o", str(program), str(GENERATOR / "load.c")]
    command += ["-DWITH_TLS", "-lssl", "-lcrypto"] if has_tls else []
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return answer.stderr.strip()[: 4 * KIB] if answer.returncode else ""
