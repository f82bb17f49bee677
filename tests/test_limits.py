from __future__ import annotations

import math
import sys
import types
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from websocket.limits import Limits
from websocket.policies import Excess, SlowConsumer
from websocket.process_memory import usable_memory

FIELDS = {limit.name: limit for limit in fields(Limits)}
FLAGS = {"loopback_is_exempt"}
POLICIES = {"slow_consumer", "message_excess"}
NUMBERS = [name for name in FIELDS if name not in FLAGS | POLICIES]
OPTIONAL = {
    "message_timeout",
    "ping_interval",
    "ping_timeout",
    "idle_timeout",
    "write_stall_timeout",
    "control_rate",
    "message_rate",
    "max_connections_per_ip",
    "handshakes_per_minute",
    "max_sessions_per_ip",
    "session_idle_timeout",
    "max_buffered",
    "max_buffered_per_connection",
    "max_buffered_per_ip",
}
MAY_BE_ZERO = {
    "linger_timeout",
    "linger_size",
    "shutdown_grace",
    "detached_lifetime",
    "replay_messages",
}


def test_the_defaults_are_the_recommended_ones() -> None:
    """The table of secure defaults in the catalogue of hostile inputs."""
    expected = {
        "handshake_timeout": 10,
        "max_request_line": 8192,
        "max_header_line": 8192,
        "max_header_count": 100,
        "max_head_size": 16384,
        "max_message_size": 2**20,
        "max_fragments": 4096,
        "message_timeout": 60,
        "ping_interval": 20,
        "ping_timeout": 20,
        "idle_timeout": None,
        "close_timeout": 5,
        "linger_timeout": 1,
        "linger_size": 256 * 1024,
        "write_soft_mark": 64 * 1024,
        "write_hard_mark": 2**20,
        "write_stall_timeout": 30,
        "slow_consumer": "close",
        "control_rate": 20,
        "control_burst": 50,
        "message_rate": None,
        "message_burst": 100,
        "message_excess": "close",
        "turn_frames": 64,
        "max_connections_per_ip": 128,
        "handshakes_per_minute": 64,
        "loopback_is_exempt": True,
        "max_buffered_per_connection": None,
        "max_buffered_per_ip": None,
        "max_sessions": 100_000,
        "max_sessions_per_ip": 256,
        "session_lifetime": 24 * 3600,
        "session_idle_timeout": None,
        "detached_lifetime": 120,
        "replay_messages": 128,
        "replay_size": 256 * 1024,
        "replay_total_size": 64 * 2**20,
        "shutdown_grace": 30,
    }
    limits = Limits()
    assert {name: getattr(limits, name) for name in expected} == expected
    assert set(FIELDS) - set(expected) == {"max_connections", "max_buffered"}
    assert limits.max_buffered == usable_memory() // 4


def test_public_limits_are_the_defaults_with_messages_rated() -> None:
    assert Limits.public() == Limits(message_rate=50.0, message_burst=100)
    assert Limits.public(message_rate=None) == Limits()
    assert Limits.public(max_fragments=7) == Limits(message_rate=50.0, max_fragments=7)


def test_every_limit_has_a_line_of_help() -> None:
    for limit in FIELDS.values():
        line = limit.metadata["help"]
        assert line, limit.name
        assert line.splitlines() == [line.strip()]


def test_limits_do_not_change() -> None:
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        limits.max_fragments = 7  # type: ignore[misc]  # the very mistake
    changed = limits.replace(max_fragments=7)
    assert (changed.max_fragments, limits.max_fragments) == (7, 4096)
    assert changed == Limits(max_fragments=7)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_limit_is_not_negative_and_is_a_number(name: str) -> None:
    for value in (-1, -0.5, math.nan, -math.inf):
        changes: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, not {value}"):
            Limits(**changes)


@pytest.mark.parametrize("name", NUMBERS)
def test_zero_is_refused_where_it_would_switch_everything_off(name: str) -> None:
    changes: dict[str, Any] = {name: 0}
    if name in MAY_BE_ZERO:
        assert getattr(Limits(**changes), name) == 0
    else:
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, not 0"):
            Limits(**changes)


@pytest.mark.parametrize("name", NUMBERS)
def test_none_switches_a_limit_off_where_that_is_possible(name: str) -> None:
    changes: dict[str, Any] = {name: None}
    if name in OPTIONAL:
        assert getattr(Limits(**changes), name) is None
    else:
        with pytest.raises(ValueError, match=f"{name} cannot be switched off"):
            Limits(**changes)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_may_be_given_by_its_name_and_must_exist(name: str) -> None:
    changes: dict[str, Any] = {name: "close"}
    assert type(getattr(Limits(**changes), name)) in (Excess, SlowConsumer)
    for value in ("", "Close", "none", None, 7):
        wrong: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match="is not a valid"):
            Limits(**wrong)


def test_replaced_and_public_limits_are_checked_too() -> None:
    with pytest.raises(ValueError, match="max_fragments must be positive"):
        Limits().replace(max_fragments=0)
    with pytest.raises(ValueError, match="max_fragments must be positive"):
        Limits.public(max_fragments=-1)


def fake_resource(soft: int) -> types.ModuleType:
    module = types.ModuleType("resource")
    module.RLIMIT_NOFILE = 7  # type: ignore[attr-defined]  # a module made by hand
    module.RLIM_INFINITY = -1  # type: ignore[attr-defined]
    module.getrlimit = lambda kind: {7: (soft, -1)}[kind]  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("soft", "connections"),
    [
        (1024, 960),
        (10_063, 9_999),
        (10_064, 10_000),
        (10**6, 10_000),
        (-1, 10_000),
        (65, 1),
        (64, 1),
        (3, 1),
    ],
)
def test_connections_leave_descriptors_for_others(
    monkeypatch: pytest.MonkeyPatch, soft: int, connections: int
) -> None:
    monkeypatch.setitem(sys.modules, "resource", fake_resource(soft))
    assert Limits().max_connections == connections


def test_where_descriptors_have_no_limit_connections_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Windows there is no such module."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert Limits().max_connections == 10_000
