"""Loggers that cost nobody anything when they fail, and readable names for what they tell of.

A full disk, a closed stream, a bad handler: none of them is the business of who has a line to log.

Handlers of the standard library report their own failures on standard error and go on. One that
does not keep to that would raise into whatever was about to be logged, in the worst case into
the loop itself. What such a handler raises ends here, and is counted.

Not for: handlers that block. They hold up the loop; ``logging.handlers.QueueHandler`` does not.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial

#: By logger, how many records a handler has failed to take by raising.
failures: Counter[str] = Counter()

_MAX_NAME = 300


def guarded(name: str) -> logging.Logger:
    """Return a logger, whose handlers cannot raise into the caller any more. Idempotent."""
    logger = logging.getLogger(name)
    if "handle" in vars(logger):
        return logger
    handle = logger.handle

    def handle_safely(record: logging.LogRecord) -> None:
        try:
            handle(record)
        except Exception:
            failures[name] += 1

    # Of this one logger, which everybody shares who asks for its name; a class of our own would
    # come too late for one that the application has configured already.
    logger.handle = handle_safely  # type: ignore[method-assign]
    return logger


def name_of(thing: object) -> str:
    """Return a readable name for a callback or a handler; it never raises."""
    try:
        argument = None
        if isinstance(thing, partial):  # a callback with its arguments
            argument = thing.args[0] if thing.args else None
            thing = thing.func
        name = getattr(thing, "__qualname__", None)
        if name is None:
            return repr(thing)[:_MAX_NAME]
        owner = getattr(thing, "__self__", None)
        if owner is None and getattr(type(argument), name.rpartition(".")[2], None) is thing:
            owner = argument  # a method, and what it is called on
        return name if owner is None else f"{name} of {owner!r}"[:_MAX_NAME]
    except Exception:
        # What raised once may raise here again, and a log entry must not end the loop.
        return object.__repr__(thing)
