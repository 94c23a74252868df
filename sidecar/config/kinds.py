"""Kinds of settings files, recognised by their top-level keys.

A key that only one kind has identifies it. A file that could be two kinds is refused: the rules of one would be applied
to the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final, Literal

from delegation_core.errors import ConfigError, Problem
from sidecar.config.document import DocumentError, override, parse_document, read_text

Kind = Literal["sidecar", "sts", "platform"]

NAMES: Final[Mapping[Kind, str]] = {
    "sidecar": "settings of a sidecar",
    "sts": "settings of a token service",
    "platform": "ceiling of a platform",
}


def kind_of(path: Path, environ: Mapping[str, str]) -> Kind:
    """Return the kind of a settings file. If the file alone is ambiguous, the environment's settings count too.

    Raises:
        ConfigError: it cannot be read, holds no settings, or could be of several kinds.
    """
    try:
        document = parse_document(read_text(path), name=str(path))
    except DocumentError as error:
        raise ConfigError([error.problem]) from error
    if document is not None and not isinstance(document, dict):
        raise ConfigError([Problem(str(path), "is not a mapping", "write sections and keys")])
    document = document or {}
    other = _other_sort(document)
    if other is not None:
        raise ConfigError([Problem(str(path), *other)])
    found = _kinds_of(document)
    if len(found) > 1:
        override(document, environ)  # its problems are those of the check that follows
        found = [kind for kind in _kinds_of(document) if kind in found]
    if len(found) == 1:
        return found[0]
    could = " or ".join(f"the {NAMES[kind]}" for kind in found)
    fix = f"say which by {' or '.join(f'--kind {kind}' for kind in found)}"
    raise ConfigError([Problem(str(path), f"could be {could}: its keys fit both", fix)])


@cache
def keys_of(kind: Kind) -> frozenset[str]:
    """Return the top-level keys of this kind of file."""
    from sidecar.config import json_schema

    properties = json_schema(sts=kind == "sts", platform=kind == "platform")["properties"]
    return frozenset(properties if isinstance(properties, dict) else ())


def _kinds_of(document: Mapping[str, object]) -> list[Kind]:
    """Return the possible kinds of a document: those with the most keys that no other kind has.

    Without such a key, return the kinds that know all its known keys, or every kind if none does.
    """
    keys: dict[Kind, frozenset[str]] = {kind: keys_of(kind) for kind in NAMES}
    known = frozenset().union(*keys.values())
    given = {_meant(key, known) for key in document}
    told = {
        kind: len(
            [key for key in given & keys[kind] if not any(key in keys[other] for other in NAMES if other != kind)]
        )
        for kind in NAMES
    }
    most = max(told.values())
    fitting = [kind for kind in NAMES if not (given & known) - keys[kind]]
    return [kind for kind in NAMES if told[kind] == most] if most else fitting or list(NAMES)


def _meant(key: str, known: Iterable[str]) -> str:
    """Return the known key closest to ``key``, or ``key`` itself: a misspelt key identifies the kind too."""
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.8)), key)


def _other_sort(document: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the error and fix for a recognised file that holds no settings; None for any other file."""
    entries = document.get("entries")
    if {"apiVersion", "kind"} <= document.keys():
        return "is an object of Kubernetes, not settings", "check the text below its data, as a file of its own"
    if isinstance(entries, list) and all(isinstance(one, dict) and "spiffe_id" in one for one in entries) and entries:
        return "holds entries of SPIRE or of a development Workload API", "audit them with sidecar audit selectors"
    if "$schema" in document or "$defs" in document:
        return "is a JSON Schema, not settings", "give the file that it describes"
    if {"event", "run", "seq"} <= document.keys():
        return "is a record, not settings", "explain it with sidecar explain"
    return None
