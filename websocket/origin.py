"""Hosts and origins: parsed once, then compared as wholes.

For: the ``host[:port]`` of Host, URLs and configuration, and the ``scheme://host[:port]`` of
Origin (RFC 6454). Not for: which of them are allowed; that is ``handshake.Upgrader``.

Text is never compared: every look-alike (suffix, prefix, ``example.com:80`` before ``8080``,
userinfo, another spelling of an IPv6 address) is either malformed here or differs in a part.

    "Example.COM:443"            Authority("example.com", 443)
    "[0:0::1]"                   Authority("::1", None)
    "https://example.com"        Origin("https", "example.com", 443)
    "null"                       Origin("null", "", None), equal to no origin of a server
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# RFC 1035, 2.3.4: a name has at most 255 octets; the rest is brackets and port.
_MAX_LENGTH = 264

# RFC 3986, 3.2.2, without the percent-encoding and the sub-delimiters of reg-name: no host that
# can be looked up has them, and a comma would let a list of hosts pass as one.
_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._~\-]+))(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][0-9A-Za-z+.\-]*)://(?P<authority>.+)")


class Authority(NamedTuple):
    """Say which host and port are meant (RFC 3986, 3.2).

    Attributes:
        host: in lower case; an IPv6 address in its canonical form, without brackets.
        port: None when not given.
    """

    host: str
    port: int | None


class Origin(NamedTuple):
    """Say where a web page came from (RFC 6454).

    Attributes:
        scheme: in lower case.
        host: as in ``Authority``.
        port: the scheme's default when not given, None for a scheme that has none.
    """

    scheme: str
    host: str
    port: int | None


# A server sees the same few hosts and origins again and again. Errors are not remembered, and the
# length is bounded, so that nobody can fill the memory with them.
@lru_cache(maxsize=256)
def parse_authority(text: str) -> Authority:
    """Return the host and port of ``host[:port]``.

    Raises:
        ValueError: it is anything else: empty, a list, with userinfo, a port above 65535, an
            IPv6 address that is none or lacks its brackets.
    """
    match = _AUTHORITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise ValueError("not of the form host[:port]")
    ipv6, name, port = match.groups()
    if port and int(port) > 65535:
        raise ValueError("the port is above 65535")
    host = name.lower() if ipv6 is None else _canonical_ipv6(ipv6)
    return Authority(host, int(port) if port else None)


def _canonical_ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except ValueError:
        raise ValueError("not an IPv6 address between the brackets") from None


@lru_cache(maxsize=256)
def parse_origin(text: str) -> Origin:
    """Return the parts of a serialised origin (RFC 6454, 6.2).

    Raises:
        ValueError: it is anything else: with a path, with userinfo, a list, without a host.
    """
    if text == "null":
        return Origin("null", "", None)
    match = _ORIGIN.fullmatch(text) if len(text) <= 2 * _MAX_LENGTH else None
    if match is None:
        raise ValueError("not of the form scheme://host[:port]")
    scheme = match["scheme"].lower()
    host, port = parse_authority(match["authority"])
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else port)


def effective_port(authority: Authority, is_secure: bool) -> int:
    """Return the port that is meant where none is given.

    Args:
        authority: what the client asked for.
        is_secure: whether it came through TLS.
    """
    return (443 if is_secure else 80) if authority.port is None else authority.port


def is_same_origin(origin: Origin, authority: Authority, is_secure: bool) -> bool:
    """Tell whether a page comes from the very server it connects to (RFC 6454, 5).

    Args:
        origin: where the page came from.
        authority: what the client asked for.
        is_secure: whether it came through TLS.
    """
    scheme = "https" if is_secure else "http"
    return origin == (scheme, authority.host, effective_port(authority, is_secure))
