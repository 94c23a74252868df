"""Server of a token endpoint: parser for requests, builders for responses (RFC 8693 section 2, RFC 6749 section 5).

For compatibility with real clients, an empty parameter counts as absent and unknown ones are ignored. A repeated
parameter is refused, except audience and resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.form import FormError, media_type, parse_form
from delegation_core.scope import ScopeError, ScopeSet, format_scope, parse_scope
from delegation_core.token_request import (
    ABSOLUTE_URI,
    CLIENT_CREDENTIALS,
    GRANT_TYPE,
    MAX_REQUEST_BYTES,
    ClientCredentialsRequest,
    ExchangeRequest,
)
from delegation_core.token_response import BEARER, ENDPOINT_ERRORS

_FORM: Final = "application/x-www-form-urlencoded"
_REPEATABLE: Final = frozenset({"audience", "resource"})
# Codes of draft-mcguinness-oauth-actor-profile-01 for an untrusted token, and for an actor that may not act.
_ACTOR_PROFILE_ERRORS: Final = {
    **dict.fromkeys(
        (
            Reason.ACTOR_TOKEN_INVALID,
            Reason.ACTOR_NOT_CLIENT,
            Reason.NOT_YOUR_TOKEN,
            Reason.WRONG_ISSUER,
            Reason.UNKNOWN_KEY,
            Reason.ALG_NOT_ALLOWED,
            Reason.BAD_SIGNATURE,
            Reason.TOKEN_TYPE,
            Reason.TOKEN_EXPIRED,
            Reason.TOKEN_NOT_YET_VALID,
            Reason.REVOKED,
        ),
        "invalid_grant",
    ),
    **dict.fromkeys((Reason.DELEGATION_NOT_ALLOWED, Reason.MAY_ACT_REFUSED), "actor_unauthorized"),
}
_STATUSES_KEPT: Final = frozenset({404, 405, 408, 413, 414, 417, 431})


def parse_token_request(body: bytes, content_type: str | None) -> ExchangeRequest | ClientCredentialsRequest:
    """Parse a request to the token endpoint, without checking token types or parsing tokens.

    Raises:
        Denied: EXCHANGE_MALFORMED (media type, form, repeated or missing parameter, or only one of actor token and its
            type), GRANT_NOT_SUPPORTED, SCOPE_REFUSED (not a valid scope string), TARGET_UNKNOWN (a resource that is not
            an absolute URI).
    """
    if media_type(content_type) != _FORM:
        raise Denied(Reason.EXCHANGE_MALFORMED, "the content type is not application/x-www-form-urlencoded")
    try:
        parameters = parse_form(body, repeatable=_REPEATABLE, max_bytes=MAX_REQUEST_BYTES)
    except FormError as error:
        raise Denied(Reason.EXCHANGE_MALFORMED, str(error)) from error
    grant_type = _single(parameters, "grant_type")
    if grant_type is None:
        raise Denied(Reason.EXCHANGE_MALFORMED, "grant_type is missing")
    audience, resource = parameters.get("audience", ()), parameters.get("resource", ())
    if any(not ABSOLUTE_URI.fullmatch(uri) for uri in resource):
        raise Denied(Reason.TARGET_UNKNOWN, "a resource is not an absolute URI")
    scope = _requested_scope(_single(parameters, "scope"))
    if grant_type == CLIENT_CREDENTIALS:
        return ClientCredentialsRequest(audience=audience, resource=resource, scope=scope)
    if grant_type != GRANT_TYPE:
        raise Denied(Reason.GRANT_NOT_SUPPORTED)
    subject_token, subject_token_type = _single(parameters, "subject_token"), _single(parameters, "subject_token_type")
    if subject_token is None or subject_token_type is None:
        raise Denied(Reason.EXCHANGE_MALFORMED, "subject_token or subject_token_type is missing")
    actor_token, actor_token_type = _single(parameters, "actor_token"), _single(parameters, "actor_token_type")
    if (actor_token is None) != (actor_token_type is None):
        raise Denied(Reason.EXCHANGE_MALFORMED, "actor_token and actor_token_type must come together")
    return ExchangeRequest(
        subject_token=subject_token,
        subject_token_type=subject_token_type,
        actor_token=actor_token,
        actor_token_type=actor_token_type,
        requested_token_type=_single(parameters, "requested_token_type"),
        audience=audience,
        resource=resource,
        scope=scope,
    )


def _single(parameters: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    return parameters[name][0] if name in parameters else None


def _requested_scope(text: str | None) -> ScopeSet | None:
    try:
        return None if text is None else parse_scope(text)
    except ScopeError as error:
        raise Denied(Reason.SCOPE_REFUSED, str(error)) from error


def build_response(
    *, access_token: str, expires_in: int, scope: ScopeSet, issued_token_type: str | None
) -> dict[str, object]:
    """Return the members of a token response (RFC 8693 section 2.2.1): always a scope, never a refresh token.

    ``issued_token_type``: None for client credentials, which omits the member (RFC 6749 section 5.1).
    """
    response: dict[str, object] = {
        "access_token": access_token,
        "token_type": BEARER,
        "expires_in": expires_in,
        "scope": format_scope(scope),
    }
    if issued_token_type is not None:
        response["issued_token_type"] = issued_token_type
    return response


def build_error(error: SidecarError, *, actor_profile: bool = False) -> tuple[int, dict[str, object]]:
    """Return status and members of an error response (RFC 8693 section 2.2.2).

    An invalid token is 400 ``invalid_request``, as RFC 8693 requires. ``actor_profile``: use the codes of
    draft-mcguinness-oauth-actor-profile-01 instead, ``invalid_grant`` for an untrusted token and
    ``actor_unauthorized`` for an actor that may not act for this subject.
    The description is the reason's fixed text, so nothing of the request is reflected.
    """
    answer = error.answer
    if actor_profile and error.reason in _ACTOR_PROFILE_ERRORS:
        status, code = 400, _ACTOR_PROFILE_ERRORS[error.reason]
    elif answer.error in ENDPOINT_ERRORS:
        status, code = answer.status, answer.error
    elif error.reason is Reason.INSUFFICIENT_SCOPE:
        status, code = 400, "invalid_scope"
    elif answer.status >= 500:
        status, code = answer.status, "temporarily_unavailable" if answer.status == 503 else "server_error"
    else:
        status, code = answer.status if answer.status in _STATUSES_KEPT else 400, "invalid_request"
    return status, {"error": code, "error_description": answer.text}
