"""Header fields: the multi-map, the field lines, the two list grammars."""

from __future__ import annotations

import random

import pytest

from websocket.headers import (
    MAX_EXTENSIONS,
    Extension,
    Headers,
    check_field,
    has_token,
    is_extension_list,
    is_token,
    parse_extensions,
    parse_fields,
    parse_tokens,
)

PAIRS = [("Host", "a"), ("X-Two", "1"), ("Empty", ""), ("x-two", " 2\t")]


def test_a_name_is_found_in_any_case() -> None:
    headers = Headers(PAIRS)
    assert headers.get("host") == headers.get("HOST") == "a"
    assert "hOsT" in headers
    assert headers.get("Empty") == ""


def test_a_missing_name_gives_the_default() -> None:
    headers = Headers(PAIRS)
    assert headers.get("nothing") is None
    assert headers.get("nothing", "x") == "x"
    assert headers.get_all("nothing") == []
    assert "nothing" not in headers
    assert 7 not in headers


def test_repeated_names_keep_their_order() -> None:
    headers = Headers(PAIRS)
    assert headers.get_all("X-TWO") == ["1", "2"]
    assert headers.get("x-two") == "1"
    assert headers.get_all("host") == ["a"]


def test_a_field_that_stands_twice_is_not_the_only_one_whenever_that_is_asked() -> None:
    headers = parse_fields("A: 1\r\na: 2\r\nB: 3\r\n")
    assert (headers.get_only("A"), headers.get_only("b"), headers.get_only("C")) == (
        None,
        "3",
        None,
    )
    headers.compact()
    assert headers.get_only("a") is None
    assert Headers([("A", "1"), ("a", "2")]).get_only("a") is None


def test_what_get_all_returned_is_the_callers_own() -> None:
    headers = Headers(PAIRS)
    headers.get_all("x-two").clear()
    assert headers.get_all("x-two") == ["1", "2"]


def test_iteration_gives_the_fields_as_they_came() -> None:
    headers = Headers(iter(PAIRS))
    assert list(headers) == [("Host", "a"), ("X-Two", "1"), ("Empty", ""), ("x-two", "2")]
    assert len(headers) == 4
    assert repr(Headers([("a", "b ")])) == "Headers([('a', 'b')])"


def test_no_fields_at_all_are_fields() -> None:
    headers = Headers()
    assert len(headers) == 0
    assert headers.get("host") is None
    assert list(parse_fields("")) == []


@pytest.mark.parametrize(
    ("block", "value"),
    [
        ("a: b\r\n", "b"),
        ("a:b\r\n", "b"),
        ("a: \t b \t \r\n", "b"),
        ("a:\r\n", ""),
        ("a:   \r\n", ""),
        ("a: b  c\td\r\n", "b  c\td"),
        ("a: b: c\r\n", "b: c"),
        ("a: \xe4\xff\x80\r\n", "\xe4\xff\x80"),
        ("a: \xa0b\x85\r\n", "\xa0b\x85"),
    ],
)
def test_only_spaces_and_tabs_around_a_value_are_not_part_of_it(block: str, value: str) -> None:
    assert parse_fields(block).get("a") == value


@pytest.mark.parametrize(
    ("block", "message"),
    [
        pytest.param(" a: b\r\n", "folding", id="H29-first-line-folded"),
        pytest.param("a: b\r\n c\r\n", "folding", id="H29-obs-fold"),
        pytest.param("a: b\r\n\tc: d\r\n", "folding", id="H29-obs-fold-with-colon"),
        pytest.param("a : b\r\n", "between a header name and its colon", id="H29-space"),
        pytest.param("a\t: b\r\n", "between a header name and its colon", id="H29-tab"),
        pytest.param("a\r\n", "no colon", id="H29-no-colon"),
        pytest.param("a: b\r\n\r\n", "no colon", id="H29-empty-line"),
        pytest.param(": b\r\n", "no name", id="H29-empty-name"),
        pytest.param("a b: c\r\n", "name holds a character", id="H29-space-in-name"),
        pytest.param("a\x00: c\r\n", "name holds a character", id="H29-NUL-in-name"),
        pytest.param("\xe4: c\r\n", "name holds a character", id="H29-non-ASCII-name"),
        pytest.param("a(b): c\r\n", "name holds a character", id="H29-delimiter-in-name"),
        pytest.param("a: b\rc\r\n", "control character", id="H29-bare-CR"),
        pytest.param("a: b\r\r\n", "control character", id="H29-CR-CR-LF"),
        pytest.param("a: b\nc: d\r\n", "control character", id="H29-bare-LF"),
        pytest.param("a: b\x00c\r\n", "control character", id="H29-NUL"),
        pytest.param("a: b\x1b[0m\r\n", "control character", id="H29-escape"),
        pytest.param("a: b\x7f\r\n", "control character", id="H29-DEL"),
        pytest.param("a: b\x0b\r\n", "control character", id="H29-vertical-tab"),
    ],
)
def test_a_line_that_is_no_field_is_explained(block: str, message: str) -> None:
    for text in (block, "first: 1\r\n" + block, block + "last: 1\r\n"):
        with pytest.raises(ValueError, match=message):
            parse_fields(text)


CONTROLS = [chr(code) for code in [*range(32), 127] if code != 9]


def naive_fields(block: str) -> list[tuple[str, str]] | None:
    """Return the fields character by character, None when a line is none."""
    token = set("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    fields = []
    for line in block.split("\r\n")[:-1]:
        name, colon, value = line.partition(":")
        if not name or not colon or not set(name) <= token:
            return None
        if any(control in value for control in CONTROLS):
            return None
        fields.append((name, value.strip(" \t")))
    return fields


def test_the_pattern_agrees_with_reading_character_by_character() -> None:
    source = random.Random(29)
    pieces = ["a", "B-c", ":", ": ", " ", "\t", "\r", "\n", "\r\n", "x: y\r\n", "\x00", "\xe4", "@"]
    outcomes = set()
    for _ in range(20_000):
        block = "".join(source.choices(pieces, k=source.randint(0, 6))) + "\r\n"
        expected = naive_fields(block)
        outcomes.add(expected is None)
        try:
            found: list[tuple[str, str]] | None = list(parse_fields(block))
        except ValueError:
            found = None
        assert found == expected, block
    assert outcomes == {True, False}


def test_the_same_name_up_to_any_number_is_kept_in_lists() -> None:
    """H09: no value is copied again for each further line."""
    headers = parse_fields("a: b\r\n" * 50_000)
    assert len(headers.get_all("A")) == 50_000


@pytest.mark.parametrize("space", [" ", "\t", " \t"])
def test_white_space_without_end_is_linear_work(space: str) -> None:
    """A quadratic pattern would need hours for this."""
    for block in (f"a:{space * 200_000}\r\n", f"a:{space * 200_000}x\r\n"):
        parse_fields(block)
    with pytest.raises(ValueError, match="control"):
        parse_fields(f"a:{space * 200_000}\x00\r\n")


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "\xe4", "a\x00"])
def test_a_bad_name_is_never_sent(name: str) -> None:
    with pytest.raises(ValueError, match="must be a token"):
        check_field(name, "b")


@pytest.mark.parametrize(
    "value", ["a\r\nb: c", "a\n", "a\r", "a\x00", "\x1b[2J", "\x7f", "\u20ac", "\ud800"]
)
def test_a_bad_value_is_never_sent(value: str) -> None:
    """H35."""
    with pytest.raises(ValueError, match="forbidden character"):
        check_field("Name", value)


def test_a_good_field_passes() -> None:
    check_field("X-Name", "visible \t \xe4")


@pytest.mark.parametrize(
    ("values", "is_there"),
    [
        (["Upgrade"], True),
        (["UPGRADE"], True),
        (["keep-alive, Upgrade"], True),
        (["keep-alive", "x,\tupgrade "], True),
        ([",, upgrade,,"], True),
        (["upgrade2"], False),
        (["notupgrade"], False),
        (["up grade"], False),
        (["upgrade/2"], False),
        ([""], False),
        ([], False),
    ],
)
def test_a_token_counts_as_a_whole(values: list[str], is_there: bool) -> None:
    assert has_token(values, "upgrade") is is_there


def test_tokens_are_listed_in_order() -> None:
    assert parse_tokens(["b, a", "c ,\td"]) == ["b", "a", "c", "d"]
    assert parse_tokens([]) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([""], "empty or no token"),
        (["a,,b"], "empty or no token"),
        (["a,"], "empty or no token"),
        (["a b"], "empty or no token"),
        (['"a"'], "empty or no token"),
        (["\xe4"], "empty or no token"),
        (["a\xa0"], "empty or no token"),
        (["a, b, a"], "twice"),
        (["a", "a"], "twice"),
    ],
)
def test_a_list_of_anything_else_is_refused(values: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_tokens(values)


def test_a_token_is_not_empty() -> None:
    assert is_token("a") is True
    assert is_token("") is False


@pytest.mark.parametrize(
    ("values", "extensions"),
    [
        ([], []),
        (["a"], [Extension("a", ())]),
        (["a, b"], [Extension("a", ()), Extension("b", ())]),
        (["a", "b"], [Extension("a", ()), Extension("b", ())]),
        ([" a ; b ; c=1 ;d=2 "], [Extension("a", (("b", None), ("c", "1"), ("d", "2")))]),
        (["a; b; b=1"], [Extension("a", (("b", None), ("b", "1")))]),
        (['a; b="1"; c="\\x\\y"'], [Extension("a", (("b", "1"), ("c", "xy")))]),
        (
            ["constructor; __proto__, __class__"],
            [Extension("constructor", (("__proto__", None),)), Extension("__class__", ())],
        ),
        (
            ["permessage-deflate; client_max_window_bits"],
            [Extension("permessage-deflate", (("client_max_window_bits", None),))],
        ),
    ],
)
def test_extensions_are_split_into_names_and_values(
    values: list[str], extensions: list[Extension]
) -> None:
    assert parse_extensions(values) == extensions


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ",",
        "a,",
        ",a",
        "a,,b",
        "a;",
        "a;;b",
        ";a",
        "a=1",
        "a; b=",
        "a; =1",
        "a; b = 1",
        "a; b=1 2",
        "a b",
        "a; b c",
        'a; b=""',
        'a; b="1 2"',
        'a; b="1,2"',
        'a; b="1',
        'a; b=1"',
        'a; b="\\"',
        'a; b="\\""',
        '"a"',
        "a; b=\xe4",
    ],
)
def test_a_malformed_list_of_extensions_is_refused(value: str) -> None:
    assert is_extension_list(value) is False
    with pytest.raises(ValueError, match="malformed"):
        parse_extensions(["good", value])


def test_more_extensions_than_the_limit_are_none() -> None:
    """H25."""
    names = [f"x{number}" for number in range(1_000)]
    assert len(parse_extensions([", ".join(names[:MAX_EXTENSIONS])])) == MAX_EXTENSIONS
    assert parse_extensions([", ".join(names[: MAX_EXTENSIONS + 1])]) == []
    assert parse_extensions(names) == []


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('a; b="' + "\\x" * 100_000, id="H24-unclosed"),
        pytest.param('a; b="' + "\\" * 100_000, id="H24-backslashes"),
        pytest.param("a; b" + " " * 100_000 + "=", id="spaces"),
        pytest.param("a" + "; b" * 50_000 + ";", id="parameters"),
        pytest.param("a" + "\t;\tb" * 50_000 + " c", id="parameters-with-tabs"),
        pytest.param("a," * 100_000, id="names"),
        pytest.param("a" * 100_000 + "=", id="one-long-name"),
    ],
)
def test_a_long_malformed_list_is_refused_in_linear_work(value: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_extensions([value])
