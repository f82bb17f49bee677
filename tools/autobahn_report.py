"""Which cases of the Autobahn test suite to run, and what its report says of them.

    cases     "6.4.1": the group, then what the suite numbers inside it
    verdicts  two for each case: "behavior" judges what was said while the connection was open,
              "behaviorClose" how it ended

OK and INFORMATIONAL are good; everything else is not: NON-STRICT, UNIMPLEMENTED, UNCLEAN, WRONG
CODE, FAILED, FAILED BY CLIENT, and MISSING, which is this tool's own word for a case that was
asked for and does not stand in the report.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

GOOD = frozenset({"OK", "INFORMATIONAL"})
MISSING = "MISSING"

_KINDS = ("behavior", "behaviorClose")
_MARKUP = re.compile(r"<[^>]*>")
_LONGEST_REASON = 200


class Outcome(NamedTuple):
    """What the suite says of one case.

    Attributes:
        case: its number.
        behavior: the verdict on what passed over the open connection.
        behavior_close: the verdict on its end.
        close_code: what our side sent, None for nothing.
        report_file: the name of the file with the details, empty for a case that is missing.
    """

    case: str
    behavior: str
    behavior_close: str
    close_code: int | None = None
    report_file: str = ""

    @property
    def is_good(self) -> bool:
        """Tell whether there is nothing to complain about."""
        return GOOD.issuperset((self.behavior, self.behavior_close))

    @property
    def is_missing(self) -> bool:
        """Tell whether the case did not run."""
        return self.behavior == MISSING


# --- cases ----------------------------------------------------------------------------------------


def parse_case_names(output: str) -> list[str]:
    """Return the numbers of the cases whose classes are named one a line: Case6_4_1."""
    names = [line.strip() for line in output.splitlines()]
    numbers = [name[len("Case") :].replace("_", ".") for name in names if name.startswith("Case")]
    return sorted(numbers, key=in_order)


def in_order(case: str) -> tuple[int, ...]:
    """Return what puts cases in the order of their numbers."""
    return tuple(int(part) for part in case.split("."))


def select(available: Sequence[str], wanted: Sequence[str], excluded: Sequence[str]) -> list[str]:
    """Return the cases that match a wanted pattern and no excluded one.

    Args:
        available: all cases of the suite.
        wanted: numbers or patterns, as in 6.4.*; none at all stands for every case.
        excluded: the same.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left to run.
    """
    for pattern in (*wanted, *excluded):
        if not any(fnmatchcase(case, pattern) for case in available):
            raise ValueError(f"no case matches {pattern!r}")
    selected = [
        case
        for case in available
        if _matches(case, wanted or ["*"]) and not _matches(case, excluded)
    ]
    if not selected:
        raise ValueError("every case is excluded")
    return selected


def _matches(case: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(case, pattern) for pattern in patterns)


# --- outcomes -------------------------------------------------------------------------------------


def parse_outcomes(index: str, agent: str, cases: Iterable[str]) -> list[Outcome]:
    """Return the outcome of each case that was asked for, in the same order.

    Args:
        index: the suite's index.json; empty when it wrote none.
        agent: under which name our side stands in it.
        cases: what was asked for.
    """
    entries = _load(index).get(agent, {})
    return [_parse_outcome(case, entries.get(case)) for case in cases]


def _parse_outcome(case: str, entry: Mapping[str, Any] | None) -> Outcome:
    if entry is None:
        return Outcome(case, MISSING, MISSING)
    behavior, behavior_close = (entry[kind] for kind in _KINDS)
    return Outcome(case, behavior, behavior_close, entry["remoteCloseCode"], entry["reportfile"])


def count(outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
    """Return how often each verdict was given, for the behavior and for the close."""
    outcomes = list(outcomes)
    return {
        "behavior": Counter(outcome.behavior for outcome in outcomes),
        "behaviorClose": Counter(outcome.behavior_close for outcome in outcomes),
    }


def reason(outcome: Outcome, details: str) -> str:
    """Return in one line what the suite complains about.

    Args:
        outcome: of a case that is not good.
        details: the case's own report, JSON; empty when there is none.
    """
    report = _load(details)
    if not report:
        return ""
    complaints = []
    if outcome.behavior not in GOOD:
        complaints += [report["result"], f"Received: {_events(report['received'])}"]
        for verdict, events in sorted(report["expected"].items()):
            complaints.append(f"{verdict} would be: {_events(events)}")
    if outcome.behavior_close not in GOOD:
        complaints.append(report["resultClose"])
    text = "; ".join(complaint.strip().rstrip(".") for complaint in complaints)
    line = " ".join(_MARKUP.sub("", text).split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def _load(text: str) -> dict[str, Any]:
    """Return what a file of the report says; nothing when the suite was ended while writing it."""
    try:
        report: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return report


def _events(events: Iterable[Sequence[Any]]) -> str:
    """Return what passed, as in: message 'Hello', pong ''."""
    return ", ".join(f"{event[0]} {str(event[1])[:40]!r}" for event in events) or "nothing"


# --- for the screen -------------------------------------------------------------------------------


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table of how often each verdict was given."""
    counts = count(outcomes)
    rows = [f"{'verdict':<18}{_KINDS[0]:>10}{_KINDS[1]:>15}"]
    for verdict in sorted(counts["behavior"] | counts["behaviorClose"], key=_good_first):
        behavior, behavior_close = (counts[kind][verdict] for kind in _KINDS)
        rows.append(f"{verdict:<18}{behavior:>10}{behavior_close:>15}")
    return "\n".join(rows)


def _good_first(verdict: str) -> tuple[bool, bool, str]:
    return verdict not in GOOD, verdict != "OK", verdict


def failure_lines(outcomes: Iterable[Outcome], reasons: Mapping[str, str]) -> list[str]:
    """Return a line for each case that is not good, but one for all that are missing.

    Args:
        outcomes: of the cases that are not good.
        reasons: what the suite complains about, by case.
    """
    lines = []
    missing = []
    for outcome in outcomes:
        if outcome.is_missing:
            missing.append(outcome.case)
        else:
            code = "none" if outcome.close_code is None else outcome.close_code
            lines.append(
                f"{outcome.case}: {outcome.behavior}, close {outcome.behavior_close}, "
                f"close code {code}. {reasons.get(outcome.case, '')}".rstrip()
            )
    if missing:
        lines.append(f"{len(missing)} {MISSING}: {' '.join(missing)}")
    return lines
