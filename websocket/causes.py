"""The named causes: why a connection ended, as a closed list.

A close code says what an endpoint chose to tell its peer; a cause says what happened here.
``Connection.cause`` holds one of these after the end, the log line of the end carries it, and
the statistics count by it.
"""

from __future__ import annotations

from enum import Enum


class Cause(str, Enum):
    """Name what ended a connection."""

    CLOSED_BY_US = "closed_by_us"
    """``close()`` was called and the closing handshake completed."""
    CLOSED_BY_PEER = "closed_by_peer"
    """The peer started the closing handshake and it completed."""
    PEER_EOF = "peer_eof"
    """The peer ended its stream without a closing handshake."""
    PEER_RESET = "peer_reset"
    """The peer, or something between, reset the connection."""
    TRANSPORT_ERROR = "transport_error"
    """The operating system reported another error on the socket."""
    PROTOCOL_ERROR = "protocol_error"
    """The peer broke a rule of RFC 6455 (close code 1002 or 1003)."""
    INVALID_DATA = "invalid_data"
    """The peer sent text that is not UTF-8 (close code 1007)."""
    MESSAGE_TOO_BIG = "message_too_big"
    """A message of the peer would have crossed the size limit (close code 1009)."""
    TOO_MANY_FRAGMENTS = "too_many_fragments"
    """A message of the peer had more fragments than the limit (close code 1008)."""
    RATE_LIMITED = "rate_limited"
    """The peer sent messages or control frames faster than allowed (close code 1008)."""
    SLOW_CONSUMER = "slow_consumer"
    """The peer left more unread than the hard mark, or read nothing for too long (1008)."""
    MEMORY = "memory"
    """Memory was short, and more was kept for this peer than for others (close code 1013)."""
    PING_TIMEOUT = "ping_timeout"
    """Nothing at all came from the peer after a ping (close code 1011)."""
    IDLE_TIMEOUT = "idle_timeout"
    """No message passed for the idle timeout (close code 1001)."""
    MESSAGE_TIMEOUT = "message_timeout"
    """A fragmented message did not end in time (close code 1008)."""
    CLOSE_TIMEOUT = "close_timeout"
    """The closing handshake did not complete in time."""
    HANDSHAKE_FAILED = "handshake_failed"
    """The opening handshake was refused, not understood or not finished in time."""
    CONNECT_FAILED = "connect_failed"
    """No address of the server could be reached."""
    HANDLER_ERROR = "handler_error"
    """A callback of the user raised (close code 1011)."""
    SESSION_EXPIRED = "session_expired"
    """The session came to its end (close code 1008)."""
    REPLACED = "replaced"
    """A newer connection took the session over (close code 4000)."""
    SHUTDOWN = "shutdown"
    """The server is going away (close code 1001)."""
    ABORTED = "aborted"
    """``abort()`` was called, or a grace period ran out."""


#: The peer has broken a rule or crossed a limit, and that has ended the connection.
OFFENCES = frozenset(
    {
        Cause.PROTOCOL_ERROR,
        Cause.INVALID_DATA,
        Cause.MESSAGE_TOO_BIG,
        Cause.TOO_MANY_FRAGMENTS,
        Cause.RATE_LIMITED,
        Cause.SLOW_CONSUMER,
        Cause.MEMORY,
        Cause.MESSAGE_TIMEOUT,
    }
)
