"""The class that users subclass: messages in and out, over one RFC 6455 connection.

The way of one message::

    transport -> data_received -> FrameReader -> on_message      (endpoint.py)
    send -> FrameWriter -> transport, one system call at the end of the turn

Here is what may be called, and from where; ``callbacks.py`` has what may be overridden, and
``endpoint.py`` the machine that runs the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from threading import get_ident
from typing import Any, ClassVar

from reactor import ReactorClosed
from websocket.causes import Cause
from websocket.endpoint import Endpoint
from websocket.errors import ConnectionClosed
from websocket.frame import MAX_CONTROL_PAYLOAD, build_close
from websocket.frame_writer import Payload, encode_message
from websocket.lifecycle import OPEN, State
from websocket.opcodes import CloseCode
from websocket.policies import SlowConsumer


class Connection(Endpoint):
    """Exchange messages with one peer; subclass it and override the ``on_`` methods.

    ``send``, ``send_json``, ``send_latest``, ``ping``, ``close`` and ``abort`` may be called from
    any thread; from outside it they are handed over in order. Everything else belongs to the
    reactor's thread. All of it may be called from within any ``on_`` method.

    Instances are made by ``Server`` and ``connect``; set up your own state in ``on_open``.

    Attributes:
        subprotocols: of the class: the subprotocols that it speaks, the preferred one first.
        slow_consumer: of the class: a ``SlowConsumer`` or its name; by default
            ``limits.slow_consumer``.
        id: a number, unique in this process.
        session: the session of the client; None on the client's side.
        session_id: the id of that session, on both sides: to be kept by a client that wants
            to come back to it.
        request: the request that opened the connection.
        subprotocol: the one agreed on, or None.
        remote_address: the peer's address, as sockets give it.
        created_at: when the object was made, in seconds on the reactor's clock.
        opened_at: when it was opened, in seconds on the reactor's clock, or None.
        last_ping: when the last ping was sent, in seconds on the reactor's clock, or None.
        latency: seconds between the last ping and its pong, or None.
        state: where it is in its life.
        cause: why it ended, or is about to; None before.
        error: what ``on_error`` was called with last, or None.
        is_clean: the closing handshake completed.
        is_given_up: ``close`` or ``abort`` was called here.
        is_client: this end is the client.
        limits: the limits that it keeps.
        reactor: what runs it; for timers of your own.
    """

    __slots__ = ()

    subprotocols: ClassVar[tuple[str, ...]] = ()

    @property
    def is_open(self) -> bool:
        """Tell whether messages can be sent."""
        return self.state is OPEN

    @property
    def is_congested(self) -> bool:
        """Tell whether more than ``write_soft_mark`` bytes wait for the peer to read."""
        return self.state is OPEN and self._deadlines.congested_at is not None

    @property
    def is_compressed(self) -> bool:
        """Tell whether compression was agreed on in the opening handshake."""
        return self._compressor is not None

    @property
    def closed(self) -> ConnectionClosed | None:
        """Return code, reason and cleanness of the end as an error to raise; None before."""
        if self.state is not State.CLOSED:
            return None
        return ConnectionClosed(self._close_code, self._close_reason, self.is_clean)

    def send(self, message: Payload, *, compress: bool = True) -> bool:
        """Send a message: ``str`` as text, anything bytes-like as binary.

        Args:
            message: copied unless it is immutable.
            compress: False to send it as it is where compression was agreed on: for what is
                compressed already, or secret.

        Returns:
            True when the message was taken; from another thread, when it was handed over.
            False when it was not and is lost: the connection is not open (any more), or the peer
            is slow and its ``SlowConsumer`` policy says so. A True does not promise that the peer
            read it; see ``is_congested`` for how it keeps up.

        Raises:
            TypeError: neither str nor bytes-like.
            ValueError: text that UTF-8 cannot encode (a lone surrogate).
        """
        if self._compressor is None and get_ident() == self.reactor.thread_id:
            return self.send_encoded(self._writer.frame_message(message))
        head, payload = encode_message(message)
        if self.reactor.is_own_thread():
            return self._send_frame(head, payload, compress)
        if self.is_congested and self._policy(None) is SlowConsumer.BLOCK:
            return False
        return self.state is OPEN and self._hand_over(
            self._send_frame, head, payload, compress, self._untold(None)
        )

    def send_latest(self, message: Payload, key: Hashable, *, compress: bool = True) -> bool:
        """Send a message of which only the latest is worth anything: a price, the state of a game.

        As long as the peer is slow, it takes the place of the one with the same key that still
        waits; see ``SlowConsumer.LATEST``, which holds for it whatever the class says.

        Args:
            message: see ``send``.
            key: what it is about.
            compress: see ``send``.

        Returns:
            As ``send``.

        Raises:
            TypeError: as ``send``; or the key is not hashable.
            ValueError: as ``send``.
        """
        hash(key)
        frame = (*encode_message(message), compress, SlowConsumer.LATEST, key)
        if self.reactor.is_own_thread():
            return self._send_frame(*frame)
        return self.state is OPEN and self._hand_over(self._send_frame, *frame)

    def send_json(self, value: Any) -> bool:
        """Send a value as JSON text; see ``send``.

        Raises:
            TypeError, ValueError: the value has no JSON form.
        """
        return self.send(json.dumps(value, separators=(",", ":"), allow_nan=False))

    def ping(self, payload: bytes = b"") -> bool:
        """Send a ping; ``on_pong`` and ``latency`` tell of the answer.

        Args:
            payload: at most 125 bytes, bytes-like; it is copied.

        Returns:
            False when the connection is not open.

        Raises:
            TypeError: not bytes-like.
            ValueError: more than 125 bytes of payload.
        """
        payload = memoryview(payload).tobytes()
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"a ping carries at most {MAX_CONTROL_PAYLOAD} bytes")
        if self.reactor.is_own_thread():
            return self._ping(payload)
        return self.state is OPEN and self._hand_over(self._ping, payload)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Start the closing handshake; no message is sent or handled after it. Idempotent.

        On a client that is still connecting, give up; no ``on_`` method is called then.

        Args:
            code: 1000, or 3000 to 4999 for codes of your own.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: a code that must not be sent, or too long a reason.
        """
        build_close(code, reason)
        self.is_given_up = True
        if self.reactor.is_own_thread():
            self.end(Cause.CLOSED_BY_US, code, reason)
        else:
            self._hand_over(self.end, Cause.CLOSED_BY_US, code, reason)

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake. Idempotent."""
        self.is_given_up = True
        if not self.reactor.is_own_thread():
            self._hand_over(self.abort)
        elif self._transport is not None:
            self._drop(Cause.ABORTED)
        else:
            self.end(Cause.ABORTED, None, "")

    def on_gap(self, dropped: int) -> None:
        """Send ``{"type":"gap","dropped":3}``; see ``Callbacks``."""
        self.send_json({"type": "gap", "dropped": dropped})

    def report_gap(self, dropped: int) -> None:
        """Call ``on_gap``; called when a session has dropped messages."""
        self._call_user(self.on_gap, dropped)

    def _hand_over(self, method: Callable[..., object], *args: object) -> bool:
        """Have a method called in the reactor's thread; False when nobody is there to do it."""
        try:
            self.reactor.call_soon_threadsafe(method, *args)
        except ReactorClosed:  # and with it all of its connections are
            return False
        return True
