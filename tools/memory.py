"""Measure what hostile peers cost a running server in memory.

    python3 tools/memory.py

Starts ``python -m websocket serve echo --compression`` and attacks it over loopback, one row of
the hostile catalogue after the other. Each row shows the growth of the server's peak resident
memory and how the attacker's connections ended. Linux only (it reads /proc). The figures belong
to the machine and the Python that they were taken on; the bound beside them does not.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from websocket import FrameReader, FrameWriter, Limits, Opcode
from websocket.assembler import Assembler
from websocket.frame import FIN, RSV1, parse_close

KIB = 1024
MIB = 1024 * KIB
TIMEOUT = 60.0

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)
_WRITER = FrameWriter(masks=True)


class Attack(NamedTuple):
    """Hold one row: what is sent, by how many, and what it may cost."""

    name: str
    connections: int
    send: Callable[[socket.socket], None]
    bound: str
    is_held: bool = False


def one_byte_fragments(sock: socket.socket) -> None:
    """Send an unfinished message in as many one-byte fragments as are allowed (H56)."""
    first = frame(Opcode.BINARY, b"x")
    sock.sendall(first + frame(Opcode.CONTINUATION, b"x") * (Limits().max_fragments - 1))
    # The pong tells that all of it has been read.
    sock.sendall(frame(FIN | Opcode.PING, b""))
    assert sock.recv(2) == bytes((FIN | Opcode.PONG, 0))


def endless_fragments(sock: socket.socket) -> None:
    """Send more one-byte fragments than are allowed (H56)."""
    send_until_cut(sock, frame(Opcode.BINARY, b"x") + frame(Opcode.CONTINUATION, b"x") * 131_000)


def ping_flood(sock: socket.socket) -> None:
    """Send 60,000 pings and read nothing (H73)."""
    send_until_cut(sock, frame(FIN | Opcode.PING, b"p" * 100) * 60_000)


def bomb(sock: socket.socket) -> None:
    """Send 24 MiB in a frame of some 24 KiB (H75)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = compressor.compress(bytes(24 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    send_until_cut(sock, frame(FIN | RSV1 | Opcode.BINARY, payload[:-4]))


def split_bomb(sock: socket.socket) -> None:
    """Send the same in 1,000 fragments (H75)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = compressor.compress(bytes(24 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    size = len(payload) // 1_000
    frames = [frame(RSV1 | Opcode.BINARY, payload[:size])]
    frames += [
        frame(Opcode.CONTINUATION, payload[at : at + size])
        for at in range(size, len(payload), size)
    ]
    send_until_cut(sock, b"".join(frames))


ATTACKS = (
    Attack("H56 4,096 one-byte fragments, held", 500, one_byte_fragments, "12 KiB each", True),
    Attack("H56 131,000 one-byte fragments", 20, endless_fragments, "1008 after 4,096"),
    Attack("H73 60,000 pings of 100 B, no reading", 20, ping_flood, "1008 after 50"),
    Attack("H75 24 MiB bomb in one frame", 20, bomb, "1009; 1 MiB + 64 KiB at once"),
    Attack("H75 the same in 1,000 fragments", 20, split_bomb, "1009; 1 MiB + 64 KiB at once"),
)


def frame(head: int, payload: bytes) -> bytes:
    """Return one masked frame."""
    return b"".join(_WRITER.encode(head, payload))


def send_until_cut(sock: socket.socket, data: bytes) -> None:
    """Send as much as the server takes before it closes."""
    try:
        sock.sendall(data)
    except (ConnectionError, TimeoutError):
        pass


@contextmanager
def served() -> Iterator[tuple[int, int]]:
    """Run a server; give its process id and port."""
    command = [sys.executable, "-m", "websocket", "serve", "echo", "--port", "0", "--compression"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            match = re.search(r", (\d+)\)", process.stderr.readline())
            assert match is not None, "the server did not start"
            yield process.pid, int(match.group(1))
        finally:
            process.kill()


def reset_peak(pid: int) -> None:
    """Make the present resident memory of a process its peak so far."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def peak(pid: int) -> int:
    """Return the most resident memory that a process had since the reset, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match.group(1)) * KIB


def open_connection(port: int) -> socket.socket:
    """Return a socket on which the opening handshake is over."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    sock.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    return sock


def ending(sock: socket.socket, patience: float) -> str:
    """Read to the end and return how the server closed; "open" when it did not in time."""
    reader = FrameReader(
        Assembler(Limits()), must_be_masked=False, max_message_size=Limits().max_message_size
    )
    sock.settimeout(patience)
    try:
        while data := sock.recv(65_536):
            for opcode, payload in reader.feed(data):
                if opcode == Opcode.CLOSE and isinstance(payload, bytes):
                    return str(parse_close(payload)[0])
    except TimeoutError:
        return "open"
    except ConnectionError:
        return "reset"
    return "end"


def run(attack: Attack) -> str:
    """Attack a fresh server, and return a row of the table."""
    with served() as (pid, port), ExitStack() as closing:
        closing.enter_context(open_connection(port))
        sockets = [closing.enter_context(open_connection(port)) for _ in range(attack.connections)]
        reset_peak(pid)
        before = peak(pid)
        for sock in sockets:
            attack.send(sock)
        patience = 0.005 if attack.is_held else TIMEOUT
        endings = sorted({ending(sock, patience) for sock in sockets})
        growth = peak(pid) - before
    each = growth / attack.connections / KIB
    return (
        f"| {attack.name} | {attack.connections} | {growth / KIB:,.0f} | {each:,.1f} "
        f"| {', '.join(endings)} | {attack.bound} |"
    )


def main() -> int:
    """Run all attacks and print the table."""
    if not Path("/proc/self/status").exists():
        print("memory: this needs Linux: it reads /proc", file=sys.stderr)
        return 2
    print(f"Python {sys.version.split()[0]} on {sys.platform}; growth of the peak in KiB")
    print("| attack | connections | growth | each | ended with | bound |")
    print("|---|---|---|---|---|---|")
    for attack in ATTACKS:
        print(run(attack), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
