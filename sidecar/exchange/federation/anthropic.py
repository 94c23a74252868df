"""Anthropic's workload identity federation: the jwt-bearer grant (RFC 7523) with a JSON body.

After "WIF reference", token exchange request (platform.claude.com/docs/en/manage-claude/wif-reference), and the
``anthropic-beta`` words of the official TypeScript client, as read in November 2026.
"""

from __future__ import annotations

from typing import Final

from delegation_core.outside import FederatedKey
from sidecar.exchange.federation.trade import Steps, document, oauth_token

_BETA: Final = "oauth-2025-04-20,oidc-federation-2026-04-01"
_OPTIONAL: Final = ("workspace_id",)


def trade(key: FederatedKey, svid: str, _now: float) -> Steps:
    """Trade a JWT-SVID for the access token of a service account. Terms: rule, organization, account, workspace."""
    optional = {name: key.term(name) for name in _OPTIONAL if key.term(name) is not None}
    answer = yield document(
        key.endpoint,
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": svid,
            "federation_rule_id": key.term("federation_rule_id"),
            "organization_id": key.term("organization_id"),
            "service_account_id": key.term("service_account_id"),
            **optional,
        },
        {"anthropic-beta": _BETA},
    )
    return oauth_token(answer)
