"""The timer wheel: its promises one by one, then random programs against a dumb twin."""

from __future__ import annotations

import gc
import math
import random
import sys
import weakref
from fractions import Fraction
from math import inf, nan, nextafter
from typing import Callable, Protocol

import pytest
from sweeps import rounds

from reactor.wheel import Timer, TimerWheel

DAY = 86_400.0


class Log:
    """Make callbacks that leave their label behind when they run."""

    def __init__(self) -> None:
        self.labels: list[object] = []

    def __call__(self, label: object) -> Callable[[], None]:
        return lambda: self.labels.append(label)


class Boom(Exception):
    """What the callbacks of these tests raise."""


def boom() -> None:
    raise Boom


def nothing() -> None:
    pass


def drive(wheel: TimerWheel, most_calls: int = 100_000) -> list[float]:
    """Advance to next_due() until the wheel is empty; return the times."""
    times: list[float] = []
    for _ in range(most_calls):
        due = wheel.next_due()
        if due is None:
            return times
        times.append(due)
        wheel.advance(due)
    raise AssertionError(f"still {len(wheel)} timers after {most_calls} calls of advance")


def follow(wheel: TimerWheel, due: float) -> float:
    """Schedule a timer, drive the wheel by next_due(), return the time at which it fired."""
    now = -inf
    fired: list[float] = []
    timer = wheel.schedule(due, lambda: fired.append(now))
    for _ in range(1000):
        if not timer.is_pending:
            break
        next_due = wheel.next_due()
        assert next_due is not None
        now = next_due
        wheel.advance(now)
    (time,) = fired
    return time


# --- Construction and arguments


@pytest.mark.parametrize("tick", [0, 0.0, -0.01, nan, inf, -inf])
def test_a_tick_that_is_not_positive_and_finite_is_refused(tick: float) -> None:
    with pytest.raises(ValueError, match="tick must be a positive number of seconds"):
        TimerWheel(tick)


@pytest.mark.parametrize("start", [nan, inf, -inf])
def test_a_start_that_is_not_finite_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match="start must be a finite number of seconds"):
        TimerWheel(start=start)


@pytest.mark.parametrize("due", [nan, inf, -inf])
def test_a_due_time_that_is_not_finite_is_refused(due: float) -> None:
    wheel = TimerWheel()
    with pytest.raises(ValueError, match="due must be a finite number of seconds"):
        wheel.schedule(due, nothing)
    assert len(wheel) == 0
    assert wheel.next_due() is None


@pytest.mark.parametrize("now", [nan, inf, -inf])
def test_a_present_that_is_not_finite_is_refused_and_changes_nothing(now: float) -> None:
    wheel = TimerWheel()
    timer = wheel.schedule(1.0, nothing)
    with pytest.raises(ValueError, match="now must be a finite number of seconds"):
        wheel.advance(now)
    assert timer.is_pending
    assert wheel.advance(1.0) == 1


def test_an_empty_wheel_has_nothing_due() -> None:
    wheel = TimerWheel()
    assert len(wheel) == 0
    assert wheel.next_due() is None
    assert wheel.advance(1e9) == 0


# --- One timer


def test_a_timer_fires_once_and_its_callback_is_let_go() -> None:
    log = Log()
    wheel = TimerWheel()
    callback = log("a")
    timer = wheel.schedule(1.0, callback)
    assert timer.is_pending
    assert timer.due == 1.0
    assert timer.callback is callback
    assert len(wheel) == 1
    assert wheel.advance(0.99) == 0
    assert wheel.advance(1.0) == 1
    assert wheel.advance(100.0) == 0
    assert log.labels == ["a"]
    assert not timer.is_pending
    assert timer.callback is not callback
    assert len(wheel) == 0


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_callback_gets_its_argument_which_is_let_go(is_cancelled: bool) -> None:
    class Argument:
        pass

    argument = Argument()
    seen: list[str] = []
    wheel = TimerWheel()
    timer = wheel.schedule(1.0, lambda given: seen.append(type(given).__name__), argument)
    reference = weakref.ref(argument)
    del argument
    if is_cancelled:
        timer.cancel()
    wheel.advance(1.0)
    assert seen == ([] if is_cancelled else ["Argument"])
    gc.collect()
    assert reference() is None


def test_none_is_an_argument_as_any_other() -> None:
    seen: list[object] = []
    wheel = TimerWheel()
    wheel.schedule(1.0, seen.append, None)
    wheel.advance(1.0)
    assert seen == [None]


def test_a_timer_is_no_longer_pending_while_its_callback_runs() -> None:
    seen: list[tuple[bool, int]] = []
    wheel = TimerWheel()
    timer = wheel.schedule(1.0, lambda: seen.append((timer.is_pending, len(wheel))))
    wheel.advance(1.0)
    assert seen == [(False, 0)]


@pytest.mark.parametrize("due", [-5.0, 0.0, 0.001, 1.0, 100.0, 1e7, 1e300])
def test_a_cancelled_timer_never_fires(due: float) -> None:
    log = Log()
    wheel = TimerWheel()
    timer = wheel.schedule(due, log("never"))
    timer.cancel()
    timer.cancel()
    assert not timer.is_pending
    assert len(wheel) == 0
    assert wheel.next_due() is None
    assert wheel.advance(sys.float_info.max) == 0
    assert log.labels == []


def test_cancelling_a_timer_that_has_fired_is_harmless() -> None:
    wheel = TimerWheel()
    timer = wheel.schedule(1.0, nothing)
    other = wheel.schedule(2.0, nothing)
    wheel.advance(1.0)
    timer.cancel()
    assert len(wheel) == 1
    assert other.is_pending


def test_cancelling_one_of_a_slot_leaves_the_others() -> None:
    log = Log()
    wheel = TimerWheel()
    timers = [wheel.schedule(1.0, log(number)) for number in range(5)]
    for number in (0, 2, 4):
        timers[number].cancel()
    assert len(wheel) == 2
    assert wheel.advance(1.0) == 2
    assert log.labels == [1, 3]


@pytest.mark.parametrize("due", [0.0, -0.01, -1e9, -sys.float_info.max, 5.0, 4.999])
def test_a_timer_for_now_or_the_past_fires_in_the_next_call(due: float) -> None:
    wheel = TimerWheel()
    wheel.advance(5.0)
    wheel.schedule(due, nothing)
    next_due = wheel.next_due()
    assert next_due is not None
    assert next_due <= 5.0
    assert wheel.advance(5.0) == 1
    assert wheel.next_due() is None


def test_a_timer_for_the_past_within_the_running_tick_fires_in_the_next_call() -> None:
    wheel = TimerWheel(tick=1.0)
    wheel.advance(5.75)
    wheel.schedule(5.5, nothing)
    assert wheel.advance(5.75) == 1


def test_a_timer_before_the_start_fires_in_the_next_call() -> None:
    wheel = TimerWheel(start=1000.0)
    wheel.schedule(3.0, nothing)
    assert wheel.advance(999.0) == 0
    assert wheel.advance(1000.0) == 1


def test_time_may_be_negative() -> None:
    wheel = TimerWheel(tick=0.5, start=-100.0)
    assert follow(wheel, -98.75) == -98.5
    assert follow(wheel, 0.0) == 0.0
    assert follow(wheel, 3.25) == 3.5


# --- Order


def test_callbacks_run_in_order_of_due_time() -> None:
    log = Log()
    wheel = TimerWheel()
    dues = [7.0, 0.5, 3000.0, -1.0, 0.501, 0.0, 5.0, 0.5000001, 86_400.0]
    for due in dues:
        wheel.schedule(due, log(due))
    assert wheel.advance(DAY) == len(dues)
    assert log.labels == sorted(dues)


def test_callbacks_of_one_due_time_run_in_order_of_scheduling() -> None:
    log = Log()
    wheel = TimerWheel(tick=1.0)
    for now in (0.0, 100.0, 4000.0, 4090.0, 4099.0):
        wheel.advance(now)
        wheel.schedule(4100.0, log(now))
    wheel.advance(4100.0)
    assert log.labels == [0.0, 100.0, 4000.0, 4090.0, 4099.0]


def test_a_late_comer_of_the_same_due_time_runs_after_those_before_it() -> None:
    log = Log()
    wheel = TimerWheel(tick=1.0)
    wheel.schedule(5.25, log("first"))
    wheel.advance(5.5)
    wheel.schedule(5.25, log("second"))
    wheel.advance(6.0)
    assert log.labels == ["first", "second"]


def test_what_a_raising_callback_left_keeps_its_place_in_the_order() -> None:
    log = Log()
    wheel = TimerWheel(tick=1.0)
    wheel.schedule(5.25, log("first"))
    wheel.advance(5.5)
    wheel.schedule(5.0, boom)
    wheel.schedule(5.25, log("second"))
    with pytest.raises(Boom):
        wheel.advance(5.5)
    wheel.schedule(5.25, log("third"))
    wheel.advance(6.0)
    assert log.labels == ["first", "second", "third"]


# --- Callbacks that use the wheel


def test_a_callback_may_cancel_its_own_timer() -> None:
    log = Log()
    wheel = TimerWheel()

    def callback() -> None:
        timer.cancel()
        log.labels.append("ran")

    timer = wheel.schedule(1.0, callback)
    assert wheel.advance(1.0) == 1
    assert wheel.advance(2.0) == 0
    assert log.labels == ["ran"]


def test_a_callback_may_cancel_others_that_are_due_in_the_same_call() -> None:
    log = Log()
    wheel = TimerWheel()

    def cancel_victims() -> None:
        for timer in victims:
            timer.cancel()

    wheel.schedule(0.5, log("before"))
    wheel.schedule(1.0, cancel_victims)
    victims = [wheel.schedule(due, log("victim")) for due in (1.0, 1.001, 2.0, 3.0)]
    wheel.schedule(1.0, log("sibling"))
    wheel.schedule(2.5, log("after"))
    assert wheel.advance(3.0) == 4
    assert log.labels == ["before", "sibling", "after"]
    assert len(wheel) == 0


@pytest.mark.parametrize("delay", [0.0, -1.0, -100.0])
def test_a_timer_scheduled_without_delay_by_a_callback_waits_for_the_next_call(
    delay: float,
) -> None:
    times: list[float] = []
    wheel = TimerWheel()
    now = 10.0

    def again() -> None:
        times.append(now)
        wheel.schedule(now + delay, again)

    wheel.schedule(10.0, again)
    for now in (10.0, 10.0, 10.5):
        assert wheel.advance(now) == 1
        next_due = wheel.next_due()
        assert next_due is not None
        assert next_due <= now
    assert times == [10.0, 10.0, 10.5]


def test_a_callback_may_schedule_for_later() -> None:
    times: list[float] = []
    wheel = TimerWheel(tick=0.25)
    now = 0.0

    def again() -> None:
        times.append(now)
        if len(times) < 4:
            wheel.schedule(now + 0.5, again)

    wheel.schedule(0.5, again)
    while (due := wheel.next_due()) is not None:
        now = due
        wheel.advance(now)
    assert times == [0.5, 1.0, 1.5, 2.0]


def test_a_call_from_inside_a_callback_runs_all_that_is_due_and_nothing_runs_twice() -> None:
    log = Log()
    wheel = TimerWheel()

    def nested() -> None:
        log.labels.append("nested begins")
        wheel.schedule(0.0, log("past"))
        log.labels.append(wheel.advance(2.0))

    wheel.schedule(1.0, log("a"))
    wheel.schedule(1.0, nested)
    wheel.schedule(1.0, log("b"))
    wheel.schedule(2.0, log("c"))
    wheel.schedule(3.0, log("d"))
    assert wheel.advance(1.0) == 2
    assert log.labels == ["a", "nested begins", "past", "b", "c", 3]
    assert len(wheel) == 1
    assert wheel.advance(3.0) == 1


def test_a_call_from_inside_a_callback_with_an_earlier_time_has_no_effect() -> None:
    log = Log()
    wheel = TimerWheel()
    wheel.schedule(1.0, lambda: log.labels.append(wheel.advance(0.5)))
    wheel.schedule(1.0, log("after"))
    assert wheel.advance(1.0) == 2
    assert log.labels == [0, "after"]


def test_the_wheel_is_whole_while_callbacks_run() -> None:
    seen: list[tuple[int, bool]] = []
    wheel = TimerWheel()

    def look() -> None:
        next_due = wheel.next_due()
        assert next_due is not None
        seen.append((len(wheel), next_due <= 1.0))

    for due in (1.0, 1.0, 1.0, 50.0):
        wheel.schedule(due, look)
    wheel.advance(1.0)
    assert seen == [(3, True), (2, True), (1, False)]


# --- Callbacks that raise


def test_what_a_callback_raises_leaves_advance_and_the_rest_runs_in_the_next_call() -> None:
    log = Log()
    wheel = TimerWheel()
    wheel.schedule(1.0, log("a"))
    wheel.schedule(2.0, boom)
    left = wheel.schedule(2.0, log("b"))
    wheel.schedule(3.0, log("c"))
    with pytest.raises(Boom):
        wheel.advance(3.0)
    assert log.labels == ["a"]
    assert len(wheel) == 2
    assert left.is_pending
    next_due = wheel.next_due()
    assert next_due is not None
    assert next_due <= 3.0
    assert wheel.advance(3.0) == 2
    assert log.labels == ["a", "b", "c"]
    assert wheel.next_due() is None


def test_every_callback_may_raise_and_each_still_runs_once() -> None:
    wheel = TimerWheel()
    timers = [wheel.schedule(1.0, boom) for _ in range(20)]
    for left in range(19, -1, -1):
        with pytest.raises(Boom):
            wheel.advance(1.0)
        assert [timer.is_pending for timer in timers].count(True) == left
    assert wheel.advance(1.0) == 0


def test_what_was_left_can_still_be_cancelled() -> None:
    log = Log()
    wheel = TimerWheel()
    wheel.schedule(1.0, boom)
    left = wheel.schedule(1.0, log("left"))
    with pytest.raises(Boom):
        wheel.advance(1.0)
    left.cancel()
    assert len(wheel) == 0
    assert wheel.next_due() is None
    assert wheel.advance(2.0) == 0
    assert log.labels == []


def test_what_was_left_runs_in_order_with_what_has_come_due_since() -> None:
    log = Log()
    wheel = TimerWheel()
    wheel.schedule(1.0, boom)
    for due in (3.0, 2.0, 4.0, 2.5):
        wheel.schedule(due, log(due))
    with pytest.raises(Boom):
        wheel.advance(3.0)
    wheel.schedule(2.25, log(2.25))
    assert wheel.advance(4.0) == 5
    assert log.labels == [2.0, 2.25, 2.5, 3.0, 4.0]


def test_what_a_nested_call_left_waits_for_the_next_call_and_not_for_the_outer_one() -> None:
    log = Log()
    wheel = TimerWheel()

    def nested() -> None:
        wheel.schedule(0.0, boom)
        wheel.schedule(0.0, log("past"))
        with pytest.raises(Boom):
            wheel.advance(1.0)
        log.labels.append("caught")

    wheel.schedule(1.0, nested)
    wheel.schedule(1.0, log("sibling"))
    assert wheel.advance(1.0) == 1
    assert log.labels == ["caught"]
    assert len(wheel) == 2
    assert wheel.advance(1.0) == 2
    assert log.labels == ["caught", "past", "sibling"]


# --- The clock


def test_a_clock_that_goes_backwards_has_no_effect() -> None:
    log = Log()
    wheel = TimerWheel()
    wheel.advance(100.0)
    wheel.schedule(50.0, log("past"))
    wheel.schedule(150.0, log("future"))
    for now in (99.999, 50.0, 0.0, -1e9):
        assert wheel.advance(now) == 0
    assert len(wheel) == 2
    assert wheel.advance(100.0) == 1
    assert wheel.advance(150.0) == 1
    assert log.labels == ["past", "future"]


@pytest.mark.parametrize("tick", [0.01, 1e-9])
@pytest.mark.parametrize("days", [30, 36_500])
def test_a_long_gap_is_not_stepped_through_tick_by_tick(tick: float, days: int) -> None:
    log = Log()
    wheel = TimerWheel(tick)
    gap = days * DAY
    wheel.schedule(gap / 2, log("within"))
    wheel.schedule(gap * 2, log("beyond"))
    assert wheel.advance(gap) == 1
    assert len(drive(wheel, most_calls=11)) > 0
    assert log.labels == ["within", "beyond"]


def test_next_due_is_exact_within_the_lowest_level() -> None:
    for ticks in range(1, 64):
        wheel = TimerWheel(tick=0.5)
        wheel.schedule(ticks * 0.5, nothing)
        assert wheel.next_due() == ticks * 0.5
        wheel.schedule(ticks * 0.5 - 0.25, nothing)
        assert wheel.next_due() == ticks * 0.5


@pytest.mark.parametrize("due", [0.5, 5.5, 70.5, 5000.5, 300_000.5])
def test_a_timer_fires_with_its_tick_and_not_between_ticks_from_any_level(due: float) -> None:
    wheel = TimerWheel(tick=1.0)
    wheel.schedule(due, nothing)
    assert wheel.advance(due + 0.25) == 0
    assert wheel.advance(due + 0.5) == 1


def test_next_due_forgets_cancelled_timers() -> None:
    wheel = TimerWheel(tick=0.5)
    timers = [wheel.schedule(due, nothing) for due in (-1.0, 0.5, 7.0, 30.0, 1e4)]
    for timer, expected in zip(timers, (0.5, 7.0, 30.0, 1e4)):
        timer.cancel()
        due = wheel.next_due()
        assert due is not None
        assert due <= expected
        assert TimerWheel(0.5).advance(due) == 0
        if expected < 32.0:
            assert due == expected
    timers[-1].cancel()
    assert wheel.next_due() is None


# --- Far and near


@pytest.mark.parametrize("begin", [0, 1, 62, 63, 64, 4095, 4096, 123_456_789])
@pytest.mark.parametrize("level", range(9))
def test_a_timer_fires_at_its_tick_on_every_level(level: int, begin: int) -> None:
    for ticks in (64**level - 1, 64**level, 64**level + 1):
        log = Log()
        wheel = TimerWheel(tick=1.0)
        wheel.advance(float(begin))
        due = float(begin + ticks)
        assert follow(wheel, due) == max(due, begin)
        wheel = TimerWheel(tick=1.0)
        wheel.advance(float(begin))
        timer = wheel.schedule(due, log("one jump"))
        if due > begin:
            assert wheel.advance(due - 1.0) == 0
            assert timer.is_pending
        assert wheel.advance(due) == 1
        assert log.labels == ["one jump"]


DELAYS = [0.0, 1e-9, 0.009, 0.01, 0.011, 0.64, 1.0, 40.96, 60.0, 3600.0, DAY, 7 * DAY, 29.9 * DAY]
FAR_DELAYS = [30 * DAY, 30 * DAY + 0.01, 124.3 * DAY, 1e9, 1e12]


@pytest.mark.parametrize("start", [0.0, 12_345.678])
@pytest.mark.parametrize("delay", [*DELAYS, *FAR_DELAYS])
def test_a_delay_from_nothing_to_beyond_thirty_days_is_kept(delay: float, start: float) -> None:
    wheel = TimerWheel(start=start)
    due = start + delay
    assert due <= follow(wheel, due) <= due + 0.01 + 4 * math.ulp(due)
    assert len(wheel) == 0


@pytest.mark.parametrize("tick", [1e-12, 0.01, 1e6])
@pytest.mark.parametrize("due", [1e17, 1e30, 1e300, sys.float_info.max])
def test_a_finite_time_that_never_comes_can_be_scheduled(due: float, tick: float) -> None:
    log = Log()
    wheel = TimerWheel(tick)
    wheel.schedule(due, log("at last"))
    cancelled = wheel.schedule(due, log("never"))
    assert wheel.advance(100 * 365 * DAY) == 0
    assert wheel.advance(nextafter(due, 0.0)) == 0
    cancelled.cancel()
    assert drive(wheel, most_calls=12)[-1] >= due
    assert log.labels == ["at last"]


def test_times_at_both_ends_of_the_scale_do_not_overflow() -> None:
    wheel = TimerWheel(tick=1e-300, start=-sys.float_info.max)
    wheel.schedule(sys.float_info.max, nothing)
    assert wheel.advance(0.0) == 0
    assert wheel.advance(sys.float_info.max) == 1


# --- Many


def test_fifty_thousand_timers_of_one_slot_fire_once_each_in_order() -> None:
    log = Log()
    wheel = TimerWheel()
    for number in range(50_000):
        wheel.schedule(100.0, log(number))
    assert len(wheel) == 50_000
    assert wheel.advance(99.99) == 0
    assert wheel.advance(100.0) == 50_000
    assert log.labels == list(range(50_000))
    assert wheel.advance(200.0) == 0


def test_fifty_thousand_timers_of_one_tick_fire_in_order_of_due_time() -> None:
    log = Log()
    wheel = TimerWheel(tick=1.0)
    source = random.Random(1)
    dues = [5.0 + source.random() for _ in range(50_000)]
    for number, due in enumerate(dues):
        wheel.schedule(due, log((due, number)))
    assert drive(wheel) == [6.0]
    assert log.labels == sorted((due, number) for number, due in enumerate(dues))


class Callback:
    """A callback that can be referred to weakly."""

    def __call__(self) -> None:
        raise AssertionError("a cancelled timer has fired")


@pytest.mark.parametrize("delay", [0.0, 0.05, 30.0, 40 * DAY])
def test_arming_and_cancelling_leaves_nothing_behind(delay: float) -> None:
    wheel = TimerWheel()
    callback = Callback()
    for _ in range(100_000):
        wheel.schedule(delay, callback).cancel()
    reference = weakref.ref(callback)
    del callback
    assert len(wheel) == 0
    gc.collect()
    assert reference() is None
    assert wheel.next_due() is None
    assert wheel.advance(50 * DAY) == 0


def test_cancelling_many_that_wait_together_leaves_nothing_behind() -> None:
    wheel = TimerWheel()
    timers = [wheel.schedule(number % 700, Callback()) for number in range(50_000)]
    references = [weakref.ref(timer.callback) for timer in timers]
    random.Random(1).shuffle(timers)
    while timers:
        timers.pop().cancel()
    assert len(wheel) == 0
    gc.collect()
    assert all(reference() is None for reference in references)
    assert wheel.next_due() is None


@pytest.mark.parametrize("together", [1, 10_000])
@pytest.mark.parametrize("delay", [0.0, 0.05, 30.0, 40 * DAY])
def test_the_room_of_cancelled_timers_is_given_back(delay: float, together: int) -> None:
    tracemalloc = pytest.importorskip("tracemalloc", reason="this Python does not trace memory")
    wheel = TimerWheel()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000 // together):
            timers = [wheel.schedule(delay, nothing) for _ in range(together)]
            while timers:
                timers.pop().cancel()
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # One reference kept for each timer would be 80,000.
    assert left < 10_000


class Quiet:
    """A callback that can be referred to weakly, and called."""

    def __call__(self) -> None:
        pass


def test_a_kept_timer_that_has_fired_does_not_keep_its_callback() -> None:
    wheel = TimerWheel()
    callback = Quiet()
    reference = weakref.ref(callback)
    timer = wheel.schedule(1.0, callback)
    del callback
    wheel.advance(1.0)
    gc.collect()
    assert not timer.is_pending
    assert reference() is None


def test_a_kept_timer_that_was_cancelled_does_not_keep_its_callback() -> None:
    wheel = TimerWheel()
    callback = Quiet()
    reference = weakref.ref(callback)
    timer = wheel.schedule(1.0, callback)
    del callback
    timer.cancel()
    gc.collect()
    assert timer.due == 1.0
    assert reference() is None


# --- Rounding


TICKS = [0.1, 0.01, 0.001, 1 / 3, 1 / 49, 0.7, 7e-5, 3.3]
STARTS = [0.0, 0.1, 1e6 / 3, 1.7e9]


def around(time: float) -> list[float]:
    return [nextafter(time, -inf), time, nextafter(time, inf)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("tick", TICKS)
def test_no_rounding_error_makes_a_timer_early(tick: float, start: float) -> None:
    for multiple in [*range(1, 70, 3), 999, 4095, 4096, 10**6 + 1]:
        times = around(start + multiple * tick)
        for due in times:
            for now in times:
                wheel = TimerWheel(tick, start)
                wheel.schedule(due, nothing)
                fired = wheel.advance(now)
                assert not fired or now >= due
                assert fired + len(wheel) == 1


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("tick", TICKS)
def test_no_rounding_error_makes_a_timer_more_than_a_tick_late(tick: float, start: float) -> None:
    for multiple in [*range(1, 70, 3), 999, 4095, 4096, 10**6 + 1]:
        for due in around(start + multiple * tick):
            lateness = Fraction(follow(TimerWheel(tick, start), due)) - Fraction(due)
            assert 0 <= lateness <= Fraction(tick) + 2 * Fraction(math.ulp(due))


def test_a_tick_below_the_resolution_of_time_does_no_harm() -> None:
    start = 1.7e9
    wheel = TimerWheel(tick=1e-12, start=start)
    for due in (nextafter(start, inf), start + 1e-3, start + 10.0):
        assert due <= follow(wheel, due) <= nextafter(due, inf)


def test_next_due_always_leads_forward() -> None:
    # (49 * (1 / 49)) / (1 / 49) rounds to less than 49: a naive next_due() stands still there.
    for divisor in range(1, 200):
        tick = 1 / divisor
        for multiple in (divisor - 1, divisor, divisor + 1):
            wheel = TimerWheel(tick)
            wheel.schedule(multiple * tick, nothing)
            times = drive(wheel, most_calls=6)
            assert times == sorted(set(times))
            assert times[-1] >= multiple * tick


# --- Random programs against a dumb twin


class TimerLike(Protocol):
    due: float

    def cancel(self) -> None: ...

    @property
    def is_pending(self) -> bool: ...


class WheelLike(Protocol):
    def schedule(self, due: float, callback: Callable[[], object]) -> TimerLike: ...

    def advance(self, now: float) -> int: ...

    def __len__(self) -> int: ...


class TwinTimer:
    def __init__(self, twin: Twin, due: float, callback: Callable[[], object]) -> None:
        self.twin = twin
        self.due = due
        self.callback = callback
        self.order = len(twin.ever)
        self.is_overdue = due <= twin.now
        self.is_pending = True
        twin.ever.append(self)
        twin.pending.append(self)

    def cancel(self) -> None:
        if self.is_pending:
            self.is_pending = False
            self.twin.pending.remove(self)

    def is_due(self) -> bool:
        if self.is_overdue:
            return True
        twin = self.twin
        ticks = math.ceil((self.due - twin.start) / twin.tick)
        return self.due <= twin.now and ticks <= math.floor((twin.now - twin.start) / twin.tick)


class Twin:
    """Keep the wheel's promises in the simplest way: a list that is sorted in every call."""

    def __init__(self, tick: float, start: float) -> None:
        self.tick = tick
        self.start = start
        self.now = start
        self.calls = 0
        self.ever: list[TwinTimer] = []
        self.pending: list[TwinTimer] = []

    def schedule(self, due: float, callback: Callable[[], object]) -> TwinTimer:
        return TwinTimer(self, due, callback)

    def __len__(self) -> int:
        return len(self.pending)

    def advance(self, now: float) -> int:
        if now < self.now:
            return 0
        self.now = now
        self.calls += 1
        call = self.calls
        count = 0
        due = [timer for timer in self.pending if timer.is_due()]
        for timer in sorted(due, key=lambda timer: (timer.due, timer.order)):
            if self.calls == call and timer.is_pending:
                timer.cancel()
                count += 1
                timer.callback()
        return count


class Program:
    """Play one random program on a wheel; the same seed plays the same program on its twin."""

    MOST_TIMERS = 400
    DEEPEST = 4

    def __init__(self, wheel: WheelLike, seed: int, tick: float, start: float) -> None:
        self.wheel = wheel
        self.seed = seed
        self.tick = tick
        self.now = start
        self.depth = 0
        self.timers: list[TimerLike] = []
        self.log: list[object] = []

    def schedule(self, choice: random.Random) -> None:
        number = len(self.timers)
        if number < self.MOST_TIMERS:
            due = self.choose_due(choice)
            self.timers.append(self.wheel.schedule(due, lambda: self.fire(number)))

    def choose_due(self, choice: random.Random) -> float:
        kind = choice.randrange(8)
        if kind == 0:
            return self.now
        if kind == 1:
            return self.now - choice.random() * 3 * self.tick
        if kind == 2 and self.timers:
            return choice.choice(self.timers).due
        if kind == 3:
            return choice.choice(around(self.now + choice.randrange(70) * self.tick))
        if kind == 4:
            return self.now + choice.random() * self.tick
        return self.now + self.tick * 10 ** (choice.random() * 9 - 1)

    def fire(self, number: int) -> None:
        timer = self.timers[number]
        assert not timer.is_pending
        assert self.now >= timer.due
        self.log.append((number, self.now, len(self.wheel)))
        choice = random.Random(self.seed * 1_000_000 + number)
        for _ in range(choice.randrange(4)):
            self.act(choice, timer)

    def act(self, choice: random.Random, timer: TimerLike) -> None:
        kind = choice.randrange(12)
        if kind < 5:
            self.schedule(choice)
        elif kind < 7:
            choice.choice(self.timers).cancel()
        elif kind == 7:
            timer.cancel()
        elif kind == 8:
            siblings = [other for other in self.timers if other.due == timer.due]
            choice.choice(siblings).cancel()
        elif kind == 9:
            self.nest(choice)
        elif kind == 10:
            raise Boom

    def nest(self, choice: random.Random) -> None:
        if self.depth < self.DEEPEST:
            self.depth += 1
            step = choice.choice([0.0, 0.0, -1.0, 0.5, 1.0, 70.0, 5000.0]) * self.tick
            self.advance(self.now + step)
            self.depth -= 1

    def advance(self, now: float) -> None:
        self.now = max(self.now, now)
        try:
            self.log.append(self.wheel.advance(now))
        except Boom:
            self.log.append("boom")

    def state(self) -> tuple[list[object], int, list[bool]]:
        return self.log, len(self.wheel), [timer.is_pending for timer in self.timers]


def choose_now(choice: random.Random, now: float, tick: float, next_due: float | None) -> float:
    kind = choice.randrange(8)
    if kind == 0:
        return now
    if kind == 1:
        return now - choice.random() * 100 * tick
    if kind == 2:
        return choice.choice(around(now + choice.randrange(70) * tick))
    if kind == 3:
        return now + tick * 10 ** (choice.random() * 8)
    if kind == 4:
        return now + choice.random() * tick
    return now if next_due is None else next_due


@pytest.mark.parametrize("seed", range(1, rounds(10, 100)))
@pytest.mark.parametrize(
    ("tick", "start"), [(0.01, 0.0), (0.1, -77.7), (1.0, 0.0), (1 / 3, 1e6), (0.001, 1.7e9)]
)
def test_the_wheel_plays_random_programs_exactly_as_its_twin(
    tick: float, start: float, seed: int
) -> None:
    wheel = TimerWheel(tick, start)
    twin = Twin(tick, start)
    program = Program(wheel, seed, tick, start)
    twin_program = Program(twin, seed, tick, start)
    steps = random.Random(seed)
    for step in range(120):
        for each in (program, twin_program):
            choice = random.Random(seed * 1_000_000 - step - 1)
            for _ in range(choice.randrange(6)):
                each.schedule(choice)
            if each.timers and choice.random() < 0.3:
                choice.choice(each.timers).cancel()
        now = choose_now(steps, program.now, tick, wheel.next_due())
        program.advance(now)
        twin_program.advance(now)
        assert program.state() == twin_program.state()
        check_next_due(wheel, twin)
    assert any(entry == "boom" for entry in program.log)


def check_next_due(wheel: TimerWheel, twin: Twin) -> None:
    next_due = wheel.next_due()
    if not twin.pending:
        assert next_due is None
        return
    assert next_due is not None
    earliest = min(timer.due for timer in twin.pending)
    if any(timer.is_due() for timer in twin.pending):
        assert next_due <= twin.now
    else:
        assert next_due > twin.now
        assert next_due <= earliest + twin.tick * (1 + 1e-6) + 2 * math.ulp(earliest)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("tick", [0.01, 0.1, 1 / 3, 2.0])
def test_whoever_follows_next_due_is_never_early_and_at_most_one_tick_late(
    tick: float, seed: int
) -> None:
    choice = random.Random(seed)
    wheel = TimerWheel(tick)
    now = 0.0
    fired: list[Timer] = []

    def schedule() -> Timer:
        timer = wheel.schedule(now + 10 ** (choice.random() * 9 - 3), lambda: fire(timer))
        return timer

    def fire(timer: Timer) -> None:
        assert timer.due <= now <= timer.due + tick + 2 * math.ulp(now)
        fired.append(timer)
        if len(fired) < 300:
            schedule()

    for _ in range(100):
        schedule()
    while (due := wheel.next_due()) is not None:
        assert due > now
        now = due
        wheel.advance(now)
    assert len(fired) == 399


@pytest.mark.parametrize("seed", range(20))
def test_the_earliest_timer_is_known_to_whoever_is_late(seed: int) -> None:
    choice = random.Random(seed)
    wheel = TimerWheel(0.01)
    assert wheel.earliest() is None
    timers = [wheel.schedule(10 ** (choice.random() * 9 - 3), list) for _ in range(200)]
    while timers:
        assert wheel.earliest() == min(timer.due for timer in timers)
        if choice.random() < 0.5:
            timers.pop(choice.randrange(len(timers))).cancel()
        else:
            next_due = wheel.next_due()
            assert next_due is not None
            wheel.advance(next_due)
            timers = [timer for timer in timers if timer.is_pending]
    assert wheel.earliest() is None
    wheel.schedule(0.0, list)  # overdue
    assert wheel.earliest() == wheel.next_due()
