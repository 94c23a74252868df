"""Splits one line of a log into fields: JSON, logfmt, CEF and the rows of a CSV export. Pure.

Fields have lower-case names, with dots for nesting and numbers for list positions. A line that gives one field two
values is ambiguous and refused: a caller that injects a second ``act`` must not choose the reading.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NoReturn

from delegation_core.jws import TOKEN_PATTERN

MAX_FIELDS: Final = 2048
MAX_DEPTH: Final = 32

Flat = dict[str, str]

_CREDENTIAL: Final = re.compile(rf"(?i:(?:bearer|basic|digest|negotiate|dpop) |eyJ)|{TOKEN_PATTERN}")
_KEY: Final = re.compile(r"(?<!\S)([A-Za-z_][\w.@:/-]{0,127})=")  # no key begins after a comma: a path may hold one
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_WORD: Final = re.compile(r"\S*+")
_CEF_HEADER: Final = re.compile(r"CEF:\d{1,2}" + r"\|((?:[^|\\]|\\.)*+)" * 6 + r"\|")
_CEF_KEY: Final = re.compile(r"(?<![^ ])([A-Za-z][\w.]{0,62})=")
_CEF_NAMES: Final = ("vendor", "product", "version", "signature", "name", "severity")
_CEF_LABEL: Final = re.compile(r"(c(?:s|n|fp|6a)\d)label")
_ESCAPED: Final = re.compile(r"\\(.)")


class SplitError(ValueError):
    """The line is malformed or ambiguous. The message never quotes the line."""


class Ambiguous(dict[str, object]):
    """A JSON object in which a member name occurs twice."""


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Ambiguous(members)


def _constant(_name: str) -> NoReturn:
    raise SplitError("NaN and Infinity are not JSON")


# Numbers stay text, so that an identifier of twenty digits loses none.
DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=str, parse_float=str, parse_constant=_constant, strict=False
)


def parse_json(text: str) -> dict[str, object]:
    """Parse one JSON object.

    Raises:
        SplitError: the text is no JSON object, or nested too deeply.
    """
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise SplitError("nested too deeply") from None
    except json.JSONDecodeError:
        raise SplitError("no JSON") from None
    if not isinstance(value, dict):
        raise SplitError("no JSON object")
    return value


def flatten(members: Mapping[str, object]) -> Flat:
    """Return every scalar of a JSON object as text under its dotted name; ``null`` as "".

    Raises:
        SplitError: one name has two values, the object has more than MAX_FIELDS, or is nested too deeply.
    """
    flat: Flat = {}
    for name, value in _leaves(members, "", 0):
        if len(flat) >= MAX_FIELDS:
            raise SplitError(f"more than {MAX_FIELDS} fields")
        _add(flat, name, value)
    return flat


def _leaves(value: object, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Ambiguous) or depth > MAX_DEPTH:
        raise SplitError("an object has two members with one name, or is nested too deeply")
    if isinstance(value, str):
        yield name, value
    elif value is None:
        yield name, ""
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif isinstance(value, dict | list):
        entries: Iterable[tuple[object, object]] = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from _leaves(inner, f"{name}.{key}".lower() if name else f"{key}".lower(), depth + 1)


def _add(flat: Flat, name: str, value: str) -> None:
    if flat.setdefault(name, value) != value:
        raise SplitError("two fields have one name")


def names_somebody(value: str) -> bool:
    """Return False for a value that looks like a credential, which is no name and must not be displayed."""
    return not _CREDENTIAL.match(value)


def split_logfmt(line: str) -> tuple[str, Flat]:
    """Split ``key=value key="value" key={"a": 1}``; skips commas after quotes, and words without ``=``.

    Returns the words before the first pair, joined by one space, and the pairs.

    Raises:
        SplitError: a key has two values, or there are more than MAX_FIELDS.
    """
    flat: Flat = {}
    at = 0
    first = _KEY.search(line)
    lead = " ".join(line[: first.start()].split()) if first else line
    while key := _KEY.search(line, at):
        name, at = key[1].lower(), key.end()
        if quoted := _QUOTED.match(line, at):
            at = quoted.end()
            _add(flat, name, _ESCAPED.sub(r"\1", quoted[1]))
        elif (document := _document(line, at)) is not None:
            members, at = document
            for leaf, value in _leaves(members, name, 0):
                _add(flat, leaf, value)
        elif word := _WORD.match(line, at):
            at = word.end()
            _add(flat, name, word[0])
        if len(flat) > MAX_FIELDS:
            raise SplitError(f"more than {MAX_FIELDS} fields")
    return lead, flat


def _document(line: str, at: int) -> tuple[dict[str, object], int] | None:
    """Return the JSON object that begins at ``at`` and the position of its end; None if there is none."""
    if not line.startswith("{", at):
        return None
    try:
        members, end = DECODER.raw_decode(line, at)
    except (json.JSONDecodeError, RecursionError):
        return None
    return members, end


def split_cef(line: str) -> Flat:
    """Split a CEF event; a custom field appears under its label as well, such as ``label.actor``.

    Raises:
        SplitError: the line is no CEF, or a key has two values.
    """
    header = _CEF_HEADER.match(line)
    if header is None:
        raise SplitError("no CEF")
    flat: Flat = {
        f"cef.{name}": _ESCAPED.sub(r"\1", part) for name, part in zip(_CEF_NAMES, header.groups(), strict=True)
    }
    extension = line[header.end() :]
    keys = list(_CEF_KEY.finditer(extension))
    ends = [*(key.start() for key in keys[1:]), len(extension)][: len(keys)]
    for key, end in zip(keys, ends, strict=True):
        _add(flat, key[1].lower(), _ESCAPED.sub(r"\1", extension[key.end() : end].strip()))
    for name in list(flat):
        if (label := _CEF_LABEL.fullmatch(name)) and label[1] in flat:
            _add(flat, f"label.{flat[name].lower()}", flat[label[1]])
    return flat


def split_row(line: str) -> list[str]:
    """Split a row of CSV.

    Raises:
        SplitError: the line is no valid row.
    """
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        raise SplitError("no CSV") from None
