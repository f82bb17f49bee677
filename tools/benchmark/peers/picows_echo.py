"""The library picows. It hands out frames: UTF-8 is not checked, fragments are not joined."""

# picows has types only where it is installed, which a checker of this project need not have done.
# mypy: disable-error-code="import-not-found, import-untyped, misc"

from __future__ import annotations

from typing import Any

from benchmark.peers import options
from picows import WSListener, WSMsgType, ws_create_server

settings = options.parse()
everybody: set[Any] = set()


class Echo(WSListener):
    """Send every frame back."""

    def on_ws_connected(self, transport: Any) -> None:
        """Take part in what is published."""
        everybody.add(transport)

    def on_ws_disconnected(self, transport: Any) -> None:
        """Take part no more."""
        everybody.discard(transport)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Echo data, answer a close; pings are answered by the library."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


class Publish(WSListener):
    """Send every frame to all others."""

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        """Publish data."""
        if frame.msg_type in (WSMsgType.TEXT, WSMsgType.BINARY):
            payload = frame.get_payload_as_bytes()
            for receiver in everybody:
                receiver.send(frame.msg_type, payload)


def choose(request: Any) -> WSListener:
    """Return the listener for a path."""
    return Publish() if request.path in (b"/publish", "/publish") else Echo()


async def main() -> None:
    """Listen until the process is ended."""
    server = await ws_create_server(
        choose,
        options.HOST,
        settings.port,
        ssl=options.tls_context(settings),
        max_frame_size=options.MAX_MESSAGE_SIZE,
        backlog=options.BACKLOG,
    )
    await server.serve_forever()


options.run(settings, main())
