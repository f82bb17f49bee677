"""How much memory this process may use: the least of what its limits and the machine allow.

- cgroup v2: ``memory.max`` of the process's group and of those above it
- cgroup v1: ``memory.limit_in_bytes``, likewise
- the process: ``RLIMIT_AS``
- the machine: its physical memory
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

# Where nothing can be found out. Nobody runs a server with less.
_AT_LEAST = 1024**3
# What cgroup v1 says for no limit: 2^63, rounded down to a page.
_NO_LIMIT = 2**60


@lru_cache(maxsize=1)
def usable_memory() -> int:
    """Return the bytes of memory that this process may use; looked up once."""
    return min(
        (*_cgroup_limits(Path("/")), *_process_limit(), *_physical_memory()), default=_AT_LEAST
    )


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the process's groups, seen from the root of the file system."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        # hierarchy:controllers:path; the second is empty for version 2.
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _limits_up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")


def _limits_up(mount: Path, path: str, name: str) -> Iterator[int]:
    """Yield the limits of a group and of all above it, as far as they can be seen from here."""
    group = PurePosixPath(path.lstrip("/"))
    for each in (group, *group.parents):
        # A path out of a container's own name space begins with "..": only the top is left then.
        if ".." in each.parts:
            continue
        text = _read(mount / each / name).strip()
        if text.isdecimal() and 0 < int(text) < _NO_LIMIT:
            yield int(text)


def _process_limit() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        yield soft


def _physical_memory() -> Iterator[int]:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, others no such name
        return
    if pages > 0 and size > 0:
        yield pages * size


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
