"""The numbers of RFC 6455: opcodes (section 5.2) and close codes (section 7.4)."""

from __future__ import annotations

from enum import IntEnum


class Opcode(IntEnum):
    """Name what a frame carries (RFC 6455, 5.2)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

    @property
    def is_control(self) -> bool:
        """Tell whether this is a close, a ping or a pong (RFC 6455, 5.5)."""
        return self >= Opcode.CLOSE


# As plain numbers, for what is done with each frame: on Python 3.11, to look up a member of an
# enumeration takes as long as a call.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)


class CloseCode(IntEnum):
    """Name why a connection ends (RFC 6455, 7.4.1, and the IANA registry it founded)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_FAILED = 1015

    SESSION_REPLACED = 4000
    """Ours: the session was taken over by a newer connection of the same client."""


# RFC 6455, 7.4.1: 1004 is reserved; 1005, 1006 and 1015 exist only inside an endpoint.
_REGISTERED_ON_WIRE = frozenset(range(1000, 1015)) - {1004, 1005, 1006}


def is_valid_on_wire(code: int) -> bool:
    """Tell whether a close frame may carry this code (RFC 6455, 7.4.1 and 7.4.2).

    Args:
        code: the status code of a close frame, sent or received.

    Returns:
        True for the registered codes an endpoint may send, and for 3000-4999.
    """
    return code in _REGISTERED_ON_WIRE or 3000 <= code <= 4999
