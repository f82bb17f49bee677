"""Several threads against one server that runs in yet another, over real sockets."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from support import upgrade_request

from reactor import ReactorClosed
from websocket import Connection, Frame, FrameReader, FrameWriter, Limits, Opcode, Server
from websocket.assembler import Assembler
from websocket.frame import build_close, parse_close

# Long enough for a slow machine; nothing that goes well waits for it.
TIMEOUT = 30
# Nobody is a slow consumer here: a test reads when it has written everything.
LIMITS = Limits(write_hard_mark=2**30, write_stall_timeout=None, shutdown_grace=5.0)
MASKED = FrameWriter(masks=True)


class Member(Connection):
    """Tell the test about every connection."""

    __slots__ = ()

    came: list[Member]
    left: list[Member]

    def on_open(self) -> None:
        self.came.append(self)

    def on_close(self, code: int, reason: str) -> None:
        self.left.append(self)


class House:
    """A server in a thread of its own, and all the connections that it ever had."""

    def __init__(self) -> None:
        self.came: list[Member] = []
        self.left: list[Member] = []
        attributes = {"__slots__": (), "came": self.came, "left": self.left}
        self.server = Server(type("Guest", (Member,), attributes), port=0, limits=LIMITS).start()
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()

    def enter(self) -> tuple[Guest, Member]:
        """Return a new client and its connection."""
        known = len(self.came)
        guest = Guest(self.port)
        # The server calls on_open in the turn in which it answers, before it sends the answer.
        return guest, self.came[known]

    def stop(self) -> None:
        """Shut the server down and wait for its thread."""
        with contextlib.suppress(ReactorClosed):
            self.server.shutdown()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.stop()


class Guest:
    """A client that blocks: the judge of what the server sends."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self._reader = FrameReader(
            Assembler(LIMITS), must_be_masked=False, max_message_size=LIMITS.max_message_size
        )
        self._sock.sendall(upgrade_request())
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._sock.recv(1)
        assert received.startswith(b"HTTP/1.1 101 ")

    def send(self, opcode: int, payload: bytes) -> None:
        self._sock.sendall(MASKED.encode_frame(Frame(opcode, payload)))

    def leave(self, abruptly: bool) -> None:
        if abruptly:
            self._sock.close()
        else:
            self.send(Opcode.CLOSE, build_close(1000, ""))

    def read_all(self) -> tuple[list[str], list[int | None]]:
        """Return the text messages, and the codes of all close frames, up to the end.

        A close frame is answered. Frames that were mixed up do not get past the reader.
        """
        messages: list[str] = []
        codes: list[int | None] = []
        with self._sock:
            while data := self._receive():
                for opcode, payload in self._reader.feed(data):
                    if isinstance(payload, str):
                        messages.append(payload)
                    elif opcode == Opcode.CLOSE:
                        codes.append(parse_close(payload)[0])
                        with contextlib.suppress(OSError):  # when we were the first to close
                            self.send(Opcode.CLOSE, payload)
                assert self._reader.error is None
        return messages, codes

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except ConnectionError:
            return b""


def together(*functions: Callable[[], object]) -> None:
    """Run functions in threads that begin at the same time; raise what one of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        try:
            barrier.wait(TIMEOUT)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def check_order(messages: list[str], counts: dict[str, int]) -> None:
    """Check that of each sender all numbered messages arrived, once and in order."""
    received: dict[str, list[int]] = {name: [] for name in counts}
    for message in messages:
        name, number = message.split(":")[:2]
        received[name].append(int(number))
    assert received == {name: list(range(count)) for name, count in counts.items()}


def test_what_many_threads_send_arrives_whole_and_in_the_order_of_each(house: House) -> None:
    guest, connection = house.enter()
    count = 150

    def sender(name: str) -> Callable[[], None]:
        source = random.Random(name)

        def send() -> None:
            for number in range(count):
                # Short ones leave in one buffer, long ones in two.
                padding = "x" * source.choice((0, 10, 200, 20_000))
                assert connection.send(f"{name}:{number}:{padding}")

        return send

    names = [f"thread {number}" for number in range(8)]
    together(*map(sender, names))
    connection.close(4000, "that was all")
    messages, codes = guest.read_all()
    check_order(messages, dict.fromkeys(names, count))
    assert codes == [4000]


def test_everything_at_once_while_clients_come_and_go(house: House) -> None:
    steady = [house.enter()[0] for _ in range(2)]
    count = 300
    visits = 25

    def broadcaster(name: str) -> Callable[[], None]:
        def broadcast() -> None:
            for number in range(count):
                house.server.broadcast(f"{name}:{number}")

        return broadcast

    def pester() -> None:
        """Do anything with anybody but the steady ones, whatever their state."""
        source = random.Random(6455)
        for _ in range(count):
            visitors = house.came[len(steady) :]
            if not visitors:
                continue
            visitor = source.choice(visitors[-5:])
            action = source.randrange(8)
            if action == 0:
                visitor.close(4001, "out")
            elif action == 1:
                visitor.abort()
            elif action == 2:
                visitor.ping(b"?")
            else:
                visitor.send("pester:0")

    def count_heads() -> None:
        for _ in range(count):
            statistics = house.server.statistics()
            assert statistics.handshaking >= 0
            assert statistics.active >= 0
            assert statistics.closed <= statistics.opened <= statistics.accepted

    def visit() -> None:
        for number in range(visits):
            guest = Guest(house.port)
            with contextlib.suppress(OSError):  # thrown out already
                guest.send(Opcode.TEXT, b"hello")
                guest.leave(abruptly=number % 5 == 0)
            if number % 5:
                guest.read_all()

    names = ["one", "two", "three"]
    together(*map(broadcaster, names), pester, pester, count_heads, visit, visit)
    house.server.shutdown()
    for guest in steady:
        messages, codes = guest.read_all()
        check_order(messages, dict.fromkeys(names, count))
        assert codes == [1001]
    house.stop()
    statistics = house.server.statistics()
    assert statistics.opened == statistics.closed == len(steady) + 2 * visits
    assert (statistics.handshaking, statistics.active) == (0, 0)
    # One on_open and one on_close for each.
    assert Counter(house.came) == Counter(house.left)
    assert len(set(house.came)) == statistics.opened


def test_of_many_closes_at_once_one_counts(house: House) -> None:
    guest, connection = house.enter()
    together(*[lambda code=code: connection.close(code) for code in range(4000, 4008)])
    _, codes = guest.read_all()
    assert len(codes) == 1
    house.stop()
    assert house.left == [connection]
    assert connection.closed is not None
    assert connection.closed.code == codes[0]


def test_of_many_shutdowns_at_once_each_is_told_the_end(house: House) -> None:
    guest, _ = house.enter()
    done: list[int] = []
    together(
        *[
            lambda number=number: house.server.shutdown(on_done=lambda: done.append(number))
            for number in range(8)
        ]
    )
    assert guest.read_all() == ([], [1001])
    house.stop()
    assert sorted(done) == list(range(8))


def test_a_thread_learns_that_the_connection_is_gone(house: House) -> None:
    guest, connection = house.enter()
    sent: list[int] = []

    def send() -> None:
        number = 0
        while connection.send(f"sender:{number}"):
            number += 1
        sent.append(number)

    def throw_out() -> None:
        connection.close()

    together(send, throw_out)
    messages, _ = guest.read_all()
    # Up to the close frame everything arrives; what was handed over behind it is dropped.
    check_order(messages, {"sender": len(messages)})
    assert len(messages) <= sent[0]
    house.stop()
    assert connection.send("too late") is False
    assert connection.ping() is False


def test_calls_from_threads_race_with_the_end_of_the_reactor(house: House) -> None:
    guests = [house.enter() for _ in range(4)]
    connections = [connection for _, connection in guests]

    def send() -> None:
        while any(connection.send("x") for connection in connections):
            pass
        for connection in connections:
            assert connection.ping() is False
            connection.close()
            connection.abort()

    def broadcast() -> None:
        with contextlib.suppress(ReactorClosed):
            while True:
                house.server.broadcast("y")
                house.server.statistics()

    def stop() -> None:
        house.server.shutdown(grace=0)

    together(send, broadcast, stop)
    for guest, _ in guests:
        messages, codes = guest.read_all()
        assert set(messages) <= {"x", "y"}
        assert codes in ([1001], [])
    house.stop()
    assert Counter(house.left) == Counter(connections)
