"""Google's workload identity federation: token exchange (RFC 8693), then optionally a service account's token for it.

After "Method: token" of the Security Token Service API v1 and "Method: projects.serviceAccounts.generateAccessToken"
of the IAM Service Account Credentials API v1 (docs.cloud.google.com/iam/docs/reference), as read in November 2026.
"""

from __future__ import annotations

from typing import Final

from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.trade import (
    TOKEN_EXCHANGE,
    TOKEN_TYPE_JWT,
    Steps,
    check_trade,
    document,
    form,
    members_of,
    oauth_token,
    seconds_to,
)

_CLOUD: Final = "https://www.googleapis.com/auth/cloud-platform"


def trade(key: FederatedKey, svid: str, now: float) -> Steps:
    """Trade a JWT-SVID for a federated token. Terms: the pool's provider, the scope, the URL of impersonation."""
    impersonation = key.term("service_account_impersonation_url")
    scope = key.term("scope") or _CLOUD
    answer = yield form(
        key.endpoint,
        {
            "grant_type": TOKEN_EXCHANGE,
            "audience": key.term("pool_provider") or "",
            "scope": scope if impersonation is None else _CLOUD,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": TOKEN_TYPE_JWT,
            "subject_token": svid,
        },
    )
    federated = oauth_token(answer)
    if impersonation is None:
        return federated
    answer = yield document(impersonation, {"scope": scope.split()}, {"Authorization": f"Bearer {federated.token}"})
    members = members_of(answer)
    return check_trade(members.get("accessToken"), seconds_to(members.get("expireTime"), now))
