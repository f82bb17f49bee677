"""What an idle connection costs in memory, object by object, beside what the process grows by.

    count     all that can be reached from a server, by who holds it: once with N connections and
              once with 2N. The difference belongs to N of them, the growth of tables included
    grown     the resident memory of a process, likewise; nothing is counted in that one, because
              counting takes memory, too

What the second has more than the first is the allocator's: the gaps in its pages.
Of the kernel's memory, which holds sockets and what epoll watches, neither tells.

Each runs in a process of its own, over loopback, for a request head as a bare client sends it and
one as Chromium does. All connections have answered two pings, as whoever stays has.

CPython on Linux only: other Pythons have other objects, and tell nothing of their size.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import socket
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmark.environment import CannotRun
from benchmark.processes import KIB, memory
from benchmark.report import markdown_table, number
from reactor import Reactor
from websocket import Connection, Limits, Server

# The tables of a server are as full with 10,000 connections as with a quarter of that.
DEFAULT_CONNECTIONS = 2_500
# What a connection may cost, in bytes, if its client does not tell more than it must.
BOUND = 2_560

_CHROMIUM = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0"
    " Safari/537.36"
)
_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HEADS = {
    "bare": (
        "GET / HTTP/1.1",
        "Host: 127.0.0.1:8080",
        "Upgrade: websocket",
        "Connection: Upgrade",
        _KEY,
        "Sec-WebSocket-Version: 13",
    ),
    "Chromium": (
        "GET / HTTP/1.1",
        "Host: 127.0.0.1:8080",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        f"User-Agent: {_CHROMIUM}",
        "Upgrade: websocket",
        "Origin: http://127.0.0.1:8080",
        "Sec-WebSocket-Version: 13",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7",
        _KEY,
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ),
}

_PINGS = 2
_BATCH = 64
# Of the clock, in seconds: no more than a tick of the timers.
_STEP = 0.01
# Descriptors that a process has for other things.
_OTHER_FILES = 100
# Whatever belongs to a session rather than to its connection.
_OF_SESSIONS = ("Session", "Expiry", "Connection.session_id")
# Bytes: what weighs less is put together in the table.
_LEAST = 8.0
# CPython's allocator gives out multiples of so many bytes.
_ALIGNMENT = 16

Counts = Counter[tuple[str, str]]


class Row(NamedTuple):
    """Hold what one connection has of one kind.

    Attributes:
        holder: whose it is: a class, or a class and its attribute for what is no class of ours.
        kind: its type; of several the largest first.
        number: how many of them.
        size: bytes, rounded up as the allocator does, with what the garbage collector adds; 0 of
            them with some bytes are the share in a table of the server's.
    """

    holder: str
    kind: str
    number: float
    size: float

    @property
    def is_of_session(self) -> bool:
        """Tell whether there would be none of it without a session."""
        return self.holder.startswith(_OF_SESSIONS)


class Cost(NamedTuple):
    """Hold what one idle connection costs.

    Attributes:
        rows: by object.
        grown: bytes by which the process grows.
    """

    rows: Sequence[Row]
    grown: float

    @property
    def counted(self) -> float:
        """Bytes of all objects."""
        return sum(row.size for row in self.rows)

    @property
    def of_session(self) -> float:
        """Bytes of those that there would not be without a session."""
        return sum(row.size for row in self.rows if row.is_of_session)


# --- connections ----------------------------------------------------------------------------------


class _Clock:
    """Be a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Crowd:
    """Serve many idle connections over loopback, in this thread and in virtual time.

    The clients are numbers of descriptors and nothing else, so that all that grows is the server.

    Args:
        most: connections at the same time.
        head: that each client sends.
    """

    def __init__(self, most: int, head: Sequence[str]) -> None:
        self._clock = _Clock()
        self._head = "\r\n".join((*head, "", "")).encode("ascii")
        self._reactor = Reactor(clock=self._clock)
        limits = Limits(max_connections=most)
        self.server = Server(Connection, port=0, reactor=self._reactor, limits=limits)
        self.server.start()
        self._clients = select.epoll()
        self._descriptors: list[int] = []

    def open(self, count: int) -> None:
        """Open connections, some at a time, and let them answer two pings.

        Raises:
            CannotRun: the server does not take them.
        """
        for first in range(0, count, _BATCH):
            for _ in range(first, min(first + _BATCH, count)):
                self._connect()
            self._turn(5)
        if len(self.server.connections) != len(self._descriptors):
            raise CannotRun("the server has not taken all connections")
        interval = self.server.limits.ping_interval
        assert interval is not None
        self._turn(round(_PINGS * (interval + 1) / _STEP))

    def close(self) -> None:
        """Let go of everything."""
        self._clients.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self.server.close()
        self._reactor.close()

    def _connect(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port)) as sock:
            sock.sendall(self._head)
            sock.setblocking(False)
            descriptor = sock.detach()
        self._descriptors.append(descriptor)
        self._clients.register(descriptor, select.EPOLLIN)

    def _turn(self, steps: int) -> None:
        for _ in range(steps):
            self._clock.now += _STEP
            self._reactor.run_once(0)
            for descriptor, _event in self._clients.poll(0):
                _answer(descriptor)


def _answer(descriptor: int) -> None:
    """Answer a ping, which is the last that was sent if there is one; with the mask 0."""
    ping = os.read(descriptor, 64 * KIB)[-10:]
    if ping.startswith(b"\x89\x08"):
        os.write(descriptor, b"\x8a\x88\x00\x00\x00\x00" + ping[2:])


# --- counting -------------------------------------------------------------------------------------

# They do not become more with the connections, and lead to all that has been imported.
_PASSED_OVER = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def count_objects(connections: Sequence[object], server: object) -> tuple[Counts, Counts]:
    """Return number and bytes of all that can be reached, by holder and type.

    The objects next to a connection come first, so that what several hold is called after the one
    that is nearest.
    """
    numbers, sizes = Counts(), Counts()
    seen: set[int] = set()
    level = [(each, "") for each in (*connections, server)]
    while level:
        found: list[tuple[Any, str]] = []
        for each, name in level:
            if id(each) in seen or isinstance(each, _PASSED_OVER):
                continue
            seen.add(id(each))
            holder = name if _is_content(each) else type(each).__name__
            key = holder, type(each).__name__
            numbers[key] += 1
            sizes[key] += -(-sys.getsizeof(each) // _ALIGNMENT) * _ALIGNMENT
            found += _referents(each, holder)
        level = found
    return numbers, sizes


def _is_content(value: object) -> bool:
    """Tell whether somebody holds this as a part of himself: texts, numbers, tuples, tables."""
    return type(value).__module__ == "builtins"


def _referents(value: object, holder: str) -> Iterator[tuple[Any, str]]:
    """Yield what an object refers to, and the name that it would have."""
    if not _is_content(value):
        for name in _attributes(value):
            yield getattr(value, name, None), f"{holder}.{name}"
    for each in gc.get_referents(value):
        yield each, holder


def _attributes(value: object) -> Iterator[str]:
    """Yield the names of an object's own attributes, some of which may not be set."""
    yield from getattr(value, "__dict__", ())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def compare_counts(
    few: tuple[Counts, Counts], many: tuple[Counts, Counts], connections: int
) -> list[Row]:
    """Return what each of so many connections has added, the largest first."""
    grown = Counter(many[1])
    grown.subtract(few[1])
    by_holder: dict[str, list[tuple[str, str]]] = {}
    for key, size in grown.most_common():
        if size:
            by_holder.setdefault(key[0], []).append(key)
    rows = [
        Row(
            holder,
            ", ".join(kind for _, kind in keys),
            sum(many[0][key] - few[0][key] for key in keys) / connections,
            sum(grown[key] for key in keys) / connections,
        )
        for holder, keys in by_holder.items()
    ]
    return sorted(rows, key=lambda row: -row.size)


# --- measuring ------------------------------------------------------------------------------------


@contextmanager
def _crowd(head: str, most: int) -> Iterator[Crowd]:
    crowd = Crowd(most, HEADS[head])
    try:
        yield crowd
    finally:
        crowd.close()


def measure_rows(head: str, connections: int) -> list[Row]:
    """Return what each connection holds, by object."""
    counts = []
    with _crowd(head, 2 * connections) as crowd:
        for _ in range(2):
            crowd.open(connections)
            gc.collect()
            counts.append(count_objects(crowd.server.connections, crowd.server))
    return compare_counts(counts[0], counts[1], connections)


def measure_grown(head: str, connections: int) -> float:
    """Return by how many bytes this process grows for each connection."""
    resident = []
    with _crowd(head, 2 * connections) as crowd:
        for _ in range(2):
            crowd.open(connections)
            gc.collect()
            resident.append(memory(os.getpid()))
    return (resident[1] - resident[0]) / connections


def measure_memory(connections: int) -> dict[str, Cost]:
    """Return what an idle connection costs, by the head that its client has sent.

    Raises:
        CannotRun: this is no CPython, or a process may not open that many files.
    """
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        raise CannotRun("objects can be measured by CPython on Linux only")
    import resource  # Windows has none

    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_FILES) // 4
    if connections > most:
        raise CannotRun(f"a process may hold two ends of twice {most:,} connections here, no more")
    return {
        head: Cost(
            _in_process(measure_rows, head, connections),
            _in_process(measure_grown, head, connections),
        )
        for head in HEADS
    }


def _in_process(measure: Callable[[str, int], Any], head: str, connections: int) -> Any:
    """Measure in a new process: what an earlier one has left of its memory would be used again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, head, connections).result()


# --- the table ------------------------------------------------------------------------------------


def table(costs: dict[str, Cost]) -> str:
    """Return bytes by object, and what they come to, as a table."""
    sizes = {name: {row[:2]: row for row in cost.rows} for name, cost in costs.items()}
    keys = dict.fromkeys(key for rows in sizes.values() for key in rows)
    columns = [[rows.get(key, Row(*key, 0, 0)) for key in keys] for rows in sizes.values()]
    lines = [
        [rows[0].holder, rows[0].kind, number(rows[0].number), *_cells(row.size for row in rows)]
        for rows in zip(*columns)
        if max(row.size for row in rows) >= _LEAST
    ]
    small = [sum(row.size for row in rows if row.size < _LEAST) for rows in columns]
    each = list(costs.values())
    lines += [
        ["all smaller ones", "", "", *_cells(small)],
        ["all objects", "", "", *_cells(cost.counted for cost in each)],
        ["of these for the session", "", "", *_cells(cost.of_session for cost in each)],
        ["the process grows by", "", "", *_cells(cost.grown for cost in each)],
        ["the same in KiB", "", "", *(f"{cost.grown / KIB:.2f}" for cost in each)],
    ]
    return markdown_table(["of one connection", "type", "number", *costs], lines)


def is_kept(costs: dict[str, Cost]) -> bool:
    """Tell whether a connection costs no more than it may; heads of browsers are on top of it."""
    return min(cost.grown for cost in costs.values()) <= BOUND


def _cells(values: Iterable[float]) -> list[str]:
    return [number(round(value)) for value in values]
