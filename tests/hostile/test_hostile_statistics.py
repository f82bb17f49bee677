"""H119: what is counted and what is logged is ours to name, whatever strangers send.

Who collects the statistics keeps a series for each label, for ever; who reads the log has a
terminal, or a page. Neither may be at the disposal of a peer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import pytest
from frame_table import on_wire
from support import Recorder, upgrade_request

from hostile.arena import Arena
from websocket import Cause, Connection, HandshakeError, Request
from websocket.statistics import MAX_REASONS, StatisticsSnapshot
from websocket.testing import VirtualServer

Besiege = Callable[..., Arena]

COUNT = 300
MARK = "jlh5xq"
"""In all that strangers send, and in nothing of ours."""

# What HTTP says of refused requests, and how a stream may end before its answer.
STATUSES = {400, 403, 404, 405, 408, 413, 414, 426, 429, 431, 501, 503, 505}
REASONS = {"eof", "reset", "broken", "aborted", "tls", "other", *map(str, STATUSES)}


def labels_of(value: object) -> Iterator[str]:
    """Yield every name that a collector of numbers would make of them."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if hasattr(value, "items"):
        for label, entry in value.items():
            yield label.value if isinstance(label, Enum) else label
            yield from labels_of(entry)
    else:
        assert value is None or isinstance(value, (int, float)), value


def requests_of_all_kinds() -> Iterator[bytes]:
    """Yield requests no two of which are alike, and few of which are good."""
    for number in range(COUNT):
        own = f"{MARK}{number}"
        yield upgrade_request(f"/{own}?{own}={own}")
        yield upgrade_request(Sec_WebSocket_Protocol=own)
        yield upgrade_request(Origin=f"https://{own}.example.com")
        yield upgrade_request(Sec_WebSocket_Extensions=f"{own}; {own}={own}")
        yield upgrade_request(Cookie=f"websocket_session={own}", User_Agent=own)
        yield f"{own.upper()} / HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()
        yield f"GET / HTTP/{number}.1\r\nHost: {own}\r\n\r\n".encode()
        yield f"{own}\r\n\r\n".encode()
        yield upgrade_request(Upgrade=own)


def ends_of_all_kinds() -> Iterator[bytes]:
    """Yield what ends an open connection, no two alike."""
    for number in range(COUNT):
        reason = f"{MARK}{number}".encode()
        payload = (3000 + number).to_bytes(2, "big") + reason
        yield on_wire(f"88 {len(payload):02x}", payload, is_masked=True)
        yield on_wire(f"8{3 + number % 5} {len(reason):02x}", reason, is_masked=True)
        yield on_wire(f"88 {len(reason):02x}", reason, is_masked=True)


def test_h119_the_labels_of_the_statistics_are_a_fixed_set(hostile: Besiege) -> None:
    arena = hostile({"/": Recorder})
    before = set(labels_of(arena.server.statistics()))
    assert {cause.value for cause in Cause} | set(StatisticsSnapshot._fields) <= before
    for wire in requests_of_all_kinds():
        peer = arena.request([wire])
        peer.sock.end()
        arena.stage.settle()
    for wire in ends_of_all_kinds():
        peer = arena.stage.open_client(arena.server)
        peer.send_bytes(wire)
        arena.stage.settle()
        peer.sock.end()
        arena.stage.settle()
    statistics = arena.server.statistics()
    assert statistics.failed > 4 * COUNT
    assert statistics.closed > 3 * COUNT
    assert set(labels_of(statistics)) - before <= REASONS
    assert MARK not in repr(statistics)
    assert len(arena.log.lines) < 20
    arena.log.lines.clear()


def test_h119_an_application_that_invents_reasons_is_bounded(hostile: Besiege) -> None:
    def refuse(request: Request) -> str | None:
        statuses.append(400 + len(statuses))
        raise HandshakeError(statuses[-1], request.path)

    statuses: list[int] = []
    arena = hostile()
    arena.server.hooks._authenticate = refuse
    for number in range(180):
        arena.request([upgrade_request(f"/{MARK}{number}")]).sock.end()
        arena.stage.settle()
    reasons = arena.server.statistics().failed_by_reason
    assert len(reasons) == MAX_REASONS + 1
    assert reasons["other"] == 180 - MAX_REASONS
    # Of each kind a line, and kinds are bounded, too; see events.py.
    assert len(arena.log.lines) <= 180
    arena.log.lines.clear()


NASTY = {
    "HTML": "<script>alert(1)</script>",
    "terminal-escapes": "\x1b[2J\x1b]0;title\x07",
    "a-second-line": "\r\nERROR websocket: all is lost",
    "text-that-runs-backwards": "\u202egnp.exe",
    "lines-of-Unicode": "\u2028\u2029\x85",
    "formats": "%s%n{0}{connection.__class__}${jndi:ldap://a/}",
    "length": "x" * 5000,
    "astral": "\U0001f600" * 30,
}


def nasty_frame(text: str) -> bytes:
    # RFC 6455, 5.5: 123 bytes for the reason; cut where a character ends.
    reason = text.encode()[:123].decode(errors="ignore").encode()
    payload = (3000).to_bytes(2, "big") + reason
    return on_wire(f"88 {len(payload):02x}", payload, is_masked=True)


class Speaker(Connection):
    """Speak one subprotocol, whatever is asked for."""

    __slots__ = ()
    subprotocols = ("ours",)


@pytest.mark.parametrize("case", NASTY)
def test_h119_what_is_logged_is_escaped_and_bounded(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the lines and in the fields of the records, at every level."""
    caplog.set_level(logging.DEBUG, "websocket")
    nasty = NASTY[case]
    target = "/" + "".join(f"%{byte:02x}" for byte in nasty.encode()[:2000])
    visible = re.sub(r"[^!-~]", "?", nasty[:2000])
    with VirtualServer(Speaker) as server:
        for path in ("/", target):
            for fields in (
                {},
                {"Origin": f"https://{visible}"},
                {"Sec_WebSocket_Protocol": f"ours, {visible}"},
                {"Upgrade": visible},
            ):
                stranger = server.stranger("192.0.2.1")
                stranger.send_bytes(upgrade_request(path, **fields))
                server.settle()
                stranger.send_bytes(nasty_frame(nasty))
                server.settle()
                stranger.sock.end()
                server.pass_time(6)  # each line of its kind
    ours = [record for record in caplog.records if record.name == "websocket"]
    assert {"opened", "refused", "closed"} <= {getattr(each, "event", "") for each in ours}
    for record in ours:
        texts = [record.getMessage(), *extra_of(record)]
        assert all(text.isprintable() and text.isascii() for text in texts), texts
        assert len(texts[0]) <= 400
        assert all(len(text) <= 200 for text in texts[1:])


_OF_EVERY_RECORD = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}


def extra_of(record: logging.LogRecord) -> list[str]:
    """Return the fields of a record that are text."""
    fields: dict[str, Any] = vars(record)
    return [
        value
        for name, value in fields.items()
        if name not in _OF_EVERY_RECORD and isinstance(value, str)
    ]
