from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from websocket.frame import MAX_CLOSE_REASON, build_close, parse_close
from websocket.retry import hint_of_close, hint_of_refusal, with_hint

CODES = [1001, 1012, 1013]
SENT = ("Date", "Fri, 31 Dec 1999 23:59:50 GMT")


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("reason", ["", "bye", "bis später", "retry after 7 s"])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 2.53, 4.999, 3600.0])
def test_a_hint_is_read_as_it_was_written(code: int, reason: str, seconds: float) -> None:
    hinted = with_hint(code, reason, seconds)
    assert hinted.startswith(reason)
    assert parse_close(build_close(code, hinted)) == (code, hinted)
    assert hint_of_close(code, hinted) == pytest.approx(seconds, abs=0.005)


def test_a_hint_can_be_read_by_people_too() -> None:
    assert with_hint(1012, "the server is restarting", 2.5) == (
        "the server is restarting; retry after 2.50 s"
    )
    assert with_hint(1001, "", 0) == "retry after 0.00 s"


@pytest.mark.parametrize("code", [1000, 1008, 1011, 3000, 4000, 4001, 1005, 1006])
def test_where_trying_again_makes_no_sense_there_is_no_hint(code: int) -> None:
    assert with_hint(code, "bye", 2.5) == "bye"
    assert hint_of_close(code, "bye; retry after 2.50 s") is None


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_a_long_reason_goes_before_the_hint(letter: str) -> None:
    size = len(letter.encode())
    longest = MAX_CLOSE_REASON - len("; retry after 2.50 s")
    for length in range(longest - 2, MAX_CLOSE_REASON + 1):
        reason = letter * (length // size)
        hinted = with_hint(1001, reason, 2.5)
        assert (hinted == reason) == (len(reason.encode()) > longest)
        build_close(1001, hinted)


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "retry after",
        "retry after s",
        "retry after 5",
        "retry after 5 min",
        "retry after -5 s",
        "retry after 1e3 s",
        "retry after inf s",
        "retry after nan s",
        "retry after .5 s",
        "retry after 5. s",
        "retry after 0.12345 s",
        "retry after 9999999 s",
        "retry after \u0665 s",
        "retry after 5 s.",
        "retry after 5 s\n",
        "retry after 5 s; or not",
        "never retry after 5 s",
        "Retry After 5 s",
    ],
)
def test_nonsense_is_no_hint(reason: str) -> None:
    assert hint_of_close(1012, reason) is None


# --- Retry-After ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("007", 7),
        ("0", 0),
        ("9" * 400, 999_999_999),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 10),
        ("Saturday, 01-Jan-00 00:00:00 GMT", 10),
        ("Sat Jan  1 00:00:00 2000", 10),
        ("Fri, 31 Dec 1999 23:59:50 GMT", 0),
        ("Fri, 31 Dec 1999 23:59:49 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
    ],
)
def test_a_refusal_asks_in_seconds_or_for_a_date(value: str, seconds: float) -> None:
    assert hint_of_refusal([SENT, ("retry-AFTER", value)]) == seconds


@pytest.mark.parametrize("date", ["", "nonsense", "Fri, 99 Dec 1999 23:59:50 GMT"])
def test_without_a_date_of_its_own_an_answer_counts_from_now(date: str) -> None:
    value = formatdate(time.time() + 1000, usegmt=True)
    seconds = hint_of_refusal([("Date", date), ("Retry-After", value)])
    assert seconds is not None
    assert 900 < seconds <= 1000
    past = ("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")
    assert hint_of_refusal([past]) == 0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "7 s",
        "\xb2",
        "\u0667",
        "Fri",
        "31 Dec 1999",
        "Fri, 99 Dec 1999 23:59:59 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 1999 23:59:59 +9999999999",
        "Fri, 31 Dec 1999 99:59:59 GMT",
        ":::::",
        "Sat, 01 Jan 2000 00:00:00 GMT" + " " * 40 + "x",
        "Sat, " * 10_000,
    ],
)
def test_nonsense_in_a_refusal_is_no_hint(value: str) -> None:
    assert hint_of_refusal([SENT, ("Retry-After", value)]) is None


def test_of_several_fields_the_first_counts() -> None:
    assert hint_of_refusal([("Retry-After", "20"), SENT, ("Retry-After", "1")]) == 20
    assert hint_of_refusal([SENT]) is None
    assert hint_of_refusal([]) is None
