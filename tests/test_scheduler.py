"""What is called when: timers, what other threads hand over, and work that they have done."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from streams import FAIL_SAFE, Witness, connected_pair, with_every_selector
from support import Stage, run_until

from reactor import Reactor

TICK = 0.01


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        yield reactor


# --- timers --------------------------------------------------------------------------------------


def test_a_timer_fires_when_it_is_due_and_once(stage: Stage) -> None:
    fired: list[float] = []
    stage.reactor.call_later(5, lambda: fired.append(stage.clock.now))
    stage.pass_time(4.99)
    assert fired == []
    stage.pass_time(1000)
    assert fired == [pytest.approx(1005, abs=2 * TICK)]
    assert fired[0] >= 1005


def test_call_at_takes_a_time_on_the_reactors_clock(stage: Stage) -> None:
    fired: list[float] = []
    stage.reactor.call_at(1005, lambda: fired.append(stage.clock.now))
    stage.pass_time(10)
    assert fired == [pytest.approx(1005, abs=2 * TICK)]


@pytest.mark.parametrize("args", [(), (None,), (1, 2)])
def test_a_timer_is_called_with_what_it_was_given(stage: Stage, args: tuple[object, ...]) -> None:
    calls: list[tuple[object, ...]] = []
    stage.reactor.call_later(1, lambda *given: calls.append(given), *args)
    stage.pass_time(2)
    assert calls == [args]


def test_timers_fire_in_the_order_of_their_times_with_their_arguments(stage: Stage) -> None:
    log: list[int] = []
    for delay in (3, 1, 2):
        stage.reactor.call_later(delay, log.append, delay)
    stage.pass_time(10)
    assert log == [1, 2, 3]


def test_a_cancelled_timer_never_fires(stage: Stage) -> None:
    log: list[str] = []
    timers = [stage.reactor.call_later(1, log.append, "fired") for _ in range(2)]
    timers[0].cancel()
    stage.reactor.call_later(0.5, timers[1].cancel)
    stage.pass_time(10)
    assert log == []


# --- threads -------------------------------------------------------------------------------------


def test_calls_from_many_threads_arrive_each_once_and_each_threads_in_order(
    reactor: Reactor,
) -> None:
    count, each = 8, 500
    arrived: list[tuple[int, int]] = []
    here = threading.get_ident()

    def arrive(thread: int, number: int) -> None:
        assert threading.get_ident() == here
        arrived.append((thread, number))
        if len(arrived) == count * each:
            reactor.stop()

    def call(thread: int) -> None:
        for number in range(each):
            reactor.call_soon_threadsafe(arrive, thread, number)

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(count)]
    reactor.call_later(FAIL_SAFE, reactor.stop)
    for thread in threads:
        thread.start()
    reactor.run()
    for thread in threads:
        thread.join()
    assert len(arrived) == count * each
    for number in range(count):
        assert [call for thread, call in arrived if thread == number] == list(range(each))


@with_every_selector
def test_a_call_from_another_thread_ends_the_wait(selector: Any) -> None:
    """Ping-pong: each call is made while the reactor waits, or is about to."""
    with Reactor(selector) as reactor:
        rounds: list[int] = []
        turn = threading.Semaphore(0)

        def play() -> None:
            for number in range(200):
                assert turn.acquire(timeout=FAIL_SAFE)
                reactor.call_soon_threadsafe(take, number)
            assert turn.acquire(timeout=FAIL_SAFE)
            reactor.call_soon_threadsafe(reactor.stop)

        def take(number: int) -> None:
            rounds.append(number)
            turn.release()

        thread = threading.Thread(target=play)
        reactor.call_soon(thread.start)
        reactor.call_soon(turn.release)
        reactor.call_later(FAIL_SAFE, reactor.stop)
        reactor.run()
        thread.join()
        assert rounds == list(range(200))


def test_the_thread_that_runs_the_reactor_owns_it(reactor: Reactor) -> None:
    claims: list[bool] = []
    assert reactor.is_own_thread()

    def take_over() -> None:
        claims.append(reactor.is_own_thread())
        reactor.run_once(0)
        claims.append(reactor.is_own_thread())

    thread = threading.Thread(target=take_over)
    thread.start()
    thread.join()
    assert claims == [False, True]
    assert not reactor.is_own_thread()
    reactor.run_once(0)
    assert reactor.is_own_thread()


def test_the_reactor_runs_in_another_thread_than_the_main_one(reactor: Reactor) -> None:
    log: list[str] = []
    thread = threading.Thread(target=reactor.run)
    thread.start()
    reactor.call_soon_threadsafe(log.append, "ran")
    reactor.call_soon_threadsafe(reactor.stop)
    thread.join(FAIL_SAFE)
    assert log == ["ran"]


# --- the executor --------------------------------------------------------------------------------


def test_results_of_the_executor_come_back_in_the_reactors_thread(reactor: Reactor) -> None:
    here = threading.get_ident()
    results: list[tuple[int, bool]] = []

    def done(future: Future[int]) -> None:
        results.append((future.result(), threading.get_ident() == here))

    def work(number: int) -> int:
        assert threading.get_ident() != here
        return number * number

    for number in range(10):
        reactor.run_in_executor(work, number, on_done=done)
    run_until(reactor, lambda: len(results) == 10)
    assert sorted(results) == [(number * number, True) for number in range(10)]


def test_an_exception_in_the_executor_comes_back_with_the_future(reactor: Reactor) -> None:
    errors: list[BaseException | None] = []
    reactor.run_in_executor(int, "boom", on_done=lambda done: errors.append(done.exception()))
    run_until(reactor, lambda: errors)
    assert isinstance(errors[0], ValueError)


def test_work_without_a_callback_is_done_all_the_same(reactor: Reactor) -> None:
    future = reactor.run_in_executor(pow, 2, 10)
    assert future.result(FAIL_SAFE) == 1024


def test_closing_waits_for_work_and_drops_its_result(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "reactor")
    is_closing = threading.Event()
    results: list[object] = []
    done: list[bool] = []

    def work() -> None:
        done.append(is_closing.wait(FAIL_SAFE))

    with connected_pair(reactor, Witness(lost=lambda error: is_closing.set())):
        reactor.run_in_executor(work, on_done=results.append)
        reactor.close()
    assert done == [True]
    assert results == []
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "came after the reactor was closed" in record.getMessage()
