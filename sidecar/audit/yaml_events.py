"""Builds trees from the events of a YAML parser: without recursion, within limits. Nothing is executed or expanded.

An alias is a reference to the same value, so a document of a few lines may describe a tree of billions: those who walk
a tree bound their steps. The form of a tree is its reader's.
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
    """A document is beyond a limit, or has what its reader refuses, at a line. The message quotes nothing of it."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Form(Protocol[V]):
    """The form of a tree: how its values are made. Each method may raise RefusedError."""

    def scalar(self, event: yaml.ScalarEvent, line: int, /) -> V:
        """Return the value of a text."""
        ...

    def collection(self, line: int, /, *, mapping: bool) -> V:
        """Return a mapping or a list that is still empty."""
        ...

    def name(self, mapping: V, key: V, line: int, /) -> str:
        """Return the name of a member by its key."""
        ...

    def add(self, parent: V, name: str | None, value: V, /) -> None:
        """Add a member, or an item, which has no name."""
        ...

    def closed(self, mapping: V, /) -> V:
        """Return a mapping that is complete, with its merge keys resolved."""
        ...

    def alias_of_nothing(self, line: int, /) -> V:
        """Return the value of an alias whose anchor is unknown, or is that of a value around it."""
        ...


def documents(text: str, form: Form[V], *, max_values: int) -> Iterator[tuple[int, V]]:
    """Yield the line and the root of each document that is not empty.

    Raises:
        yaml.YAMLError: it is no YAML; the text of the error quotes the input.
        RefusedError: it is nested deeper than MAX_DEPTH, holds more than ``max_values``, or the form refuses it.
    """
    builder = _Builder(form, max_values)
    for event in yaml.parse(text, Loader=_LOADER):
        builder.take(event)
        if isinstance(event, yaml.DocumentEndEvent):
            yield from builder.finished()


@dataclass(slots=True)
class _Open(Generic[V]):
    """A collection that is being read. ``awaiting`` is the name whose value comes next."""

    value: V
    line: int
    mapping: bool
    anchor: str | None
    awaiting: str | None = None


class _Builder(Generic[V]):
    """Builds one document after the other."""

    def __init__(self, form: Form[V], max_values: int) -> None:
        self._form = form
        self._max_values = max_values
        self._root: list[tuple[int, V]] = []
        self._open: list[_Open[V]] = []
        self._anchors: dict[str, V] = {}
        self._count = 0

    def finished(self) -> list[tuple[int, V]]:
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
            value = self._form.closed(closed.value) if closed.mapping else closed.value
            self._finish(value, closed.anchor, closed.line)  # known from here on: no value contains itself

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
