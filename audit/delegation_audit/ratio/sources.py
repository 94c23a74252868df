"""Reads sources other than records: a directory of people, and the result of ``audit credentials``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from delegation_audit.credentials.examine import Result

MAX_BYTES: Final = 256 << 20

# Members that hold the list of people in exports of identity providers: SCIM, Microsoft Graph, Keycloak's realm.
_LISTS: Final = ("Resources", "value", "users")
# The field that holds the ``sub`` of tokens, unless --directory-field names another.
_SUBJECTS: Final = ("sub", "id", "externalId", "userName", "userPrincipalName", "username", "email")
_ACTIVE: Final = ("active", "accountEnabled", "enabled", "status")
_INACTIVE: Final = frozenset({"false", "0", "no", "inactive", "disabled", "deprovisioned", "suspended"})


class SourceError(ValueError):
    """A file cannot be used. The text names the file and the fix."""


def people_in(file: str, subject_field: str | None = None) -> Iterator[str]:
    """Yield the ``sub`` of each active person of a directory export: CSV with a header, or JSON.

    Raises:
        SourceError: the file is neither, holds no active person, or a person lacks the field.
        OSError: the file cannot be read.
    """
    found = 0
    for number, row in enumerate(_rows(file), 1):
        field = subject_field or next((name for name in _SUBJECTS if row.get(name)), None)
        subject = None if field is None else row.get(field)
        if not isinstance(subject, str) or not subject:
            wanted = subject_field or "sub, id, userName or email"
            raise SourceError(f"{file}: person {number} has no {wanted}; name the field by --directory-field")
        if not any(str(row[name]).lower() in _INACTIVE for name in _ACTIVE if name in row):
            found += 1
            yield subject
    if not found:
        raise SourceError(f"{file}: no active person; export users as CSV with a header, or as JSON")


def keys_in(file: str) -> Iterator[tuple[str, str | None]]:
    """Yield fingerprint and owner of each credential of ``sidecar audit credentials --json``.

    Raises:
        SourceError: the file is not such a result.
        OSError: the file cannot be read.
    """
    try:
        document = json.loads(_text(file))
        found = document["credentials"]
        for one in found:
            owners = one["owners"]
            yield str(one["fingerprint"]), str(owners[0]) if owners else None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"{file}: not the result of `sidecar audit credentials --json`; write it with that command"
        ) from None


def keys_of(result: Result) -> Iterator[tuple[str, str | None]]:
    """Yield fingerprint and owner of each credential that a search found."""
    for one in result.credentials:
        yield one.fingerprint, one.owners[0] if one.owners else None


def _rows(file: str) -> Iterator[Mapping[str, Any]]:
    text = _text(file)
    if text.lstrip()[:1] not in ("[", "{"):
        reader = csv.DictReader(io.StringIO(text), strict=True)
        try:
            if not reader.fieldnames:
                raise SourceError(f"{file}: empty; export users as CSV with a header, or as JSON")
            yield from reader
        except csv.Error as error:
            raise SourceError(f"{file}: neither JSON nor CSV: {error}") from None
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise SourceError(f"{file}: begins like JSON but is not JSON; export it again") from None
    rows = document
    if isinstance(document, dict):
        rows = next((document[name] for name in _LISTS if isinstance(document.get(name), list)), None)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"{file}: no list of users; give a JSON list, or one under {', '.join(_LISTS)}")
    yield from rows


def _text(file: str) -> str:
    with Path(file).open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise SourceError(f"{file}: larger than {MAX_BYTES >> 20} MiB; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError(f"{file}: not UTF-8; save it as UTF-8") from None
