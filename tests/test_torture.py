"""Every fallible call fails once: see ``torturer.py`` for what is run and what is owed.

As part of the suite each call fails with some of the errors that fit it, in turn, so that each
error is met at many calls: without TLS with a transient one and a lasting one, with TLS, whose
handshakes take their time, with the one or the other. ``TORTURE=full`` in the environment has each
call fail with each.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from streams import Echo
from sweeps import IS_FULL
from torturer import Conversation

from reactor import ConnectFailed, Connector, Listener, Protocol
from reactor.connector import System
from reactor.faults import ERRORS, FaultPlan, every_fault, fault
from reactor.testing import MemoryNetwork, VirtualReactor, as_socket
from reactor.wakeup import Wakeup

PARTS = 8


def sampled(calls: Sequence[str], is_secure: bool) -> Iterator[FaultPlan]:
    """Yield a transient error for each call that knows any, and one other; with TLS, in turns."""
    turns: Counter[str] = Counter()
    for position, name in enumerate(calls):
        errors = [FaultPlan(position, number) for number in ERRORS.get(name, ())]
        kinds = [
            [plan for plan in errors if plan.is_transient],
            [plan for plan in errors if not plan.is_transient],
        ]
        kinds = [plans for plans in kinds if plans]
        turn = turns[name]
        turns[name] += 1
        if is_secure and kinds:
            turn, kind = divmod(turn, len(kinds))
            kinds = [kinds[kind]]
        for plans in kinds:
            yield plans[turn % len(plans)]


def calls_of(is_secure: bool) -> list[str]:
    return Conversation(is_secure).run(FaultPlan())


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
def test_the_conversation_makes_calls_of_every_kind(is_secure: bool) -> None:
    calls = calls_of(is_secure)
    assert len(calls) > 100
    expected = {"open", "connect_ex", "getsockopt", "register", "select", "accept", "setsockopt"}
    expected |= {"recv_into", "send", "close"} | ({"modify"} if is_secure else {"sendmsg"})
    assert expected <= {*calls}
    # Otherwise a fault would not strike the call that was meant.
    assert calls == calls_of(is_secure)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "TLS"])
def test_every_call_may_fail(is_secure: bool, part: int, logged: list[object]) -> None:
    calls = calls_of(is_secure)
    plans = list(every_fault(calls) if IS_FULL else sampled(calls, is_secure))
    for plan in plans[part::PARTS]:
        Conversation(is_secure).run(plan)
        assert plan.has_struck, plan


# --- calls that the conversation does not make ---------------------------------------------------


@pytest.fixture
def reactor() -> Iterator[VirtualReactor]:
    with MemoryNetwork().reactor() as reactor:
        yield reactor


def test_a_thread_that_cannot_be_started_is_a_failure_to_connect(
    reactor: VirtualReactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    reactor.system = System()  # the one that looks names up in a thread
    monkeypatch.setattr(threading.Thread, "start", refuse)
    failures: list[ConnectFailed] = []
    Connector(reactor, Protocol(), ("localhost", 80), failures.append)
    assert failures == []
    reactor.settle()
    (failure,) = failures
    assert "can't start new thread" in str(failure)
    assert reactor.next_timeout() is None


def test_a_listener_that_cannot_go_on_after_its_rest_rests_again(
    reactor: VirtualReactor, logged: list[object]
) -> None:
    network = reactor.network
    sock = network.listen()
    Listener(reactor, [as_socket(sock)], Echo)
    sock.fail("accept", errno.ENOMEM)
    sock.connect()
    reactor.settle()
    plan = FaultPlan()
    network.on_call = lambda name, fd: plan(name, fd) if name == "register" else None
    plan.position, plan.number = 0, errno.ENOMEM
    reactor.pass_time(1.5)
    assert plan.has_struck
    late = sock.connect()
    late.feed(b"served")
    reactor.pass_time(1)
    assert late.take() == b"served"
    assert len(logged) == 1


def test_a_wake_up_that_could_not_be_sent_does_not_keep_the_next_from_it() -> None:
    class Sender:
        """Out of memory the first time."""

        sent = 0

        def send(self, data: bytes) -> int:
            self.sent += 1
            if self.sent == 1:
                raise fault(errno.ENOBUFS)
            return len(data)

    wakeup = Wakeup()
    sender: Any = Sender()
    real, wakeup._sender = wakeup._sender, sender
    for _ in range(3):
        wakeup.wake()
    assert sender.sent == 2
    wakeup._sender = real
    wakeup.abort()
