"""Sec-WebSocket-Key and its answer: the proof that both ends speak WebSocket.

For: both sides of the opening handshake. Not for: security; the key keeps caches and servers of
other protocols from being taken for WebSocket servers, nothing more (RFC 6455, 10.3 and 1.3).
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re

from websocket import speedups

# Copied for each key, because making one anew asks OpenSSL for the algorithm by name.
_SHA1 = hashlib.sha1(usedforsecurity=False)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# 16 bytes are 21 characters of 6 bits and one that holds the last 2, followed by zeros.
_KEY = re.compile(r"[0-9A-Za-z+/]{21}[AQgw]==")


def new_key() -> str:
    """Return a fresh Sec-WebSocket-Key: 16 random bytes in base64 (RFC 6455, 4.1)."""
    return binascii.b2a_base64(os.urandom(16), newline=False).decode("ascii")


def is_key(text: str) -> bool:
    """Tell whether ``text`` is the canonical base64 of 16 bytes."""
    return _KEY.fullmatch(text) is not None


def accept_key_pure(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a key (RFC 6455, 4.2.2).

    Args:
        key: the value of a Sec-WebSocket-Key, 24 characters that ``is_key`` has judged.
    """
    sha1 = _SHA1.copy()
    sha1.update(key.encode("latin-1") + _GUID)
    return binascii.b2a_base64(sha1.digest(), newline=False).decode("ascii")


# No faster in a loop of its own; in a server, between system calls, the objects that OpenSSL makes
# cost four times as much.
accept_key = speedups.accept_key or accept_key_pure
