"""One RFC 6455 endpoint on a transport, for both roles: what passes while it is open.

    data_received ── FrameReader ── held ──┬── on_message
                                           ├── ping, pong: answered or matched, on_ping, on_pong
                                           └── close: lifecycle.py

``held`` is empty but for a moment, unless the application has paused the connection or one
read brought more frames than one connection may handle in a turn; then reading is paused too.

Not here: how a connection begins and ends (``lifecycle.py``), what users call and override
(``connection.py``, ``callbacks.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from websocket.assembler import Assembler
from websocket.causes import Cause
from websocket.deflate import Agreement, Deflate
from websocket.deflate_codec import Compressor, Inflater
from websocket.errors import PolicyViolation
from websocket.frame import FIN
from websocket.frame_reader import FrameReader
from websocket.lifecycle import Lifecycle, State
from websocket.opcodes import CloseCode, Opcode
from websocket.ratelimit import TokenBucket
from websocket.shared_message import SharedMessage

if TYPE_CHECKING:
    from reactor import Transport

# Looked up once: an attribute of an enumeration costs as much as a call.
_OPEN = State.OPEN
_BINARY = int(Opcode.BINARY)


class Endpoint(Lifecycle):
    """Move the messages and control frames of one connection; reactor's thread only.

    Takes the arguments of ``Lifecycle``.
    """

    __slots__ = (
        "_assembler",
        "_begun",
        "_compressor",
        "_control_bucket",
        "_held",
        "_inflater",
        "_is_paused",
        "_is_queued",
        "_message_bucket",
        "_owed_pong",
        "_reader",
        "_threshold",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._assembler = Assembler(self.limits)
        self._reader = FrameReader(
            self._assembler,
            must_be_masked=not self.is_client,
            max_message_size=self.limits.max_message_size,
            max_items=self.limits.turn_frames,
        )
        self._held: list[tuple[int, Any]] = []
        # The application's wish; whether input is really read, the deadlines know.
        self._is_paused = False
        self._is_queued = False
        self._begun = 0
        self._control_bucket: TokenBucket | None = None
        self._message_bucket: TokenBucket | None = None
        self._owed_pong: bytes | None = None
        self._compressor: Compressor | None = None
        self._inflater: Inflater | None = None
        self._threshold = 0

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

    # --- receiving ----------------------------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Read frames that came with the opening handshake."""
        self.buffer_received(data, len(data))

    def buffer_received(self, buffer: memoryview, size: int) -> None:
        """Read frames; called by the transport."""
        deadlines = self._deadlines
        now = deadlines.received_at = self.reactor.time
        if deadlines.pinged_at is not None:
            deadlines.pinged_at = None
            # The next ping may be due before the deadline of this one would have been.
            self._arm()
        if self._inflater is not None:
            self._inflater.now = now
        self._statistics.bytes_in += size
        reader = self._reader
        items = reader.feed(buffer, size)
        if not reader.is_between or deadlines.message_began_at is not None:
            self._watch_message()
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
                if opcode > _BINARY:
                    self._receive_control(opcode, message)
                    continue
                # RFC 6455, 5.5.1: after a close frame was sent, further data is of no interest.
                if self.state is not _OPEN:
                    continue
                if self.limits.message_rate is not None and not self._message_is_allowed():
                    self._fail(PolicyViolation("too many messages"))
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
                self._held = []
                reader.stop()
            elif done != len(items) or self._held:
                self._held = items[done:]
            if self._held or reader.is_behind or reader.error is not None or deadlines.is_paused:
                self._go_on()

    def _go_on(self) -> None:
        """See to what comes after that which was handled."""
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
        reader = self._reader
        if self._held or not reader.is_behind:
            self._handle(self._held)
            return
        items = reader.feed(b"")
        if not reader.is_between:
            self._watch_message()
        self._handle(items)

    def _receive_control(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self._receive_close(payload)
        elif self.state is _OPEN:
            if not self._control_is_allowed():
                self._fail(PolicyViolation("too many control frames"))
            elif opcode == Opcode.PING:
                self._send_pong(payload)
                self._call_user(self.on_ping, payload)
            else:
                self._match_pong(payload)
                self._call_user(self.on_pong, payload)

    def _message_is_allowed(self) -> bool:
        limits, now = self.limits, self.reactor.time
        if self._message_bucket is None:
            assert limits.message_rate is not None
            self._message_bucket = TokenBucket(limits.message_rate, limits.message_burst, now)
        return self._message_bucket.take(now)

    def _control_is_allowed(self) -> bool:
        limits, now = self.limits, self.reactor.time
        if limits.control_rate is None:
            return True
        if self._control_bucket is None:
            self._control_bucket = TokenBucket(limits.control_rate, limits.control_burst, now)
        return self._control_bucket.take(now)

    # --- sending ------------------------------------------------------------------------------

    def send_encoded(self, buffers: tuple[bytes, ...]) -> bool:
        """Send a message that ``FrameWriter.encode`` has made a frame of; see ``send``.

        For broadcasts: one frame, encoded once, may go to all connections of a server.
        Reactor's thread only.
        """
        transport, deadlines = self._transport, self._deadlines
        if self.state is not _OPEN or transport is None:
            return False
        if deadlines.congested_at is not None and self._is_hopeless(transport):
            return False
        deadlines.message_at = self.reactor.time
        statistics = self._statistics
        statistics.messages_out += 1
        statistics.bytes_out += transport.writelines(buffers)
        return True

    def _is_hopeless(self, transport: Transport) -> bool:
        """Close a connection that is above the hard mark, and tell whether it was."""
        if transport.get_write_buffer_size() < self.limits.write_hard_mark:
            return False
        self.end(Cause.SLOW_CONSUMER, CloseCode.POLICY_VIOLATION, "too slow a consumer")
        return True

    def send_shared(self, shared: SharedMessage) -> bool:
        """Send one message of a broadcast; see ``send``. Reactor's thread only."""
        compressor = self._compressor
        if compressor is None or len(shared.payload) < self._threshold:
            return self.send_encoded(shared.frame)
        if compressor.keeps_context:
            return self._send_frame(shared.head, shared.payload)
        return self.send_encoded(shared.frame_by(compressor))

    def _send_frame(self, head: int, payload: bytes, is_compressible: bool = True) -> bool:
        if self._compressor is None or not is_compressible or len(payload) < self._threshold:
            return self.send_encoded(self._writer.encode(head, payload))
        frame = self._writer.encode_compressed(head, payload, self._compressor)
        return self.send_encoded(frame)

    def _send_pong(self, payload: bytes) -> None:
        if self._deadlines.congested_at is not None:
            # RFC 6455, 5.5.3: only the most recent ping needs an answer.
            self._owed_pong = payload
        else:
            self._write(self._writer.encode(FIN | Opcode.PONG, payload))

    def pause_writing(self) -> None:
        """Take note that the soft mark is crossed; called by the transport."""
        self._deadlines.congested_at = self.reactor.time
        self._arm()

    def resume_writing(self) -> None:
        """Take note that the peer has caught up; called by the transport."""
        self._deadlines.congested_at = None
        if self.state is not _OPEN:
            return
        if self._owed_pong is not None:
            payload, self._owed_pong = self._owed_pong, None
            self._send_pong(payload)
        self._call_user(self.on_writable)

    # --- pausing ------------------------------------------------------------------------------

    def pause(self) -> None:
        """Handle and read no further messages until ``resume``; the peer will have to wait.

        While paused, neither pings nor the end of the peer's stream are noticed, and the
        peer's silence is not held against it. No effect unless the connection is open; the
        end of it ends the pause.
        """
        if self.state is _OPEN:
            self._is_paused = True
            self._stop_reading()

    def resume(self) -> None:
        """Handle messages again, in order, beginning with what came before the pause."""
        if self._is_paused:
            self._is_paused = False
            self._handle_soon()

    def _stop_reading(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        self._deadlines.is_paused = True
        self._watch_message()

    def _read_again(self) -> None:
        """Read on; what we did not want to read meanwhile is not held against the peer."""
        assert self._transport is not None
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

    def _finish(self) -> None:
        self._held.clear()
        self._assembler.discard()
        super()._finish()
