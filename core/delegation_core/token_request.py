"""Builders and parser for requests to a token endpoint (RFC 8693 section 2.1, RFC 6749 section 4.4).

For compatibility with real clients, an empty parameter counts as absent and unknown ones are ignored. A repeated
parameter is refused, except audience and resource.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from delegation_core.errors import Denied, Reason
from delegation_core.form import FormError, media_type, parse_form
from delegation_core.scope import ScopeError, ScopeSet, format_scope, parse_scope

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS: Final = "client_credentials"
MAX_REQUEST_BYTES: Final = 65536

_FORM: Final = "application/x-www-form-urlencoded"
_REPEATABLE: Final = frozenset({"audience", "resource"})
# An absolute URI without a fragment (RFC 8693 section 2.1, RFC 3986 section 4.3).
_ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-\"$-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """A token exchange (RFC 8693 section 2.1). ``scope`` is None if absent. Types are URNs, as sent."""

    subject_token: str = field(repr=False)
    subject_token_type: str
    actor_token: str | None = field(default=None, repr=False)
    actor_token_type: str | None = None
    requested_token_type: str | None = None
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    scope: ScopeSet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentialsRequest:
    """A request for the client's own token (RFC 6749 section 4.4, with the targets of RFC 8707)."""

    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    scope: ScopeSet | None = None


def exchange_form(request: ExchangeRequest) -> tuple[tuple[str, str], ...]:
    """Return the parameters of a token exchange.

    Raises:
        ValueError: only one of actor token and actor token type is set (RFC 8693 section 2.1).
    """
    if (request.actor_token is None) != (request.actor_token_type is None):
        raise ValueError("actor_token and actor_token_type must come together")
    single = {
        "grant_type": GRANT_TYPE,
        "subject_token": request.subject_token,
        "subject_token_type": request.subject_token_type,
        "actor_token": request.actor_token,
        "actor_token_type": request.actor_token_type,
        "requested_token_type": request.requested_token_type,
        "scope": None if request.scope is None else format_scope(request.scope),
    }
    pairs = [(name, value) for name, value in single.items() if value is not None]
    pairs += [("audience", audience) for audience in request.audience]
    pairs += [("resource", resource) for resource in request.resource]
    return tuple(pairs)


def build_exchange(request: ExchangeRequest) -> bytes:
    """Return the form body of a token exchange. Raises as ``exchange_form``."""
    return urlencode(exchange_form(request)).encode("ascii")


def client_credentials_form(request: ClientCredentialsRequest) -> tuple[tuple[str, str], ...]:
    """Return the parameters of a client credentials request. A target that is an absolute URI becomes ``resource``."""
    pairs = [("grant_type", CLIENT_CREDENTIALS)]
    if request.scope is not None:
        pairs.append(("scope", format_scope(request.scope)))
    named = [*request.audience, *request.resource]
    pairs += [("resource" if _ABSOLUTE_URI.fullmatch(name) else "audience", name) for name in named]
    return tuple(pairs)


def build_client_credentials(request: ClientCredentialsRequest) -> bytes:
    """Return the form body of a client credentials request."""
    return urlencode(client_credentials_form(request)).encode("ascii")


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
    if any(not _ABSOLUTE_URI.fullmatch(uri) for uri in resource):
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
