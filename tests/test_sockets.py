"""Listening sockets: every address of a name, and no socket file that is somebody else's."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from streams import needs_unix_sockets
from support import has_ipv6

from reactor import open_tcp_sockets, open_unix_socket
from reactor.sockets import SocketFile

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="the machine has no IPv6")

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close what is entered into it."""
    with ExitStack() as stack:
        yield stack


def listen(stack: ExitStack, host: str | None, port: int = 0, **options: Any) -> list[Any]:
    return [stack.enter_context(sock) for sock in open_tcp_sockets(host, port, **options)]


def can_connect(address: Any, family: int = IPV4) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        return client.connect_ex(address) == 0


# --- TCP -----------------------------------------------------------------------------------------


def test_an_address_gets_one_socket_that_listens_and_does_not_block(stack: ExitStack) -> None:
    (sock,) = listen(stack, "127.0.0.1")
    assert sock.family == IPV4
    assert sock.getblocking() is False
    assert can_connect(sock.getsockname())


@needs_ipv6
def test_an_ipv6_address_is_listened_on(stack: ExitStack) -> None:
    (sock,) = listen(stack, "::1")
    assert sock.family == IPV6
    assert can_connect(sock.getsockname(), IPV6)


@needs_ipv6
@pytest.mark.parametrize("host", ["", None])
def test_no_host_means_all_addresses_of_both_families_on_one_port(
    stack: ExitStack, host: str | None
) -> None:
    sockets = listen(stack, host)
    assert {sock.family for sock in sockets} == {IPV4, IPV6}
    (port,) = {sock.getsockname()[1] for sock in sockets}
    assert port > 0
    assert can_connect(("127.0.0.1", port))
    assert can_connect(("::1", port), IPV6)


@needs_ipv6
def test_an_ipv6_socket_takes_no_ipv4_connections(stack: ExitStack) -> None:
    (sock,) = listen(stack, "::")
    port = sock.getsockname()[1]
    assert can_connect(("::1", port), IPV6)
    assert not can_connect(("127.0.0.1", port))


def test_a_port_may_be_asked_for(stack: ExitStack) -> None:
    (first,) = listen(stack, "127.0.0.1")
    port = first.getsockname()[1]
    first.close()
    (second,) = listen(stack, "127.0.0.1", port)
    assert second.getsockname()[1] == port


def test_a_port_in_use_is_refused(stack: ExitStack) -> None:
    (first,) = listen(stack, "127.0.0.1")
    with pytest.raises(OSError, match="in use") as caught:
        open_tcp_sockets("127.0.0.1", first.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system has no SO_REUSEPORT")
def test_a_port_may_be_shared_if_all_agree(stack: ExitStack) -> None:
    (first,) = listen(stack, "127.0.0.1", reuse_port=True)
    (second,) = listen(stack, "127.0.0.1", first.getsockname()[1], reuse_port=True)
    assert first.getsockname() == second.getsockname()


@pytest.mark.skipif(os.name == "nt", reason="there the option means something else")
def test_a_port_with_lingering_old_connections_can_be_listened_on(stack: ExitStack) -> None:
    (first,) = listen(stack, "127.0.0.1")
    address = first.getsockname()
    with socket.create_connection(address) as client:
        accepted, _ = first.accept()
        accepted.close()  # closed first: it stays behind in TIME_WAIT
        assert client.recv(1) == b""
    first.close()
    (second,) = listen(stack, "127.0.0.1", address[1])
    assert can_connect(second.getsockname())


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, Any]) -> None:
    infos = [(family, socket.SOCK_STREAM, 6, "", address) for family, address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: infos)


def test_a_name_is_listened_on_at_each_of_its_addresses_once(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(
        monkeypatch,
        (IPV4, ("127.0.0.1", 0)),
        (IPV4, ("127.0.0.1", 0)),
        (IPV4, ("127.0.0.2", 0)),
    )
    names = [sock.getsockname() for sock in listen(stack, "example.com")]
    assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1] > 0


def test_an_address_that_this_machine_does_not_have_is_passed_over_beside_others(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """240.0.0.0/4 is reserved: no machine has an address of it (RFC 1112, section 4)."""
    resolve_to(monkeypatch, (IPV4, ("240.0.0.1", 0)), (IPV4, ("127.0.0.1", 0)))
    (sock,) = listen(stack, "example.com")
    assert sock.getsockname()[0] == "127.0.0.1"


def test_a_family_that_this_machine_does_not_have_is_passed_over_beside_others(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_socket = socket.socket

    def without_ipv6(family: int, *args: Any) -> socket.socket:
        if family == IPV6:
            raise OSError(errno.EAFNOSUPPORT, "address family not supported")
        return real_socket(family, *args)

    resolve_to(monkeypatch, (IPV6, ("::1", 0, 0, 0)), (IPV4, ("127.0.0.1", 0)))
    with monkeypatch.context() as patch:
        patch.setattr("reactor.sockets.socket.socket", without_ipv6)
        (sock,) = listen(stack, "example.com")
    assert sock.family == IPV4


def test_an_only_address_that_this_machine_does_not_have_is_refused() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        open_tcp_sockets("240.0.0.1", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_name_with_no_address_of_this_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, (IPV4, ("240.0.0.1", 0)), (IPV4, ("240.0.0.2", 0)))
    with pytest.raises(OSError, match=r"no address of 'example\.com' can be bound"):
        open_tcp_sockets("example.com", 0)


def test_none_stays_open_when_one_cannot_be_bound(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    (taken,) = listen(stack, "127.0.0.2")
    port = taken.getsockname()[1]
    resolve_to(monkeypatch, (IPV4, ("127.0.0.1", port)), (IPV4, ("127.0.0.2", port)))
    with pytest.raises(OSError, match="in use"):
        open_tcp_sockets("example.com", port)
    assert not can_connect(("127.0.0.1", port))


# --- Unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


def listen_unix(stack: ExitStack, path: str, **options: Any) -> socket.socket:
    return stack.enter_context(open_unix_socket(path, **options))


def can_connect_unix(path: str) -> bool:
    return can_connect(path, socket.AF_UNIX)


def assert_is_refused(path: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011  # what matters is the number
        open_unix_socket(path)
    assert caught.value.errno == errno.EADDRINUSE


@needs_unix_sockets
def test_a_unix_socket_listens_and_does_not_block(stack: ExitStack, path: str) -> None:
    sock = listen_unix(stack, path)
    assert sock.getblocking() is False
    assert can_connect_unix(path)


@needs_unix_sockets
@pytest.mark.parametrize("mode", [None, 0o600, 0o660, 0o666])
def test_its_mode_is_in_force_before_anybody_can_connect(
    stack: ExitStack, path: str, mode: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod = os.chmod
    could_connect: list[bool] = []

    def observed(path: str, mode: int) -> None:
        could_connect.append(can_connect_unix(path))
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", observed)
    listen_unix(stack, path, **({} if mode is None else {"mode": mode}))
    assert stat.S_IMODE(os.lstat(path).st_mode) == (mode or 0o600)
    assert could_connect == [False]


@needs_unix_sockets
def test_a_socket_file_that_nobody_listens_on_is_replaced(stack: ExitStack, path: str) -> None:
    listen_unix(stack, path).close()
    assert os.path.lexists(path)
    assert not can_connect_unix(path)
    listen_unix(stack, path)
    assert can_connect_unix(path)


@needs_unix_sockets
def test_a_living_servers_socket_is_left_alone(stack: ExitStack, path: str) -> None:
    listen_unix(stack, path)
    assert_is_refused(path)
    assert can_connect_unix(path)


@needs_unix_sockets
def test_a_living_server_that_is_too_busy_to_answer_is_left_alone(
    stack: ExitStack, path: str
) -> None:
    listen_unix(stack, path, backlog=0)
    for _ in range(64):
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        if client.connect_ex(path) == errno.EAGAIN:
            break
    else:
        pytest.skip("the system has room for more than was asked for")
    assert_is_refused(path)
    assert os.path.lexists(path)


@needs_unix_sockets
def test_a_regular_file_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    assert_is_refused(path)
    assert Path(path).read_text() == "precious"


@needs_unix_sockets
def test_a_directory_is_left_alone(tmp_path: Path) -> None:
    assert_is_refused(str(tmp_path))
    assert tmp_path.is_dir()


@needs_unix_sockets
@pytest.mark.parametrize("target", ["file", "dead socket", "nothing"])
def test_a_link_is_left_alone_and_so_is_what_it_points_to(
    stack: ExitStack, tmp_path: Path, path: str, target: str
) -> None:
    pointed_to = tmp_path / "target"
    if target == "file":
        pointed_to.write_text("precious")
    elif target == "dead socket":
        listen_unix(stack, str(pointed_to)).close()
    os.symlink(pointed_to, path)
    existed = pointed_to.exists()
    assert_is_refused(path)
    assert os.readlink(path) == str(pointed_to)
    assert pointed_to.exists() == existed


@needs_unix_sockets
def test_a_path_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_unix_socket(str(tmp_path / "missing" / "s"))


@needs_unix_sockets
def test_a_failure_after_binding_leaves_no_file_behind(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: int) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        open_unix_socket(path)
    assert not os.path.lexists(path)


# --- their files ---------------------------------------------------------------------------------


@needs_unix_sockets
def test_a_socket_file_can_be_removed(stack: ExitStack, path: str) -> None:
    listen_unix(stack, path)
    file = SocketFile(path)
    file.remove()
    assert not os.path.lexists(path)
    file.remove()


@needs_unix_sockets
@pytest.mark.parametrize("what", ["another server", "file", "link", "directory"])
def test_what_has_taken_its_place_is_left_alone(stack: ExitStack, path: str, what: str) -> None:
    listen_unix(stack, path)
    file = SocketFile(path)
    os.rename(path, path + ".old")
    if what == "another server":
        listen_unix(stack, path)
    elif what == "file":
        Path(path).write_text("precious")
    elif what == "link":
        os.symlink(path + ".old", path)
    else:
        os.mkdir(path)
    file.remove()
    assert os.path.lexists(path)
    assert can_connect_unix(path + ".old")


@needs_unix_sockets
def test_a_child_leaves_its_parents_file_alone(
    stack: ExitStack, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen_unix(stack, path)
    file = SocketFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        file.remove()
    assert can_connect_unix(path)


@needs_unix_sockets
def test_a_file_that_cannot_be_removed_is_no_error(stack: ExitStack, path: str) -> None:
    listen_unix(stack, path)
    file = SocketFile(path)
    moved = os.path.dirname(path) + ".old"
    os.rename(os.path.dirname(path), moved)
    file.remove()
    assert can_connect_unix(os.path.join(moved, os.path.basename(path)))


def test_there_is_no_socket_file_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SocketFile(str(tmp_path / "missing"))
