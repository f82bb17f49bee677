from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from websocket import Connection, Deflate, Limits, SlowConsumer
from websocket.testing import Recorder, VirtualServer

KIB = 1024
LIMITS = Limits(write_soft_mark=4 * KIB, write_hard_mark=20 * KIB, ping_interval=None)


def keeper(policy: str) -> type[Recorder]:
    return type("Keeper", (Recorder,), {"__slots__": (), "slow_consumer": policy})


def texts(count: int) -> list[str]:
    return [f"{number:05} and so on".ljust(KIB, "abcdefgh"[number % 8]) for number in range(count)]


def slow_pair(server: VirtualServer, **options: Any) -> tuple[Recorder, Recorder]:
    """Return our end and the client's, whose window is small."""
    client = server.connect(**options)
    client.socket.capacity = 1_000
    return cast(Recorder, server.connections[-1]), client


@pytest.fixture(params=["plain", "shared", "takeover"])
def compression(request: pytest.FixtureRequest) -> Any:
    return {
        "plain": False,
        "shared": Deflate(threshold=0),
        "takeover": Deflate(threshold=0, compress_takeover=True, inflate_takeover=True),
    }[request.param]


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "latest"])
def test_what_is_dropped_breaks_no_compression(compression: Any, policy: str) -> None:
    limits = LIMITS.replace(write_soft_mark=KIB, write_hard_mark=4 * KIB)
    with VirtualServer(keeper(policy), limits=limits, compression=compression) as server:
        ours, client = slow_pair(server, compression=compression, limits=Limits(ping_interval=None))
        client.pause()
        sent = texts(400)
        for text in sent:
            ours.send(text)
        client.resume()
        server.settle()
        ours.send("the last")
        server.settle()
        received = client.messages
        assert received[-1] == "the last"
        assert received[:-1] == [text for text in sent if text in set(received)]
        assert len(received) - 1 + ours.messages_dropped == len(sent)
        assert ours.messages_dropped > 0
        assert [event for event in ours.events if event[0] == "drop"] == [
            ("drop", ours.messages_dropped)
        ]
        assert client.is_open


def test_a_policy_that_does_not_exist_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="'slow' is not a valid SlowConsumer"):
        keeper("slow")
    with VirtualServer(Recorder) as server:
        with pytest.raises(ValueError, match="is not a valid SlowConsumer"):
            server.server.broadcast("news", policy="slow")
        with pytest.raises(TypeError, match="unhashable"):
            server.server.broadcast("news", key=cast(Any, []))
        server.connect()
        with pytest.raises(TypeError, match="unhashable"):
            server.connections[0].send_latest("news", cast(Any, []))


def test_the_class_has_a_policy_before_the_limits_and_a_broadcast_before_both() -> None:
    limits = LIMITS.replace(slow_consumer=SlowConsumer.DROP_OLDEST)
    with VirtualServer(keeper("block"), limits=limits) as server:
        ours, client = slow_pair(server)
        client.pause()
        assert ours.slow_consumer is SlowConsumer.BLOCK
        while ours.send(texts(1)[0]):
            pass
        assert ours.is_congested
        server.server.broadcast("latest 1", key="a")
        server.server.broadcast("latest 2", key="a")
        server.server.broadcast("all of them", policy=SlowConsumer.CLOSE)
        server.server.broadcast("as the class, untold")
        assert ours.messages_dropped == 1
        client.resume()
        server.settle()
        assert client.messages[-3:] == ["latest 2", "all of them", "as the class, untold"]
        assert ours.events[-2:] == [("drop", 1), ("writable",)]


def in_thread(function: Callable[[], object]) -> Any:
    """Return what a function returns in another thread."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join(10)
    return results[0]


def test_from_another_thread_block_refuses_what_is_too_late_and_keeps_what_it_has_taken() -> None:
    with VirtualServer(keeper("block"), limits=LIMITS) as server:
        ours, client = slow_pair(server)
        client.pause()
        sent = texts(10)
        assert in_thread(lambda: [ours.send(text) for text in sent]) == [True] * 10
        server.settle()
        assert ours.is_congested
        assert in_thread(lambda: ours.send("refused")) is False
        assert in_thread(lambda: ours.send_latest("taken", 1)) is True
        client.resume()
        server.settle()
        assert client.messages == [*sent, "taken"]
        client.close()
        server.settle()
        assert in_thread(lambda: ours.send_latest("too late", 1)) is False
        assert ours.send_latest("too late", 1) is False


@pytest.mark.parametrize("policy", SlowConsumer)
def test_what_a_session_has_kept_is_not_dropped_by_a_policy(policy: SlowConsumer) -> None:
    with VirtualServer(keeper(policy), limits=LIMITS) as server:
        client = server.connect()
        session = server.connections[0].session
        assert session is not None
        client.abort()
        server.settle()
        sent = texts(15)
        assert [session.send(text) for text in sent] == [True] * 15
        back = server.connect(f"/?session={session.id}")
        back.socket.capacity = 1_000
        server.settle()
        assert back.messages == sent
        assert session.missed == 0


@pytest.mark.parametrize("policy", ["block", "drop_newest"])
def test_a_session_does_not_keep_what_a_slow_connection_refuses(policy: str) -> None:
    with VirtualServer(keeper(policy), limits=LIMITS) as server:
        ours, client = slow_pair(server)
        client.pause()
        assert ours.session is not None
        while ours.session.send(texts(1)[0]):
            pass
        assert ours.is_open
        assert ours.session.missed == 0


def test_an_on_drop_that_closes_is_not_followed_by_on_writable() -> None:
    class Closer(Recorder):
        __slots__ = ()

        slow_consumer = "drop_oldest"

        def on_drop(self, dropped: int) -> None:
            super().on_drop(dropped)
            self.close(4000, "you missed too much")

    with VirtualServer(Closer, limits=LIMITS) as server:
        ours, client = slow_pair(server)
        client.pause()
        for text in texts(50):
            ours.send(text)
        client.resume()
        server.settle()
        assert client.events[-1] == ("close", 4000, "you missed too much")
        assert ("writable",) not in ours.events


def test_a_connection_alone_counts_what_it_drops() -> None:
    assert Connection.slow_consumer is None
    with VirtualServer(keeper("drop_newest"), limits=LIMITS) as server:
        ours, client = slow_pair(server)
        client.pause()
        results = [ours.send(text) for text in texts(60)]
        assert ours.messages_dropped == results.count(False) > 0
        assert server.server.statistics().messages_dropped == ours.messages_dropped
        assert ours.buffered <= 21 * KIB
