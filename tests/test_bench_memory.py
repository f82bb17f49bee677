"""What the benchmark says of the memory of idle connections, and what one of them may hold."""

from __future__ import annotations

import sys
from collections import Counter

import bench
import pytest
from benchmark import memory
from benchmark.environment import CannotRun
from benchmark.memory import Cost, Row, compare_counts, count_objects, measure_rows

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or not sys.platform.startswith("linux"),
    reason="other Pythons have other objects, other systems no epoll",
)

CONNECTIONS = 40


def test_the_command_needs_no_options() -> None:
    options = bench.parse_arguments(["memory"])
    assert options.run is bench.run_memory
    assert options.connections == memory.DEFAULT_CONNECTIONS


class Part:
    """Hold a text, and what is shared by all."""

    __slots__ = ("shared", "text")

    def __init__(self, number: int, shared: object) -> None:
        self.text = f"part {number}"
        self.shared = shared


class Whole:
    """Hold a part in its dictionary, a pair beside it, and a slot that is not set."""

    __slots__ = ("__dict__", "unset")

    def __init__(self, number: int, shared: object) -> None:
        self.part = Part(number, shared)
        self.pair = (number + 1_000_000, "shared")


def wholes(count: int) -> list[Whole]:
    shared = bytearray(1000)
    return [Whole(number, shared) for number in range(count)]


def test_objects_are_counted_by_who_holds_them() -> None:
    numbers, sizes = count_objects(wholes(3), object())
    assert numbers["Whole", "Whole"] == numbers["Part", "Part"] == 3
    assert numbers["Part.text", "str"] == 3
    assert numbers["Whole.pair", "tuple"] == numbers["Whole.pair", "int"] == 3
    assert numbers["Part.shared", "bytearray"] == 1
    assert sizes["Part.shared", "bytearray"] >= 1000
    assert all(size % 16 == 0 for size in sizes.values())


def test_what_several_hold_is_not_in_the_difference() -> None:
    rows = compare_counts(count_objects(wholes(5), 0), count_objects(wholes(15), 0), 10)
    found = {(row.holder, row.kind): row.number for row in rows}
    assert found["Part.text", "str"] == 1
    assert "Part.shared" not in {row.holder for row in rows}
    assert [row.size for row in rows] == sorted((row.size for row in rows), reverse=True)


def test_a_table_that_grows_counts_without_an_object() -> None:
    few, many = {("Pool._open", "dict"): 1}, {("Pool._open", "dict"): 1}
    sizes = {("Pool._open", "dict"): 640}, {("Pool._open", "dict"): 1280}
    (row,) = compare_counts(
        (Counter(few), Counter(sizes[0])), (Counter(many), Counter(sizes[1])), 10
    )
    assert row == Row("Pool._open", "dict", 0, 64)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Return what a connection holds that has the shortest head."""
    return measure_rows("bare", CONNECTIONS)


def test_each_connection_is_counted_with_its_session_and_its_timer(rows: list[Row]) -> None:
    numbers = {row.holder: row.number for row in rows if row.holder == row.kind}
    names = ("Connection", "Session", "Timer", "Slot", "Transport", "FrameReader", "socket")
    assert {name: numbers[name] for name in names} == dict.fromkeys(names, 1)


def test_a_connection_with_session_and_timer_keeps_the_bound(rows: list[Row]) -> None:
    cost = Cost(rows, 0.0)
    assert 0 < cost.of_session < cost.counted < memory.BOUND


def test_the_table_tells_of_every_head(rows: list[Row]) -> None:
    more = [*rows, Row("Headers", "str", 1, 640)]
    costs = {"bare": Cost(rows, 2048.0), "Chromium": Cost(more, 3072.0)}
    lines = memory.table(costs).splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[4:6] for line in lines}
    assert [cell.strip() for cell in cells["the same in KiB"]] == ["2.00", "3.00"]
    assert [cell.strip() for cell in cells["Headers"]] == ["-", "640"]
    assert memory.is_kept(costs)
    assert not memory.is_kept({"bare": Cost([], memory.BOUND + 1)})


def test_the_command_prints_the_table_and_judges_the_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "HEADS", {"bare": memory.HEADS["bare"]})
    monkeypatch.setattr(memory, "BOUND", 10 * 1024 * 1024)
    monkeypatch.setattr(bench, "raise_descriptor_limit", lambda: None)
    assert bench.main(["memory", "--connections", "8"]) == 0
    output = capsys.readouterr().out
    assert "| Session " in output
    assert "| the process grows by " in output


def test_more_connections_than_a_process_may_hold_are_refused() -> None:
    with pytest.raises(CannotRun, match="a process may hold"):
        memory.measure_memory(10**9)


def test_another_system_is_told_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(CannotRun, match="CPython on Linux only"):
        memory.measure_memory(1)
