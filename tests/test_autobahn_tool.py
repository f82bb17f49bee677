"""Tests of the pure parts of tools/autobahn*.py: which cases run, and what the report says of them.

What they do to our server and client, only a run of the suite itself can tell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import autobahn
import autobahn_report as report
import autobahn_suite as suite
import interpreters
import pytest
from autobahn_report import MISSING, Outcome
from results import Counts, parse_counts

AVAILABLE = ["1.1.1", "1.2.1", "6.4.1", "6.4.2", "7.1.5", "10.1.1", "12.1.1", "13.1.1"]

GOOD = Outcome("1.1.1", "OK", "OK", 1000, "good.json")
TOLD = Outcome("7.1.5", "INFORMATIONAL", "INFORMATIONAL", None, "told.json")
LATE = Outcome("6.4.1", "NON-STRICT", "OK", 1007, "late.json")
WRONG = Outcome("7.9.1", "OK", "WRONG CODE", 1000, "wrong.json")
SILENT = Outcome("6.4.2", "FAILED", "UNCLEAN", None, "silent.json")
GONE = Outcome("9.1.1", MISSING, MISSING)


def entry(outcome: Outcome) -> dict[str, Any]:
    """Return what the suite's index says of a case."""
    return {
        "behavior": outcome.behavior,
        "behaviorClose": outcome.behavior_close,
        "duration": 3,
        "remoteCloseCode": outcome.close_code,
        "reportfile": outcome.report_file,
    }


def index(*outcomes: Outcome) -> str:
    """Return the suite's index.json."""
    return json.dumps({autobahn.AGENT: {outcome.case: entry(outcome) for outcome in outcomes}})


def details(**changes: Any) -> str:
    """Return the suite's own report of a case."""
    usual = {
        "result": "Actual events differ from any expected.",
        "resultClose": "Connection was properly closed",
        "expected": {"OK": [["message", "Hello", False], ["pong", ""]]},
        "received": [],
    }
    return json.dumps({**usual, **changes})


# --- cases ----------------------------------------------------------------------------------------


def test_the_names_of_the_suites_classes_become_numbers_in_order() -> None:
    output = "Case10_1_1\nCase2_10\nCase2_9\n\nCase1_1_1\n"
    assert report.parse_case_names(output) == ["1.1.1", "2.9", "2.10", "10.1.1"]


@pytest.mark.parametrize(
    ("wanted", "excluded", "expected"),
    [
        ([], [], AVAILABLE),
        (["*"], [], AVAILABLE),
        (["1.*"], [], ["1.1.1", "1.2.1"]),
        (["7.1.5", "6.4.*"], [], ["6.4.1", "6.4.2", "7.1.5"]),
        (["6.4.*", "6.4.1"], [], ["6.4.1", "6.4.2"]),
        ([], ["12.*", "13.*"], AVAILABLE[:-2]),
        (["1.*", "6.*"], ["6.4.2", "1.1.*"], ["1.2.1", "6.4.1"]),
    ],
)
def test_patterns_select_cases_in_the_order_of_the_suite(
    wanted: list[str], excluded: list[str], expected: list[str]
) -> None:
    assert report.select(AVAILABLE, wanted, excluded) == expected


@pytest.mark.parametrize(
    ("wanted", "excluded", "complaint"),
    [
        (["99.*"], [], r"no case matches '99\.\*'"),
        (["1.*", "1.1"], [], r"no case matches '1\.1'"),
        ([], ["11.*"], r"no case matches '11\.\*'"),
        (["1.*"], ["*"], "every case is excluded"),
    ],
)
def test_a_pattern_without_a_case_is_refused(
    wanted: list[str], excluded: list[str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        report.select(AVAILABLE, wanted, excluded)


# --- outcomes -------------------------------------------------------------------------------------


def test_each_case_that_was_asked_for_has_an_outcome_and_no_other_has_one() -> None:
    text = index(TOLD, LATE, GOOD, WRONG)
    assert report.parse_outcomes(text, autobahn.AGENT, ["1.1.1", "6.4.1", "7.1.5", "9.1.1"]) == [
        GOOD,
        LATE,
        TOLD,
        GONE,
    ]


@pytest.mark.parametrize(
    "text",
    ["", "{}", index(GONE)[:40], json.dumps({"another agent": {"9.1.1": entry(GOOD)}})],
    ids=["none", "empty", "cut off", "of another agent"],
)
def test_without_a_report_every_case_is_missing(text: str) -> None:
    assert report.parse_outcomes(text, autobahn.AGENT, ["9.1.1"]) == [GONE]


@pytest.mark.parametrize(
    ("outcome", "is_good", "is_missing"),
    [
        (GOOD, True, False),
        (TOLD, True, False),
        (LATE, False, False),
        (WRONG, False, False),
        (SILENT, False, False),
        (GONE, False, True),
        (GOOD._replace(behavior="UNIMPLEMENTED"), False, False),
        (GOOD._replace(behavior_close="FAILED BY CLIENT"), False, False),
    ],
)
def test_an_outcome_is_good_when_both_verdicts_are(
    outcome: Outcome, is_good: bool, is_missing: bool
) -> None:
    assert (outcome.is_good, outcome.is_missing) == (is_good, is_missing)


def test_verdicts_are_counted_for_the_behavior_and_for_the_close() -> None:
    assert report.count([GOOD, TOLD, LATE, WRONG, GONE]) == {
        "behavior": {"OK": 2, "INFORMATIONAL": 1, "NON-STRICT": 1, MISSING: 1},
        "behaviorClose": {"OK": 2, "INFORMATIONAL": 1, "WRONG CODE": 1, MISSING: 1},
    }


def test_the_table_begins_with_what_is_good() -> None:
    assert report.table([LATE, GONE, GONE, TOLD, GOOD]).splitlines() == [
        "verdict             behavior  behaviorClose",
        "OK                         1              2",
        "INFORMATIONAL              1              1",
        "MISSING                    2              2",
        "NON-STRICT                 1              0",
    ]


@pytest.mark.parametrize(
    ("outcome", "text", "expected"),
    [
        (LATE, "", ""),
        (LATE, details()[:40], ""),
        (
            LATE,
            details(received=[["timeout", "A"]]),
            (
                "Actual events differ from any expected; Received: timeout 'A'; "
                "OK would be: message 'Hello', pong ''"
            ),
        ),
        (
            WRONG,
            details(resultClose="The close code should have been <b>1002</b>\n or empty"),
            "The close code should have been 1002 or empty",
        ),
        (
            SILENT,
            details(expected={}),
            (
                "Actual events differ from any expected; Received: nothing; "
                "Connection was properly closed"
            ),
        ),
    ],
)
def test_the_reason_tells_what_the_suite_complains_about(
    outcome: Outcome, text: str, expected: str
) -> None:
    assert report.reason(outcome, text) == expected


def test_a_reason_stays_in_a_line_however_much_was_received() -> None:
    text = details(received=[["message", "x" * 1000, False]] * 10)
    line = report.reason(SILENT, text)
    assert len(line) == 200
    assert line.endswith("...")


def test_failures_have_a_line_each_and_the_missing_cases_one_together() -> None:
    outcomes = [GONE, LATE, SILENT, GONE._replace(case="9.1.2")]
    assert report.failure_lines(outcomes, {"6.4.1": "Too late."}) == [
        "6.4.1: NON-STRICT, close OK, close code 1007. Too late.",
        "6.4.2: FAILED, close UNCLEAN, close code none.",
        "2 MISSING: 9.1.1 9.1.2",
    ]


# --- the run's own report -------------------------------------------------------------------------


def new_run(out: Path, cases: list[str]) -> autobahn.Run:
    """Return a run that was not started."""
    installed = suite.Suite("python2.7", out)
    return autobahn.Run("server", installed, cases, "widest", out, timeout=1.0)


@pytest.mark.parametrize(
    ("outcomes", "trouble", "failed"),
    [
        ([GOOD, TOLD], "", 0),
        ([GOOD, TOLD], "the server ended with status 1", 1),
        ([GOOD, LATE], "", 1),
        ([LATE, GONE], "", 2),
        ([GONE], "the suite does not listen", 1),
    ],
)
def test_every_case_that_is_not_good_has_failed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[Outcome],
    trouble: str,
    failed: int,
) -> None:
    run = new_run(tmp_path, [outcome.case for outcome in outcomes])
    present = [outcome for outcome in outcomes if not outcome.is_missing]
    (tmp_path / "index.json").write_text(index(*present), encoding="utf-8")
    (tmp_path / "late.json").write_text(details(), encoding="utf-8")
    assert run.report(trouble) == failed
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["is_good"] is (failed == 0)
    assert summary["trouble"] == trouble
    assert sum(summary["verdicts"]["behaviorClose"].values()) == summary["cases"] == len(outcomes)
    failures = [outcome.case for outcome in outcomes if not outcome.is_good]
    assert [failure["case"] for failure in summary["failures"]] == failures
    printed = capsys.readouterr().out
    assert trouble in printed
    assert all(case in printed for case in failures)


def test_what_an_earlier_run_left_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(index(GOOD), encoding="utf-8")
    assert new_run(tmp_path, [GOOD.case]).report("") == 1


def test_roles_come_first_and_patterns_are_lists() -> None:
    arguments = ["server", "client", "--cases", "1.*", "7.1.5", "--exclude", "1.2.*"]
    options = autobahn.parse_arguments(arguments)
    assert options.roles == ["server", "client"]
    assert options.cases == ["1.*", "7.1.5"]
    assert options.exclude == ["1.2.*"]


@pytest.mark.parametrize(
    ("troubles", "status", "counts"),
    [
        (["", ""], 0, Counts(4, 0)),
        (["", "the client ended with status 1"], 1, Counts(3, 1)),
    ],
)
def test_the_last_line_counts_the_cases_of_all_roles_and_the_status_tells_success(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    troubles: list[str],
    status: int,
    counts: Counts,
) -> None:
    class Done(autobahn.Run):
        """A run in which every case was good, each role in a folder of its own."""

        def run(self) -> str:
            folder = tmp_path / self._role
            text = index(*(GOOD._replace(case=case) for case in self._cases))
            (folder / "index.json").write_text(text, encoding="utf-8")
            return troubles.pop(0)

    class Installed(suite.Suite):
        def list_cases(self) -> list[str]:
            return AVAILABLE

    monkeypatch.setattr(autobahn, "prepare", lambda: Installed("python2.7", tmp_path))
    monkeypatch.setattr(autobahn, "Run", Done)
    arguments = ["server", "client", "--cases", "6.4.*", "--out", str(tmp_path)]
    assert autobahn.main(arguments) == status
    printed = capsys.readouterr().out
    assert parse_counts(printed.splitlines()[-1]) == counts


# --- the Python that the suite runs on ------------------------------------------------------------


def program(path: Path, status: int = 0) -> str:
    """Make a program that does nothing, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_python_2_7_is_looked_for_on_path_and_in_pyenv(tmp_path: Path) -> None:
    on_path = program(tmp_path / "bin" / "python2.7")
    in_pyenv = program(tmp_path / ".pyenv" / "versions" / "2.7.18" / "bin" / "python")
    program(tmp_path / ".pyenv" / "versions" / "3.12.7" / "bin" / "python")
    environment = {"PATH": str(tmp_path / "bin")}
    assert list(interpreters.candidates27(environment, tmp_path)) == [on_path, in_pyenv]


def test_a_python_2_7_that_is_named_is_the_only_one_looked_at(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python2.7")
    environment = {"PATH": str(tmp_path / "bin"), "AUTOBAHN_PYTHON": "/opt/python2"}
    assert list(interpreters.candidates27(environment, tmp_path)) == ["/opt/python2"]


def test_the_first_python_2_7_that_answers_well_is_taken(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "python2.7", status=127)
    in_pyenv = program(tmp_path / ".pyenv" / "versions" / "2.7.18" / "bin" / "python")
    assert suite.find_python({"PATH": str(tmp_path / "bin")}, tmp_path) == in_pyenv


def test_a_named_program_that_is_no_python_2_7_is_told(tmp_path: Path) -> None:
    named = program(tmp_path / "python", status=1)
    with pytest.raises(suite.CannotRun, match="AUTOBAHN_PYTHON names no Python 2"):
        suite.find_python({"AUTOBAHN_PYTHON": named}, tmp_path)


def test_without_a_python_2_7_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(suite.CannotRun, match=r"pyenv install 2\.7\.18"):
        suite.find_python({"PATH": str(tmp_path)}, tmp_path)


def test_what_stops_the_suite_from_being_run_gives_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOBAHN_PYTHON", "/nonexistent/python2.7")
    assert autobahn.main(["server"]) == 2
    assert capsys.readouterr().err.startswith("autobahn: AUTOBAHN_PYTHON names no Python 2.7 ")


def test_every_package_of_the_suite_is_pinned() -> None:
    lines = suite.PINS.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "autobahntestsuite" in {pin.partition("==")[0] for pin in pins}
    assert all(pin.count("==") == 1 for pin in pins)
