"""Endpoints of other libraries, each in a process of its own: tell them what to do, and listen.

    peer = Peer(["node", "ws_peer.js", "server", "deflate"])
    peer.next()                             -> ("listening", 40123)
    peer.tell("send", "hello")

A line of JSON each way is one command or one event, a list that begins with a word; bytes stand in
it as ``{"base64": "..."}``. What the programs of ``tests/interop`` understand and tell:

    client [deflate]    connect URL     -> open, or refused STATUS
    server [deflate]                    -> listening PORT; open for each client, one at a time
    both                send MESSAGE
                        fragments [PIECE, ...]      as one message
                        ping PAYLOAD
                        close CODE REASON
                                        -> message MESSAGE, ping PAYLOAD, pong PAYLOAD
                                        -> close CODE REASON

They end with their standard input.
"""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from typing import Any

from threaded import TIMEOUT, Event, next_event

from websocket import Deflate

_TAKEOVER = {"compress_takeover": True, "inflate_takeover": True}
# Our ways of compression.
POLICIES: dict[str, bool | Deflate] = {
    "plain": False,
    "default": True,
    "takeover": Deflate(compress_bits=15, inflate_bits=15, threshold=0, **_TAKEOVER),
    "9 bits": Deflate(compress_bits=9, inflate_bits=9, threshold=0, **_TAKEOVER),
}


class Peer:
    """One such process.

    Args:
        command: starts it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._events: queue.Queue[Event] = queue.Queue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def tell(self, *words: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words, default=_to_json) + "\n")
        self._process.stdin.flush()

    def next(self) -> Event:
        """Wait for the next event and return it."""
        return next_event(self._events)

    def end(self) -> None:
        """End the process, which must have nothing left to say."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._thread.join(TIMEOUT)
        assert status == 0
        assert self.next() == ("ended",)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._events.put(tuple(json.loads(line, object_hook=_from_json)))
        # A test that waits for something else fails at once.
        self._events.put(("ended",))


def _to_json(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode("ascii")}


def _from_json(value: dict[str, str]) -> bytes:
    return base64.b64decode(value["base64"])
