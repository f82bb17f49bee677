"""The public kit for tests: what ``reactor.testing`` and ``websocket.testing`` promise to users."""

from __future__ import annotations

import errno
import selectors
import ssl
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from streams import Echo as EchoBytes
from streams import Witness
from tls_peer import AUTHORITY, certificate

from reactor import ConnectFailed, Connector, Listener
from reactor.faults import ERRORS, FaultPlan, every_fault, fault
from reactor.memory_tls import MemoryServerTLS, in_memory
from reactor.testing import MemoryNetwork, MemorySelector, MemorySocket, VirtualReactor, as_socket
from reactor.tls import client_context
from websocket import Cause, Connection, HandshakeError, Limits, Opcode, connect
from websocket.testing import ConnectionPair, Peer, Recorder, VirtualServer, upgrade_request


class Shout(Connection):
    """What a user might want to test."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        self.send(str(message).upper())
        self.reactor.call_later(3600, self.send, "an hour later")


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
def reactor(network: MemoryNetwork) -> Iterator[VirtualReactor]:
    with network.reactor() as reactor:
        yield reactor


@pytest.fixture
def ends(network: MemoryNetwork) -> tuple[MemorySocket, MemorySocket]:
    return network.pair(capacity=10)


def received(sock: MemorySocket, size: int = 100) -> bytes:
    """Read once."""
    buffer = bytearray(size)
    return bytes(buffer[: sock.recv_into(memoryview(buffer))])


# --- sockets in memory --------------------------------------------------------------------------


def test_what_one_end_sends_the_other_receives(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    assert ours.send(b"hello ") == 6
    assert ours.sendmsg([b"wo", memoryview(b"rld!")]) == 4  # there is no room for more
    assert not ours.is_writable
    with pytest.raises(BlockingIOError):
        ours.send(b"more")
    assert received(theirs, 5) == b"hello"
    assert received(theirs) == b" worl"
    with pytest.raises(BlockingIOError):
        received(theirs)
    ours.close()
    assert received(theirs) == b""
    with pytest.raises(BrokenPipeError):
        theirs.send(b"late")
    with pytest.raises(OSError, match=str(errno.EBADF)):
        ours.send(b"late")


def test_half_a_stream_may_end(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    ours.shutdown(1)
    assert received(theirs) == b""
    theirs.send(b"still")
    assert received(ours) == b"still"
    with pytest.raises(BrokenPipeError):
        ours.send(b"late")


def test_closing_with_unread_input_resets(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    theirs.send(b"unread")
    ours.close()
    with pytest.raises(ConnectionResetError):
        received(theirs)


def test_calls_fail_on_command(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    ours.fail("send", errno.EAGAIN, errno.ENOBUFS, times=2)
    seen = []
    for _ in range(4):
        try:
            ours.send(b"x")
        except OSError as error:
            seen.append(error.errno)
    assert seen == [errno.EAGAIN, errno.ENOBUFS] * 2
    assert ours.send(b"x") == 1
    assert ours.calls == {"send": 5}
    assert theirs.inbox == b"x"


def test_short_writes_and_reads(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    ours.max_send = 3
    theirs.max_receive = 2
    assert ours.send(b"hello") == 3
    assert received(theirs) == b"he"


def test_a_window_of_zero(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    theirs.capacity = 0
    assert not ours.is_writable
    with pytest.raises(BlockingIOError):
        ours.send(b"x")


def test_one_byte_a_second(network: MemoryNetwork, reactor: VirtualReactor) -> None:
    ours, theirs = network.pair()
    theirs.rate = 1
    ours.send(b"abc")
    ours.close()
    for expected in (b"", b"a", b"ab", b"abc"):
        assert bytes(theirs.inbox) == expected
        assert not theirs.has_eof or expected == b"abc"
        reactor.pass_time(1)
    assert theirs.has_eof
    assert not theirs.is_reset


def test_bytes_that_drip_wake_whoever_waits_for_them(
    network: MemoryNetwork, reactor: VirtualReactor
) -> None:
    witness = Witness()
    _, theirs = network.transport(reactor, witness)
    assert theirs.peer is not None
    theirs.peer.rate = 0.5
    theirs.feed(b"ab")
    began = network.clock.now
    reactor.run_once()
    assert (network.clock.now - began, bytes(witness.received)) == (2, b"a")
    reactor.run_once(1)
    assert (network.clock.now - began, bytes(witness.received)) == (3, b"a")
    theirs.peer.rate = None
    reactor.settle()
    assert bytes(witness.received) == b"ab"


def test_a_cable_that_is_pulled_tells_nobody(ends: tuple[MemorySocket, MemorySocket]) -> None:
    ours, theirs = ends
    ours.send(b"before")
    theirs.cut()
    assert ours.send(b"lost") == 4
    ours.close()
    assert received(theirs) == b"before"
    with pytest.raises(BlockingIOError):
        received(theirs)
    assert theirs.send(b"nobody is there") == 10
    with pytest.raises(BlockingIOError):
        theirs.send(b"and the buffer is full")


def test_descriptors_are_given_again_the_lowest_first(network: MemoryNetwork) -> None:
    first, second = network.pair()
    third, _ = network.pair()
    numbers = [sock.fileno() for sock in (first, second, third)]
    third.close()
    first.close()
    assert first.fileno() == -1
    assert network.open(None).fileno() == numbers[0]
    assert network.open(None).fileno() == numbers[2]


# --- selector and time --------------------------------------------------------------------------


def test_the_selector_is_as_strict_as_a_real_one(network: MemoryNetwork) -> None:
    selector = MemorySelector(network)
    ours, theirs = network.pair()
    selector.register(ours.fileno(), selectors.EVENT_READ)
    with pytest.raises(KeyError):
        selector.register(ours.fileno(), selectors.EVENT_READ)
    theirs.send(b"x")
    assert [mask for _, mask in selector.select()] == [selectors.EVENT_READ]
    selector.modify(ours.fileno(), selectors.EVENT_WRITE)
    assert [mask for _, mask in selector.select()] == [selectors.EVENT_WRITE]
    network.on_call = FaultPlan(0, errno.ENOMEM)
    with pytest.raises(OSError, match=str(errno.ENOMEM)):
        selector.modify(ours.fileno(), selectors.EVENT_READ)
    with pytest.raises(KeyError):
        selector.unregister(ours.fileno())


def test_waiting_moves_the_clock(reactor: VirtualReactor) -> None:
    clock, fired = reactor.network.clock, list[float]()
    began = clock.now
    reactor.call_later(86_400, lambda: fired.append(clock.now - began))
    reactor.pass_time(86_399)
    assert fired == []
    reactor.pass_time(2)
    assert len(fired) == 1
    assert 86_400 <= fired[0] <= 86_400.02
    assert clock.now == began + 86_401
    reactor.run_once()  # nothing will ever happen: it does not wait for that
    assert clock.now == began + 86_401


def test_what_spins_is_found_out(reactor: VirtualReactor) -> None:
    def spin() -> None:
        reactor.call_soon(spin)

    spin()
    with pytest.raises(AssertionError, match="still busy"):
        reactor.settle()


# --- reactors, listeners and connectors ---------------------------------------------------------


def test_a_connector_meets_a_listener(network: MemoryNetwork, reactor: VirtualReactor) -> None:
    sock = network.listen(port=7)
    listener = Listener(reactor, [as_socket(sock)], EchoBytes)
    assert listener.addresses == [("localhost", 7)]
    witness, failures = Witness(), list[ConnectFailed]()
    Connector(reactor, witness, ("localhost", 7), failures.append)
    reactor.settle()
    witness.transport.write(b"hello")
    reactor.settle()
    assert bytes(witness.received) == b"hello"
    assert failures == []
    listener.close()
    Connector(reactor, Witness(), ("localhost", 7), failures.append)
    reactor.settle()
    assert [cause.errno for failure in failures for _, cause in failure.causes] == [
        errno.ECONNREFUSED
    ]


def test_a_listener_may_swallow_who_connects(
    network: MemoryNetwork, reactor: VirtualReactor
) -> None:
    network.listen().swallows = True
    failures: list[ConnectFailed] = []
    Connector(reactor, Witness(), ("localhost", 80), failures.append, timeout=5)
    reactor.pass_time(4)
    assert failures == []
    reactor.pass_time(2)
    assert len(failures) == 1


def test_accept_fails_on_command(
    network: MemoryNetwork, reactor: VirtualReactor, logged: list[object]
) -> None:
    sock = network.listen()
    sock.fail("accept", errno.EMFILE)
    Listener(reactor, [as_socket(sock)], EchoBytes)
    assert sock.connect().has_eof is False
    late = sock.connect()
    reactor.settle()
    assert late.is_reset or late.has_eof  # turned away, with the reserve
    late = sock.connect()
    reactor.pass_time(1.1)
    late.feed(b"served")
    reactor.settle()
    assert late.take() == b"served"
    assert len(logged) == 1


def test_a_fault_plan_strikes_once() -> None:
    plan = FaultPlan(1, errno.EPIPE)
    plan.exempt.add(9)
    plan("send", 1)
    plan("send", 9)
    assert "not reached" in repr(plan)
    with pytest.raises(BrokenPipeError):
        plan("send", 1)
    plan("send", 1)
    assert plan.calls == ["send"] * 3
    assert repr(plan) == "<call 1 (send) fails with EPIPE>"
    assert repr(FaultPlan()) == "<0 calls, none fails>"
    assert [plan.position for plan in every_fault(["send", "unknown", "select"])] == [
        *[0] * len(ERRORS["send"]),
        2,
    ]


@pytest.mark.parametrize("number", sorted({each for errors in ERRORS.values() for each in errors}))
def test_a_fault_has_the_class_and_the_words_of_the_system(number: int) -> None:
    error = fault(number)
    assert error.errno == number
    assert error.strerror
    assert isinstance(error, BlockingIOError) == (number == errno.EAGAIN)


# --- websocket.testing --------------------------------------------------------------------------


def test_a_handler_is_tested_in_virtual_time() -> None:
    with VirtualServer(Shout) as server:
        alice = server.connect()
        alice.send("hello")
        assert alice.receive() == "HELLO"
        with pytest.raises(AssertionError, match="no message has come"):
            alice.receive()
        server.pass_time(3600)
        assert alice.receive() == "an hour later"
        alice.close()
        server.settle()
        assert alice.events[-1] == ("close", 1000, "")
        assert server.connections == []


def test_silence_is_noticed_by_the_server() -> None:
    with VirtualServer(Recorder) as server:
        alice = server.connect(limits=Limits(ping_interval=None))
        (ours,) = server.connections
        alice.socket.cut()
        server.pass_time(39)
        assert server.connections == [ours]
        server.pass_time(2)
        assert server.connections == []
        assert ours.cause is Cause.PING_TIMEOUT


def test_clients_come_from_where_the_test_says() -> None:
    with VirtualServer(Recorder, limits=Limits(max_connections_per_ip=1)) as server:
        server.connect(address="192.0.2.1")
        server.connect(address="192.0.2.2")
        with pytest.raises(HandshakeError) as caught:
            server.connect(address="192.0.2.1")
        assert caught.value.status == 429
        assert [each.remote_address[0] for each in server.connections] == ["192.0.2.1", "192.0.2.2"]


def test_a_client_of_ones_own_and_its_options() -> None:
    class Client(Recorder):
        __slots__ = ()
        subprotocols = ("chat",)

    class Chat(Recorder):
        __slots__ = ()
        subprotocols = ("chat",)

    with VirtualServer({"/chat": Chat}, port=8080) as server:
        client = server.connect("/chat?room=1", Client, headers=[("X-Token", "abc")])
        assert client.subprotocol == "chat"
        (ours,) = server.connections
        assert ours.request is not None
        assert ours.request.headers.get("X-Token") == "abc"
        assert ours.request.query_parameters == {"room": ["1"]}
        with pytest.raises(HandshakeError, match="404"):
            server.connect("/nowhere")


def test_servers_may_share_a_network_but_each_has_a_reactor() -> None:
    network = MemoryNetwork()
    with VirtualServer(Recorder, network=network) as one:
        with VirtualServer(Recorder, network=network, port=81) as other:
            assert one.clock is other.clock
            assert other.connect().is_open
        client = connect(one.reactor, "ws://localhost:81/", Recorder)
        one.settle()
        assert client.cause is Cause.CONNECT_FAILED
        one.server.shutdown()
        one.settle()
        with pytest.raises(ConnectFailed):
            one.connect()


def test_tls_in_memory() -> None:
    tls = MemoryServerTLS(certificate("server"))
    with VirtualServer(Shout, tls=tls) as server:
        alice = server.connect(tls=in_memory(client_context(AUTHORITY)))
        alice.send("a" * 100_000)
        assert alice.receive() == "A" * 100_000
        assert alice.transport is not None
        assert alice.transport.get_extra_info("peercert")["subject"]
        assert b"AAAA" not in alice.socket.inbox
        with pytest.raises(HandshakeError) as caught:
            server.connect(tls=in_memory(ssl.create_default_context()))
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


def test_a_stranger_sends_what_it_likes() -> None:
    with VirtualServer(Shout) as server:
        stranger = server.stranger()
        stranger.send_bytes(upgrade_request())
        server.settle()
        assert stranger.read_head().startswith("HTTP/1.1 101 ")
        stranger.send_frame(Opcode.TEXT, b"in ", fin=False)
        stranger.send_frame(Opcode.CONTINUATION, b"parts")
        server.settle()
        assert stranger.receive() == [(Opcode.TEXT, "IN PARTS")]
        stranger.send_frame(Opcode.TEXT, b"reserved", rsv1=True)
        server.settle()
        assert (stranger.received_close() or ())[:1] == (1002,)
        assert stranger.sees_end


def test_two_connections_and_nothing_else() -> None:
    with ConnectionPair(Shout) as pair:
        pair.client.send("hello")
        assert pair.client.receive() == "HELLO"
        pair.pass_time(3600)
        assert pair.client.receive() == "an hour later"
        pair.client.close(3000, "enough")
        pair.settle()
        assert pair.client.events[-1] == ("close", 3000, "enough")
        assert pair.server.cause is Cause.CLOSED_BY_PEER


def test_a_pair_agrees_on_what_it_is_told() -> None:
    limits = Limits(max_message_size=10)
    with ConnectionPair(limits=limits, subprotocol="chat", capacity=100) as pair:
        assert pair.server.subprotocol == pair.client.subprotocol == "chat"
        pair.client.send("longer than ten")
        pair.settle()
        assert pair.server.cause is Cause.MESSAGE_TOO_BIG
        assert pair.client.events[-1][:2] == ("close", 1009)


def test_the_recorder_records_everything() -> None:
    with ConnectionPair() as pair:
        pair.client.ping(b"well?")
        pair.settle()
        pair.server.send(b"bytes")
        pair.settle()
        pair.client.socket.fail("recv_into", errno.ECONNRESET)
        pair.server.send("lost")
        pair.settle()
        assert [event[0] for event in pair.client.events] == [
            *("open", "pong", "message", "error", "close")
        ]
        assert pair.server.events[:2] == [("open",), ("ping", b"well?")]
        assert pair.client.messages == [b"bytes"]


def test_a_recorder_that_is_not_in_memory_has_no_such_socket() -> None:
    with ConnectionPair() as pair:
        recorder: Any = Recorder(pair.reactor, Limits())
        with pytest.raises(AssertionError, match="never opened"):
            recorder.socket  # noqa: B018  # it raises


def test_a_peer_may_be_the_server() -> None:
    network = MemoryNetwork()
    with network.reactor() as reactor:
        transport, theirs = network.transport(reactor, Witness())
        client = Recorder(reactor, Limits(), is_client=True)
        client.open(transport)
        peer = Peer(theirs, is_client=False)
        peer.send("from the server")
        peer.close(1001, "bye")
        reactor.settle()
        assert client.messages == ["from the server"]
        assert peer.received_close() == (1001, "")


@pytest.mark.parametrize("module", ["reactor.testing", "websocket.testing"])
def test_the_kit_needs_no_test_framework_and_nobody_needs_the_kit(module: str) -> None:
    code = f"""
import sys, reactor, websocket
assert "{module}" not in sys.modules
import {module}
assert not {{"pytest", "unittest", "ssl"}} & set(sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
