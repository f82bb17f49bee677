"""What became of the environments: read the closing lines, print the table and the sum."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# pytest's: "12 passed, 1 error in 0.05s", between "=" signs unless it is quiet. autobahn.py counts
# its cases in the same way.
CLOSING_LINE = re.compile(r"^=* ?(\d+ [a-z]+(?:, \d+ [a-z]+)*) in \d[\d.]*s\b.*$", re.MULTILINE)
# The verdict on what cannot run on this machine and need not.
NOT_HERE = "not here"
HEADINGS = ("environment", "interpreter", "result", "tests", "seconds")


@dataclass(frozen=True)
class Counts:
    """The tests that passed, and those that failed or could not run."""

    passed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Result:
    """The outcome of one environment.

    Args:
        environment: its name in tox.ini.
        interpreter: what it ran with, empty when it did not get that far.
        verdict: "passed" or NOT_HERE, or a word for what went wrong.
        seconds: how long it took, installation included.
        counts: the tests, None where none were reported.
    """

    environment: str
    interpreter: str
    verdict: str
    seconds: float = 0.0
    counts: Counts | None = None

    @property
    def is_passed(self) -> bool:
        """Tell whether all is well."""
        return self.verdict in ("passed", NOT_HERE)


def parse_counts(output: str) -> Counts | None:
    """Return the numbers of the last closing line in ``output``.

    Args:
        output: everything that tox printed.
    """
    lines = CLOSING_LINE.findall(output)
    if not lines:
        return None
    numbers: dict[str, int] = {}
    for part in lines[-1].split(", "):
        number, word = part.split()
        numbers[word.rstrip("s")] = int(number)
    return Counts(numbers.get("passed", 0), numbers.get("failed", 0) + numbers.get("error", 0))


def total(results: Sequence[Result]) -> Counts:
    """Return the sum over all environments.

    One that failed without a failed test (a lint, a broken installation) counts as one failure:
    the sum must never look better than the table.
    """
    passed = failed = 0
    for result in results:
        counts = result.counts or Counts()
        passed += counts.passed
        failed += counts.failed if result.is_passed else max(1, counts.failed)
    return Counts(passed, failed)


def one_line(result: Result) -> str:
    """Return the line that reports an environment when it ends."""
    return "  ".join(
        (
            f"{result.environment:<9}",
            f"{result.verdict:<9}",
            f"{result.seconds:6.1f} s",
            result.interpreter,
        )
    ).rstrip()


def table(results: Sequence[Result]) -> str:
    """Return the closing table, one row for each environment."""
    rows = [HEADINGS, *map(_cells, results)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for row in rows:
        words = [text.ljust(width) for text, width in zip(row[:3], widths)]
        numbers = [text.rjust(width) for text, width in zip(row[3:], widths[3:])]
        lines.append("  ".join(words + numbers))
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cells(result: Result) -> tuple[str, ...]:
    """Return the texts of a result's row."""
    tests = "" if result.counts is None else str(result.counts.passed + result.counts.failed)
    return (
        result.environment,
        result.interpreter,
        result.verdict,
        tests,
        f"{result.seconds:.1f}" if result.seconds else "",
    )
