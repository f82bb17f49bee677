"""One message by hand before each load: the generator counts replies, this compares them."""

from __future__ import annotations

import re
import socket
import ssl
import zlib
from collections.abc import Callable
from typing import NamedTuple

from benchmark.scenarios import TLS, Scenario
from benchmark.servers import HOST

_TIMEOUT = 10.0
_ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
_FIN, _RSV1, _MASKED = 0x80, 0x40, 0x80
_FIRST_CONTROL = 8


class WrongEcho(Exception):
    """Report in one line what was wrong with an echo."""


class Reply(NamedTuple):
    """Hold one frame from a server."""

    head: int
    payload: bytes


def verify_echo(port: int, scenario: Scenario) -> str:
    """Send a message of a load and compare what comes back; inflate it where it is compressed.

    Returns:
        What was agreed on, as the answer's Sec-WebSocket-Extensions; empty for nothing.

    Raises:
        WrongEcho: it is not what was sent.
        OSError: there was no answer.
    """
    payload = scenario.payload
    with _connect(port, TLS in scenario.needs) as sock, sock.makefile("rb") as stream:
        sock.sendall(_request(port, payload.is_compressed))
        head = _read_head(stream.readline)
        answer = re.search(rb"(?im)^Sec-WebSocket-Extensions:\s*(.*?)\r$", head)
        if payload.is_compressed and answer is None:
            raise WrongEcho("compression was not agreed on")
        sock.sendall(mask(scenario.payload.opcode, payload.on_the_wire()[0], payload.is_compressed))
        reply = Reply(_FIN | _FIRST_CONTROL, b"")
        while reply.head & 0x0F >= _FIRST_CONTROL:
            reply = read_frame(stream.read)
        compare(reply, payload.opcode, payload.messages()[0])
    return answer.group(1).decode("ascii", "replace") if answer else ""


def _connect(port: int, is_tls: bool) -> socket.socket:
    sock = socket.create_connection((HOST, port), timeout=_TIMEOUT)
    if not is_tls:
        return sock
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


def _request(port: int, is_compressed: bool) -> bytes:
    extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    return (
        f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{extension if is_compressed else ''}\r\n"
    ).encode()


def _read_head(read_line: Callable[[], bytes]) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = read_line()
        if not line:
            break
        head += line
    if not head.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in head:
        raise WrongEcho(f"the upgrade was answered by {head[:60]!r}")
    return head


def mask(opcode: int, payload: bytes, is_compressed: bool) -> bytes:
    """Return a client's final frame."""
    key = b"\x37\xfa\x21\x3d"  # of RFC 6455, 5.7
    head = bytes([_FIN | (_RSV1 if is_compressed else 0) | opcode])
    size = len(payload)
    if size < 126:
        head += bytes([_MASKED | size])
    elif size < 65_536:
        head += bytes([_MASKED | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([_MASKED | 127]) + size.to_bytes(8, "big")
    keys = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ keys).to_bytes(size, "big")


def read_frame(read: Callable[[int], bytes]) -> Reply:
    """Return the next frame of a server.

    Args:
        read: called with a number of bytes, as a file's method is.

    Raises:
        WrongEcho: the stream ended.
    """

    def read_exactly(size: int) -> bytes:
        data = read(size)
        if len(data) < size:
            raise WrongEcho("the connection was closed instead")
        return data

    head, size = read_exactly(2)
    if size >= 126:
        size = int.from_bytes(read_exactly(2 if size == 126 else 8), "big")
    return Reply(head, read_exactly(size))


def compare(reply: Reply, opcode: int, message: bytes) -> None:
    """Hold a reply against what was sent.

    Raises:
        WrongEcho: they differ.
    """
    payload = reply.payload
    if reply.head & _RSV1:
        inflater = zlib.decompressobj(-15)
        try:
            payload = inflater.decompress(payload + b"\x00\x00\xff\xff")
        except zlib.error as error:
            raise WrongEcho(f"the echo cannot be inflated: {error}") from None
    if reply.head & 0x8F != _FIN | opcode:
        raise WrongEcho(f"the echo begins with {reply.head:#04x}")
    if payload != message:
        raise WrongEcho(f"the echo of {len(message)} bytes differs: {payload[:20]!r}")
