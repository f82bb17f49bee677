"""A single-threaded reactor over ``selectors``, with a timer wheel.

Reading order for a newcomer: ``event_handler`` (what is dispatched to), ``wheel`` (time),
``loop`` (the turn of the loop), ``protocol`` and ``transport`` (bytes), then ``listener`` and
``connector`` (where connections come from). Nothing here knows what a WebSocket is.

``reactor.tls`` is not imported here, so that programs without TLS do not load OpenSSL.
"""

from __future__ import annotations

from reactor.connector import Connector
from reactor.errors import (
    ConnectFailed,
    ReactorClosed,
    ReactorError,
    ReactorForked,
    ReactorRunning,
)
from reactor.event_handler import READ, WRITE, EventHandler
from reactor.lag import LagSnapshot
from reactor.listener import AcceptCounts, Listener
from reactor.loop import Reactor
from reactor.protocol import Protocol
from reactor.sockets import open_tcp_sockets, open_unix_socket, send_at_once
from reactor.transport import Transport
from reactor.wheel import Timer, TimerWheel

__all__ = [
    "READ",
    "WRITE",
    "AcceptCounts",
    "ConnectFailed",
    "Connector",
    "EventHandler",
    "LagSnapshot",
    "Listener",
    "Protocol",
    "Reactor",
    "ReactorClosed",
    "ReactorError",
    "ReactorForked",
    "ReactorRunning",
    "Timer",
    "TimerWheel",
    "Transport",
    "open_tcp_sockets",
    "open_unix_socket",
    "send_at_once",
]
