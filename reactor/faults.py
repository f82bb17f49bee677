"""Faults of the operating system: what each call may fail with, and plans that make one fail.

    plan = FaultPlan()                            counts the calls of a scenario
    network.on_call = plan
    scenario()
    for plan in every_fault(plan.calls):          again, once for each call and each error
        network = MemoryNetwork()
        network.on_call = plan
        scenario()                                one call fails; what is owed to everyone holds

The calls are those of the sockets and selectors of ``reactor.testing``.

Not for: programs that serve. Nothing in the packages imports this but their testing modules.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence

# What a later call may well do without.
TRANSIENT = frozenset({errno.EAGAIN, errno.EINTR})

_LOST = (errno.ECONNRESET, errno.ETIMEDOUT)
_SCARCE = (errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, *_SCARCE)

#: By call, the errors of the manual pages that a correct program may meet. After ``close`` the
#: descriptor is gone whatever it says; ``select`` that is interrupted reports nothing.
ERRORS: Mapping[str, tuple[int, ...]] = {
    "accept": (
        errno.EAGAIN,
        errno.EINTR,
        errno.ECONNABORTED,
        errno.EPERM,
        *_NO_DESCRIPTORS,
    ),
    "close": (errno.EINTR, errno.EIO),
    "connect_ex": (
        errno.EAGAIN,
        errno.EINTR,
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.ENOMEM,
    ),
    "getpeername": (errno.ENOTCONN, errno.ENOBUFS),
    "getsockname": (errno.ENOBUFS,),
    "getsockopt": (errno.ENOBUFS,),
    "modify": (errno.ENOMEM,),
    "open": _NO_DESCRIPTORS,
    "recv_into": (errno.EAGAIN, errno.EINTR, *_LOST, errno.ENOMEM),
    "register": (errno.ENOMEM, errno.ENOSPC),
    "select": (errno.EINTR,),
    "send": (errno.EAGAIN, errno.EINTR, *_LOST, errno.EPIPE, *_SCARCE),
    "sendmsg": (errno.EAGAIN, errno.EINTR, *_LOST, errno.EPIPE, *_SCARCE),
    "setsockopt": (errno.EINVAL, errno.ENOMEM),
    "shutdown": (errno.ENOTCONN, errno.ENOBUFS),
}


def fault(number: int) -> OSError:
    """Return the exception that the system raises for an error number, of the right class."""
    return OSError(number, os.strerror(number))


class FaultPlan:
    """Count calls, and make one of them fail.

    Args:
        position: of the call that fails, counted from 0; None for none.
        number: the error number it fails with.

    Attributes:
        calls: the names of the calls so far, in order.
        exempt: descriptors whose calls are neither counted nor failed.
        has_struck: whether the call has failed.
    """

    def __init__(self, position: int | None = None, number: int = 0) -> None:
        self.position = position
        self.number = number
        self.calls: list[str] = []
        self.exempt: set[int] = set()
        self.has_struck = False

    def __call__(self, name: str, fd: int) -> None:
        """Take note of a call.

        Raises:
            OSError: this is the one to fail.
        """
        if fd in self.exempt:
            return
        position = len(self.calls)
        self.calls.append(name)
        if position == self.position:
            self.has_struck = True
            raise fault(self.number)

    def __repr__(self) -> str:
        if self.position is None:
            return f"<{len(self.calls)} calls, none fails>"
        name = self.calls[self.position] if self.has_struck else "not reached"
        return f"<call {self.position} ({name}) fails with {errno.errorcode[self.number]}>"

    @property
    def is_transient(self) -> bool:
        """Tell whether whoever tries again succeeds, so that nothing may be lost by it."""
        return self.number in TRANSIENT


def every_fault(calls: Sequence[str]) -> Iterator[FaultPlan]:
    """Yield a plan for each call, and each error with which it may fail.

    Args:
        calls: of a ``FaultPlan`` under which nothing has failed.
    """
    for position, name in enumerate(calls):
        for number in ERRORS.get(name, ()):
            yield FaultPlan(position, number)
