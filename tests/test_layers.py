"""Hold the layer table of the design: imports point down, never up and never sideways.

The table below is the picture, the imports are read from the installed files with ``ast``.
Imports under ``if TYPE_CHECKING:`` are exempt: they name types, and nothing runs through them.

A new module needs a row here. If none fits, the module is probably two.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest


class Row(NamedTuple):
    """One row of the table: the modules' names, a star after those that may import reactor."""

    modules: str
    is_joined: bool = False
    """True where the modules of the row are one thing in several files, and know one another."""


# The lowest row first.
REACTOR_ROWS = (
    Row("errors protocol event_handler allocator log speedups _speedups"),
    Row("buffers discarder wheel sockets signals wakeup epoll busy_poll readiness lag workers"),
    Row("write_transport transport tls_transport scheduler"),
    Row("loop listener connector tls"),
    Row("__init__"),
    Row("testing memory memory_tls faults", is_joined=True),
)
WEBSOCKET_ROWS = (
    Row(
        "opcodes causes errors limits policies process_memory speedups _speedups clock",
        is_joined=True,
    ),
    Row(
        "frame http11 message masking headers origin key address ratelimit statistics deadlines"
        " credentials plain_frames events* backlog ledger"
    ),
    Row(
        "frame_reader frame_writer assembler deflate deflate_codec head_reader response_reader"
        " plain_request handshake handshake_client retry shared_message"
    ),
    Row(
        "lifecycle* heartbeat* sender* endpoint* callbacks* connection* message_connection*",
        is_joined=True,
    ),
    Row(
        "manager pool session session_manager expiry replay persistence session_store",
        is_joined=True,
    ),
    Row(
        "server* running* shutdown* hooks binding* upgrade* handshake_timeouts"
        " client* tunnel* reconnect* dial* redirect",
        is_joined=True,
    ),
    Row("__init__ __main__* cli*", is_joined=True),
    Row("testing* testing_ends*", is_joined=True),
)

# Single imports inside a row that are meant.
NEIGHBOURS = {
    ("reactor.speedups", "reactor._speedups"),
    ("reactor._speedups", "reactor.speedups"),
    ("reactor.transport", "reactor.write_transport"),
    ("reactor.tls_transport", "reactor.transport"),
    ("websocket.plain_frames", "websocket.masking"),
    ("websocket.ledger", "websocket.address"),
    ("websocket.ledger", "websocket.events"),
    ("websocket.shared_message", "websocket.frame_writer"),
    ("websocket.http11", "websocket.headers"),
    ("websocket.http11", "websocket.origin"),
    ("websocket.frame_reader", "websocket.assembler"),
    ("websocket.assembler", "websocket.deflate_codec"),
    ("websocket.deflate", "websocket.deflate_codec"),
    ("websocket.response_reader", "websocket.head_reader"),
}


class Place(NamedTuple):
    """Where one module stands in the table."""

    number: int
    is_joined: bool
    may_import_reactor: bool


class Import(NamedTuple):
    """One imported module, by its full name, and the line that imports it."""

    name: str
    line: int


def read_table(package: str, rows: tuple[Row, ...]) -> dict[str, Place]:
    """Return the place of each module by its full name, ``websocket.frame``.

    Raises:
        ValueError: a module stands in two rows.
    """
    table: dict[str, Place] = {}
    for number, row in enumerate(rows):
        for entry in row.modules.split():
            name = full_name(package, entry.rstrip("*"))
            if name in table:
                raise ValueError(f"{name} stands in two rows of the table")
            table[name] = Place(number, row.is_joined, entry.endswith("*"))
    return table


def full_name(package: str, module: str) -> str:
    """Return the name by which ``module`` of ``package`` is imported."""
    return package if module == "__init__" else f"{package}.{module}"


TABLES = {
    "reactor": read_table("reactor", REACTOR_ROWS),
    "websocket": read_table("websocket", WEBSOCKET_ROWS),
}


def read_packages() -> dict[str, Path]:
    """Return the file of each module of both packages, as they are installed."""
    files = {}
    for package in TABLES:
        spec = find_spec(package)
        assert spec is not None, f"{package} is not installed"
        assert spec.origin is not None
        for file in sorted(Path(spec.origin).parent.rglob("*.py")):
            files[full_name(package, file.stem)] = file
    return files


MODULES = read_packages()


def imports_of(source: str) -> Iterator[Import]:
    """Yield what ``source`` imports, also inside functions, but not for type checkers only."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and is_type_checking(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from names_from(node)
        pending.extend(ast.iter_child_nodes(node))


def is_type_checking(test: ast.expr) -> bool:
    """Tell whether a condition is ``TYPE_CHECKING`` or ``typing.TYPE_CHECKING``."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def names_from(node: ast.ImportFrom) -> Iterator[Import]:
    """Yield the modules of a from-import: ``from websocket import frame`` means that module."""
    assert node.level == 0, f"line {node.lineno}: write imports absolutely"
    module = node.module or ""
    for alias in node.names:
        submodule = f"{module}.{alias.name}"
        yield Import(submodule if submodule in MODULES else module, node.lineno)


def complaint(importer: str, imported: str) -> str:
    """Return what the table has against an import, or an empty string."""
    package, imported_package = top_level(importer), top_level(imported)
    if imported_package not in TABLES:
        return ""
    place = TABLES[package][importer]
    if package == imported_package:
        target = TABLES[package].get(imported)
        if target is None:
            return f"{imported} stands in no row"
        is_neighbour = place.is_joined or (importer, imported) in NEIGHBOURS
        if target.number < place.number or (target.number == place.number and is_neighbour):
            return ""
        return f"{imported} (row {target.number}) is not below {importer} (row {place.number})"
    if package == "reactor":
        return "reactor must not know websocket"
    return "" if place.may_import_reactor else f"{importer} has no star, and must not know reactor"


def top_level(name: str) -> str:
    """Return the package of a module."""
    return name.partition(".")[0]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_stands_in_a_row(name: str) -> None:
    is_known = name in TABLES[top_level(name)]
    assert is_known, f"give {name} a row in tests/test_layers.py"


@pytest.mark.parametrize("name", [name for name in MODULES if name in TABLES[top_level(name)]])
def test_imports_point_down(name: str) -> None:
    imports = imports_of(MODULES[name].read_text(encoding="utf-8"))
    complaints = {
        f"line {line}: {text}" for imported, line in imports if (text := complaint(name, imported))
    }
    assert not complaints


@pytest.mark.parametrize("name", MODULES)
def test_nothing_outside_the_standard_library_is_imported(name: str) -> None:
    imports = imports_of(MODULES[name].read_text(encoding="utf-8"))
    top_levels = {top_level(imported) for imported, _ in imports}
    # Python 3.9 does not know the names; the later versions read the same files.
    known = getattr(sys, "stdlib_module_names", top_levels)
    assert top_levels <= {*known, *TABLES}


@pytest.mark.parametrize(
    ("importer", "imported", "complaint_part"),
    [
        ("websocket.frame_reader", "websocket.frame", ""),
        ("websocket.errors", "websocket.causes", ""),
        ("websocket.http11", "websocket.headers", ""),
        ("websocket.connection", "reactor.transport", ""),
        ("websocket.frame", "struct", ""),
        ("websocket.frame", "websocket.frame_reader", "not below"),
        ("websocket.headers", "websocket.http11", "not below"),
        ("websocket.frame", "websocket", "not below"),
        ("websocket.frame", "websocket.nowhere", "in no row"),
        ("websocket.frame", "reactor", "no star"),
        ("reactor.loop", "websocket.opcodes", "must not know"),
    ],
)
def test_the_table_forbids_what_the_design_forbids(
    importer: str, imported: str, complaint_part: str
) -> None:
    text = complaint(importer, imported)
    assert complaint_part in text
    assert bool(text) == bool(complaint_part)


def test_imports_are_found_wherever_they_stand_but_not_those_for_type_checkers() -> None:
    source = """
import os.path, sys
from websocket import errors, Connection
if TYPE_CHECKING:
    import hidden
else:
    import otherwise
def late():
    try:
        import resource
    except ImportError:
        from websocket.limits import Limits
"""
    assert sorted(name for name, _ in imports_of(source)) == [
        "os.path",
        "otherwise",
        "resource",
        "sys",
        "websocket",
        "websocket.errors",
        "websocket.limits",
    ]
