"""Refusals that a route relaxes while it observes, and detection of JWTs in credentials. Pure.

A route observes until a date. Until then it passes a request that is refused only for a reason in ``RELAXED``. A JWT in
the request must verify, for any audience: signature, issuer, algorithm, times and form are never relaxed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from delegation_core.bearer import Bearer, bearer_of, parse_bearer
from delegation_core.errors import Denied, Reason

RELAXED: Final = frozenset(
    {
        Reason.NO_TOKEN,
        Reason.MALFORMED_TOKEN,  # only for a credential that is not a JWT
        Reason.ACT_MISSING,
        Reason.ACTOR_MISMATCH,
        Reason.WRONG_AUDIENCE,
        Reason.INSUFFICIENT_SCOPE,
        Reason.POLICY_DENIED,
    }
)
# For a call of the agent without a handle.
RELAXED_CALLS: Final = frozenset(
    {Reason.NO_REQUEST_CONTEXT, Reason.NOT_AN_ENTRY, Reason.WRONG_ISSUER, Reason.MALFORMED_TOKEN}
)
WITHOUT_TOKEN: Final = frozenset({Reason.NO_TOKEN, Reason.MALFORMED_TOKEN})

_PART: Final = re.compile(r"[A-Za-z0-9_-]+")  # matches at its first character, so a text is scanned once


def observed_bearer(denied: Denied, authorization: Sequence[bytes]) -> Bearer | None:
    """Return the JWT of a request that was ``denied``; None without a credential, or if the credential is not a JWT.

    Raises:
        Denied: ``denied`` itself, if its reason is not in ``RELAXED``; else as ``bearer_of`` and ``parse_bearer``.
    """
    if denied.reason not in RELAXED:
        raise denied
    return None if denied.reason is Reason.NO_TOKEN else jwt_of(authorization)


def jwt_of(authorization: Sequence[bytes]) -> Bearer | None:
    """Return the JWT in the values of all Authorization fields; None without one. Raises as ``parse_bearer``."""
    try:
        raw = bearer_of(authorization)
    except Denied as error:
        if error.reason is Reason.NO_TOKEN:
            return None
        raise
    return parse_bearer(raw) if is_jwt(raw) else None


def is_jwt(credential: str) -> bool:
    """True if ``credential`` looks like a JWT: a dot, and before it the base64url of text that begins with a brace."""
    first, dot, _ = credential.partition(".")
    return bool(dot) and _decoded(first).lstrip().startswith(b"{")


def issuers_in(text: str) -> set[str]:
    """Return every ``iss`` in every base64url part of ``text`` that decodes to a JSON object, even in broken tokens."""
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
    """Members of a JSON object, including duplicates."""


def _decoded(part: str) -> bytes:
    text = part.rstrip("=")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
