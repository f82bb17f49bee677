"""Opening listening sockets: TCP over both families, Unix sockets with stale files.

Everything here happens before the loop has to do with the socket. The sockets come back
non-blocking and listening.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
from typing import Any

BACKLOG = 1024

_LACKS_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def open_tcp_sockets(
    host: str | None, port: int, *, backlog: int = BACKLOG, reuse_port: bool = False
) -> list[socket.socket]:
    """Listen on every address that a host name stands for.

    Args:
        host: a name or an address; None or ``""`` for all addresses of both families.
        port: 0 for any free port, the same one for all addresses.
        backlog: connections that the kernel completes before they are accepted.
        reuse_port: let several processes share the port (SO_REUSEPORT).

    Raises:
        OSError: an address cannot be bound; none stays open then. An IPv6 address beside
            others is passed over on a machine without IPv6.
    """
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((info[0], info[4]) for info in infos))
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            try:
                # All further addresses take the port that the first one was given.
                sock = _listen(family, (address[0], port, *address[2:]), backlog, reuse_port)
            except OSError as error:
                if error.errno not in _LACKS_FAMILY or len(addresses) == 1:
                    raise
                continue
            sockets.append(sock)
            port = sock.getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be bound")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def forget_unsent(sock: socket.socket) -> None:
    """Make ``close`` reset the connection, so that the system keeps nothing for the peer."""
    # Two integers, short ones on Windows: it lingers, for no time.
    setting = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    with contextlib.suppress(OSError):  # then it is kept for some minutes
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, setting)


def send_at_once(sock: socket.socket) -> None:
    """Switch Nagle's algorithm off on a TCP socket: the transport gathers writes already."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # reset already: the first read will say so
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close_socket(sock: socket.socket) -> None:
    """Close a socket, whatever the system says of it: the descriptor is gone in any case."""
    with contextlib.suppress(OSError):
        sock.close()


def _listen(family: int, address: Any, backlog: int, reuse_port: bool) -> socket.socket:
    with contextlib.ExitStack() as on_error:
        sock = on_error.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if sys.platform not in ("win32", "cygwin"):
            # Elsewhere: bind although old connections linger. On Windows: steal the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has a socket of its own: one that takes both shows mapped addresses.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(backlog)
        sock.setblocking(False)
        on_error.pop_all()
    return sock


def open_unix_socket(path: str, *, mode: int = 0o600, backlog: int = BACKLOG) -> socket.socket:
    """Listen on a Unix socket.

    A socket file that no process listens on any more is replaced; anything else at the path,
    a link or a living server's socket included, is left alone.

    Args:
        path: where the socket file is created.
        mode: its permission bits, in force before the first client can connect.
        backlog: connections that the kernel completes before they are accepted.

    Raises:
        OSError: the path is taken (EADDRINUSE) or cannot be created.
    """
    _remove_dead_socket(path)
    with contextlib.ExitStack() as on_error:
        sock = on_error.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.bind(path)
        on_error.callback(os.unlink, path)
        # Nobody can connect before listen(), so the mode has no window in which it is wrong.
        os.chmod(path, mode)
        sock.listen(backlog)
        sock.setblocking(False)
        on_error.pop_all()
    return sock


class SocketFile:
    """Remember the file of a Unix socket, to remove it at the end if it is still the same.

    Make it while the socket listens, and remove the file before the socket is closed: as long as
    it listens ``open_unix_socket`` leaves it alone, and the system gives its inode to no other.

    Args:
        path: where the socket file is.

    Raises:
        OSError: there is none.
    """

    __slots__ = ("_identity", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._identify()

    def remove(self) -> None:
        """Remove the file, unless it is gone, somebody else's, or the parent process's."""
        with contextlib.suppress(OSError):
            if self._identify() == self._identity:
                os.unlink(self._path)

    def _identify(self) -> tuple[int, int, int]:
        status = os.lstat(self._path)
        # A forked child has the object, too, but the file belongs to the parent.
        return os.getpid(), status.st_dev, status.st_ino


def _remove_dead_socket(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EADDRINUSE, "the path exists and is no socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # alive, with a full backlog
    raise OSError(errno.EADDRINUSE, "another process listens on the socket", path)
