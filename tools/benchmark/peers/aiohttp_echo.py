"""The library aiohttp."""

from __future__ import annotations

import asyncio

from aiohttp import WSMessage, WSMsgType, web
from benchmark.peers import options

settings = options.parse()
everybody: set[web.WebSocketResponse] = set()


async def open_stream(request: web.Request) -> web.WebSocketResponse:
    """Do the opening handshake."""
    stream = web.WebSocketResponse(compress=settings.deflate, max_msg_size=options.MAX_MESSAGE_SIZE)
    await stream.prepare(request)
    return stream


async def send(stream: web.WebSocketResponse, message: WSMessage) -> None:
    """Send a message on, with its own type."""
    if message.type is WSMsgType.TEXT:
        await stream.send_str(message.data)
    elif message.type is WSMsgType.BINARY:
        await stream.send_bytes(message.data)


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Echo for as long as the connection is open."""
    stream = await open_stream(request)
    everybody.add(stream)
    try:
        async for message in stream:
            await send(stream, message)
    finally:
        everybody.discard(stream)
    return stream


async def publish(request: web.Request) -> web.WebSocketResponse:
    """Publish for as long as the connection is open."""
    stream = await open_stream(request)
    async for message in stream:
        for receiver in tuple(everybody):
            await send(receiver, message)
    return stream


async def main() -> None:
    """Listen until the process is ended."""
    application = web.Application()
    application.router.add_get("/", echo)
    application.router.add_get("/publish", publish)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(
        runner,
        options.HOST,
        settings.port,
        ssl_context=options.tls_context(settings),
        backlog=options.BACKLOG,
    )
    await site.start()
    await asyncio.Event().wait()


options.run(settings, main())
