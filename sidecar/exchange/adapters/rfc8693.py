"""Token exchange by RFC 8693: our own token service, and every other that follows the standard closely."""

from __future__ import annotations

from sidecar.delegation.decide import Plan
from sidecar.delegation.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_JWT,
    ExchangeRequest,
    TokenResponse,
    build_exchange,
    parse_response,
)


def build(plan: Plan, actor_token: str, *, subject_token_type: str) -> bytes:
    """Build the form that asks for the planned token, with our JWT-SVID as actor (RFC 8693 section 2.1)."""
    return build_exchange(_request(plan, actor_token, subject_token_type))


def read(status: int, content_type: str | None, body: bytes, *, plan: Plan) -> TokenResponse:
    """Read the answer and check that it is what was asked for (RFC 8693 section 2.2). Its token is still unverified.

    Raises:
        SidecarError: EXCHANGE_DENIED, STS_ERROR, STS_UNAVAILABLE, STS_REDIRECT, STS_BAD_RESPONSE, STS_TOKEN_TYPE or
            STS_SCOPE_WIDENED. Nothing of the answer is quoted.
    """
    return parse_response(status, content_type, body, requested=_request(plan, None, TOKEN_TYPE_ACCESS_TOKEN))


def _request(plan: Plan, actor_token: str | None, subject_token_type: str) -> ExchangeRequest:
    return ExchangeRequest(
        subject_token=plan.delegation.token.raw,
        subject_token_type=subject_token_type,
        actor_token=actor_token,
        actor_token_type=None if actor_token is None else TOKEN_TYPE_JWT,
        requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        audience=(plan.audience,),
        resource=(),
        scope=plan.scope,
    )
