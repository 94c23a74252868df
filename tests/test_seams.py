"""Seams that mypy sees: no cast makes one class pass as another, and no module uses what is private to another."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.sources import ROOT, python_files

_PRIVATE: Final = re.compile(r"_[a-z]\w*(?<!_)")
# Public, in spite of their names: the methods of a NamedTuple, and ``os._exit``.
_PUBLIC: Final = frozenset({"_asdict", "_replace", "_exit"})

# Casts correct the types of libraries. A cast to a class of ours would hide from mypy what that class does not have.
CASTS: Final = {
    "asyncio.Transport": "asyncio says BaseTransport to every protocol, and TCP and TLS have more",
    "Callable[[bytes], list[Field]]": "re says list[Any]",
    "Sequence[Field]": "h2 allows text and other tuples, which a decoder of bytes never returns",
    "list[Field]": "h2 says Iterable[Header]",
    "PublicKey": "py-spiffe says every kind of key; ``algorithms_of`` refuses those that the core does not know",
    "IO[bytes]": "the streams of gzip and zstd have less than IO; a reader needs ``read`` alone",
    "Callable[P, R]": "one wrapper serves coroutines and plain functions, each with the signature of its own",
    "ProtocolSettings": "a module imported by name; ``sidecar_checks.py`` lists all three, where mypy compares them",
    "S": "settings of which some sections failed the schema: each attribute is that of S, or ends the check",
}

# Private to the object or the module on the left.
PRIVATE: Final = {
    "permit._SEAL": "seals permits: only a decision may make one",
    "ssl_object._sslobj": "has the chain of certificates, which is public only since Python 3.13",
    "connection._decode_headers": "h2 decodes its own errors there",
    **dict.fromkeys(
        (
            "stream._actual_content_length",
            "stream._inbound_window_manager",
            "stream._inbound_window_manager._bytes_processed",
            "shared._bytes_processed",
            "window._bytes_processed",
        ),
        "h2 counts received content there: DATA frames are read without its state machine",
    ),
}


def product() -> Iterator[tuple[str, ast.Module]]:
    for file in python_files("core", "audit", "sidecar", "agent"):
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text())


def casts_in(tree: ast.AST) -> set[str]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return {ast.unparse(call.args[0]).strip("'") for call in calls if ast.unparse(call.func) == "cast"}


def _defined_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _private_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield uses of private names: (owner, name). Those of ``self`` and of a base class are no such uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((str(node.module).rpartition(".")[2], alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in {"self", "cls", "super()"}:
            yield ast.unparse(node.value), node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr"}:
            owner, name = node.args[:2]
            if isinstance(name, ast.Constant) and ast.unparse(owner) != "self":
                yield ast.unparse(owner), str(name.value)


def private_in(tree: ast.AST) -> set[str]:
    """Return the uses of names that are private to another module."""
    own = {*_defined_in(tree)} | _PUBLIC
    found = _private_in(tree)
    return {f"{owner}.{name}" for owner, name in found if _PRIVATE.fullmatch(name.lower()) and name not in own}


def test_casts_and_private_names_of_others_are_those_of_the_tables() -> None:
    """Give a value its type or a Protocol, and a name that others need no underscore."""
    found = [(file, casts_in(tree) - CASTS.keys(), private_in(tree) - PRIVATE.keys()) for file, tree in product()]
    assert len(found) > 600
    assert [(file, casts, names) for file, casts, names in found if casts or names] == []


def test_the_tables_name_nothing_that_is_not_used() -> None:
    trees = [tree for _, tree in product()]
    assert set().union(*map(casts_in, trees)) == CASTS.keys()
    assert set().union(*map(private_in, trees)) == PRIVATE.keys()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("cache._entries", {"cache._entries"}),
        ("self.cache._entries", {"self.cache._entries"}),
        ("getattr(cache, '_entries')", {"cache._entries"}),
        ("from delegation_core.bounded import _Entry", {"bounded._Entry"}),
        ("class A:\n  def equals(self, other):\n    return self._x == other._x", {"other._x"}),
        ("class A:\n  def __init__(self):\n    self._x = 1\n  def equals(self, other):\n    return other._x", set()),
        ("class B(A):\n  def read(self):\n    return super()._read()", set()),
        ("one._replace(a=1)", set()),
    ],
)
def test_names_that_are_private_to_another_module_are_found(code: str, found: set[str]) -> None:
    assert private_in(ast.parse(code)) == found


def test_a_cast_is_found() -> None:
    assert casts_in(ast.parse("cast('ClientConnection', exchange)")) == {"ClientConnection"}
