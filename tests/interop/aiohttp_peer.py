"""An endpoint of aiohttp, as tests/foreign.py describes it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

# A web.WebSocketResponse or an aiohttp.ClientWebSocketResponse, which have the same methods and no
# common type.
WebSocket = Any

# Bytes in a line of input: a message of 1 MiB in base64, and more.
LINE_LIMIT = 8 * 1024 * 1024


def tell(*words: Any) -> None:
    """Write an event."""
    print(json.dumps(words, default=encode), flush=True)  # noqa: T201  # its way to speak


def encode(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode("ascii")}


def decode(value: dict[str, str]) -> bytes:
    return base64.b64decode(value["base64"])


class Endpoint:
    """Do what the lines of standard input say, on one connection at a time."""

    def __init__(self, *, has_deflate: bool) -> None:
        self._has_deflate = has_deflate
        self._websocket: WebSocket = None
        self._is_closed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._accept)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tell("listening", runner.addresses[0][1])

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=self._has_deflate, autoping=False)
        await websocket.prepare(request)
        tell("open")
        await self._attend(websocket)
        return websocket

    async def obey(self) -> None:
        """Carry out commands up to the end of the input."""
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            await self._obey(*json.loads(line, object_hook=decode))

    async def _obey(self, word: str, *words: Any) -> None:
        if word == "connect":
            task = asyncio.create_task(self._dial(*words))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        if word == "send":
            await self._send(*words)
        elif word == "fragments":
            # aiohttp sends no fragments.
            (pieces,) = words
            await self._send(pieces[0][:0].join(pieces))
        elif word == "ping":
            await self._websocket.ping(*words)
        elif word == "close":
            code, reason = words
            await self._websocket.close(code=code, message=reason.encode())
            tell("close", self._websocket.close_code, "")
            self._is_closed.set()

    async def _send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self._websocket.send_str(message)
        else:
            await self._websocket.send_bytes(message)

    async def _dial(self, url: str) -> None:
        compress = 15 if self._has_deflate else 0
        async with aiohttp.ClientSession() as session:
            try:
                websocket = await session.ws_connect(url, compress=compress, autoping=False)
            except aiohttp.WSServerHandshakeError as error:
                tell("refused", error.status)
                return
            tell("open")
            await self._attend(websocket)

    async def _attend(self, websocket: WebSocket) -> None:
        """Tell what arrives, up to the end of the connection."""
        self._websocket = websocket
        self._is_closed.clear()
        while True:
            message = await websocket.receive()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                tell("message", message.data)
            elif message.type is WSMsgType.PING:
                tell("ping", bytes(message.data))
                await websocket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                tell("pong", bytes(message.data))
            elif message.type is WSMsgType.CLOSE:
                tell("close", message.data, message.extra)
                return
            elif message.type is WSMsgType.CLOSING:
                # By our own command, which tells of the end. Who returns ends the connection.
                await self._is_closed.wait()
                return
            else:
                tell("close", websocket.close_code, "")
                return


async def main(role: str, deflate: str = "") -> None:
    """Run until standard input ends."""
    endpoint = Endpoint(has_deflate=deflate == "deflate")
    if role == "server":
        await endpoint.listen()
    await endpoint.obey()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
