"""The answer of an authorization endpoint, as it comes back through the user's browser (RFC 6749 section 4.1.2).

The front app passes the query of its redirect on unread: here it is parsed once, strictly. Everybody who can make a
browser follow a link can send one.
"""

from __future__ import annotations

import hmac
from typing import Final

from sidecar.delegation.form import FormError, parse_form
from sidecar.errors import Denied, Reason

MAX_BYTES: Final = 8192
_MAX_CODE_CHARS: Final = 4096
# RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6. Any other word of the answer stays unread.
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
    """Return the authorization code of an answer to the request with this ``state``.

    ``issuer`` is the one that was asked. ``names_issuer``: its metadata says that its answers name it (RFC 9207);
    another name is refused in any case.

    Raises:
        Denied: LOGIN_MALFORMED, LOGIN_STATE_MISMATCH, LOGIN_ISSUER_MISMATCH, or LOGIN_DENIED with a registered code.
    """
    parameters = _parameters(query)
    if not hmac.compare_digest(parameters.get("state", "").encode(), state.encode()):
        raise Denied(Reason.LOGIN_STATE_MISMATCH)
    named = parameters.get("iss")
    if named != issuer and (names_issuer or named is not None):
        raise Denied(Reason.LOGIN_ISSUER_MISMATCH)
    error, code = parameters.get("error"), parameters.get("code")
    if (error is None) == (code is None):
        raise Denied(Reason.LOGIN_MALFORMED, "the answer has neither a code nor an error, or both")
    if code is None:
        raise Denied(Reason.LOGIN_DENIED, error if error in _ERRORS else "with an unknown error code")
    if len(code) > _MAX_CODE_CHARS or not code.isascii() or not code.isprintable():
        raise Denied(Reason.LOGIN_MALFORMED, "the code is not plain text, or too long")
    return code


def _parameters(query: str) -> dict[str, str]:
    """Return the parameters, each of which may be there once (RFC 6749 section 3.1)."""
    try:
        encoded = query.removeprefix("?").encode("ascii")
        found = parse_form(encoded, repeatable=(), max_bytes=MAX_BYTES)
    except (UnicodeEncodeError, FormError):
        raise Denied(Reason.LOGIN_MALFORMED, "the answer is no query, or has a parameter twice") from None
    return {name: values[0] for name, values in found.items()}
