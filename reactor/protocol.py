"""The byte-level base class: what a transport calls when something happens to its stream.

The names and the order of calls are those of ``asyncio.Protocol``::

    connection_made -> data_received* -> eof_received? -> connection_lost
                       pause_writing <-> resume_writing, unsent_changed*

``unsent_changed`` is our own, and one thing differs: ``data_received`` is handed a view of the
reactor's one receive buffer instead of a copy. The view is released when the method returns, so
that code which keeps it gets a clear ``ValueError`` later, never somebody else's bytes. (Slices of
it are views of their own, which nobody can release: they must not be kept either.)

Not for: messages. ``websocket.Connection`` is the class to subclass for those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactor.transport import Transport


class Protocol:
    """Receive the events of one stream; subclass it and override what you need.

    Every method is called in the reactor's thread and never re-entrantly for one stream; but
    ``pause_writing`` is called from within the ``write`` that was one too many.
    A method that raises ends its own stream (logged with traceback, then
    ``connection_lost`` with that exception) and nothing else.
    """

    __slots__ = ()

    def connection_made(self, transport: Transport) -> None:
        """Take the transport over; called once, before anything else."""

    def buffer_received(self, buffer: memoryview, size: int) -> None:
        """Handle the first bytes of a buffer: hand a view of them to ``data_received``.

        Only what handles many small reads gains by overriding this instead: a view costs more
        than a frame.

        Args:
            buffer: the reactor's receive buffer; read only, and nothing may keep it.
            size: how many of its bytes arrived, at least one.
        """
        data = buffer[:size]
        try:
            self.data_received(data)
        finally:
            # A view that somebody kept is dead from here on: better than silently other bytes.
            data.release()

    def data_received(self, data: memoryview) -> None:
        """Handle bytes from the peer.

        Args:
            data: the bytes that arrived, at least one. Valid until the method returns:
                copy what you keep (``bytes(data)``, or ``buffer += data``), slices too.
        """

    def eof_received(self) -> bool | None:
        """Handle the end of the peer's half of the stream; called at most once.

        Returns:
            True to keep our half open for writing; anything else closes the transport once
            what was written has been sent.
        """
        return None

    def connection_lost(self, error: Exception | None) -> None:
        """Clean up; called exactly once, last, and never from inside another call.

        Args:
            error: None after a regular end (``close``, ``abort`` or the peer's end of
                stream), else what broke the stream.
        """

    def pause_writing(self) -> None:
        """Stop producing: more than the high watermark waits to be sent."""

    def resume_writing(self) -> None:
        """Produce again: what waits to be sent has fallen to the low watermark."""

    def unsent_changed(self, size: int) -> None:
        """Take note of how much the socket has not taken: for whoever keeps books on memory.

        Called after an attempt to send that did not get rid of everything, each time some 8 KiB
        have been written since, and when everything has been sent at last. It may be called from
        within a ``write``.

        Args:
            size: bytes that wait to be sent; 0 when everything has been.
        """
