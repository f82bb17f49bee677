"""The wake-up descriptor: no wake-up is ever lost, and none of them ever blocks."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator

import pytest

from reactor.event_handler import READ
from reactor.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.abort()


def ends_a_wait(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_a_new_one_ends_no_wait(wakeup: Wakeup) -> None:
    assert not ends_a_wait(wakeup)


def test_a_wake_up_ends_the_wait_until_it_is_handled(wakeup: Wakeup) -> None:
    wakeup.wake()
    assert ends_a_wait(wakeup)
    wakeup.on_ready(READ)
    assert not ends_a_wait(wakeup)


def test_it_wakes_again_after_it_was_handled(wakeup: Wakeup) -> None:
    for _ in range(3):
        wakeup.wake()
        assert ends_a_wait(wakeup)
        wakeup.on_ready(READ)


def test_at_most_one_byte_is_under_way_however_often_it_is_called(wakeup: Wakeup) -> None:
    for _ in range(1000):
        wakeup.wake()
    assert wakeup._receiver.recv(4096) == b"\0"


def test_a_wake_up_that_comes_while_another_is_handled_does_not_silence_later_ones(
    wakeup: Wakeup,
) -> None:
    """Its byte may be taken off together with the first; the flag must not stay up then."""

    class WokenMeanwhile:
        """A receiver that is read at the worst moment: when another thread has just called."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def recv(self, size: int) -> bytes:
            wakeup.wake()
            return self._sock.recv(size)

        def close(self) -> None:
            self._sock.close()

        def fileno(self) -> int:
            return self._sock.fileno()

    wakeup._receiver = WokenMeanwhile(wakeup._receiver)  # type: ignore[assignment]  # stands in
    wakeup.wake()
    wakeup.on_ready(READ)
    wakeup.wake()
    assert ends_a_wait(wakeup)


def test_everything_that_signals_wrote_is_taken_off_at_once(wakeup: Wakeup) -> None:
    numbers = bytes(5000)
    assert wakeup._sender.send(numbers) == len(numbers)
    wakeup.on_ready(READ)
    assert not ends_a_wait(wakeup)


def test_taking_off_exactly_one_chunk_does_not_block_or_raise(wakeup: Wakeup) -> None:
    assert wakeup._sender.send(bytes(4096)) == 4096
    wakeup.on_ready(READ)
    assert not ends_a_wait(wakeup)


def test_a_descriptor_full_of_signal_numbers_does_not_block_the_caller(wakeup: Wakeup) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            wakeup._sender.send(bytes(65_536))
    wakeup.wake()
    assert ends_a_wait(wakeup)


def test_waking_after_the_end_is_harmless(wakeup: Wakeup) -> None:
    wakeup.abort()
    wakeup.wake()
    assert (wakeup.fileno(), wakeup.sender_fileno()) == (-1, -1)


def test_a_failure_is_left_to_the_next_wake_up(wakeup: Wakeup) -> None:
    wakeup.on_failure(OSError())
    wakeup.wake()
    assert ends_a_wait(wakeup)
