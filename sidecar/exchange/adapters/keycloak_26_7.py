"""Standard token exchange of Keycloak up to 26.7, which ignores actor tokens and issues no ``act``.

Only ``azp``, the authenticated client, identifies the actor. So the client is registered under our SPIFFE ID and
authenticates by JWT-SVID, and the issuer's profile (``keycloak-26.7``) reads ``azp``. Chains are not kept, so only an
entry can use this adapter. ``own`` is not supported: such a token names a service account by a UUID instead of our
SPIFFE ID.
"""

from __future__ import annotations

from typing import Final

from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, ExchangeRequest, exchange_form
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted


def exchange(wanted: Wanted) -> Steps:
    """Request the planned token. Without ``scope`` Keycloak grants all default scopes; it ignores ``resource``."""
    plan = wanted.plan
    request = ExchangeRequest(
        subject_token=wanted.subject_token.raw,
        subject_token_type=wanted.subject_token_type,
        requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        audience=(plan.audience,),
        scope=plan.scope,
    )
    answer = yield Step(form=exchange_form(request))
    return answer.token(scope=plan.scope, issued_token_type=TOKEN_TYPE_ACCESS_TOKEN)


ADAPTER: Final = Adapter(
    name="keycloak-26.7",
    capabilities=Capabilities(
        emits_act=False, nests_act=False, narrows=True, keeps_subject=True, takes=frozenset({TOKEN_TYPE_ACCESS_TOKEN})
    ),
    client_auth=(
        ClientAuth.JWT_SPIFFE,
        ClientAuth.PRIVATE_KEY_JWT,
        ClientAuth.SECRET_BASIC,
        ClientAuth.SECRET_POST,
    ),
    exchange=exchange,
)
