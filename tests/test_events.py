"""What is logged of each event, for people and for machines."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reactor import ConnectFailed, log
from reactor.testing import MemoryNetwork
from websocket import Cause, HandshakeError, Limits, Reconnect, connect
from websocket import events as log_events
from websocket.testing import Recorder, VirtualServer


@pytest.fixture
def caplog_all(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "websocket")
    return caplog


def facts(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    records = [vars(record) for record in caplog.records]
    return [record for record in records if record.get("event") == event]


def test_the_life_of_a_connection(caplog_all: pytest.LogCaptureFixture) -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect("/path")
        (connection,) = server.connections
        server.pass_time(3)
        client.close(3000, "bye")
        server.settle()
    who = {"connection_id": connection.id, "remote_address": connection.remote_address}
    (begin,) = [each for each in facts(caplog_all, "opened") if each["path"] is not None]
    assert begin.items() >= {**who, "path": "/path", "subprotocol": None}.items()
    end, _ = facts(caplog_all, "closed")
    expected = {**who, "cause": "closed_by_peer", "code": 3000, "reason": "bye", "is_clean": True}
    assert end.items() >= expected.items()
    assert end["duration"] == 3
    assert end["levelno"] == logging.DEBUG
    (listening,) = facts(caplog_all, "listening")
    assert listening["levelno"] == logging.INFO


def test_a_refusal_and_a_client_that_is_not_opened(caplog_all: pytest.LogCaptureFixture) -> None:
    with VirtualServer({"/": Recorder}) as server:
        with pytest.raises(HandshakeError):
            server.connect("/nowhere")
        (refused,) = facts(caplog_all, "refused")
        assert refused["status"] == 404
        assert refused["remote_address"] == "127.0.0.1"
        assert refused["levelno"] == logging.INFO
        (not_opened,) = facts(caplog_all, "not_opened")
        assert not_opened["cause"] == Cause.HANDSHAKE_FAILED.value
    assert facts(caplog_all, "opened") == []


def test_an_offence_is_logged_at_info_once_in_five_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "websocket")
    with VirtualServer(Recorder, limits=Limits(linger_timeout=0.1)) as server:
        for wait in (0, 0, 0, 5):
            server.pass_time(wait)
            server.connect().socket.feed(b"\xff\xff")
            server.pass_time(0.2)
        assert server.server.statistics().closed_by_cause[Cause.PROTOCOL_ERROR] == 4
    offences = facts(caplog, "closed")
    assert [each["suppressed"] for each in offences] == [0, 2]
    assert {each["code"] for each in offences} == {1002}
    assert {each["cause"] for each in offences} == {"protocol_error"}
    assert offences[1]["message"].endswith(" (and 2 more of this kind before)")
    assert all(each["exc_info"] is None for each in offences)


def test_what_peers_send_is_escaped_and_bounded(caplog_all: pytest.LogCaptureFixture) -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect()
        client.close(3000, "\x1b[2J\nERROR forged \u202e é")
        server.settle()
    end = facts(caplog_all, "closed")[0]
    assert end["reason"] == r"\x1b[2J\nERROR forged \u202e \xe9"
    assert end["message"].isprintable()


@pytest.mark.parametrize("text", ["a" * 1000, "\n" * 1000, "\U0001f600" * 1000])
def test_a_long_text_is_cut(text: str) -> None:
    assert len(log_events.clip(text)) <= 200
    assert log_events.clip(text).isprintable()
    assert log_events.clip("short") == "short"


def test_kinds_without_end_are_bounded() -> None:
    gate = log_events._Floodgate()
    passed = sum(gate.enter(str(kind), 0.0) is not None for kind in range(10_000))
    assert passed == 129
    assert len(gate._kinds) == 129


def test_each_reactor_has_floods_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "websocket")
    for _ in range(2):
        with MemoryNetwork().reactor() as reactor:
            for _ in range(3):
                log_events.report(reactor, "kind", "refused", "text")
    assert caplog.messages == ["text", "text"]


def test_a_level_that_is_off_costs_no_state() -> None:
    logger = logging.getLogger("websocket")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with MemoryNetwork().reactor() as reactor:
            log_events.report(reactor, "kind", "refused", "text")
            assert reactor not in log_events._floodgates
    finally:
        logger.setLevel(before)


def test_lines_that_were_not_taken_are_in_the_statistics() -> None:
    with VirtualServer(Recorder) as server:
        before = server.server.statistics().log_failures
        log.failures["websocket"] += 2
        log.failures["reactor"] += 1
        assert server.server.statistics().log_failures == before + 3
        log.failures.subtract({"websocket": 2, "reactor": 1})


def test_a_client_that_will_come_back(caplog_all: pytest.LogCaptureFixture) -> None:
    with VirtualServer(Recorder) as server:
        keeper = Reconnect(random_source=lambda: 0.5)
        client = connect(server.reactor, server.url(), Recorder, reconnect=keeper)
        server.settle()
        server.server.connections[0].abort()
        server.settle()
        keeper.stop()
    (record,) = facts(caplog_all, "reconnecting")
    assert (record["levelno"], record["wait"]) == (logging.DEBUG, 2.5)
    assert record["connection_id"] == client.id
    assert record["message"].endswith("ended; next try in 2.5 s")


def test_each_level_and_interval_is_kept_to(
    caplog: pytest.LogCaptureFixture, logged: list[logging.LogRecord]
) -> None:
    caplog.set_level(logging.ERROR, "websocket")
    with MemoryNetwork().reactor() as reactor:
        for _ in range(3):
            log_events.report(
                reactor, "kind", "save_failed", "text", level=logging.ERROR, interval=60
            )
            reactor.pass_time(29.99)
        log_events.report(reactor, "other", "reading_paused", "text", level=logging.WARNING)
    records = [(record.levelno, vars(record)["suppressed"]) for record in caplog.records]
    assert records == [(logging.ERROR, 0)]


def test_a_client_that_reaches_nobody(caplog_all: pytest.LogCaptureFixture) -> None:
    with VirtualServer(Recorder) as server:
        server.server.stop_listening()
        with pytest.raises(ConnectFailed):
            server.connect()
    (record,) = facts(caplog_all, "not_opened")
    assert record["cause"] == "connect_failed"
