"""Parsing and formatting of scopes: sets of scope tokens (RFC 6749 section 3.3)."""

from __future__ import annotations

import re
from typing import Final, Literal

ScopeSet = frozenset[str]
ScopeShape = Literal["string", "array", "either"]

# NQCHAR: visible ASCII without the quotation mark and the backslash.
_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")

# Limits of a cached set: a token may have thousands of scopes.
_MAX_KNOWN_TOKENS: Final = 32
_MAX_KNOWN_CHARACTERS: Final = 1024
_MAX_KNOWN: Final = 1024  # cached sets
_known: Final[dict[ScopeSet, tuple[str, ...]]] = {}


class ScopeError(ValueError):
    """The value is not a scope. The message never quotes it."""


def parse_scope(text: str) -> ScopeSet:
    """Parse a scope string: tokens separated by single spaces; the empty string is the empty set.

    Raises:
        ScopeError: a doubled, leading or trailing space, or a character outside the grammar.
    """
    return _scope_set(text.split(" ")) if text else frozenset()


def parse_scope_claim(value: object, *, shape: ScopeShape) -> ScopeSet:
    """Parse a scope claim of the issuer's ``shape``: one string, an array of tokens, or either.

    Raises:
        ScopeError: another shape or type, or an invalid scope token.
    """
    if isinstance(value, str) and shape != "array":
        return parse_scope(value)
    if isinstance(value, list) and shape != "string":
        return _scope_set(value)
    raise ScopeError("the scope claim's type is not the one in its issuer's profile")


def sorted_scope(scope: ScopeSet) -> tuple[str, ...]:
    """Return the scope tokens sorted; cached for small sets."""
    return _known.get(scope) or _sort(scope)


def _sort(scope: ScopeSet) -> tuple[str, ...]:
    ordered = tuple(sorted(scope))
    if len(scope) <= _MAX_KNOWN_TOKENS and sum(map(len, scope)) <= _MAX_KNOWN_CHARACTERS:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[scope] = ordered
    return ordered


def format_scope(scope: ScopeSet) -> str:
    """Return the scope tokens as a string, sorted and separated by single spaces."""
    return " ".join(sorted_scope(scope))


def _scope_set(tokens: list[object] | list[str]) -> ScopeSet:
    scope = set()
    for token in tokens:
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ScopeError(
                "a scope must be visible ASCII without quotation mark and backslash, separated by single spaces"
            )
        scope.add(token)
    return frozenset(scope)
