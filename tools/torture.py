"""Torture a real server process, and measure what that does to it.

    python3 tools/torture.py                     all rows, some two minutes
    python3 tools/torture.py H44 H120            these rows
    python3 tools/torture.py --list              what they are

Each row starts servers of its own on loopback, does one thing to them that the catalogue of hostile
input names, and prints figures, each beside the limit that it has to keep. What the rows do stands
in ``tools/torturing/``. Linux only: memory, descriptors and processor time are read from /proc.

The exit status is 0 when every limit was kept, 1 when one was missed or a row could not be run to
its end, 2 when nothing could be run. The figures belong to the machine and the Python that they
were taken on, and to what else ran there; the limits do not.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if __name__ == "__main__":
    # The packages of this checkout, installed or not; tests import what is installed.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from torturing.figures import HEADINGS, line
from torturing.process import allow_many_descriptors, is_supported
from torturing.rows import ROWS, Row


def main(arguments: Sequence[str]) -> int:
    """Run the rows and return the exit status."""
    options = parse_arguments(arguments)
    if options.list:
        for name, row in ROWS.items():
            print(f"{name:<6} {row.summary}")
        return 0
    if not is_supported():
        print("torture: this needs Linux: it reads /proc", file=sys.stderr)
        return 2
    allow_many_descriptors()
    print(f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}")
    return run(dict.fromkeys(ROWS[name] for name in options.rows))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Torture a real server process.")
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"what to run (default: all): {', '.join(ROWS)}",
    )
    parser.add_argument("--list", action="store_true", help="say what the rows do, and run none")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; try --list")
    options.rows = options.rows or list(ROWS)
    return options


def run(rows: Iterable[Row]) -> int:
    """Run rows one after the other, print their figures, and return the exit status."""
    print(HEADINGS, flush=True)
    missed = 0
    for row in rows:
        try:
            for figure in row.figures():
                print(line(row.name, figure), flush=True)
                missed += not figure.is_met
        except Exception as error:
            # One row that cannot be run must not keep the others from it.
            print(f"| {row.name} | {type(error).__name__}: {error} | | | FAILED |", flush=True)
            missed += 1
    print(f"\n{missed} limits missed" if missed else "\nevery limit was kept")
    return 1 if missed else 0


if __name__ == "__main__":
    if sys.version_info < (3, 9):
        sys.exit("torture: run this with Python 3.9 or newer")
    sys.exit(main(sys.argv[1:]))
