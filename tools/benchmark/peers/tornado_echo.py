"""The library tornado."""

# tornado is not among what a checker of this project has installed.
# mypy: disable-error-code="import-not-found, import-untyped, misc"

from __future__ import annotations

import asyncio
from typing import Any

from benchmark.peers import options
from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornado.websocket import WebSocketHandler

settings = options.parse()
everybody: set[Any] = set()


class Stream(WebSocketHandler):
    """What both paths share."""

    def get_compression_options(self) -> dict[str, Any] | None:
        """Agree to compression where it is asked for, with tornado's own settings."""
        return {} if settings.deflate else None

    def open(self) -> None:
        """Send small frames at once."""
        self.set_nodelay(True)


class Echo(Stream):
    """Send every message back."""

    def open(self) -> None:
        """Take part in what is published."""
        super().open()
        everybody.add(self)

    def on_close(self) -> None:
        """Take part no more."""
        everybody.discard(self)

    def on_message(self, message: str | bytes) -> None:
        """Echo."""
        self.write_message(message, binary=isinstance(message, bytes))


class Publish(Stream):
    """Send every message to all others."""

    def on_message(self, message: str | bytes) -> None:
        """Publish."""
        for receiver in everybody:
            receiver.write_message(message, binary=isinstance(message, bytes))


async def main() -> None:
    """Listen until the process is ended."""
    application = Application(
        [("/", Echo), ("/publish", Publish)],
        websocket_max_message_size=options.MAX_MESSAGE_SIZE,
    )
    server = HTTPServer(application, ssl_options=options.tls_context(settings))
    server.listen(settings.port, options.HOST, backlog=options.BACKLOG)
    await asyncio.Event().wait()


options.run(settings, main())
