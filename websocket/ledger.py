"""The ledger: what is buffered on behalf of peers, by connection, by address and in the process.

    settle(debtor, size)      so much is kept for this connection now
    add(address, size)        so much more is kept for clients that are away

What counts is what stays: bytes unsent, messages that wait, fragments, frames held back, what a
session keeps. Where nothing stays, nothing is written down: only debtors cost memory and time.
What is kept for one broadcast by many connections is charged to each.

    below 80 % of the mark      nothing
    from there on               debtors are not read from, until there is less than 70 %; if that
                                takes longer than five seconds, the largest of them are closed
    above the mark              the largest debtor is closed, and the next one, until below it
    above another mark          the debtor itself, or the largest one of the address, is closed

Judged from a timer of its own, a tick later, so that nobody is closed in the middle of something.
Each change from one line of this table to another is told to the log, see ``events.py``.

The mark of the process is judged against one ledger. Servers that share a reactor can share one::

    ledger = Ledger(reactor, limits)
    servers = [Server(each, port=0, reactor=reactor, limits=limits, ledger=ledger) for each in ...]

and are judged together then, by the ledger's own limits, addresses included: the largest debtor of
all of them is closed. A ledger belongs to one reactor, as connections do. Where there are several,
in threads or in processes, give each its part: ``Limits(max_buffered=...)``.

Not for: what a connection costs that keeps nothing, and the opening handshake, which has limits
of its own.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from websocket import events
from websocket.address import address_key, is_exempt

if TYPE_CHECKING:
    from websocket.clock import Clock, Handle
    from websocket.limits import Limits

# For the objects around what a debtor keeps.
OVERHEAD = 512
# Less than this is no debt: the header of a frame, some small messages.
FORGIVEN = 1024

_NEAR = 0.8
_FAR = 0.7
# Seconds in which a pause must help.
_PATIENCE = 5.0


class Debtor(Protocol):
    """What is needed of a ``Connection``."""

    @property
    def id(self) -> int:
        """A number that no other connection of this process has."""

    @property
    def remote_address(self) -> Any:
        """The peer's address, as sockets give it."""

    def freeze(self) -> None:
        """Read no further."""

    def thaw(self) -> None:
        """Read again."""

    def shed(self) -> None:
        """Close the connection, and let go of all that is kept for it at once."""


class LedgerSnapshot(NamedTuple):
    """Hold the numbers of the ledger at one moment.

    Attributes:
        buffered: bytes that are kept for all peers now.
        peak: the most that there ever were.
        debtors: connections for which something is kept now.
        pauses: how often reading was paused for want of memory.
        closes: connections that were closed for want of memory.
    """

    buffered: int
    peak: int
    debtors: int
    pauses: int
    closes: int


class _Account:
    """Hold what one debtor owes."""

    __slots__ = ("address", "debtor", "size")

    def __init__(self, debtor: Debtor) -> None:
        self.debtor = debtor
        self.size = 0
        peer = debtor.remote_address
        self.address = address_key(str(peer[0]) if isinstance(peer, tuple) else "")


class Ledger:
    """Keep the books, and see that the marks are kept. Reactor's thread only.

    Args:
        clock: the reactor.
        limits: the marks; nothing else of them matters here.

    Attributes:
        clock: as given.
    """

    __slots__ = (
        "_accounts",
        "_by_address",
        "_closes",
        "_is_judging",
        "_is_near",
        "_is_too_full",
        "_limits",
        "_paused_at",
        "_pauses",
        "_peak",
        "_timer",
        "_total",
        "clock",
    )

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self.clock = clock
        self._limits = limits
        self._accounts: dict[int, _Account] = {}
        self._by_address: dict[str, int] = {}
        self._total = 0
        self._peak = 0
        self._pauses = 0
        self._closes = 0
        self._paused_at = 0.0
        self._is_near = False
        self._is_judging = False
        self._is_too_full = False
        self._timer: Handle | None = None

    def snapshot(self) -> LedgerSnapshot:
        """Return the numbers as they are now; callable from any thread."""
        accounts = len(self._accounts)
        return LedgerSnapshot(self._total, self._peak, accounts, self._pauses, self._closes)

    def settle(self, debtor: Debtor, size: int) -> None:
        """Write down what is kept for a connection now.

        Args:
            debtor: the connection.
            size: in bytes; what is less than ``FORGIVEN`` is nothing.
        """
        account = self._accounts.get(debtor.id)
        if size < FORGIVEN:
            if account is not None:
                self._pay(account)
            return
        if account is None:
            account = self._accounts[debtor.id] = _Account(debtor)
        growth = size + OVERHEAD - account.size
        account.size += growth
        self._add(account.address, growth)
        if growth > 0:
            self._look(account)

    def forget(self, debtor: Debtor) -> None:
        """Write off what is owed by a connection that is over, or is as good as over."""
        account = self._accounts.get(debtor.id)
        if account is not None:
            self._pay(account)

    def add(self, address: str, size: int) -> None:
        """Write down what is kept beside connections.

        Args:
            address: the key of the client's address, see ``websocket.address``.
            size: in bytes; negative when there is less.
        """
        self._add(address, size)

    def room(self, address: str) -> int:
        """Return how many bytes ``add`` may add before somebody would have to suffer for it."""
        room = sys.maxsize
        if self._limits.max_buffered is not None:
            room = int(self._limits.max_buffered * _FAR) - self._total
        mark = self._mark_of(address)
        if mark is not None:
            room = min(room, mark - self._by_address.get(address, 0))
        return max(0, room)

    # --- the books ----------------------------------------------------------------------------

    def _add(self, address: str, size: int) -> None:
        self._total += size
        self._peak = max(self._peak, self._total)
        left = self._by_address.get(address, 0) + size
        if left:
            self._by_address[address] = left
        else:
            self._by_address.pop(address, None)
        if self._is_near and not self._is_above(_FAR):
            self._judge_soon()

    def _pay(self, account: _Account) -> None:
        del self._accounts[account.debtor.id]
        self._add(account.address, -account.size)
        if self._is_near:
            account.debtor.thaw()

    # --- the marks ----------------------------------------------------------------------------

    def _is_above(self, part: float) -> bool:
        """Tell whether there is more than a part of the process's mark."""
        mark = self._limits.max_buffered
        return mark is not None and self._total > mark * part

    def _mark_of(self, address: str) -> int | None:
        """Return the mark of an address."""
        return None if is_exempt(address, self._limits) else self._limits.max_buffered_per_ip

    def _is_too_much(self, account: _Account) -> bool:
        """Tell whether a debtor is to be closed, if no larger one is."""
        of_connection = self._limits.max_buffered_per_connection
        of_address = self._mark_of(account.address)
        return (
            self._is_above(1.0)
            or (of_connection is not None and account.size > of_connection)
            or (of_address is not None and self._by_address[account.address] > of_address)
        )

    def _look(self, account: _Account) -> None:
        """See whether a debt that has grown is beyond a mark."""
        if self._is_near:
            account.debtor.freeze()
        if self._is_too_much(account):
            self._is_too_full = True
            self._judge_soon()
        elif not self._is_near and self._is_above(_NEAR):
            self._judge_soon()

    def _judge_soon(self) -> None:
        if not self._is_judging:
            self._is_judging = True
            self.clock.call_at(self.clock.time, self._judge)

    def _judge(self) -> None:
        """Close those who are above a mark, and pause or resume the others."""
        self._is_judging = False
        if self._is_too_full:
            self._is_too_full = False
            for account in self._largest_first():
                if self._is_too_much(account):
                    self._close(account)
        if self._is_near and not self._is_above(_FAR):
            self._resume()
        elif not self._is_near and self._is_above(_NEAR):
            self._pause()

    def _largest_first(self) -> list[_Account]:
        return sorted(self._accounts.values(), key=lambda each: each.size, reverse=True)

    def _close(self, account: _Account) -> None:
        # The end of an earlier one may have been the end of this one, too.
        if self._accounts.get(account.debtor.id) is account:
            self._closes += 1
            self._tell_of_close(account)
            account.debtor.shed()
            self.forget(account.debtor)

    def _pause(self) -> None:
        self._is_near = True
        self._pauses += 1
        self._paused_at = self.clock.time
        self._timer = self.clock.call_at(self._paused_at + _PATIENCE, self._lose_patience)
        self._tell_of_pause()
        for account in list(self._accounts.values()):
            account.debtor.freeze()

    def _resume(self) -> None:
        self._is_near = False
        self._tell_of_resumption()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for account in list(self._accounts.values()):
            account.debtor.thaw()

    def _lose_patience(self) -> None:
        """Close the largest: those who wait for one another would do so for ever."""
        self._timer = None
        for account in self._largest_first():
            if not self._is_above(_FAR):
                break
            self._close(account)
        self._resume()

    # --- the log ------------------------------------------------------------------------------

    def _tell_of_pause(self) -> None:
        debtors, mark = len(self._accounts), self._limits.max_buffered
        events.report(
            self.clock,
            "reading_paused",
            "reading_paused",
            "%d bytes are kept for %d peers, near max_buffered (%s): reading is paused",
            self._total,
            debtors,
            mark,
            level=logging.WARNING,
            buffered=self._total,
            debtors=debtors,
            mark=mark,
        )

    def _tell_of_resumption(self) -> None:
        duration = self.clock.time - self._paused_at
        events.report(
            self.clock,
            "reading_resumed",
            "reading_resumed",
            "reading goes on after %.1f s: %d bytes are kept for peers",
            duration,
            self._total,
            buffered=self._total,
            duration=duration,
        )

    def _tell_of_close(self, account: _Account) -> None:
        debtor, debtors = account.debtor, len(self._accounts)
        events.report(
            self.clock,
            "debtor_closed",
            "debtor_closed",
            "%r is closed for want of memory: %d bytes are kept for it, of %d for %d peers",
            debtor,
            account.size,
            self._total,
            debtors,
            connection_id=debtor.id,
            remote_address=debtor.remote_address,
            size=account.size,
            buffered=self._total,
            debtors=debtors,
        )
