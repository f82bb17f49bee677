"""Header fields: the multi-map, and the grammar of the lists that stand in their values.

For: what RFC 9110, section 5 says about any field, whoever sent it, and the two list forms that
the opening handshake needs (tokens, extensions). Not for: heads as a whole (``http11.py``) or
what a particular field means (``handshake.py``, ``handshake_client.py``).

    field-line   = token ":" OWS value OWS CRLF
    tokens       = token *( OWS "," OWS token )
    extensions   = extension *( OWS "," OWS extension )
    extension    = token *( OWS ";" OWS token [ "=" ( token / quoted-string ) ] )

A wrong byte is a ``ValueError`` here, since only the caller knows which side sent it. All work is
linear in the length of the text: no pattern has two neighbours that accept the same character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

# RFC 9110, 5.6.2: tchar.
TOKEN_CHARACTERS = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
TOKEN = f"[{TOKEN_CHARACTERS}]+"
# RFC 9110, 5.5: a value holds visible characters, spaces, tabs and obs-text, nothing else.
VALUE = r"[\t\x20-\x7e\x80-\xff]*"

WHITESPACE = " \t"

# More offers than this are no negotiation any more, but work made for us to do.
MAX_EXTENSIONS = 16

_TOKEN = re.compile(TOKEN)
_VALUE = re.compile(VALUE)
# The optional space is that of "Name: value"; other white space is stripped afterwards, because
# a second repeat that takes spaces would make a failing match quadratic.
_FIELD_LINE = re.compile(f"^({TOKEN}): ?({VALUE})\r\n", re.MULTILINE)

# RFC 6455, 9.1: what a quoted string holds must be a token, once the backslashes are gone.
_QUOTED_TOKEN = rf'"(?:\\?[{TOKEN_CHARACTERS}])+"'
_EXTENSION = rf"[ \t]*{TOKEN}[ \t]*(?:;[ \t]*{TOKEN}(?:=(?:{TOKEN}|{_QUOTED_TOKEN}))?[ \t]*)*"
_EXTENSION_LIST = re.compile(f"{_EXTENSION}(?:,{_EXTENSION})*")


_NOTHING_REPEATED: dict[str, list[str]] = {}


class Headers:
    """Hold header fields in the order of arrival and find them by name in any case.

    Immutable after construction. The index by name is built when the first name is asked for;
    the white space around values, which is not part of them (RFC 9110, 5.5), goes then.

    Args:
        pairs: names and values, as they stood on the wire.
    """

    __slots__ = ("_block", "_first", "_pairs", "_repeated")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs: list[tuple[str, str]] | None = (
            pairs if isinstance(pairs, list) else list(pairs)
        )
        self._block: str | None = None
        self._first: dict[str, str] | None = None
        self._repeated = _NOTHING_REPEATED

    @property
    def first(self) -> Mapping[str, str]:
        """The value of the first field of each name, by the name in lower case."""
        return self._first or self._build_index()

    def compact(self) -> None:
        """Keep the text alone, if these came from a head: to be parsed again if ever asked for.

        For the life of a connection: the parts take five times the room of the text.
        """
        if self._block is not None:
            self._pairs = self._first = None
            self._repeated = _NOTHING_REPEATED

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of the first field of that name.

        Args:
            name: the field's name, in any case.
            default: what to return when there is none.
        """
        return (self._first or self._build_index()).get(name.lower(), default)

    def get_all(self, name: str) -> list[str]:
        """Return the values of all fields of that name, in order; empty when there is none.

        Args:
            name: the field's name, in any case.
        """
        key = name.lower()
        first = (self._first or self._build_index()).get(key)
        if first is None:
            return []
        repeated = self._repeated.get(key)
        return [first] if repeated is None else list(repeated)

    def get_only(self, name: str) -> str | None:
        """Return the value of the field of that name, None unless there is exactly one.

        Args:
            name: the field's name, in any case.
        """
        key = name.lower()
        # First, since it is what finds the repeated ones.
        first = self._first or self._build_index()
        return None if key in self._repeated else first.get(key)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in (self._first or self._build_index())

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((name, value.strip(WHITESPACE)) for name, value in self._list())

    def __len__(self) -> int:
        return len(self._list())

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    def _list(self) -> list[tuple[str, str]]:
        if self._pairs is None:
            assert self._block is not None
            self._pairs = _FIELD_LINE.findall(self._block)
        return self._pairs

    def _build_index(self) -> dict[str, str]:
        """Build both dictionaries; in almost every head each name stands once."""
        pairs = self._list()
        first = {name.lower(): value.strip(WHITESPACE) for name, value in pairs}
        if len(first) != len(pairs):
            lists: dict[str, list[str]] = {}
            for name, value in self:
                lists.setdefault(name.lower(), []).append(value)
            first = {name: values[0] for name, values in lists.items()}
            self._repeated = {name: values for name, values in lists.items() if len(values) > 1}
        self._first = first
        return first


def parse_fields(block: str) -> Headers:
    """Return the fields of a head.

    Args:
        block: the field lines, each with its CRLF, without the empty line behind them; decoded
            as latin-1, so that obs-text survives.

    Raises:
        ValueError: a line is no field line (RFC 9112, 5); the text says why.
    """
    pairs = _FIELD_LINE.findall(block)
    # A match is exactly one line, so all lines are right when there are as many of both.
    if len(pairs) != block.count("\n"):
        raise ValueError(_explain(block))
    headers = Headers(pairs)
    headers._block = block
    return headers


def parse_distinct_fields(block: str) -> dict[str, str] | None:
    """Return the values by the names in lower case, of field lines in which no name stands twice.

    As ``parse_fields``, in one go; None is the answer to two of one name, and to a line that is
    no field line.
    """
    pairs = _FIELD_LINE.findall(block)
    first = {name.lower(): value.strip(WHITESPACE) for name, value in pairs}
    return first if len(first) == len(pairs) == block.count("\n") else None


def distinct_headers(block: str, first: dict[str, str]) -> Headers:
    """Return the fields of a head of which ``parse_distinct_fields`` has made ``first``."""
    headers = Headers()
    headers._block, headers._pairs, headers._first = block, None, first
    return headers


def _explain(block: str) -> str:
    """Return what is wrong with the first wrong line of ``block``."""
    wrong = next(line for line in block.split("\r\n") if not _FIELD_LINE.match(line + "\r\n"))
    name, colon, _ = wrong.partition(":")
    # RFC 9112, 5.2: a server rejects obs-fold or replaces it; we reject.
    if wrong[:1] in WHITESPACE and wrong:
        return "a header line starts with white space (line folding is obsolete)"
    if not colon:
        return "a header line has no colon"
    if not name:
        return "a header line has no name"
    # RFC 9112, 5.1: no white space between name and colon, 400 otherwise.
    if name[-1] in WHITESPACE:
        return "white space stands between a header name and its colon"
    if not is_token(name):
        return "a header name holds a character that is not allowed there"
    return "a header value holds a control character"


def check_field(name: str, value: str) -> None:
    """Check a field that is about to be sent: nothing in it may start a second one.

    Raises:
        ValueError: the name is no token, or the value holds CR, LF, NUL, another control
            character or anything outside latin-1.
    """
    if not is_token(name):
        raise ValueError(f"a header name must be a token of RFC 9110, not {name!r}")
    if not is_value(value):
        raise ValueError(f"the value of header {name} holds a forbidden character: {value!r}")


def is_token(text: str) -> bool:
    """Tell whether ``text`` is a token (RFC 9110, 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_value(text: str) -> bool:
    """Tell whether ``text`` may stand in a field value or a reason phrase (RFC 9110, 5.5)."""
    return _VALUE.fullmatch(text) is not None


def has_token(values: Iterable[str], token: str) -> bool:
    """Tell whether a list-valued field names ``token``; whole elements count, never parts.

    Args:
        values: the field's lines (RFC 9110, 5.3: they read as one list).
        token: what to look for, in lower case.
    """
    for value in values:
        for element in value.split(","):
            if element.strip(WHITESPACE).lower() == token:
                return True
    return False


def parse_tokens(values: Iterable[str]) -> list[str]:
    """Return the distinct tokens of a list-valued field.

    Args:
        values: the field's lines.

    Raises:
        ValueError: an element is empty, no token, or there twice.
    """
    tokens = [token.strip(WHITESPACE) for value in values for token in value.split(",")]
    if not all(map(is_token, tokens)):
        raise ValueError("an element is empty or no token")
    if len(set(tokens)) != len(tokens):
        raise ValueError("an element is there twice")
    return tokens


def is_extension_list(text: str) -> bool:
    """Tell whether ``text`` is a value of Sec-WebSocket-Extensions (RFC 6455, 9.1)."""
    return _EXTENSION_LIST.fullmatch(text) is not None


class Extension(NamedTuple):
    """Name one extension, as offered or as accepted (RFC 6455, 9.1).

    Attributes:
        name: the extension's token.
        parameters: names and values in order, repetitions kept; None for a name without value.
    """

    name: str
    parameters: tuple[tuple[str, str | None], ...]


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """Return the extensions named in Sec-WebSocket-Extensions (RFC 6455, 9.1).

    Args:
        values: the field's lines.

    Returns:
        The extensions in order; none at all when there are more than ``MAX_EXTENSIONS``.

    Raises:
        ValueError: a line does not follow the grammar.
    """
    elements: list[str] = []
    for value in values:
        if not is_extension_list(value):
            raise ValueError("the list of extensions is malformed")
        # No quoted string can hold a comma or a semicolon: neither is part of a token.
        elements += value.split(",")
    if len(elements) > MAX_EXTENSIONS:
        return []
    return [_parse_extension(element) for element in elements]


def _parse_extension(text: str) -> Extension:
    """Return the parts of one element whose grammar has been checked."""
    name, *parameters = text.replace('"', "").replace("\\", "").split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return Extension(
        name.strip(WHITESPACE),
        tuple(
            (key.strip(WHITESPACE), value.strip(WHITESPACE) if equals else None)
            for key, equals, value in pairs
        ),
    )
