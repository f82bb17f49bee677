r"""Address keys: under which name the limits per address count a peer.

    peer                                key
    203.0.113.7                         203.0.113.7
    ::ffff:203.0.113.7                  203.0.113.7         the same host
    2001:db8:1:2:3:4:5:6, any zone      2001:db8:1:2::/64   one customer has all of it
    "", /run/app.sock, \0abstract        local               a Unix socket
    anything else                       unknown             one key for all that is not clear

The host is what the operating system says of the socket. What a header says (Forwarded,
X-Forwarded-For) must be parsed and trusted before it comes here: an empty string is a Unix
socket to these functions, and counts as loopback.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from websocket.limits import Limits

LOCAL = "local"
UNKNOWN = "unknown"

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_match_ipv4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}").fullmatch
_NETWORK_64 = ~(2**64 - 1)
# The second is that of ::1; no other peer has an address of this network.
_LOOPBACK_KEYS = frozenset({LOCAL, "::/64"})


def address_key(host: str) -> str:
    """Return the key under which limits count this host; see the module's table.

    Args:
        host: an address in text form, the path of a Unix socket, or the empty string.
    """
    address = _parse(host)
    if isinstance(address, str):
        return address
    return f"{IPv6Address(int(address) & _NETWORK_64)}/64"


def is_loopback(host: str) -> bool:
    """Tell whether the peer is on this machine: 127.0.0.0/8, ::1 or a Unix socket."""
    address = _parse(host)
    if isinstance(address, str):
        return address == LOCAL or address.startswith("127.")
    return address.is_loopback


def is_loopback_key(key: str) -> bool:
    """Tell whether a key is that of a peer on this machine."""
    return key in _LOOPBACK_KEYS or key.startswith("127.")


def is_exempt(key: str, limits: Limits) -> bool:
    """Tell whether the limits per address leave out what is counted under a key."""
    return limits.loopback_is_exempt and is_loopback_key(key)


def _parse(host: str) -> str | IPv6Address:
    """Return an IPv4 address as text, a real IPv6 address, LOCAL or UNKNOWN."""
    # First and without an object: most peers come this way, once per handshake.
    if _match_ipv4(host):
        return host
    if not host or host[0] in "/\0":
        return LOCAL
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    mapped = address.ipv4_mapped
    return address if mapped is None else str(mapped)
