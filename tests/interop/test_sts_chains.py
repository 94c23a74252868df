"""Real sidecars over token services that are not ours: three hops where a server nests ``act``, refusals elsewhere."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from delegation_core.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    ClientCredentialsRequest,
    ExchangeRequest,
    client_credentials_form,
    exchange_form,
)
from sidecar.exchange import adapters
from sidecar.exchange.adapters.adapter import Adapter, Capabilities, ClientAuth, Step, Steps, Wanted
from sidecar_dev.certificates import key_pem
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.conversations import listening
from tests.fakes.tokens import public_jwk
from tests.integration.mesh import Mesh
from tests.integration.mesh_files import CHAIN_SCOPES
from tests.integration.world import FRONT, PLANNER, WRITER, ok
from tests.interop.sts_servers import launch_spring, launch_zitadel
from tests.interop.sts_servers.launch_keycloak import KeycloakServer
from tests.interop.sts_servers.launchers import LAUNCHERS, Foreign, reason_to_skip
from tests.interop.sts_servers.server import Server
from tests.interop.sts_servers.sidecars import KEY_ID, over

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="session")]

LOGIN: Final = tuple(CHAIN_SCOPES)


async def asked(mesh: Mesh, server: Server, user: str = "alice") -> tuple[int, str | None]:
    """Log a user in, and ask the planner through the front app: status, and reason of a refusal on any hop."""
    answer = await mesh.ask(await server.subject_token(user, LOGIN))
    return answer.status, answer.reason or answer.headers.get("x-reason")


@asynccontextmanager
async def meshed(server: Server, **over_it: Any) -> AsyncIterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with over(Path(folder), server, **over_it) as mesh:
            yield mesh


async def three_hops(mesh: Mesh, server: Server) -> None:
    """Let alice ask, and look at what has arrived at the third hop."""
    assert await asked(mesh, server) == (200, None)
    await mesh.sidecars["crm"].wait_for_records(1)
    (arrived,) = [one for one in mesh.records("crm") if one["direction"] == "inbound"]
    assert (arrived["subject"], arrived["subject_iss"], arrived["decision"]) == ("alice", server.issuer, "allow")
    assert arrived["chain"] == [WRITER, PLANNER, FRONT]
    assert arrived["scope"] == ["crm.read"]


@pytest.mark.parametrize("name", ["spring-customized", "zitadel-own"])
async def test_three_hops_over_a_server_that_nests_act(foreign: Foreign, name: str) -> None:
    server = await foreign(name)
    async with meshed(server) as mesh:
        await three_hops(mesh, server)
        for sidecar in ("front", "planner", "writer"):
            (exchanged,) = await mesh.sidecars[sidecar].wait_for_records(1, "token.exchanged")
            assert exchanged["credential"].startswith("client:client-secret-basic:")
        served = len(mesh.agents["crm"].requests)
        (mesh.world.folder / "writer.secret").write_text(server.planner.secret)
        assert await asked(mesh, server) == (502, "sts_error"), "the writer shows the planner's secret"
        assert len(mesh.agents["crm"].requests) == served


async def test_three_hops_over_spring_where_agents_sign_assertions(tmp_path: Path) -> None:
    if reason := reason_to_skip(LAUNCHERS["spring-customized"]):
        pytest.skip(reason)
    known, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    published = json.dumps({"keys": [public_jwk(known, kid=KEY_ID, use="sig", alg="ES256")]}).encode()
    key = tmp_path / "agents.pem"
    key.touch(mode=0o600)
    async with (
        listening(partial(publish, lambda: published)) as port,
        launch_spring.start(tmp_path, customized=True, keys=f"http://127.0.0.1:{port}/") as server,
        meshed(server, key=key) as mesh,
    ):
        key.write_bytes(key_pem(stranger))
        assert await asked(mesh, server) == (502, "sts_error"), "the key is a stranger's"
        key.write_bytes(key_pem(known))
        await three_hops(mesh, server)


async def publish(document: Callable[[], bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request for a JSON document."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ok(document(), b"content-type: application/json", b"connection: close"))
    await writer.drain()
    writer.close()


@asynccontextmanager
async def zitadel_with_bundle(folder: Path, bundle_of: Callable[[], TrustDomainAuthority]) -> AsyncIterator[Server]:
    """Run our main on zitadel's OP with a bundle endpoint."""
    if reason := reason_to_skip(LAUNCHERS["zitadel-own"]):
        pytest.skip(reason)
    bundle = partial(publish, lambda: bundle_of().jwt_bundle())
    async with listening(bundle) as port, launch_zitadel.own(folder, bundle=f"http://127.0.0.1:{port}/") as server:
        yield server


async def test_three_hops_over_zitadels_op_with_jwt_svids_as_actor_tokens(tmp_path: Path) -> None:
    known: list[TrustDomainAuthority] = []
    async with (
        zitadel_with_bundle(tmp_path, lambda: known[-1]) as server,
        meshed(server, options={"actor_token": "jwt-svid"}) as mesh,
    ):
        known.append(TrustDomainAuthority(mesh.world.acme.trust_domain))
        assert await asked(mesh, server) == (403, "exchange_denied"), "the bundle is a stranger's"
        known.append(mesh.world.acme)
        await three_hops(mesh, server)


@dataclass(frozen=True)
class Case:
    """A server, and options of the adapter, with which the first sidecar uses no token: status and reason."""

    server: str
    refused: tuple[int, str]
    options: Mapping[str, str] = field(default_factory=dict)


CAUGHT: Final = {
    "keycloak never looks at the actor token": Case("keycloak", (502, "sts_no_act")),
    "spring ignores the audience": Case("spring", (502, "sts_audience_mismatch")),
    "spring issues without an actor": Case("spring-customized", (502, "sts_no_act"), {"actor_token": "client"}),
    "idpyoidc refuses an actor token": Case("idpyoidc", (403, "exchange_denied"), {"actor_token": "jwt-svid"}),
    "idpyoidc names no audience": Case("idpyoidc", (502, "sts_audience_mismatch"), {"actor_token": "client"}),
}


@pytest.mark.parametrize("case", CAUGHT.values(), ids=CAUGHT)
async def test_a_server_that_does_not_show_the_delegation_is_caught(
    foreign: Foreign, case: Case, tmp_path: Path
) -> None:
    if reason := reason_to_skip(LAUNCHERS[case.server]):
        pytest.skip(reason)
    async with AsyncExitStack() as stack:
        if (
            case.server == "spring"
        ):  # stock, except for the claim without which it can be no login and token service at once
            server = await stack.enter_async_context(launch_spring.start(tmp_path, customized=False, names_client=True))
        else:
            server = await foreign(case.server)
        mesh = await stack.enter_async_context(meshed(server, options=case.options))
        assert await asked(mesh, server) == case.refused
        (refused,) = await mesh.sidecars["front"].wait_for_records(1, "token.exchange_refused")
        assert refused["reason"] == case.refused[1]
        assert mesh.agents["planner"].requests == []


async def test_an_act_that_keycloaks_administrator_writes_is_caught_or_ends_with_its_hop(foreign: Foreign) -> None:
    server = await foreign("keycloak")
    assert isinstance(server, KeycloakServer)
    async with meshed(server) as mesh:
        another = {"sub": "x", "client_id": PLANNER}
        async with server.forging_act(server.entry, another):
            assert await asked(mesh, server) == (502, "sts_actor_mismatch")
        ourselves = {"sub": "x", "client_id": FRONT}
        async with server.forging_act(server.entry, ourselves):
            assert mesh.agents["planner"].requests == []
            assert await asked(mesh, server) == (502, "sts_no_act"), "the second hop's own token names nobody"
            assert len(mesh.agents["planner"].requests) == 1, "the first hop is as good as the administrator's word"
            async with server.forging_act(server.planner, {"sub": "x", "client_id": PLANNER}):
                assert await asked(mesh, server) == (502, "sts_chain_broken"), "the first actor is lost"
        assert mesh.agents["writer"].requests == []


def _id_token(impersonated: str | None) -> Adapter:
    """Return an adapter that asks for ID tokens, the only readable ones of zitadel's example."""

    def exchange(wanted: Wanted) -> Steps:
        own = yield Step(form=client_credentials_form(ClientCredentialsRequest()), shared=True)
        subject = wanted.subject_token
        acting = None if impersonated else own.token(scope=None).access_token
        request = ExchangeRequest(
            subject_token=subject.raw,
            subject_token_type=wanted.subject_token_type,
            actor_token=acting,
            actor_token_type=acting and TOKEN_TYPE_ACCESS_TOKEN,
            requested_token_type=TOKEN_TYPE_ID_TOKEN,
            audience=(wanted.plan.audience,),
            scope=frozenset({"openid", *([f"custom_scope:impersonate:{impersonated}"] if impersonated else [])}),
        )
        answer = yield Step(form=exchange_form(request))
        return answer.token(scope=None, issued_token_type=TOKEN_TYPE_ID_TOKEN, token_type="N_A")

    return Adapter(
        name="id-token",
        capabilities=Capabilities(emits_act=True, nests_act=True, narrows=True, keeps_subject=True),
        client_auth=(ClientAuth.SECRET_BASIC,),
        exchange=exchange,
    )


@pytest.mark.parametrize(
    ("user", "impersonated", "reason"),
    [
        pytest.param("alice", None, "sts_no_act", id="the actor is verified and dropped"),
        pytest.param("bob", "alice", "sts_actor_mismatch", id="the user becomes the actor for another user"),
    ],
)
async def test_zitadels_example_is_caught_even_by_an_adapter_that_reads_its_tokens(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch, user: str, impersonated: str | None, reason: str
) -> None:
    server = await foreign("zitadel-example")
    monkeypatch.setattr(adapters, "BUILT_IN", {"id-token": _id_token(impersonated)})
    audience = server.entry.client_id  # it adds this one to any other
    async with (
        launch_zitadel.with_its_secrets(server) as reached,
        meshed(reached, adapter="id-token", audience=audience) as mesh,
    ):
        assert await asked(mesh, server, user) == (502, reason)
        assert mesh.agents["planner"].requests == []
