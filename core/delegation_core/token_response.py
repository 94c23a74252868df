"""Parsers for responses of a token endpoint (RFC 8693 section 2.2, RFC 6749 section 5).

Members must have the right type. Only a known error code of a refusal is returned: an STS's description may quote
tokens, so it never leaves this module, not even for records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.form import media_type
from delegation_core.scope import ScopeError, ScopeSet, parse_scope_claim
from delegation_core.strict_json import StrictJsonError, parse_object
from delegation_core.token_request import ClientCredentialsRequest, ExchangeRequest

MAX_RESPONSE_BYTES: Final = 65536
MAX_EXPIRES_IN_S: Final = 2**31

BEARER: Final = "Bearer"
_JSON: Final = "application/json"
_VISIBLE: Final = re.compile(r"[!-~]+")
# Error codes of a token endpoint (RFC 6749 section 5.2, RFC 8693 section 2.2.2, and the actor-profile draft).
ENDPOINT_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_target",
        "actor_unauthorized",
    }
)
# Further codes: Keycloak's for a client that is not among a token's audiences; Entra's if a user must log in again, or
# for an unknown resource.
_READ_ERRORS: Final = ENDPOINT_ERRORS | {"access_denied", "interaction_required", "invalid_resource"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """Members of a token response (RFC 8693 section 2.2.1). Unsigned: decisions use the token's own claims.

    ``issued_token_type`` is None for client credentials (RFC 6749 section 5.1).
    """

    access_token: str = field(repr=False)
    issued_token_type: str | None
    token_type: str
    expires_in: int | None
    scope: ScopeSet | None


def parse_response(
    status: int, content_type: str | None, body: bytes, *, requested: ExchangeRequest | ClientCredentialsRequest
) -> TokenResponse:
    """Parse the STS's response to the exchange or client credentials request ``requested``.

    Raises:
        Denied: EXCHANGE_DENIED (400), STS_ERROR (401, 403), STS_REDIRECT, STS_TOO_LARGE, STS_TOKEN_TYPE (not the
            requested type, or not a bearer token), STS_SCOPE_WIDENED, STS_BAD_RESPONSE (any other defect).
        Unavailable: STS_UNAVAILABLE (429, 5xx).
    """
    return parse_token_answer(
        status,
        content_type,
        body,
        scope=requested.scope,
        issued_token_type=(requested.requested_token_type or "") if isinstance(requested, ExchangeRequest) else None,
    )


def parse_token_answer(
    status: int,
    content_type: str | None,
    body: bytes,
    *,
    scope: ScopeSet | None,
    issued_token_type: str | None,
    token_type: str = BEARER,
) -> TokenResponse:
    """Parse a token response: of RFC 8693 with ``issued_token_type``, else of RFC 6749 section 5.1.

    ``scope``: the most that the response may grant (None: unchecked). Raises as ``parse_response``.
    """
    if status != 200:
        raise _refusal(status, content_type, body)
    answer = _answer(content_type, body)
    if "error" in answer or "refresh_token" in answer:
        raise _bad_response("the answer has an error or a refresh token beside the token")
    kind = _text(answer, "token_type")
    if issued_token_type is not None:
        if _text(answer, "issued_token_type") != issued_token_type:
            raise Denied(Reason.STS_TOKEN_TYPE, "issued_token_type is not the one requested")
    elif "issued_token_type" in answer:
        raise _bad_response("the answer has issued_token_type, but the request was not a token exchange")
    if kind.lower() != token_type.lower():
        raise Denied(Reason.STS_TOKEN_TYPE, f"token_type is not {token_type}")
    granted = _granted_scope(answer)
    if granted is not None and scope is not None and not granted <= scope:
        raise Denied(Reason.STS_SCOPE_WIDENED, "scope in the answer")
    return TokenResponse(
        access_token=_text(answer, "access_token"),
        issued_token_type=issued_token_type,
        token_type=kind,
        expires_in=_seconds(answer, "expires_in"),
        scope=granted,
    )


@dataclass(frozen=True, slots=True)
class AnswerMembers:
    """Typed accessors for the members of a successful answer."""

    members: Mapping[str, object] = field(repr=False)

    def text(self, name: str, *, max_chars: int | None = None) -> str:
        """Return a string of visible ASCII. Raises Denied: STS_BAD_RESPONSE; STS_TOO_LARGE above ``max_chars``."""
        value = _text(self.members, name)
        if max_chars is not None and len(value) > max_chars:
            raise Denied(Reason.STS_TOO_LARGE, f"{name} is longer than {max_chars} characters")
        return value

    def seconds(self, name: str) -> int | None:
        """Return a positive integer of seconds; None if absent. Raises Denied: STS_BAD_RESPONSE."""
        return _seconds(self.members, name)


def parse_answer(status: int, content_type: str | None, body: bytes) -> AnswerMembers:
    """Parse a successful answer of an endpoint that issues no token. Raises as ``parse_response``."""
    if status != 200:
        raise _refusal(status, content_type, body)
    answer = _answer(content_type, body)
    if "error" in answer:
        raise _bad_response("the answer has status 200 and an error")
    return AnswerMembers(answer)


def error_among(status: int, content_type: str | None, body: bytes, known: frozenset[str]) -> str | None:
    """Return the error code of a 400 answer if it is one of ``known``; None for any other answer."""
    if status != 400:
        return None
    try:
        error = _answer(content_type, body).get("error")
    except Denied:
        return None
    return error if isinstance(error, str) and error in known else None


def _refusal(status: int, content_type: str | None, body: bytes) -> SidecarError:
    if status == 400:
        return Denied(Reason.EXCHANGE_DENIED, _error_code(content_type, body))
    if status in (401, 403):
        return Denied(Reason.STS_ERROR, _error_code(content_type, body))
    if 300 <= status < 400:
        return Denied(Reason.STS_REDIRECT)
    if status == 429 or 500 <= status < 600:
        return Unavailable(Reason.STS_UNAVAILABLE, f"it answered with status {status}")
    return _bad_response(f"status {status}")


def _error_code(content_type: str | None, body: bytes) -> str:
    """Return the error code of a refusal if it is known, for records; never any other text of the STS."""
    try:
        error = _answer(content_type, body).get("error")
    except Denied:
        return "no readable error code"
    return error if isinstance(error, str) and error in _READ_ERRORS else "an unknown error code"


def _answer(content_type: str | None, body: bytes) -> dict[str, object]:
    if media_type(content_type) != _JSON:
        raise _bad_response("the answer's media type is not JSON")
    if len(body) > MAX_RESPONSE_BYTES:
        raise Denied(Reason.STS_TOO_LARGE)
    try:
        return parse_object(body, max_bytes=MAX_RESPONSE_BYTES)
    except StrictJsonError as error:
        raise _bad_response(str(error)) from error


def _text(answer: Mapping[str, object], member: str) -> str:
    value = answer.get(member)
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise _bad_response(f"{member} is missing or not a plain string")
    return value


def _seconds(answer: Mapping[str, object], member: str) -> int | None:
    if member not in answer:
        return None
    value = answer[member]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_EXPIRES_IN_S:
        raise _bad_response(f"{member} is not a positive number of seconds")
    return value


def _granted_scope(answer: Mapping[str, object]) -> ScopeSet | None:
    if "scope" not in answer:
        return None
    try:
        return parse_scope_claim(answer["scope"], shape="string")
    except ScopeError as error:
        raise _bad_response("scope is not a valid scope") from error


def _bad_response(detail: str) -> Denied:
    return Denied(Reason.STS_BAD_RESPONSE, detail)
