"""The errors that the reactor raises.

    ReactorError
    ├── ReactorClosed        a call that needs a living reactor came after close()
    │   └── ReactorForked    or in a child process, whose parent the reactor belongs to
    ├── ReactorRunning       run() or run_once() was called from inside a callback
    └── ConnectFailed        no address of a Connector could be reached

Errors of the operating system pass through unwrapped: code that knows what to do about
``ConnectionResetError`` should not have to learn a second name for it.
"""

from __future__ import annotations


class ReactorError(Exception):
    """Base of everything that the reactor itself raises."""


class ReactorClosed(ReactorError):
    """Report a call that needs a living reactor, made after ``Reactor.close``."""


class ReactorForked(ReactorClosed):
    """Report a call in a child process to a reactor that was made before the fork.

    Selector and sockets are shared with the parent: make a new reactor in the child.
    """


class ReactorRunning(ReactorError):
    """Report a turn of the loop that was asked for from inside a turn."""


class ConnectFailed(ReactorError):
    """Report that no address could be reached.

    Attributes:
        causes: one ``(address, OSError)`` pair for each address that was tried, in order.
    """

    def __init__(self, message: str, causes: tuple[tuple[object, OSError], ...] = ()) -> None:
        super().__init__(message)
        self.causes = causes
