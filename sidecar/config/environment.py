"""Settings from the environment: ``SIDECAR__INBOUND__LISTEN`` overrides ``inbound.listen``.

Two underscores, because a Service named ``sidecar`` makes Kubernetes set ``SIDECAR_PORT`` and its like. Values are
YAML, lists are given whole, and a variable that names no setting is an error like an unknown key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.config.document import DocumentError, parse_document, shown
from sidecar.errors import Problem

PREFIX: Final = "SIDECAR__"


def override(document: dict[str, object], environ: Mapping[str, str]) -> list[Problem]:
    """Put the values of all ``SIDECAR__…`` variables into ``document``; returns what cannot be put there."""
    problems: list[Problem] = []
    # A section before its members, so that the more specific variable wins.
    for name in sorted(
        (name for name in environ if name.startswith(PREFIX)), key=lambda name: (name.count("__"), name)
    ):
        path = name.removeprefix(PREFIX).split("__")
        if not all(path) or name != name.upper():
            problems.append(Problem(shown(name), "names no setting", "write SIDECAR__SECTION__KEY in capitals"))
            continue
        try:
            value = parse_document(environ[name], name=name)
        except DocumentError as error:
            problems.append(error.problem)
            continue
        if not _put(document, [part.lower() for part in path], value):
            problems.append(
                Problem(shown(name), "points into a value that has no members", "override the whole value or list")
            )
    return problems


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Dotted field → the variable that sets it, to name the right place in a message."""
    return {name.removeprefix(PREFIX).lower().replace("__", "."): name for name in environ if name.startswith(PREFIX)}


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
