"""Staying connected: try again after a connection failed or ended.

    opened ── lost ── wait ── try ── refused ── wait longer ── try ── opened ...
                                        └── 401, 403, 407, replaced, or given up: no further try

The waits are drawn at random between zero and a bound that doubles ("full jitter"), so that a
thousand clients which lost the same server do not come back in the same second. A hint of the
server goes before that (``retry.py`` has its forms):

    Retry-After     of a refusal: the least wait, to which the drawn one is added
    retry after     of a close frame: the wait, because the server has drawn it for this client
                    alone, but not above the cap; with the drawn one added if the last
                    connection, too, did not last

Each try is a new connection of the same class, with the session id of the last one, so that it
resumes its session.

Source: RFC 6455, 7.2.3; M. Brooker, "Exponential Backoff And Jitter", 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

from reactor import Reactor, Timer
from websocket import events
from websocket.connection import Connection
from websocket.errors import HandshakeError
from websocket.opcodes import CloseCode
from websocket.retry import hint_of_close, hint_of_refusal

# Trying again would give the same answer, and may lock the account.
_FINAL_STATUSES = frozenset({401, 403, 407})
# Taken over by a newer connection of the same client: coming back would take it over again.
_FINAL_CODES = frozenset({int(CloseCode.SESSION_REPLACED)})
# A server that asks for more seconds than this is not taken at its word.
_MAX_HINT = 3600.0


class Reconnect:
    """Keep one client connected; pass it to ``connect``. Reactor's thread only.

    It ends when ``close`` or ``stop`` is called; when the application closes or aborts the present
    ``connection``, as with ``self.close()`` in one of its methods, also while the next try is
    waited for; and when the server, or the proxy, does not want this client.

    Args:
        first: seconds within which the first try comes.
        base: the bound of the second wait is twice this many seconds; it doubles from there.
        cap: seconds that no bound, and no hint in a close frame, exceeds.
        reset_after: seconds a connection must have been open for the waits to start anew.
        random_source: returns a number from 0 to 1.

    Attributes:
        connection: the present connection, or the last one while waiting.

    Raises:
        ValueError: a number is negative or infinite, or the base not positive.
    """

    __slots__ = (
        "_base",
        "_cap",
        "_dial",
        "_failures",
        "_first",
        "_is_stopped",
        "_random",
        "_reactor",
        "_reset_after",
        "_timer",
        "connection",
    )

    def __init__(
        self,
        *,
        first: float = 5.0,
        base: float = 1.0,
        cap: float = 60.0,
        reset_after: float = 60.0,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        # In these words not-a-number fails, too.
        if not all(0 <= each < inf for each in (first, base, cap, reset_after)) or not base:
            raise ValueError("the times of a reconnect are 0 or more, and the base is not 0")
        self._first = first
        self._base = base
        self._cap = cap
        self._reset_after = reset_after
        self._random = random_source
        self._failures = 0
        self._is_stopped = False
        self._timer: Timer | None = None
        self.connection: Connection | None = None

    @property
    def is_waiting(self) -> bool:
        """Tell whether the next try is being waited for."""
        return self._timer is not None and self._timer.is_pending and not self._is_over

    def stop(self) -> None:
        """Try no more; a connection that is open stays open. Idempotent."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Try no more, and close the present connection. Idempotent.

        Raises:
            ValueError: see ``Connection.close``.
        """
        if self.connection is not None:
            self.connection.close(code, reason)
        self.stop()

    # --- for connect ------------------------------------------------------------------------

    def begin(
        self,
        reactor: Reactor,
        connection: Connection,
        dial: Callable[[str | None], Connection],
    ) -> None:
        """Take over the first try.

        Args:
            reactor: for the waits.
            connection: the first try.
            dial: makes another: called with the session id to resume, if there is one.
        """
        self._reactor = reactor
        self._dial = dial
        self.connection = connection

    def ended(self, connection: Connection) -> None:
        """Decide what follows the end of a connection, or of a try."""
        if self._is_over or _is_unwanted(connection):
            return
        opened_at = connection.opened_at
        if opened_at is not None and self._reactor.time - opened_at >= self._reset_after:
            self._failures = 0
        wait = self._wait(connection)
        self._failures += 1
        events.reconnecting(connection, wait)
        self._timer = self._reactor.call_later(wait, self._try_again, connection.session_id)

    @property
    def _is_over(self) -> bool:
        """Tell whether the application wants no further try."""
        return self._is_stopped or (self.connection is not None and self.connection.is_given_up)

    def _try_again(self, session_id: str | None) -> None:
        if not self._is_over:
            self.connection = self._dial(session_id)

    def _wait(self, connection: Connection) -> float:
        """Return the seconds until the next try."""
        end = connection.closed
        hint = None if end is None else hint_of_close(end.code, end.reason)
        if hint is not None:
            hint = min(hint, self._cap)
            # "retry after 0 s" again and again must not become a flood of ours.
            return hint + self._random() * self._bound() if self._failures else hint
        # Added, not compared: all clients that were turned away together got the same hint.
        return _hint_of_error(connection.error) + self._random() * self._bound()

    def _bound(self) -> float:
        if not self._failures:
            return min(self._first, self._cap)
        # The exponent is bounded, too: 2.0 ** 1100 is an OverflowError after a long night.
        return min(self._base * 2.0 ** min(self._failures, 60), self._cap)


def _is_unwanted(connection: Connection) -> bool:
    """Tell whether the server, or the proxy, has said that it does not want this client."""
    refusal, end = _refusal_of(connection.error), connection.closed
    if refusal is not None and refusal.status in _FINAL_STATUSES:
        return True
    return end is not None and end.code in _FINAL_CODES


def _hint_of_error(error: Exception | None) -> float:
    """Return the seconds that a refusal asks to wait; 0 for no hint."""
    refusal = _refusal_of(error)
    hint = None if refusal is None else hint_of_refusal(refusal.headers)
    return 0.0 if hint is None else min(hint, _MAX_HINT)


def _refusal_of(error: Exception | None) -> HandshakeError | None:
    """Return the answer of a server that refused, or of a proxy."""
    for each in (error, None if error is None else error.__cause__):
        if isinstance(each, HandshakeError):
            return each
    return None
