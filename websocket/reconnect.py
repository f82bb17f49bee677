"""Staying connected: when to try again after a connection failed or ended.

    opened ── lost ── wait ── try ── refused ── wait longer ── try ── opened ...
                                        └── 401, 403, or closed by us: no further try

The waits are drawn at random between zero and a bound that doubles ("full jitter"), so that a
thousand clients which lost the same server do not come back in the same second. A hint of the
server, Retry-After, is kept as the least wait.

Source: RFC 6455, 7.2.3; M. Brooker, "Exponential Backoff And Jitter", 2015.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from websocket.causes import Cause
from websocket.errors import HandshakeError

# Trying again would give the same answer, and may lock the account.
_FINAL_STATUSES = frozenset({401, 403})
_FINAL_CAUSES = frozenset({Cause.CLOSED_BY_US, Cause.ABORTED, Cause.REPLACED})
# A server that asks for more than this is not waited for on its word.
_MAX_HINT = 3600.0


class Backoff:
    """Say how long to wait before each try; one for each client, mutable.

    Args:
        first: seconds within which the first try comes.
        base: the bound of the second wait, in seconds; it doubles from there.
        cap: seconds that no bound exceeds.
        reset_after: seconds a connection must have been open for the waits to start anew.
        random_source: returns a number from 0 to 1.

    Raises:
        ValueError: a number is negative, or the base not positive.
    """

    __slots__ = ("_base", "_cap", "_failures", "_first", "_random", "_reset_after")

    def __init__(
        self,
        *,
        first: float = 5.0,
        base: float = 1.0,
        cap: float = 60.0,
        reset_after: float = 60.0,
        random_source: Callable[[], float] = random.random,
    ) -> None:
        if min(first, cap, reset_after) < 0 or base <= 0:
            raise ValueError("the times of a backoff are positive")
        self._first = first
        self._base = base
        self._cap = cap
        self._reset_after = reset_after
        self._random = random_source
        self._failures = 0

    def next_wait(self, hint: float = 0.0) -> float:
        """Return the seconds to wait before the next try.

        Args:
            hint: the least that the server asked for, in seconds.
        """
        bound = self._bound()
        self._failures += 1
        return max(self._random() * bound, min(hint, _MAX_HINT))

    def was_open(self, seconds: float) -> None:
        """Take note of how long a connection was open."""
        if seconds >= self._reset_after:
            self._failures = 0

    def _bound(self) -> float:
        if not self._failures:
            return min(self._first, self._cap)
        # The exponent is bounded, too: 2.0 ** 1100 is an OverflowError after a long night.
        return min(self._base * 2.0 ** min(self._failures, 60), self._cap)


def is_final(cause: Cause | None, error: Exception | None) -> bool:
    """Tell whether to give up: we closed, or the server does not want us.

    Args:
        cause: why the connection ended.
        error: what ``on_error`` was told, if anything.
    """
    if isinstance(error, HandshakeError) and error.status in _FINAL_STATUSES:
        return True
    return cause in _FINAL_CAUSES


def retry_hint(error: Exception | None) -> float:
    """Return the seconds that the server asked to wait (Retry-After); 0 for no hint.

    Only the form in seconds counts; a date would need a clock that agrees with the server's.
    """
    if not isinstance(error, HandshakeError):
        return 0.0
    for name, value in error.headers:
        if name.lower() == "retry-after" and value.isascii() and value.isdigit():
            return min(float(value[:9]), _MAX_HINT)
    return 0.0
