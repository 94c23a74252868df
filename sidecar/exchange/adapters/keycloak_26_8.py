"""Delegation of Keycloak 26.8 (preview feature ``token-exchange-delegation``): ``act`` names the client that acts.

Keycloak accepts only its own access tokens as actor tokens. So we request one by client credentials, reuse it for a
while, and send it beside the user's token, whose ``may_act`` must name us. In the issued ``act``, copied from
``may_act``, ``sub`` is the UUID of our service account and ``client_id`` our client, which is our SPIFFE ID (profile
``keycloak``). Chains are not kept, so only an entry can use this adapter. ``own`` is not supported: such a token names
the service account instead of our SPIFFE ID.
"""

from __future__ import annotations

from typing import Final

from delegation_core.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    ClientCredentialsRequest,
    ExchangeRequest,
    client_credentials_form,
    exchange_form,
)
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted


def exchange(wanted: Wanted) -> Steps:
    """Request our own token, then the planned token with ours as actor token."""
    own = yield Step(form=client_credentials_form(ClientCredentialsRequest()), shared=True)
    plan = wanted.plan
    request = ExchangeRequest(
        subject_token=wanted.subject_token.raw,
        subject_token_type=wanted.subject_token_type,
        actor_token=own.token(scope=None).access_token,
        actor_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        requested_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        audience=(plan.audience,),
        scope=plan.scope,
    )
    answer = yield Step(form=exchange_form(request))
    return answer.token(scope=plan.scope, issued_token_type=TOKEN_TYPE_ACCESS_TOKEN)


ADAPTER: Final = Adapter(
    name="keycloak-26.8",
    capabilities=Capabilities(
        emits_act=True,
        nests_act=False,
        narrows=True,
        keeps_subject=True,
        several_steps=True,
        takes=frozenset({TOKEN_TYPE_ACCESS_TOKEN}),
    ),
    client_auth=(
        ClientAuth.JWT_SPIFFE,
        ClientAuth.PRIVATE_KEY_JWT,
        ClientAuth.SECRET_BASIC,
        ClientAuth.SECRET_POST,
    ),
    exchange=exchange,
)
