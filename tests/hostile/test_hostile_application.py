"""H100, H103, H105 to H109: what the application itself may do to its server.

It raises, closes, joins and leaves at the worst moment, sends what cannot be sent and forks. One
connection alone is in ``test_lifecycle.py`` and ``test_connection.py``, threads over real sockets
are in ``test_threads.py``.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from reactor import ReactorClosed, Transport
from websocket import Cause, Connection, Frame, FrameWriter, Limits, Opcode
from websocket.testing import Peer, Recorder, VirtualServer, upgrade_request

MASKED = FrameWriter(masks=True)
LETTERS = (b"a", b"b", b"c")
ERRORS = [ValueError, MemoryError, RecursionError]


def raising(method: str, error: type[Exception]) -> type[Recorder]:
    """Return a recorder one of whose methods raises, after writing down that it was called."""

    def fail(self: Recorder, *args: Any) -> None:
        getattr(Recorder, method)(self, *args)
        raise error("by a test")

    return type("Raising", (Recorder,), {"__slots__": (), method: fail})


def expect_service(server: VirtualServer) -> None:
    """I1, I2: another client is served."""
    other = server.connect("/healthy")
    other.send("hello")
    server.settle()
    assert server.connections[-1].messages == ["hello"]  # type: ignore[attr-defined]  # Recorder
    other.abort()
    server.settle()


# --- H103: exceptions ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("method", ["on_open", "on_message", "on_close"])
def test_h103_an_exception_costs_its_own_connection(
    method: str, error: type[Exception], logged: list[logging.LogRecord]
) -> None:
    with VirtualServer({"/": raising(method, error), "/healthy": Recorder}) as server:
        client = server.connect()
        client.send("hello")
        server.settle()
        if method == "on_close":
            client.close()
        server.pass_time(1)
        code = 1000 if method == "on_close" else 1011
        assert client.events[-1][:2] == ("close", code)
        (line,) = logged
        assert line.exc_info is not None
        assert line.exc_info[0] is error
        assert vars(line)["event"] == "handler_failed"
        assert f"Raising {vars(line)['connection_id']} " in line.getMessage()
        assert server.connections == []
        expect_service(server)


def test_h103_a_recursion_without_end(logged: list[logging.LogRecord]) -> None:
    class Deep(Recorder):
        __slots__ = ()

        def on_message(self, message: str | bytes) -> None:
            self.on_message(message)

    with VirtualServer({"/": Deep, "/healthy": Recorder}) as server:
        client = server.connect()
        client.send("dive")
        server.settle()
        assert client.events[-1][:2] == ("close", 1011)
        assert len(logged) == 1
        expect_service(server)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["timer", "callback", "other thread", "pool"])
def test_h103_an_exception_outside_of_a_connection_costs_nothing(
    place: str, error: type[Exception], logged: list[logging.LogRecord]
) -> None:
    def fail(*_: object) -> None:
        raise error("by a test")

    with VirtualServer(Recorder) as server:
        reactor = server.reactor
        client = server.connect()
        if place == "timer":
            reactor.call_later(1, fail)
        elif place == "callback":
            reactor.call_soon(fail)
        elif place == "other thread":
            reactor.call_soon_threadsafe(fail)
        else:
            done = threading.Event()
            future = reactor.run_in_executor(int, on_done=fail)
            future.add_done_callback(lambda _: done.set())
            assert done.wait(10)
        server.pass_time(2)
        assert len(logged) == 1
        assert client.is_open
        expect_service(server)


# --- H105: close() at the worst moment ----------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("moment", ["on_open", "on_message", "on_close", "timer", "twice"])
def test_h105_nothing_is_delivered_after_the_end(moment: str, way: str) -> None:
    class Leaver(Recorder):
        __slots__ = ()

        def leave(self) -> None:
            for _ in range(2 if moment == "twice" else 1):
                getattr(self, way)()

        def on_open(self) -> None:
            super().on_open()
            seen.append(self)
            if moment == "on_open":
                self.leave()
            elif moment == "timer":
                self.reactor.call_later(1, self.leave)
                self.reactor.call_later(1, self.leave)

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            if moment in {"on_message", "twice"}:
                self.leave()

        def on_close(self, code: int, reason: str) -> None:
            super().on_close(code, reason)
            self.leave()

    seen: list[Recorder] = []
    with VirtualServer(Leaver) as server:
        peer = join(server)
        server.settle()
        peer.send_bytes(
            b"".join(MASKED.encode_frame(Frame(Opcode.BINARY, each)) for each in LETTERS)
        )
        server.settle()
        if moment == "on_close":
            peer.close()
        server.pass_time(10)
        assert server.connections == []
        (connection,) = seen
        assert [event[0] for event in connection.events].count("close") == 1
        assert connection.events[-1][0] == "close"
        delivered = {"on_open": 0, "on_message": 1, "twice": 1}.get(moment, 3)
        assert len(connection.messages) == delivered
        assert peer.sock.has_eof or peer.sock.is_reset


# --- H106: a crowd that changes while it is spoken to -------------------------------------------


def test_h106_who_was_there_throughout_a_broadcast_gets_it_once() -> None:
    class Member(Recorder):
        """Leave, or bring another in, when a broadcast makes it writable, or a message comes."""

        __slots__ = ()

        def on_message(self, message: str | bytes) -> None:
            super().on_message(message)
            if message == "shuffle":
                everyone = server.connections
                server.server.broadcast("first")
                everyone[0].abort()
                everyone[1].close()
                newcomers.append(join(server))
                server.server.broadcast("second")
                server.server.broadcast("to some", [everyone[0], everyone[2], everyone[2]])

    newcomers: list[Peer] = []
    with VirtualServer(Member) as server:
        clients = [server.connect() for _ in range(10)]
        clients[5].send("shuffle")
        server.settle()
        assert clients[0].messages in ([], ["first"])  # aborted: what was not sent is lost
        assert clients[1].messages == ["first"]
        assert clients[2].messages == ["first", "second", "to some", "to some"]
        for client in clients[3:]:
            assert client.messages == ["first", "second"]
        assert len(server.connections) == 9  # eight who stayed, and the newcomer
        server.server.broadcast("third")
        server.settle()
        assert newcomers[0].read_head().startswith("HTTP/1.1 101 ")
        assert newcomers[0].receive() == [(1, "third")]


def join(server: VirtualServer) -> Peer:
    """Return a client whose request is on its way; nothing has run meanwhile."""
    sock = server.network.listeners["localhost", 80].connect()
    sock.feed(upgrade_request())
    return Peer(sock, is_client=True)


# --- H107: sending at the wrong time, and from elsewhere ----------------------------------------


def test_h107_sending_when_it_is_too_early_or_too_late() -> None:
    with VirtualServer(Recorder) as server:
        early = Recorder(server.reactor, Limits(), is_client=True)
        assert early.send("too early") is False
        client = server.connect()
        (connection,) = server.connections
        connection.close()
        assert connection.send("too late") is False
        server.settle()
        assert client.messages == []
        assert connection.send("far too late") is False
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(connection.send("elsewhere")))
        thread.start()
        thread.join(10)
        assert answers == [False]
    with pytest.raises(ReactorClosed):
        server.reactor.call_soon_threadsafe(print)
    assert client.send("nobody is there") is False


def test_h107_eight_threads_and_every_message_whole_and_in_order() -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect()
        (connection,) = server.connections

        def chatter(name: int) -> None:
            for number in range(200):
                assert connection.send(f"{name} {number}")

        threads = [threading.Thread(target=chatter, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            server.settle()
        server.settle()
        for name in range(8):
            mine = [each for each in client.messages if str(each).startswith(f"{name} ")]
            assert mine == [f"{name} {number}" for number in range(200)]


# --- H108: what cannot be sent ------------------------------------------------------------------


@pytest.mark.parametrize(
    "misuse",
    [
        lambda connection: connection.close(1000, "r" * 124),
        lambda connection: connection.close(1000, "é" * 62),
        lambda connection: connection.close(1005),
        lambda connection: connection.close(1006),
        lambda connection: connection.close(999),
        lambda connection: connection.close(1000, "\ud800"),
        lambda connection: connection.send("lone \udfff surrogate"),
        lambda connection: connection.ping(b"p" * 126),
        lambda connection: connection.send_json(float("nan")),
        lambda connection: connection.send(None),
        lambda connection: connection.send(42),
        lambda connection: connection.ping("text"),
    ],
)
def test_h108_misuse_raises_before_a_byte_is_queued(misuse: Callable[[Any], object]) -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect()
        (connection,) = server.connections
        sent = server.server.statistics().bytes_out
        with pytest.raises((ValueError, TypeError)):
            misuse(connection)
        server.settle()
        assert server.server.statistics().bytes_out == sent
        assert connection.is_open
        connection.send("still open")
        assert client.receive() == "still open"


def test_h108_what_is_changed_after_send_is_not_what_arrives() -> None:
    with VirtualServer(Recorder) as server:
        client = server.connect()
        (connection,) = server.connections
        payload = bytearray(b"as it was")
        for view in (payload, memoryview(payload)):
            connection.send(view)
        connection.ping(memoryview(payload))  # type: ignore[arg-type]  # bytes-like is fine
        payload[:] = b"otherwise"
        assert client.receive() == b"as it was"
        assert client.receive() == b"as it was"
        assert client.events[-1] == ("ping", b"as it was")


# --- H100: fork ---------------------------------------------------------------------------------

FORKING = """
import os, sys
from reactor import Reactor, ReactorForked
from websocket.testing import Recorder, VirtualServer

def child(what):
    try:
        what()
    except ReactorForked as error:
        assert "make a new one in the child" in str(error)
        os._exit(7)
    os._exit(1)

def fork_and(what):
    pid = os.fork()
    if not pid:
        child(what)
    assert os.waitpid(pid, 0)[1] == 7 << 8

class Forking(Recorder):
    def on_message(self, message):
        super().on_message(message)
        if message == "fork":
            self.reactor.call_soon(self.send, "from a callback")
            if not os.fork():
                # The turn goes on; it must neither read nor send what is the parent's.
                self.send("from the child")
                return
            os.wait()
            self.send("from the parent")

with VirtualServer(Forking) as server:
    client, other = server.connect(), server.connect()
    fork_and(server.settle)
    fork_and(server.reactor.run)
    fork_and(lambda: server.reactor.call_soon_threadsafe(print))
    client.send("fork")
    other.send("at the same time")
    parent = os.getpid()
    try:
        server.settle()
    except ReactorForked:
        pass
    if os.getpid() != parent:
        assert server.connections and not client.messages
        server.reactor.close()
        with Reactor() as mine:
            mine.run_once(0)
        os._exit(0)
    assert client.messages == ["from the parent", "from a callback"], client.messages
    assert [each.messages for each in server.connections][1] == ["at the same time"]
print("good")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_h100_a_fork_of_a_loop_leaves_everything_to_the_parent() -> None:
    command = [sys.executable, "-c", FORKING]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.returncode) == ("good\n", 0), result.stderr


# --- H109: nothing is left, and nothing has to be collected -------------------------------------


def count_transports() -> int:
    return sum(isinstance(each, Transport) for each in gc.get_objects())


class Mortal(Connection):
    """A connection that a weak reference can tell of; it raises at a word."""

    def on_message(self, message: str | bytes) -> None:
        if message == "boom":
            raise ZeroDivisionError


ENDINGS: dict[str, Callable[[Recorder, Connection], object]] = {
    "closed by the client": lambda client, connection: client.close(),
    "closed by the server": lambda client, connection: connection.close(),
    "aborted": lambda client, connection: connection.abort(),
    "reset": lambda client, connection: client.socket.reset(),
    "ended": lambda client, connection: client.socket.end(),
    "silent": lambda client, connection: client.socket.cut(),
    "failed": lambda client, connection: client.socket.feed(b"\xff\xff"),
    "raised": lambda client, connection: client.send("boom"),
}


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="other interpreters do not count references"
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_h109_an_ended_connection_needs_no_garbage_collector(
    ending: str,
) -> None:
    with VirtualServer(Mortal) as server:
        gc.collect()
        gc.disable()
        # The test framework keeps all records, and those that have a traceback keep its frames.
        logging.disable(logging.CRITICAL)
        try:
            before = count_transports()
            client = server.connect()
            connection = weakref.ref(server.connections[0])
            assert count_transports() == before + 2
            ENDINGS[ending](client, server.connections[0])
            server.pass_time(70)
            assert client.cause is not None
            client.transport = None
            assert connection() is None
            assert count_transports() == before
        finally:
            logging.disable(logging.NOTSET)
            gc.enable()
        assert server.server.statistics().closed_by_cause[Cause.ABORTED] == (ending == "aborted")
