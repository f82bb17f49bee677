"""The numbers of a server: counted in the reactor's thread, read from any.

Every accepted stream is counted on exactly one of these ways::

    accepted -> handshaking -> opened (active) -> closed, by cause
                            -> http: a plain request was answered
             -> failed, by reason: refused at accept or during the opening handshake

so ``handshaking`` and ``active`` are differences of counters and cannot drift from them. Who was
not even accepted is counted by ``reactor.AcceptCounts``.

Not for: limits. The pool and the sessions keep their own books and never read these.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from websocket.causes import Cause

if TYPE_CHECKING:
    from reactor import LagSnapshot
    from websocket.ledger import LedgerSnapshot

OTHER = "other"
# Reasons are HTTP statuses and a few words; an application that invents more of them must not
# be able to fill the memory of whoever collects these numbers.
MAX_REASONS = 64


class SessionStatistics(NamedTuple):
    """Hold the numbers of the sessions at one moment.

    Attributes:
        active: alive now, attached or detached.
        attached: alive and with a connection.
        detached: alive and waiting for their client.
        created, resumed, expired, destroyed: counted since the start.
        replay_size: bytes that wait for clients that are away.
        save_failures: writes to the store that failed since the start.
    """

    active: int
    attached: int
    detached: int
    created: int
    resumed: int
    expired: int
    destroyed: int
    replay_size: int = 0
    save_failures: int = 0


class StatisticsSnapshot(NamedTuple):
    """Hold the numbers of a server at one moment; immutable.

    Attributes:
        accepted: streams accepted since the start, refused ones included.
        handshaking: streams whose opening handshake goes on now.
        failed: streams that ended before they were open.
        failed_by_reason: the same by the HTTP status of the refusal ("429"), or by a word: "eof",
            "reset" and "broken" for how the stream ended, "aborted" by the end of the server,
            "tls" for TLS where none is spoken.
        http: streams that carried a plain HTTP request instead.
        opened: connections that were opened.
        active: connections that are open now.
        peak: the most connections that were ever open at once.
        closed: connections that came to their end.
        closed_by_cause: the same by cause; every cause is present.
        messages_in, messages_out, bytes_in, bytes_out: over all connections.
        messages_dropped: messages that slow consumers have not been sent.
        messages_ignored: messages of peers that were not handled, for there were too many.
        sessions: the numbers of the sessions.
        is_draining: nobody new is taken in; the server comes to its end.
        log_failures: lines that handlers of the log have failed to take, in this process.
        lag: who else was kept waiting: see ``reactor/lag.py``; None without a server.
        memory: what is kept for peers, of all servers that share a ledger: see ``ledger.py``; None
            without a server.
        accept_failures: how often the process lacked the descriptors or the memory to accept.
        turned_away: connections that were closed at once for that.
        abandoned: connections that their clients had reset or ended before they were accepted,
            when that came late; see ``reactor/listener.py``.
    """

    accepted: int
    handshaking: int
    failed: int
    failed_by_reason: Mapping[str, int]
    http: int
    opened: int
    active: int
    peak: int
    closed: int
    closed_by_cause: Mapping[Cause, int]
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    sessions: SessionStatistics
    is_draining: bool = False
    log_failures: int = 0
    lag: LagSnapshot | None = None
    messages_dropped: int = 0
    messages_ignored: int = 0
    memory: LedgerSnapshot | None = None
    accept_failures: int = 0
    turned_away: int = 0
    abandoned: int = 0


class Statistics:
    """Count; only in the reactor's thread.

    Those of traffic are plain attributes for connections to add to.
    """

    __slots__ = (
        "_accepted",
        "_closed",
        "_closed_by_cause",
        "_failed",
        "_failed_by_reason",
        "_http",
        "_opened",
        "_peak",
        "bytes_in",
        "bytes_out",
        "messages_dropped",
        "messages_ignored",
        "messages_in",
        "messages_out",
    )

    def __init__(self) -> None:
        self._accepted = 0
        self._failed = 0
        self._failed_by_reason: dict[str, int] = {}
        self._http = 0
        self._opened = 0
        self._peak = 0
        self._closed = 0
        self._closed_by_cause = dict.fromkeys(Cause, 0)
        self.messages_in = 0
        self.messages_out = 0
        self.messages_dropped = 0
        self.messages_ignored = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def count_accepted(self) -> None:
        """Count a stream that arrived, whether it will be refused or not."""
        self._accepted += 1

    def count_failed(self, reason: str) -> None:
        """Count a stream that ended before it was open.

        Args:
            reason: the HTTP status of the refusal, or a word; never what a peer sent.
        """
        self._failed += 1
        reasons = self._failed_by_reason
        if reason not in reasons and len(reasons) >= MAX_REASONS:
            reason = OTHER
        reasons[reason] = reasons.get(reason, 0) + 1

    def count_http(self) -> None:
        """Count a stream whose plain HTTP request was answered."""
        self._http += 1

    def count_opened(self) -> None:
        """Count a connection whose opening handshake is complete."""
        self._opened += 1
        self._peak = max(self._peak, self._opened - self._closed)

    def count_closed(self, cause: Cause) -> None:
        """Count a connection that is gone."""
        self._closed += 1
        self._closed_by_cause[cause] += 1

    def snapshot(self, sessions: SessionStatistics) -> StatisticsSnapshot:
        """Return all numbers as they are now; callable from any thread.

        Args:
            sessions: the numbers that the session manager holds.
        """
        # Read against the way of a stream: what another thread counts meanwhile can then make
        # a difference too large by one, never negative.
        closed = self._closed
        opened = self._opened
        http = self._http
        failed = self._failed
        accepted = self._accepted
        return StatisticsSnapshot(
            accepted=accepted,
            handshaking=accepted - failed - http - opened,
            failed=failed,
            failed_by_reason=MappingProxyType(self._failed_by_reason.copy()),
            http=http,
            opened=opened,
            active=opened - closed,
            peak=self._peak,
            closed=closed,
            closed_by_cause=MappingProxyType(self._closed_by_cause.copy()),
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            sessions=sessions,
            messages_dropped=self.messages_dropped,
            messages_ignored=self.messages_ignored,
        )
