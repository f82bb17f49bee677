"""A WebSocket server, client and connection manager (RFC 6455) on the ``reactor`` package.

Reading order for a newcomer: ``connection`` and ``callbacks`` (what you subclass), ``server``
and ``client`` (how connections come about), ``endpoint`` (the protocol of one connection),
``frame``, ``frame_reader``, ``assembler`` and ``frame_writer`` (bytes to messages and back),
``http11``, ``handshake`` and ``upgrade`` (the opening handshake), ``manager``, ``pool`` and
``session`` (who is connected), ``message`` (the binary envelope), ``limits`` (every number).
"""

from __future__ import annotations

from websocket.causes import Cause
from websocket.client import connect
from websocket.connection import Connection
from websocket.credentials import basic_credentials, bearer_credentials, parse_basic
from websocket.deflate import Deflate
from websocket.dial import BlockingConnection, dial
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
from websocket.frame import Frame
from websocket.frame_reader import FrameReader
from websocket.frame_writer import FrameWriter
from websocket.handshake import SAME_ORIGIN, Upgrader
from websocket.http11 import Request
from websocket.lifecycle import State
from websocket.limits import Limits
from websocket.manager import ConnectionManager
from websocket.message import ErrorCode, Message, MessageOpcode
from websocket.message_connection import MessageConnection
from websocket.opcodes import CloseCode, Opcode
from websocket.policies import Excess, SlowConsumer
from websocket.pool import ConnectionPool
from websocket.reconnect import Reconnect
from websocket.server import Server
from websocket.session import Session
from websocket.session_manager import SessionManager
from websocket.statistics import StatisticsSnapshot
from websocket.upgrade import HTTPResponse

__all__ = [
    "SAME_ORIGIN",
    "BlockingConnection",
    "Cause",
    "CloseCode",
    "Connection",
    "ConnectionClosed",
    "ConnectionLimit",
    "ConnectionManager",
    "ConnectionPool",
    "ControlFrameTooLong",
    "Deflate",
    "EnvelopeError",
    "ErrorCode",
    "Excess",
    "FragmentedControl",
    "Frame",
    "FrameReader",
    "FrameTooLarge",
    "FrameWriter",
    "HTTPResponse",
    "HandshakeError",
    "InvalidFrame",
    "InvalidOpcode",
    "InvalidPayload",
    "InvalidState",
    "Limits",
    "Message",
    "MessageConnection",
    "MessageOpcode",
    "Opcode",
    "PolicyViolation",
    "ProtocolError",
    "Reconnect",
    "Request",
    "Server",
    "Session",
    "SessionLimit",
    "SessionManager",
    "SlowConsumer",
    "State",
    "StatisticsSnapshot",
    "Upgrader",
    "WebSocketError",
    "basic_credentials",
    "bearer_credentials",
    "connect",
    "dial",
    "parse_basic",
]
