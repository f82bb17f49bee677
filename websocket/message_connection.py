"""Connections that speak the binary envelope, and those made from a plain function.

    on_message(bytes) ── decode ──┬── ping        answered with a pong, same timestamp
                                  ├── disconnect  on_envelope, then the closing handshake
                                  ├── any other   on_envelope
                                  └── bad         answered with an error envelope

A text message on such a connection is no envelope at all: it is closed with code 1003.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Union

from websocket.causes import Cause
from websocket.connection import Connection
from websocket.errors import EnvelopeError
from websocket.message import SUBPROTOCOL, Message, MessageOpcode
from websocket.opcodes import CloseCode

GAP = 1
"""The code of the error envelope that tells of a gap; those of bad envelopes are negative."""

Handler = Callable[[Connection, Union[Message, str, bytes]], object]


class MessageConnection(Connection):
    """Exchange envelopes with one peer; subclass it and override ``on_envelope``."""

    __slots__ = ()

    subprotocols = (SUBPROTOCOL,)

    def on_envelope(self, message: Message) -> None:
        """Handle an envelope; pings are answered already and do not come here."""

    def send_envelope(self, message: Message) -> bool:
        """Send an envelope; see ``send``."""
        return self.send(message.encode())

    def on_gap(self, dropped: int) -> None:
        """Send an error envelope with code 1 and ``{"dropped": 3}`` as details."""
        details = {"dropped": dropped}
        self.send_envelope(
            Message.error(GAP, "messages were dropped", details, timestamp=time.time_ns())
        )

    def on_message(self, message: str | bytes) -> None:
        """Read an envelope and answer what the protocol answers by itself."""
        if isinstance(message, str):
            self.end(Cause.PROTOCOL_ERROR, CloseCode.UNSUPPORTED_DATA, "envelopes are binary")
            return
        try:
            envelope = Message.decode(message)
        except EnvelopeError as error:
            self.send_envelope(Message.error(error.code, error.message, timestamp=time.time_ns()))
            return
        if envelope.opcode is MessageOpcode.PING:
            self.send_envelope(Message.pong_for(envelope))
            return
        self.on_envelope(envelope)
        if envelope.opcode is MessageOpcode.DISCONNECT:
            self.close()


class _FunctionConnection(MessageConnection):
    """Hand what arrives to a function; see ``handler_class``."""

    __slots__ = ()

    handler: Handler

    def on_gap(self, dropped: int) -> None:
        if self.subprotocol == SUBPROTOCOL:
            super().on_gap(dropped)
        else:
            Connection.on_gap(self, dropped)

    def on_message(self, message: str | bytes) -> None:
        if self.subprotocol == SUBPROTOCOL:
            super().on_message(message)
        else:
            type(self).handler(self, message)

    def on_envelope(self, message: Message) -> None:
        type(self).handler(self, message)


def handler_class(handler: Handler) -> type[Connection]:
    """Return a connection class that calls a function for each message.

    Args:
        handler: called with the connection and what arrived: a ``Message`` where the client
            asked for the subprotocol ``webos``, else ``str`` or ``bytes``.
    """
    name = getattr(handler, "__name__", "handler")
    return type(name, (_FunctionConnection,), {"__slots__": (), "handler": staticmethod(handler)})
