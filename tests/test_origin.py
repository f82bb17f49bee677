"""Hosts and origins: one meaning, one value; a look-alike differs or is malformed."""

from __future__ import annotations

import pytest

from websocket.origin import (
    Authority,
    Origin,
    effective_port,
    is_same_origin,
    parse_authority,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("example.com", "example.com", None),
        ("EXAMPLE.com:443", "example.com", 443),
        ("example.com:", "example.com", None),
        ("example.com.", "example.com.", None),
        ("a_b.example:0", "a_b.example", 0),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[::1]", "::1", None),
        ("[0:0:0:0:0:0:0:1]:80", "::1", 80),
        ("[2001:DB8::0:1]", "2001:db8::1", None),
        ("x" * 255 + ":65535", "x" * 255, 65535),
    ],
)
def test_an_authority_is_a_host_and_perhaps_a_port(text: str, host: str, port: int | None) -> None:
    assert parse_authority(text) == Authority(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a b",
        " a",
        "a,b",
        "a/b",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:000080",
        "a:\u0661",
        "user@a",
        "a%41",
        "a#b",
        "a\\b",
        "\xe4",
        "a\n",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[a]",
        "[:::]",
        "[1::2::3]",
        "[::1]x",
        "[::1%eth0]",
        "[127.0.0.1]",
        "x" * 300,
    ],
)
def test_anything_else_is_no_authority(text: str) -> None:
    for _ in range(2):  # an error is an error again when the good ones are remembered
        with pytest.raises(ValueError, match=r"not of the form host|port is above|not an IPv6"):
            parse_authority(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://example.com", Origin("https", "example.com", 443)),
        ("HTTPS://Example.COM:443", Origin("https", "example.com", 443)),
        ("http://example.com", Origin("http", "example.com", 80)),
        ("http://example.com:8080", Origin("http", "example.com", 8080)),
        ("http://[::0001]", Origin("http", "::1", 80)),
        ("app://obsidian.md", Origin("app", "obsidian.md", None)),
        ("null", Origin("null", "", None)),
    ],
)
def test_an_origin_has_a_port_even_when_not_given(text: str, origin: Origin) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com",
        "file://",
        "http://",
        "http:/a",
        "http:a",
        "http://a/",
        "http://a/b",
        "http://a?b",
        "http://a#b",
        "http://user@a",
        "http://a:b",
        "http://a:99999",
        "http://a http://b",
        "http://a,http://b",
        "1http://a",
        " http://a",
        "NULL",
        "http://" + "x" * 1_000,
    ],
)
def test_anything_else_is_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form|port is above"):
        parse_origin(text)


def test_the_default_port_depends_on_tls() -> None:
    assert effective_port(Authority("a", None), is_secure=False) == 80
    assert effective_port(Authority("a", None), is_secure=True) == 443
    assert effective_port(Authority("a", 9), is_secure=True) == 9


@pytest.mark.parametrize(
    ("origin", "host", "is_secure", "is_same"),
    [
        ("http://a", "a", False, True),
        ("http://a", "a:80", False, True),
        ("http://a:80", "a", False, True),
        ("https://a", "a:443", True, True),
        ("https://a", "a", False, False),
        ("http://a", "a", True, False),
        ("http://a:8080", "a:8080", False, True),
        ("http://a:80", "a:8080", False, False),
        ("http://[::1]:9", "[0:0::1]:9", False, True),
        ("http://localhost", "127.0.0.1", False, False),
        ("http://b", "a", False, False),
        ("null", "a", False, False),
    ],
)
def test_scheme_host_and_port_make_an_origin(
    origin: str, host: str, is_secure: bool, is_same: bool
) -> None:
    assert is_same_origin(parse_origin(origin), parse_authority(host), is_secure) is is_same
