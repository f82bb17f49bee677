"""Whom a TLS server shows itself as, whom it lets in, and whom a client believes."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streams import Echo, Witness
from tls_peer import (
    AUTHORITY,
    TLSPeer,
    TLSStage,
    certificate,
    serving_context,
    trusting_context,
)

from reactor.tls import ServerTLS, client_context


@pytest.fixture
def stage() -> Iterator[TLSStage]:
    with TLSStage() as stage:
        yield stage


class Server:
    """A server's files in a folder of their own, to be replaced while it runs."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        self.install("server")
        self.tls = ServerTLS(str(self.certificate), str(self.key))

    def install(self, name: str, key: str | None = None) -> None:
        self.certificate.write_bytes(Path(certificate(name)).read_bytes())
        self.key.write_bytes(Path(certificate(key or name)).read_bytes())

    def connect(self, stage: TLSStage) -> TLSPeer:
        """Return a client after its handshake; it gets back what it sends."""
        _, peer = stage.server(Echo(), self.tls)
        stage.settle()
        assert peer.is_ready
        return peer


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


# --- whom a client believes (H128) ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_client_believes_a_server_that_an_authority_vouches_for(
    stage: TLSStage, name: str
) -> None:
    witness = Witness()
    transport, peer = stage.client(witness, server_hostname=name)
    transport.write(b"hello")
    stage.settle()
    assert peer.received == b"hello"
    assert not witness.is_lost


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param("server", "example.org", id="another name"),
        pytest.param("server", "127.0.0.2", id="another address"),
        pytest.param("stranger", "example.org", id="signed by itself"),
        pytest.param("stranger", "localhost", id="signed by itself, another name"),
        pytest.param("expired", "localhost", id="expired"),
    ],
)
def test_a_client_refuses_a_server_that_is_not_the_right_one_and_tells_it_nothing(
    stage: TLSStage, shown: str, expected: str
) -> None:
    def tell(transport: object) -> None:
        witness.transport.write(b"secret")

    witness = Witness(made=tell)
    _, peer = stage.client(witness, server_hostname=expected, server=serving_context(shown))
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ssl.SSLCertVerificationError)
    assert peer.received == b""
    assert peer.error is not None  # the server has been told why


def test_a_client_trusts_the_authorities_of_the_system_only_unless_told(stage: TLSStage) -> None:
    witness = Witness()
    stage.client(witness, context=client_context())
    stage.settle()
    assert isinstance(witness.losses[0], ssl.SSLCertVerificationError)


def test_a_client_sends_the_name_and_offers_http_1_1(stage: TLSStage) -> None:
    def note(tls: object, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)

    names: list[str | None] = []
    serving = serving_context()
    serving.set_alpn_protocols(["h2", "http/1.1"])
    serving.sni_callback = note
    transport, peer = stage.client(Witness(), server=serving)
    stage.settle()
    assert names == ["localhost"]
    assert peer.tls.selected_alpn_protocol() == "http/1.1"
    assert transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


# --- what a server speaks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
def test_a_server_speaks_http_1_1_and_leaves_others_to_find_out(
    stage: TLSStage, offered: list[str], chosen: str | None
) -> None:
    context = trusting_context()
    if offered:
        context.set_alpn_protocols(offered)
    _, peer = stage.server(Echo(), context=context)
    stage.settle()
    assert peer.is_ready
    assert peer.tls.selected_alpn_protocol() == chosen


def test_a_client_of_tls_1_1_is_refused(stage: TLSStage) -> None:
    context = trusting_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    witness = Witness()
    _, peer = stage.server(witness, context=context)
    peer.step()
    assert peer.error is None, "this OpenSSL does not even offer it"
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ssl.SSLError)
    assert witness.losses[0].reason == "UNSUPPORTED_PROTOCOL"


def test_renegotiation_and_compression_are_off() -> None:
    for context in (ServerTLS(certificate("server")).context, client_context(AUTHORITY)):
        assert context.options & getattr(ssl, "OP_NO_RENEGOTIATION", 1 << 30)
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


# --- whom a server lets in -----------------------------------------------------------------------


@pytest.fixture
def strict() -> ServerTLS:
    return ServerTLS(certificate("server"), client_authorities=AUTHORITY)


def test_a_client_with_a_certificate_is_let_in_and_known(
    stage: TLSStage, strict: ServerTLS
) -> None:
    context = trusting_context()
    context.load_cert_chain(certificate("client"))
    echo = Echo()
    transport, peer = stage.server(echo, strict, context=context)
    stage.settle()
    peer.write(b"hello")
    stage.settle()
    assert peer.received == b"hello"
    assert (("commonName", "client"),) in transport.get_extra_info("peercert")["subject"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [None, "stranger", "expired"])
def test_a_client_without_a_good_certificate_is_refused_before_it_is_heard(
    stage: TLSStage, strict: ServerTLS, name: str | None, version: ssl.TLSVersion
) -> None:
    context = trusting_context(version)
    if name is not None:
        context.load_cert_chain(certificate(name))
    witness = Witness()
    _, peer = stage.server(witness, strict, context=context)
    while not peer.is_ready and peer.error is None:
        stage.reactor.run_once(0)
        peer.receive()
        peer.step()
        if peer.is_ready:
            peer.write(b"let me in")  # by TLS 1.3, a client may do so before it is refused
        peer.send()
    stage.settle()
    assert witness.names == ["made", "lost"]
    assert isinstance(witness.losses[0], ssl.SSLError)
    assert peer.error is not None


def test_without_authorities_no_certificate_is_asked_for(stage: TLSStage) -> None:
    transport, peer = stage.server(Echo())
    stage.settle()
    assert peer.is_ready
    assert transport.get_extra_info("peercert") is None


# --- files, and other files later (H97) ----------------------------------------------------------


def test_after_a_reload_new_connections_get_the_new_certificate_and_open_ones_go_on(
    stage: TLSStage, server: Server
) -> None:
    old = server.connect(stage)
    server.install("renewed")
    before = server.connect(stage)
    server.tls.reload()
    after = server.connect(stage)
    assert [old.common_name, before.common_name, after.common_name] == [
        "server",
        "server",
        "renewed",
    ]
    for peer in (old, before, after):
        peer.write(b"hello")
    stage.settle()
    assert [peer.received for peer in (old, before, after)] == [b"hello"] * 3


def test_a_reload_amid_a_hundred_handshakes_drops_none(stage: TLSStage, server: Server) -> None:
    server.install("renewed")
    protocols = [Echo() for _ in range(100)]
    peers = []
    for number, protocol in enumerate(protocols):
        peers.append(stage.server(protocol, server.tls)[1])
        if number == 50:
            stage.reactor.run_once(0)
            server.tls.reload()
        if number % 3:
            peers[-1].pump()
    stage.settle()
    assert all(peer.is_ready for peer in peers)
    assert [peer.common_name for peer in peers] == ["server"] * 51 + ["renewed"] * 49
    assert not any(protocol.is_lost for protocol in protocols)


def remove_certificate(server: Server) -> None:
    server.certificate.unlink()


def remove_key(server: Server) -> None:
    server.key.unlink()


def mix_up(server: Server) -> None:
    server.install("renewed", key="server")


def empty(server: Server) -> None:
    server.certificate.write_bytes(b"")


def encrypt(server: Server) -> None:
    server.install("encrypted")


@pytest.mark.parametrize("break_it", [remove_certificate, remove_key, mix_up, empty, encrypt])
def test_a_reload_that_fails_raises_and_leaves_the_old_certificate_in_use(
    stage: TLSStage, server: Server, break_it: Callable[[Server], None]
) -> None:
    break_it(server)
    with pytest.raises((ssl.SSLError, FileNotFoundError)):
        server.tls.reload()
    assert server.connect(stage).common_name == "server"
    server.install("renewed")
    server.tls.reload()
    assert server.connect(stage).common_name == "renewed"


def test_a_server_that_cannot_read_its_files_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ServerTLS(str(tmp_path / "nothing.pem"))
    with pytest.raises(ssl.SSLError):
        ServerTLS(AUTHORITY)  # no key in it
    with pytest.raises(FileNotFoundError):
        ServerTLS(certificate("server"), client_authorities=str(tmp_path / "nothing.pem"))


def test_a_key_may_have_a_password(stage: TLSStage) -> None:
    tls = ServerTLS(certificate("encrypted"), password="secret")
    _, peer = stage.server(Echo(), tls)
    stage.settle()
    assert peer.common_name == "server"


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_wrong_or_missing_password_raises_and_never_asks(password: str | None) -> None:
    with pytest.raises(ssl.SSLError):
        ServerTLS(certificate("encrypted"), password=password)


def test_customize_gets_each_new_context_last(stage: TLSStage, server: Server) -> None:
    def customize(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        contexts.append(context)

    contexts: list[ssl.SSLContext] = []
    tls = ServerTLS(str(server.certificate), str(server.key), customize=customize)
    _, peer = stage.server(Echo(), tls)
    stage.settle()
    assert peer.tls.version() == "TLSv1.2"
    tls.reload()
    assert len(contexts) == 2
    assert contexts[0] is not contexts[1]
    assert contexts[1] is tls.context


def test_customize_that_raises_leaves_the_old_certificate_in_use(server: Server) -> None:
    def customize(context: ssl.SSLContext) -> None:
        if len(contexts) == 1:
            raise ValueError("boom")
        contexts.append(context)

    contexts: list[ssl.SSLContext] = []
    tls = ServerTLS(str(server.certificate), str(server.key), customize=customize)
    with pytest.raises(ValueError, match="boom"):
        tls.reload()
    assert tls.context is contexts[0]
