"""The reactor's accelerator: the same as the methods of sockets, by number of descriptor."""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Union

import pytest

from reactor import speedups

Octets = Union[bytes, bytearray, memoryview]
Receive = Callable[[socket.socket, Octets], int]

IS_EXPECTED = (
    os.environ.get("REACTOR_WEBSOCKET_REQUIRE_SPEEDUPS") == "1"
    and os.environ.get("REACTOR_WEBSOCKET_PURE") != "1"
    and platform.python_implementation() == "CPython"
    and sys.platform != "win32"
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def receive(sock: socket.socket, buffer: Octets) -> int:
    assert speedups.receive is not None
    return speedups.receive(sock.fileno(), buffer)


def send(sock: socket.socket, data: Octets) -> int:
    assert speedups.send is not None
    return speedups.send(sock.fileno(), data)


both_receive = pytest.mark.parametrize(
    "receive_into", [pytest.param(receive, id="direct"), pytest.param(socket.socket.recv_into)]
)
both_send = pytest.mark.parametrize(
    "send_some", [pytest.param(send, id="direct"), pytest.param(socket.socket.send)]
)


@pytest.fixture(autouse=True)
def accelerator() -> None:
    if speedups.receive is None:
        assert not IS_EXPECTED
        pytest.skip("the accelerator is not in use")


@both_receive
def test_bytes_arrive_in_the_buffer(
    receive_into: Receive, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    theirs.send(b"hello")
    buffer = bytearray(8)
    assert receive_into(ours, memoryview(buffer)[1:4]) == 3
    assert buffer == b"\0hel\0\0\0\0"
    assert receive_into(ours, buffer) == 2
    theirs.close()
    assert receive_into(ours, buffer) == 0


@both_receive
def test_nothing_there_would_block(
    receive_into: Receive, pair: tuple[socket.socket, socket.socket]
) -> None:
    with pytest.raises(BlockingIOError):
        receive_into(pair[0], bytearray(8))


@both_receive
def test_only_what_can_be_written_is_received_into(
    receive_into: Receive, pair: tuple[socket.socket, socket.socket]
) -> None:
    with pytest.raises((TypeError, BufferError)):
        receive_into(pair[0], b"constant")


@both_send
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_leave(
    send_some: Receive, kind: type[Octets], pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    assert send_some(ours, kind(b"hello")) == 5
    assert theirs.recv(10) == b"hello"


@both_send
def test_a_full_socket_takes_a_part_and_then_would_block(
    send_some: Receive, pair: tuple[socket.socket, socket.socket]
) -> None:
    data = bytes(10_000_000)
    assert 0 < send_some(pair[0], data) < len(data)
    with pytest.raises(BlockingIOError):
        send_some(pair[0], data)


@both_send
def test_a_peer_that_is_gone_is_an_error_and_no_signal(
    send_some: Receive, pair: tuple[socket.socket, socket.socket]
) -> None:
    pair[1].close()
    with pytest.raises(BrokenPipeError):
        send_some(pair[0], b"x")


@pytest.mark.parametrize("fd", [-1, 1 << 40])
def test_what_is_no_descriptor_is_refused(fd: int) -> None:
    assert speedups.receive is not None
    assert speedups.send is not None
    with pytest.raises((ValueError, OverflowError)):
        speedups.receive(fd, bytearray(1))
    with pytest.raises((ValueError, OverflowError)):
        speedups.send(fd, b"x")


def test_a_closed_descriptor_is_an_error() -> None:
    assert speedups.receive is not None
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        speedups.receive(reader, bytearray(1))
