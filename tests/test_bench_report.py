"""What the benchmark makes of its runs: medians, ratios, marks, tables, and the stored document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import bench
import pytest
from benchmark import report
from benchmark.compare import Measurement
from benchmark.report import Row, gather, markdown_table, number, ratio


def run(server: str = "ours", scenario: str = "E1", **figures: Any) -> Measurement:
    usual: dict[str, Any] = {"cpu_us": 5.0, "rate": 1000.0, "busy": 0.95, "round": 1}
    return Measurement(server, scenario, **{**usual, **figures})


RUNS = [
    *(run(cpu_us=value, round=place) for place, value in enumerate((4.0, 9.0, 5.0), 1)),
    *(run("peer", cpu_us=value, round=place) for place, value in enumerate((10.0, 11.0), 1)),
]


def document(runs: list[Measurement], **missing: str) -> dict[str, Any]:
    return report.document({"date": "2026-01-31"}, {"rounds": 3}, missing, runs)


def cells(text: str, first: str) -> list[str]:
    """Return the cells of the first line that begins with a word."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize(
    ("values", "median", "spread"),
    [((5.0,), 5.0, 0.0), ((4.0, 9.0, 5.0), 5.0, 1.0), ((4.0, 5.0), 4.5, 1 / 4.5)],
)
def test_a_row_holds_the_median_and_how_far_the_rounds_lie_apart(
    values: tuple[float, ...], median: float, spread: float
) -> None:
    row = Row([run(cpu_us=value) for value in values])
    assert row.median("cpu_us") == median
    assert row.spread == pytest.approx(spread)


@pytest.mark.parametrize(
    ("figures", "marks"),
    [
        ({"generator_busy": 0.5}, ""),
        ({"generator_busy": 0.95, "busy": 0.5}, "*"),
        ({"generator_busy": 0.95, "busy": 0.97}, ""),
        ({"generator_us": 6.0}, "^"),
        ({"generator_us": 6.0, "generator_busy": 0.99, "busy": 0.8}, "*^"),
    ],
)
def test_a_row_says_when_the_generator_was_the_limit(figures: Any, marks: str) -> None:
    assert Row([run(**figures)]).marks == marks


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "-"),
        (0.123, "0.12"),
        (3.456, "3.46"),
        (12.34, "12.3"),
        (123.4, "123"),
        (98765, "98,765"),
    ],
)
def test_a_figure_has_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_a_ratio_without_a_reference_is_a_dash() -> None:
    assert ratio(3.0, 2.0) == "1.50"
    assert ratio(3.0, None) == "-"


def test_failed_runs_give_no_row() -> None:
    assert list(gather([*RUNS, run("broken", error="it did not start")])) == [
        *(("E1", "ours"), ("E1", "peer"))
    ]


def test_the_overview_has_the_servers_side_by_side_with_ratios() -> None:
    text = report.overview(RUNS, "peer")
    assert cells(text, "CPU us an operation") == ["CPU us an operation", "ours", "peer"]
    assert cells(text, "E1")[1:] == ["5.00 (0.48)", "10.5 (1.00)"]


def test_the_overview_has_no_ratios_without_the_reference() -> None:
    assert cells(report.overview(RUNS, "absent"), "E1")[1:] == ["5.00", "10.5"]


def test_the_overview_has_memory_of_held_connections_and_round_trips_of_a_single_one() -> None:
    runs = [run(scenario="I1", memory_kib=2.5), run(scenario="E3", rate=12_345.0)]
    text = report.overview(runs, "ours")
    assert cells(text, "I1 KiB a connection")[1:] == ["2.50 (1.00)"]
    assert cells(text, "E3 round trips/s")[1:] == ["12,345"]


def test_a_server_that_was_not_put_under_a_load_has_a_dash() -> None:
    text = report.overview([*RUNS, run(scenario="E2")], "peer")
    assert cells(text, "E2")[1:] == ["5.00", "-"]


def test_the_table_of_a_load_begins_with_the_server_that_takes_the_least_time() -> None:
    text = report.load_table(RUNS, "E1", "peer")
    assert [line.split()[1] for line in text.splitlines()[2:]] == ["ours", "peer"]
    assert cells(text, "ours")[:4] == ["ours", "5.00", "0.48", "1.00"]
    assert cells(text, "ours")[-2:] == ["100%", "3"]


@pytest.mark.parametrize(
    ("load", "title", "is_there"),
    [("C1", "unclean", True), ("E1", "unclean", False), ("I1", "p50 us", False)],
)
def test_a_load_has_only_the_columns_that_mean_something(
    load: str, title: str, is_there: bool
) -> None:
    headings = report.load_table([run(scenario=load)], load, "ours").splitlines()[0]
    assert (title in headings) == is_there


def test_a_table_is_padded() -> None:
    assert markdown_table(["a", "long"], [["1,000", "2"]]).splitlines() == [
        "| a     | long |",
        "|-------|------|",
        "| 1,000 | 2    |",
    ]


def test_the_notes_tell_of_terms_failures_and_limits_once() -> None:
    runs = [
        run(scenario="E1d", agreed="level 6"),
        run(scenario="E1d", agreed="level 6", round=2),
        run("peer", error="it does not listen"),
        run("fast", busy=0.3, generator_busy=0.99),
    ]
    assert report.notes(runs) == [
        report.BOUND_NOTE,
        "E1d: ours agreed to level 6",
        "E1: peer failed: it does not listen",
    ]


def test_a_report_has_the_machine_the_tables_and_who_was_left_out() -> None:
    text = report.markdown(document(RUNS, socketify="no libuv"), "peer")
    assert "- date: 2026-01-31" in text
    assert "Settings: rounds 3." in text
    assert "### E1: echo, 100 connections x 1 in flight x 32 B" in text
    assert text.endswith("- socketify was left out: no libuv\n")


def test_a_document_survives_json() -> None:
    stored = json.loads(json.dumps(document(RUNS)))
    assert report.read_measurements(stored) == RUNS


@pytest.mark.parametrize("stored", [{}, {"measurements": [{"server": "ours", "speed": 3}]}])
def test_a_foreign_document_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no document of the benchmark"):
        report.read_measurements(stored)


def test_tables_are_made_again_from_kept_runs_of_several_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, runs in (("one", RUNS[:3]), ("two", RUNS[3:])):
        (tmp_path / name).write_text(json.dumps(document(runs)), encoding="utf-8")
    files = [str(tmp_path / "one"), str(tmp_path / "two")]
    target = tmp_path / "tables.md"
    words = ["tables", *files, "--reference", "peer", "--markdown", str(target)]
    assert bench.main(words) == 0
    assert target.read_text(encoding="utf-8") == report.markdown(document(RUNS), "peer")
    assert "0.48" in capsys.readouterr().out
