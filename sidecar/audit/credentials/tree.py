"""Trees of YAML and JSON documents, with the line of each value. Nothing in a document is executed or converted.

The tree is built from the parser's events, without recursion, within limits. An alias is a reference to the same node,
so a document of a few lines may describe a tree of billions: those who walk a tree bound their steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml

MAX_DEPTH: Final = 64
MAX_NODES: Final = 500_000

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A string, or a comment, or a comma before a closing bracket: VS Code and others accept the last two in JSON. What has
# no end is taken as well, so that no character is looked at twice.
_LOOSE: Final = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*.*?(?:\*/|\Z)|,(?=\s*[}\]])', re.DOTALL)


class TreeError(Exception):
    """The text is not a document, or beyond a limit. The message quotes nothing of it."""


@dataclass(slots=True, eq=False)
class Node:
    """A text, a mapping or a list. ``line`` is the line of the text's first character, or of the collection's."""

    line: int
    text: str | None = None
    members: list[tuple[str, Node]] = field(default_factory=list)  # a name may occur twice: each value counts
    items: list[Node] = field(default_factory=list)
    literal: bool = False  # a block: its lines are lines of the file

    def get(self, *names: str) -> Node | None:
        """Return the member at the end of a path of names, or None."""
        node: Node | None = self
        for name in names:
            found = [value for key, value in node.members if key == name] if node is not None else []
            node = found[-1] if found else None
        return node

    def text_of(self, *names: str) -> str | None:
        """Return the text at the end of a path of names, or None."""
        node = self.get(*names)
        return None if node is None else node.text

    def is_true(self, name: str) -> bool:
        """Tell if a member is the word true."""
        return (self.text_of(name) or "").lower() == "true"


def read_documents(text: str) -> list[Node]:
    """Read each document of a YAML stream or a JSON text.

    Raises:
        TreeError: it is neither, or exceeds a limit.
    """
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        text = _LOOSE.sub(_strict, text)
    try:
        return list(_documents(text))
    except yaml.YAMLError as error:  # its text quotes the input
        mark = getattr(error, "problem_mark", None)
        raise TreeError("no YAML or JSON" + ("" if mark is None else f" at line {mark.line + 1}")) from None
    except (UnicodeError, ValueError):
        raise TreeError("no YAML or JSON") from None


def _strict(found: re.Match[str]) -> str:
    """Return JSON for a piece of looser JSON: strings stay, comments and trailing commas become blanks."""
    piece = found[0]
    if piece.startswith('"'):
        return piece.replace("\\/", "/") if "\\/" in piece else piece
    return re.sub(r"[^\n]", " ", piece)


def _documents(text: str) -> Iterator[Node]:
    builder = _Builder()
    for event in yaml.parse(text, Loader=_LOADER):
        builder.take(event)
        if isinstance(event, yaml.DocumentEndEvent) and builder.root is not None:
            yield builder.root
            builder.root = None


class _Builder:
    """Builds one tree after the other. ``_open`` holds the open collections with the name of the next member."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[tuple[Node, bool, str | None]] = []  # node, is a mapping, name awaiting its value
        self._names: list[str | None] = []
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def take(self, event: yaml.events.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.ScalarEvent):
            block = event.style in ("|", ">")
            self._finish(Node(line + block, event.value, literal=block), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._anchors.get(event.anchor or "") or Node(line, ""))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(self._open) >= MAX_DEPTH:
                raise TreeError(f"nested deeper than {MAX_DEPTH} levels at line {line}")
            self._open.append((Node(line), isinstance(event, yaml.MappingStartEvent), event.anchor))
            self._names.append(None)
        elif isinstance(event, yaml.CollectionEndEvent):
            node, _, anchor = self._open.pop()
            self._names.pop()
            self._finish(_merged(node), anchor)  # known from here on: no node contains itself
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()

    def _finish(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node)

    def _add(self, node: Node) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise TreeError(f"more than {MAX_NODES} values")
        if not self._open:
            self.root = node
            return
        parent, is_mapping, _ = self._open[-1]
        if not is_mapping:
            parent.items.append(node)
        elif self._names[-1] is None:
            self._names[-1] = node.text if node.text is not None else ""
        else:
            parent.members.append((self._names[-1], node))
            self._names[-1] = None


def _merged(node: Node) -> Node:
    """Put the members of ``<<: *other`` in front of a mapping's own."""
    merge = node.get("<<")
    if merge is None:
        return node
    others = [merge, *merge.items]
    inherited = [member for other in others for member in other.members][:MAX_NODES]
    own = [(name, value) for name, value in node.members if name != "<<"]
    names = {name for name, _ in own}
    node.members = [(name, value) for name, value in inherited if name not in names] + own
    return node
