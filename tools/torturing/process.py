"""A server process: to start it, to ask it, to end it, and to read in /proc what it costs.

Linux only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

SERVED = Path(__file__).resolve().with_name("served.py")
HOST = "127.0.0.1"
# Ours alone, so that a limit per address does not shut us out.
_CONTROL_ADDRESS = "127.9.9.9"
_TIMEOUT = 20.0
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_FAULT = re.compile(r"^(ERROR|CRITICAL|Traceback|\w*Error\b)")


def is_supported() -> bool:
    """Tell whether this system has what is read here."""
    return Path("/proc/self/status").exists()


class ServerProcess:
    """Run ``served.py`` inside a ``with`` block.

    Args:
        descriptors: the limit on open files; by default ours.
        compression: accept permessage-deflate.
        limits: fields of ``websocket.Limits``.

    Attributes:
        address: where it listens.
        pid: its process id.
    """

    def __init__(
        self, *, descriptors: int | None = None, compression: bool = False, **limits: Any
    ) -> None:
        settings: dict[str, Any] = {"limits": limits, "compression": compression}
        if descriptors is not None:
            settings["descriptors"] = descriptors
        self._command = [sys.executable, str(SERVED), json.dumps(settings)]

    def __enter__(self) -> ServerProcess:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=self._log, stdin=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        with self._process.stdout as output:
            first_line = output.readline()
        if not first_line:
            self.kill()
            with self._log:
                raise RuntimeError(f"the server did not start:\n{self.log()}")
        self.address = (HOST, int(first_line))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._log.close()

    # --- its life -----------------------------------------------------------------------------

    def terminate(self) -> None:
        """Ask it to shut down."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""
        self._process.kill()
        self._process.wait()

    def exit_status(self) -> int | None:
        """Return its exit status; None as long as it runs."""
        return self._process.poll()

    # --- what it says -------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Send it a plain request; return the answer."""
        connection = http.client.HTTPConnection(
            *self.address, timeout=_TIMEOUT, source_address=(_CONTROL_ADDRESS, 0)
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"GET {path}: {response.status} {body!r}")
        return json.loads(body)

    def facts(self) -> Any:
        """Return its counters, see ``served.py``."""
        return self.get("/facts")

    def timers(self) -> int:
        """Return how many timers it has."""
        return int(self.get("/objects?collect=0")["timers"])

    def objects(self) -> Any:
        """Return how many objects and timers it has once garbage is collected."""
        return self.get("/objects")

    def log(self) -> str:
        """Return all that it has logged."""
        # Not read(): the process has the same offset, and would go on writing there.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def faults(self) -> list[str]:
        """Return the log's lines that tell of an error."""
        return [text for text in self.log().splitlines() if _FAULT.match(text)]

    # --- what it costs ------------------------------------------------------------------------

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used, in steps of 10 ms."""
        return cpu_seconds(self.pid)

    def descriptors(self) -> int:
        """Return how many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def descriptors_at_rest(self, seconds: float = 0.3) -> int:
        """Return the fewest files that it has open for a while: ours, that ask, come and go."""
        deadline = time.monotonic() + seconds
        fewest = self.descriptors()
        while time.monotonic() < deadline:
            time.sleep(0.02)
            fewest = min(fewest, self.descriptors())
        return fewest

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """Return the most resident memory that it had since ``reset_peak``, in bytes."""
        return self._memory("VmHWM")

    def reset_peak(self) -> int:
        """Make its present resident memory the peak so far, and return it."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.peak()

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        match = re.search(rf"{name}:\s+(\d+) kB", status)
        assert match is not None
        return int(match.group(1)) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in steps of 10 ms."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # proc(5): utime and stime are fields 14 and 15; the second, in brackets, may hold blanks.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def allow_many_descriptors() -> None:
    """Raise our own limit on open files as far as we may; children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
