"""Builds trees from the events of a YAML parser, without recursion, within limits. Executes and expands nothing.

An alias is a reference to the same value, so a document of a few lines may describe a tree of billions of values: a
caller that walks a tree must limit its steps. A ``Form`` makes the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import yaml

MAX_DEPTH: Final = 64
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
V = TypeVar("V")


class RefusedError(Exception):
    """A document exceeds a limit, or the form refuses it, at ``line``. The message quotes nothing of the document."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Form(Protocol[V]):
    """Factory of a tree's values. Each method may raise RefusedError."""

    def scalar(self, event: yaml.ScalarEvent, line: int, /) -> V:
        """Return the value of a scalar."""
        ...

    def collection(self, line: int, /, *, mapping: bool) -> V:
        """Return an empty mapping or list."""
        ...

    def name(self, mapping: V, key: V, line: int, /) -> str:
        """Return the name of a member whose key was parsed to ``key``."""
        ...

    def add(self, parent: V, name: str | None, value: V, /) -> None:
        """Add a member to a mapping, or an item, whose ``name`` is None, to a list."""
        ...

    def complete(self, mapping: V, /) -> V:
        """Return a complete mapping, with its merge keys resolved."""
        ...

    def alias_of_nothing(self, line: int, /) -> V:
        """Return the value of an alias whose anchor is unknown, or belongs to a collection that is still open."""
        ...


def documents(text: str, form: Form[V], *, max_values: int) -> Iterator[tuple[int, V]]:
    """Yield the line and the root of each non-empty document.

    Raises:
        yaml.YAMLError: the text is not YAML; the message quotes it.
        RefusedError: the nesting exceeds MAX_DEPTH, the text holds more than ``max_values``, or the form refuses it.
    """
    builder = _Builder(form, max_values)
    for event in yaml.parse(text, Loader=_LOADER):
        builder.take(event)
        if isinstance(event, yaml.DocumentEndEvent):
            yield from builder.pop_document()


@dataclass(slots=True)
class _Open(Generic[V]):
    """A collection not yet complete. ``awaiting``: the name of the member whose value comes next."""

    value: V
    line: int
    mapping: bool
    anchor: str | None
    awaiting: str | None = None


class _Builder(Generic[V]):
    """Builds the documents of one text, one after the other."""

    def __init__(self, form: Form[V], max_values: int) -> None:
        self._form = form
        self._max_values = max_values
        self._root: list[tuple[int, V]] = []
        self._open: list[_Open[V]] = []
        self._anchors: dict[str, V] = {}
        self._count = 0

    def pop_document(self) -> list[tuple[int, V]]:
        root, self._root = self._root, []
        self._anchors.clear()
        return root

    def take(self, event: yaml.events.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.ScalarEvent):
            self._finish(self._form.scalar(event, line), event.anchor, line)
        elif isinstance(event, yaml.AliasEvent):
            anchor = event.anchor or ""
            known = anchor in self._anchors
            self._add(self._anchors[anchor] if known else self._form.alias_of_nothing(line), line)
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) >= MAX_DEPTH:
                raise RefusedError(line, f"is nested deeper than {MAX_DEPTH} levels")
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(self._form.collection(line, mapping=mapping), line, mapping, event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            value = self._form.complete(closed.value) if closed.mapping else closed.value
            self._finish(value, closed.anchor, closed.line)  # registers the anchor only now: no value contains itself

    def _finish(self, value: V, anchor: str | None, line: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = value
        self._add(value, line)

    def _add(self, value: V, line: int) -> None:
        self._count += 1
        if self._count > self._max_values:
            raise RefusedError(line, f"holds more than {self._max_values} values")
        if not self._open:
            self._root = [(line, value)]
            return
        parent = self._open[-1]
        if not parent.mapping:
            self._form.add(parent.value, None, value)
        elif parent.awaiting is None:
            parent.awaiting = self._form.name(parent.value, value, line)
        else:
            self._form.add(parent.value, parent.awaiting, value)
            parent.awaiting = None
