"""Reads JSON and YAML documents as a stream of objects, each with its line. Executes and expands nothing.

JSON is parsed object by object, so ten thousand entries of a server take a fraction of a second, and each has its line.
An alias in YAML refers to the same object (``yaml_events``): callers must read single members, and never walk or print
a whole value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Final

import yaml

from delegation_audit.yaml_events import RefusedError, documents

MAX_BYTES: Final = 64 << 20
MAX_YAML_BYTES: Final = 16 << 20
MAX_NODES: Final = 1_000_000  # values of a YAML document
MAX_ERRORS: Final = 1000
_MOST_READ: Final = 8  # limit of characters lost to errors, in lengths of the text: parsing restarts after each error
_LISTS: Final = frozenset({"entries", "items", "results"})
_BLANK: Final = re.compile(r"[ \t\r\n,]*")
_NEXT_LINE: Final = re.compile(r"\n(?=[{\[])")
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_WORDS: Final[dict[str, object]] = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True, slots=True)
class Found:
    """One object, or the place of an error. ``error`` quotes nothing of the document."""

    line: int
    value: object = None
    error: str | None = None


class Located(dict[str, object]):
    """A mapping of a YAML document with the line at which it begins."""

    line: int = 1


def read_documents(text: str) -> Iterator[Found]:
    """Yield each object of JSON, JSON Lines or YAML; of the lists of a server or kubectl, each item. Yields errors."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        yield from _json(text)
    elif len(text) > MAX_YAML_BYTES:
        yield Found(1, error=f"is longer than {MAX_YAML_BYTES} characters of YAML; export it as JSON, or split it")
    else:
        yield from _yaml(text)


def _json(text: str) -> Iterator[Found]:
    scan, spent = _Scan(text), 0
    for _ in range(MAX_ERRORS):
        try:
            for at, value in scan.objects():
                yield Found(scan.line(at), value)
        except (ValueError, RecursionError) as error:
            spent += getattr(error, "pos", len(text)) - scan.at
            yield Found(scan.line(scan.at), error="is not JSON from here on, or has two members with one name")
        else:
            return
        following = _NEXT_LINE.search(text, scan.at + 1)
        if following is None:
            return
        scan.at = following.end()
        if spent > _MOST_READ * len(text):
            break
    yield Found(scan.line(scan.at), error="has too many errors; the rest was not read; fix the first errors")


class _Scan:
    """Position in a JSON text. ``at``: the start of the current object."""

    def __init__(self, text: str) -> None:
        self.at = 0
        self._text = text
        self._decode = json.JSONDecoder(
            object_pairs_hook=_members, parse_constant=_refuse, parse_int=_integer
        ).raw_decode
        self._counted = (0, 1)

    def line(self, at: int) -> int:
        """Return the line of a position. Fast for ascending positions: each line is then counted once."""
        before, line = self._counted
        if at < before:
            before, line = 0, 1
        line += self._text.count("\n", before, at)
        self._counted = (at, line)
        return line

    def objects(self) -> Iterator[tuple[int, object]]:
        while True:
            self.at = self._skip(self.at)
            if self.at >= len(self._text):
                return
            if self._text[self.at] == "[":
                self.at = yield from self._items(self.at)
            elif self._text[self.at] == "{":
                self.at = yield from self._members(self.at)
            else:
                raise ValueError("neither an object nor a list")

    def _items(self, at: int) -> Generator[tuple[int, object], None, int]:
        at = self._skip(at + 1)
        while self._peek(at) != "]":
            self.at = at
            value, end = self._decode(self._text, at)
            yield at, value
            at = self._skip(end)
        return at + 1

    def _members(self, start: int) -> Generator[tuple[int, object], None, int]:
        members: list[tuple[str, object]] = []
        at, listed = self._skip(start + 1), False
        while self._peek(at) != "}":
            name, at = self._decode(self._text, self._quote(at))
            at = self._skip(at)
            if self._peek(at) != ":":
                raise ValueError("a member without a value")
            at = self._skip(at + 1)
            if name in _LISTS and self._peek(at) == "[":
                listed = True
                at = yield from self._items(at)
                members.append((name, []))
            else:
                value, at = self._decode(self._text, at)
                members.append((name, value))
            at = self._skip(at)
        whole = _members(members)
        if not listed:
            yield start, whole
        return at + 1

    def _skip(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        return at if found is None else found.end()

    def _peek(self, at: int) -> str:
        if at >= len(self._text):
            raise ValueError("ends early")
        return self._text[at]

    def _quote(self, at: int) -> int:
        if self._peek(at) != '"':
            raise ValueError("a member without a name")
        return at


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("two members with one name")
    return members


def _refuse(_: str) -> object:
    raise ValueError("no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > 19:
        raise ValueError("a number is too long")
    return int(digits)


def _yaml(text: str) -> Iterator[Found]:
    try:
        for line, root in documents(text, _Form(), max_values=MAX_NODES):
            yield from _objects(line, root)
    except yaml.YAMLError as error:  # its text quotes the input
        mark = getattr(error, "problem_mark", None)
        yield Found(
            1 if mark is None else mark.line + 1, error="is not YAML from here on; check indentation and brackets"
        )
    except RefusedError as error:
        yield Found(error.line, error=str(error))


def _objects(line: int, root: object) -> Iterator[Found]:
    listed = next((root[name] for name in _LISTS if name in root), None) if isinstance(root, Located) else root
    if isinstance(listed, list):
        for item in listed:
            yield Found(item.line if isinstance(item, Located) else line, item)
    elif root is not None:
        yield Found(line, root)


class _Form:
    """Makes YAML values: integers, true, false, null and text. Refuses duplicate keys and keys that are collections."""

    def scalar(self, event: yaml.ScalarEvent, line: int, /) -> object:  # noqa: ARG002, a mapping has the line
        return _scalar(event.value) if event.style in (None, "") else event.value

    def collection(self, line: int, /, *, mapping: bool) -> object:
        if not mapping:
            return []
        located = Located()
        located.line = line
        return located

    def name(self, mapping: object, key: object, line: int, /) -> str:
        if isinstance(key, dict | list):
            raise RefusedError(line, "has a key that is no text; if it is a template, render it first")
        name = key if isinstance(key, str) else str(key)
        if isinstance(mapping, dict) and name in mapping:
            raise RefusedError(line, "has a duplicate key; keep one of them")
        return name

    def add(self, parent: object, name: str | None, value: object, /) -> None:
        if isinstance(parent, list):
            parent.append(value)
        elif isinstance(parent, dict):
            parent[name] = value

    def complete(self, mapping: object, /) -> object:
        return _merge(mapping) if isinstance(mapping, Located) else mapping

    def alias_of_nothing(self, line: int, /) -> object:
        raise RefusedError(line, "holds an alias without an anchor before it")


def _merge(mapping: Located) -> Located:
    """Add the members of ``<<: *other`` that the mapping lacks; return the mapping."""
    others = mapping.pop("<<", None)
    for other in others if isinstance(others, list) else [others]:
        if isinstance(other, dict):
            for name, value in other.items():
                mapping.setdefault(name, value)
    return mapping


def _scalar(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
