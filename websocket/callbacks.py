"""What a connection tells its user: the methods to override.

    on_open ── on_gap? ── on_message* on_ping* on_pong* on_drop* on_writable* ── on_error?
                                                                                └── on_close

Each runs in the reactor's thread. One that raises costs its own connection: the traceback is
logged, the peer gets close code 1011, and ``on_error`` is called with the exception. Where the
connection is about to end anyway, what a method raises is logged and nothing else.
"""

from __future__ import annotations

from reactor import Protocol


class Callbacks(Protocol):
    """Do nothing on every event; the base of ``Connection``."""

    __slots__ = ()

    def on_open(self) -> None:
        """Handle the completed opening handshake; messages may be sent from here on."""

    def on_gap(self, dropped: int) -> None:
        """Tell the peer that messages to its session are lost; those that were kept follow.

        Called right after ``on_open`` where ``Session.send`` had more to keep for an absent
        client than the limits allow, or the server was restarted meanwhile. A ``Connection``
        sends the text ``{"type":"gap","dropped":3}``, a ``MessageConnection`` an error envelope
        with code 1 and ``{"dropped":3}`` as details.

        Args:
            dropped: how many.
        """

    def on_message(self, message: str | bytes) -> None:
        """Handle a message: ``str`` for text, ``bytes`` for binary."""

    def on_ping(self, payload: bytes) -> None:
        """Handle a ping; the pong is sent without this method's doing."""

    def on_pong(self, payload: bytes) -> None:
        """Handle a pong, solicited or not."""

    def on_drop(self, dropped: int) -> None:
        """Handle the loss of messages to a peer that reads too slowly, see ``SlowConsumer``.

        Called when the peer has read on; what is sent here comes behind all that still waits.

        Args:
            dropped: how many since the last call.
        """

    def on_writable(self) -> None:
        """Handle the end of congestion: ``is_congested`` is False again."""

    def on_close(self, code: int, reason: str) -> None:
        """Clean up; called exactly once if ``on_open`` was, and last.

        Args:
            code: the close code of the side that ended the connection; 1005 when its close
                frame had none, 1006 when the stream ended without a close frame.
            reason: the reason of that side.
        """

    def on_error(self, error: Exception) -> None:
        """Handle what ends the connection out of order; ``on_close`` follows.

        Called at most once: for what ends a connection that is open, or for what keeps that of
        a client from being opened, and then ``on_close`` does not follow. Nothing can be sent
        any more.

        Args:
            error: a ``ProtocolError`` of the peer, an ``OSError`` of the stream, the exception
                of another ``on_`` method, or the ``HandshakeError`` or
                ``reactor.ConnectFailed`` because of which a client was not opened.
        """
