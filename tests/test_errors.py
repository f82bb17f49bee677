"""Every error carries its consequence."""

from __future__ import annotations

import pytest

from websocket import errors
from websocket.causes import Cause
from websocket.errors import (
    ConnectionClosed,
    ConnectionLimit,
    ControlFrameTooLong,
    EnvelopeError,
    FragmentedControl,
    FrameTooLarge,
    HandshakeError,
    InvalidFrame,
    InvalidOpcode,
    InvalidPayload,
    InvalidState,
    PolicyViolation,
    ProtocolError,
    SessionLimit,
    WebSocketError,
)
from websocket.opcodes import CloseCode

TREE = {
    HandshakeError: WebSocketError,
    ConnectionLimit: HandshakeError,
    SessionLimit: HandshakeError,
    ProtocolError: WebSocketError,
    InvalidFrame: ProtocolError,
    InvalidOpcode: InvalidFrame,
    FragmentedControl: InvalidFrame,
    ControlFrameTooLong: InvalidFrame,
    InvalidPayload: ProtocolError,
    PolicyViolation: ProtocolError,
    FrameTooLarge: ProtocolError,
    EnvelopeError: WebSocketError,
    ConnectionClosed: WebSocketError,
    InvalidState: WebSocketError,
    WebSocketError: Exception,
}


def test_the_tree_is_the_one_in_the_docstring() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert {error: error.__base__ for error in defined} == TREE
    assert errors.__doc__ is not None
    for error in defined:
        assert f" {error.__name__}" in errors.__doc__


@pytest.mark.parametrize(
    ("error_class", "close_code", "cause"),
    [
        (ProtocolError, 1002, Cause.PROTOCOL_ERROR),
        (InvalidFrame, 1002, Cause.PROTOCOL_ERROR),
        (InvalidOpcode, 1002, Cause.PROTOCOL_ERROR),
        (FragmentedControl, 1002, Cause.PROTOCOL_ERROR),
        (ControlFrameTooLong, 1002, Cause.PROTOCOL_ERROR),
        (InvalidPayload, 1007, Cause.INVALID_DATA),
        (PolicyViolation, 1008, Cause.RATE_LIMITED),
        (FrameTooLarge, 1009, Cause.MESSAGE_TOO_BIG),
    ],
)
def test_a_protocol_error_says_how_to_fail_the_connection(
    error_class: type[ProtocolError], close_code: int, cause: Cause
) -> None:
    error = error_class("why")
    assert (error.close_code, error.cause, str(error)) == (close_code, cause, "why")


def test_an_error_may_differ_from_its_class() -> None:
    error = ProtocolError("why", CloseCode.UNSUPPORTED_DATA, Cause.INVALID_DATA)
    assert (error.close_code, error.cause) == (1003, Cause.INVALID_DATA)
    assert (ProtocolError.close_code, ProtocolError.cause) == (1002, Cause.PROTOCOL_ERROR)


def test_a_handshake_error_says_what_to_answer() -> None:
    error = HandshakeError(426, "use version 13", [("Sec-WebSocket-Version", "13")])
    assert (error.status, error.message, str(error)) == (426, "use version 13", "use version 13")
    assert error.headers == (("Sec-WebSocket-Version", "13"),)
    assert HandshakeError(400, "bad").headers == ()


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [
        (0.0, "1"),
        (-3.0, "1"),
        (0.001, "1"),
        (1.0, "1"),
        (1.001, "2"),
        (2.001, "3"),
        (2.5, "3"),
        (60.0, "60"),
        (59.2, "60"),
    ],
)
def test_a_limit_says_when_to_come_again_and_not_too_early(seconds: float, answer: str) -> None:
    """H39. RFC 9110, 10.2.3: whole seconds."""
    connection_limit = ConnectionLimit(429, "too many handshakes", seconds)
    session_limit = SessionLimit("too many sessions", seconds)
    assert connection_limit.headers == session_limit.headers == (("Retry-After", answer),)
    assert (connection_limit.status, session_limit.status) == (429, 503)
    assert (str(connection_limit), session_limit.message) == (
        "too many handshakes",
        "too many sessions",
    )


def test_connection_closed_tells_code_and_reason() -> None:
    error = ConnectionClosed(1001, "going away", True)
    assert (error.code, error.reason, error.is_clean) == (1001, "going away", True)
    assert str(error) == "connection closed with 1001: going away"
    assert str(ConnectionClosed(1006, "", False)) == "connection closed with 1006"


def test_an_envelope_error_carries_its_code() -> None:
    error = EnvelopeError(-3, "invalid opcode")
    assert (error.code, error.message, str(error)) == (-3, "invalid opcode", "invalid opcode")
