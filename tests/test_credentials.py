from __future__ import annotations

import base64

import pytest

from websocket.credentials import basic_credentials, bearer_credentials, parse_basic


def encoded(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


# --- Basic ------------------------------------------------------------------------------------

EXAMPLES_OF_RFC_7617 = [
    ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    ("test", "123\N{POUND SIGN}", "Basic dGVzdDoxMjPCow=="),
]


@pytest.mark.parametrize(("user", "password", "value"), EXAMPLES_OF_RFC_7617)
def test_the_examples_of_the_rfc(user: str, password: str, value: str) -> None:
    assert basic_credentials(user, password) == ("Authorization", value)
    assert parse_basic(value) == (user, password)


PAIRS = [
    ("", ""),
    ("user", ""),
    ("", "password"),
    ("user", "pass:word:"),
    ("user", " spaces "),
    ("grüße", "密码 🔑"),
    ("u" * 1000, "p" * 5000),
]


@pytest.mark.parametrize(("user", "password"), PAIRS)
def test_what_is_built_is_parsed_again(user: str, password: str) -> None:
    name, value = basic_credentials(user, password)
    assert name == "Authorization"
    assert value.isascii()
    assert value.isprintable()
    assert parse_basic(value) == (user, password)


def test_a_proxy_gets_a_field_of_its_own() -> None:
    name, value = basic_credentials("user", "password", "Proxy-Authorization")
    assert name == "Proxy-Authorization"
    assert parse_basic(value) == ("user", "password")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("us:er", "password"),
        ("user\r\nX: y", "password"),
        ("user", "password\n"),
        ("user\x00", "password"),
        ("user", "pass\x7fword"),
        ("user", "\x1f"),
        ("user", "\ud800"),
    ],
)
def test_what_has_no_encoding_is_a_value_error(user: str, password: str) -> None:
    with pytest.raises(ValueError, match=r"colon|control|surrogates"):
        basic_credentials(user, password)


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
@pytest.mark.parametrize("spaces", [" ", "   "])
def test_the_scheme_is_read_in_any_case_and_with_any_number_of_spaces(
    scheme: str, spaces: str
) -> None:
    assert parse_basic(f"{scheme}{spaces}dXNlcjpwYXNz") == ("user", "pass")


GARBAGE = {
    "nothing": "",
    "the scheme alone": "Basic",
    "no credentials": "Basic ",
    "another scheme": "Bearer dXNlcjpwYXNz",
    "a longer scheme": "Basics dXNlcjpwYXNz",
    "no scheme": "dXNlcjpwYXNz",
    "no base64": "Basic user:pass",
    "half base64": "Basic dXNlcjpwYXN",
    "base64 with junk in it": "Basic dXNl cjpwYXNz",
    "the alphabet of URLs": "Basic " + base64.urlsafe_b64encode(b"\xff\xfe:").decode(),
    "octets above ASCII": "Basic dXNlcjpwYXNz\xe9",
    "no colon": encoded(b"user"),
    "no UTF-8": encoded(b"user:\xff\xfe"),
    "a surrogate": encoded(b"user:\xed\xa0\x80"),
    "a line break": encoded(b"user\n:pass"),
    "a NUL": encoded(b"user:pa\x00ss"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_nothing_and_never_an_error(case: str) -> None:
    assert parse_basic(GARBAGE[case]) is None


# --- Bearer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token", ["mF_9.B5f-4.1JqM", "a", "a==", "AZaz09-._~+/=", "eyJhbGciOiJIUzI1NiJ9.e30.abc"]
)
def test_a_bearer_token_is_sent_as_it_is(token: str) -> None:
    assert bearer_credentials(token) == ("Authorization", f"Bearer {token}")


@pytest.mark.parametrize(
    "token", ["", "=", "a b", "a=b", "a\r\nX: y", "a\n", "tokén", "a,b", '"a"', "a\x00"]
)
def test_what_is_no_bearer_token_is_a_value_error(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        bearer_credentials(token)
