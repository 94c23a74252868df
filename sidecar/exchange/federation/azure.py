"""Microsoft Entra's workload identity federation: client credentials with our JWT-SVID as assertion (RFC 7523).

After "OAuth 2.0 client credentials flow", third case: access token request with a federated credential
(learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow), as read in November 2026.
"""

from __future__ import annotations

from typing import Final

from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.trade import Steps, form, oauth_token

_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def trade(key: FederatedKey, svid: str, _now: float) -> Steps:
    """Trade a JWT-SVID for the access token of an application. Terms: its client id, and the scope to ask for."""
    answer = yield form(
        key.endpoint,
        {
            "grant_type": "client_credentials",
            "client_id": key.term("client_id") or "",
            "scope": key.term("scope") or "",
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": svid,
        },
    )
    return oauth_token(answer)
