"""Hand out the functions of the reactor's C accelerator, where it is in use.

It is decided here, once, when this is first imported: see ``websocket.speedups``, which tells
how it is built and switched off. Without it the methods of the sockets do the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Callable

    Octets = Union[bytes, bytearray, memoryview]

receive: Callable[[int, Octets], int] | None = None
"""Like ``socket.recv_into``, for the number of a non-blocking socket's descriptor."""

send: Callable[[int, Octets], int] | None = None
"""Like ``socket.send``, for the number of a non-blocking socket's descriptor."""

if os.environ.get("REACTOR_WEBSOCKET_PURE") != "1":
    try:
        import reactor._speedups as accelerator
    except ImportError:
        pass  # not built, or not for this Python or system
    else:
        receive = accelerator.receive
        send = accelerator.send
