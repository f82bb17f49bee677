"""When to come back: how a server says it, and how a client reads it.

    in a refusal        Retry-After: 7
                        Retry-After: Fri, 31 Dec 1999 23:59:59 GMT
    in a close frame    1012 "the server is restarting; retry after 2.53 s"

A close frame has no field for this, so it stands at the end of the reason: our client waits that
long, any other shows it to a person. It is read only where the code says that trying again makes
sense: 1001, 1012 and 1013.

Not for: how long a client waits in the end, see ``reconnect.py``.

Source: RFC 9110, 10.2.3 and 5.6.7; RFC 6455, 5.5.1.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import timezone
from email.utils import parsedate_to_datetime

from websocket.frame import MAX_CLOSE_REASON
from websocket.opcodes import CloseCode

_CODES = frozenset({CloseCode.GOING_AWAY, CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER})
_HINT = re.compile(r"(?:^|; )retry after ([0-9]{1,6}(?:\.[0-9]{1,3})?) s\Z")
# The longest form has 33 characters; what is much longer is not worth a parser's time.
_MAX_DATE = 64


def with_hint(code: int, reason: str, seconds: float) -> str:
    """Return a close reason with a hint when to come back.

    Args:
        code: the close code; with most of them there is no point in a hint.
        reason: stays as it is where the hint does not fit behind it.
        seconds: 0 or more.
    """
    if code not in _CODES:
        return reason
    hinted = f"{reason}; retry after {seconds:.2f} s" if reason else f"retry after {seconds:.2f} s"
    return hinted if len(hinted.encode()) <= MAX_CLOSE_REASON else reason


def hint_of_close(code: int, reason: str) -> float | None:
    """Return the seconds that a close frame asks to wait; None where it says nothing of it."""
    match = _HINT.search(reason) if code in _CODES else None
    return None if match is None else float(match.group(1))


def hint_of_refusal(headers: Iterable[tuple[str, str]]) -> float | None:
    """Return the seconds that Retry-After asks to wait; None where it says nothing sensible.

    A date counts from the Date of the same answer, so that the clocks need not agree.
    """
    fields = {name.lower(): value.strip() for name, value in reversed(list(headers))}
    value = fields.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value[:9])
    come_back = _seconds_since_1970(value)
    if come_back is None:
        return None
    sent = _seconds_since_1970(fields.get("date", ""))
    return max(0.0, come_back - (time.time() if sent is None else sent))


def _seconds_since_1970(date: str) -> float | None:
    """Return what one of the three forms of a date means; None for anything else."""
    if len(date) > _MAX_DATE:
        return None
    try:
        moment = parsedate_to_datetime(date)
    except (IndexError, OverflowError, TypeError, ValueError):  # differs between versions
        return None
    # RFC 9110, 5.6.7: the forms without a zone are in UTC, too.
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
