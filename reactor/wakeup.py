"""The wake-up descriptor: how another thread, or a signal, ends the reactor's wait.

A connected pair of sockets rather than a pipe: ``select`` on Windows takes nothing else, and
``signal.set_wakeup_fd`` takes a socket everywhere.
"""

from __future__ import annotations

import socket

from reactor.event_handler import EventHandler


class Wakeup(EventHandler):
    """End the wait of a selector from anywhere.

    At most one byte is under way, however many threads call ``wake``.
    """

    __slots__ = ("_is_woken", "_receiver", "_sender")

    def __init__(self) -> None:
        super().__init__()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._is_woken = False

    def fileno(self) -> int:
        """Return the descriptor to watch for reading."""
        return self._receiver.fileno()

    def sender_fileno(self) -> int:
        """Return the descriptor that ``signal.set_wakeup_fd`` is to write to."""
        return self._sender.fileno()

    def wake(self) -> None:
        """End the present or the next wait. Safe in every thread and in signal handlers."""
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self._sender.send(b"\0")
        except BlockingIOError:
            pass  # full of signal numbers: then the wait ends anyway
        except OSError:
            # Closed: nobody waits. Out of memory: nothing is under way, the next call tries again.
            self._is_woken = False

    def on_ready(self, mask: int) -> None:
        """Take the bytes off the descriptor."""
        try:
            while len(self._receiver.recv(4096)) == 4096:
                pass
        except (BlockingIOError, InterruptedError):
            pass
        # The flag goes down after the bytes are taken, or the byte of a thread that came between
        # would be lost while its flag stays up, and before the reactor looks at its queue: a
        # thread that still saw the flag up had put its work into the queue before.
        self._is_woken = False

    def on_failure(self, error: Exception) -> None:
        """Do nothing: the next wake-up tries again."""

    def abort(self) -> None:
        """Close both ends."""
        self._receiver.close()
        self._sender.close()
