"""What figures were taken on: processor, kernel, Python, day, versions."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from benchmark.processes import available_cores


def describe(versions: Mapping[str, str]) -> dict[str, str]:
    """Return all of it, ready for a table or JSON.

    Args:
        versions: of the peers; may be empty.
    """
    peers = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "peers": peers,
    }
    return {name: fact for name, fact in facts.items() if fact}


def processor() -> str:
    """Return the processor's name, and how many cores this process may use."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = match.group(1).strip() if match else platform.machine()
    return f"{name}, {len(available_cores()) or os.cpu_count()} cores"
