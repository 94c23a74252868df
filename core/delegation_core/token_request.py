"""Requests to a token endpoint, and their builders (RFC 8693 section 2.1, RFC 6749 section 4.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from delegation_core.scope import ScopeSet, format_scope

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT_CREDENTIALS: Final = "client_credentials"
MAX_REQUEST_BYTES: Final = 65536

# An absolute URI without a fragment (RFC 8693 section 2.1, RFC 3986 section 4.3).
ABSOLUTE_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-\"$-~]+")


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
    pairs += [("resource" if ABSOLUTE_URI.fullmatch(name) else "audience", name) for name in named]
    return tuple(pairs)


def build_client_credentials(request: ClientCredentialsRequest) -> bytes:
    """Return the form body of a client credentials request."""
    return urlencode(client_credentials_form(request)).encode("ascii")
