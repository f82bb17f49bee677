from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted import (
    ACCEPT,
    GOOD,
    LIMITS,
    Conversation,
    ScriptedServer,
    answer_of,
    opened,
    refused,
    turn,
)
from support import FakeClock, Recorder, run_until

from reactor import ConnectFailed, Reactor
from websocket import Cause, HandshakeError, State, connect
from websocket.handshake_client import parse_url
from websocket.headers import Headers
from websocket.http11 import Response
from websocket.redirect import STATUSES, keep_fields, redirect_target

PLAIN = parse_url("ws://example.com/a/b?c=d")
SECURE = parse_url("wss://example.com:8443/a/b?c=d")


def redirection(*locations: str, status: int = 302) -> Response:
    return Response("1.1", status, "", Headers([("Location", each) for each in locations]))


# --- where to ---------------------------------------------------------------------------------

TARGETS = [
    ("ws://other.org/x", "ws://other.org/x"),
    ("wss://other.org/x", "wss://other.org/x"),
    ("http://other.org/x", "ws://other.org/x"),
    ("https://other.org/x", "wss://other.org/x"),
    ("HTTPS://Other.ORG/X", "wss://other.org/X"),
    ("WS://other.org", "ws://other.org/"),
    ("https://other.org:444/x?y=z", "wss://other.org:444/x?y=z"),
    ("ws://[::1]:81/x", "ws://[::1]:81/x"),
    ("//other.org/x", "ws://other.org/x"),
    ("/x", "ws://example.com/x"),
    ("/x?y#fragment", "ws://example.com/x?y"),
    ("x", "ws://example.com/a/x"),
    ("./x/../y", "ws://example.com/a/y"),
    ("../x", "ws://example.com/x"),
    ("../../../x", "ws://example.com/x"),
    ("?y=z", "ws://example.com/a/b?y=z"),
    ("", "ws://example.com/a/b?c=d"),
    ("#fragment", "ws://example.com/a/b?c=d"),
    ("wss://example.com#fragment", "wss://example.com/"),
]


@pytest.mark.parametrize(("location", "target"), TARGETS)
def test_a_location_is_joined_to_what_was_asked_for(location: str, target: str) -> None:
    assert redirect_target(redirection(location), PLAIN) == parse_url(target)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x", "wss://example.com:8443/x"),
        ("//other.org/x", "wss://other.org/x"),
        ("https://example.com/x", "wss://example.com/x"),
    ],
)
def test_what_is_relative_stays_in_tls(location: str, target: str) -> None:
    assert redirect_target(redirection(location), SECURE) == parse_url(target)


@pytest.mark.parametrize("location", ["ws://example.com:8443/", "http://example.com/", "ws://x/"])
def test_h124_leaving_tls_is_refused(location: str) -> None:
    with pytest.raises(HandshakeError, match="from wss to ws") as caught:
        redirect_target(redirection(location), SECURE)
    assert caught.value.status == 302


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_these_statuses_redirect(status: int) -> None:
    assert status in STATUSES
    assert redirect_target(redirection("/x", status=status), PLAIN) == parse_url(
        "ws://example.com/x"
    )


@pytest.mark.parametrize("status", [101, 200, 201, 300, 304, 305, 306, 309, 401, 404, 503])
def test_no_other_status_redirects(status: int) -> None:
    assert redirect_target(redirection("/x", status=status), PLAIN) is None


@pytest.mark.parametrize("locations", [[], ["/x", "/y"], ["/x", "/x"]])
def test_a_redirect_has_one_location(locations: list[str]) -> None:
    with pytest.raises(HandshakeError, match="one Location"):
        redirect_target(redirection(*locations), PLAIN)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://other.org/",
        "mailto:ann@example.com",
        "javascript:alert(1)",
        "ws://",
        "http://",
        "http://[::1",
        "http://[zz]/",
        "http://other.org:99999/",
        "http://other.org:0/",
        "http://other.org:port/",
        "http://ann:secret@other.org/",
        "//ann@other.org/",
        "http://other org/",
        "http://oth\ter.org/",
        "/a b",
        "/a\x85b",
        "http://a,b/",
    ],
)
def test_a_malformed_location_is_refused(location: str) -> None:
    with pytest.raises(HandshakeError, match="redirects badly") as caught:
        redirect_target(redirection(location), PLAIN)
    assert caught.value.status == 302


# --- what goes along --------------------------------------------------------------------------

FIELDS = [
    ("Authorization", "Basic x"),
    ("User-Agent", "me"),
    ("COOKIE", "a=b"),
    ("proxy-authorization", "Basic y"),
    ("X-Authorization", "z"),
]


@pytest.mark.parametrize("target", ["wss://example.com:8443/", "wss://EXAMPLE.com:8443/other"])
def test_everything_goes_along_to_the_same_origin(target: str) -> None:
    assert keep_fields(FIELDS, SECURE, parse_url(target)) == FIELDS


@pytest.mark.parametrize(
    "target",
    [
        "wss://example.com/",
        "wss://other.org:8443/",
        "wss://sub.example.com:8443/",
        "wss://example.com.:8443/",
        "ws://example.com:8443/",
    ],
)
def test_h124_credentials_do_not_go_along_to_another_origin(target: str) -> None:
    assert keep_fields(FIELDS, SECURE, parse_url(target)) == [FIELDS[1], FIELDS[4]]


def test_the_default_port_is_the_same_origin() -> None:
    source, target = parse_url("ws://example.com/"), parse_url("ws://example.com:80/")
    assert keep_fields(FIELDS, source, target) == FIELDS


# --- the client follows -----------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def reactor(clock: FakeClock) -> Iterator[Reactor]:
    with Reactor(clock=clock) as reactor:
        yield reactor


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer_of(f"Location: {location}", status=status, upgrade=False)


class Site(ScriptedServer):
    """Answer by what is asked for; with a good upgrade where nothing else is said."""

    def __init__(self, reactor: Reactor, **answers: bytes) -> None:
        super().__init__(reactor)
        self._answers = answers

    def answer_to(self, conversation: Conversation) -> list[bytes]:
        return [self._answers.get(conversation.target[1:], GOOD)]

    @property
    def targets(self) -> list[str]:
        return [each.target for each in self.conversations if each.received]


def test_a_redirect_is_followed_and_the_old_stream_dropped(reactor: Reactor) -> None:
    site = Site(reactor, start=redirect("/end?x=1", "307 Temporary Redirect"))
    client = opened(reactor, site.url + "start")
    assert site.targets == ["/start", "/end?x=1"]
    assert client.events == [("open",)]
    run_until(reactor, lambda: site.conversations[0].is_over)
    keys = {each.field("Sec-WebSocket-Key")[0] for each in site.conversations}
    assert len(keys) == 2
    assert not site.conversations[1].is_over
    # The server and its one stream, the client, the wake-up: nothing else is watched.
    assert len(reactor._selector.get_map()) == 4


def test_a_body_behind_the_redirect_is_ignored(reactor: Reactor) -> None:
    page = redirect("/end") + b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + bytes(100_000)
    site = Site(reactor, start=page)
    client = opened(reactor, site.url + "start")
    turn(reactor, 20)
    assert client.events == [("open",)]
    assert site.targets == ["/start", "/end"]
    assert client.is_open


def test_interim_answers_before_a_redirect_and_behind_it(reactor: Reactor) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    site = Site(reactor, start=interim + redirect("/end"), end=interim * 3 + GOOD)
    opened(reactor, site.url + "start")
    assert site.targets == ["/start", "/end"]


@pytest.mark.parametrize("is_same", [True, False])
def test_h124_credentials_and_session_stay_with_their_origin(
    reactor: Reactor, is_same: bool
) -> None:
    other = Site(reactor)
    site = Site(reactor)
    target = site if is_same else other
    site._answers["start"] = redirect(target.url + "end")
    client = opened(
        reactor,
        site.url + "start",
        headers=[("Authorization", "Basic x"), ("Cookie", "a=b"), ("X-Kept", "yes")],
        session_id="secret",
        origin="https://example.com",
    )
    last = target.conversations[-1]
    assert last.target == "/end"
    assert last.field("Authorization") == (["Basic x"] if is_same else [])
    assert last.field("Cookie") == (["a=b; websocket_session=secret"] if is_same else [])
    assert last.field("X-Kept") == ["yes"]
    assert last.field("Origin") == ["https://example.com"]
    assert last.field("Host") == [target.url[5:-1]]
    assert client.session_id == "secret"


def test_h124_credentials_do_not_come_back(reactor: Reactor) -> None:
    """From the origin to another one and back: the other one says what is asked for."""
    other, site = Site(reactor), Site(reactor)
    site._answers["start"] = redirect(other.url + "middle")
    other._answers["middle"] = redirect(site.url + "end")
    opened(reactor, site.url + "start", headers=[("Authorization", "Basic x")])
    assert site.conversations[-1].target == "/end"
    assert site.conversations[-1].field("Authorization") == []


def test_h124_eleven_hops_are_too_many(reactor: Reactor) -> None:
    hops = {f"hop{number}": redirect(f"/hop{number + 1}") for number in range(20)}
    site = Site(reactor, **hops)
    client = refused(reactor, site.url + "hop0")
    assert isinstance(client.error, HandshakeError)
    assert str(client.error) == "too many redirects"
    assert client.error.status == 302
    assert site.targets == [f"/hop{number}" for number in range(11)]
    run_until(reactor, lambda: all(each.is_over for each in site.conversations))
    assert reactor.next_timeout() is None


def test_h124_ten_hops_are_not(reactor: Reactor) -> None:
    hops = {f"hop{number}": redirect(f"/hop{number + 1}") for number in range(10)}
    site = Site(reactor, **hops)
    opened(reactor, site.url + "hop0")
    assert site.targets[-1] == "/hop10"


@pytest.mark.parametrize(("allowed", "asked"), [(1, 2), (3, 4)])
def test_h124_a_loop_ends(reactor: Reactor, allowed: int, asked: int) -> None:
    site = Site(reactor, start=redirect(""))
    client = refused(reactor, site.url + "start", max_redirects=allowed)
    assert str(client.error) == "too many redirects"
    assert site.targets == ["/start"] * asked


def test_without_redirects_one_is_a_refusal_like_any_other(reactor: Reactor) -> None:
    site = Site(reactor, start=redirect("/end"))
    client = refused(reactor, site.url + "start", max_redirects=0)
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 302
    assert "302 Found instead of 101" in str(client.error)
    assert ("Location", "/end") in client.error.headers
    assert site.targets == ["/start"]


@pytest.mark.parametrize("answer", [redirect("ftp://x/"), answer_of(status="302 Found")])
def test_a_bad_redirect_is_a_handshake_error(reactor: Reactor, answer: bytes) -> None:
    site = Site(reactor, start=answer)
    client = refused(reactor, site.url + "start")
    assert isinstance(client.error, HandshakeError)
    assert client.error.status == 302
    run_until(reactor, lambda: site.conversations[0].is_over)


def test_a_target_that_cannot_be_reached(reactor: Reactor) -> None:
    site = Site(reactor, start=redirect("ws://127.0.0.1:1/"))
    client = refused(reactor, site.url + "start")
    assert isinstance(client.error, ConnectFailed)
    assert client.cause is Cause.CONNECT_FAILED


def test_one_deadline_covers_all_hops(reactor: Reactor, clock: FakeClock) -> None:
    site = Site(reactor, start=redirect("/end"), end=b"")
    client = connect(reactor, site.url + "start", Recorder, limits=LIMITS)
    run_until(reactor, lambda: len(site.targets) == 1)
    clock.now += LIMITS.handshake_timeout - 1
    run_until(reactor, lambda: len(site.targets) == 2)
    assert client.events == []
    clock.now += 1.1
    turn(reactor)
    assert client.state is State.CLOSED
    assert str(client.error) == "the handshake took too long"


@pytest.mark.parametrize("way", ["close", "abort"])
def test_giving_up_between_two_hops(reactor: Reactor, way: str) -> None:
    site = Site(reactor, start=redirect("/end"), end=b"")
    client = connect(reactor, site.url + "start", Recorder, limits=LIMITS)
    run_until(reactor, lambda: site.conversations and site.conversations[0].is_over)
    getattr(client, way)()
    run_until(reactor, lambda: all(each.is_over for each in site.conversations))
    turn(reactor)
    assert client.events == []
    assert reactor.next_timeout() is None


def test_the_session_of_another_origin_is_not_kept(reactor: Reactor) -> None:
    """It would be sent to the first one, at the next try."""
    other = Site(reactor, end=answer_of(ACCEPT, "Set-Cookie: websocket_session=theirs"))
    site = Site(reactor, start=redirect(other.url + "end"))
    assert opened(reactor, site.url + "start").session_id is None
    assert opened(reactor, site.url + "start", session_id="ours").session_id == "ours"


def test_the_session_of_the_last_hop_is_kept(reactor: Reactor) -> None:
    start = redirect("/end").replace(b"\r\n\r\n", b"\r\nSet-Cookie: websocket_session=no\r\n\r\n")
    end = answer_of(ACCEPT, "Set-Cookie: websocket_session=yes; Path=/")
    site = Site(reactor, start=start, end=end)
    assert opened(reactor, site.url + "start").session_id == "yes"
