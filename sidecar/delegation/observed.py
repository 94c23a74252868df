"""The closed list of what a route that only observes relaxes, and how a credential is told from a JWT. Pure.

A route observes until a day. Until then a request passes although it has no delegation, if nothing else is wrong with
it: the reasons in ``RELAXED`` and no others. A request that shows a JWT must show one that verifies, for whatever
audience: signature, issuer, algorithm, times and form are never relaxed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sidecar.delegation.bearer import Bearer, bearer_of, parse_bearer
from sidecar.errors import Denied, Reason

RELAXED: Final = frozenset(
    {
        Reason.NO_TOKEN,
        Reason.MALFORMED_TOKEN,  # of a credential that is no JWT
        Reason.ACT_MISSING,
        Reason.ACTOR_MISMATCH,
        Reason.WRONG_AUDIENCE,
        Reason.INSUFFICIENT_SCOPE,
        Reason.POLICY_DENIED,
    }
)
# A call of the agent that belongs to no request, whatever it shows instead of a handle.
RELAXED_CALLS: Final = frozenset(
    {Reason.NO_REQUEST_CONTEXT, Reason.NOT_AN_ENTRY, Reason.WRONG_ISSUER, Reason.MALFORMED_TOKEN}
)
WITHOUT_TOKEN: Final = frozenset({Reason.NO_TOKEN, Reason.MALFORMED_TOKEN})

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")  # matches where it begins, so a text is scanned once


def observed_bearer(denied: Denied, authorization: Sequence[bytes]) -> Bearer | None:
    """Return the JWT of a request that was ``denied``; None if it shows none, or a credential that is no JWT.

    Raises:
        Denied: as ``bearer_of`` and ``parse_bearer``.
    """
    if denied.reason not in RELAXED:
        raise denied
    return None if denied.reason is Reason.NO_TOKEN else jwt_of(authorization)


def jwt_of(authorization: Sequence[bytes]) -> Bearer | None:
    """Return the JWT in the values of all Authorization fields; None: there is none. Errors as ``observed_bearer``."""
    try:
        raw = bearer_of(authorization)
    except Denied as error:
        if error.reason is Reason.NO_TOKEN:
            return None
        raise
    return parse_bearer(raw) if is_jwt(raw) else None


def is_jwt(credential: str) -> bool:
    """True if a credential has the form of a JWT: parts between dots, the first of them the beginning of an object."""
    first, dot, _ = credential.partition(".")
    return bool(dot) and _decoded(first).lstrip().startswith(b"{")


def issuers_in(text: str) -> set[str]:
    """Find the issuers of all tokens in a text, however broken: every ``iss`` of every part that is an object."""
    found: set[str] = set()
    for part in _PART.findall(text):
        document = _decoded(part)
        if not document.lstrip().startswith(b"{"):
            continue
        with suppress(ValueError, RecursionError):
            claims = json.loads(document, object_pairs_hook=_Members)
            if isinstance(claims, _Members):
                found.update(value for name, value in claims if name == "iss" and isinstance(value, str))
    return found


class _Members(list[tuple[str, object]]):
    """All members of an object, repeated ones too."""


def _decoded(part: str) -> bytes:
    text = part.rstrip("=")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
