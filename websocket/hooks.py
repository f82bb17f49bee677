"""What a server asks its application beside the connections: who is it, what page, who is gone.

The hooks are the application's, so nothing is taken for granted of what they return or raise: an
exception of ``authenticate`` or ``on_http_request`` goes to the opening handshake, which answers
500 for it, and ``on_session_expired`` costs nobody anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from websocket import events
from websocket.http11 import Request
from websocket.upgrade import HTTPResponse

if TYPE_CHECKING:
    from websocket.session import Session

_NOT_FOUND = HTTPResponse("this is a WebSocket server, and no page\n", 404)


class Hooks:
    """Call the hooks of one server; see ``Server`` for what they are."""

    __slots__ = ("_authenticate", "_on_http_request", "_on_session_expired")

    def __init__(
        self,
        authenticate: Callable[[Request], str | None] | None,
        on_http_request: Callable[[Request], HTTPResponse | None] | None,
        on_session_expired: Callable[[Session], object] | None,
    ) -> None:
        self._authenticate = authenticate
        self._on_http_request = on_http_request
        self._on_session_expired = on_session_expired

    def authenticate(self, request: Request) -> str | None:
        """Return the user's id, or None for nobody in particular.

        Raises:
            HandshakeError: the user may not connect.
            TypeError: the hook returned something else.
        """
        if self._authenticate is None:
            return None
        user_id = self._authenticate(request)
        if user_id is not None and not isinstance(user_id, str):
            raise TypeError(f"authenticate() returned {type(user_id).__name__}, not str or None")
        return user_id

    def answer_http(self, request: Request) -> HTTPResponse:
        """Return the answer to a plain request."""
        response = None
        if self._on_http_request is not None:
            response = self._on_http_request(request)
        return _NOT_FOUND if response is None else response

    @property
    def allow(self) -> str:
        """The methods that are allowed, for the Allow field of a refusal."""
        return "GET" if self._on_http_request is None else "GET, HEAD"

    def session_expired(self, session: Session) -> None:
        """Tell of a session that came to its end."""
        try:
            if self._on_session_expired is not None:
                self._on_session_expired(session)
        except Exception as error:
            # It must not cost the connection of the session its on_close.
            events.hook_failed("on_session_expired", error)
