"""Programs that the tools run, untouched by the settings of the Python that runs the tool.

For tools that install what they take into a folder below ``.tox/``. What is asked of the user, or
shown as it comes, is not for these: nobody answers, and the output goes to a file or is returned.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from check import variables

NOTHING_MORE: Mapping[str, str] = {}


def run_logged(command: Sequence[str], folder: Path, log: Path, timeout: float) -> None:
    """Run a program in a folder, all its output into a file.

    Raises:
        OSError: it cannot be started.
        subprocess.SubprocessError: it failed, or took longer than ``timeout`` seconds.
    """
    with log.open("wb") as output:
        subprocess.run(
            command,
            cwd=folder,
            env=variables(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=True,
        )


def output_of(
    command: Sequence[str], timeout: float, settings: Mapping[str, str] = NOTHING_MORE
) -> str:
    """Return what a program prints.

    Args:
        command: the program and its arguments.
        timeout: seconds.
        settings: more environment variables for it.

    Raises:
        OSError: it cannot be started.
        subprocess.SubprocessError: it failed, or took longer.
    """
    answer = subprocess.run(
        command,
        env={**variables(os.environ), **settings},
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=True,
    )
    return answer.stdout
