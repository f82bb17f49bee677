"""The library socketify: uWebSockets, by way of CFFI."""

# socketify is not among what a checker of this project has installed.
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from typing import Any

from benchmark.peers import options
from socketify import App, AppListenOptions, CompressOptions

settings = options.parse()

BEHAVIOR = {
    "compression": (
        CompressOptions.DEDICATED_COMPRESSOR_32KB if settings.deflate else CompressOptions.DISABLED
    ),
    "max_payload_length": options.MAX_MESSAGE_SIZE,
    "max_backpressure": options.MAX_MESSAGE_SIZE,
    "idle_timeout": 120,
}


def subscribe(stream: Any) -> None:
    """Take part in what is published."""
    stream.subscribe("everybody")


def echo(stream: Any, message: Any, opcode: Any) -> None:
    """Send a message back."""
    stream.send(message, opcode, settings.deflate)


def publish(stream: Any, message: Any, opcode: Any) -> None:
    """Send a message to all others."""
    application.publish("everybody", message, opcode, False)


application = App()
application.ws("/", {**BEHAVIOR, "open": subscribe, "message": echo})
application.ws("/publish", {**BEHAVIOR, "message": publish})
application.listen(AppListenOptions(port=settings.port, host=options.HOST), lambda config: None)
application.run()
