"""OpenAI's workload identity federation: token exchange (RFC 8693) with a JSON body.

After "Workload identity token exchange" of OpenAI's API reference (developers.openai.com/api/reference/
workload-identity-federation) and the official Python client, as read in November 2026.
"""

from __future__ import annotations

from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.trade import TOKEN_EXCHANGE, TOKEN_TYPE_JWT, Steps, document, oauth_token


def trade(key: FederatedKey, svid: str, _now: float) -> Steps:
    """Trade a JWT-SVID for the access token of a service account. Terms: both ids."""
    answer = yield document(
        key.endpoint,
        {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token_type": TOKEN_TYPE_JWT,
            "subject_token": svid,
            "identity_provider_id": key.term("identity_provider_id"),
            "service_account_id": key.term("service_account_id"),
        },
    )
    return oauth_token(answer)
