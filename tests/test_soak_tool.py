"""The parts of tools/soak.py: the verdict on memory, the throttle, the actors, and a short run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("resource", reason="the tool is for Linux")

import soak
from soaking import actors
from soaking.actors import ROLES, Resumer, Troupe
from soaking.samples import KIB, Sample, Throttle, growth
from torturing.client import Client, Misbehaviour
from torturing.figures import Figure, exactly
from torturing.process import ServerProcess, is_supported
from torturing.swarm import Swarm, now_and_then

needs_proc = pytest.mark.skipif(not is_supported(), reason="there is no /proc")


def samples(*kib: float, minutes: float) -> list[Sample]:
    """Return samples of a run with these sizes, evenly spread."""
    last = len(kib) - 1
    return [
        Sample(minutes * number / last, int(size * KIB), 9, 1, 0, 0)
        for number, size in enumerate(kib)
    ]


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "value", "most"),
    [
        # The first quarter is not looked at, however steep it is.
        (samples(0, 9_000, 9_000, 9_000, 9_000, minutes=20), 0, 2_048 / 15),
        (samples(0, 9_000, 10_000, 11_000, 12_000, minutes=20), 200, 2_048 / 15),
        (samples(0, 9_000, 10_000, 11_000, 12_000, minutes=80), 50, 64),
    ],
)
def test_growth_is_judged_after_the_warm_up(run: list[Sample], value: float, most: float) -> None:
    figure = growth(run)
    assert figure.value == pytest.approx(value)
    assert figure.most == pytest.approx(most)


@pytest.mark.parametrize("run", [[], samples(1, 9_000, minutes=1)])
def test_a_short_run_tells_nothing_about_growth(run: list[Sample]) -> None:
    assert growth(run).verdict == ""
    assert "too short" in growth(run).what


def test_a_sample_has_a_line() -> None:
    sample = Sample(1.0, 25_000 * KIB, 70, 64, 46, 390)
    assert sample.line(0.5, 1.25) == "| 1.0 | 25,000 | 70 | 64 | 46 | 390 | 0.50 | 1.25 |"


# --- load -----------------------------------------------------------------------------------------


class Load:
    """Be busy on so many processors, in the test's own time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.used = 0.0
        self.throttle = Throttle(lambda: self.used, most=1.0, clock=lambda: self.now)

    def run(self, cpus: float) -> float:
        """Let a second pass, and return the pace from then on."""
        self.now += 1
        self.used += cpus
        return self.throttle.adjust()


def test_too_much_load_slows_down_and_too_little_speeds_up() -> None:
    load = Load()
    assert load.run(1.8) == pytest.approx(1.4)
    assert load.throttle.cpus == pytest.approx(1.8)
    assert load.run(0.9) == pytest.approx(1.4)
    assert load.run(0.1) == pytest.approx(1.4 * 0.7)


def test_the_pace_has_bounds() -> None:
    load = Load()
    assert [load.run(0.0) for _ in range(40)][-1] == pytest.approx(0.1)
    assert [load.run(9.0) for _ in range(40)][-1] == pytest.approx(20)


# --- actors ---------------------------------------------------------------------------------------


def test_every_kind_of_actor_has_a_role() -> None:
    kinds = {role.kind for role in ROLES}
    assert kinds == {
        actors.Churner,
        actors.SlowReader,
        actors.Mute,
        actors.Resumer,
        actors.Liar,
    }


class Determined:
    """Stand in for chance: always the same."""

    def __init__(self, number: float) -> None:
        self._number = number

    def random(self) -> float:
        """Return the number."""
        return self._number

    def uniform(self, least: float, most: float) -> float:
        """Return the least."""
        return least

    def choice(self, options: Any) -> Any:
        """Return the first."""
        return options[0]


@needs_proc
@pytest.mark.parametrize(
    ("number", "counter", "cause"),
    [(0.2, "resumed", "replaced"), (0.9, "resumed", "closed_by_peer")],
)
def test_a_resumer_comes_back_to_its_session(number: float, counter: str, cause: str) -> None:
    with ServerProcess() as server, Swarm(server.address) as swarm:
        swarm.open(Resumer, chance=Determined(number))
        swarm.run_until(
            "it came back", now_and_then(lambda: server.facts()["sessions"][counter] >= 3, 0.01)
        )
        swarm.forget_calls()
        assert server.facts()["sessions"]["created"] == 1
        assert server.facts()["closed_by_cause"][cause] >= 1


def test_a_resumer_knows_how_often_it_was_there() -> None:
    with Swarm(("127.0.0.1", 9)) as swarm:
        resumer = swarm.open(Resumer, visits=3, chance=Determined(0.9))
        with pytest.raises(Misbehaviour, match="'1' visits instead of 3"):
            resumer.on_message(1, "1")


def test_the_healthy_are_disturbed_by_an_end() -> None:
    with Swarm(("127.0.0.1", 9)) as swarm:
        troupe = Troupe(swarm, "seed")
        troupe.healthy = [swarm.open(Client), swarm.open(Client)]
        assert troupe.disturbed == []
        troupe.healthy[0].leave()
        troupe.healthy[1].close_code = 1011
        assert troupe.disturbed == troupe.healthy


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0", "-1", "121", "nan", "many"])
def test_minutes_are_bounded(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        soak.parse_arguments(["--minutes", text])
    assert caught.value.code == 2
    assert "--minutes" in capsys.readouterr().err


def test_the_defaults_are_twenty_minutes_and_a_bit_more_than_a_processor() -> None:
    options = soak.parse_arguments([])
    assert (options.minutes, options.cpus) == (20, 1.2)


def test_without_proc_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "is_supported", lambda: False)
    assert soak.main([]) == 2
    assert "needs Linux" in capsys.readouterr().err


class Planted(soak.Soak):
    """Yield these figures, and raise the error."""

    def __init__(self, *planted: Figure, error: Exception | None = None) -> None:
        self._planted = planted
        self._error = error

    def figures(self) -> Iterator[Figure]:
        """Yield them."""
        yield from self._planted
        if self._error is not None:
            raise self._error


def test_the_status_tells_whether_a_limit_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    assert soak.report(Planted(exactly("left", 0, 0))) == 0
    assert soak.report(Planted(exactly("left", 1, 0))) == 1
    assert soak.report(Planted(exactly("left", 0, 0), error=Misbehaviour("lost"))) == 1
    assert "| soak | Misbehaviour: lost | | | FAILED |" in capsys.readouterr().out


@needs_proc
def test_a_very_short_soak_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Those who come back need seconds, and have a test of their own.
    monkeypatch.setattr(actors, "ROLES", [role for role in ROLES if role.kind is not Resumer])
    monkeypatch.setitem(soak.LIMITS, "detached_lifetime", 0.05)
    run = soak.Soak(minutes=0.4 / 60, seed="test", cpus=1.2, interval=0.2)
    figures = {figure.what: figure for figure in run.figures()}
    kept = (
        "healthy clients disturbed",
        "timers more than before",
        "descriptors more than before",
        "accepted, less failed, plain and opened",
        "closed, less those with a cause",
        "errors logged",
        "exit status",
    )
    assert [figures[what].verdict for what in kept] == ["ok"] * len(kept), figures
    assert figures["processes killed"].value == 1
    assert capsys.readouterr().out.startswith("| minute | RSS KiB |")
