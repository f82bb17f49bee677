r"""The opening handshake, the server's half: judge a request, answer it (RFC 6455, 4.2).

For: deciding from a parsed request whether it becomes a WebSocket connection, and writing the
answer. Not for: users and passwords, limits on numbers of connections, routes (``server.py``),
or the grammar of HTTP (``http11.py``, which has already judged it).

    request -> is_upgrade? -- no --> plain HTTP: judge_host, then the caller's hook
                  | yes
               Upgrader.judge -> Upgrade --------> accept_response  101
                             \-> HandshakeError -> refusal          400 403 405 426

The rules, in the order of judging:

    405   the method is not GET
    403   the host is none of ours (DNS rebinding)
    426   HTTP/1.0 where only HTTP/1.1 is allowed; Upgrade does not name websocket;
          Connection does not name upgrade; the version is not 13
    400   there is not exactly one well-formed key
    403   the web page it comes from is not allowed (cross-site WebSocket hijacking)
    400   the lists of subprotocols or extensions are malformed
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from websocket.errors import HandshakeError
from websocket.headers import Headers, has_token, is_extension_list, parse_tokens
from websocket.http11 import Request, build_fields, build_response
from websocket.key import accept_key, is_key
from websocket.origin import (
    Authority,
    Origin,
    effective_port,
    is_same_origin,
    parse_authority,
    parse_origin,
)

SAME_ORIGIN = "same-origin"

# RFC 9110, 15.5.22: a 426 says what to upgrade to; RFC 6455, 4.4: and which version.
_UPGRADE_REQUIRED = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
)
_ASKED_BY_HANDSHAKE = frozenset(
    {
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
    }
)
# As browsers and most libraries write them; any other spelling takes the longer way.
_USUAL_CONNECTIONS = frozenset({"Upgrade", "upgrade", "keep-alive, Upgrade"})
_SWITCHING = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
# RFC 9110, 8.6: a 1xx has no Content-Length; the others are agreed on, not added.
_SET_BY_HANDSHAKE = frozenset(
    {
        "upgrade",
        "connection",
        "sec-websocket-accept",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "content-length",
        "transfer-encoding",
    }
)


class Upgrade(NamedTuple):
    """Hold what was agreed on with a request that may become a WebSocket connection.

    Attributes:
        accept: the value of Sec-WebSocket-Accept.
        subprotocol: the chosen one, None when there is none in common.
    """

    accept: str
    subprotocol: str | None


class Upgrader:
    """Judge opening handshakes by a server's policy; immutable, one per server.

    Args:
        subprotocols: what the server speaks, the preferred one first.
        allowed_origins: the origins whose pages may connect, exactly ("https://example.com");
            ``SAME_ORIGIN`` among them, and by default alone, stands for the origin that was
            connected to, on loopback as anywhere. None lets every page of the web in, with the
            cookies of its visitors (RFC 6455, 10.2).
        require_origin: True to refuse clients that send no Origin, as no browser does.
        allowed_hosts: the names under which the server is reached, "name" for any port or
            "name:port"; None for all. To set on loopback and in private networks, where a page
            can point its own name at the server (DNS rebinding).
        strict_http: True to refuse an upgrade in HTTP/1.0, as RFC 9110, 7.8 has it.

    Raises:
        ValueError: a subprotocol is no token or there twice; an origin or host is malformed.
    """

    __slots__ = (
        "_hosts",
        "_is_same_origin_allowed",
        "_origins",
        "require_origin",
        "strict_http",
        "subprotocols",
    )

    def __init__(
        self,
        subprotocols: Sequence[str] = (),
        *,
        allowed_origins: Collection[str] | None = (SAME_ORIGIN,),
        require_origin: bool = False,
        allowed_hosts: Collection[str] | None = None,
        strict_http: bool = False,
    ) -> None:
        self.subprotocols = tuple(parse_tokens(_collection("subprotocols", subprotocols)))
        self.require_origin = require_origin
        self.strict_http = strict_http
        self._is_same_origin_allowed = False
        self._origins: frozenset[Origin] | None = None
        if allowed_origins is not None:
            origins = set(_collection("allowed_origins", allowed_origins))
            self._is_same_origin_allowed = SAME_ORIGIN in origins
            self._origins = frozenset(map(parse_origin, origins - {SAME_ORIGIN}))
        self._hosts: frozenset[Authority] | None = None
        if allowed_hosts is not None:
            hosts = _collection("allowed_hosts", allowed_hosts)
            self._hosts = frozenset(map(parse_authority, hosts))

    def judge(
        self,
        request: Request,
        *,
        is_secure: bool = False,
        subprotocols: Sequence[str] | None = None,
        allow: str = "GET",
    ) -> Upgrade:
        """Return what to agree on with a client.

        Args:
            request: the request, whether it asks for an upgrade or not.
            is_secure: whether it came through TLS, here or at a trusted proxy.
            subprotocols: those of the route, instead of the server's.
            allow: the methods for the Allow field of a 405: "GET, HEAD" where plain requests
                are answered too.

        Raises:
            HandshakeError: the refusal, by the table at the top of this module.
        """
        headers = request.headers
        # RFC 6455, 4.2.1: the method is GET; RFC 9110, 15.5.6: a 405 names what is allowed.
        if request.method != "GET":
            raise HandshakeError(405, f"use one of: {allow}", (("Allow", allow),))
        self.judge_host(request, is_secure=is_secure)
        self._judge_upgrade(request)
        key = _judge_key(headers)
        present = headers.first
        if "origin" in present or self.require_origin:
            self._judge_origin(request, is_secure)
        subprotocol = None
        if "sec-websocket-protocol" in present:
            ours = self.subprotocols if subprotocols is None else subprotocols
            subprotocol = _choose_subprotocol(ours, headers)
        if "sec-websocket-extensions" in present:
            _judge_extensions(headers)
        return Upgrade(accept_key(key), subprotocol)

    def judge_host(self, request: Request, *, is_secure: bool = False) -> None:
        """Refuse a request for a host that is none of ours; for plain requests as well.

        Args:
            request: the request.
            is_secure: whether it came through TLS; says which port is the default.

        Raises:
            HandshakeError: 403.
        """
        if self._hosts is None:
            return
        if request.authority is not None:
            host = request.authority.host
            port = effective_port(request.authority, is_secure)
            if Authority(host, None) in self._hosts or Authority(host, port) in self._hosts:
                return
        raise HandshakeError(403, "this host is not served here: see allowed_hosts")

    def _judge_upgrade(self, request: Request) -> None:
        """Refuse what does not ask for WebSocket, version 13 (RFC 6455, 4.2.1 and 4.4)."""
        headers = request.headers
        # RFC 9110, 7.8: a server ignores Upgrade in HTTP/1.0; being lenient is the default.
        if self.strict_http and request.http_version == "1.0":
            raise _upgrade_required("a WebSocket needs HTTP/1.1")
        first = headers.first
        if first.get("upgrade") != "websocket" and not has_token(
            headers.get_all("upgrade"), "websocket"
        ):
            raise _upgrade_required("this is a WebSocket: send Upgrade: websocket")
        if first.get("connection") not in _USUAL_CONNECTIONS and not has_token(
            headers.get_all("connection"), "upgrade"
        ):
            raise _upgrade_required("Upgrade goes with Connection: Upgrade; is a proxy between?")
        if headers.get_only("sec-websocket-version") != "13":
            raise _upgrade_required("only Sec-WebSocket-Version 13 is spoken here")

    def _judge_origin(self, request: Request, is_secure: bool) -> None:
        """Refuse pages of other sites (RFC 6455, 10.2)."""
        values = request.headers.get_all("origin")
        if not values:
            raise HandshakeError(403, "only web pages may connect: send Origin")
        if self._origins is None:
            return
        try:
            (text,) = values
            origin = parse_origin(text)
        except ValueError:
            raise HandshakeError(403, "the Origin is malformed") from None
        if origin in self._origins:
            return
        authority = request.authority if self._is_same_origin_allowed else None
        if authority is not None and is_same_origin(origin, authority, is_secure):
            return
        raise HandshakeError(403, "pages of this Origin may not connect: see allowed_origins")


def is_upgrade(request: Request) -> bool:
    """Tell whether a request is to be judged as an opening handshake, even a broken one.

    Plain are GET and HEAD without Upgrade and without any Sec-WebSocket field. Connection alone
    says nothing: some proxies send ``Connection: upgrade`` with every request.
    """
    return request.method not in ("GET", "HEAD") or not _ASKED_BY_HANDSHAKE.isdisjoint(
        request.headers.first
    )


def accept_response(
    upgrade: Upgrade,
    headers: Iterable[tuple[str, str]] = (),
    extensions: str | None = None,
    cookie: str | None = None,
) -> bytes:
    """Return the 101 that turns a request into a WebSocket connection (RFC 6455, 4.2.2).

    The status line says HTTP/1.1 to an HTTP/1.0 request too: 101 came with HTTP/1.1, and clients
    check for it.

    Args:
        upgrade: what ``Upgrader.judge`` returned for the request.
        headers: further fields, for example Set-Cookie.
        extensions: what was accepted, as the value of Sec-WebSocket-Extensions.
        cookie: a value of Set-Cookie that the server itself has made: it is not checked.

    Raises:
        ValueError: a further field is illegal, or one that only the handshake may set.
    """
    head = f"{_SWITCHING}Sec-WebSocket-Accept: {upgrade.accept}\r\n"
    if cookie is not None:
        head += f"Set-Cookie: {cookie}\r\n"
    if upgrade.subprotocol is not None:
        head += f"Sec-WebSocket-Protocol: {upgrade.subprotocol}\r\n"
    if extensions is not None:
        head += f"Sec-WebSocket-Extensions: {extensions}\r\n"
    return head.encode("ascii") + (build_fields(headers, _SET_BY_HANDSHAKE) if headers else b"\r\n")


def refusal(
    error: HandshakeError,
    request: Request | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return the complete response that refuses a request; close the connection after it.

    Args:
        error: the reason; its message becomes the body.
        request: what is refused, None when it could not even be parsed. Says whether to answer
            in HTTP/1.0, and whether to leave the body out (HEAD).
        headers: further fields, for example Date.
    """
    return build_response(
        error.status,
        [("Content-Type", "text/plain; charset=utf-8"), *error.headers, *headers],
        f"{error.message}\n".encode(),
        http_version="1.1" if request is None else request.http_version,
        is_head=request is not None and request.method == "HEAD",
    )


def _upgrade_required(message: str) -> HandshakeError:
    return HandshakeError(426, message, _UPGRADE_REQUIRED)


def _judge_key(headers: Headers) -> str:
    """Return the key; RFC 6455, 4.2.1: one field, base64 of 16 bytes."""
    key = headers.get_only("sec-websocket-key")
    if key is None:
        raise HandshakeError(400, "send Sec-WebSocket-Key exactly once")
    if not is_key(key):
        raise HandshakeError(400, "Sec-WebSocket-Key is not the base64 of 16 bytes")
    return key


def _choose_subprotocol(ours: Sequence[str], headers: Headers) -> str | None:
    """Return the first of ours that the client offers (RFC 6455, 4.2.2).

    RFC 6455, 4.1: what it offers are distinct tokens; judged even where we speak none.
    """
    try:
        offered = frozenset(parse_tokens(headers.get_all("sec-websocket-protocol")))
    except ValueError as error:
        raise HandshakeError(400, f"Sec-WebSocket-Protocol is malformed: {error}") from None
    return next((name for name in ours if name in offered), None)


def _judge_extensions(headers: Headers) -> None:
    """Refuse a malformed list; RFC 6455, 9.1: a well-formed one may be declined silently."""
    if not all(map(is_extension_list, headers.get_all("sec-websocket-extensions"))):
        raise HandshakeError(400, "Sec-WebSocket-Extensions is malformed")


def _collection(name: str, values: Collection[str]) -> Collection[str]:
    """Catch the string that was meant to be a list of one."""
    if isinstance(values, str):
        raise ValueError(f"{name} takes a list of strings, not one string: [{values!r}]")
    return values
