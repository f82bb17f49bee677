"""TLS transports: what holds for plain streams, stalls in the handshake, ends that may be forged.

See test_tls_certificates.py for who trusts whom.
"""

from __future__ import annotations

import logging
import random
import socket
import ssl
import struct
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from streams import Echo, Witness
from support import run_until
from tls_peer import AUTHORITY, TLSPeer, TLSStage, certificate, trusting_context

from reactor import READ, WRITE, Connector, Listener, Protocol, Reactor, Transport
from reactor.tls import ServerTLS, TLSTransport, client_context

KIB = 1024
MIB = 1024 * 1024

with_both_versions = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name
)


@pytest.fixture
def stage() -> Iterator[TLSStage]:
    with TLSStage() as stage:
        yield stage


def opened(stage: TLSStage, protocol: Protocol, **options: Any) -> tuple[TLSTransport, TLSPeer]:
    """Return a server's transport and its client, after the handshake."""
    transport, peer = stage.server(protocol, **options)
    stage.settle()
    assert peer.is_ready
    return transport, peer


def raise_boom(*args: object) -> None:
    raise ValueError("boom")


def moody_tls(**moods: list[Exception]) -> ServerTLS:
    """Return certificates whose sockets' methods raise what is listed before they do any work."""

    class MoodySocket(ssl.SSLSocket):
        def _enter(self, name: str) -> None:
            if waiting.get(name):
                raise waiting[name].popleft()

        def do_handshake(self, block: bool = False) -> None:
            self._enter("do_handshake")
            super().do_handshake(block)

        def recv_into(self, *args: Any) -> int:
            self._enter("recv_into")
            return super().recv_into(*args)

        def send(self, *args: Any) -> int:
            self._enter("send")
            return super().send(*args)

    waiting = {name: deque(errors) for name, errors in moods.items()}
    tls = ServerTLS(certificate("server"))
    tls.context.sslsocket_class = MoodySocket
    return tls


# --- moving bytes --------------------------------------------------------------------------------


@with_both_versions
@pytest.mark.parametrize("size", [1, 1000, 16 * KIB, 16 * KIB + 1, MIB])
def test_a_server_gets_and_sends_every_byte_in_order(
    stage: TLSStage, version: ssl.TLSVersion, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    echo = Echo()
    transport, peer = opened(stage, echo, context=trusting_context(version))
    peer.write(data)
    stage.settle()
    assert echo.received == data
    assert peer.received == data
    assert transport.get_write_buffer_size() == 0


@with_both_versions
def test_a_client_gets_and_sends_every_byte_in_order(
    stage: TLSStage, version: ssl.TLSVersion
) -> None:
    context = client_context(AUTHORITY)
    context.maximum_version = version
    witness = Witness()
    transport, peer = stage.client(witness, context=context)
    data = random.Random(1).randbytes(MIB)
    transport.write(data)
    stage.settle()
    assert peer.tls.version() == version.name.replace("_", ".")
    assert peer.received == data
    peer.write(data[::-1])
    stage.settle()
    assert witness.received == data[::-1]


def test_both_ends_may_be_ours(stage: TLSStage) -> None:
    """Over TCP, with the listener and the connector of the package."""
    echo, witness = Echo(), Witness()
    failures: list[Exception] = []
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    listener = Listener(
        stage.reactor, [listening], lambda: echo, transport_factory=stage.tls.make_transport
    )
    Connector(
        stage.reactor,
        witness,
        listener.addresses[0],
        failures.append,
        transport_factory=partial(
            TLSTransport, context=client_context(AUTHORITY), server_hostname="127.0.0.1"
        ),
    )
    run_until(stage.reactor, lambda: witness.names or failures)
    assert not failures
    data = random.Random(2).randbytes(200 * KIB)
    witness.transport.write(data)
    run_until(stage.reactor, lambda: len(witness.received) == len(data))
    assert witness.received == data
    witness.transport.close()
    run_until(stage.reactor, lambda: echo.is_lost)
    assert echo.losses == witness.losses == [None]


@with_both_versions
def test_random_writes_through_a_tiny_buffer_arrive_once_and_in_order(
    stage: TLSStage, version: ssl.TLSVersion
) -> None:
    randomly = random.Random(3)
    witness = Witness()
    transport, peer = opened(stage, witness, context=trusting_context(version), send_buffer=1)
    expected = bytearray()
    for _ in range(150):
        for _ in range(randomly.randrange(4)):
            size = randomly.choice([0, 1, 10, 1000, 5000, 16 * KIB, 20_000, 65_000, 70_000])
            data = randomly.randbytes(size)
            expected += data
            transport.write(data)
        stage.reactor.run_once(0)
        peer.pump(randomly.choice([1, 100, 5000, 50_000]))
    assert not witness.is_lost
    stage.settle()
    assert peer.received == expected
    assert transport.get_write_buffer_size() == 0


def test_a_burst_of_records_is_delivered_without_further_input(stage: TLSStage) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    data = random.Random(4).randbytes(64 * KIB)
    for start in range(0, len(data), 1000):
        peer.write(data[start : start + 1000])
    peer.pump()
    stage.settle_alone()
    assert witness.received == data


def test_full_records_are_read_in_one_turn_but_no_more_than_a_plain_socket_would(
    stage: TLSStage,
) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    stage.reactor.receive_buffer = stage.reactor.receive_buffer[: 64 * KIB]
    peer.write(bytes(128 * KIB))
    peer.pump()
    stage.reactor.run_once(0)
    assert len(witness.received) == 64 * KIB
    stage.reactor.run_once(0)
    assert len(witness.received) == 128 * KIB


def test_records_that_have_come_are_handed_on_together(stage: TLSStage) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    peer.write(bytes(64 * KIB + 5))
    peer.pump()
    stage.settle_alone()
    sizes = [len(event[1]) for event in witness.events if event[0] == "data"]
    assert sizes == [64 * KIB + 5]


@pytest.mark.parametrize("is_resumed", [True, False])
def test_the_end_behind_what_made_the_protocol_pause_is_told_when_it_goes_on(
    stage: TLSStage, is_resumed: bool
) -> None:
    witness = Witness(data=lambda data: transport.pause_reading())
    transport, peer = opened(stage, witness)
    peer.write(bytes(16 * KIB))
    peer.end()
    peer.pump()
    stage.settle_alone()
    assert [event[0] for event in witness.events] == ["made", "data"]
    if is_resumed:
        transport.resume_reading()
        stage.settle_alone()
        assert [event[0] for event in witness.events] == ["made", "data", "eof", "lost"]


def test_what_came_before_the_stream_broke_is_handed_on_first(stage: TLSStage) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    peer.write(bytes(16 * KIB))
    peer.pump()
    peer.sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))  # a record that nobody has encrypted
    stage.settle_alone()
    assert [event[0] for event in witness.events] == ["made", "data", "lost"]
    assert len(witness.received) == 16 * KIB
    assert isinstance(witness.events[-1][1], ssl.SSLError)


def test_what_was_decrypted_but_did_not_fit_is_delivered_without_further_input(
    stage: TLSStage,
) -> None:
    stage.reactor.receive_buffer = stage.reactor.receive_buffer[:1000]
    witness = Witness()
    _, peer = opened(stage, witness)
    data = random.Random(5).randbytes(40_500)
    peer.write(data)
    peer.pump()
    stage.settle_alone()
    assert witness.received == data


def test_paused_in_the_middle_of_a_record_reading_goes_on_where_it_stopped(
    stage: TLSStage,
) -> None:
    def pause(data: memoryview) -> None:
        transport.pause_reading()

    stage.reactor.receive_buffer = stage.reactor.receive_buffer[:1000]
    witness = Witness(data=pause)
    transport, peer = opened(stage, witness)
    data = random.Random(6).randbytes(5500)
    peer.write(data)
    peer.pump()
    for turns in range(1, 7):
        stage.settle_alone()
        assert len(witness.received) == min(1000 * turns, 5500)
        transport.resume_reading()
    assert witness.received == data


def test_paused_reading_delivers_nothing_until_it_is_resumed(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.pause_reading()
    peer.write(bytes(64 * KIB))
    peer.pump()
    stage.settle_alone()
    assert witness.received == b""
    transport.resume_reading()
    stage.settle_alone()
    assert len(witness.received) == 64 * KIB


def test_reading_resumed_and_paused_again_at_once_delivers_nothing(stage: TLSStage) -> None:
    def pause(data: memoryview) -> None:
        transport.pause_reading()

    stage.reactor.receive_buffer = stage.reactor.receive_buffer[:1000]
    witness = Witness(data=pause)
    transport, peer = opened(stage, witness)
    peer.write(bytes(2000))
    peer.pump()
    stage.settle_alone()
    transport.resume_reading()
    transport.pause_reading()
    stage.settle_alone()
    assert len(witness.received) == 1000


def test_reading_resumed_on_a_transport_that_is_closed_then_does_nothing(stage: TLSStage) -> None:
    stage.reactor.receive_buffer = stage.reactor.receive_buffer[:1000]
    witness = Witness(data=lambda data: transport.pause_reading())
    transport, peer = opened(stage, witness)
    peer.write(bytes(2000))
    peer.pump()
    stage.settle_alone()
    transport.resume_reading()
    transport.abort()
    transport.resume_reading()
    stage.settle_alone()
    assert len(witness.received) == 1000
    assert witness.losses == [None]


# --- writing -------------------------------------------------------------------------------------


def test_small_writes_share_a_record(stage: TLSStage) -> None:
    transport, peer = opened(stage, Witness())
    for _ in range(100):
        transport.write(b"x" * 10)
    stage.settle_alone()
    assert len(peer.sock.recv(MIB)) < 1100


def test_writing_nothing_is_allowed(stage: TLSStage) -> None:
    """SSL_write(0) is undefined, and Python 3.9 takes it for the end of the stream."""
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.write(b"")
    stage.settle()
    transport.writelines([b"", b"a", b"", bytes(100 * KIB), b""])
    stage.settle()
    assert witness.names == ["made"]
    assert peer.received == b"a" + bytes(100 * KIB)


def test_what_is_written_before_the_handshake_is_over_waits_for_it(stage: TLSStage) -> None:
    def write(transport: Transport) -> None:
        transport.write(b"early")

    witness = Witness(made=write)
    transport, peer = stage.server(witness)
    stage.settle_alone()
    assert transport.get_write_buffer_size() == 5
    assert stage.is_quiet()
    stage.settle()
    assert peer.received == b"early"
    assert transport.get_write_buffer_size() == 0


def test_too_much_written_before_the_handshake_is_over_pauses_the_writer(stage: TLSStage) -> None:
    witness = Witness(made=lambda transport: transport.write(bytes(100 * KIB)))
    _, peer = stage.client(witness)
    assert witness.names == ["made", "pause"]
    stage.settle()
    assert witness.names == ["made", "pause", "resume"]
    assert len(peer.received) == 100 * KIB


def test_a_slow_reader_pauses_the_writer_and_resumes_it(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness, send_buffer=16 * KIB)
    data = random.Random(7).randbytes(MIB)
    transport.write(data)
    stage.settle_alone()
    assert witness.names == ["made", "pause"]
    assert transport.get_write_buffer_size() > MIB // 2
    assert transport.interest == READ | WRITE
    stage.settle()
    assert witness.names == ["made", "pause", "resume"]
    assert peer.received == data
    assert transport.interest == READ


def test_a_fast_reader_does_not_keep_others_waiting(stage: TLSStage) -> None:
    """More than the budget for one turn is sent in several, whatever the socket would take."""
    transport, _ = opened(stage, Witness(), send_buffer=4 * MIB)
    transport.write(bytes(600 * KIB))
    assert transport.get_write_buffer_size() >= 344 * KIB


def test_a_peer_that_has_gone_is_noticed_when_writing(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.pause_reading()
    peer.close()
    transport.write(b"x")
    stage.settle_alone()
    assert isinstance(witness.losses[0], OSError)
    assert witness.names == ["made", "lost"]


def test_there_is_no_half_close(stage: TLSStage) -> None:
    transport, _ = opened(stage, Witness())
    with pytest.raises(NotImplementedError, match="use close"):
        transport.write_eof()
    assert not transport.is_closing()


# --- one direction waits for the other (H95) -----------------------------------------------------


def test_reading_may_wait_until_the_socket_is_writable_and_does_not_spin(stage: TLSStage) -> None:
    witness = Witness()
    tls = moody_tls(recv_into=[ssl.SSLWantReadError(), ssl.SSLWantWriteError()])
    transport, peer = opened(stage, witness, tls=tls)
    transport.write(bytes(MIB))
    stage.settle_alone()
    peer.write(b"hello")
    peer.send()
    stage.reactor.run_once(0)
    assert transport.interest == READ | WRITE
    stage.reactor.run_once(0)
    assert transport.interest == WRITE
    assert stage.is_quiet()
    stage.settle()
    assert witness.received == b"hello"
    assert len(peer.received) == MIB
    assert transport.interest == READ


def test_writing_may_wait_until_the_socket_is_readable_and_does_not_spin(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness, tls=moody_tls(send=[ssl.SSLWantReadError()]))
    transport.write(b"answer")
    stage.settle()
    assert peer.received == b""
    assert transport.interest == READ
    peer.write(b"hello")
    stage.settle()
    assert witness.received == b"hello"
    assert peer.received == b"answer"
    assert transport.interest == READ


def test_writing_that_waits_for_input_delivers_none_while_reading_is_paused(
    stage: TLSStage,
) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness, tls=moody_tls(send=[ssl.SSLWantReadError()]))
    transport.pause_reading()
    transport.write(b"answer")
    stage.settle()
    assert transport.interest == READ
    peer.write(b"hello")
    stage.settle()
    assert peer.received == b"answer"
    assert witness.received == b""
    assert transport.interest == 0
    transport.resume_reading()
    stage.settle()
    assert witness.received == b"hello"


def test_reading_that_waits_to_send_stays_paused(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness, tls=moody_tls(recv_into=[ssl.SSLWantWriteError()]))
    peer.write(b"hello")
    peer.pump()
    stage.reactor.run_once(0)
    assert transport.interest == WRITE
    transport.pause_reading()
    transport.write(b"answer")
    stage.settle()
    assert peer.received == b"answer"
    assert witness.received == b""
    transport.resume_reading()
    stage.settle()
    assert witness.received == b"hello"


def test_the_handshake_may_wait_until_the_socket_is_writable(stage: TLSStage) -> None:
    tls = moody_tls(do_handshake=[ssl.SSLWantWriteError()])
    transport, peer = stage.server(Witness(), tls)
    peer.pump()
    stage.reactor.run_once(0)
    assert transport.interest == WRITE
    stage.settle()
    assert peer.is_ready
    assert transport.interest == READ


def test_a_handshake_through_a_tiny_buffer_succeeds(stage: TLSStage) -> None:
    _, peer = stage.server(Witness(), send_buffer=1)
    for _ in range(5000):
        stage.reactor.run_once(0)
        peer.pump(7)
        if peer.is_ready:
            break
    assert peer.is_ready


# --- stalls and nonsense in the handshake (H93, H14) ---------------------------------------------


class Patient(Witness):
    """Wait ten seconds at the most."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = reactor

    def connection_made(self, transport: Transport) -> None:
        super().connection_made(transport)
        self._reactor.call_later(10, transport.abort)


def client_hello(stage: TLSStage) -> bytes:
    _, peer = stage.server(Witness())
    return peer.encrypted()


def test_clients_that_stall_hold_up_nobody_and_are_ended_at_a_deadline(stage: TLSStage) -> None:
    hello = client_hello(stage)
    patients = [Patient(stage.reactor) for _ in range(50)]
    ends = [stage.accept(patient)[1] for patient in patients]
    for number, end in enumerate(ends):
        # After connecting; after a byte; after half a ClientHello; after all of it.
        end.send(hello[: (0, 1, len(hello) // 2, len(hello))[number % 4]])
    echo = Echo()
    _, peer = opened(stage, echo)
    peer.write(b"hello")
    stage.settle()
    assert peer.received == b"hello"
    assert all(patient.names == ["made"] for patient in patients)
    stage.pass_time(11)
    assert all(patient.losses == [None] for patient in patients)
    for end in ends:
        while end.recv(MIB):
            pass
    assert not echo.is_lost


def test_a_handshake_that_comes_byte_by_byte_succeeds(stage: TLSStage) -> None:
    echo = Echo()
    _, theirs = stage.accept(echo)
    peer = stage.peer(theirs)
    while not peer.is_ready:
        for byte in peer.encrypted():
            theirs.send(bytes([byte]))
            stage.reactor.run_once(0)
        peer.receive()
        peer.step()
    peer.write(b"hello")
    stage.settle()
    assert peer.received == b"hello"


NONSENSE = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n",
    "an HTTP proxy's request": b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    "zeros": bytes(100),
    "the hello of SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "the hello of SSL 3": b"\x16\x03\x00\x00\x2f\x01\x00\x00\x2b\x03\x00" + bytes(41),
    "a record of no such type": b"\xff\x03\x03\x00\x05hello",
    "application data": b"\x17\x03\x03\x00\x05hello",
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "a record that is too long": b"\x16\x03\x01\xff\xff\x01" + bytes(100),
    "random bytes": random.Random(8).randbytes(1000),
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_whoever_does_not_speak_tls_is_dropped_without_a_word_in_the_log(
    stage: TLSStage, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    witness = Witness()
    _, theirs = stage.accept(witness)
    theirs.send(nonsense)
    stage.settle_alone()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ssl.SSLError)
    assert caplog.records == []


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_client_that_leaves_in_the_handshake_is_an_error_and_not_logged(
    stage: TLSStage, share: float
) -> None:
    hello = client_hello(stage)
    witness = Witness()
    _, theirs = stage.accept(witness)
    theirs.send(hello[: int(share * len(hello))])
    theirs.shutdown(socket.SHUT_WR)
    stage.settle_alone()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], OSError)


def test_a_client_that_is_gone_before_it_is_accepted_is_an_error_and_not_logged(
    stage: TLSStage,
) -> None:
    witness = Witness()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    with socket.create_connection(listening.getsockname()) as theirs:
        theirs.send(b"GET / HTTP/1.1\r\n\r\n")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    Listener(
        stage.reactor, [listening], lambda: witness, transport_factory=stage.tls.make_transport
    )
    run_until(stage.reactor, lambda: witness.is_lost)
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], OSError)


@pytest.mark.parametrize("name", ["", "a" * 64 + ".example.com"])
def test_a_name_that_no_host_can_have_is_an_error(stage: TLSStage, name: str) -> None:
    witness = Witness()
    _, peer = stage.client(witness, server_hostname=name)
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ValueError)
    assert peer.received == b""


def test_garbage_after_the_handshake_breaks_the_stream(stage: TLSStage) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    peer.sock.send(b"GET / HTTP/1.1\r\n\r\n")
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ssl.SSLError)


# --- a protocol that raises ----------------------------------------------------------------------


def test_a_protocol_whose_connection_made_raises_loses_its_stream_only(
    stage: TLSStage, logged: list[logging.LogRecord]
) -> None:
    witness = Witness(made=raise_boom)
    _, peer = stage.server(witness)
    stage.settle()
    assert isinstance(witness.losses[0], ValueError)
    assert not peer.is_ready
    assert len(logged) == 1


def test_a_protocol_whose_data_received_raises_loses_its_stream_only(
    stage: TLSStage, logged: list[logging.LogRecord]
) -> None:
    other, witness = Echo(), Witness(data=raise_boom)
    _, other_peer = opened(stage, other)
    _, peer = opened(stage, witness)
    peer.write(bytes(100 * KIB))
    other_peer.write(b"hello")
    stage.settle()
    assert witness.names == ["made", "data", "lost"]
    assert isinstance(witness.losses[0], ValueError)
    assert not peer.has_clean_end
    assert other_peer.received == b"hello"
    assert len(logged) == 1


def test_a_protocol_that_raises_for_input_that_waited_loses_its_stream(
    stage: TLSStage, logged: list[logging.LogRecord]
) -> None:
    def pause_then_raise(data: memoryview) -> None:
        if not transport.is_reading() or len(witness.received) > 1000:
            raise_boom()
        transport.pause_reading()

    stage.reactor.receive_buffer = stage.reactor.receive_buffer[:1000]
    witness = Witness(data=pause_then_raise)
    transport, peer = opened(stage, witness)
    peer.write(bytes(2000))
    peer.pump()
    stage.settle_alone()
    transport.resume_reading()
    stage.settle()
    assert witness.names == ["made", "data", "data", "lost"]
    assert isinstance(witness.losses[0], ValueError)
    assert len(logged) == 1


# --- ends (H96) ----------------------------------------------------------------------------------


def test_close_sends_what_was_written_and_says_that_it_was_all(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.write(bytes(MIB))
    transport.close()
    stage.settle()
    assert len(peer.received) == MIB
    assert peer.has_clean_end
    assert witness.losses == [None]


def test_close_never_waits_for_a_silent_peer(stage: TLSStage) -> None:
    witness = Witness()
    transport, _ = opened(stage, witness)
    transport.close()
    stage.settle_alone()
    assert witness.losses == [None]


def test_close_before_the_handshake_is_over_waits_for_what_was_written_only(
    stage: TLSStage,
) -> None:
    def write_and_close(transport: Transport) -> None:
        transport.write(b"goodbye")
        transport.close()

    silent = Witness(made=lambda transport: transport.close())
    stage.server(silent)
    stage.settle_alone()
    assert silent.losses == [None]
    talking = Witness(made=write_and_close)
    _, peer = stage.server(talking)
    stage.settle()
    assert peer.received == b"goodbye"
    assert peer.has_clean_end
    assert talking.losses == [None]


def test_an_end_with_bytes_unsent_does_not_look_like_an_end(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness, send_buffer=16 * KIB)
    transport.write(bytes(MIB))
    stage.settle_alone()
    transport.abort()
    stage.settle()
    assert witness.names[-1] == "lost"
    assert witness.losses == [None]
    assert peer.has_eof
    assert not peer.has_clean_end
    assert isinstance(peer.error, ssl.SSLError)


def test_closing_twice_and_aborting_after_it_does_nothing(stage: TLSStage) -> None:
    witness = Witness()
    transport, _ = opened(stage, witness)
    transport.close()
    transport.close()
    transport.abort()
    stage.settle()
    assert witness.names == ["made", "lost"]


@pytest.mark.parametrize("is_clean", [True, False])
def test_the_peers_end_is_an_end_with_or_without_close_notify(
    stage: TLSStage, is_clean: bool
) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    peer.write(b"last words")
    if is_clean:
        peer.end()
    peer.pump()
    peer.sock.shutdown(socket.SHUT_WR)
    stage.settle()
    assert witness.received == b"last words"
    assert witness.names == ["made", "data", "eof", "lost"]
    assert witness.losses == [None]


def test_close_notify_is_an_end_though_the_socket_stays_open(stage: TLSStage) -> None:
    witness = Witness()
    _, peer = opened(stage, witness)
    peer.write(bytes(16 * KIB))
    peer.end()
    stage.settle()
    assert witness.names == ["made", "data", "eof", "lost"]
    assert witness.losses == [None]


@with_both_versions
@pytest.mark.parametrize("is_clean", [True, False])
def test_after_the_peers_end_what_was_written_is_still_sent(
    stage: TLSStage, is_clean: bool, version: ssl.TLSVersion
) -> None:
    witness = Witness(eof=lambda: True)
    transport, peer = opened(stage, witness, context=trusting_context(version))
    if is_clean:
        peer.end()
    peer.pump()
    peer.sock.shutdown(socket.SHUT_WR)
    stage.settle()
    assert witness.names == ["made", "eof"]
    transport.write(bytes(MIB))
    transport.close()
    stage.settle()
    assert len(peer.received) == MIB
    assert witness.losses == [None]


def test_a_reset_ends_the_stream(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.write(b"unread")
    stage.settle_alone()
    peer.close()  # with unread input: a reset
    stage.settle_alone()
    # Some releases, 3.11.7 for one, lose the error number and make it an end of stream.
    if witness.names != ["made", "eof", "lost"]:
        assert witness.names == ["made", "lost"]
        assert isinstance(witness.losses[0], ConnectionResetError)


def test_lingering_lets_a_peer_that_keeps_sending_read_what_was_written(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.write(b"go away")
    transport.linger(5, MIB)
    for _ in range(3):
        peer.write(bytes(100 * KIB))
        stage.settle()
    assert peer.received == b"go away"
    assert peer.has_clean_end
    assert not witness.is_lost
    peer.sock.shutdown(socket.SHUT_WR)
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert witness.losses == [None]


def test_lingering_ends_at_its_timeout(stage: TLSStage) -> None:
    witness = Witness()
    transport, _ = opened(stage, witness)
    transport.linger(5, MIB)
    stage.pass_time(4)
    assert not witness.is_lost
    stage.pass_time(2)
    assert witness.losses == [None]


def test_lingering_ends_at_its_size(stage: TLSStage) -> None:
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.linger(5, 50 * KIB)
    peer.write(bytes(100 * KIB))
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert witness.losses == [None]


def test_lingering_does_not_spin(stage: TLSStage) -> None:
    """After close_notify the socket is a plain one, whose "would block" is another error."""
    witness = Witness()
    transport, peer = opened(stage, witness)
    transport.linger(5, MIB)
    peer.sock.send(bytes(16 * KIB))  # as much as a full record, which is seldom the last
    stage.settle()
    assert not witness.is_lost
    assert stage.is_quiet()


def test_lingering_begins_when_the_handshake_is_over(stage: TLSStage) -> None:
    witness = Witness(made=lambda transport: transport.linger(5, MIB))
    _, peer = stage.server(witness)
    stage.settle()
    assert peer.is_ready
    assert peer.has_clean_end
    assert not witness.is_lost
    stage.pass_time(6)
    assert witness.losses == [None]


def test_a_refusal_written_before_the_handshake_is_over_is_read_by_the_peer(
    stage: TLSStage,
) -> None:
    def refuse(transport: Transport) -> None:
        transport.write(b"come back later")
        transport.linger(5, MIB)

    witness = Witness(made=refuse)
    _, peer = stage.server(witness)
    peer.pump()
    stage.settle()
    peer.write(bytes(100 * KIB))
    stage.settle()
    assert peer.received == b"come back later"
    assert peer.has_clean_end
    peer.sock.shutdown(socket.SHUT_WR)
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert witness.losses == [None]


def test_lingering_in_a_handshake_that_stalls_ends_at_its_timeout(stage: TLSStage) -> None:
    witness = Witness(made=lambda transport: transport.linger(5, MIB))
    stage.accept(witness)
    stage.pass_time(6)
    assert witness.losses == [None]


def test_closing_the_reactor_ends_every_stream(stage: TLSStage) -> None:
    witness, shaking = Witness(), Witness()
    _, peer = opened(stage, witness)
    stage.accept(shaking)
    stage.reactor.close()
    peer.pump()
    assert witness.losses == shaking.losses == [None]
    assert peer.has_clean_end


# --- asking --------------------------------------------------------------------------------------


def test_get_extra_info_knows_the_tls_object_and_the_peers_certificate(stage: TLSStage) -> None:
    def ask(transport: Transport) -> None:
        early.append(transport.get_extra_info("ssl_object", "none"))
        early.append(transport.get_extra_info("peercert", "none"))

    early: list[Any] = []
    transport, _ = stage.client(Witness(made=ask))
    assert early == ["none", "none"]
    assert transport.get_extra_info("peercert", "none") == "none"
    stage.settle()
    tls = transport.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLSocket)
    assert tls.version() == "TLSv1.3"
    assert (("commonName", "server"),) in transport.get_extra_info("peercert")["subject"]
    assert transport.get_extra_info("socket") is tls
    assert transport.get_extra_info("nonsense", "none") == "none"
    transport.abort()
    assert transport.get_extra_info("peercert", "none") == "none"


def test_get_extra_info_knows_the_peers_address(stage: TLSStage) -> None:
    transport, _ = stage.accept(Witness())
    assert transport.get_extra_info("peername") == "the peer"


def test_its_picture_names_it(stage: TLSStage) -> None:
    transport, _ = stage.accept(Witness())
    assert repr(transport).startswith("<TLSTransport open to 'the peer' for ")
