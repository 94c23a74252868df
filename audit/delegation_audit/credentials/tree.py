"""Parses YAML and JSON to trees of text with line numbers. Executes and converts nothing.

An alias is a reference to the same node: a caller that walks a tree must limit its steps (``yaml_events``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import yaml

from delegation_audit.yaml_events import RefusedError, documents

MAX_NODES: Final = 500_000

# A string, or a comment, or a comma before a closing bracket: VS Code and others accept the last two in JSON. Matches
# unterminated ones as well, so that no character is read twice.
_LOOSE: Final = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*.*?(?:\*/|\Z)|,(?=\s*[}\]])', re.DOTALL)


class TreeError(Exception):
    """The text is no YAML or JSON, or exceeds a limit. The message quotes nothing of the text."""


@dataclass(slots=True, eq=False)
class Node:
    """A text, a mapping or a list. ``line``: line number of the first character of the text or collection."""

    line: int
    text: str | None = None
    members: list[tuple[str, Node]] = field(default_factory=list)  # a name may occur twice: each value counts
    items: list[Node] = field(default_factory=list)
    literal: bool = False  # a block scalar: its lines are lines of the file

    def get(self, *names: str) -> Node | None:
        """Return the member at a path of names, or None; of members with equal names, the last."""
        node: Node | None = self
        for name in names:
            found = [value for key, value in node.members if key == name] if node is not None else []
            node = found[-1] if found else None
        return node

    def text_of(self, *names: str) -> str | None:
        """Return the text at a path of names, or None."""
        node = self.get(*names)
        return None if node is None else node.text

    def is_true(self, name: str) -> bool:
        """Return True if a member is the text ``true`` in any case."""
        return (self.text_of(name) or "").lower() == "true"


def read_documents(text: str) -> list[Node]:
    """Parse each document of a YAML stream or a JSON text.

    Raises:
        TreeError: the text is neither, or exceeds a limit.
    """
    if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
        text = _LOOSE.sub(_strict, text)
    try:
        return [root for _, root in documents(text, _Form(), max_values=MAX_NODES)]
    except RefusedError as error:
        raise TreeError(f"a document {error} at line {error.line}") from None
    except yaml.YAMLError as error:  # its text quotes the input
        mark = getattr(error, "problem_mark", None)
        raise TreeError("not YAML or JSON" + ("" if mark is None else f" at line {mark.line + 1}")) from None
    except (UnicodeError, ValueError):
        raise TreeError("not YAML or JSON") from None


def _strict(found: re.Match[str]) -> str:
    """Convert a piece of lax JSON to strict JSON: strings stay, comments and trailing commas become blanks."""
    piece = found[0]
    if piece.startswith('"'):
        return piece.replace("\\/", "/") if "\\/" in piece else piece
    return re.sub(r"[^\n]", " ", piece)


class _Form:
    """Makes nodes: texts as written, and every member, even if its name occurs twice."""

    def scalar(self, event: yaml.ScalarEvent, line: int, /) -> Node:
        block = event.style in ("|", ">")
        return Node(line + block, event.value, literal=block)

    def collection(self, line: int, /, *, mapping: bool) -> Node:  # noqa: ARG002, a node is either
        return Node(line)

    def name(self, mapping: Node, key: Node, line: int, /) -> str:  # noqa: ARG002, any name is taken
        return key.text if key.text is not None else ""

    def add(self, parent: Node, name: str | None, value: Node, /) -> None:
        if name is None:
            parent.items.append(value)
        else:
            parent.members.append((name, value))

    def complete(self, mapping: Node, /) -> Node:
        return _merge(mapping)

    def alias_of_nothing(self, line: int, /) -> Node:
        return Node(line, "")


def _merge(node: Node) -> Node:
    """Put the members of ``<<: *other`` that the mapping lacks in front of its own; return the mapping."""
    merge = node.get("<<")
    if merge is None:
        return node
    others = [merge, *merge.items]
    inherited = [member for other in others for member in other.members][:MAX_NODES]
    own = [(name, value) for name, value in node.members if name != "<<"]
    names = {name for name, _ in own}
    node.members = [(name, value) for name, value in inherited if name not in names] + own
    return node
