"""Real sidecars over a real Keycloak 26.7 by the adapter ``keycloak-26.7``: the first hop, authenticated by JWT-SVID.

Keycloak knows the workload by its identity provider ``spiffe``, which reads our trust domain's keys at a bundle
endpoint. Each refusal is the lawful call with one fact of the realm, of the JWT-SVID or of the token changed.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from delegation_core.bearer import parse_bearer
from delegation_core.rfc8693 import GRANT_TYPE, TOKEN_TYPE_ACCESS_TOKEN
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.conversations import listening
from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import CHAIN_SCOPES
from tests.integration.world import FRONT, PLANNER, Answer, calling, ok
from tests.interop import keycloak
from tests.interop.engine import require
from tests.interop.keycloak import CLIENT_ID, Keycloak
from tests.interop.sts_servers import launch_keycloak
from tests.interop.sts_servers.launch_keycloak import KeycloakServer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
ALIAS: Final = "acme-spiffe"
LOGIN: Final = tuple(CHAIN_SCOPES)


@dataclass
class Both:
    """A Keycloak with the provider ``spiffe``, and sidecars that ask it. ``bundle`` is what its endpoint serves."""

    server: KeycloakServer
    bundle: TrustDomainAuthority
    client: dict[str, Any] = field(default_factory=dict)  # the front's, as the realm has it
    mesh: Mesh | None = None

    @property
    def sidecars(self) -> Mesh:
        assert self.mesh is not None
        return self.mesh

    async def ask(self) -> Answer:
        """Log alice in again, and call the planner through the front's sidecar."""
        return await self.sidecars.ask(await self.server.subject_token("alice", LOGIN))

    async def refusal(self) -> tuple[int, str | None]:
        before = len(self.sidecars.agents["planner"].requests)
        answer = await self.ask()
        assert len(self.sidecars.agents["planner"].requests) == before
        return answer.status, answer.reason

    @asynccontextmanager
    async def with_client(self, attributes: Mapping[str, str], **changes: Any) -> AsyncIterator[None]:
        """Change the front's client for a while."""
        path = f"/clients/{self.client['id']}"
        changed = {**self.client, **changes, "attributes": {**self.client["attributes"], **attributes}}
        await self.server.keycloak.administer("PUT", path, changed, status=204)
        try:
            yield
        finally:
            await self.server.keycloak.administer("PUT", path, self.client, status=204)

    async def forget_keys(self) -> None:
        await self.server.keycloak.administer("POST", "/clear-keys-cache", status=204)

    def svid(self, audience: str | list[str] | None = None, **changes: Any) -> str:
        return self.sidecars.world.acme.issue_jwt(FRONT, audience or self.server.issuer, **changes)

    async def post(self, svid: str, **form: str) -> tuple[int, dict[str, Any]]:
        """Send a form to the token endpoint, authenticated by a JWT-SVID."""
        shown = {"client_assertion_type": JWT_SPIFFE, "client_assertion": svid, **form}
        async with self.server.session.post(self.server.token_endpoint, data=shown) as answer:
            return answer.status, await answer.json(content_type=None)

    async def exchanged(self, subject_token: str) -> str:
        """Exchange a token as the front, for the planner."""
        status, members = await self.post(
            self.svid(), grant_type=GRANT_TYPE, subject_token=subject_token, subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
            audience=str(PLANNER), scope="plan.make",
        )  # fmt: skip
        assert status == 200, members
        return str(members["access_token"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both() -> AsyncIterator[Both]:
    require(keycloak.lacking())
    with tempfile.TemporaryDirectory(prefix="sc-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(launch_keycloak.start(folder, features="spiffe"))
            one = Both(server, TrustDomainAuthority(TrustDomain("acme.example")))

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                keys = [{**key, "use": "jwt-svid"} for key in json.loads(one.bundle.jwt_bundle())["keys"]]
                document = json.dumps({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300}).encode()
                writer.write(ok(document, b"content-type: application/json", b"connection: close"))
                await writer.drain()
                writer.close()

            port = await stack.enter_async_context(listening(serve))
            await trust_spiffe(server.keycloak, f"http://127.0.0.1:{port}/")
            one.client = await know_by_spiffe_id(server.keycloak)
            one.mesh = await stack.enter_async_context(
                open_mesh(folder, lambda name, settings, _ports: adjust(server, name, settings))
            )
            one.mesh.scripts["planner"] = answer_subject
            one.bundle = one.mesh.world.acme
            yield one


async def answer_subject(fields: dict[str, str]) -> bytes:
    return ok(fields["delegation-subject"].encode())


async def trust_spiffe(one: Keycloak, bundle: str) -> None:
    settings = {"trustDomain": "spiffe://acme.example", "bundleEndpoint": bundle}
    provider = {"alias": ALIAS, "providerId": "spiffe", "enabled": True, "config": settings}
    await one.administer("POST", "/identity-provider/instances", provider)


async def know_by_spiffe_id(one: Keycloak) -> dict[str, Any]:
    """Have the front's client authenticate by JWT-SVID; return its representation."""
    (client,) = await one.administer("GET", f"/clients?clientId={FRONT}", status=200)
    known = {**client["attributes"], "jwt.credential.issuer": ALIAS, "jwt.credential.sub": str(FRONT)}
    changed = {**client, "clientAuthenticatorType": "federated-jwt", "attributes": known}
    await one.administer("PUT", f"/clients/{client['id']}", changed, status=204)
    return changed


def adjust(server: KeycloakServer, name: str, settings: dict[str, Any]) -> None:
    """Let the front's sidecar ask Keycloak, and the planner's believe it; the others are not called here."""
    if name not in ("front", "planner"):
        return
    settings["issuers"] = [
        {
            "issuer": server.issuer, "jwks": server.jwks, "profile": "keycloak-26.7",
            "actor_trust_domains": ["acme.example"], "scopes": CHAIN_SCOPES,
        }
    ]  # fmt: skip
    del settings["exchange"]
    if name == "planner":
        del settings["outbound"]
        settings["inbound"]["routes"][0]["may_call"] = []
        return
    settings["exchange"] = {
        "issuer": server.issuer, "token_endpoint": server.token_endpoint, "adapter": "keycloak-26.7",
        "client_auth": "jwt-spiffe", "timeout_s": 20.0,
    }  # fmt: skip
    settings["entry"]["issuers"] = [
        {
            "issuer": server.issuer, "jwks": server.jwks, "client_id": CLIENT_ID,
            "profile": {"preset": "oidc-access-token", "required_claims": ["azp"]},
            "scope_from": {"claim": "scope", "map": {scope: [scope] for scope in CHAIN_SCOPES}},
        }
    ]  # fmt: skip


async def test_a_login_reaches_the_next_hop_with_the_workload_as_actor(both: Both) -> None:
    answer = await both.ask()
    assert answer.status == 200, answer.reason
    (arrived,) = await both.sidecars.sidecars["planner"].wait_for_records(1)
    assert (arrived["actor"], arrived["chain"]) == (FRONT, [FRONT])
    assert (arrived["subject"].encode(), arrived["subject_iss"]) == (answer.body, both.server.issuer)
    assert arrived["scope"] == sorted(CHAIN_SCOPES)
    (exchanged,) = await both.sidecars.sidecars["front"].wait_for_records(1, "token.exchanged")
    assert exchanged.get("credential") is None, "no static credential"


async def test_a_workload_that_the_realm_does_not_know_gets_nothing(both: Both) -> None:
    async with both.with_client({"jwt.credential.sub": "spiffe://acme.example/agent/nobody"}):
        assert await both.refusal() == (502, "sts_error")
    async with both.with_client({}, clientAuthenticatorType="client-secret"):
        assert await both.refusal() == (502, "sts_error")
    both.bundle = TrustDomainAuthority(TrustDomain("acme.example"))
    await both.forget_keys()
    assert await both.refusal() == (502, "sts_error"), "another authority's keys"
    both.bundle = both.sidecars.world.acme
    await both.forget_keys()
    assert (await both.ask()).status == 200


async def test_what_the_realm_does_not_allow_is_refused_there(both: Both) -> None:
    async with both.with_client({"standard.token.exchange.enabled": "false"}):
        assert await both.refusal() == (403, "exchange_denied")
    one = both.server.keycloak
    scopes = {scope["name"]: scope["id"] for scope in await one.administer("GET", "/client-scopes", status=200)}
    (app,) = await one.administer("GET", f"/clients?clientId={CLIENT_ID}", status=200)
    path = f"/clients/{app['id']}/default-client-scopes/{scopes['agents']}"
    await one.administer("DELETE", path, status=204)
    assert await both.refusal() == (502, "sts_error"), "the login is not for the front's client"
    await one.administer("PUT", path, status=204)
    assert (await both.ask()).status == 200


async def test_what_the_realm_allows_beyond_the_plan_is_not_used(both: Both) -> None:
    async with both.with_client({"access.token.lifespan": "1200"}):
        assert await both.refusal() == (502, "sts_lifetime")
    async with both.server.forging_act(both.server.entry, {"sub": str(FRONT)}):
        assert await both.refusal() == (502, "sts_chain_broken")
    one = both.server.keycloak
    scopes = {scope["name"]: scope["id"] for scope in await one.administer("GET", "/client-scopes", status=200)}
    path = f"/clients/{both.client['id']}/default-client-scopes/{scopes['profile']}"
    await one.administer("PUT", path, status=204)
    assert await both.refusal() == (502, "sts_scope_widened")
    await one.administer("DELETE", path, status=204)
    assert (await both.ask()).status == 200


async def test_keycloak_takes_a_jwt_svid_of_this_workload_that_is_for_it_alone_and_young(both: Both) -> None:
    own = {"grant_type": "client_credentials"}
    issuer, now = both.server.issuer, int(time.time())
    assert (await both.post(both.svid(), **own))[0] == 200
    foreign = TrustDomainAuthority(TrustDomain("other.example"))
    strangers = foreign.issue_jwt(SpiffeId("spiffe://other.example/agent/front"), issuer)
    forged = TrustDomainAuthority(TrustDomain("acme.example")).issue_jwt(FRONT, issuer)
    unknown = both.sidecars.world.acme.issue_jwt(SpiffeId("spiffe://acme.example/agent/nobody"), issuer)
    for svid, form, status, error in (
        (unknown, {}, 401, "invalid_client"),
        (strangers, {}, 401, "invalid_client"),
        (forged, {}, 401, "invalid_client"),
        (both.svid(issued_at=now - 301, ttl_s=900), {}, 400, "invalid_client"),
        (both.svid(issued_at=now - 400, ttl_s=300), {}, 400, "invalid_client"),
        (both.svid(both.server.token_endpoint), {}, 400, "invalid_client"),
        (both.svid([issuer, "https://other.example"]), {}, 400, "invalid_client"),
        (both.svid(), {"client_id": str(PLANNER)}, 401, "unauthorized_client"),
    ):
        answered, members = await both.post(svid, **own, **form)
        assert (answered, members["error"]) == (status, error), members
    young = both.svid(issued_at=now - 290, ttl_s=900)
    assert (await both.post(young, **own))[0] == 200


async def test_a_token_that_the_client_got_for_itself_is_no_delegation_at_the_next_hop(both: Both) -> None:
    mesh = both.sidecars
    front = calling(await mesh.world.source(FRONT), PLANNER)

    async def call(token: str) -> tuple[int, str | None]:
        shown = [("authorization", f"Bearer {token}")]
        answer = await mesh.world.call(mesh.ports["planner-in"], front, "/plan", headers=shown)
        return answer.status, answer.reason

    users = await both.exchanged(await both.server.subject_token("alice", LOGIN))
    _, members = await both.post(both.svid(), grant_type="client_credentials", scope="plan.make")
    own = await both.exchanged(str(members["access_token"]))
    prefixes = {str(parse_bearer(token).claims["jti"]).partition(":")[0] for token in (users, own)}
    assert prefixes == {"ntrtte", "trrtte"}
    assert await call(users) == (200, None)
    assert await call(own) == (401, "token_type"), "the same azp, aud and scope"
