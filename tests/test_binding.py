from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streams import Witness, needs_unix_sockets
from support import run_until
from tls_peer import certificate

from reactor import Listener, Reactor, Transport, open_unix_socket
from reactor.tls import ServerTLS
from websocket.binding import Binding


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    with Reactor() as reactor:
        yield reactor


def bind(host: str = "127.0.0.1", port: int = 0, **options: Any) -> Binding:
    settings: dict[str, Any] = {
        "unix_path": None,
        "sockets": None,
        "reuse_port": False,
        "tls": None,
    }
    return Binding(host, port, **{**settings, **options})


def assert_welcomed(
    reactor: Reactor, listener: Listener, witness: Witness, client: socket.socket
) -> None:
    """Check that a client that has connected is accepted, then close the listener."""
    with client:
        run_until(reactor, lambda: witness.events)
        assert witness.names == ["made"]
        listener.close()


def test_it_listens_on_an_address(reactor: Reactor) -> None:
    witness = Witness()
    listener = bind().listen(reactor, lambda: witness)
    (address,) = listener.addresses
    assert address[0] == "127.0.0.1"
    assert_welcomed(reactor, listener, witness, socket.create_connection(address))


@needs_unix_sockets
def test_the_file_of_its_unix_socket_goes_with_it(reactor: Reactor, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    binding = bind(unix_path=path)
    for _ in range(2):
        listener = binding.listen(reactor, Witness)
        assert os.path.lexists(path)
        listener.close()
        assert not os.path.lexists(path)


@needs_unix_sockets
def test_the_file_of_a_unix_socket_made_elsewhere_stays(reactor: Reactor, tmp_path: Path) -> None:
    """The one that systemd has made, say, who will start another server for it."""
    path = str(tmp_path / "s")
    bind(sockets=[open_unix_socket(path)]).listen(reactor, Witness).close()
    assert os.path.lexists(path)


@needs_unix_sockets
def test_a_unix_socket_goes_before_the_address(reactor: Reactor, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    witness = Witness()
    listener = bind(unix_path=path).listen(reactor, lambda: witness)
    assert listener.addresses == [path]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    assert_welcomed(reactor, listener, witness, client)


def test_sockets_made_elsewhere_go_before_everything(reactor: Reactor) -> None:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [sock.getsockname() for sock in made]
    witness = Witness()
    binding = bind(unix_path="/nowhere/s", sockets=iter(made))
    listener = binding.listen(reactor, lambda: witness)
    assert listener.addresses == addresses
    assert not any(sock.getblocking() for sock in made)
    assert_welcomed(reactor, listener, witness, socket.create_connection(addresses[1]))
    assert [sock.fileno() for sock in made] == [-1, -1]


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the system shares no ports")
def test_a_port_may_be_shared(reactor: Reactor) -> None:
    first = bind(reuse_port=True).listen(reactor, Witness)
    port = first.addresses[0][1]
    second = bind(port=port, reuse_port=True).listen(reactor, Witness)
    assert second.addresses == first.addresses
    with pytest.raises(OSError, match="in use"):
        bind(port=port).listen(reactor, Witness)


def test_it_may_listen_again_and_again(reactor: Reactor) -> None:
    binding = bind()
    for _ in range(3):
        witness = Witness()
        listener = binding.listen(reactor, [witness].pop)
        client = socket.create_connection(listener.addresses[0])
        assert_welcomed(reactor, listener, witness, client)


def test_the_certificate_decides_about_the_transport() -> None:
    assert bind().transport_factory is Transport
    assert bind().tls is None
    tls = ServerTLS(certificate("server"))
    binding = bind(tls=tls)
    assert binding.tls is tls
    assert binding.transport_factory == tls.make_transport
