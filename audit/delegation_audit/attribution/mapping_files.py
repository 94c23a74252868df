"""Reads mappings: the shipped TOML files in ``formats/``, and those of ``--mapping FILE``, which are tried first.

Reports all errors of a file at once, each with its key and its fix.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from delegation_audit.attribution.mapping import KINDS, FieldNames, LogFormat
from delegation_audit.attribution.templates import Template, TemplateError

MAX_FILE_BYTES: Final = 1 << 18

# In this order: a format with a narrower condition is tried before a wider one.
SHIPPED: Final = (
    "kubernetes-audit", "cloudtrail", "entra", "entra-csv", "keycloak", "keycloak-admin", "toolhive",
    "authbridge-outbound", "authbridge-inbound", "agentgateway-json", "istio-json", "envoy-json", "nginx-json",
    "haproxy", "istio", "envoy", "common-log", "cef", "keycloak-log", "authbridge-log", "agentgateway", "json",
)  # fmt: skip

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_REQUIRED: Final = ("name", "title", "kind")
_CONDITIONS: Final = ("recognise", "requests", "own", "client_acts", "doubtful", "refused")
_PARTIES: Final = frozenset({"user", "on_behalf_of", "actor", "client", "peer", "declared"})
_KEYS: Final = tuple(one.name for one in fields(LogFormat) if one.init)
_FIELDS: Final = tuple(one.name for one in fields(FieldNames))


class MappingError(ValueError):
    """A mapping file cannot be used. The message has one line for each error, with file, key and fix."""


class _EntryError(ValueError):
    """One error: the key and a sentence."""


def load_shipped() -> list[LogFormat]:
    """Return the shipped mappings, in the order in which they are tried."""
    known: dict[str, LogFormat] = {}
    for name in SHIPPED:
        text = files("delegation_audit.attribution").joinpath("formats", f"{name}.toml").read_text("utf-8")
        known[name] = _check(tomllib.loads(text), name)
    return [_resolve(mapping, known, mapping.name) for mapping in known.values()]


def load(paths: Sequence[str]) -> list[LogFormat]:
    """Return the mappings in use: those of the files first, then the shipped ones.

    Raises:
        MappingError: a file cannot be read or is not a valid mapping.
    """
    base = load_shipped()
    known = {mapping.name: mapping for mapping in base}
    return [_resolve(_read(path), known, path) for path in paths] + base


def _resolve(mapping: LogFormat, known: Mapping[str, LogFormat], place: str) -> LogFormat:
    if mapping.extends is None:
        return mapping
    if mapping.extends not in known:
        raise MappingError(
            f"{place}: extends: {mapping.extends!r} is no shipped mapping{_nearest(mapping.extends, known)}"
        )
    return mapping.extend(_resolve(known[mapping.extends], known, place))


def _read(path: str) -> LogFormat:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise MappingError(f"{path}: larger than {MAX_FILE_BYTES} bytes; a mapping is a page of text")
        return _check(tomllib.loads(content.decode("utf-8-sig")), path)
    except OSError as error:
        raise MappingError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MappingError(f"{path}: not TOML: {error}; docs/attribution.md has an example") from None


def _check(table: Mapping[str, object], place: str) -> LogFormat:
    """Return the mapping that a parsed file holds. ``place``: the file's name, for errors.

    Raises:
        MappingError: the table is not a valid mapping; the message lists every error.
    """
    errors: list[str] = []

    def read(key: str, value: object, reader: Callable[[str, object], Any]) -> Any:
        try:
            return reader(key, value)
        except _EntryError as error:
            errors.append(f"{place}: {error}")
            return ()

    errors += [
        f"{place}: {key}: missing; every mapping has name, title and kind" for key in _REQUIRED if key not in table
    ]
    errors += [f"{place}: {key}: no such key{_nearest(key, _KEYS)}" for key in table if key not in _KEYS]
    known = {
        key: read(key, value, _READERS.get(key, _text))
        for key, value in table.items()
        if key in _KEYS and key != "fields"
    }
    named = read("fields", table.get("fields", {}), _table)
    for key in named:
        if key not in _FIELDS:
            errors.append(
                f"{place}: fields.{key}: no such key{_nearest(key, _FIELDS)}; the keys are {', '.join(_FIELDS)}"
            )
    of_fields = {
        key: read(f"fields.{key}", value, _parties if key in _PARTIES else _names)
        for key, value in dict(named).items()
        if key in _FIELDS
    }
    if (known.get("kind") == "template") != bool(table.get("templates")):
        errors.append(f'{place}: templates: needed with kind = "template", and only there')
    if known.get("kind") in {"json", "logfmt", "csv"} and not table.get("recognise") and place not in SHIPPED:
        errors.append(f'{place}: recognise: needed, for example [{{ app = ["crm"] }}], or every such line would match')
    if errors:
        raise MappingError("\n".join(errors))
    return LogFormat(**known, fields=FieldNames(**of_fields))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _EntryError(f'{key}: write a text in quotes, for example {key} = "crm"')
    return value


def _name(key: str, value: object) -> str:
    if not _NAME.fullmatch(_text(key, value)):
        raise _EntryError(f"{key}: write lower-case letters, digits and dashes")
    return _text(key, value)


def _kind(key: str, value: object) -> str:
    if value not in KINDS:
        raise _EntryError(f"{key}: {value!r} is none of {', '.join(KINDS)}{_nearest(str(value), KINDS)}")
    return _text(key, value)


def _table(key: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _EntryError(f"{key}: write a table, for example [{key}]")
    return value


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _EntryError(f'{key}: write a list of texts, for example ["a", "b"]')
    return tuple(value)


def _names(key: str, value: object) -> tuple[str, ...]:
    return tuple(name.lower() for name in _texts(key, value))


def _parties(key: str, value: object) -> tuple[str | tuple[str, ...], ...]:
    if not isinstance(value, list):
        raise _EntryError(
            f'{key}: write a list of fields, for example ["user"], or [["user.id", "user.name"]] for one party'
        )
    return tuple(_names(key, one) if isinstance(one, list) else _names(key, [one])[0] for one in value)


def _templates(key: str, value: object) -> tuple[str, ...]:
    for number, template in enumerate(_texts(key, value)):
        try:
            Template(template)
        except TemplateError as error:
            raise _EntryError(f"{key}[{number}]: {error}") from None
    return _texts(key, value)


def _condition(key: str, value: object) -> tuple[Mapping[str, tuple[str, ...]], ...]:
    if not isinstance(value, list) or not all(isinstance(table, dict) and table for table in value):
        raise _EntryError(f'{key}: write a list of tables, for example [{{ app = ["crm"] }}]')
    tables = []
    for number, table in enumerate(value):
        for name, patterns in table.items():
            if not _texts(f"{key}[{number}].{name}", patterns):
                raise _EntryError(f'{key}[{number}].{name}: write at least one pattern; ["*"] is any value')
        tables.append({name.lower(): tuple(patterns) for name, patterns in table.items()})
    return tuple(tables)


_READERS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "name": _name,
    "kind": _kind,
    "templates": _templates,
    "lead": _templates,
    "none": _texts,
    "embedded": _names,
    **dict.fromkeys(_CONDITIONS, _condition),
}


def _nearest(word: str, words: Iterable[str]) -> str:
    near = get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
