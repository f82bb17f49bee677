"""Signals: real ones, sent to this very process, and what they do to a running reactor."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from streams import FAIL_SAFE, with_every_selector
from support import run_until

from reactor import Reactor
from reactor.signals import Signals, orderly_interrupt, signals_handled, wake_on_signals

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGUSR1"), reason="the system has no signals to spare"
)

if hasattr(signal, "SIGUSR1"):
    USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def untouched_signals() -> Iterator[None]:
    """Begin with Python's own handlers, and check that no test leaves others behind."""
    numbers = (signal.SIGINT, USR1, USR2)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before[0])
    assert [signal.getsignal(number) for number in numbers] == before
    assert wakeup_fd() == -1


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        reactor.call_later(FAIL_SAFE, reactor.stop)
        yield reactor


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


def in_thread(function: Any, *args: Any) -> BaseException | None:
    """Call a function in another thread; return what it raised."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function(*args)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


# --- handlers ------------------------------------------------------------------------------------


def test_a_signal_becomes_a_callback_of_the_loop(reactor: Reactor) -> None:
    log: list[object] = []
    reactor.add_signal_handler(USR1, log.append, "signal")
    reactor.call_soon(send, USR1)
    reactor.call_soon(log.append, "rest of the turn")
    run_until(reactor, lambda: len(log) == 2)
    assert log == ["rest of the turn", "signal"]


@with_every_selector
def test_a_signal_ends_the_wait(selector: Any) -> None:
    with Reactor(selector) as reactor:
        ended_by: list[str] = []

        def end(reason: str) -> None:
            ended_by.append(reason)
            reactor.stop()

        reactor.add_signal_handler(USR1, end, "the signal")
        reactor.call_later(FAIL_SAFE, end, "the time")
        # Another thread sends it, so that it comes while this one waits or is about to.
        reactor.run_in_executor(send, USR1)
        reactor.run()
    assert ended_by == ["the signal"]


def test_a_signal_arrives_though_only_single_turns_are_run(reactor: Reactor) -> None:
    log: list[str] = []
    reactor.add_signal_handler(USR1, log.append, "signal")
    reactor.run_in_executor(send, USR1)
    run_until(reactor, lambda: log)
    assert log == ["signal"]


def test_each_signal_has_its_handler(reactor: Reactor) -> None:
    log: list[int] = []
    for number in (USR1, USR2):
        reactor.add_signal_handler(number, log.append, number)
    send(USR2)
    run_until(reactor, lambda: log)
    send(USR1)
    run_until(reactor, lambda: len(log) == 2)
    assert log == [USR2, USR1]


def test_a_second_handler_replaces_the_first_and_removing_restores_what_was_before_both(
    reactor: Reactor,
) -> None:
    log: list[str] = []
    reactor.add_signal_handler(USR1, log.append, "first")
    reactor.add_signal_handler(USR1, log.append, "second")
    send(USR1)
    run_until(reactor, lambda: log)
    assert log == ["second"]
    assert reactor.remove_signal_handler(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL
    assert not reactor.remove_signal_handler(USR1)


def test_the_handler_from_before_comes_back(reactor: Reactor) -> None:
    log: list[str] = []
    before = signal.signal(USR1, lambda number, frame: log.append("from before"))
    try:
        reactor.add_signal_handler(USR1, log.append, "ours")
        reactor.remove_signal_handler(USR1)
        send(USR1)
        assert log == ["from before"]
    finally:
        signal.signal(USR1, before)


def test_a_handler_that_python_does_not_know_gives_way_to_the_default(
    reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A C library may have installed one: Python calls it None and cannot restore it."""
    install = signal.signal

    def foreign_first(number: int, handler: Any) -> Any:
        install(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", foreign_first)
        reactor.add_signal_handler(USR1, pytest.fail)
    assert reactor.remove_signal_handler(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_closing_restores_every_handler() -> None:
    with Reactor() as reactor:
        for number in (USR1, USR2):
            reactor.add_signal_handler(number, pytest.fail)
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is signal.SIG_DFL


def test_closing_from_another_thread_is_refused_while_there_are_handlers_to_restore(
    reactor: Reactor,
) -> None:
    reactor.add_signal_handler(USR1, pytest.fail)
    assert isinstance(in_thread(reactor.close), ValueError)
    reactor.run_once(0)
    reactor.close()
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_a_signal_that_cannot_be_handled_is_refused(reactor: Reactor) -> None:
    with pytest.raises(ValueError, match="signal number out of range"):
        reactor.add_signal_handler(12_345, pytest.fail)
    assert not reactor.remove_signal_handler(12_345)


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy says nothing when the system refuses"
)
def test_a_signal_that_the_system_keeps_to_itself_is_refused(reactor: Reactor) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        reactor.add_signal_handler(signal.SIGKILL, pytest.fail)
    assert not reactor.remove_signal_handler(signal.SIGKILL)


def test_outside_the_main_thread_handlers_are_refused(reactor: Reactor) -> None:
    error = in_thread(reactor.add_signal_handler, USR1, pytest.fail)
    assert isinstance(error, ValueError)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_handlers_that_are_not_restored_yet_can_be_restored_later() -> None:
    """From another thread it fails; the main thread may still do it then."""
    signals = Signals(lambda callback, *args: None)
    signals.add(USR1, pytest.fail)
    assert isinstance(in_thread(signals.remove, USR1), ValueError)
    assert signals.remove(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_a_handler_that_the_application_installed_meanwhile_stays(reactor: Reactor) -> None:
    def handler(number: int, frame: object) -> None:
        """Do nothing."""

    reactor.add_signal_handler(USR1, pytest.fail)
    signal.signal(USR1, handler)
    assert reactor.remove_signal_handler(USR1)
    assert signal.signal(USR1, signal.SIG_DFL) is handler


# --- handlers for a while ------------------------------------------------------------------------


def receive(reactor: Reactor, number: int, log: list[str]) -> str:
    """Send a signal and return what it has led to."""
    log.clear()
    send(number)
    run_until(reactor, lambda: log)
    assert len(log) == 1
    return log[0]


def test_during_a_block_signals_lead_elsewhere(reactor: Reactor) -> None:
    log: list[str] = []
    with signals_handled(
        reactor, {USR1: lambda: log.append("one"), USR2: lambda: log.append("two")}
    ):
        assert receive(reactor, USR2, log) == "two"
        assert receive(reactor, USR1, log) == "one"
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is signal.SIG_DFL
    assert not reactor.remove_signal_handler(USR1)


def test_the_reactors_own_handler_comes_back(reactor: Reactor) -> None:
    log: list[str] = []
    reactor.add_signal_handler(USR1, log.append, "application")
    for _ in range(2):
        with signals_handled(reactor, {USR1: lambda: log.append("block")}):
            with signals_handled(reactor, {USR1: lambda: log.append("inner block")}):
                assert receive(reactor, USR1, log) == "inner block"
            assert receive(reactor, USR1, log) == "block"
        assert receive(reactor, USR1, log) == "application"
    assert reactor.remove_signal_handler(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_the_applications_own_handler_comes_back(reactor: Reactor) -> None:
    def handler(number: int, frame: object) -> None:
        """Do nothing."""

    signal.signal(USR1, handler)
    signal.signal(USR2, signal.SIG_IGN)
    with signals_handled(reactor, {USR1: pytest.fail, USR2: pytest.fail}):
        pass
    assert signal.signal(USR1, signal.SIG_DFL) is handler
    assert signal.signal(USR2, signal.SIG_DFL) is signal.SIG_IGN
    assert not reactor.remove_signal_handler(USR1)


def test_what_the_application_does_in_the_block_is_left_alone(reactor: Reactor) -> None:
    log: list[str] = []

    def handler(number: int, frame: object) -> None:
        """Do nothing."""

    with signals_handled(reactor, {USR1: pytest.fail, USR2: pytest.fail}):
        reactor.add_signal_handler(USR1, log.append, "application")
        signal.signal(USR2, handler)
    assert receive(reactor, USR1, log) == "application"
    assert reactor.remove_signal_handler(USR1)
    assert signal.getsignal(USR1) is signal.SIG_DFL
    assert signal.signal(USR2, signal.SIG_DFL) is handler
    assert not reactor.remove_signal_handler(USR2)


def test_what_the_application_removes_in_the_block_stays_removed(reactor: Reactor) -> None:
    reactor.add_signal_handler(USR1, pytest.fail)
    with signals_handled(reactor, {USR1: pytest.fail}):
        assert reactor.remove_signal_handler(USR1)
        assert signal.getsignal(USR1) is signal.SIG_DFL
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_a_reactor_closed_in_the_block_has_restored_everything() -> None:
    with Reactor() as reactor, signals_handled(reactor, {USR1: pytest.fail}):
        reactor.close()
        assert signal.getsignal(USR1) is signal.SIG_DFL
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_a_signal_that_cannot_be_handled_leaves_the_others_as_they_were(reactor: Reactor) -> None:
    with (
        pytest.raises(ValueError, match="signal number out of range"),
        signals_handled(reactor, {USR1: pytest.fail, 12_345: pytest.fail}),
    ):
        pytest.fail("the block ran")
    assert signal.getsignal(USR1) is signal.SIG_DFL


def test_outside_the_main_thread_the_block_runs_all_the_same(reactor: Reactor) -> None:
    seen: list[object] = []

    def look() -> None:
        with signals_handled(reactor, {USR1: pytest.fail}):
            seen.append(signal.getsignal(USR1))

    assert in_thread(look) is None
    assert seen == [signal.SIG_DFL]


# --- Ctrl-C --------------------------------------------------------------------------------------


def test_the_first_interrupt_ends_the_loop_after_the_present_turn(reactor: Reactor) -> None:
    log: list[str] = []

    def be_interrupted() -> None:
        send(signal.SIGINT)
        log.append("callback goes on")

    reactor.call_soon(be_interrupted)
    reactor.call_soon(log.append, "rest of the turn")
    with pytest.raises(KeyboardInterrupt):
        reactor.run()
    assert log == ["callback goes on", "rest of the turn"]


@with_every_selector
def test_an_interrupt_ends_the_wait(selector: Any) -> None:
    with Reactor(selector) as reactor:
        reactor.call_later(FAIL_SAFE, pytest.fail, "the interrupt did not arrive")
        reactor.call_soon(reactor.run_in_executor, send, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            reactor.run()


def test_the_second_interrupt_raises_at_once(reactor: Reactor) -> None:
    log: list[str] = []

    def hang() -> None:
        send(signal.SIGINT)
        log.append("the first did nothing yet")
        send(signal.SIGINT)
        log.append("never reached")

    reactor.call_soon(hang)
    with pytest.raises(KeyboardInterrupt):
        reactor.run()
    assert log == ["the first did nothing yet"]


def test_after_an_interrupt_the_reactor_can_be_run_again(reactor: Reactor) -> None:
    log: list[str] = []
    reactor.call_soon(send, signal.SIGINT)
    reactor.call_soon(reactor.call_soon, log.append, "in the next turn")
    with pytest.raises(KeyboardInterrupt):
        reactor.run()
    assert log == []
    reactor.call_soon(reactor.stop)
    reactor.run()
    assert log == ["in the next turn"]


def test_an_exit_that_comes_with_an_interrupt_is_the_one_that_counts(reactor: Reactor) -> None:
    def leave() -> None:
        send(signal.SIGINT)
        raise SystemExit(3)

    reactor.call_soon(leave)
    with pytest.raises(SystemExit):
        reactor.run()


def test_an_applications_own_interrupt_handler_is_left_alone(reactor: Reactor) -> None:
    log: list[str] = []

    def handler(number: int, frame: object) -> None:
        log.append("ours")
        reactor.stop()

    signal.signal(signal.SIGINT, handler)
    reactor.call_soon(send, signal.SIGINT)
    reactor.run()
    assert log == ["ours"]
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is handler


def test_an_interrupt_handler_installed_by_a_callback_stays(reactor: Reactor) -> None:
    def handler(number: int, frame: object) -> None:
        """Do nothing."""

    reactor.call_soon(signal.signal, signal.SIGINT, handler)
    reactor.call_soon(reactor.stop)
    reactor.run()
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is handler


def test_a_signal_handler_for_interrupts_goes_before_the_orderly_end(reactor: Reactor) -> None:
    log: list[str] = []
    reactor.add_signal_handler(signal.SIGINT, log.append, "handled")
    reactor.add_signal_handler(USR1, reactor.stop)
    reactor.call_soon(send, signal.SIGINT)
    reactor.call_soon(send, USR1)
    reactor.run()
    assert log == ["handled"]


# --- the wake-up descriptor ----------------------------------------------------------------------


def test_while_it_runs_the_interpreter_wakes_the_loop_on_signals(reactor: Reactor) -> None:
    """On Windows nothing else would end the wait for Ctrl-C."""
    seen: list[int] = []
    reactor.call_soon(lambda: seen.append(wakeup_fd()))
    reactor.call_soon(reactor.stop)
    reactor.run()
    assert seen == [reactor._wakeup.sender_fileno()]
    assert wakeup_fd() == -1


def test_somebody_elses_wake_up_descriptor_comes_back(reactor: Reactor) -> None:
    with Reactor() as other:
        theirs = other._wakeup.sender_fileno()
        signal.set_wakeup_fd(theirs)
        try:
            reactor.call_soon(reactor.stop)
            reactor.run()
            assert wakeup_fd() == theirs
        finally:
            signal.set_wakeup_fd(-1)


def test_the_interpreter_writes_to_the_descriptor(reactor: Reactor) -> None:
    before = signal.signal(USR1, lambda number, frame: None)
    try:
        with wake_on_signals(reactor._wakeup.sender_fileno()):
            send(USR1)
        assert select.select([reactor._wakeup.fileno()], [], [], FAIL_SAFE)[0]
    finally:
        signal.signal(USR1, before)


def test_outside_the_main_thread_nothing_is_touched(reactor: Reactor) -> None:
    seen: list[object] = []

    def look() -> None:
        with wake_on_signals(reactor._wakeup.sender_fileno()), orderly_interrupt(reactor.stop):
            seen.append(signal.getsignal(signal.SIGINT))

    assert in_thread(look) is None
    assert seen == [signal.default_int_handler]
    assert wakeup_fd() == -1
