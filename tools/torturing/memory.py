"""Rows about memory: what hostile peers may make the server hold."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator

from torturing.client import COMPRESSION, Client, Phase, frame, has_ended, request
from torturing.figures import Figure, exactly, percentile
from torturing.healthy import Listener
from torturing.process import ServerProcess
from torturing.swarm import Swarm, everyone, now_and_then
from websocket import Limits, Opcode
from websocket.frame import FIN, RSV1

KIB = 1024
MIB = 1024 * KIB
# What the interpreter itself takes once for whatever it has not done before.
_NOISE = 512 * KIB

_ONE_BYTE = frame(Opcode.BINARY, b"x"), frame(Opcode.CONTINUATION, b"x")


def held_fragments(connections: int = 500) -> Iterator[Figure]:
    """Send an unfinished message in as many one-byte fragments as are allowed (H56)."""
    fragments = Limits().max_fragments
    bound = 2 * fragments + 4 * KIB
    data = _ONE_BYTE[0] + _ONE_BYTE[1] * (fragments - 1)
    with ServerProcess() as server, Swarm(server.address) as swarm:
        clients = swarm.open_many(connections, Client)
        before = server.reset_peak()
        for client in clients:
            client.send_bytes(data)
        swarm.run_until(
            "all of it has been read",
            now_and_then(lambda: server.facts()["bytes_in"] >= connections * len(data)),
        )
        yield exactly("4,096 one-byte fragments: still open", swarm.counts[Phase.OPEN], connections)
        growth = (server.peak() - before) / connections
        yield Figure("growth for each", growth / KIB, "KiB", most=bound / KIB)


def endless_fragments() -> Iterator[Figure]:
    """Send more one-byte fragments than are allowed (H56)."""
    data = _ONE_BYTE[0] + _ONE_BYTE[1] * 131_000
    yield from cut("131,000 one-byte fragments", data, 1008, 20 * (16 * KIB) + _NOISE)


def ping_flood() -> Iterator[Figure]:
    """Send 60,000 pings and read nothing (H73)."""
    data = frame(FIN | Opcode.PING, b"p" * 100) * 60_000
    yield from cut("60,000 pings, nothing read", data, 1008, _NOISE, reads=False)


def bombs() -> Iterator[Figure]:
    """Send 24 MiB in some 24 KiB, in one frame and in a thousand (H75)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = compressor.compress(bytes(24 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    payload = payload[:-4]
    bound = MIB + 64 * KIB + _NOISE
    yield from cut("24 MiB bomb", frame(FIN | RSV1 | Opcode.BINARY, payload), 1009, bound)
    size = len(payload) // 1_000
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    frames = [frame(RSV1 | Opcode.BINARY, pieces[0])]
    frames += [frame(Opcode.CONTINUATION, piece) for piece in pieces[1:]]
    yield from cut("the same in 1,000 fragments", b"".join(frames), 1009, bound)


def cut(
    what: str, data: bytes, code: int, bound: int, connections: int = 20, *, reads: bool = True
) -> Iterator[Figure]:
    """Send something for which a server must close, by many at once.

    Args:
        what: this in words.
        data: what each client sends.
        code: with which code the server has to close.
        bound: by how many bytes the server may grow.
        connections: how many clients.
        reads: False when they read nothing until they are cut.
    """
    with ServerProcess(compression=True) as server, Swarm(server.address) as swarm:
        swarm.open_many(1, Client)  # and with it, what the first one costs
        clients = swarm.open_many(connections, Client, request=request("/", COMPRESSION))
        before = server.reset_peak()
        for client in clients:
            if not reads:
                client.pause()
            client.send_bytes(data)
        swarm.run_until("all are cut", everyone(clients, Client.is_cut))
        growth = server.peak() - before
        for client in clients:
            client.resume()
        swarm.run_until("all have read the end", everyone(clients, has_ended))
        codes = Counter(client.close_code for client in clients)
        yield exactly(f"{what}: closed with {code}", codes[code], connections)
        yield Figure(f"growth for {connections}", growth / KIB, "KiB", most=bound / KIB)


def slow_consumers(consumers: int = 20, listeners: int = 5) -> Iterator[Figure]:
    """Stop reading while the server keeps sending, to each and by broadcast (H86)."""
    for is_shared in (False, True):
        yield from _slow_consumers(consumers, listeners, is_shared=is_shared)


def _slow_consumers(consumers: int, listeners: int, *, is_shared: bool) -> Iterator[Figure]:
    size = 64 * KIB
    limits = Limits()
    # One message goes beyond the mark: it is looked at before each.
    bound = limits.write_hard_mark + 2 * size
    with ServerProcess(close_timeout=1) as server, Swarm(server.address) as swarm:
        latencies: list[float] = []
        push = request("/push")
        swarm.open_many(listeners, Listener, latencies=latencies, request=push)
        slow = swarm.open_many(consumers, Client, receive_buffer=64 * KIB, request=push)
        for client in slow:
            client.pause()
        before = server.reset_peak()
        server.get(f"/push?every=0.02&size={size}&shared={is_shared:d}")
        swarm.run_until(
            "all consumers are given up",
            now_and_then(lambda: server.facts()["closing"] == consumers),
        )
        growth = (server.peak() - before) / consumers
        # Half of them read on now, and find the close frame.
        late = slow[::2]
        for client in late:
            client.resume()
        swarm.run_until(
            "all consumers are cut",
            now_and_then(lambda: server.facts()["active"] == listeners),
        )
        causes = server.facts()["closed_by_cause"]
        swarm.run(0.5)
        unaware = consumers - sum(map(Client.is_cut, slow))
        # The others have been reset, and learn it now that they look.
        for client in slow[1::2]:
            client.resume()
        swarm.run(0.1)
        still_open = swarm.counts[Phase.OPEN]
    name = "broadcast" if is_shared else "sent to each"
    codes = Counter(client.close_code for client in late)
    yield exactly(f"{name}: ended as slow_consumer", causes["slow_consumer"], consumers)
    yield exactly(f"{name}: found 1008 when they read on", codes[1008], len(late))
    yield Figure(f"{name}: growth for each", growth / KIB, "KiB", most=bound / KIB)
    # What the kernel goes on to keep for them, after close() and without a reset.
    yield Figure(f"{name}: streams that half a second later still wait for their reader", unaware)
    yield exactly(f"{name}: others still open", still_open, listeners)
    lateness = percentile(latencies, 0.99)
    yield Figure(f"{name}: others late by, 99 %", lateness, "s", most=0.2)
