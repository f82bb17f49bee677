"""The benchmark: its command line, its tables of loads and servers, and one tiny run of all modes.

Nothing here looks at how long anything takes.
"""

from __future__ import annotations

import shutil
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bench
import pytest
from benchmark import compare, environment, timers
from benchmark.compare import Cores, Settings, measure, run_load
from benchmark.environment import CannotRun, compile_generator, parse_requirements
from benchmark.fairness import Fairness
from benchmark.idle import Idle
from benchmark.idle import table as idle_table
from benchmark.load import LoadFailed
from benchmark.scenarios import DEFLATE, SCENARIOS, TLS, Payload, Scenario
from benchmark.servers import (
    OURS,
    PURE,
    SERVERS,
    Running,
    Server,
    ServerFailed,
    find_free_port,
    running,
    select,
)
from benchmark.verify import verify_echo

# --- the command line -----------------------------------------------------------------------------


def test_without_a_command_servers_are_compared() -> None:
    options = bench.parse_arguments(["--servers", "ours,picows", "--scenarios", "E1,E2"])
    assert options.run is bench.run_compare
    assert (options.servers, options.scenarios) == ("ours,picows", "E1,E2")
    assert options.reference == bench.REFERENCE


@pytest.mark.parametrize("name", ["idle", "fairness", "timers", "startup"])
def test_every_other_command_needs_no_options(name: str) -> None:
    assert bench.parse_arguments([name]).run is getattr(bench, f"run_{name}")


def test_idle_takes_several_numbers_of_connections() -> None:
    assert bench.parse_arguments(["idle", "--connections", "5,70"]).connections == [5, 70]
    assert bench.parse_arguments(["idle"]).connections == [10_000, 19_500]


@pytest.mark.parametrize(
    "words",
    [["--rounds", "0"], ["idle", "--connections", "5,x"], ["idle", "--json", "f"], ["tables"]],
)
def test_a_wrong_option_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.parse_arguments(words)
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("available", "expected"),
    [([0, 1], Cores(0, 1)), ([2, 3, 7], Cores(2, 7)), ([4], Cores(None, None))],
)
def test_server_and_generator_get_cores_of_their_own(available: list[int], expected: Cores) -> None:
    assert bench.usual_cores(available) == expected


def test_an_unknown_name_ends_the_tool_with_the_names_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main(["--scenarios", "E1,E99"]) == 2
    error = capsys.readouterr().err
    assert "'E99'" in error
    assert "E1d" in error


# --- tables of loads and servers ------------------------------------------------------------------


def test_servers_are_selected_by_name_and_group_each_once() -> None:
    assert select("picows,ours,picows") == ["picows", *OURS]
    assert select("all") == list(SERVERS)
    with pytest.raises(ValueError, match="there is no server 'nginx'"):
        select("nginx")


def test_loads_are_selected_in_the_order_asked_for() -> None:
    assert [each.name for each in bench.select_scenarios("I1,E1,I1")] == ["I1", "E1"]
    assert bench.select_scenarios("all") == list(SCENARIOS.values())


def test_every_load_of_the_table_is_there() -> None:
    assert list(SCENARIOS) == [
        *("E1", "E2", "E3", "E4", "E5", "E6", "F5", "C1", "E1d", "I1", "E1t", "E4t")
    ]


def test_a_load_that_a_server_cannot_carry_is_not_asked_of_it() -> None:
    assert not SERVERS["picows"].can(SCENARIOS["E1d"])
    assert not SERVERS["socketify"].can(SCENARIOS["E4t"])
    assert all(SERVERS[name].can(load) for name in OURS for load in SCENARIOS.values())


def test_a_server_is_told_what_the_load_needs() -> None:
    server = replace(SERVERS[PURE], python="python3", folder="packages")
    command = server.command(8080, {DEFLATE, TLS})
    assert command[:4] == ["python3", "-m", "benchmark.peers.ours_echo", "8080"]
    assert "--deflate" in command
    assert Path(command[command.index("--tls") + 1]).exists()
    assert server.command(8080, ()) == command[:4]
    assert server.variables()["PYTHONPATH"].endswith("packages")
    assert server.variables()["REACTOR_WEBSOCKET_PURE"] == "1"


def test_the_generator_gets_the_options_of_the_load() -> None:
    words = " ".join(SCENARIOS["E2"].options(2.0, 0.5))
    assert words.startswith("echo --connections 100 --depth 16 --seconds 2 --warm-up 0.5")
    assert {"--text", "--deflate"} <= set(SCENARIOS["E1d"].options(1, 0))
    assert "--tls" in SCENARIOS["E1t"].options(1, 0)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_payload_is_of_the_size_that_is_promised_and_always_the_same(name: str) -> None:
    payload = SCENARIOS[name].payload
    messages = payload.messages()
    assert {len(message) for message in messages} == {payload.size}
    assert messages == payload.messages()
    if payload.is_text:
        assert all(message.decode("ascii") for message in messages)


def test_a_compressed_payload_inflates_with_the_window_that_it_was_made_for() -> None:
    payload = SCENARIOS["E1d"].payload
    for message, sent in zip(payload.messages(), payload.on_the_wire()):
        assert len(sent) < len(message)
        assert zlib.decompressobj(-10).decompress(sent + b"\x00\x00\xff\xff") == message


def test_payloads_are_written_each_behind_its_size(tmp_path: Path) -> None:
    Payload(3).write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"\x03\x00\x00\x00" + Payload(3).messages()[0]


def test_requirements_are_read_without_their_comments() -> None:
    text = "# peers\naiohttp==3.14.5\n\nuvloop==0.22.1 # a loop\n"
    assert parse_requirements(text) == {"aiohttp": "3.14.5", "uvloop": "0.22.1"}


def test_every_requirement_of_a_server_is_pinned() -> None:
    pins = parse_requirements(environment.REQUIREMENTS.read_text(encoding="utf-8"))
    assert {each for server in SERVERS.values() for each in server.requirements} == set(pins)


def test_ours_come_first_and_foreign_interpreters_last() -> None:
    names = [PURE, "picows"]
    found = ["picows", f"{PURE}@PyPy-3.11", PURE]
    assert sorted(found, key=lambda each: environment.position(each, names)) == [
        *(PURE, "picows", f"{PURE}@PyPy-3.11")
    ]


# --- the other measurements -----------------------------------------------------------------------


@pytest.mark.parametrize("name", timers.KINDS)
def test_every_kind_of_timers_runs_all_callbacks_and_forgets_those_cancelled(name: str) -> None:
    kind = timers.KINDS[name]()
    kind.schedule(timers.due_times(50))
    assert kind.expire() == 50
    kind.close()
    kind = timers.KINDS[name]()
    kind.schedule(timers.due_times(50))
    kind.cancel()
    assert kind.expire() == 0
    kind.close()
    assert len(timers.measure_once(timers.KINDS[name], timers.due_times(50))) == 3


def test_idle_connections_are_extrapolated() -> None:
    result = Idle("ours", 10_000, 2048.0, 1024 * 1024, 0.004, 9000.0, 80.0, 20_000)
    assert result.memory_of(100_000) == 1024 * 1024 + 204_800_000
    assert result.share_of(100_000) == pytest.approx(0.04)
    assert "| 10,000 " in idle_table([result])
    assert "| 4.0% " in idle_table([result])


def test_fairness_holds_only_if_it_held_in_every_round() -> None:
    assert Fairness("ours", [150.0], [9_000.0, 4_000.0]).is_fair
    assert not Fairness("ours", [150.0], [4_000.0, 10_500.0]).is_fair


# --- a tiny run -----------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="the load generator is in C, for Linux",
)
TINY = (
    Scenario("E1", "echo", "echo", 2, Payload(40), depth=3),
    Scenario("E4", "large", "echo", 1, Payload(70_000)),
    Scenario("E6", "text", "echo", 1, Payload(200, is_text=True)),
    Scenario("F5", "fan-out", "fanout", 3, Payload(10)),
    Scenario("C1", "churn", "churn", 2, Payload(10)),
    Scenario("E1d", "deflate", "echo", 1, Payload(1100, is_text=True, is_compressed=True)),
    Scenario("I1", "hold", "hold", 4, Payload(10)),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return settings for windows as short as can be, with a generator of this module's own."""
    generator = compile_generator(tmp_path_factory.mktemp("generator"))
    return Settings(generator, Cores(None, None), 0.05, 0.01)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run our server, as it is installed for the tests."""
    log = tmp_path_factory.mktemp("server") / "log"
    server = replace(SERVERS[PURE], python=sys.executable)
    with running(server, {DEFLATE}, None, log) as target:
        yield target


@needs_compiler
@pytest.mark.parametrize("scenario", TINY, ids=lambda scenario: scenario.title)
def test_every_mode_completes_operations(
    settings: Settings, target: Running, scenario: Scenario
) -> None:
    agreed = verify_echo(target.port, scenario)
    assert agreed.startswith("permessage-deflate") == scenario.payload.is_compressed
    measured = run_load(target, scenario, settings)
    assert measured.error == ""
    assert measured.rate >= 0
    assert measured.unclean == 0
    assert measured.agreed.startswith("100%" if scenario.payload.is_compressed else "0%")


@needs_compiler
def test_a_server_that_does_not_start_is_named_with_its_reason(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "LOGS", tmp_path)
    server = Server("absent", "absent_echo", "absent", python=sys.executable)
    result = measure(server, TINY[0], 1, settings)
    assert "No module named benchmark.peers.absent_echo" in result.error
    with pytest.raises(ServerFailed), running(server, (), None, tmp_path / "log"):
        pass


@needs_compiler
def test_a_load_on_nobody_fails(settings: Settings, target: Running) -> None:
    nobody = target._replace(port=find_free_port())
    with pytest.raises(LoadFailed, match="a connection was lost"):
        run_load(nobody, TINY[0], settings)


def test_without_a_compiler_the_tool_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotRun, match="a C compiler is needed"):
        compile_generator(tmp_path)
