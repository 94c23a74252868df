"""Strict parser of authorization responses, which return through the user's browser (RFC 6749 section 4.1.2).

The front app forwards the query of its redirect URI unparsed. The query is untrusted: anyone who can make a browser
follow a link can forge one.
"""

from __future__ import annotations

import hmac
from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.form import FormError, parse_form

MAX_BYTES: Final = 8192
_MAX_CODE_CHARS: Final = 4096
# RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6. Other codes are reported as unknown, never quoted.
_ERRORS: Final = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "consent_required",
        "interaction_required",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "login_required",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    }
)


def code_of(query: str, *, state: str, issuer: str, names_issuer: bool) -> str:
    """Return the authorization code of the response to the request with this ``state``.

    ``issuer``: the issuer that was asked. ``names_issuer``: ``iss`` is required, because the issuer's metadata promises
    it (RFC 9207); a different ``iss`` is always refused.

    Raises:
        Denied: LOGIN_MALFORMED, LOGIN_STATE_MISMATCH, LOGIN_ISSUER_MISMATCH, or LOGIN_DENIED for an error response.
    """
    parameters = _parameters(query)
    if not hmac.compare_digest(parameters.get("state", "").encode(), state.encode()):
        raise Denied(Reason.LOGIN_STATE_MISMATCH)
    named = parameters.get("iss")
    if named != issuer and (names_issuer or named is not None):
        raise Denied(Reason.LOGIN_ISSUER_MISMATCH)
    error, code = parameters.get("error"), parameters.get("code")
    if (error is None) == (code is None):
        raise Denied(Reason.LOGIN_MALFORMED, "the answer has both a code and an error, or neither")
    if code is None:
        raise Denied(Reason.LOGIN_DENIED, error if error in _ERRORS else "an unknown error code")
    if len(code) > _MAX_CODE_CHARS or not code.isascii() or not code.isprintable():
        raise Denied(Reason.LOGIN_MALFORMED, "the code is too long, or not printable ASCII")
    return code


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters of ``query``. Raises Denied: LOGIN_MALFORMED if one repeats (RFC 6749 section 3.1)."""
    try:
        encoded = query.removeprefix("?").encode("ascii")
        found = parse_form(encoded, repeatable=(), max_bytes=MAX_BYTES)
    except (UnicodeEncodeError, FormError):
        raise Denied(Reason.LOGIN_MALFORMED, "the answer is not a valid query, or repeats a parameter") from None
    return {name: values[0] for name, values in found.items()}
