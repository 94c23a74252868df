"""Two trust domains, two issuers: the shipped example with a token above each ceiling, beside one below."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from delegation_core.spiffe_id import SpiffeId
from tests.config.documents import ABSENT, changed, example
from tests.fakes.tokens import private_key, public_jwk
from tests.integration.world import CRM, ISSUER, PLANNER, WRITER, Answer, Sidecar, World, bearer, calling, mint, ok

pytestmark = pytest.mark.integration

BUYER: Final = SpiffeId("spiffe://partner.example/agent/buyer")
SELLER: Final = SpiffeId("spiffe://partner.example/agent/seller")
PARTNERS: Final = "https://sts.partner.example"
PARTNERS_ID: Final = "https://id.partner.example"
MINE, THEIRS = 0, 1  # the issuer whose key signs; both name theirs k0

Claims = dict[str, object]


def from_acme(actor: SpiffeId, *, scope: str = "crm.read", act: object = None, **claims: object) -> Claims:
    """Return a token of our own token service, for a chain from our own users."""
    chain = act or {"sub": actor, "act": {"sub": PLANNER}}
    return {"aud": CRM, "client_id": actor, "scope": scope, "act": chain, **claims}


def from_partner(actor: SpiffeId, *, act_iss: str | None = PARTNERS_ID, **claims: object) -> Claims:
    """Return a token of the partner's, which writes actors as ``iss`` and ``sub``."""
    act = {"sub": actor} if act_iss is None else {"iss": act_iss, "sub": actor}
    return {"iss": PARTNERS, **from_acme(actor, act=act), **claims}


class Tool:
    """The tool server of ``config/domains.yaml``, which both organisations call."""

    def __init__(self, world: World, sidecar: Sidecar) -> None:
        self._world = world
        self._sidecar = sidecar

    async def call(self, peer: SpiffeId, request: str, claims: Mapping[str, object], key: int) -> Answer:
        context = calling(await self._world.source(peer), CRM)
        method, target = request.split(" ")
        shown = bearer(mint(claims, key=key))
        return await self._world.call(self._sidecar.inbound, context, target, method=method, headers=shown)


async def started(world: World, *changes: tuple[str, object]) -> Tool:
    theirs = {"keys": [public_jwk(private_key("ES256", THEIRS), kid="k0", use="sig", alg="ES256")]}

    async def serve_keys(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(json.dumps(theirs).encode(), b"content-type: application/json", b"connection: close"))
        await writer.drain()
        writer.close()

    port = await world.listen(serve_keys)
    settings: dict[str, Any] = changed(
        example("domains"),
        ("issuers.0.jwks", f"http://127.0.0.1:{world.jwks_port}/jwks"),
        ("issuers.1.jwks", f"http://127.0.0.1:{port}/jwks"),
        ("issuers.1.tls", ABSENT),
        ("inbound.agent", f"http://127.0.0.1:{world.agent.port}"),
        *changes,
    )
    return Tool(world, await world.sidecar(CRM, settings))


READ, ORDERS, WRITE = "GET /customers/42", "GET /orders", "POST /customers/42"


@pytest.mark.parametrize(
    ("peer", "request_line", "claims", "key"),
    [
        pytest.param(WRITER, READ, from_acme(WRITER), MINE, id="our-own"),
        pytest.param(
            BUYER,
            READ,
            from_acme(BUYER, act={"sub": BUYER, "act": {"sub": WRITER, "act": {"sub": PLANNER}}}),
            MINE,
            id="a-chain-of-ours-across-the-border",
        ),
        pytest.param(WRITER, WRITE, from_acme(WRITER, scope="crm.read crm.write"), MINE, id="at-our-ceiling"),
        pytest.param(BUYER, ORDERS, from_partner(BUYER), THEIRS, id="the-partners-own-at-its-ceiling"),
        pytest.param(
            BUYER,
            ORDERS,
            from_partner(BUYER, act={"iss": PARTNERS_ID, "sub": BUYER, "act": {"sub": "spiffe://other.example/a"}}),
            THEIRS,
            id="earlier-actors-are-evidence-of-any-domain",
        ),
    ],
)
async def test_below_each_ceiling_both_organisations_are_served(
    world: World, peer: SpiffeId, request_line: str, claims: Claims, key: int
) -> None:
    tool = await started(world)
    assert (await tool.call(peer, request_line, claims, key)).status == 200


@pytest.mark.parametrize(
    ("peer", "request_line", "claims", "key", "status", "reason"),
    [
        pytest.param(
            WRITER, ORDERS, from_partner(WRITER), THEIRS, 403, "policy_denied", id="the-partner-vouches-for-our-actor"
        ),
        pytest.param(
            BUYER, READ, from_partner(BUYER), THEIRS, 403, "issuer_not_for_route", id="the-partners-token-on-our-route"
        ),
        pytest.param(
            BUYER, WRITE, from_partner(BUYER), THEIRS, 403, "issuer_not_for_route", id="the-partners-token-to-write"
        ),
        pytest.param(
            BUYER, ORDERS, from_acme(BUYER), MINE, 403, "issuer_not_for_route", id="our-token-on-the-partners-route"
        ),
        pytest.param(
            BUYER,
            ORDERS,
            from_partner(BUYER, scope="crm.read crm.write"),
            THEIRS,
            403,
            "scope_above_ceiling",
            id="above-the-partners-ceiling-though-below-ours",
        ),
        pytest.param(
            WRITER,
            READ,
            from_acme(WRITER, scope="crm.read mail.send"),
            MINE,
            403,
            "scope_above_ceiling",
            id="above-our-ceiling",
        ),
        pytest.param(
            BUYER,
            ORDERS,
            from_partner(BUYER, act_iss=PARTNERS),
            THEIRS,
            403,
            "actor_mismatch",
            id="act-iss-is-the-token-service",
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(BUYER, act_iss=ISSUER), THEIRS, 403, "actor_mismatch", id="act-iss-is-ours"
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(BUYER, act_iss=None), THEIRS, 403, "actor_mismatch", id="act-iss-is-missing"
        ),
        pytest.param(
            BUYER,
            ORDERS,
            from_partner(BUYER, act_iss=f"{PARTNERS_ID}/"),
            THEIRS,
            403,
            "actor_mismatch",
            id="act-iss-is-nearly-right",
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(SELLER), THEIRS, 403, "actor_mismatch", id="another-actor-of-the-domain"
        ),
        pytest.param(
            SELLER, ORDERS, from_partner(SELLER), THEIRS, 403, "policy_denied", id="another-peer-of-the-domain"
        ),
        pytest.param(
            WRITER, READ, from_acme(BUYER), MINE, 403, "actor_mismatch", id="the-partners-actor-from-our-peer"
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(BUYER), MINE, 401, "bad_signature", id="the-partners-name-with-our-key"
        ),
        pytest.param(
            WRITER, READ, from_acme(WRITER), THEIRS, 401, "bad_signature", id="our-name-with-the-partners-key"
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(BUYER, iss=PARTNERS_ID), THEIRS, 401, "wrong_issuer", id="an-issuer-of-actors"
        ),
        pytest.param(
            BUYER, ORDERS, from_partner(BUYER, aud=BUYER), THEIRS, 401, "wrong_audience", id="for-the-partners-workload"
        ),
    ],
)
async def test_above_each_ceiling_nobody_is_served(
    world: World, peer: SpiffeId, request_line: str, claims: Claims, key: int, status: int, reason: str
) -> None:
    tool = await started(world)
    answer = await tool.call(peer, request_line, claims, key)
    assert (answer.status, answer.reason) == (status, reason)
    assert world.agent.requests == []


async def test_on_a_route_of_both_issuers_each_still_speaks_for_its_own_domain_alone(world: World) -> None:
    tool = await started(
        world,
        ("issuers.0.actor_trust_domains", ["acme.example"]),
        ("inbound.routes.0.issuers", [ISSUER, PARTNERS]),
    )
    assert (await tool.call(WRITER, READ, from_acme(WRITER), MINE)).status == 200
    assert (await tool.call(BUYER, READ, from_partner(BUYER), THEIRS)).status == 200
    ours_for_theirs = await tool.call(BUYER, READ, from_acme(BUYER), MINE)
    theirs_for_ours = await tool.call(WRITER, READ, from_partner(WRITER), THEIRS)
    assert (ours_for_theirs.status, ours_for_theirs.reason) == (403, "policy_denied")
    assert (theirs_for_ours.status, theirs_for_ours.reason) == (403, "policy_denied")
    assert len(world.agent.requests) == 2
