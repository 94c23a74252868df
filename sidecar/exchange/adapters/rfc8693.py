"""Token exchange by RFC 8693: our own token service, and every other that follows the standard closely."""

from __future__ import annotations

from sidecar.delegation.decide import Plan
from sidecar.delegation.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_JWT,
    ClientCredentialsRequest,
    ExchangeRequest,
    TokenResponse,
    build_client_credentials,
    build_exchange,
    parse_response,
)
from sidecar.delegation.verify import VerifiedToken


def build(plan: Plan, subject: VerifiedToken, actor_token: str, *, subject_token_type: str) -> bytes:
    """Build the form that asks for the planned token, with our JWT-SVID as actor (RFC 8693 section 2.1)."""
    return build_exchange(_request(plan, subject, actor_token, subject_token_type))


def build_own(plan: Plan) -> bytes:
    """Build the form that asks for our own token at one target (RFC 6749 section 4.4, RFC 8707 section 2)."""
    return build_client_credentials(_own_request(plan))


def read(status: int, content_type: str | None, body: bytes, *, plan: Plan) -> TokenResponse:
    """Read the answer and check that it is what was asked for (RFC 8693 section 2.2). Its token is still unverified.

    Raises:
        SidecarError: EXCHANGE_DENIED, STS_ERROR, STS_UNAVAILABLE, STS_REDIRECT, STS_BAD_RESPONSE, STS_TOKEN_TYPE or
            STS_SCOPE_WIDENED. Nothing of the answer is quoted.
    """
    subject = plan.subject_token
    requested = _own_request(plan) if subject is None else _request(plan, subject, None, TOKEN_TYPE_ACCESS_TOKEN)
    return parse_response(status, content_type, body, requested=requested)


def _own_request(plan: Plan) -> ClientCredentialsRequest:
    return ClientCredentialsRequest(audience=(plan.audience,), scope=plan.scope)


def _request(plan: Plan, subject: VerifiedToken, actor_token: str | None, subject_token_type: str) -> ExchangeRequest:
    return ExchangeRequest(
        subject_token=subject.raw,
        subject_token_type=subject_token_type,
        actor_token=actor_token,
        actor_token_type=None if actor_token is None else TOKEN_TYPE_JWT,
        requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        audience=(plan.audience,),
        resource=(),
        scope=plan.scope,
    )
