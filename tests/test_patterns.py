"""No regular expression is ambiguous: so matching takes linear time.

A regular expression is C: its steps cannot be counted. So its structure is checked. Two adjacent unbounded repetitions
that share a character can divide a run of it in linearly many ways; three, in quadratically many. A possessive one
(``*+``) takes all in one way.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

import pytest

import delegation_core
import sidecar
from sidecar.wire.h1_head import _request_head, _response_head

EVERYTHING: Final = frozenset(range(256))
LONG: Final = 256  # this many repetitions count as unbounded


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for package in (delegation_core, sidecar):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield from within(module.name, dict(vars(importlib.import_module(module.name))))
    for proxy_form in (False, True):  # these are compiled when their limits are known
        yield f"request head, {proxy_form=}", _request_head(8192, 100, proxy_form)
    yield "response head", _response_head(200)


def within(name: str, value: object) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Find the patterns of a module: its own, and those in its containers and classes."""
    pattern = getattr(value, "__self__", value)  # also for a bound method, like ``fullmatch``
    if isinstance(pattern, re.Pattern):
        yield name, pattern
    elif isinstance(value, type):
        if f"{value.__module__}.{value.__name__}" == name:
            yield from within(name, dict(vars(value)))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from within(f"{name}.{key}", one)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, one in enumerate(value):
            yield from within(f"{name}.{number}", one)


PATTERNS: Final = dict(patterns())
Item = tuple[Any, Any]


def characters(items: list[Item]) -> frozenset[int]:
    """Return the characters of a set, ``[...]``."""
    found: set[int] = set()
    negated = False
    for kind, value in items:
        if kind is codes.NEGATE:
            negated = True
        elif kind is codes.LITERAL:
            found.add(value)
        elif kind is codes.RANGE:
            found |= set(range(value[0], min(value[1], 255) + 1))
        else:
            return EVERYTHING
    return EVERYTHING - found if negated else frozenset(found)


def first(items: list[Item]) -> tuple[frozenset[int], bool]:
    """Return the characters that a sequence may begin with, and whether it may be empty."""
    found: frozenset[int] = frozenset()
    for item in items:
        begins, may_be_empty = first_of(item)
        found |= begins
        if not may_be_empty:
            return found, False
    return found, True


def first_of(item: Item) -> tuple[frozenset[int], bool]:
    kind, value = item
    if kind is codes.LITERAL:
        return frozenset({value}), False
    if kind is codes.NOT_LITERAL:
        return EVERYTHING - {value}, False
    if kind is codes.IN:
        return characters(value), False
    if kind is codes.ANY:
        return EVERYTHING, False
    if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        begins, may_be_empty = first(list(value[2]))
        return begins, may_be_empty or value[0] == 0
    if kind is codes.SUBPATTERN:
        return first(list(value[3]))
    if kind is codes.ATOMIC_GROUP:
        return first(list(value))
    if kind is codes.BRANCH:
        ways = [first(list(way)) for way in value[1]]
        return frozenset().union(*(begins for begins, _ in ways)), any(empty for _, empty in ways)
    return (frozenset(), True) if kind in (codes.AT, codes.ASSERT, codes.ASSERT_NOT) else (EVERYTHING, False)


def is_long(item: Item) -> bool:
    return item[0] in (codes.MAX_REPEAT, codes.MIN_REPEAT) and item[1][1] >= LONG


def ambiguous(items: list[Item], after: list[Item]) -> Iterator[str]:
    """Yield repetitions in a sequence that may hand a character to a later one. ``after``: the rest."""
    for number, item in enumerate(items):
        kind, value = item
        rest = items[number + 1 :] + after
        if is_long(item):
            begins, _ = first(list(value[2]))
            for other in rest:
                follows, may_be_empty = first_of(other)
                if begins & follows and reaches_long(other, begins):
                    yield f"{value} and {other}"
                if not may_be_empty:
                    break
        if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            body = list(value[2])
            # An unbounded repetition may be followed by itself.
            yield from ambiguous(body, ([item] if is_long(item) and not single(body) else []) + rest)
        elif kind is codes.SUBPATTERN:
            yield from ambiguous(list(value[3]), rest)
        elif kind is codes.BRANCH:
            for way in value[1]:
                yield from ambiguous(list(way), rest)


def single(items: list[Item]) -> bool:
    """Tell if it is one character."""
    return len(items) == 1 and items[0][0] in (codes.LITERAL, codes.NOT_LITERAL, codes.IN, codes.ANY)


def reaches_long(item: Item, begins: frozenset[int]) -> bool:
    """Tell if an item begins with an unbounded repetition of one of those characters."""
    kind, value = item
    if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        body = list(value[2])
        if value[1] >= LONG and first(body)[0] & begins:
            return True
        return sequence_reaches_long(body, begins)
    if kind is codes.SUBPATTERN:
        return sequence_reaches_long(list(value[3]), begins)
    if kind is codes.BRANCH:
        return any(sequence_reaches_long(list(way), begins) for way in value[1])
    return False


def sequence_reaches_long(items: list[Item], begins: frozenset[int]) -> bool:
    for item in items:
        if reaches_long(item, begins):
            return True
        if not first_of(item)[1]:
            return False
    return False


def faults(pattern: re.Pattern[Any]) -> list[str]:
    return list(ambiguous(list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)), []))


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_a_pattern_reads_a_text_in_one_way(name: str) -> None:
    assert faults(PATTERNS[name]) == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"[ \t]*;?[ \t]*", True),
        (r"[ \t]*+;?[ \t]*+", False),
        (r"a(?:[ \t]*;)?[ \t]*", False),  # ambiguous at any length
        (r"a(?:;[ \t]*)?[ \t]*", True),
        (r"(?:a+b?)*", True),
        (r"(?:a+b)*", False),
        (r"(?:a+)+", True),
        (r"[a-z]+[0-9]+", False),
        (r"\w+\d+", True),
        (r".*x.*", False),  # linear for a match of the whole, the only kind here
        (r"a{1,64}a{1,64}", False),
    ],
)
def test_ambiguity_is_found(pattern: str, found: bool) -> None:
    assert bool(faults(re.compile(pattern))) is found
