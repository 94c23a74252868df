"""Keycloak 26.7.3 with its standard token exchange: it never looks at ``actor_token``, and issues no ``act``.

Any of its administrators can have an ``act`` written into tokens, by a mapper with a fixed value: ``forging_act``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.interop import keycloak
from tests.interop.keycloak import CLIENT_ID, SECRET, Keycloak
from tests.interop.sts_servers.login import REDIRECT_URI, log_in
from tests.interop.sts_servers.server import CRM, ENTRY, PLANNER, SCOPES, WRITER, Client, ClientAuth, Launcher, Server

_FRONT: Final = Client(CLIENT_ID, SECRET, ClientAuth.POST)
_AGENTS: Final = [Client(name, f"secret of {name}", ClientAuth.BASIC) for name in (ENTRY, PLANNER, WRITER)]
_LIVES_S: Final = {ENTRY: "240", PLANNER: "180", WRITER: "120"}
_NOWHERE: Final = "http://127.0.0.1:9/events"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeycloakServer(Server):
    """A Keycloak, and what its administrator can do to tokens."""

    keycloak: Keycloak

    def forging_act(self, client: Client, act: Mapping[str, object]) -> AbstractAsyncContextManager[None]:
        """Have this ``act`` written into every token of a client."""
        return self.forging(client, "act", act)

    @asynccontextmanager
    async def forging(self, client: Client, claim: str, value: Mapping[str, object]) -> AsyncIterator[None]:
        """Have a claim written into every token of a client."""
        (found,) = await self.keycloak.administer("GET", f"/clients?clientId={client.client_id}", status=200)
        mappers = f"/clients/{found['id']}/protocol-mappers/models"
        settings = {"claim.name": claim, "claim.value": json.dumps(value), "jsonType.label": "JSON"}
        await self.keycloak.administer("POST", mappers, _mapper(claim, "oidc-hardcoded-claim-mapper", **settings))
        try:
            yield
        finally:
            for one in await self.keycloak.administer("GET", mappers, status=200):
                if one["name"] == claim:
                    await self.keycloak.administer("DELETE", f"{mappers}/{one['id']}", status=204)


def prepare() -> Path:
    """Return the folder of the unpacked distribution."""
    return Path(os.environ["KEYCLOAK_HOME"])


@asynccontextmanager
async def start(folder: Path, *, features: str = "") -> AsyncIterator[KeycloakServer]:
    """Run it with a realm of three agents and the scopes of the CRM. ``features`` are previews to switch on."""
    async with keycloak.running(folder, _NOWHERE, redirect_uri=REDIRECT_URI, features=features) as one:
        await _make_clients(one)
        entry, planner, writer = _AGENTS

        async def subject_token(user: str, scopes: tuple[str, ...]) -> str:
            members = await log_in(
                one.session, _FRONT, authorization_endpoint=one.authorization_endpoint,
                token_endpoint=one.token_endpoint, user=user, password=f"of {user}",
                scope=" ".join(("openid", *scopes)),
            )  # fmt: skip
            return str(members["access_token"])

        async def actor_token(client: Client) -> str:
            return await server.own_token(client)

        server = KeycloakServer(
            name="keycloak",
            issuer=one.issuer,
            metadata=f"{one.issuer}/.well-known/openid-configuration",
            token_endpoint=one.token_endpoint,
            jwks=one.jwks,
            front=_FRONT,
            entry=entry,
            planner=planner,
            writer=writer,
            audiences=(PLANNER, WRITER, CRM),
            scopes=SCOPES,
            subject_token=subject_token,
            actor_token=actor_token,
            session=one.session,
            keycloak=one,
        )
        yield server


async def _make_clients(one: Keycloak) -> None:
    """Make what the standard exchange needs: whoever exchanges a token has to be one of its audiences."""
    await one.administer("POST", "/client-scopes", _scope("agents", [agent.client_id for agent in _AGENTS]))
    for name in SCOPES:
        await one.administer("POST", "/client-scopes", _scope(name, [PLANNER, WRITER, CRM]))
    await one.administer("POST", "/clients", {"clientId": CRM, "enabled": True, "bearerOnly": True})
    for agent in _AGENTS:
        await one.administer("POST", "/clients", _client(agent))
    ids = {scope["name"]: scope["id"] for scope in await one.administer("GET", "/client-scopes", status=200)}
    (front,) = await one.administer("GET", f"/clients?clientId={CLIENT_ID}", status=200)
    for kind, names in (("default", ["agents"]), ("optional", SCOPES)):
        for name in names:
            path = f"/clients/{front['id']}/{kind}-client-scopes/{ids[name]}"
            await one.administer("PUT", path, status=204)


def _client(agent: Client) -> dict[str, Any]:
    """Return an agent's client.

    Without scopes of its own, its tokens would get the realm's: profile, email and more. A token that it gets by
    exchange would outlive the subject token: so those of each next agent live for a minute less.
    """
    return {
        "clientId": agent.client_id,
        "secret": agent.secret,
        "enabled": True,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
        "fullScopeAllowed": False,
        "defaultClientScopes": ["basic"],
        "optionalClientScopes": SCOPES,
        "attributes": {"standard.token.exchange.enabled": "true", "access.token.lifespan": _LIVES_S[agent.client_id]},
    }


def _scope(name: str, audiences: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true"},
        "protocolMappers": [
            _mapper(f"to {audience}", "oidc-audience-mapper", **{"included.client.audience": audience})
            for audience in audiences
        ],
    }


def _mapper(name: str, kind: str, **settings: str) -> dict[str, Any]:
    shown = {"access.token.claim": "true", "introspection.token.claim": "true", **settings}
    return {"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": shown}


LAUNCHER: Final = Launcher(name="keycloak", lacking=keycloak.lacking, prepare=prepare, start=start)
