"""The load generator as seen from here: start it, answer its marks, read its result."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.processes import started

BEGIN, END = "begin", "end"

# Seconds that a run may take longer than its window, most of them for opening connections.
PATIENCE = 75.0


class LoadFailed(Exception):
    """Report in one line why there is no result."""


class LoadResult(NamedTuple):
    """Hold what the generator says of its window.

    Attributes:
        operations: that were completed in it.
        seconds: its length.
        generator_cpu: the generator's own processor time in it, in seconds.
        unclean: connections that ended without a whole closing handshake.
        compressed: replies that were compressed.
        pings: that were answered, in the whole run.
        p50_us, p99_us: round trips in microseconds; 0 where they are not measured.
        longest_us: the longest of them.
        error: what went wrong first; empty if nothing.
    """

    operations: int
    seconds: float
    generator_cpu: float
    unclean: int
    compressed: int
    pings: int
    p50_us: float
    p99_us: float
    longest_us: float
    error: str


def parse_line(line: str) -> str | LoadResult:
    """Return the name of a mark, or the result.

    Raises:
        LoadFailed: the line is neither.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        return str(fields["mark"]) if "mark" in fields else LoadResult(**fields)
    except (ValueError, TypeError):
        raise LoadFailed(f"the generator said {line.strip()[:100]!r}") from None


class Load:
    """A generator that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def wait_for(self, mark: str) -> None:
        """Wait until the generator has come to a mark.

        Raises:
            LoadFailed: it did not.
        """
        said = self._read()
        if isinstance(said, LoadResult):
            raise LoadFailed(said.error or "the generator ended early")
        if said != mark:
            raise LoadFailed(f"the generator is at {said}, not at {mark}")

    def go_on(self) -> None:
        """Tell the generator to go on after a mark."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LoadFailed(self._complaint()) from None

    def result(self) -> LoadResult:
        """Return the result, the last that a generator says.

        Raises:
            LoadFailed: something went wrong.
        """
        said = self._read()
        if not isinstance(said, LoadResult):
            raise LoadFailed(f"the generator is at {said}, not at its end")
        if said.error:
            raise LoadFailed(said.error)
        return said

    def _read(self) -> str | LoadResult:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed(self._complaint())
        return parse_line(line.decode())

    def _complaint(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "the generator took too long, and was ended"


@contextmanager
def loading(command: Sequence[str], core: int | None, log: Path, seconds: float) -> Iterator[Load]:
    """Run a generator for as long as the block takes, and not much longer than it should.

    Args:
        command: its whole command.
        core: to run on.
        log: for what it complains of.
        seconds: of its window and all waiting in between.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with log.open("wb") as output, started(command, core, output, **pipes) as process:
        kill: Callable[[], None] = process.kill
        watchdog = threading.Timer(seconds + PATIENCE, kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield Load(process, log)
        finally:
            watchdog.cancel()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
