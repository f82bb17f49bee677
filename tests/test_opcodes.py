from __future__ import annotations

from frame_table import SENDABLE_CODES, VALID_OPCODES
from offence_table import FORBIDDEN_CODES

from websocket.opcodes import CloseCode, Opcode, is_valid_on_wire


def test_the_opcodes_are_the_rfcs() -> None:
    """RFC 6455, 5.2."""
    assert sorted(Opcode) == sorted(VALID_OPCODES)
    assert [opcode for opcode in Opcode if opcode.is_control] == [8, 9, 10]


def test_which_close_codes_may_be_on_the_wire() -> None:
    """RFC 6455, 7.4."""
    allowed = {code for code in range(-10, 70_000) if is_valid_on_wire(code)}
    assert allowed == {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert allowed.issuperset(SENDABLE_CODES)
    assert allowed.isdisjoint(FORBIDDEN_CODES)


def test_of_the_named_close_codes_three_never_leave_the_endpoint() -> None:
    """RFC 6455, 7.4.1."""
    assert {code for code in CloseCode if not is_valid_on_wire(code)} == {1005, 1006, 1015}
