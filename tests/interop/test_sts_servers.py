"""Token-exchange servers that we did not write: each starts, names itself, and does at an exchange what is known of it.

They are the counterparts of other tests; here is what each gives, and one thing that it refuses or drops.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN
from tests.interop.sts_servers.launch_keycloak import KeycloakServer
from tests.interop.sts_servers.launchers import LAUNCHERS, Foreign
from tests.interop.sts_servers.server import CRM, PLANNER, WRITER, Client, Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="session"),
]  # the first run builds it

ACTOR = {"actor_token_type": TOKEN_TYPE_ACCESS_TOKEN}
READ = ("crm.read",)


def claims(token: str) -> dict[str, Any]:
    return dict(parse_bearer(token).claims)


async def exchanged(server: Server, client: Client, subject_token: str, **changes: object) -> dict[str, Any]:
    """Exchange as a client that shows its own token as the actor; return the issued token's claims."""
    assert server.actor_token is not None
    shown = {"actor_token": await server.actor_token(client), **ACTOR}
    return claims((await server.exchange(client, subject_token, **{**shown, **changes})).token)


@pytest.mark.parametrize("name", LAUNCHERS)
async def test_it_names_itself_and_refuses_a_client_with_a_wrong_secret(foreign: Foreign, name: str) -> None:
    server = await foreign(name)
    told = await server.read(server.metadata)
    assert (told["issuer"], told["token_endpoint"], told["jwks_uri"]) == (
        server.issuer,
        server.token_endpoint,
        server.jwks,
    )
    assert (await server.read(server.jwks))["keys"]
    first = await server.subject_token("alice", server.scopes[:1])
    assert claims(first)["iss"] == server.issuer
    form = {"subject_token": first, "subject_token_type": server.subject_token_type}
    form["grant_type"] = "urn:ietf:params:oauth:grant-type:token-exchange"
    refused = await server.ask(server.planner, form, secret="wrong")
    assert refused.status == 401, refused


async def test_idpyoidc_narrows_scope_and_refuses_every_actor(foreign: Foreign) -> None:
    server = await foreign("idpyoidc")
    first = await server.subject_token("alice", ("crm.read", "crm.write"))
    narrowed = await server.exchange(server.planner, first, scope="crm.read", audience=WRITER)
    assert claims(narrowed.token)["scope"] == "crm.read"
    assert "act" not in claims(narrowed.token)
    wider = await server.exchange(server.planner, narrowed.token, scope="crm.write")
    assert (wider.status, wider.error) == (400, "invalid_scope")
    actor = await server.exchange(server.planner, first, actor_token=first, **ACTOR)
    assert (actor.status, actor.error) == (400, "invalid_request")
    unknown = await server.exchange(server.planner, first, audience="spiffe://acme.example/unknown")
    assert (unknown.status, unknown.error) == (400, "invalid_target")


async def test_zitadels_example_verifies_the_actor_and_then_drops_it(foreign: Foreign) -> None:
    server = await foreign("zitadel-example")
    first = await server.subject_token("alice", ("openid",))
    issued = await exchanged(server, server.planner, first, scope="openid")
    assert issued["sub"] == "alice"
    assert "act" not in issued
    garbage = await server.exchange(server.planner, first, actor_token="garbage", **ACTOR)
    assert (garbage.status, garbage.error) == (400, "invalid_request")


async def test_zitadels_example_writes_an_act_only_where_the_subject_changes(foreign: Foreign) -> None:
    server = await foreign("zitadel-example")
    first = await server.subject_token("bob", ("openid",))  # an administrator
    issued = await server.exchange(server.planner, first, scope="openid custom_scope:impersonate:alice")
    assert (claims(issued.token)["sub"], claims(issued.token)["act"]) == ("alice", {"sub": "bob"})
    alices = await server.subject_token("alice", ("openid",))
    refused = await server.exchange(server.planner, alices, scope="openid custom_scope:impersonate:bob")
    assert refused.status == 500, "a refusal by its policy is a server_error"


async def test_our_main_on_zitadels_op_nests_act_and_refuses_another_clients_actor_token(foreign: Foreign) -> None:
    server = await foreign("zitadel-own")
    first = await server.subject_token("alice", ("crm.read", "crm.write"))
    hop1 = await server.exchange(
        server.planner, first, actor_token=await server.own_token(server.planner), audience=WRITER,
        scope="crm.read", **ACTOR,
    )  # fmt: skip
    shown = claims(hop1.token)
    assert (shown["sub"], shown["aud"], shown["scope"]) == ("alice", [WRITER], "crm.read")
    assert shown["act"] == {"sub": PLANNER}
    assert shown["exp"] <= claims(first)["exp"]
    hop2 = await exchanged(server, server.writer, hop1.token, audience=CRM)
    assert (hop2["sub"], hop2["scope"]) == ("alice", "crm.read")
    assert hop2["act"] == {"sub": WRITER, "act": {"sub": PLANNER}}
    actor = {"actor_token": await server.own_token(server.planner), **ACTOR}
    for changed, error in (
        ({}, "invalid_request"),  # the planner's token, shown by the writer
        ({"actor_token": await server.own_token(server.writer), "scope": "crm.write"}, "invalid_scope"),
        ({"actor_token": await server.own_token(server.writer), "audience": None}, "invalid_target"),
        ({"actor_token": None, "actor_token_type": None}, "invalid_request"),
    ):
        refused = await server.exchange(server.writer, hop1.token, **{"audience": CRM, **actor, **changed})
        assert (refused.status, refused.error) == (400, error)


async def test_our_main_on_zitadels_op_widens_and_mixes_actors_where_it_is_not_strict(foreign: Foreign) -> None:
    server = await foreign("zitadel-own-loose")
    first = await server.subject_token("alice", READ)
    planners = await server.own_token(server.planner)
    issued = await exchanged(server, server.writer, first, actor_token=planners, scope="crm.read crm.write")
    assert (issued["act"], issued["scope"]) == ({"sub": PLANNER}, "crm.read crm.write")


async def test_spring_nests_act_and_ignores_audience_and_widens_and_drops_chains(foreign: Foreign) -> None:
    server = await foreign("spring")
    first = await server.subject_token("alice", READ)
    hop1 = await server.exchange(
        server.planner, first, actor_token=await server.own_token(server.planner), audience=WRITER, **ACTOR
    )
    shown = claims(hop1.token)
    assert (shown["sub"], shown["aud"], shown["scope"]) == ("alice", PLANNER, ["crm.read"])
    assert shown["act"] == {"iss": server.issuer, "sub": PLANNER}
    hop2 = await exchanged(server, server.writer, hop1.token)
    assert hop2["act"] == {"iss": server.issuer, "sub": WRITER, "act": shown["act"]}
    dropped = await server.exchange(server.writer, hop1.token)
    assert "act" not in claims(dropped.token), "no actor: the whole chain is gone"
    wider = await exchanged(server, server.writer, hop1.token, scope="crm.write")
    assert wider["scope"] == ["crm.write"]
    mixed = await exchanged(server, server.writer, first, actor_token=await server.own_token(server.planner))
    assert mixed["act"]["sub"] == PLANNER, "another client's actor token is taken"
    garbage = await server.exchange(server.planner, first, actor_token="garbage", **ACTOR)
    assert (garbage.status, garbage.error) == (400, "invalid_grant")


async def test_spring_customized_issues_for_the_asked_audience_and_no_longer_than_the_subject_token(
    foreign: Foreign,
) -> None:
    server = await foreign("spring-customized")
    first = await server.subject_token("alice", READ)
    await asyncio.sleep(1.1)  # then a full life would end a second later
    hop1 = await exchanged(server, server.planner, first, audience=WRITER)
    assert (hop1["aud"], hop1["exp"]) == (WRITER, claims(first)["exp"])
    unasked = await exchanged(server, server.planner, first)
    assert unasked["aud"] == PLANNER


async def test_keycloak_looks_at_no_actor_token_and_widens_and_keeps_requesters_to_the_audience(
    foreign: Foreign,
) -> None:
    server = await foreign("keycloak")
    first = await server.subject_token("alice", READ)
    assert PLANNER in claims(first)["aud"]
    for actor in ({"actor_token": await server.own_token(server.planner), **ACTOR}, {"actor_token": "garbage"}, {}):
        issued = claims(
            (await server.exchange(server.planner, first, audience=WRITER, scope="crm.read", **actor)).token
        )
        assert (issued["sub"], issued["aud"], issued["azp"]) == (claims(first)["sub"], WRITER, PLANNER)
        assert "act" not in issued
    wider = await server.exchange(server.planner, first, scope="crm.write")
    assert "crm.write" in claims(wider.token)["scope"].split()
    for_crm = await server.exchange(server.planner, first, audience=CRM, scope="crm.read")
    again = await server.exchange(server.writer, for_crm.token)
    assert (again.status, again.error) == (403, "access_denied")
    unknown = await server.exchange(server.planner, first, audience="nobody")
    assert (unknown.status, unknown.error) == (400, "invalid_client")


async def test_keycloaks_administrator_can_write_any_act_and_the_next_hop_loses_it(foreign: Foreign) -> None:
    server = await foreign("keycloak")
    assert isinstance(server, KeycloakServer)
    first = await server.subject_token("alice", READ)
    async with server.forging_act(server.planner, {"sub": CRM}):
        hop1 = await server.exchange(server.planner, first, audience=WRITER, scope="crm.read")
        assert claims(hop1.token)["act"] == {"sub": CRM}
        assert claims(await server.own_token(server.planner))["act"] == {"sub": CRM}, "a token without any user"
        hop2 = await server.exchange(server.writer, hop1.token, audience=CRM, scope="crm.read")
        assert "act" not in claims(hop2.token)
