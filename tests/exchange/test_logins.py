"""Every lie of a token service, told to a login by either adapter: nothing wrong gives a grant, nothing is told on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.login import plan_login
from sidecar.exchange.cache import Issued
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.failover import Unsent
from sidecar.exchange.sts_settings import EndpointSettings
from sidecar.identity.endpoint import Endpoint
from tests.exchange.world import World, running
from tests.fakes.lies import CONTENT_LIES, EVIL, PRIOR, claims, header, members
from tests.fakes.login_counterparts import LyingUserServer, allowing, log_in
from tests.fakes.lying_sts import SECRET, Behaviour
from tests.fakes.tokens import ABSENT, ISSUER, NOW, WRITER

# True in a login: nobody knows beforehand who logs in, nothing came before, and the entry says how long it may live.
TRUE_HERE: Final = frozenset(
    {
        "chain dropped", "other sub", "sub in another case", "other transaction", "no transaction", "other parent",
        "no original subject", "other original subject", "longer exp", "no issued token type",
        "the subject token", "the subject token's jti",
    }
)  # fmt: skip
OF_A_LOGIN: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "the subject is the client": (claims(sub="front-app", client_id="front-app"), Reason.STS_SUBJECT_MISMATCH),
    "the subject is a workload": (claims(sub=EVIL), Reason.STS_SUBJECT_MISMATCH),
    "an actor before us": (claims(act={"sub": str(WRITER), "act": PRIOR}), Reason.STS_CHAIN_BROKEN),
    "no scope": (claims(scope=ABSENT), Reason.INSUFFICIENT_SCOPE),
    "an hour": (claims(exp=NOW + 3600), Reason.STS_LIFETIME),
    "an ID token beside it": (header(typ="JWT"), Reason.STS_TOKEN_TYPE),
    "an issued token type": (members(issued_token_type="urn:x"), Reason.STS_BAD_RESPONSE),
}


def world_of(adapter: str, **settings: Any) -> World:
    auth = ClientAuthSettings(audience=ISSUER)
    if adapter == "obo-draft-02":
        settings["authorization_endpoint"] = "https://login.example/a"
    else:
        endpoint = EndpointSettings(endpoint=Endpoint(url="http://127.0.0.1/a"), client_auth=auth)
        settings["endpoints"] = {"agent_authorization": endpoint}
    return World(sts=LyingUserServer(), adapter=adapter, **settings)


ADAPTERS = ["obo-draft-02", "agent-grant-draft"]
LIES: Mapping[str, tuple[Behaviour, Reason]] = {
    **{name: lie for name, lie in CONTENT_LIES.items() if name not in TRUE_HERE},
    **dict.fromkeys(("issued an id token", "issued a refresh token"), OF_A_LOGIN["an issued token type"]),
    **OF_A_LOGIN,
}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_gives_no_grant_and_nothing_of_it_is_told(lie: Behaviour, reason: Reason, adapter: str) -> None:
    async with running(world_of(adapter)) as world:
        world.sts.behaviour = lie
        assert await reason_of_login(world) is reason
        assert len(world.sts.forms) == 1
        (record,) = await world.records()
        assert (record["event"], record["reason"], record["subject"]) == ("token.exchange_refused", reason, None)
        assert record["adapter"] == adapter
        assert SECRET.encode() not in world.sink.written
        assert world.metrics.exchanges == {(ISSUER, reason): 1}
        assert len(world.exchange.tokens) == 0


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", sorted(TRUE_HERE - {"the subject token"}))
async def test_what_only_an_exchange_could_keep_is_no_lie(name: str, adapter: str) -> None:
    async with running(world_of(adapter)) as world:
        world.sts.behaviour = CONTENT_LIES[name][0]
        assert isinstance(await log_in(world), Issued)


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_neither_a_code_nor_a_question_to_the_user_is_sent_twice(adapter: str) -> None:
    async with running(world_of(adapter, retries=3)) as world:
        world.sts.errors = [Unavailable(Reason.STS_UNAVAILABLE)]
        assert await reason_of_login(world) is Reason.STS_UNAVAILABLE
        assert len(world.sts.authorizations) == 1


async def test_a_code_does_not_leave_without_an_identity_and_can_leave_later() -> None:
    async with running(world_of("obo-draft-02")) as world:
        by = allowing()
        logins, plan = world.exchange.logins, plan_login("crm", policy=by)
        begun = await logins.begin(plan, redirect_uri="https://app.example/back", reason="r")
        world.source.become(None)
        with pytest.raises(Unsent) as caught:
            await logins.complete(begun, "c0de", plan=plan, policy=by)
        assert (caught.value.reason, world.sts.forms) == (Reason.NOT_READY, [])
        world.source.become(WRITER)
        assert isinstance(await logins.complete(begun, "c0de", plan=plan, policy=by), Issued)


async def test_a_grant_is_kept_for_calls_and_proven_again_when_it_is_gone() -> None:
    async with running(world_of("obo-draft-02")) as world:
        issued = await log_in(world)
        assert isinstance(issued, Issued)
        plan, by = issued.permit.plan, allowing()
        kept = world.exchange.cached(plan, policy=by, now=NOW)
        assert kept is not None
        assert (kept.permit, kept.refresh_at) == (issued.permit, kept.usable_until)
        world.exchange.invalidate()
        assert world.exchange.cached(plan, policy=by, now=NOW) is None
        again = await world.exchange.exchange(plan, by)
        assert (again.permit.token.raw, len(world.sts.forms)) == (issued.permit.token.raw, 1)
        assert world.exchange.cached(plan, policy=by, now=NOW) is again
        world.source.become(None)
        with pytest.raises(SidecarError) as caught:
            await world.exchange.exchange(plan, by)
        assert caught.value.reason is Reason.NOT_READY


async def reason_of_login(world: World) -> Reason:
    with pytest.raises(SidecarError) as caught:
        await log_in(world)
    return caught.value.reason
