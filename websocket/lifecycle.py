"""How a connection begins and how it ends: states, closing handshake, causes.

    CONNECTING ──▶ OPEN ──▶ CLOSING ──▶ CLOSED
        └── refused, unreachable ─────────▲

How a connection can end:

    end     a closing handshake that we start; the peer has ``close_timeout`` to answer
    peer    a closing handshake that the peer starts; we answer with the same code
    fail    the peer broke a rule: a close frame says which, nothing further is handled, and
            input is discarded for a moment so that the frame is not lost to a reset
    cut     the peer is silent or does not read: a close frame for form's sake, then abort
    lost    the stream ended or broke without a closing handshake

``cause`` names the reason in each case; ``on_close`` is called once, last.

Not here: how long it waits for what (``heartbeat.py``), messages (``sender.py``, ``endpoint.py``),
and the opening handshake (``upgrade.py``, ``client.py``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from reactor import Reactor, Transport
from websocket import events
from websocket.callbacks import Callbacks
from websocket.causes import Cause
from websocket.deadlines import Deadlines
from websocket.errors import InvalidState, ProtocolError
from websocket.frame import FIN, build_close, parse_close
from websocket.frame_writer import FrameWriter
from websocket.http11 import Request
from websocket.limits import Limits
from websocket.opcodes import CLOSE, CloseCode
from websocket.plain_request import read_plain_request
from websocket.statistics import Statistics

if TYPE_CHECKING:
    from websocket.session import Session

_WRITERS = {is_client: FrameWriter(masks=is_client) for is_client in (False, True)}
_ids = itertools.count(1)
_ABNORMAL = int(CloseCode.ABNORMAL)


class State(IntEnum):
    """Name where a connection is in its life; the numbers are the browser's readyState."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


# Looked up once: an attribute of an enumeration costs as much as a call.
CONNECTING, OPEN, CLOSING, CLOSED = State
_ABORTED, _CLOSED_BY_PEER, _CLOSED_BY_US = Cause.ABORTED, Cause.CLOSED_BY_PEER, Cause.CLOSED_BY_US


class Lifecycle(Callbacks):
    """Lead one connection from its beginning to its end; the base of ``Heartbeat``.

    Reactor's thread only.

    Args:
        reactor: dispatches the transport.
        limits: the limits that the connection keeps.
        is_client: this end is the client.
        statistics: where traffic is counted; by default the connection counts for itself.
        on_end: called once with the connection when it is over, before ``on_error`` and
            ``on_close`` tell the user.

    Attributes:
        See ``Connection``, whose users have to do with them.
    """

    __slots__ = (
        "_close_code",
        "_close_reason",
        "_deadlines",
        "_is_deaf",
        "_on_end",
        "_request",
        "_statistics",
        "_transport",
        "_writer",
        "cause",
        "created_at",
        "error",
        "id",
        "is_clean",
        "is_client",
        "is_given_up",
        "limits",
        "opened_at",
        "reactor",
        "remote_address",
        "session",
        "session_id",
        "state",
        "subprotocol",
    )

    def __init__(
        self,
        reactor: Reactor,
        limits: Limits,
        is_client: bool = False,
        statistics: Statistics | None = None,
        on_end: Callable[[Lifecycle], object] | None = None,
    ) -> None:
        now = reactor.time
        self.reactor = reactor
        self.limits = limits
        self.is_client = is_client
        self._statistics = Statistics() if statistics is None else statistics
        self._on_end = on_end
        self._writer = _WRITERS[is_client]
        self._transport: Transport | None = None
        self._deadlines = Deadlines(limits, now, reactor.lost_since)
        # Nothing that the peer has sent or will send is handled any more.
        self._is_deaf = False
        self._close_code = _ABNORMAL
        self._close_reason = ""
        self.id = next(_ids)
        self.session: Session | None = None
        self.session_id: str | None = None
        # Its head alone where that is enough: to be read again if somebody asks for it.
        self._request: Request | bytes | None = None
        self.subprotocol: str | None = None
        self.remote_address: Any = None
        self.created_at = now
        self.opened_at: float | None = None
        self.state = CONNECTING
        self.cause: Cause | None = None
        self.error: Exception | None = None
        self.is_clean = False
        self.is_given_up = False

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id} {self.state.name.lower()} "
            f"peer={self.remote_address!r}>"
        )

    @property
    def request(self) -> Request | None:
        """The request that opened the connection."""
        request = self._request
        if isinstance(request, bytes):
            plain = read_plain_request(request, self.limits)
            assert plain is not None, "it was read before"
            request = self._request = plain[0]
            request.remote_address = self.remote_address
            request.compact()
        return request

    @property
    def last_message_at(self) -> float:
        """Return when the last message passed either way, on the reactor's clock."""
        return self._deadlines.message_at

    # --- beginning ----------------------------------------------------------------------------

    def open(
        self,
        transport: Transport,
        request: Request | bytes | None = None,
        subprotocol: str | None = None,
    ) -> None:
        """Take over a transport whose opening handshake is complete, and call ``on_open``.

        Args:
            transport: from here on it reports to this connection.
            request: what opened the connection; of a plain request the head is enough, a third of
                the size, if ``read_plain_request`` takes it under the limits of this connection.
            subprotocol: the one agreed on.

        Raises:
            InvalidState: it was opened or closed before.
        """
        if self.state is not CONNECTING:
            raise InvalidState(f"{self!r} has been opened before: make a new one")
        self._transport = transport
        self._request = request
        self.subprotocol = subprotocol
        self.remote_address = transport.get_extra_info("peername")
        self._deadlines.received_at = self._deadlines.message_at = self.reactor.time
        self.opened_at = self.reactor.time
        self.state = OPEN
        transport.set_write_buffer_limits(self.limits.write_soft_mark)
        transport.set_protocol(self)
        self._arm()
        events.opened(self)
        self._call_user(self.on_open)

    def refuse(self, error: Exception, cause: Cause) -> None:
        """Give up before the connection was opened: ``on_error``, and no ``on_close``."""
        if self.state is CONNECTING:
            self._set_cause(cause)
            self.error = error
            events.not_opened(self, error)
            self._finish()
            self._report(error)
            self._forget_frames()

    def end(self, cause: Cause, code: int | None, reason: str) -> None:
        """Start the closing handshake for a named cause. Idempotent; reactor's thread only.

        Args:
            cause: recorded as the cause, unless there is one.
            code: the close code, None for a close frame without.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that must not be sent, or too long a reason; nothing happened.
        """
        if self.state is CONNECTING:
            self._set_cause(cause)
            self._finish()
        elif self.state is OPEN:
            self._start_closing(cause, code, reason)
            self._arm()

    # --- ending -------------------------------------------------------------------------------

    def _start_closing(self, cause: Cause, code: int | None, reason: str) -> None:
        """Send a close frame; the caller arms the timer, unless that ends the stream."""
        frame = self._writer.encode(FIN | CLOSE, build_close(code, reason))
        self._set_cause(cause)
        self._close_code = CloseCode.NO_STATUS if code is None else code
        self._close_reason = reason
        self._enter_closing()
        self._write(frame)

    def _enter_closing(self) -> None:
        """Let no message pass any more; the caller arms the timer, unless that ends the stream."""
        self.state = CLOSING
        self._deadlines.close_by = self.reactor.time + self.limits.close_timeout

    def _receive_close(self, payload: bytes) -> None:
        try:
            code, reason = parse_close(payload)
        except ProtocolError as error:
            self._fail(error)
            return
        self.is_clean = True
        if self.state is OPEN:
            # RFC 6455, 5.5.1: answer with a close frame that echoes the code.
            self._start_closing(_CLOSED_BY_PEER, code, "")
            self._close_reason = reason
        assert self._transport is not None
        # RFC 6455, 7.1.1: the server closes the TCP connection first; a client waits for that.
        if not self.is_client:
            self._hang_up(self._transport)
        if self._transport.fd >= 0:
            self._arm()

    def _hang_up(self, transport: Transport) -> None:
        """End the stream after a complete closing handshake."""
        # Now: nearly always all of it is taken, and the stream needs no deadline for its end.
        transport.flush()
        transport.close()

    def _linger(self, transport: Transport) -> None:
        """End the stream so that the peer can read what was sent before, whatever it sends."""
        transport.linger(self.limits.linger_timeout, self.limits.linger_size)

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection because of what the peer did (RFC 6455, 7.1.7)."""
        assert self._transport is not None
        was_open = self.state is OPEN
        self._is_deaf = True
        self._set_cause(error.cause)
        if was_open:
            self._start_closing(error.cause, error.close_code, str(error))
            self._arm()
        self._linger(self._transport)
        if was_open:
            self._report(error)

    def _cut(self, cause: Cause, code: int, reason: str) -> None:
        """Drop a peer that is silent or does not read."""
        assert self._transport is not None
        self.end(cause, code, reason)
        self._transport.flush()
        self._drop(cause)

    def _drop(self, cause: Cause) -> None:
        """Close the stream at once; ``connection_lost`` follows."""
        assert self._transport is not None
        self._set_cause(cause)
        self._is_deaf = True
        self._enter_closing()
        self._transport.abort()

    def eof_received(self) -> None:
        """Take note that the peer ended its stream; the transport closes ours."""
        self._set_cause(Cause.PEER_EOF)
        if self.state is OPEN:
            # A peer that does not read what we have sent so far must not keep us waiting.
            self._enter_closing()
            self._arm()

    def connection_lost(self, error: Exception | None) -> None:
        """Finish; called by the transport, once."""
        was_open = self.state is OPEN
        self._set_cause(_ABORTED if error is None else _cause_of(error))
        self._finish()
        events.closed(self, self._close_code, self._close_reason)
        if was_open and error is not None:
            self._report(error)
        self._call_user(self.on_close, self._close_code, self._close_reason)
        self._forget_frames()

    def _finish(self) -> None:
        """Let go of everything."""
        self.state = CLOSED
        self._transport = None
        # Whoever waits for the end may hold on to this connection, in a circle.
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            self._call_user(on_end, self)

    def _write(self, buffers: tuple[bytes, ...]) -> None:
        assert self._transport is not None
        self._statistics.bytes_out += self._transport.writelines(buffers)

    def _set_cause(self, cause: Cause) -> None:
        """Keep the first cause, unless it is a closing handshake of ours that was not answered."""
        if self.cause is None or (self.cause is _CLOSED_BY_US and not self.is_clean):
            self.cause = cause

    # --- exceptions of the user's methods -----------------------------------------------------

    def _call_user(self, method: Callable[..., object], *args: object) -> None:
        try:
            method(*args)
        except Exception as error:
            self._handler_failed(error)

    def _handler_failed(self, error: Exception) -> None:
        """Make an exception of the user's code cost this connection, and nothing else."""
        events.handler_failed(self, error, "a handler")
        if self.state is OPEN:
            self.end(Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR, "internal error")
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.error = error
        try:
            self.on_error(error)
        except Exception as failure:
            events.handler_failed(self, failure, "on_error")

    def _forget_frames(self) -> None:
        """Take the frames off the error that is kept: they hold on to everything around them."""
        if self.error is None:
            return
        error: BaseException | None = self.error
        seen = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    # --- what Heartbeat does ------------------------------------------------------------------

    def _arm(self) -> None:
        """Make the timer fire no later than the next deadline; called when one may be nearer."""
        raise NotImplementedError


def _cause_of(error: Exception) -> Cause:
    """Return the cause for an error that broke the stream."""
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        return Cause.PEER_RESET
    return Cause.TRANSPORT_ERROR
