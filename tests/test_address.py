from __future__ import annotations

import ipaddress
import random

import pytest

from websocket.address import address_key, is_loopback, is_loopback_key

TABLE = [
    ("203.0.113.7", "203.0.113.7", False),
    ("255.255.255.255", "255.255.255.255", False),
    ("0.0.0.0", "0.0.0.0", False),
    ("127.0.0.1", "127.0.0.1", True),
    ("127.255.3.4", "127.255.3.4", True),
    ("128.0.0.1", "128.0.0.1", False),
    ("12.7.0.1", "12.7.0.1", False),
    ("::ffff:203.0.113.7", "203.0.113.7", False),
    ("::FFFF:cb00:7107", "203.0.113.7", False),
    ("0:0:0:0:0:ffff:203.0.113.7", "203.0.113.7", False),
    ("::ffff:127.0.0.1", "127.0.0.1", True),
    ("::ffff:127.0.0.1%eth0", "127.0.0.1", True),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", False),
    ("2001:DB8:1:2::", "2001:db8:1:2::/64", False),
    ("2001:db8::1", "2001:db8::/64", False),
    ("fe80::1%eth0", "fe80::/64", False),
    ("fe80::1%25", "fe80::/64", False),
    ("::1", "::/64", True),
    ("::1%lo", "::/64", True),
    ("0:0:0:0:0:0:0:1", "::/64", True),
    ("::2", "::/64", False),
    ("", "local", True),
    ("/run/app.sock", "local", True),
    ("\0abstract", "local", True),
]

UNKNOWN = [
    "unix",
    "localhost",
    "127.0.0.1.example",
    "127.0.0.1 ",
    "127.0.0.1\n",
    "127.0.0.01",
    "127.1",
    "127.0.0.256",
    "127.0.0.1:80",
    "127.0.0.1%lo",
    "1.2.3.4.5",
    "[::1]",
    "::1/128",
    "%lo",
    "::1::",
    "\u0661.1.1.1",
    ":" * 10_000,
    "1" * 10_000,
    "203.0.113.7, 10.0.0.1",
]


@pytest.mark.parametrize(("host", "key", "loopback"), TABLE)
def test_a_host_has_its_key(host: str, key: str, loopback: bool) -> None:
    assert address_key(host) == key
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("host", "key", "loopback"), TABLE)
def test_a_key_tells_loopback_as_its_host_does(host: str, key: str, loopback: bool) -> None:
    # The network of ::1 has no other host that could send us anything.
    assert is_loopback_key(key) is (loopback or key == "::/64")


@pytest.mark.parametrize("host", UNKNOWN)
def test_what_is_no_address_shares_one_key_and_is_not_exempt(host: str) -> None:
    assert address_key(host) == "unknown"
    assert not is_loopback(host)
    assert not is_loopback_key("unknown")


def test_three_hundred_addresses_of_one_network_share_one_key() -> None:
    keys = {address_key(f"2001:db8:7:8::{number:x}") for number in range(300)}
    assert keys == {"2001:db8:7:8::/64"}


def test_keys_agree_with_the_standard_library() -> None:
    random_source = random.Random(5)
    for _ in range(500):
        four = str(ipaddress.IPv4Address(random_source.getrandbits(32)))
        assert address_key(four) == address_key(f"::ffff:{four}") == four
        assert is_loopback(four) is ipaddress.IPv4Address(four).is_loopback
        six = ipaddress.IPv6Address(random_source.getrandbits(128))
        assert address_key(str(six)) == str(ipaddress.ip_network((six, 64), strict=False))
