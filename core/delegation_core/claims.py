"""Typed accessors for the claims of a parsed token. No error quotes a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeGuard

from delegation_core.errors import Denied, Reason

MAX_TEXT_BYTES: Final = 2048  # the longest possible SPIFFE ID
# The claims by which products name the OAuth client of a login token: OpenID Connect, RFC 9068, Okta, Entra v1.
CLIENT_CLAIMS: Final = ("azp", "client_id", "cid", "appid")
_MAX_TIME: Final = 2**53  # larger JSON numbers are not exact integers

# Characters that could break a line or a field, or make a reader see another text than the one compared: controls, line
# separators, bidirectional marks. The parser has already refused lone surrogates (strict_json).
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def is_name(value: object) -> TypeGuard[str]:
    """True if ``value`` is a non-empty string of at most 2048 bytes of UTF-8 without control or bidi characters."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_BYTES:
        return False
    if value.isascii():
        return value.isprintable()
    return len(value.encode()) <= MAX_TEXT_BYTES and not _UNPRINTABLE.search(value)


def name_claim(claims: Mapping[str, object], claim: str) -> str | None:
    """Return the string value of a claim; None if the claim is absent.

    Raises:
        Denied: MALFORMED_TOKEN if the value is not a name (see ``is_name``), null included.
    """
    if claim not in claims:
        return None
    value = claims[claim]
    if not is_name(value):
        raise Denied(Reason.MALFORMED_TOKEN, f"{claim} is not a plain string")
    return value


def time_claim(claims: Mapping[str, object], claim: str) -> float | None:
    """Return a NumericDate in seconds since the epoch (RFC 7519 section 2), fractions allowed; None if absent.

    Raises:
        Denied: MALFORMED_TOKEN for anything but a number from 0 to 2^53; ``true`` and ``"1"`` are not numbers.
    """
    if claim not in claims:
        return None
    value = claims[claim]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise Denied(Reason.MALFORMED_TOKEN, f"{claim} is not a NumericDate")
    return value


def audience_claim(claims: Mapping[str, object], claim: str = "aud") -> str:
    """Return the single audience of a token, given as a string or as an array of one string.

    Raises:
        Denied: WRONG_AUDIENCE if there is none or more than one; MALFORMED_TOKEN for another type.
    """
    values = audience_values(claims, claim)
    if len(values) != 1:
        raise Denied(Reason.WRONG_AUDIENCE, f"{claim} does not have exactly one value")
    return values[0]


def audience_values(claims: Mapping[str, object], claim: str = "aud") -> list[str]:
    """Return all audiences of a token; an empty list without the claim.

    Raises:
        Denied: MALFORMED_TOKEN for another type than a string or an array of strings.
    """
    values = claims.get(claim, [])
    if isinstance(values, str):
        return [values]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Denied(Reason.MALFORMED_TOKEN, f"{claim} is neither a string nor an array of strings")
    return values


def names_no_other_client(claims: Mapping[str, object], client_id: str) -> bool:
    """True if every client claim that is present (``CLIENT_CLAIMS``) names ``client_id``."""
    return all(claims[claim] == client_id for claim in CLIENT_CLAIMS if claim in claims)
