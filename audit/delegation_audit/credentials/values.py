"""Splits values of documents into fields: texts of several lines, command lines, assignments, keys, registries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from delegation_audit.credentials.fields import Field, walk
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.plain import decode_key_file, fields_of
from delegation_audit.credentials.tree import Node, TreeError, read_documents

_COMMANDS: Final = frozenset(("args", "command", "entrypoint", "cmd"))


def values(node: Node, template: Field, *, path: str) -> Iterator[Field]:
    """Yield the fields below a node, and those inside their texts. ``template.name`` is the name of the node."""
    if node.text is not None:
        whole = replace(template, value=node.text, line=node.line, literal=node.literal)
        label = ", ".join(filter(None, (template.object, path)))
        yield from split_value(replace(whole, object=label or None)) if node.text else ()
        return
    commands = dict[int, Node]()
    _collect(node, template.name, commands)
    for field in walk(node, template, path=path):
        if field.group not in commands:
            yield from split_value(field if field.name else replace(field, name=template.name))
    for command in commands.values():
        yield from arguments(command, template)


def _collect(node: Node, name: str, commands: dict[int, Node]) -> None:
    """Add the lists that are command lines to ``commands``, by their ``id()``."""
    stack, steps = [(node, name)], 100_000
    while stack and steps:
        steps -= 1
        at, called = stack.pop()
        if called in _COMMANDS and at.items and all(item.text is not None for item in at.items):
            commands[id(at)] = at
            continue
        stack += [(member, key) for key, member in at.members]
        stack += [(item, "") for item in at.items]


def arguments(command: Node, template: Field) -> Iterator[Field]:
    """Yield each argument of a command line, named by its flag: ``--token X``, ``--token=X``, ``-e A=B``."""
    flag = ""
    for number, item in enumerate(command.items):
        text = item.text or ""
        label = ", ".join(filter(None, (template.object, f"args[{number}]")))
        field = replace(template, value=text, line=item.line, literal=item.literal, object=label, group=id(command))
        name, equals, value = text.partition("=")
        if equals and name.startswith("-") and " " not in name:
            yield from split_value(replace(field, name=name.lstrip("-"), value=value))
            flag = ""
        elif text.startswith("-") and " " not in text:
            flag = text.lstrip("-")
        else:
            yield from split_value(replace(field, name=flag))
            flag = ""


def split_value(field: Field) -> Iterator[Field]:
    """Yield a field, decoded if it is an encoded key file, and the fields inside its text."""
    field = decode_key_file(field)
    yield field
    text = field.value.strip()
    if "\n" in text or " " in text or text.startswith(("{", "[")) or _is_assignment(text):
        yield from split_text(field)


def split_text(field: Field) -> Iterator[Field]:
    """Yield the fields inside the text of a field."""
    yield from fields_of(field.value, replace(field, name="", value=""))


def _is_assignment(text: str) -> bool:
    name, equals, value = text.partition("=")
    return bool(equals and value and name.replace("_", "").replace("-", "").isalnum())


def registries(field: Field, document: Node | None = None) -> Iterator[Field]:
    """Yield the passwords of container registries in a Docker configuration; nothing if the value is no JSON.

    ``document``: the parsed file, whose lines are those of the keys; without it, the value is parsed.
    """
    literal = document is not None or field.literal
    try:
        document = document or next(iter(read_documents(field.value)), Node(1))
    except TreeError:
        return
    for host, entry in (document.get("auths") or document).members:
        auth, password = entry.get("auth"), entry.get("password")
        found = password if password is not None and password.text else auth
        if found is None or not found.text:
            continue
        line = field.line + found.line - 1 if literal else field.line
        hidden = (*field.hidden, *((auth.text,) if auth is not None and auth.text else ()))
        if found is password:
            yield replace(
                field,
                name="password",
                value=found.text,
                line=line,
                literal=False,
                kind=Kind.BASIC_CREDENTIALS,
                hidden=hidden,
            )
        else:
            yield replace(
                field, name=f"registry {host}", value=f"Basic {found.text}", line=line, literal=False, hidden=hidden
            )
