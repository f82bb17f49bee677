"""Tests of the pure parts of tools/: what is found, selected, read from output, and summed up."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import check
import interpreters
import pytest
import sanitize
from interpreters import Interpreter
from results import Counts, Result, one_line, parse_counts, table, total

PY39 = Interpreter("cpython", (3, 9, 18), "/usr/bin/python3.9")
PY310 = Interpreter("cpython", (3, 10, 1), "/usr/bin/python3.10")
PYPY = Interpreter("pypy", (3, 9, 16), "/usr/bin/pypy3")

PASSED = Result("py39", "CPython 3.9.18", "passed", 12.34, Counts(passed=40))
BROKEN = Result("py310", "CPython 3.10.1", "failed", 3.0, Counts(passed=37, failed=3))
LINT = Result("lint", "CPython 3.10.1", "failed", 1.0)
MISSING = Result("py313", "", "missing")
ABSENT = Result("autobahn", "no Python 2.7", "not here")
UNSANITIZED = Result("speedups", "no sanitizers", "not here")


# --- interpreters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("cpython 3 9 18 /usr/bin/python3.9\n", PY39),
        ("pypy 3 9 16 /usr/bin/pypy3\n", PYPY),
        ("cpython 3 12 0 /opt/my python/bin/python\n", "/opt/my python/bin/python"),
        ("cpython 3 8 18 /usr/bin/python3.8\n", None),
        ("cpython-t 3 13 0 /usr/bin/python3.13t\n", None),
        ("graalpy 3 11 7 /usr/bin/graalpy\n", None),
        ("cpython 3 9 18\n", None),
        ("", None),
    ],
)
def test_an_answer_to_the_probe_is_an_interpreter_that_is_supported_or_nothing(
    answer: str, expected: Interpreter | str | None
) -> None:
    parsed = interpreters.parse_answer(answer)
    if isinstance(expected, str):
        assert parsed is not None
        assert parsed.executable == expected
    else:
        assert parsed == expected


def test_this_very_python_answers_the_probe() -> None:
    found = interpreters.parse_answer(interpreters.ask(sys.executable))
    assert found is not None
    assert found.version == sys.version_info[:3]


def test_a_program_that_fails_or_is_not_there_answers_nothing(tmp_path: Path) -> None:
    shim = tmp_path / "python3.9"
    shim.write_text("#!/bin/sh\necho no such version >&2\nexit 127\n")
    shim.chmod(0o755)
    assert interpreters.ask(str(shim)) == ""
    assert interpreters.ask(str(tmp_path / "python3.10")) == ""


def test_environments_are_named_after_the_interpreter() -> None:
    assert [python.environment for python in (PY39, PY310, PYPY)] == ["py39", "py310", "pypy39"]
    assert [str(python) for python in (PY310, PYPY)] == ["CPython 3.10.1", "PyPy 3.9.16"]


def test_of_each_version_the_newest_release_is_chosen_and_pypy_comes_last() -> None:
    older = PY39._replace(version=(3, 9, 2), executable="/usr/local/bin/python3.9")
    chosen = interpreters.choose([PYPY, None, PY310, PY39, older])
    assert list(chosen.items()) == [("py39", PY39), ("py310", PY310), ("pypy39", PYPY)]


@pytest.mark.parametrize("is_set", [True, False])
def test_pyenv_is_looked_for_in_its_variable_or_at_home(tmp_path: Path, is_set: bool) -> None:
    root = tmp_path / "elsewhere" if is_set else tmp_path / ".pyenv"
    for version in ("3.10.1", "pypy3.10-7.3.12"):
        (root / "versions" / version / "bin").mkdir(parents=True)
        (root / "versions" / version / "bin" / "python").touch()
    environment = {"PYENV_ROOT": str(root)} if is_set else {}
    found = list(interpreters.in_pyenv(environment, tmp_path))
    assert found == [
        str(root / "versions" / version / "bin" / "python")
        for version in ("3.10.1", "pypy3.10-7.3.12")
    ]


def test_a_machine_without_pyenv_has_nothing_in_it(tmp_path: Path) -> None:
    assert list(interpreters.in_pyenv({}, tmp_path)) == []


# --- the command line ---------------------------------------------------------------------------


def test_without_a_choice_everything_is_selected() -> None:
    assert check.select(["py39", "lint"], []) == ["py39", "lint"]


def test_a_choice_is_run_in_the_usual_order() -> None:
    assert check.select(["py39", "py310", "lint"], ["lint", "py39"]) == ["py39", "lint"]


def test_a_choice_that_is_not_there_is_refused_with_what_is_there() -> None:
    with pytest.raises(check.CannotCheck, match="no environment py27; here are py39, lint"):
        check.select(["py39", "lint"], ["py27"])


def test_options_are_lists_of_names() -> None:
    options = check.parse_arguments(["--env", "py39", "--env", "lint", "--require", "py39, py310"])
    assert options.env == ["py39", "lint"]
    assert options.require == ["py39", "py310"]


def test_what_was_required_and_did_not_run_is_missing() -> None:
    assert check.missing(["py39", "py313"], [PASSED, LINT]) == [MISSING]


@pytest.mark.parametrize(
    ("runtime", "python27", "found"),
    [
        (None, None, []),
        ("/usr/lib/libasan.so", None, ["speedups"]),
        (None, "/usr/bin/python2.7", ["autobahn"]),
        ("/usr/lib/libasan.so", "/usr/bin/python2.7", ["speedups", "autobahn"]),
    ],
)
def test_what_takes_sanitizers_or_a_python_2_7_is_run_where_they_are(
    monkeypatch: pytest.MonkeyPatch, runtime: str | None, python27: str | None, found: list[str]
) -> None:
    monkeypatch.setattr(sanitize, "find_runtime", lambda: runtime)
    monkeypatch.setattr(interpreters, "find_python27", lambda environment, home: python27)
    assert list(check.found_special()) == found


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([PASSED], [UNSANITIZED, ABSENT]),
        ([PASSED, Result("autobahn", "", "passed")], [UNSANITIZED]),
        ([PASSED, Result("speedups", "", "failed")], [ABSENT]),
        ([Result("speedups", "", "missing"), Result("autobahn", "", "missing")], []),
    ],
    ids=["neither run", "one run", "the other run", "both required"],
)
def test_what_is_special_is_not_here_unless_it_ran_or_was_required(
    results: list[Result], expected: list[Result]
) -> None:
    assert check.not_here(results) == expected


def test_a_python_without_venv_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "LOGS", tmp_path)
    monkeypatch.setattr(check, "is_intact", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(check.CannotCheck, match="apt install python3-venv"):
        check.prepare_tox()


def test_settings_of_the_callers_python_do_not_reach_the_checks() -> None:
    given = {"PATH": "/bin", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/y", "PYTEST_ADDOPTS": "-x"}
    variables = check.variables({**given, "PIP_CERT": "/z", "PIP_CACHE_DIR": "/home/x"})
    assert variables["PATH"] == "/bin"
    assert variables["PIP_CERT"] == "/z"
    assert variables["PIP_CACHE_DIR"].startswith(str(check.WORK))
    assert not variables.keys() & {"PYTHONPATH", "VIRTUAL_ENV", "PYTEST_ADDOPTS"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("home = /x\nimplementation = PyPy\nversion_info = 3.9.16.final.0\n", "PyPy 3.9.16"),
        ("version_info = 3.13.0.final.0\nimplementation = CPython\n", "CPython 3.13.0"),
        ("home = /x\n", ""),
    ],
)
def test_the_interpreter_of_an_environment_is_read_from_its_settings(
    text: str, expected: str
) -> None:
    assert check.parse_settings(text) == expected


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12 passed in 0.05s", Counts(12, 0)),
        ("====== 12 passed in 0.05s ======", Counts(12, 0)),
        ("1 failed, 11 passed, 2 skipped in 75.31s (0:01:15)", Counts(11, 1)),
        ("3 failed, 9 passed, 2 errors in 1.00s", Counts(9, 5)),
        ("1 error in 0.20s", Counts(0, 1)),
        ("1031 passed, 3 failed in 1714.0s", Counts(1031, 3)),
        ("5 passed, 1 warning in 1s", Counts(5, 0)),
        ("no tests ran in 0.01s", None),
        ("  py39: OK (1.23=setup[0.1]+cmd[1.1] seconds)", None),
        ("we had 3 passed in 1.0s of it", None),
        ("", None),
    ],
)
def test_the_closing_line_of_pytest_tells_the_numbers(line: str, expected: Counts | None) -> None:
    output = f"py39: commands[0]> pytest\n....F\n{line}\n  congratulations :) (3.14 seconds)\n"
    assert parse_counts(output) == expected


def test_the_last_of_several_closing_lines_counts() -> None:
    assert parse_counts("2 passed in 0.1s\n7 passed in 0.2s\n") == Counts(7, 0)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([], Counts(0, 0)),
        ([PASSED, BROKEN], Counts(77, 3)),
        ([PASSED, LINT, MISSING], Counts(40, 2)),
        ([PASSED, ABSENT], Counts(40, 0)),
        ([Result("py39", "", "timed out", 900.0, Counts(passed=5))], Counts(5, 1)),
    ],
)
def test_the_sum_counts_an_environment_that_failed_without_a_failed_test(
    results: list[Result], expected: Counts
) -> None:
    assert total(results) == expected


def test_the_table_has_a_row_for_each_environment() -> None:
    assert table([PASSED, BROKEN, LINT, MISSING, ABSENT]).splitlines() == [
        "environment  interpreter     result    tests  seconds",
        "-----------  --------------  --------  -----  -------",
        "py39         CPython 3.9.18  passed       40     12.3",
        "py310        CPython 3.10.1  failed       40      3.0",
        "lint         CPython 3.10.1  failed               1.0",
        "py313                        missing                 ",
        "autobahn     no Python 2.7   not here                ",
    ]


def test_one_line_reports_one_environment() -> None:
    assert one_line(PASSED) == "py39       passed       12.3 s  CPython 3.9.18"


@pytest.mark.parametrize(
    ("results", "status", "last_line"),
    [
        ([PASSED, PASSED], 0, "80 passed, 0 failed"),
        ([PASSED, ABSENT], 0, "40 passed, 0 failed"),
        ([PASSED, BROKEN], 1, "77 passed, 3 failed"),
        ([PASSED, MISSING], 1, "40 passed, 1 failed"),
    ],
)
def test_the_last_line_is_the_sum_and_the_status_tells_success(
    capsys: pytest.CaptureFixture[str], results: list[Result], status: int, last_line: str
) -> None:
    assert check.report(results) == status
    assert capsys.readouterr().out.splitlines()[-1] == last_line


def test_all_environments_run_and_results_keep_their_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, package: Path, executables: list[str]) -> Result:
        assert executables == [PY310.executable]
        return Result(name, "", "passed")

    monkeypatch.setattr(check, "run_environment", run)
    results = check.run_all(["py310", "lint"], Path("a.tar.gz"), {"py310": PY310}, jobs=2)
    assert [result.environment for result in results] == ["py310", "lint"]
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == [
        "lint",
        "py310",
    ]
