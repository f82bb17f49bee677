"""The errors of the WebSocket layer; each carries its consequence.

    WebSocketError
    ├── HandshakeError            carries the HTTP status to answer with
    │   ├── ConnectionLimit       503 or 429, with Retry-After
    │   └── SessionLimit          503 or 429, with Retry-After
    ├── ProtocolError             carries the close code to fail with
    │   ├── InvalidFrame          1002
    │   │   ├── InvalidOpcode
    │   │   ├── FragmentedControl
    │   │   └── ControlFrameTooLong
    │   ├── InvalidPayload        1007
    │   ├── PolicyViolation       1008
    │   └── FrameTooLarge         1009
    ├── EnvelopeError             carries the code of the binary envelope's error message
    ├── ConnectionClosed          code, reason, clean or not
    └── InvalidState              misuse by the caller

What a peer does wrong never reaches user code as a raised exception: one place in
``lifecycle.py`` turns a ``ProtocolError`` into a close frame, and one in ``upgrade.py`` a
``HandshakeError`` into an HTTP response.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from websocket.causes import Cause
from websocket.opcodes import CloseCode


class WebSocketError(Exception):
    """Base of everything that this package raises."""


class HandshakeError(WebSocketError):
    """Report an opening handshake that cannot succeed.

    Args:
        status: the HTTP status to answer with (server), or that was received (client; 0 where
            the answer was no HTTP at all).
        message: one line for the peer's developer: what is wrong and what to send instead.
        headers: further header fields for the response.
    """

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


class ConnectionLimit(HandshakeError):
    """Refuse a connection because a limit on connections or handshakes is reached.

    Args:
        status: 503 when the server is full, 429 when one address asks for too much.
        message: which limit was reached.
        retry_after: seconds until it makes sense to ask again.
    """

    def __init__(self, status: int, message: str, retry_after: float) -> None:
        super().__init__(status, message, _retry_after(retry_after))


class SessionLimit(HandshakeError):
    """Refuse a connection because no further session may be created.

    Args:
        message: which limit was reached.
        retry_after: seconds until it makes sense to ask again.
        status: 503 when the server is full, 429 when one address asks for too much.
    """

    def __init__(self, message: str, retry_after: float, status: int = 503) -> None:
        super().__init__(status, message, _retry_after(retry_after))


def _retry_after(seconds: float) -> tuple[tuple[str, str], ...]:
    """Return the Retry-After field in whole seconds, at least one (RFC 9110, 10.2.3)."""
    return (("Retry-After", str(max(1, ceil(seconds)))),)


class ProtocolError(WebSocketError):
    """Report a peer that broke a rule; the connection is failed with ``close_code``.

    Args:
        message: the rule that was broken, short ASCII: it becomes the close reason.
        close_code: the close code to fail the connection with (RFC 6455, 7.1.7).
        cause: the named cause to record; by default the one that belongs to the class.
    """

    close_code = CloseCode.PROTOCOL_ERROR
    cause = Cause.PROTOCOL_ERROR

    def __init__(
        self, message: str, close_code: CloseCode | None = None, cause: Cause | None = None
    ) -> None:
        super().__init__(message)
        if close_code is not None:
            self.close_code = close_code
        if cause is not None:
            self.cause = cause


class InvalidFrame(ProtocolError):
    """Report a frame that RFC 6455, section 5 forbids."""


class InvalidOpcode(InvalidFrame):
    """Report one of the reserved opcodes 3-7 and 11-15 (RFC 6455, 5.2)."""


class FragmentedControl(InvalidFrame):
    """Report a control frame without FIN (RFC 6455, 5.5)."""


class ControlFrameTooLong(InvalidFrame):
    """Report a control frame with more than 125 bytes of payload (RFC 6455, 5.5)."""


class InvalidPayload(ProtocolError):
    """Report text that is not UTF-8 (RFC 6455, 8.1)."""

    close_code = CloseCode.INVALID_DATA
    cause = Cause.INVALID_DATA


class PolicyViolation(ProtocolError):
    """Report a peer that crossed a limit which is ours, not the RFC's."""

    close_code = CloseCode.POLICY_VIOLATION
    cause = Cause.RATE_LIMITED


class FrameTooLarge(ProtocolError):
    """Report a frame, or a message of several, above the size limit (RFC 6455, 10.4)."""

    close_code = CloseCode.MESSAGE_TOO_BIG
    cause = Cause.MESSAGE_TOO_BIG


class EnvelopeError(WebSocketError):
    """Report bytes that are no binary envelope; ``code`` stands in the error message.

    Args:
        code: -1 to -6, see ``websocket.message.ErrorCode``.
        message: what is wrong with the bytes.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConnectionClosed(WebSocketError):
    """Report a connection that is gone.

    Args:
        code: the close code (1005: none was given, 1006: no closing handshake).
        reason: the peer's reason, or ours.
        is_clean: True when the closing handshake completed.
    """

    def __init__(self, code: int, reason: str, is_clean: bool) -> None:
        super().__init__(f"connection closed with {code}" + (f": {reason}" if reason else ""))
        self.code = code
        self.reason = reason
        self.is_clean = is_clean


class InvalidState(WebSocketError):
    """Report a call that makes no sense in the object's present state."""
