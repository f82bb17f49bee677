"""Our server, with everything on: limits, sessions, statistics, keepalive, strict checks."""

from __future__ import annotations

from benchmark.peers import options

from reactor import Reactor
from websocket import Connection, Limits, Server

# The one limit that a load would hit: idle.py holds up to 19,500 connections, and by default there
# are at most 10,000. All others have their defaults.
LIMITS = Limits(max_connections=19_900)


class Echo(Connection):
    """Send every message back."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Echo."""
        self.send(message)


class Publish(Connection):
    """Send every message to all others."""

    __slots__ = ()

    def on_message(self, message: str | bytes) -> None:
        """Publish."""
        server.broadcast(message, to=[each for each in server.connections if each is not self])


settings = options.parse()
tls = None
if settings.tls is not None:
    # Here, because without TLS nobody would load it.
    from reactor.tls import ServerTLS

    tls = ServerTLS(settings.tls, settings.tls)
server = Server(
    {"/": Echo, "/publish": Publish},
    options.HOST,
    settings.port,
    limits=LIMITS,
    compression=settings.deflate,
    tls=tls,
    reactor=Reactor(busy_poll=settings.busy_poll),
)
server.run()
