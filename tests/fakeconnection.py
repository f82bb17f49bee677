"""A connection without a stream: what the pool and the sessions see of a real one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websocket.causes import Cause
    from websocket.frame_writer import Payload
    from websocket.session import Session

_ids = itertools.count(1)


class FakeConnection:
    def __init__(self, session: Session | None = None) -> None:
        self.id = next(_ids)
        self.session = session
        self.last_message_at = 0.0
        self.ends: list[tuple[Cause, int]] = []
        self.is_open = True
        self.sent: list[Payload] = []
        self.gaps: list[int] = []

    def end(self, cause: Cause, code: int, reason: str) -> None:
        assert reason.isascii()
        assert 0 < len(reason) <= 123
        self.ends.append((cause, code))
        self.is_open = False

    def send(self, message: Payload) -> bool:
        if self.is_open:
            self.sent.append(message)
        return self.is_open

    def send_missed(self, message: Payload) -> bool:
        return self.send(message)

    def report_gap(self, dropped: int) -> None:
        self.gaps.append(dropped)
