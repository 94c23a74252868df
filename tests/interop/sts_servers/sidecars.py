"""Settings of real sidecars whose token service is a foreign server: front → planner → writer → crm."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import CHAIN_SCOPES
from tests.interop.sts_servers.server import PLANNER, Client, ClientAuth, Server

Profile = str | Mapping[str, object]

# What the settings of an issuer must say of its tokens.
PROFILES: Final[dict[str, Profile]] = {
    "idpyoidc": {"preset": "spring", "scope_shape": "string"},
    "zitadel-example": "zitadel",
    "zitadel-own": {"preset": "zitadel", "scope_claim": "scope", "scope_shape": "string"},
    "zitadel-own-loose": {"preset": "zitadel", "scope_claim": "scope", "scope_shape": "string"},
    "spring": "spring",
    "spring-customized": "spring",
    "keycloak": "keycloak",
}
KEY_ID: Final = "agents"
_AUTH: Final = {ClientAuth.BASIC: "client-secret-basic", ClientAuth.POST: "client-secret-post"}


def over(
    folder: Path,
    server: Server,
    *,
    adapter: str = "rfc8693",
    options: Mapping[str, str] | None = None,
    audience: str | None = None,
    key: Path | None = None,
) -> AbstractAsyncContextManager[Mesh]:
    """Run the mesh with this server in place of our token service.

    By default each sidecar shows a token of its own of this server as the actor token. ``audience`` replaces the
    planner's. With ``key``, a private key in PEM, the sidecars authenticate by assertions; otherwise by their secrets.
    """
    clients = {"front": server.entry, "planner": server.planner, "writer": server.writer}
    secrets = {name: _secret(folder, name, client) for name, client in clients.items()}
    asked = {**({"actor_token": "own-token"} if adapter == "rfc8693" else {}), **(options or {})}

    def adjust(name: str, settings: dict[str, Any], _ports: Mapping[str, int]) -> None:
        if name == "sts":
            return
        settings["issuers"] = [_issuer(server)]
        del settings["exchange"]
        if name in clients:
            exchange = _exchange(server, clients[name], secrets[name])
            if key is not None:
                exchange |= {"client_auth": "private-key-jwt", "credential_file": str(key), "key_id": KEY_ID}
            settings["exchange"] = {**exchange, "adapter": adapter, "options": asked}
        if name == "front":
            settings["outbound"]["routes"][0]["audience"] = audience or PLANNER
            settings["entry"]["issuers"] = [_users(server)]

    return open_mesh(folder, adjust)


def _secret(folder: Path, name: str, client: Client) -> str:
    path = folder / f"{name}.secret"
    path.touch(mode=0o600)
    path.write_text(client.secret)
    return str(path)


def _issuer(server: Server) -> dict[str, Any]:
    return {
        "issuer": server.issuer,
        "jwks": server.jwks,
        "profile": PROFILES[server.name],
        "actor_trust_domains": ["acme.example"],
        "scopes": [*CHAIN_SCOPES, "crm.export"],
    }


def _exchange(server: Server, client: Client, secret: str) -> dict[str, Any]:
    return {
        "issuer": server.issuer,
        "token_endpoint": server.token_endpoint,
        "client_auth": _AUTH[client.auth],
        "client_id": client.client_id,
        "credential_file": secret,
        "allow_static_credential": True,
        "timeout_s": 20.0,
    }


def _login_by(server: Server) -> Profile:
    return {"preset": "oidc-access-token", "required_claims": ["azp" if server.name == "keycloak" else "client_id"]}


def _users(server: Server) -> dict[str, Any]:
    kind = server.subject_token_type.rsplit(":", 1)[1]
    return {
        "issuer": server.issuer,
        "jwks": server.jwks,
        "profile": "oidc-id-token" if kind == "id_token" else _login_by(server),
        "kind": kind,
        "client_id": server.front.client_id,
        "scope_from": {"claim": "scope", "map": {scope: [scope] for scope in CHAIN_SCOPES}}
        if kind == "access_token"
        else {"claim": "aud", "map": {server.front.client_id: CHAIN_SCOPES}},
    }
