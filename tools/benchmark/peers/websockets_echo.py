"""The library websockets, its asyncio server."""

from __future__ import annotations

import asyncio

from benchmark.peers import options
from websockets.asyncio.server import ServerConnection, broadcast, serve

settings = options.parse()
everybody: set[ServerConnection] = set()


async def serve_one(connection: ServerConnection) -> None:
    """Echo, or publish, for as long as the connection is open."""
    assert connection.request is not None
    if connection.request.path == "/publish":
        async for message in connection:
            broadcast(everybody, message)
        return
    everybody.add(connection)
    try:
        async for message in connection:
            await connection.send(message)
    finally:
        everybody.discard(connection)


async def main() -> None:
    """Listen until the process is ended."""
    async with serve(
        serve_one,
        options.HOST,
        settings.port,
        ssl=options.tls_context(settings),
        compression="deflate" if settings.deflate else None,
        max_size=options.MAX_MESSAGE_SIZE,
        backlog=options.BACKLOG,
    ):
        await asyncio.Event().wait()


options.run(settings, main())
