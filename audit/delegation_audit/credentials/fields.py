"""Fields: named values that the readers of all formats return, before any judgement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.tree import Node

MAX_FIELDS: Final = 50_000  # of one text, or values and lists below one node of a tree
MAX_VALUE: Final = 262_144  # characters of one value


class Exposure(StrEnum):
    """Kind of place of a credential, which determines who can read it."""

    CODE = "repository"  # readable by everyone who can clone
    HISTORY = "git history"  # the same, even after removal
    PIPELINE = "CI file"
    CONFIGURATION = "configuration"  # manifests, compose, env files, MCP clients: readable by whoever deploys
    SECRET_OBJECT = "Kubernetes Secret"  # noqa: S105 - base64, in a file
    PROVIDER = "IdP export"
    RECORD = "record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A value with its name and place. ``group``: equal for values that belong together, as in one env list.

    ``kind``: set if the format determines it. ``identity``: parts of the name of a credential whose value the file
    does not hold; ``value`` is then empty. ``hidden``: further parts of secrets, for masking. ``cut``: True for a mark
    in place of further fields, after a reader stopped at ``MAX_FIELDS``.
    """

    name: str
    value: str
    line: int
    literal: bool = False  # the lines of the value are lines of the file
    strict: bool = False  # program text, or text for people: a name alone is weak evidence
    object: str | None = None
    owner: str | None = None
    exposure: Exposure = Exposure.CODE
    group: int = 0
    kind: Kind | None = None
    identity: tuple[str, ...] = ()
    created: str | None = None  # a date, YYYY-MM-DD
    expires: str | None = None
    hidden: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A workload that uses a credential of another file: a Secret by its name, or an env file by its path.

    ``weak``: an owner only where no workload is known: the team of an object's label, or the service built from a
    folder, by its path.
    """

    target: str
    owner: str
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Fields and references of one file; if ``cut``, only those before a limit."""

    fields: tuple[Field, ...]
    references: tuple[Reference, ...] = ()
    cut: bool = False


def walk(node: Node, template: Field, *, path: str = "") -> Iterator[Field]:
    """Yield each text below a node as a field, named by its member; ``{name: A, value: x}`` is a field A.

    ``template`` provides all attributes except name, value, line and group; its object is the prefix of each path.
    """
    steps = MAX_FIELDS
    stack: list[tuple[Node, str, str, int]] = [(node, "", path, template.group)]
    while stack and steps:
        steps -= 1
        at, name, where, group = stack.pop()
        if at.text is not None:
            if at.text:
                yield _make_field(template, at, name, where, group)
            continue
        named = at.text_of("name") or at.text_of("key")
        value = at.get("value")
        if named and value is not None and value.text is not None:
            if value.text:
                yield _make_field(template, value, named, f"{where}.{named}" if where else named, group)
            continue
        for key, member in reversed(at.members):
            stack.append((member, key, f"{where}.{key}" if where else key, id(at)))
        for number, item in reversed(list(enumerate(at.items))):
            label = where if item.get("value") is not None else f"{where}[{item.text_of('name') or number}]"
            stack.append((item, name, label, id(at)))
    if stack:
        yield replace(template, name="", value="", cut=True)


def _make_field(template: Field, node: Node, name: str, where: str, group: int) -> Field:
    text = (node.text or "")[:MAX_VALUE]
    label = ", ".join(filter(None, (template.object, where)))
    return replace(
        template, name=name, value=text, line=node.line, literal=node.literal, object=label or None, group=group
    )
