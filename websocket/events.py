"""The log: one line for each event, with its facts as attributes of the record.

The logger is ``websocket``. A line reads well by itself; for machines, each record of this module
carries ``event`` and the fields below, as ``extra=`` puts them there: ``record.event``,
``record.cause``, or what a JSON formatter makes of them.

    event            level   fields beside ``event``
    opened           DEBUG   connection_id, remote_address, path, subprotocol
    not_opened       DEBUG   connection_id, remote_address, cause, error
    closed           DEBUG   connection_id, remote_address, cause, code, reason, is_clean,
                             duration; at level INFO, as an offence, when the peer has broken a
                             rule or crossed a limit
    refused          INFO    remote_address, status, reason
    tls_on_plain     INFO    remote_address
    handler_failed   ERROR   connection_id, remote_address; with the traceback
    hook_failed      ERROR   hook; with the traceback
    answer_failed    ERROR   remote_address; with the traceback
    certificate_refused
                     ERROR   error
    reconnecting     DEBUG   connection_id, remote_address, wait
    reading_paused   WARNING buffered, debtors, mark
    reading_resumed  INFO    buffered, duration
    debtor_closed    INFO    connection_id, remote_address, size, buffered, debtors
    save_failed      ERROR   error; one line in a minute
    sessions_unsaved ERROR   count
    sessions_set_aside
                     ERROR   path, error, aside
    listening, certificate_reloaded, draining, shutting_down, shutdown_forced
                     INFO    what their lines say

The logger ``reactor`` adds ``held`` (WARNING: duration, suspects) and ``stalled`` (INFO:
duration), see ``reactor/lag.py``, and ``exhausted`` (ERROR: error, turned_away), see
``reactor/listener.py``.

- A fault of the user's code is logged with its traceback, a fault of a peer never.
- Of what peers cause at INFO or above, and of what goes on failing, there is one line in five
  seconds and kind; the next one says in ``suppressed`` and in its text how many there were
  between. The statistics count all.
- What a peer has sent is escaped, and cut after 200 characters.
- A handler of the log that raises costs nobody anything; see ``reactor/log.py``.
- Where a level is off, its lines cost one comparison.
"""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from reactor.log import failures, guarded
from websocket.causes import OFFENCES

if TYPE_CHECKING:
    from websocket.clock import Clock
    from websocket.lifecycle import Lifecycle

logger = guarded("websocket")

_INTERVAL = 5.0
# Kinds are causes and HTTP statuses; an application may invent some of the latter.
_MAX_KINDS = 128
_MAX_TEXT = 200


class _Floodgate:
    """Let one line of a kind pass in some seconds, and count the others."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        # By kind, when its next line may pass, and how many have been held back.
        self._kinds: dict[str, tuple[float, int]] = {}

    def enter(self, kind: str, now: float, interval: float = _INTERVAL) -> int | None:
        """Return how many were held back before this one; None when it is held back, too."""
        kinds = self._kinds
        if kind not in kinds and len(kinds) >= _MAX_KINDS:
            kind = "other"
        opens_at, waiting = kinds.get(kind, (now, 0))
        if now < opens_at:
            kinds[kind] = (opens_at, waiting + 1)
            return None
        kinds[kind] = (now + interval, 0)
        return waiting


_floodgates: weakref.WeakKeyDictionary[Clock, _Floodgate] = weakref.WeakKeyDictionary()


def log_failures() -> int:
    """Return how many records of both packages the handlers of the log have failed to take."""
    return failures["websocket"] + failures["reactor"]


def clip(text: object) -> str:
    """Return what a peer may have sent as one printable line of bounded length."""
    line = str(text)[: _MAX_TEXT + 1].encode("unicode_escape").decode("ascii")
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."


def note(event: str, text: str, *values: object, **fields: Any) -> None:
    """Log a line of level INFO of what the server itself does."""
    logger.info(text, *values, extra={"event": event, **fields})


def report(
    clock: Clock,
    kind: str,
    event: str,
    text: str,
    *values: object,
    level: int = logging.INFO,
    interval: float = _INTERVAL,
    **fields: Any,
) -> None:
    """Log a line of what a peer does, or of what may fail again and again; of each kind a few.

    Args:
        clock: the reactor, gives the time; each has floods of its own.
        kind: what to count together; never what a peer sent.
        event: see the table above.
        text, values: as for ``logging``.
        level: of the line.
        interval: the least seconds between two lines of a kind.
        fields: of the record.
    """
    if not logger.isEnabledFor(level):
        return
    held_back = _floodgates.setdefault(clock, _Floodgate()).enter(kind, clock.time, interval)
    if held_back is None:
        return
    if held_back:
        text += " (and %d more of this kind before)"
        values += (held_back,)
    extra = {"event": event, "suppressed": held_back, **fields}
    logger.log(level, text, *values, extra=extra)


def complain(event: str, text: str, *values: object, **fields: Any) -> None:
    """Log a line of level ERROR of what somebody has to look at, and what is seldom."""
    logger.error(text, *values, extra={"event": event, **fields})


def hook_failed(hook: str, error: Exception) -> None:
    """Log an exception of a hook of the application, with its traceback."""
    extra = {"event": "hook_failed", "hook": hook}
    logger.error("%s raised", hook, exc_info=error, extra=extra)


def answer_failed(host: str, error: Exception, what: str) -> None:
    """Log an exception that kept a request from its answer, with its traceback."""
    extra = {"event": "answer_failed", "remote_address": host}
    logger.error("%s: %s", host, what, exc_info=error, extra=extra)


# --- connections --------------------------------------------------------------------------------


def opened(connection: Lifecycle) -> None:
    """Log that a connection is open."""
    if logger.isEnabledFor(logging.DEBUG):
        request = connection.request
        logger.debug(
            "%r opened",
            connection,
            extra={
                "event": "opened",
                "path": None if request is None else clip(request.path),
                "subprotocol": connection.subprotocol,
                **_who(connection),
            },
        )


def not_opened(connection: Lifecycle, error: Exception) -> None:
    """Log that a client was not opened."""
    if logger.isEnabledFor(logging.DEBUG):
        fields = {"event": "not_opened", "cause": _cause(connection), "error": clip(error)}
        fields.update(_who(connection))
        logger.debug("%r not opened: %s", connection, clip(error), extra=fields)


def closed(connection: Lifecycle, code: int, reason: str) -> None:
    """Log the end of a connection that was open."""
    if not logger.isEnabledFor(logging.INFO):
        return
    is_offence = connection.cause in OFFENCES
    if not is_offence and not logger.isEnabledFor(logging.DEBUG):
        return
    reactor, opened_at = connection.reactor, connection.opened_at
    cause, duration = _cause(connection), 0.0 if opened_at is None else reactor.time - opened_at
    text = "%r: %s, code %d, after %.1f s: %s"
    values = (connection, cause, code, duration, clip(reason))
    fields: dict[str, Any] = {"cause": cause, "code": code, "reason": clip(reason)}
    fields.update(duration=duration, is_clean=connection.is_clean, **_who(connection))
    if is_offence:
        report(reactor, cause, "closed", text, *values, **fields)
    else:
        logger.debug(text, *values, extra={"event": "closed", **fields})


def reconnecting(connection: Lifecycle, wait: float) -> None:
    """Log that a client which has come to its end will be followed by another."""
    if logger.isEnabledFor(logging.DEBUG):
        fields = {"event": "reconnecting", "wait": wait, **_who(connection)}
        logger.debug("%r ended; next try in %.1f s", connection, wait, extra=fields)


def handler_failed(connection: Lifecycle, error: Exception, text: str) -> None:
    """Log an exception of the user's code, with its traceback."""
    extra = {"event": "handler_failed", **_who(connection)}
    logger.error("%r: %s raised", connection, text, exc_info=error, extra=extra)


def _who(connection: Lifecycle) -> dict[str, Any]:
    return {"connection_id": connection.id, "remote_address": connection.remote_address}


def _cause(connection: Lifecycle) -> str:
    return "unknown" if connection.cause is None else connection.cause.value
