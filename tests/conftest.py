"""The policies that every test keeps; nothing here is for a test to build upon but ``logged``.

- No test leaves a warning or worse in the log, unless it asks for ``logged``.
- No test leaves a socket or a file open. Python warns when such an object is collected, and the
  settings turn warnings into errors; here the collection is forced before a module ends.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest
from support import Stage

WATCHED_LOGGERS = ("reactor", "websocket")


class RecordList(logging.Handler):
    """Keep the records of level WARNING and above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def collect_garbage() -> None:
    """Collect, and spare the next collection what is alive now: thousands of tests and reports."""
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


def pytest_collection_finish() -> None:
    collect_garbage()


@pytest.fixture(autouse=True)
def watched_log(request: pytest.FixtureRequest) -> Iterator[RecordList]:
    """Fail a test that leaves a warning in the log without asking for ``logged``."""
    watcher = RecordList()
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).addHandler(watcher)
    yield watcher
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).removeHandler(watcher)
    if "logged" not in request.fixturenames:
        lines = [f"{record.name}: {record.getMessage()}" for record in watcher.records]
        assert not lines, "unexpected in the log (ask for `logged` to expect it)"


@pytest.fixture
def stage() -> Iterator[Stage]:
    """Give a reactor, servers and clients in memory and virtual time."""
    with Stage() as stage:
        yield stage


@pytest.fixture
def logged(watched_log: RecordList) -> list[logging.LogRecord]:
    """Return the warnings and errors logged so far in this test, which are expected then."""
    return watched_log.records


@pytest.fixture(autouse=True, scope="module")
def collected_garbage() -> Iterator[None]:
    """Collect what a module's tests left in reference cycles while they can still be blamed."""
    yield
    collect_garbage()
