from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from websocket.ratelimit import Arrivals, BucketTable, TokenBucket

RATES = [(20.0, 50), (64 / 60, 64), (50.0, 100), (1.0, 1), (1 / 3, 7), (10_000.0, 3), (1e-3, 2)]
STARTS = [0.0, 0.1, 12_345.678, 1e7]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("rate", "burst"), RATES)
def test_the_burst_passes_and_not_one_more(rate: float, burst: int, start: float) -> None:
    bucket = TokenBucket(rate, burst, start)
    assert [bucket.take(start) for _ in range(burst + 3)] == [True] * burst + [False] * 3


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("rate", "burst"), RATES)
def test_a_token_is_there_exactly_on_refill(rate: float, burst: int, start: float) -> None:
    bucket = TokenBucket(rate, burst, start)
    for _ in range(burst):
        bucket.take(start)
    for refill in range(1, 200):
        assert not bucket.take(start + (refill - 0.01) / rate)
        assert bucket.take(start + refill / rate)
        assert not bucket.take(start + refill / rate)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("rate", "burst"), RATES)
def test_what_wait_says_is_long_enough_and_not_too_long(
    rate: float, burst: int, start: float
) -> None:
    random_source = random.Random(1)
    bucket = TokenBucket(rate, burst, start)
    now = start
    for _ in range(300):
        tokens = random_source.randint(1, burst)
        seconds = bucket.wait(now, tokens)
        assert seconds <= tokens / rate + 1e-6
        if seconds:
            assert not bucket.take(now, tokens)
            assert not bucket.take(now + seconds * 0.5, tokens) or seconds < 0.01 / rate
        now += seconds
        assert bucket.wait(now, tokens) == 0
        assert bucket.take(now, tokens)


def test_a_bucket_agrees_with_one_that_counts_in_fractions() -> None:
    random_source = random.Random(7)
    for rate, burst in [(20, 50), (3, 5), (1, 1)]:
        bucket = TokenBucket(rate, burst, 0.0)
        tokens, last = Fraction(burst), Fraction(0)
        for _ in range(2_000):
            # Steps of 1/64 second are exact in binary, so that both see the same time.
            now = last + Fraction(random_source.randrange(8), 64)
            tokens = min(Fraction(burst), tokens + (now - last) * rate)
            last = now
            wanted = random_source.choice([1, 1, 1, burst])
            assert bucket.take(float(now), wanted) is (tokens >= wanted)
            tokens -= wanted if tokens >= wanted else 0


def test_over_a_long_time_the_rate_is_exact() -> None:
    rate, burst = 64 / 60, 64
    bucket = TokenBucket(rate, burst, 0.0)
    passed = sum(bucket.take(step / 10) for step in range(36_000))
    assert abs(passed - (burst + 3_600 * rate)) <= 1


def test_a_bucket_never_holds_more_than_the_burst() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert not bucket.take(1e6, 6)
    assert [bucket.take(1e6) for _ in range(6)] == [True] * 5 + [False]


def test_more_than_the_burst_never_passes() -> None:
    bucket = TokenBucket(10, 5, 0.0)
    assert bucket.wait(0.0, 6) == math.inf
    assert not bucket.take(0.0, 6)
    assert bucket.take(0.0, 5)


def test_a_clock_that_stands_still_refills_nothing() -> None:
    bucket = TokenBucket(10, 2, 5.0)
    assert [bucket.take(5.0) for _ in range(1_000)].count(True) == 2


def test_a_clock_that_goes_back_gives_nothing_and_locks_nothing() -> None:
    bucket = TokenBucket(10, 5, 1_000.0)
    assert bucket.take(1_000.0, 3)
    assert not bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(0.1)
    assert bucket.take(0.1)
    assert not bucket.take(0.1)


@pytest.mark.parametrize(
    ("rate", "burst", "message"),
    [
        (0, 5, "rate must be positive, not 0"),
        (-1, 5, "rate must be positive, not -1"),
        (5, 0, "burst must be at least 1, not 0"),
        (5, 0.5, "burst must be at least 1, not 0.5"),
    ],
)
def test_a_bucket_that_would_let_nothing_through_is_refused(
    rate: float, burst: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TokenBucket(rate, burst, 0.0)
    with pytest.raises(ValueError, match=message):
        BucketTable(rate, burst, 10)


def test_a_table_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_entries must be at least 1, not 0"):
        BucketTable(1, 1, 0)


def test_every_key_has_a_bucket_of_its_own() -> None:
    table = BucketTable(1, 2, 100)
    assert [table.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert table.wait("a", 0.0) == 1.0
    assert table.wait("b", 0.0) == 0.0
    assert table.take("b", 0.0)
    assert table.take("a", 1.0)


def test_a_table_decides_like_a_bucket_for_every_key() -> None:
    random_source = random.Random(3)
    table = BucketTable(2.0, 4, 1_000)
    twins: dict[str, TokenBucket] = {}
    now = 0.0
    for _ in range(5_000):
        now += random_source.random() / 8
        key = str(random_source.randrange(20))
        twin = twins.setdefault(key, TokenBucket(2.0, 4, 0.0))
        assert table.wait(key, now) == twin.wait(now)
        assert table.take(key, now) is twin.take(now)


def test_keys_are_forgotten_when_their_buckets_are_full_again() -> None:
    table = BucketTable(1, 2, 1_000_000)
    most = 0
    for step in range(10_000):
        assert table.take(str(step), step / 100)
        most = max(most, len(table))
    # Each key's bucket is full again after a second, and a hundred come in a second.
    assert 100 <= most <= 103
    for step in range(200):
        table.take("same", 1_000.0 + step)
    assert len(table) == 1


def test_a_flood_of_keys_stays_within_the_maximum_and_pushes_out_the_oldest() -> None:
    table = BucketTable(1, 1, 50)
    for step in range(10_000):
        assert table.take(str(step), 0.0)
        assert len(table) <= 50
    assert not table.take("9999", 0.0)
    assert not table.take("9950", 0.0)
    assert table.take("9949", 0.0)


# --- since when it may have been waiting --------------------------------------------------------


@pytest.mark.parametrize(("rate", "burst"), RATES)
def test_tokens_that_came_while_nobody_looked_count_beyond_the_burst(
    rate: float, burst: int
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 100 / rate
    taken = sum(bucket.take(now, since=0.0) for _ in range(burst + 200))
    assert taken == burst + 100
    # Of that, nothing is left for what has not been waiting.
    assert not bucket.take(now)
    bucket = TokenBucket(rate, burst, 0.0)
    assert sum(bucket.take(now) for _ in range(burst + 200)) == burst


def test_a_moment_in_the_future_is_now() -> None:
    bucket = TokenBucket(1.0, 1, 0.0)
    assert bucket.take(0.0, since=10.0)
    assert not bucket.take(0.5)
    assert bucket.take(1.0)


def nothing_lost(moment: float) -> float:
    return 0.0


def test_what_is_read_when_nothing_stopped_us_came_now() -> None:
    arrivals = Arrivals(0.0)
    assert [arrivals.earliest(now, nothing_lost) for now in (0.0, 5.0, 5.0, 9.0)] == [0, 5, 5, 9]


def test_what_was_not_read_may_have_come_since_then_until_there_is_a_break() -> None:
    arrivals = Arrivals(0.0)
    arrivals.stop(10.0)
    arrivals.stop(12.0)
    assert arrivals.earliest(50.0, nothing_lost) == 10.0
    arrivals.go(50.0)
    # 40 seconds were not read: of what comes now, nothing can be older.
    earliest = [arrivals.earliest(50 + part, nothing_lost) for part in (0, 0.09, 0.18)]
    assert earliest == pytest.approx([10.0, 10.09, 10.18])
    arrivals.stop(50.2)
    arrivals.go(50.25)
    assert arrivals.earliest(50.3, nothing_lost) == pytest.approx(10.25)
    assert arrivals.earliest(50.5, nothing_lost) == 50.5
    arrivals.stop(60.0)
    arrivals.go(61.0)
    arrivals.stop(70.0)
    assert arrivals.earliest(71.0, nothing_lost) == 70.0


def test_a_trickle_saves_up_nothing_beyond_what_was_not_read() -> None:
    arrivals = Arrivals(0.0)
    arrivals.stop(10.0)
    arrivals.go(10.5)
    for step in range(1, 1_000):
        now = 10.5 + step / 20
        assert arrivals.earliest(now, nothing_lost) == pytest.approx(now - 0.5)


def test_what_could_not_be_read_in_a_stall_may_have_come_in_it() -> None:
    arrivals = Arrivals(0.0)

    def lost(moment: float) -> float:
        return 60.0 if moment < 100 else 0.0

    assert arrivals.earliest(100.0, lost) == 40.0
    assert arrivals.earliest(100.05, lost) == pytest.approx(40.05)
    assert arrivals.earliest(101.0, lost) == 101.0
