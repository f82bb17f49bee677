"""Credentials for the opening handshake, as header fields to pass to ``connect``.

    connect(reactor, url, Client, headers=[basic_credentials("user", "password")])
    connect(reactor, url, Client, headers=[bearer_credentials(token)])

On the server's side ``authenticate`` reads them: ``parse_basic`` undoes the first.
"""

from __future__ import annotations

import base64
import re

# RFC 6750, 2.1: b64token.
_BEARER_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def basic_credentials(user: str, password: str, name: str = "Authorization") -> tuple[str, str]:
    """Return the header field for a user and a password (RFC 7617).

    Args:
        user: must not hold a colon.
        password: anything but control characters.
        name: "Proxy-Authorization" for a proxy.

    Raises:
        ValueError: a colon in the user, a control character, or half a surrogate pair.
    """
    if ":" in user:
        raise ValueError("a user name for Basic credentials must not hold a colon")
    pair = f"{user}:{password}"
    # RFC 7617, 2: neither of them may hold any.
    if _CONTROL.search(pair):
        raise ValueError("Basic credentials must not hold control characters")
    return name, "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def bearer_credentials(token: str) -> tuple[str, str]:
    """Return the header field for a bearer token (RFC 6750, 2.1).

    Raises:
        ValueError: the token holds other characters than the RFC allows.
    """
    if not _BEARER_TOKEN.fullmatch(token):
        raise ValueError("a bearer token holds letters, digits and -._~+/ only, then maybe =")
    return "Authorization", f"Bearer {token}"


def parse_basic(value: str) -> tuple[str, str] | None:
    """Return user and password of an Authorization field; None when it holds no such thing.

    Compare the password with ``hmac.compare_digest``, for unknown users too, so that the time
    that takes says nothing.

    Args:
        value: the field's value.
    """
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return None
    user, colon, password = pair.partition(":")
    return (user, password) if colon and not _CONTROL.search(pair) else None
