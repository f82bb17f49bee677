"""One RFC 6455 endpoint on a transport, for both roles: what passes while it is open.

    data_received ── FrameReader ── held ──┬── on_message
                                           ├── ping, pong: answered or matched, on_ping, on_pong
                                           └── close: lifecycle.py

``held`` is empty but for a moment, unless

- the application has paused the connection,
- one read brought more frames than one connection may handle in a turn,
- messages come faster than they may, and are to wait (``Excess.DELAY``);

then reading is paused, too. For want of memory (``ledger.py``) it is reading alone.

Not here: how a connection begins and ends (``lifecycle.py``), its deadlines (``heartbeat.py``),
sending (``sender.py``), what users call and override (``connection.py``, ``callbacks.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from websocket.assembler import Assembler
from websocket.causes import Cause
from websocket.deflate import Agreement, Deflate
from websocket.deflate_codec import Inflater
from websocket.errors import PolicyViolation
from websocket.frame_reader import FrameReader
from websocket.lifecycle import OPEN
from websocket.opcodes import BINARY, CLOSE, PING, PONG, CloseCode
from websocket.policies import Excess
from websocket.ratelimit import Arrivals, TokenBucket
from websocket.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactor import Reactor, Timer, Transport
    from websocket.ledger import Ledger
    from websocket.lifecycle import Lifecycle
    from websocket.limits import Limits
    from websocket.statistics import Statistics

# Shared by all connections that hold nothing; never changed.
_NOTHING_HELD: list[tuple[int, Any]] = []

# Of the objects that hold a message of one byte.
_OVERHEAD = 128


class Endpoint(Sender):
    """Move the messages and control frames of one connection; reactor's thread only.

    Args:
        ledger: where what is kept for the peer is charged; None to charge it nowhere.

    Takes the arguments of ``Lifecycle``, too.
    """

    __slots__ = (
        "_arrivals",
        "_assembler",
        "_begun",
        "_control_bucket",
        "_delay",
        "_held",
        "_inflater",
        "_is_frozen",
        "_is_paused",
        "_is_queued",
        "_ledger",
        "_message_bucket",
        "_reader",
        "_wants_pause",
    )

    def __init__(
        self,
        reactor: Reactor,
        limits: Limits,
        *,
        is_client: bool = False,
        statistics: Statistics | None = None,
        on_end: Callable[[Lifecycle], object] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        # By position: names cost as much as half of what is done with them, for each connection.
        super().__init__(reactor, limits, is_client, statistics, on_end)
        self._ledger = ledger
        self._assembler = Assembler(limits)
        self._reader = FrameReader(
            self._assembler,
            must_be_masked=not is_client,
            max_message_size=limits.max_message_size,
            max_items=limits.turn_frames,
        )
        self._held = _NOTHING_HELD
        # Nothing is handled, by the application's wish or by a delay; whether input is really
        # read, the deadlines know.
        self._is_paused = self._wants_pause = False
        self._is_frozen = False
        self._is_queued = False
        self._delay: Timer | None = None
        self._arrivals: Arrivals | None = None
        self._begun = 0
        self._control_bucket: TokenBucket | None = None
        self._message_bucket: TokenBucket | None = None
        self._inflater: Inflater | None = None

    def compress_with(self, deflate: Deflate, agreement: Agreement) -> None:
        """Compress and inflate from here on; to be called before ``open``.

        Args:
            deflate: our policy.
            agreement: what was agreed on in the opening handshake.
        """
        self._compressor = deflate.compressor(agreement)
        self._threshold = deflate.threshold
        self._inflater = self._assembler.inflater = deflate.inflater(
            agreement, self.limits.max_message_size, self.reactor.time
        )

    @property
    def buffered(self) -> int:
        """Bytes that are kept for the peer: unsent, unread and unhandled; objects included."""
        return super().buffered + self._reader.size + sum(_size(each) for _, each in self._held)

    def _settle(self) -> None:
        if self._ledger is not None:
            self._ledger.settle(self, self.buffered)

    # --- receiving ----------------------------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Read frames that came with the opening handshake."""
        self.buffer_received(data, len(data))

    def buffer_received(self, buffer: memoryview, size: int) -> None:
        """Read frames; called by the transport."""
        deadlines = self._deadlines
        deadlines.received_at = self.reactor.time
        if deadlines.pinged_at is not None:
            deadlines.pinged_at = None
            # The next ping may be due before the deadline of this one would have been.
            self._arm()
        if self._inflater is not None:
            self._date(self._inflater)
        self._statistics.bytes_in += size
        reader = self._reader
        items = reader.feed(buffer, size)
        # Behind a close frame nothing is kept, and what was is about to be let go.
        is_complete = reader.is_between or reader.is_finished
        if not is_complete or deadlines.message_began_at is not None:
            self._watch_message()
            self._settle()
        self._handle(self._held + items if self._held else items)

    def _watch_message(self) -> None:
        """Keep the time at which the incomplete message began, if there is one."""
        if not self._assembler.is_open or self._deadlines.is_paused:
            self._deadlines.message_began_at = None
        elif self._begun != self._assembler.begun or self._deadlines.message_began_at is None:
            self._begun = self._assembler.begun
            self._deadlines.message_began_at = self.reactor.time
            self._arm()

    def _handle(self, items: list[tuple[int, Any]]) -> None:
        """Handle what was read, up to the budget of one turn or a pause; hold the rest."""
        deadlines, statistics, now = self._deadlines, self._statistics, self.reactor.time
        done = 0
        try:
            for opcode, message in items:
                if self._is_paused or self._is_deaf or done == self.limits.turn_frames:
                    break
                done += 1
                if opcode > BINARY:
                    self._receive_control(opcode, message)
                    continue
                # RFC 6455, 5.5.1: after a close frame was sent, further data is of no interest.
                if self.state is not OPEN:
                    continue
                if self.limits.message_rate is not None and not self._message_is_allowed():
                    done -= self._must_wait()
                    continue
                deadlines.message_at = now
                statistics.messages_in += 1
                try:
                    self.on_message(message)
                except Exception as error:
                    self._handler_failed(error)
        finally:
            # Also when KeyboardInterrupt passes: nothing is handled twice, nothing forgotten.
            reader = self._reader
            if self._is_deaf:
                # What came behind an offence is not held until the connection is gone (H73).
                self._held = _NOTHING_HELD
                reader.stop()
            elif done != len(items) or self._held:
                self._held = items[done:]
            if self._held or reader.is_behind or reader.error is not None or deadlines.is_paused:
                self._go_on()

    def _go_on(self) -> None:
        """See to what comes after that which was handled."""
        self._settle()
        if self._transport is None or self._is_paused or self._is_deaf:
            return
        if self._held or self._reader.is_behind:
            # Others first: a peer that sends many small frames must not keep the loop.
            self._stop_reading()
            self._handle_soon()
        elif self._reader.error is not None:
            self._fail(self._reader.error)
        elif self._deadlines.is_paused:
            self._read_again()

    def _handle_soon(self) -> None:
        # Once, however often it is asked for: each call brings a budget of its own.
        if not self._is_queued:
            self._is_queued = True
            self.reactor.call_soon(self._handle_queued)

    def _handle_queued(self) -> None:
        self._is_queued = False
        if self._transport is None:
            return
        reader = self._reader
        if self._held or not reader.is_behind:
            self._handle(self._held)
            return
        if self._inflater is not None:
            self._date(self._inflater)
        items = reader.feed(b"")
        if not reader.is_between:
            self._watch_message()
        self._handle(items)

    def _receive_control(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._receive_close(payload)
        elif self.state is OPEN:
            # The answer to our own ping is no burden: idle peers send nothing else.
            is_answer = opcode == PONG and self._match_pong(payload)
            if not (is_answer or self._control_is_allowed()):
                self._fail(PolicyViolation("too many control frames"))
            elif opcode == PING:
                self._send_pong(payload)
                self._call_user(self.on_ping, payload)
            else:
                self._call_user(self.on_pong, payload)

    # --- rates --------------------------------------------------------------------------------

    def _message_is_allowed(self) -> bool:
        limits, now = self.limits, self.reactor.time
        if self._message_bucket is None:
            assert limits.message_rate is not None
            self._message_bucket = TokenBucket(
                limits.message_rate, limits.message_burst, self.opened_at or now
            )
        return self._message_bucket.take(now, since=self._came_since(now))

    def _control_is_allowed(self) -> bool:
        limits, now = self.limits, self.reactor.time
        if limits.control_rate is None:
            return True
        if self._control_bucket is None:
            self._control_bucket = TokenBucket(
                limits.control_rate, limits.control_burst, self.opened_at or now
            )
        return self._control_bucket.take(now, since=self._came_since(now))

    def _date(self, inflater: Inflater) -> None:
        """Tell the inflater the time of what it is about to be fed."""
        inflater.now = self.reactor.time
        inflater.since = self._came_since(inflater.now)

    def _came_since(self, now: float) -> float:
        """Return when that which is handled now may have come at the earliest."""
        if self._arrivals is None:
            self._arrivals = Arrivals(self.opened_at or now)
        return self._arrivals.earliest(now, self.reactor.lost_since)

    def _must_wait(self) -> bool:
        """See to a message above the rate; tell whether it is to be handled later."""
        excess = self.limits.message_excess
        if excess is Excess.CLOSE:
            self._fail(PolicyViolation("too many messages"))
        elif excess is Excess.DROP:
            self._statistics.messages_ignored += 1
        else:
            assert self._message_bucket is not None
            now = self.reactor.time
            self._delay = self.reactor.call_at(
                now + self._message_bucket.wait(now), self._end_delay
            )
            self._is_paused = True
            self._stop_reading()
        return excess is Excess.DELAY

    def _end_delay(self) -> None:
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
            self._unpause()

    # --- pausing ------------------------------------------------------------------------------

    def pause(self) -> None:
        """Handle and read no further messages until ``resume``; the peer will have to wait.

        While paused, neither pings nor the end of the peer's stream are noticed, and the
        peer's silence is not held against it. No effect unless the connection is open; the
        end of it ends the pause.
        """
        if self.state is OPEN:
            self._is_paused = self._wants_pause = True
            self._stop_reading()

    def resume(self) -> None:
        """Handle messages again, in order, beginning with what came before the pause."""
        if self._wants_pause:
            self._wants_pause = False
            self._unpause()

    def _unpause(self) -> None:
        """Handle messages again, unless there is another reason not to."""
        self._is_paused = self._wants_pause or self._delay is not None
        if not self._is_paused:
            self._handle_soon()

    def freeze(self) -> None:
        """Read no further for want of memory; what is held is handled. Called by the ledger."""
        if self.state is OPEN and not self._is_frozen:
            self._is_frozen = True
            self._stop_reading()

    def thaw(self) -> None:
        """Read again; called by the ledger."""
        if self._is_frozen:
            self._is_frozen = False
            self._handle_soon()

    def _stop_reading(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        self._deadlines.is_paused = True
        if self._arrivals is None:
            self._arrivals = Arrivals(self.reactor.time)
        self._arrivals.stop(self.reactor.time)
        self._watch_message()

    def _read_again(self) -> None:
        """Read on; what we did not want to read meanwhile is not held against the peer."""
        assert self._transport is not None
        if self._is_frozen:
            return
        if self._arrivals is not None:
            self._arrivals.go(self.reactor.time)
        self._transport.resume_reading()
        deadlines = self._deadlines
        deadlines.is_paused = False
        deadlines.received_at = deadlines.message_at = self.reactor.time
        deadlines.pinged_at = None
        self._watch_message()
        self._arm()

    # --- ending -------------------------------------------------------------------------------

    def _start_closing(self, cause: Cause, code: int | None, reason: str) -> None:
        super()._start_closing(cause, code, reason)
        # The peer's close frame must be read, even if the application reads nothing more.
        self.resume()
        self._end_delay()
        self.thaw()

    def _hang_up(self, transport: Transport) -> None:
        if self._reader.is_followed:
            # More may be on its way, unread: it would make the system send a reset, which may
            # reach the peer before our close frame.
            self._linger(transport)
        else:
            super()._hang_up(transport)

    def shed(self) -> None:
        """Close for want of memory, and keep nothing from here on; called by the ledger."""
        transport = self._transport
        if transport is None:
            return
        self.end(Cause.MEMORY, CloseCode.TRY_AGAIN_LATER, "out of memory")
        self._is_deaf = True
        self._held = _NOTHING_HELD
        self._reader.stop()
        transport.flush()
        if transport.is_blocked():
            self._drop(Cause.MEMORY)
        else:
            self._linger(transport)

    def _finish(self) -> None:
        self._held = _NOTHING_HELD
        self._reader.stop()
        self._is_frozen = False
        self._end_delay()
        if self._ledger is not None:
            self._ledger.forget(self)
        super()._finish()


def _size(message: str | bytes) -> int:
    """Return about how many bytes a message takes: a text up to four for each character."""
    if isinstance(message, str) and not message.isascii():
        return 4 * len(message) + _OVERHEAD
    return len(message) + _OVERHEAD
