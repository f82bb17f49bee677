"""Listeners: nobody waits for long, nothing spins, and running out of descriptors passes."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from streams import FAIL_SAFE, Echo, Witness, needs_unix_sockets, with_every_selector
from support import MemorySocket, Stage, as_socket, has_ipv6, run_until

from reactor import Listener, Protocol, Reactor, Transport, open_tcp_sockets, open_unix_socket
from reactor.sockets import BACKLOG, SocketFile

EXHAUSTED = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
ONE_CONNECTIONS_FAULT = [errno.ECONNABORTED, errno.EPERM]

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the machine has no IPv6")


def name_of(number: int) -> str:
    return errno.errorcode[number]


class ListeningSocket:
    """A listening socket in memory, in a process with a limit on descriptors.

    Attributes:
        backlog: what accept() hands out next, or raises.
        always: what accept() raises from now on, whatever waits.
        limit: how many sockets of this one may be open at a time, the reserve included.
        accepts: how often accept() was called.
    """

    family = socket.AF_INET
    is_writable = False

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._fd = 999_999
        self._accepted: list[MemorySocket] = []
        self.backlog: deque[MemorySocket | OSError] = deque()
        self.always: OSError | None = None
        self.limit: int | None = None
        self.limit_error = errno.EMFILE
        self.listener: Listener | None = None
        self.accepts = 0
        self.is_closed = False
        stage.network.sockets[self._fd] = cast(MemorySocket, self)

    def connect(self) -> MemorySocket:
        """Let a client connect; return its end."""
        ours, theirs = self._stage.network.pair()
        self.backlog.append(ours)
        return theirs

    def setsockopt(self, *args: object) -> None:
        """Do nothing: there are no options."""

    def accept(self) -> tuple[MemorySocket, Any]:
        self.accepts += 1
        if self.is_closed:
            raise OSError(errno.EBADF, "bad file descriptor")
        if self.always is not None:
            raise self.always
        if not self.backlog:
            raise BlockingIOError(errno.EAGAIN, "would block")
        if self.limit is not None and self.descriptors >= self.limit:
            raise OSError(self.limit_error, os.strerror(self.limit_error))
        first = self.backlog.popleft()
        if isinstance(first, OSError):
            raise first
        self._accepted.append(first)
        return first, first.getpeername()

    @property
    def descriptors(self) -> int:
        assert self.listener is not None
        has_reserve = self.listener._reserve is not None
        return sum(not sock.is_closed for sock in self._accepted) + has_reserve

    @property
    def is_readable(self) -> bool:
        return bool(self.backlog) or self.always is not None

    def fileno(self) -> int:
        return -1 if self.is_closed else self._fd

    def getsockname(self) -> Any:
        return ("127.0.0.1", 80)

    def close(self) -> None:
        self.is_closed = True


class World(Stage):
    """A stage with a listener on a socket in memory, and the witnesses that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.sock = ListeningSocket(self)
        self.witnesses: list[Witness] = []

    def listen(self, factory: Callable[[], Protocol] | None = None, **options: Any) -> Listener:
        sockets = [cast(socket.socket, self.sock)]
        listener = Listener(self.reactor, sockets, factory or self.make_witness, **options)
        self.sock.listener = listener
        return listener

    def make_witness(self) -> Witness:
        self.witnesses.append(Witness())
        return self.witnesses[-1]

    def hold(self, seconds: float) -> None:
        """Take so long that everybody else must wait; for ``call_soon``."""
        self.clock.now += seconds

    def open_descriptors(self, count: int) -> None:
        """Let clients connect and be accepted."""
        for _ in range(count):
            self.sock.connect()
        self.settle()
        assert len(self.witnesses) == count


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    with world:
        yield world


# --- accepting -----------------------------------------------------------------------------------


def test_each_connection_gets_a_protocol_and_a_transport_of_its_own(world: World) -> None:
    world.listen()
    ends = [world.sock.connect() for _ in range(3)]
    world.settle()
    for number, end in enumerate(ends):
        end.feed(b"%d" % number)
    world.settle()
    assert [bytes(witness.received) for witness in world.witnesses] == [b"0", b"1", b"2"]
    transport = world.witnesses[0].transport
    assert transport.get_extra_info("peername") == ("203.0.113.7", 50_000)


def test_at_most_64_are_accepted_in_a_turn(world: World) -> None:
    """H43: a storm of clients must not keep the loop from those that it has."""
    world.listen()
    for _ in range(200):
        world.sock.connect()
    counts = []
    for _ in range(4):
        world.reactor.run_once(0)
        counts.append(len(world.witnesses))
    assert counts == [64, 128, 192, 200]


def test_the_batch_can_be_set(world: World) -> None:
    world.listen(accept_batch=3)
    for _ in range(5):
        world.sock.connect()
    world.reactor.run_once(0)
    assert len(world.witnesses) == 3


def test_small_writes_are_not_held_back() -> None:
    with Reactor() as reactor:
        echo = Echo()
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), lambda: echo)
        with socket.create_connection(listener.addresses[0]):
            run_until(reactor, lambda: echo.events)
            sock = echo.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getblocking() is False


def test_a_client_that_has_reset_already_is_found_out_by_the_first_read(world: World) -> None:
    world.listen()
    end = world.sock.connect()
    assert end.peer is not None
    end.peer.fail("setsockopt", OSError(errno.EINVAL, "invalid argument"))
    end.reset()
    world.settle()
    assert world.witnesses[0].names == ["made", "lost"]
    assert isinstance(world.witnesses[0].losses[0], ConnectionResetError)


@pytest.mark.parametrize("error", [ValueError("boom"), OSError(errno.EIO, "boom")])
def test_a_factory_that_raises_costs_its_own_connection(
    world: World, error: Exception, logged: list[logging.LogRecord]
) -> None:
    count = 0

    def make() -> Witness:
        nonlocal count
        count += 1
        if count == 2:
            raise error
        return world.make_witness()

    world.listen(make)
    ends = [world.sock.connect() for _ in range(3)]
    world.settle()
    assert [end.has_eof for end in ends] == [False, True, False]
    assert [witness.names for witness in world.witnesses] == [["made"]] * 2
    (record,) = logged
    assert "203.0.113.7" in record.getMessage()
    assert record.exc_info is not None


def test_a_factory_that_ends_the_program_leaves_the_others_to_be_accepted(world: World) -> None:
    def make() -> Witness:
        if not world.witnesses:
            world.make_witness()
            raise KeyboardInterrupt
        return world.make_witness()

    world.listen(make)
    ends = [world.sock.connect() for _ in range(3)]
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    world.settle()
    assert [end.has_eof for end in ends] == [True, False, False]
    assert len(world.witnesses) == 3


def test_a_protocol_that_raises_when_connected_costs_its_own_connection(
    world: World, logged: list[logging.LogRecord]
) -> None:
    def boom(transport: Transport) -> None:
        raise ValueError("boom")

    def make() -> Witness:
        witness = world.make_witness()
        if len(world.witnesses) == 2:
            witness.hooks["made"] = boom
        return witness

    world.listen(make)
    ends = [world.sock.connect() for _ in range(3)]
    world.settle()
    assert [end.has_eof for end in ends] == [False, True, False]
    assert world.witnesses[1].names == ["made", "lost"]
    assert len(logged) == 1


def test_a_connection_that_cannot_be_watched_costs_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    """The system has a limit for this: /proc/sys/fs/epoll/max_user_watches."""
    world.listen()
    watch, refusals = world.reactor.watch, [OSError(errno.ENOSPC, "no space left")]

    def watch_or_refuse(*args: Any) -> None:
        if refusals:
            raise refusals.pop()
        watch(*args)

    monkeypatch.setattr(world.reactor, "watch", watch_or_refuse)
    ends = [world.sock.connect() for _ in range(3)]
    world.settle()
    assert [end.has_eof for end in ends] == [True, False, False]
    assert [witness.names for witness in world.witnesses] == [[], ["made"], ["made"]]
    assert len(logged) == 1


def test_transports_can_be_of_another_kind(world: World) -> None:
    made: list[Transport] = []

    def make(reactor: Reactor, sock: socket.socket, protocol: Protocol, peer: Any) -> Transport:
        if made:
            raise OSError(errno.ENOTCONN, "gone already")
        made.append(Transport(reactor, sock, protocol, peer))
        return made[0]

    world.listen(transport_factory=make)
    ends = [world.sock.connect() for _ in range(2)]
    world.settle()
    assert [end.has_eof for end in ends] == [False, True]
    assert [witness.names for witness in world.witnesses] == [["made"], []]


# --- closing -------------------------------------------------------------------------------------


def test_closing_keeps_what_was_accepted(world: World) -> None:
    listener = world.listen()
    end = world.sock.connect()
    world.settle()
    listener.close()
    listener.close()
    assert world.sock.is_closed
    assert listener.addresses == []
    end.feed(b"still here")
    world.settle()
    assert world.witnesses[0].received == b"still here"


def test_closing_from_within_the_factory_ends_the_batch(world: World) -> None:
    def make_the_last() -> Witness:
        listener.close()
        return world.make_witness()

    listener = world.listen(make_the_last)
    for _ in range(3):
        world.sock.connect()
    world.settle()
    assert world.witnesses[0].names == ["made"]
    assert world.sock.accepts == 1


def test_closing_gives_the_reserve_back() -> None:
    with Reactor() as reactor:
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), Protocol)
        reserve = listener._reserve
        assert reserve is not None
        os.fstat(reserve)
        listener.close()
        assert listener._reserve is None
        with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
            os.fstat(reserve)


def test_closing_the_reactor_closes_a_listener_that_rests(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.listen()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    world.reactor.close()
    assert world.sock.is_closed


def test_a_listener_closed_while_it_rests_does_not_come_back(
    world: World, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    listener.close()
    accepts = world.sock.accepts
    assert world.reactor.next_timeout() is None
    world.pass_time(10)
    assert world.sock.accepts == accepts
    assert listener._reserve is None


def test_finishing_takes_in_those_who_have_connected(world: World) -> None:
    listener = world.listen(accept_batch=3)
    ends = [world.sock.connect() for _ in range(10)]
    listener.finish()
    assert world.sock.is_closed
    assert listener.addresses == []
    for end in ends:
        end.feed(b"still here")
    world.settle()
    assert [bytes(witness.received) for witness in world.witnesses] == [b"still here"] * 10
    listener.finish()


def test_finishing_is_no_endless_task(world: World) -> None:
    """Somebody may connect faster than we accept."""

    def make_and_connect() -> Witness:
        world.sock.connect()
        return world.make_witness()

    listener = world.listen(make_and_connect)
    world.sock.connect()
    listener.finish()
    assert len(world.witnesses) == BACKLOG
    assert world.sock.is_closed


def test_finishing_from_within_the_factory_ends_the_batch(world: World) -> None:
    def make_the_last() -> Witness:
        witness = world.make_witness()
        listener.finish()
        return witness

    listener = world.listen(make_the_last)
    for _ in range(3):
        world.sock.connect()
    world.settle()
    assert [witness.names for witness in world.witnesses] == [["made"]] * 3


def test_finishing_while_it_rests_does_not_try_again(
    world: World, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    accepts = world.sock.accepts
    listener.finish()
    assert world.sock.accepts == accepts
    assert world.sock.is_closed
    assert world.reactor.next_timeout() is None


def test_running_out_of_descriptors_while_finishing_leaves_nothing(
    world: World, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()
    world.sock.limit = 3
    ends = [world.sock.connect() for _ in range(10)]
    listener.finish()
    world.settle()
    assert len(world.witnesses) == 2
    assert [end.has_eof for end in ends] == [False] * 2 + [True] * 8
    assert listener._reserve is None
    assert world.reactor.next_timeout() is None


@needs_unix_sockets
@pytest.mark.parametrize("way", ["close", "finish", "reactor"])
def test_a_socket_file_is_removed_with_its_listener(way: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Reactor() as reactor:
        sock = open_unix_socket(path)
        listener = Listener(reactor, [sock], Echo, socket_file=SocketFile(path))
        ask(reactor, path, socket.AF_UNIX)
        if way != "reactor":
            getattr(listener, way)()
            assert not os.path.lexists(path)
            listener.close()
    assert not os.path.lexists(path)


@needs_unix_sockets
def test_a_socket_file_of_somebody_else_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Reactor() as reactor:
        listener = Listener(reactor, [open_unix_socket(path)], Echo)
        listener.close()
    assert os.path.lexists(path)


# --- errors of accept() --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [*ONE_CONNECTIONS_FAULT, errno.EPROTO], ids=name_of)
def test_an_error_of_one_connection_keeps_nobody_else_waiting(world: World, number: int) -> None:
    world.listen()
    world.sock.connect()
    world.sock.backlog.append(OSError(number, "of one connection"))
    world.sock.connect()
    world.reactor.run_once(0)
    assert [witness.names for witness in world.witnesses] == [["made"]] * 2


def test_an_interrupted_accept_is_repeated(world: World) -> None:
    world.listen()
    world.sock.backlog.append(OSError(errno.EINTR, "interrupted"))
    world.sock.connect()
    world.settle()
    assert len(world.witnesses) == 1


@pytest.mark.parametrize("number", [*ONE_CONNECTIONS_FAULT, errno.EINVAL], ids=name_of)
def test_an_error_that_will_not_go_away_does_not_spin(world: World, number: int) -> None:
    """A security module that forbids accept(), for example: the socket stays readable."""
    world.listen()
    world.sock.always = OSError(number, "again and again")
    world.pass_time(10)
    assert world.sock.accepts <= 64 * 11
    world.sock.always = None
    world.sock.connect()
    world.pass_time(1.1)
    assert len(world.witnesses) == 1


# --- out of descriptors --------------------------------------------------------------------------


@pytest.mark.parametrize("number", EXHAUSTED, ids=name_of)
def test_what_waits_is_turned_away_with_the_reserve_instead_of_left_hanging(
    world: World, number: int, logged: list[logging.LogRecord]
) -> None:
    """H44."""
    world.listen()
    world.sock.limit, world.sock.limit_error = 6, number
    world.open_descriptors(5)  # and the reserve
    turned_away = [world.sock.connect() for _ in range(30)]
    world.settle()
    assert all(end.has_eof for end in turned_away)
    assert len(world.witnesses) == 5
    assert not any(witness.is_lost for witness in world.witnesses)
    assert world.sock.descriptors == 6, "the reserve is there again"
    assert len(logged) == 1


def test_no_more_than_a_batch_is_turned_away_at_a_time(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.listen(accept_batch=10)
    world.sock.limit = 2
    world.open_descriptors(1)
    ends = [world.sock.connect() for _ in range(25)]
    counts = []
    for _ in range(3):
        world.settle()
        counts.append(sum(end.has_eof for end in ends))
        world.pass_time(0.99)
        world.pass_time(0.03)
    assert counts == [10, 20, 25]


@pytest.mark.parametrize("number", EXHAUSTED, ids=name_of)
def test_it_rests_for_a_second_and_resumes_by_itself(
    world: World, number: int, logged: list[logging.LogRecord]
) -> None:
    world.listen()
    world.sock.always = OSError(number, "exhausted")
    world.pass_time(10)
    assert world.sock.accepts <= 2 * 11
    world.sock.always = None
    world.sock.connect()
    world.pass_time(1.1)
    assert world.witnesses[0].names == ["made"]
    assert world.reactor.next_timeout() is None


def test_the_rest_can_be_set(world: World, logged: list[logging.LogRecord]) -> None:
    world.listen(pause=7)
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    world.sock.always = None
    end = world.sock.connect()
    world.pass_time(6.9)
    assert world.witnesses == []
    world.pass_time(0.2)
    assert len(world.witnesses) == 1
    assert not end.has_eof


def counted(listener: Listener) -> tuple[int, int, int]:
    counts = listener.counts
    return counts.failures, counts.turned_away, counts.abandoned


def test_each_time_and_each_who_is_turned_away_is_counted(
    world: World, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen(accept_batch=10)
    world.sock.limit = 2
    world.open_descriptors(1)
    assert counted(listener) == (0, 0, 0)
    for _ in range(25):
        world.sock.connect()
    world.settle()
    assert counted(listener) == (1, 10, 0)
    world.pass_time(10)
    assert counted(listener) == (3, 25, 0)
    # A listener that follows goes on counting.
    counts = listener.counts
    listener.close()
    world.sock.is_closed = False
    listener = world.listen(counts=counts)
    world.sock.connect()
    world.settle()
    assert counted(listener) == (4, 26, 0)


def test_a_connection_that_cannot_be_watched_is_counted_as_turned_away(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()
    end = world.sock.connect()

    def watch(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(world.reactor, "watch", watch)
        world.settle()
    assert end.has_eof
    assert counted(listener) == (1, 1, 0)


# --- who has given up ----------------------------------------------------------------------------

tells_the_state = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the state")


def ask_and_close(end: MemorySocket) -> None:
    end.feed(b"GET / HTTP/1.1\r\n\r\n")
    end.close()


LEAVES: dict[str, Callable[[MemorySocket], None]] = {
    "closed": MemorySocket.close,
    "reset": MemorySocket.reset,
    "asked and closed": ask_and_close,
    # It might read an answer, but most who end their half have gone.
    "half-closed": lambda end: end.shutdown(socket.SHUT_WR),
}


@tells_the_state
@pytest.mark.parametrize("way", LEAVES)
def test_who_gave_up_during_a_rest_is_left_out(
    world: World, way: str, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    gone, alive = [world.sock.connect() for _ in range(100)], world.sock.connect()
    for end in gone:
        LEAVES[way](end)
    world.sock.always = None
    world.pass_time(1.1)
    assert len(world.witnesses) == 1
    assert not alive.has_eof
    assert counted(listener) == (1, 0, 100)
    # All of them are closed.
    assert world.sock.descriptors == 2


@tells_the_state
def test_who_gave_up_while_the_loop_was_held_is_left_out(
    world: World, logged: list[logging.LogRecord]
) -> None:
    listener = world.listen()

    def hold() -> None:
        world.hold(20)
        gone, alive = world.sock.connect(), world.sock.connect()
        ask_and_close(gone)
        alive.feed(b"hello")

    world.reactor.call_soon(hold)
    world.pass_time(1)
    assert [bytes(witness.received) for witness in world.witnesses] == [b"hello"]
    assert counted(listener) == (0, 0, 1)


def test_while_nothing_is_late_nobody_is_asked(world: World) -> None:
    """It would cost each connection a call of the system."""
    listener = world.listen()
    end = world.sock.connect()
    ours = end.peer
    assert ours is not None
    end.close()
    world.settle()
    assert world.witnesses[0].is_lost
    assert "getsockopt" not in ours.calls
    assert counted(listener) == (0, 0, 0)


@tells_the_state
def test_after_the_backlog_was_empty_nobody_is_asked_any_more(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.listen()
    world.reactor.call_soon(world.hold, 20)
    world.settle()
    asked = []
    for _ in range(2):
        ours = world.sock.connect().peer
        assert ours is not None
        world.settle()
        asked.append(ours.calls.get("getsockopt", 0))
    assert asked == [1, 0]


@tells_the_state
def test_a_system_that_does_not_tell_leaves_nobody_out(
    world: World, logged: list[logging.LogRecord]
) -> None:
    """It does not for Unix sockets."""
    listener = world.listen()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    world.settle()
    end = world.sock.connect()
    assert end.peer is not None
    end.peer.fail("getsockopt", errno.EOPNOTSUPP)
    end.close()
    world.sock.always = None
    world.pass_time(1.1)
    assert world.witnesses[0].is_lost
    assert counted(listener) == (1, 0, 0)


@tells_the_state
def test_real_connections_that_were_given_up(logged: list[logging.LogRecord]) -> None:
    witnesses: list[Witness] = []

    def make() -> Witness:
        witnesses.append(Witness())
        return witnesses[-1]

    with Reactor() as reactor:
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), make, pause=0.01)
        (address,) = listener.addresses
        listener._rest(listener._acceptors[0])
        clients = [socket.create_connection(address) for _ in range(5)]
        closed, asked, reset, asked_and_reset, alive = clients
        for client in (asked, asked_and_reset, alive):
            client.sendall(b"hello")
        for client in (reset, asked_and_reset):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for client in (closed, asked, reset, asked_and_reset):
            client.close()
        run_until(reactor, lambda: witnesses and witnesses[0].received)
        assert len(witnesses) == 1
        assert counted(listener) == (0, 0, 4)
        assert not witnesses[0].is_lost
        alive.close()


def test_those_who_are_in_are_served_while_it_rests(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.listen()
    first = world.sock.connect()
    world.settle()
    world.sock.always = OSError(errno.EMFILE, "too many open files")
    for number in range(5):
        world.pass_time(0.3)
        first.feed(b"%d" % number)
    world.settle()
    assert world.witnesses[0].received == b"01234"


def test_it_is_told_once_in_five_seconds_and_what_to_do_about_it(
    world: World, logged: list[logging.LogRecord]
) -> None:
    world.listen()
    world.sock.always = OSError(errno.EMFILE, "Too many open files")
    world.settle()
    (record,) = logged
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "cannot accept connections: Too many open files; raise the limit on open files, or lower "
        "max_connections; trying again every 1 s"
    )
    facts = vars(record)
    assert (facts["event"], facts["error"]) == ("exhausted", "Too many open files")
    assert (facts["turned_away"], facts["suppressed"]) == (0, 0)
    world.pass_time(4.9)
    assert len(logged) == 1
    world.pass_time(15)
    assert 3 <= len(logged) <= 4
    assert vars(logged[1])["suppressed"] == 4


def test_a_reserve_that_somebody_else_snatched_is_taken_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    """Another thread may open a file between giving the reserve up and taking it again."""
    listener = world.listen()
    world.sock.limit = 3
    world.open_descriptors(2)
    world.sock.connect()

    def fail(*args: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        world.settle()
        assert listener._reserve is None
        world.pass_time(0.5)
    world.pass_time(1)
    assert listener._reserve is not None


def test_without_a_reserve_clients_wait_and_nothing_spins(
    world: World, monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    def fail(*args: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        world.listen()
        world.sock.limit = 0
        end = world.sock.connect()
        world.pass_time(10)
    assert world.sock.accepts <= 2 * 11
    assert not end.has_eof
    world.sock.limit = None
    world.pass_time(1.1)
    assert len(world.witnesses) == 1


@pytest.mark.skipif(os.name == "nt", reason="the system has no such limit")
def test_a_real_process_out_of_real_descriptors() -> None:
    """In a process of its own, which lowers its limit; see the file."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("without_descriptors.py"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "survived\n"), result.stderr


# --- real sockets --------------------------------------------------------------------------------


def ask(reactor: Reactor, address: Any, family: int = socket.AF_INET) -> None:
    """Check that an echo is served at an address."""
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.connect(address)
        client.sendall(b"hello")
        run_until(reactor, lambda: select.select([client], [], [], 0)[0])
        assert client.recv(100) == b"hello"


@with_every_selector
def test_ipv4_is_served(selector: Any) -> None:
    with Reactor(selector) as reactor:
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), Echo)
        ask(reactor, listener.addresses[0])


@needs_ipv6
@with_every_selector
def test_ipv6_is_served(selector: Any) -> None:
    with Reactor(selector) as reactor:
        listener = Listener(reactor, open_tcp_sockets("::1", 0), Echo)
        ask(reactor, listener.addresses[0], socket.AF_INET6)


@needs_ipv6
@pytest.mark.parametrize("host", ["", None])
def test_both_families_are_served_on_one_port(host: str | None) -> None:
    with Reactor() as reactor:
        listener = Listener(reactor, open_tcp_sockets(host, 0), Echo)
        (port,) = {address[1] for address in listener.addresses}
        assert len(listener.addresses) == 2
        ask(reactor, ("127.0.0.1", port))
        ask(reactor, ("::1", port), socket.AF_INET6)


@needs_unix_sockets
@with_every_selector
def test_a_unix_socket_is_served(selector: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Reactor(selector) as reactor:
        listener = Listener(reactor, [open_unix_socket(path)], Echo)
        assert listener.addresses == [path]
        ask(reactor, path, socket.AF_UNIX)


def test_a_socket_that_somebody_else_opened_is_served() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    with Reactor() as reactor:
        listener = Listener(reactor, [sock], Echo)
        ask(reactor, listener.addresses[0])


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system has no SO_REUSEPORT")
def test_two_listeners_may_share_a_port() -> None:
    with Reactor() as reactor:
        first = Listener(reactor, open_tcp_sockets("127.0.0.1", 0, reuse_port=True), Echo)
        address = first.addresses[0]
        sockets = open_tcp_sockets("127.0.0.1", address[1], reuse_port=True)
        second = Listener(reactor, sockets, Echo)
        ask(reactor, address)
        first.close()
        ask(reactor, address)
        second.close()


def test_many_real_clients_at_once() -> None:
    echoes: list[Echo] = []

    def make() -> Echo:
        echoes.append(Echo())
        return echoes[-1]

    with Reactor() as reactor:
        listener = Listener(reactor, open_tcp_sockets("127.0.0.1", 0), make)
        clients = [socket.create_connection(listener.addresses[0]) for _ in range(100)]
        try:
            run_until(reactor, lambda: len(echoes) == 100)
            for number, client in enumerate(clients):
                client.settimeout(FAIL_SAFE)
                client.sendall(b"%03d" % number)
            run_until(reactor, lambda: all(len(echo.received) == 3 for echo in echoes))
            answers = [client.recv(100) for client in clients]
        finally:
            for client in clients:
                client.close()
        assert answers == [b"%03d" % number for number in range(100)]


def test_the_listening_socket_in_memory_is_like_a_real_one(world: World) -> None:
    """A check of this file's own means: what a listener sees of it."""
    assert world.sock.getsockname() == ("127.0.0.1", 80)
    world.listen()
    with pytest.raises(BlockingIOError):
        world.sock.accept()
    assert as_socket(world.sock.connect()).fileno() > 0
