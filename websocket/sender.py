"""The sending half of an endpoint: messages to the transport, and what happens when a peer is slow.

    send ── encode ──┬── not congested ──────────────▶ transport
                     └── congested ── the policy ──┬─▶ transport, up to the hard mark
                                                   ├─▶ Backlog ── when writable ──▶ transport
                                                   └─▶ dropped, refused, or the end

A connection is congested from when more than ``write_soft_mark`` bytes wait for the peer until
it has read three quarters of them; only then a policy (``policies.py``) has anything to say.
Control frames go by themselves, past the backlog: a pong only when nothing else is stuck, and
then one, for the most recent ping.

What waits when we close is sent before the close frame, as far as the peer reads it within
``close_timeout``; it is let go when the peer is the one who closes, or is closed for what it did.

Not here: reading (``endpoint.py``), which also lets the ledger know what is kept.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

from websocket.backlog import Backlog, Waiting
from websocket.causes import OFFENCES, Cause
from websocket.frame import FIN
from websocket.frame_writer import Payload, encode_message
from websocket.heartbeat import Heartbeat
from websocket.lifecycle import OPEN
from websocket.opcodes import PONG, CloseCode
from websocket.policies import SlowConsumer

if TYPE_CHECKING:
    from websocket.deflate_codec import Compressor
    from websocket.shared_message import SharedMessage

# The peer will read nothing more, or is not worth it.
_POINTLESS = OFFENCES | {Cause.CLOSED_BY_PEER, Cause.PING_TIMEOUT}


class Sender(Heartbeat):
    """Send the messages and control frames of one connection; reactor's thread only.

    Takes the arguments of ``Lifecycle``, by position.
    """

    __slots__ = ("_backlog", "_compressor", "_owed_pong", "_threshold")

    slow_consumer: ClassVar[SlowConsumer | str | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.slow_consumer is not None:
            # Here, where a name that is none has a line of the user's code to be shown with.
            cls.slow_consumer = SlowConsumer(cls.slow_consumer)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._backlog: Backlog | None = None
        self._compressor: Compressor | None = None
        self._owed_pong: bytes | None = None
        self._threshold = 0

    @property
    def buffered(self) -> int:
        """Bytes that are kept for the peer: unsent, and unhandled."""
        size = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return size if self._backlog is None else size + self._backlog.size

    @property
    def messages_dropped(self) -> int:
        """How many messages to the peer have been dropped because it read too slowly."""
        return 0 if self._backlog is None else self._backlog.dropped

    # --- messages -----------------------------------------------------------------------------

    def send_encoded(self, buffers: tuple[bytes, ...], shared: SharedMessage | None = None) -> bool:
        """Send a message that ``FrameWriter.encode`` has made a frame of; see ``send``.

        For broadcasts: one frame, encoded once, may go to all connections of a server.
        Reactor's thread only.

        Args:
            buffers: the frame.
            shared: the broadcast that it belongs to.
        """
        transport, deadlines = self._transport, self._deadlines
        if self.state is not OPEN or transport is None:
            return False
        if deadlines.congested_at is not None:
            if shared is None:
                return self._send_slowly(Waiting(buffers), self._policy(None))
            return self._send_slowly(Waiting(buffers), self._untold(shared.policy), shared.key)
        deadlines.message_at = self.reactor.time
        statistics = self._statistics
        statistics.messages_out += 1
        statistics.bytes_out += transport.writelines(buffers)
        return True

    def send_shared(self, shared: SharedMessage) -> bool:
        """Send one message of a broadcast; see ``send``. Reactor's thread only."""
        compressor = self._compressor
        if compressor is None or len(shared.payload) < self._threshold:
            return self.send_encoded(shared.frame, shared)
        if compressor.keeps_context:
            policy = self._untold(shared.policy)
            return self._send_frame(shared.head, shared.payload, True, policy, shared.key)
        return self.send_encoded(shared.frame_by(compressor), shared)

    def send_missed(self, message: Payload) -> bool:
        """Send a message that a session has kept, never to be dropped; see ``send``."""
        return self._send_frame(*encode_message(message), True, SlowConsumer.CLOSE)

    def _send_frame(
        self,
        head: int,
        payload: bytes,
        is_compressible: bool = True,
        policy: SlowConsumer | None = None,
        key: Hashable = None,
    ) -> bool:
        compressor = self._compressor
        if not is_compressible or len(payload) < self._threshold:
            compressor = None
        if self._deadlines.congested_at is None or self.state is not OPEN:
            if compressor is None:
                return self.send_encoded(self._writer.encode(head, payload))
            return self.send_encoded(self._writer.encode_compressed(head, payload, compressor))
        if compressor is None:
            message = Waiting(self._writer.encode(head, payload))
        else:
            message = Waiting((payload,), head)
        return self._send_slowly(message, self._policy(policy), key)

    # --- slow consumers -----------------------------------------------------------------------

    def _policy(self, policy: SlowConsumer | None) -> SlowConsumer:
        """Return what holds for a message: its own policy, that of the class, or the limits'."""
        return SlowConsumer(policy or type(self).slow_consumer or self.limits.slow_consumer)

    def _untold(self, policy: SlowConsumer | None) -> SlowConsumer:
        """Return what holds where nobody can be told that a message was not taken."""
        policy = self._policy(policy)
        return SlowConsumer.DROP_NEWEST if policy is SlowConsumer.BLOCK else policy

    def _send_slowly(self, message: Waiting, policy: SlowConsumer, key: Hashable = None) -> bool:
        """Send to a peer that is behind, as the policy has it."""
        assert self._transport is not None
        if policy is SlowConsumer.BLOCK:
            return False
        unsent, mark = self._transport.get_write_buffer_size(), self.limits.write_hard_mark
        backlog = self._backlog
        if policy is SlowConsumer.DROP_OLDEST or policy is SlowConsumer.LATEST:
            is_taken = self._put(message, policy, key, mark - unsent)
        elif unsent + (0 if backlog is None else backlog.size) < mark:
            is_taken = True
            if backlog:
                backlog.keep(message)
            else:
                self._pass_on(message)
        else:
            is_taken = False
            if policy is SlowConsumer.CLOSE:
                self.end(Cause.SLOW_CONSUMER, CloseCode.POLICY_VIOLATION, "too slow a consumer")
            else:
                self._own_backlog().dropped += 1
                self._statistics.messages_dropped += 1
        self._settle()
        return is_taken

    def _put(self, message: Waiting, policy: SlowConsumer, key: Hashable, room: int) -> bool:
        """Put a message into the backlog, where it or others may have to be dropped for it."""
        backlog = self._own_backlog()
        before = backlog.dropped
        if policy is SlowConsumer.LATEST:
            is_taken = backlog.put_latest(message, key, room)
        else:
            is_taken = backlog.put(message, room)
        self._statistics.messages_dropped += backlog.dropped - before
        return is_taken

    def _own_backlog(self) -> Backlog:
        if self._backlog is None:
            self._backlog = Backlog()
        return self._backlog

    def _pass_on(self, message: Waiting) -> None:
        """Hand a message to the transport; from here on it is as good as on the wire."""
        assert self._transport is not None
        buffers = message.buffers
        if message.head is not None:
            assert self._compressor is not None
            buffers = self._writer.encode_compressed(message.head, buffers[0], self._compressor)
        self._deadlines.message_at = self.reactor.time
        self._statistics.messages_out += 1
        self._write(buffers)

    def pause_writing(self) -> None:
        """Take note that the soft mark is crossed; called by the transport."""
        self._deadlines.congested_at = self.reactor.time
        self._arm()

    def resume_writing(self) -> None:
        """Send what has waited for the peer to catch up; called by the transport."""
        deadlines, backlog = self._deadlines, self._backlog
        deadlines.congested_at = None
        if self.state is not OPEN:
            return
        self._pay_pong()
        if backlog is not None:
            while backlog and deadlines.congested_at is None:
                self._pass_on(backlog.pop())
            dropped = backlog.tell()
            if dropped:
                self._call_user(self.on_drop, dropped)
        # The backlog, or the callback, may have brought the connection above the mark again.
        if deadlines.congested_at is None and self.state is OPEN:
            self._call_user(self.on_writable)

    def unsent_changed(self, size: int) -> None:
        """Take note of how much is stuck; called by the transport."""
        if not size and self.state is OPEN:
            self._pay_pong()
        self._settle()

    def _settle(self) -> None:
        """Have the ledger know what is kept; ``Endpoint``, which knows of all of it, does."""

    # --- control frames -----------------------------------------------------------------------

    def _send_pong(self, payload: bytes) -> None:
        assert self._transport is not None
        if self._transport.is_blocked() or self._deadlines.congested_at is not None:
            # RFC 6455, 5.5.3: only the most recent ping needs an answer.
            self._owed_pong = payload
        else:
            self._write(self._writer.encode(FIN | PONG, payload))

    def _pay_pong(self) -> None:
        """Send the pong that was held back."""
        payload, self._owed_pong = self._owed_pong, None
        if payload is not None:
            self._write(self._writer.encode(FIN | PONG, payload))

    # --- ending -------------------------------------------------------------------------------

    def _start_closing(self, cause: Cause, code: int | None, reason: str) -> None:
        backlog = self._backlog
        if backlog is not None:
            if cause in _POINTLESS:
                backlog.clear()
            while backlog:
                self._pass_on(backlog.pop())
        super()._start_closing(cause, code, reason)

    def _finish(self) -> None:
        if self._backlog is not None:
            self._backlog.clear()
        super()._finish()
