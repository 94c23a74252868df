"""Settings from the environment: ``SIDECAR__INBOUND__LISTEN`` overrides ``inbound.listen``.

Two underscores, because a Service named ``sidecar`` makes Kubernetes set ``SIDECAR_PORT`` and its like. Values are
YAML, lists are given whole, and a variable that names no setting is an error like an unknown key. A Service may also be
called ``sidecar--anything``, by whoever makes Services beside us: what Kubernetes sets for it is none of ours.
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
    for name in sorted(_ours(environ), key=lambda name: (name.count("__"), name)):
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
    return {name.removeprefix(PREFIX).lower().replace("__", "."): name for name in _ours(environ)}


def _ours(environ: Mapping[str, str]) -> list[str]:
    """The variables with our prefix, but for those of a Service: they come together, its address and its ports."""
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
