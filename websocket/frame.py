"""One frame, and the rules that judge it (RFC 6455, section 5).

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |F|R|R|R| opcode|M| length (7)  |   extended length, 16 or 64   |
   |I|S|S|S|  (4)  |A|             |   (where length is 126, 127)  |
   |N|V|V|V|       |S|             |                               |
   | |1|2|3|       |K|             |                               |
   +-+-+-+-+-------+-+-------------+-------------------------------+
   |  masking key (4 octets, where MASK is set)                    |
   +---------------------------------------------------------------+
   |  payload                                                      |
   +---------------------------------------------------------------+

Throughout the package ``head`` is the first octet of a frame: FIN, RSV1-3 and opcode as they
stand on the wire. Reading bits and judging them are different things: the reader extracts
numbers, the functions here are flat lists of rules with a named error each. The reader calls
them as soon as the octets they need have arrived (two, for the first octet and the mask bit),
before any payload is waited for.

Not here: rules about the order of frames and the size of messages (``assembler.py``).
"""

from __future__ import annotations

from websocket.errors import (
    ControlFrameTooLong,
    FragmentedControl,
    InvalidFrame,
    InvalidOpcode,
    InvalidPayload,
)
from websocket.opcodes import BINARY, TEXT, Opcode, is_valid_on_wire

FIN = 0x80
RSV1 = 0x40
RSV2 = 0x20
RSV3 = 0x10
OPCODE = 0x0F
MASK = 0x80

MAX_CONTROL_PAYLOAD = 125
MAX_CLOSE_REASON = MAX_CONTROL_PAYLOAD - 2

_OPCODES = frozenset(int(opcode) for opcode in Opcode)


class Frame:
    """Hold one frame as RFC 6455, 5.2 draws it: for tools and tests, and for reading logs.

    The connection's own path passes heads and payloads and makes no ``Frame``.

    Args:
        opcode: what the frame carries.
        payload: the application data, unmasked.
        fin: this is the last frame of its message.
        rsv1: the bit that permessage-deflate uses.
        rsv2: reserved.
        rsv3: reserved.
        mask: the masking key of a frame sent by a client, else None.
    """

    __slots__ = ("fin", "mask", "opcode", "payload", "rsv1", "rsv2", "rsv3")

    def __init__(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv1: bool = False,
        rsv2: bool = False,
        rsv3: bool = False,
        mask: bytes | None = None,
    ) -> None:
        self.fin = fin
        self.rsv1 = rsv1
        self.rsv2 = rsv2
        self.rsv3 = rsv3
        self.opcode = opcode
        self.mask = mask
        self.payload = payload

    @classmethod
    def from_head(cls, head: int, payload: bytes, mask: bytes | None = None) -> Frame:
        """Make a frame of its first octet and its unmasked payload."""
        return cls(
            head & OPCODE,
            payload,
            fin=bool(head & FIN),
            rsv1=bool(head & RSV1),
            rsv2=bool(head & RSV2),
            rsv3=bool(head & RSV3),
            mask=mask,
        )

    @property
    def head(self) -> int:
        """Return the first octet of the frame on the wire."""
        return (
            (FIN if self.fin else 0)
            | (RSV1 if self.rsv1 else 0)
            | (RSV2 if self.rsv2 else 0)
            | (RSV3 if self.rsv3 else 0)
            | self.opcode
        )

    @property
    def masked(self) -> bool:
        """Tell whether the frame carries a masking key."""
        return self.mask is not None

    def validate(self, *, rsv1_is_allowed: bool = False) -> None:
        """Judge the frame by all the rules of this module.

        Raises:
            ProtocolError: a subclass that names the rule.
        """
        judge_head(self.head, rsv1_is_allowed=rsv1_is_allowed)
        if self.opcode >= Opcode.CLOSE:
            judge_control(self.head, len(self.payload))
        if self.opcode == Opcode.CLOSE:
            parse_close(self.payload)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.head, self.mask, self.payload) == (other.head, other.mask, other.payload)

    __hash__ = None  # type: ignore[assignment]  # mutable, like a list

    def __repr__(self) -> str:
        name = Opcode(self.opcode).name if self.opcode in _OPCODES else f"opcode {self.opcode}"
        flags = [flag for flag in ("fin", "rsv1", "rsv2", "rsv3", "masked") if getattr(self, flag)]
        return f"<Frame {' '.join([name, *flags])} {len(self.payload)} bytes>"


def judge_head(head: int, *, rsv1_is_allowed: bool) -> None:
    """Judge the first octet of a frame.

    Args:
        head: the octet.
        rsv1_is_allowed: an extension that uses RSV1 is in use.

    Raises:
        InvalidFrame: a reserved bit is set.
        InvalidOpcode: the opcode is reserved.
    """
    opcode = head & OPCODE
    # RFC 6455, 5.2: RSV1-3 MUST be 0 unless an extension that defines them is negotiated.
    if head & (RSV2 | RSV3):
        raise InvalidFrame("reserved bit RSV2 or RSV3 is set")
    # RFC 7692, 6: RSV1 stands on the first frame of a message, never on a control frame.
    if head & RSV1 and (not rsv1_is_allowed or opcode not in (TEXT, BINARY)):
        raise InvalidFrame("reserved bit RSV1 is set")
    # RFC 6455, 5.2: if an unknown opcode is received, fail the connection.
    if opcode not in _OPCODES:
        raise InvalidOpcode(f"opcode {opcode} is reserved")


def judge_control(head: int, length: int) -> None:
    """Judge the form of a control frame.

    Args:
        head: the first octet; its opcode is that of a control frame.
        length: the payload's length, or the 7-bit length field.

    Raises:
        FragmentedControl: FIN is not set.
        ControlFrameTooLong: more than 125 octets of payload.
    """
    # RFC 6455, 5.5: control frames MUST NOT be fragmented.
    if not head & FIN:
        raise FragmentedControl("control frame is fragmented")
    # RFC 6455, 5.5: control frames MUST have a payload length of 125 bytes or less.
    if length > MAX_CONTROL_PAYLOAD:
        raise ControlFrameTooLong("control frame is longer than 125 bytes")


def judge_masking(is_masked: bool, *, must_be_masked: bool) -> None:
    """Judge the mask bit by the role of the sender.

    Raises:
        InvalidFrame: an unmasked frame of a client, or a masked one of a server.
    """
    # RFC 6455, 5.1: a client MUST mask all frames, a server MUST NOT mask any.
    if is_masked != must_be_masked:
        raise InvalidFrame(
            "client frame is not masked" if must_be_masked else "server frame is masked"
        )


def judge_extended_length(field: int, length: int) -> None:
    """Judge a length that was given in 16 or 64 bits.

    Args:
        field: the 7-bit length field, 126 or 127.
        length: the extended length.

    Raises:
        InvalidFrame: not the shortest form, or the most significant bit is set.
    """
    # RFC 6455, 5.2: the minimal number of bytes MUST be used to encode the length.
    if length < 126 or (field == 127 and length < 0x10000):
        raise InvalidFrame("length is not in its shortest form")
    # RFC 6455, 5.2: the most significant bit of a 64-bit length MUST be 0.
    if length >> 63:
        raise InvalidFrame("most significant bit of the length is set")


def parse_close(payload: bytes) -> tuple[int | None, str]:
    """Read the payload of a close frame.

    Returns:
        The close code and the reason; None and ``""`` for an empty payload.

    Raises:
        InvalidFrame: a payload of one octet, or a code that may not be sent.
        InvalidPayload: the reason is not UTF-8.
    """
    if not payload:
        return None, ""
    # RFC 6455, 5.5.1: if there is a body, its first two bytes MUST be the status code.
    if len(payload) == 1:
        raise InvalidFrame("close frame has half a close code")
    code = int.from_bytes(payload[:2], "big")
    # RFC 6455, 7.4: which codes may appear on the wire.
    if not is_valid_on_wire(code):
        raise InvalidFrame(f"close code {code} must not be sent")
    # RFC 6455, 5.5.1: the reason MUST be UTF-8.
    try:
        # Not str(payload[2:], "utf-8"), which lets surrogates pass on PyPy.
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise InvalidPayload("close reason is not valid UTF-8") from None


def build_close(code: int | None, reason: str = "") -> bytes:
    """Return the payload of a close frame.

    Args:
        code: a code that may be sent; None for an empty payload.
        reason: at most 123 bytes of UTF-8.

    Raises:
        ValueError: the code must not be sent, the reason is too long or not encodable, or
            there is a reason but no code.
    """
    if code is None:
        if reason:
            raise ValueError("a close reason needs a close code")
        return b""
    if not is_valid_on_wire(code):
        raise ValueError(f"close code {code} must not be sent: use 1000, or 3000 to 4999")
    encoded = reason.encode("utf-8")
    if len(encoded) > MAX_CLOSE_REASON:
        raise ValueError(f"close reason is {len(encoded)} bytes long: at most {MAX_CLOSE_REASON}")
    return code.to_bytes(2, "big") + encoded
