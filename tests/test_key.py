"""Sec-WebSocket-Key and Sec-WebSocket-Accept."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from websocket import speedups
from websocket.key import accept_key, accept_key_pure, is_key, new_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_the_example_of_the_rfc() -> None:
    """RFC 6455, 1.3."""
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


needs_the_accelerator = pytest.mark.skipif(
    speedups.accept_key is None, reason="the accelerator is not in use"
)


@needs_the_accelerator
def test_both_ways_answer_the_same() -> None:
    for _ in range(5_000):
        key = new_key()
        assert accept_key(key) == accept_key_pure(key), key


@needs_the_accelerator
@pytest.mark.parametrize(
    ("key", "error"),
    [("", ValueError), (KEY[:-1], ValueError), (KEY + "=", ValueError), (KEY.encode(), TypeError)],
)
def test_the_accelerator_answers_nothing_but_a_key(key: Any, error: type[Exception]) -> None:
    assert speedups.accept_key is not None
    with pytest.raises(error):
        speedups.accept_key(key)


def test_a_new_key_is_well_formed_and_new() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_key(key) and len(base64.b64decode(key)) == 16 for key in keys)


def test_every_last_byte_makes_a_key() -> None:
    for last in range(256):
        key = base64.b64encode(bytes(15) + bytes([last])).decode()
        assert is_key(key) is True, key


@pytest.mark.parametrize(
    "text",
    [
        "",
        base64.b64encode(bytes(15)).decode(),
        base64.b64encode(bytes(17)).decode(),
        KEY[:-1],
        KEY + "=",
        KEY + " x",
        KEY + "\n",
        "!" + KEY[1:],
        "-" + KEY[1:],
        KEY[:10] + " " + KEY[11:],
        KEY[:21] + "R==",  # the same 16 bytes, but bits are set that belong to none of them
    ],
)
def test_anything_else_is_no_key(text: str) -> None:
    assert is_key(text) is False
