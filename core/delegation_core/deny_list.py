"""Parser of the deny list file, which a running sidecar reads in steps. Pure.

``{"deny": [{"actor": "spiffe://…", "note": "INC-42"}, …]}``: rows have the form of ``deny`` in the settings. A
truncated document is invalid JSON, so a partial list is never accepted.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from delegation_core.claims import is_name
from delegation_core.json_steps import object_in_steps
from delegation_core.policy import Deny
from delegation_core.spiffe_id import SpiffeId, SpiffeIdError
from delegation_core.steps import Steps, drained
from delegation_core.strict_json import StrictJsonError

MAX_DENY_BYTES: Final = 4 * 1024 * 1024
MAX_DENY_ROWS: Final = 10_000

_NAMED: Final = ("subject", "actor", "jti", "txn")
_MOST_HINTS: Final = 3
_LONGEST: Final = 16  # characters of a member name that gets a hint
_MEMBERS: Final = frozenset({*_NAMED, "issuer", "note"})


class DenyListError(Exception):
    """The document is not a deny list. The message says where it is wrong and quotes nothing."""


def parse_deny_list(document: bytes) -> Steps[Deny]:
    """Parse a deny list, in steps.

    Raises:
        DenyListError: the document is too large, not strict JSON, or has an invalid row.
    """
    try:
        members = yield from object_in_steps(document, max_bytes=MAX_DENY_BYTES, max_depth=3)
    except StrictJsonError as error:
        raise DenyListError(str(error)) from None
    rows = members.get("deny")
    if members.keys() != {"deny"} or not isinstance(rows, list):
        raise DenyListError('the document is not {"deny": [rows]}')
    if len(rows) > MAX_DENY_ROWS:
        raise DenyListError(f"deny has {len(rows)} rows; at most {MAX_DENY_ROWS} are allowed")
    found: dict[str, set[tuple[str | None, str]]] = {name: set() for name in _NAMED}
    number = 0
    for some in drained(rows):
        for row in some:
            name, pair = _read(row, f"deny[{number}]")
            found[name].add(pair)
            number += 1
        yield
    return Deny(
        subjects=frozenset(found["subject"]),
        actors=frozenset(value for _, value in found["actor"]),
        jtis=frozenset(value for _, value in found["jti"]),
        txns=frozenset(value for _, value in found["txn"]),
    )


def _read(row: object, where: str) -> tuple[str, tuple[str | None, str]]:
    """Return the kind of name in a row, and the pair of its issuer and value. Raises DenyListError."""
    if not isinstance(row, dict) or not row.keys() <= _MEMBERS:
        raise DenyListError(f"{where} is not an object of {', '.join((*_NAMED, 'issuer', 'note'))}{_meant(row)}")
    named = [name for name in _NAMED if name in row]
    if len(named) != 1:
        raise DenyListError(f"{where} needs exactly one of {', '.join(_NAMED)}")
    name = named[0]
    if not all(map(is_name, row.values())):
        raise DenyListError(f"a member of {where} is not 1 to 2048 printable characters")
    if "issuer" in row and name != "subject":
        raise DenyListError(f"{where}.issuer has no effect without a subject: remove it")
    if name == "actor":
        try:
            SpiffeId(row[name])
        except SpiffeIdError as error:
            raise DenyListError(
                f"{where}.actor is not a SPIFFE ID (write spiffe://trust-domain/path): {error}"
            ) from None
    return name, (row.get("issuer"), row[name])


def _meant(row: object) -> str:
    """Return a hint with known members that resemble the first few short unknown ones; empty without any."""
    unknown = [one for one in row if one not in _MEMBERS and len(one) <= _LONGEST] if isinstance(row, dict) else []
    near = (get_close_matches(one, _MEMBERS, n=1) for one in unknown[:_MOST_HINTS])
    meant = dict.fromkeys(name for found in near for name in found)
    return f"; did you mean {' and '.join(meant)}?" if meant else ""
