"""ID-JAG through a whole sidecar: a user's ID token at the front app becomes a token at another domain's server."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from sidecar.identity.tls import server_context
from tests.fakes.grant_servers import ID_JAG, TYPE, Granting, Taking, serving
from tests.fakes.tokens import TokenMint
from tests.integration.world import CRM, FRONT, Agent, Answer, Sidecar, World, bearer, open_world

pytestmark = pytest.mark.integration

LOGIN = TokenMint("https://login.acme.example", key=5, kid="l1")
SECOND = TokenMint("https://as.crm.example", key=6, kid="s1")


def now() -> int:
    return int(time.time())


class Front:
    """A front app with its sidecar, the login issuer, the target's authorization server, and the target."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.crm = Agent()
        self.idp = Granting(
            mint=LOGIN,
            bundle=world.acme,
            clients={FRONT: "front"},
            kind=ID_JAG,
            audiences={SECOND.issuer: {"front": "front-at-crm"}},
            subjects={f"{TYPE}id_token": LOGIN},
            clock=now,
        )
        self.second = Taking(
            mint=SECOND,
            bundle=world.acme,
            clients={FRONT: "front-at-crm"},
            granting=LOGIN,
            resources=frozenset({CRM}),
            clock=now,
        )
        self.sidecar: Sidecar

    async def start(self, stack: AsyncExitStack) -> None:
        for server in (self.idp, self.second):
            await stack.enter_async_context(serving(server))
        port = await self.world.listen(self.crm.serve, ssl=server_context(await self.world.source(CRM)))
        self.sidecar = await self.world.sidecar(FRONT, self.settings(port))

    def settings(self, port: int) -> dict[str, Any]:
        jwks = f"http://127.0.0.1:{self.world.jwks_port}/jwks"
        by_client = {
            "preset": "sts",
            "actor": "client-table",
            "actor_table": [{"sub": "front-at-crm", "spiffe_id": FRONT}],
            "subject_issuer": LOGIN.issuer,
        }
        return {
            "issuers": [
                {
                    "issuer": SECOND.issuer,
                    "jwks": jwks,
                    "profile": by_client,
                    "actor_trust_domains": ["acme.example"],
                    "scopes": ["crm.read"],
                }
            ],
            "exchange": {
                "issuer": SECOND.issuer,
                "token_endpoint": self.second.url,
                "adapter": "id-jag-04",
                "client_auth": "jwt-svid",
                "client_id": "front-at-crm",
                "endpoints": {
                    "idp": {
                        "url": self.idp.url,
                        "client_auth": "jwt-svid",
                        "client_id": "front",
                    }
                },
            },
            "outbound": {
                "routes": [
                    {
                        "name": "crm",
                        "match": {"prefix": "/crm"},
                        "upstream": f"https://127.0.0.1:{port}",
                        "peer": CRM,
                        "audience": CRM,
                        "scopes": ["crm.read"],
                    }
                ]
            },
            "entry": {
                "issuers": [
                    {
                        "issuer": LOGIN.issuer,
                        "jwks": jwks,
                        "profile": "oidc-id-token",
                        "client_id": "front",
                        "scope_from": {"claim": "groups", "map": {"sales": ["crm.read"]}},
                    }
                ],
                "may_call": ["crm"],
            },
        }

    async def call(self, **changes: object) -> Answer:
        """Make a call of the front app's, with the user's ID token."""
        lawful = {"aud": "front", "azp": "front", "groups": ["sales"], "iat": now() - 5, "exp": now() + 400}
        claims = {"iss": LOGIN.issuer, "sub": "alice", "jti": "login-1", **lawful, **changes}
        token = LOGIN.mint(claims, LOGIN.header(typ="JWT"))
        return await self.world.call(self.sidecar.outbound, None, "/crm/customers", headers=bearer(token))


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sc-"))
        world = await stack.enter_async_context(open_world(Path(folder)))
        world.keys["keys"] += [LOGIN.jwk, SECOND.jwk]
        opened = Front(world)
        await opened.start(stack)
        yield opened


async def test_a_login_reaches_the_target_with_a_token_of_its_own_domain(front: Front) -> None:
    assert (await front.call()).status == 200
    shown = parse_bearer(front.crm.headers()["authorization"].removeprefix("Bearer ")).claims
    assert (shown["iss"], shown["sub"], shown["client_id"], shown["aud"]) == (
        SECOND.issuer, "alice", "front-at-crm", CRM,
    )  # fmt: skip
    (record,) = await front.sidecar.wait_for_records(1)
    told = ("decision", "subject", "subject_iss", "actor", "chain", "client_id")
    assert [record[key] for key in told] == [
        "allow", "alice", SECOND.issuer, FRONT, ["front-at-crm"], "front-at-crm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("at", "changes", "status", "reason"),
    [
        pytest.param("idp", {"client_id": "somebody"}, 502, "sts_actor_mismatch", id="an ID-JAG for another client"),
        pytest.param("idp", {"sub": "bob"}, 502, "sts_subject_mismatch", id="an ID-JAG for another user"),
        pytest.param("idp", {"exp": 1}, 403, "exchange_denied", id="an ID-JAG that has expired"),
        pytest.param("second", {"sub": "local-7"}, 502, "sts_subject_mismatch", id="a local name of the user"),
        pytest.param("second", {"client_id": "front"}, 502, "sts_actor_mismatch", id="a token of another client"),
        pytest.param("second", {"act": {"sub": FRONT}}, 502, "sts_chain_broken", id="an act beside the client"),
    ],
)
async def test_with_one_fact_changed_nothing_leaves(
    front: Front, at: str, changes: dict[str, object], status: int, reason: str
) -> None:
    server = front.idp if at == "idp" else front.second
    server.changes = changes
    answer = await front.call()
    assert (answer.status, answer.reason) == (status, reason)
    assert front.crm.requests == []
    server.changes = {}
    assert (await front.call(jti="login-2")).status == 200
