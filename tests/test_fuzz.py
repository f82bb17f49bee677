"""A short run of every target, and the parts of the tool that make inputs and report findings."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzz
import pytest
from fuzzing import atheris_engine, random_engine
from fuzzing.findings import Finding, TooSlow, judge, minimised
from fuzzing.mutation import MAX_SIZE, minimise, mutate
from fuzzing.properties import Broken, cut, require, same_for_every_split, splits
from fuzzing.random_engine import Result, Unit, explore, make_inputs
from fuzzing.targets import TARGETS, Target

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "fuzz.py"


def refuse_semicolons(data: bytes) -> None:
    require(b";" not in data, "there is a semicolon")


def raise_at_255(data: bytes) -> None:
    if 255 in data:
        raise KeyError(255)


PLANTED = {
    "semicolon": Target("semicolon", refuse_semicolons, lambda source: b"a=b", (b"a;b",)),
    "octet": Target("octet", raise_at_255, lambda source: bytes(source.randint(0, 9)), (b"x",)),
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add targets that are broken."""
    for name, target in PLANTED.items():
        monkeypatch.setitem(TARGETS, name, target)


# --- the targets --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    result = explore(Unit(name, "short", 120))
    assert result.finding is None, str(result.finding)
    assert result.inputs == 120


@pytest.mark.parametrize("name", TARGETS)
def test_the_empty_input_and_noise_are_inputs_like_any_other(name: str) -> None:
    source = random.Random(name)
    for size in (0, 1, 2, 3, 20, 200, MAX_SIZE):
        TARGETS[name].check(bytes(source.choices(range(256), k=size)))


@pytest.mark.parametrize("name", TARGETS)
def test_generated_inputs_differ_and_come_from_the_seed_alone(name: str) -> None:
    unit = Unit(name, "seed", 40)
    inputs = list(make_inputs(TARGETS[name], unit))
    assert len(inputs) == 40
    assert len(set(inputs)) > 4
    assert inputs == list(make_inputs(TARGETS[name], unit))
    assert inputs != list(make_inputs(TARGETS[name], unit._replace(seed="another")))


# --- the random engine --------------------------------------------------------------------------


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("name", "data", "error"),
    [("semicolon", b";", "Broken: there is a semicolon"), ("octet", b"\xff", "KeyError: 255")],
)
def test_what_is_broken_is_found_and_made_small(name: str, data: bytes, error: str) -> None:
    result = explore(Unit(name, "seed", 2_000))
    assert result.finding is not None
    assert result.finding[:3] == (name, data, error)
    # The promise is kept nowhere in properties.py, which only tells of it.
    assert Path(result.finding.place.rpartition(":")[0]).samefile(__file__)
    assert result.inputs < 2_000


@pytest.mark.usefixtures("planted")
def test_the_same_seed_finds_the_same() -> None:
    first, second = (explore(Unit("semicolon", "seed", 2_000)) for _ in range(2))
    assert (first.inputs, first.finding) == (second.inputs, second.finding)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")
def test_what_hangs_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(data: bytes) -> None:
        while True:
            pass

    monkeypatch.setitem(TARGETS, "hanging", PLANTED["octet"]._replace(name="hanging", check=hang))
    monkeypatch.setattr(random_engine, "PATIENCE", 0.01)
    before = signal.getsignal(signal.SIGALRM)
    try:
        result = random_engine.work(Unit("hanging", "seed", 10))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert result.finding is not None
    assert result.finding.error == "TooSlow: a check was still at work after 0.01 seconds"


def test_the_program_runs_units_in_processes_and_counts_them() -> None:
    command = [sys.executable, str(SCRIPT), "--engine", "random", "--targets", "envelope", "origin"]
    done = subprocess.run(
        [*command, "--inputs", "2100", "--jobs", "1"],
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["envelope", "2,100"] in rows
    assert ["origin", "2,100"] in rows
    assert done.stdout.endswith("4,200 inputs, 0 findings\n")


# --- making inputs ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 31, 32, 33, 700])
def test_a_split_loses_nothing_and_is_the_same_every_time(size: int) -> None:
    data = bytes(random.Random(size).choices(range(256), k=size))
    ways = list(splits(data))
    assert ways[0] == [data]
    assert len(ways) == (3 if size > 1 else 1)
    assert all(b"".join(pieces) == data for pieces in ways)
    assert ways == list(splits(data))


@pytest.mark.parametrize("size", [2, 3, 32])
def test_a_short_input_is_cut_into_its_octets(size: int) -> None:
    data = bytes(range(size))
    _, octets, _ = splits(data)
    assert [piece for piece in octets if piece] == [bytes((octet,)) for octet in data]


def test_places_to_cut_at_are_the_ends_of_the_pieces() -> None:
    assert cut(b"abcdef", []) == [b"abcdef"]
    assert cut(b"abcdef", [0, 2, 2, 5]) == [b"", b"ab", b"", b"cde", b"f"]


def test_an_outcome_that_depends_on_the_split_is_a_broken_promise() -> None:
    assert same_for_every_split(b"".join, b"abc") == b"abc"
    with pytest.raises(Broken, match=r"cut into \[0, 1, 1, 1\]: 4; whole: 1"):
        same_for_every_split(len, b"abc")


def test_mutations_change_the_input_and_keep_it_in_bounds() -> None:
    source = random.Random(6455)
    data = b"GET / HTTP/1.1\r\n"
    changed = [mutate(source, data, [b"word", b"x" * MAX_SIZE]) for _ in range(3_000)]
    assert max(map(len, changed)) == MAX_SIZE
    assert min(map(len, changed)) == 0
    assert len(set(changed)) > 2_000
    assert any(b"word" in each and each.startswith(b"GET") for each in changed)


def test_even_nothing_can_be_mutated() -> None:
    source = random.Random(6455)
    assert {mutate(source, b"", [b"word"]) for _ in range(200)} > {b"", b"word"}


@pytest.mark.parametrize(
    ("data", "smallest"),
    [(b"x" * 500 + b"a" + b"y" * 300 + b"b", b"ab"), (b"ab", b"ab"), (b"a" + b"b" * 99, b"ab")],
)
def test_what_does_not_matter_is_taken_out(data: bytes, smallest: bytes) -> None:
    assert minimise(data, lambda each: b"a" in each and b"b" in each) == smallest


def test_making_an_input_smaller_ends_in_time() -> None:
    asked = []

    def is_bad(data: bytes) -> bool:
        asked.append(data)
        return False

    assert minimise(b"x" * MAX_SIZE, is_bad, attempts=100) == b"x" * MAX_SIZE
    assert len(asked) == 100


# --- findings -----------------------------------------------------------------------------------


def test_a_finding_shows_target_error_place_and_input() -> None:
    assert judge("octet", raise_at_255, b"fine") is None
    finding = judge("octet", raise_at_255, b"\xff")
    assert str(finding).startswith("octet: KeyError: 255\n    at ")
    assert str(finding).endswith("\n    input b'\\xff'")


def test_what_hangs_is_not_run_again_to_make_it_smaller() -> None:
    finding = Finding("target", b"data", f"{TooSlow.__name__}: still at work", "file:1")

    def hang(data: bytes) -> None:
        pytest.fail("it was run again")

    assert minimised(finding, hang) is finding


def test_another_error_is_not_taken_for_the_same_finding() -> None:
    def check(data: bytes) -> None:
        if b"a" in data:
            raise KeyError("the one")
        raise KeyError("the other")

    finding = judge("target", check, b"xxaxx")
    assert finding is not None
    assert minimised(finding, check).data == b"a"


def test_of_findings_at_the_same_place_the_shortest_is_reported() -> None:
    long, short = (Finding("one", data, "error", "file:1") for data in (b"long", b"s"))
    other = Finding("two", b"data", "error", "file:1")
    assert fuzz.distinct([None, long, short, other]) == [short, other]


# --- the command line ---------------------------------------------------------------------------


def test_without_options_everything_runs_for_a_minute() -> None:
    options = fuzz.parse_arguments([])
    assert options.targets == list(TARGETS)
    assert (options.inputs, options.seconds, options.jobs) == (None, 60, 2)
    assert fuzz.parse_arguments(["--inputs", "5"]).seconds is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--targets", "unknown"],
        ["--inputs", "0"],
        ["--seconds", "-1"],
        ["--jobs", "two"],
        ["--engine", "x"],
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        fuzz.parse_arguments(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_an_engine_that_is_not_installed_cannot_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atheris_engine, "IS_INSTALLED", False)
    assert fuzz.main(["--engine", "atheris"]) == 2
    assert "atheris is not installed" in capsys.readouterr().err


def test_a_report_sums_up_by_target(capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result("a", 100, 2.0, None), Result("b", 7, 0.0, None), Result("a", 50, 1.0, None)]
    assert fuzz.report(results) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["a", "150", "3.0", "50"] in rows
    assert rows[-1] == ["157", "inputs,", "0", "findings"]


def test_a_finding_is_printed_and_makes_the_run_fail(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("a", b"\x00", "KeyError: 1", "file.py:3")
    assert fuzz.report(fuzz.watch([Result("a", 3, 1.0, finding)])) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"FOUND {finding}\n")
    assert output.endswith("3 inputs, 1 findings\n")


def test_a_run_that_is_interrupted_reports_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    def results() -> Iterator[Result]:
        yield Result("a", 3, 1.0, None)
        raise KeyboardInterrupt

    assert fuzz.watch(results()) == [Result("a", 3, 1.0, None)]
    assert capsys.readouterr().out == "interrupted\n"


# --- the atheris engine -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "executed"),
    [
        ("#2\tINITED cov: 3\n#4096\tpulse  cov: 3\nDone 5000 runs in 3 second(s)\n", 5000),
        ("#2\tINITED cov: 3\n#17\tNEW    cov: 4\n ==1== ERROR: libFuzzer: fuzz target exited", 17),
        ("INFO: Instrumenting websocket\n", 0),
    ],
)
def test_executed_inputs_are_counted_by_the_last_line_about_them(log: str, executed: int) -> None:
    assert atheris_engine.parse_executed(log) == executed


def test_words_and_inputs_are_written_for_libfuzzer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atheris_engine, "WORK", tmp_path)
    tmp_path.joinpath("octet").mkdir()
    words = PLANTED["octet"]._replace(dictionary=(b'"\\', b"", b"ab"))
    assert (
        atheris_engine.write_dictionary(words).read_text("ascii") == '"\\x22\\x5c"\n"\\x61\\x62"\n'
    )
    corpus = atheris_engine.write_corpus(PLANTED["octet"], "0")
    assert len(list(corpus.iterdir())) == 200


def test_what_libfuzzer_leaves_is_judged_again_and_made_smaller(tmp_path: Path) -> None:
    target = PLANTED["octet"]
    assert atheris_engine.find(target, tmp_path, 0) is None
    died = atheris_engine.find(target, tmp_path, 1)
    assert died is not None
    assert died.error == "the process ended with status 1"
    tmp_path.joinpath("crash-1234").write_bytes(b"abc\xffdef")
    crash = atheris_engine.find(target, tmp_path, 77)
    assert crash is not None
    assert crash.data == b"\xff"


def test_an_input_that_libfuzzer_gave_up_on_is_not_judged_again(tmp_path: Path) -> None:
    tmp_path.joinpath("timeout-1234").write_bytes(b"\xff")
    finding = atheris_engine.find(PLANTED["octet"], tmp_path, 70)
    assert finding is not None
    assert finding[:3] == ("octet", b"\xff", "TooSlow: timeout")
