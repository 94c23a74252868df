"""A mesh whose users log in at a Keycloak, with our token service behind it."""

from __future__ import annotations

from typing import Any

from tests.interop.keycloak import CLIENT_ID, Keycloak


def log_in_at(issuer: Keycloak, name: str, settings: dict[str, Any]) -> None:
    """Change the settings of ``sts`` or ``front`` so that a chain starts with a login at this Keycloak."""
    if name == "sts":
        settings["login_issuers"] = [_users_of(issuer)]
        settings["entries"][0]["client_ids"] = {issuer.issuer: CLIENT_ID}
        for rule in settings["rules"]:
            rule["subjects"] = [{"issuer": issuer.issuer, "subject": "*"}]
    if name == "front":
        settings["entry"]["issuers"] = [{**_users_of(issuer), "client_id": CLIENT_ID}]


def _users_of(issuer: Keycloak) -> dict[str, Any]:
    """Return a user issuer whose access tokens hold the scopes that the client asked for."""
    worth = {"claim": "scope", "map": {"openid": ["crm.read", "docs.write", "plan.make"]}}
    return {
        "issuer": issuer.issuer,
        "jwks": issuer.jwks,
        "profile": "oidc-access-token",
        "kind": "access_token",
        "scope_from": worth,
    }
