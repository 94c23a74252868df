"""Document of settings: YAML text and environment variables, read into plain objects.

YAML 1.1 reads ``off`` as false, ``12:30:45`` as a number, ``2026-01-01`` as a date and ``0777`` as 511, and most
parsers accept duplicate keys. Here a plain scalar is true, false, null, a decimal number, or else a string; duplicate
keys, anchors, tags and second documents are refused. The result is built from the parser's events, without recursion.

``SIDECAR__INBOUND__LISTEN`` overrides ``inbound.listen``. Two underscores, because Kubernetes sets ``SIDECAR_PORT`` and
the like for a Service named ``sidecar``. Values are YAML, a list is given whole, and a variable that names no setting
is an error like an unknown key. Variables that Kubernetes sets for a Service named ``sidecar--…`` are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import yaml

from delegation_core.errors import ConfigError, Problem
from delegation_core.records.record_text import escape
from sidecar.config.bounds import BOUNDS

MAX_BYTES: Final = BOUNDS["bytes"].most
MAX_NODES: Final = BOUNDS["nodes"].most
TOO_LARGE: Final = (f"is larger than {MAX_BYTES} bytes", BOUNDS["bytes"].fix)
NO_UTF_8: Final = ("is not UTF-8 text", "save it as UTF-8")
MAX_DEPTH: Final = BOUNDS["depth"].most
MAX_SHOWN: Final = 64  # characters of a key in a message
PREFIX: Final = "SIDECAR__"

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_WORDS: Final[dict[str, object]] = {"true": True, "false": False, "null": None, "~": None, "": None}
_IN_SECTION: Final = 2  # open collections around a row
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(Exception):
    """The text is not a usable document. ``problem`` names the place and the fix, and quotes no value."""

    def __init__(self, field: str, wrong: str, fix: str) -> None:
        super().__init__(f"{field}: {wrong}; {fix}")
        self.problem = Problem(field, wrong, fix)


class Parsed(NamedTuple):
    """A document. ``lines`` has, for each section at its top, the lines of its rows or keys."""

    root: object
    nodes: int
    depth: int
    lines: Mapping[str, list[int]]


def read_text(path: Path) -> str:
    """Return the file's text.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:  # a truncated document could parse as a whole one
            raise ConfigError([Problem(str(path), *TOO_LARGE)])
        return raw.decode("utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read ({error.strerror})", "name a readable file")]) from error
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), *NO_UTF_8)]) from None


def parse_document(text: str, *, name: str) -> object:
    """Return the root of ``parse``."""
    return parse(text, name=name).root


def parse(text: str, *, name: str) -> Parsed:
    """Read one YAML document into dicts, lists, strings, ints, floats, bools and None.

    Raises:
        DocumentError: it is too large, not YAML, or uses a YAML feature refused above. The problem's field is ``name``.
    """
    if len(text) > MAX_BYTES:
        raise DocumentError(name, *TOO_LARGE)
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except UnicodeEncodeError:  # bytes of a variable that are not UTF-8 arrive as lone surrogates
        raise DocumentError(name, *NO_UTF_8) from None
    except yaml.YAMLError as error:  # its text quotes the input
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{name} line {mark.line + 1}" if mark is not None else name
        raise DocumentError(where, "is not valid YAML", "check indentation, quotes and brackets") from None
    return Parsed(builder.root, builder.nodes, builder.depth, builder.lines)


class _Builder:
    """Builds objects from the parser's events. ``_stack`` holds the open collections."""

    def __init__(self, name: str) -> None:
        self.root: object = None
        self.nodes = 0
        self.depth = 0
        self.lines: dict[str, list[int]] = {}
        self._name = name
        self._documents = 0
        self._stack: list[list[object] | _OpenMapping] = []

    def take(self, event: yaml.events.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.NodeEvent):
            self._count(line)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._error(line, "a second document starts", "keep one document per file")
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._error(line, "anchors and aliases are not supported", "write the value in full")
        elif isinstance(event, yaml.ScalarEvent):
            self._refuse_tag(event, line)
            self._add(_scalar(event.value) if event.style is None or event.style == "" else event.value, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._refuse_tag(event, line)
            if len(self._stack) >= MAX_DEPTH:
                raise self._error(line, f"is nested deeper than {MAX_DEPTH} levels", BOUNDS["depth"].fix)
            self._stack.append(_OpenMapping() if isinstance(event, yaml.MappingStartEvent) else [])
            self.depth = max(self.depth, len(self._stack))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._stack.pop()
            self._add(closed.items if isinstance(closed, _OpenMapping) else closed, line)

    def _count(self, line: int) -> None:
        """Count a node. Note its line if it is a row or a key of a section at the top."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._error(line, f"has more than {MAX_NODES} keys and values", BOUNDS["nodes"].fix)
        if len(self._stack) == _IN_SECTION:
            root, section = self._stack
            is_row = isinstance(section, list) or not section.has_key
            if is_row and isinstance(root, _OpenMapping):
                self.lines.setdefault(root.key, []).append(line)

    def _add(self, value: object, line: int) -> None:
        if not self._stack:
            self.root = value
            return
        parent = self._stack[-1]
        if isinstance(parent, list):
            parent.append(value)
        elif parent.has_key:
            parent.items[parent.key] = value
            parent.has_key = False
        else:
            self._set_key(parent, value, line)

    def _set_key(self, parent: _OpenMapping, key: object, line: int) -> None:
        if not isinstance(key, str):
            raise self._error(line, "a key is not text", "put it in quotes")
        if key in parent.items:
            raise self._error(line, f"the key {printable(key)} appears twice", "keep one of them")
        parent.key, parent.has_key = key, True

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.tag is not None:
            raise self._error(line, "tags are not supported", "remove the word that starts with an exclamation mark")

    def _error(self, line: int, wrong: str, fix: str) -> DocumentError:
        return DocumentError(f"{self._name} line {line}", wrong, fix)


class _OpenMapping:
    __slots__ = ("has_key", "items", "key")

    def __init__(self) -> None:
        self.items: dict[str, object] = {}
        self.key = ""
        self.has_key = False


def printable(key: Hashable) -> str:
    """Return a key from the file, escaped and shortened for a message."""
    text = escape(str(key))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _scalar(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def override(document: dict[str, object], environ: Mapping[str, str]) -> list[Problem]:
    """Write the values of all ``SIDECAR__…`` variables into ``document``; return a problem per unusable variable."""
    problems: list[Problem] = []
    # A section before its members, so that the more specific variable wins.
    for name in sorted(_ours(environ), key=lambda name: (name.count("__"), name)):
        path = name.removeprefix(PREFIX).split("__")
        if not all(path) or name != name.upper():
            problems.append(
                Problem(printable(name), "is not the name of a setting", "write SIDECAR__SECTION__KEY in capitals")
            )
            continue
        try:
            value = parse_document(environ[name], name=name)
        except DocumentError as error:
            problems.append(error.problem)
            continue
        if not _put(document, [part.lower() for part in path], value):
            problems.append(
                Problem(printable(name), "names a key of a value that has no keys", "override the whole value or list")
            )
    return problems


def variables(document: Mapping[str, object], environ: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of the variables that set each dotted field. Call before ``override``.

    A section that the document lacks is listed too, with the variables that create it: messages about its missing keys
    name them.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(_ours(environ)):
        path = name.removeprefix(PREFIX).lower().split("__")
        section: object = document
        for number, key in enumerate(path[:-1], start=1):
            section = section.get(key) if isinstance(section, dict) else None
            if section is None:
                found.setdefault(".".join(path[:number]), []).append(name)
        found.setdefault(".".join(path), []).append(name)
    return found


def _ours(environ: Mapping[str, str]) -> list[str]:
    """Return the names of variables with our prefix, except those that Kubernetes sets for a Service."""
    names = [name for name in environ if name.startswith(PREFIX)]
    services = [name.removesuffix("_SERVICE_HOST") for name in names if name.endswith("_SERVICE_HOST")]
    beginnings = tuple(
        beginning
        for service in services
        if {f"{service}_SERVICE_PORT", f"{service}_PORT"} <= environ.keys()
        for beginning in (f"{service}_SERVICE_", f"{service}_PORT")
    )
    return [name for name in names if not name.startswith(beginnings)]


def _put(document: dict[str, object], path: list[str], value: object) -> bool:
    section = document
    for key in path[:-1]:
        inner = section.get(key)
        if inner is None:
            inner = section[key] = {}
        if not isinstance(inner, dict):
            return False
        section = inner
    section[path[-1]] = value
    return True
