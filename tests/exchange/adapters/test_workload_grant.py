"""The adapter, and a counterpart that refuses what the draft says to refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from delegation_core.errors import Reason, SidecarError
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Plan, plan_own
from delegation_core.policy import Policy
from sidecar.exchange.adapters.jwt_grant import JWT_BEARER
from sidecar.exchange.adapters.workload_grant import ADAPTER
from tests.config.documents import changed, example, problems
from tests.exchange.adapters.steps import answered, ended, first, wanted
from tests.exchange.world import World, plan, policy, reason_of, route, running
from tests.fakes.lying_sts import Form, LyingSts, Reply
from tests.fakes.tokens import ABSENT, CRM, NOW, PLANNER, WRITER, encode, from_base64url
from tests.fakes.tokens import changed as altered


def asked() -> tuple[Plan, Policy]:
    own = replace(route(), token="self")
    allowed = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    return plan_own(own, policy=allowed, now=NOW), allowed


class Server:
    """Issues tokens for the workload that the grant names, as the draft says; ``changes`` are its lies."""

    def __init__(self, *, needs_jti: bool = False, **changes: object) -> None:
        self.needs_jti = needs_jti
        self.changes = changes

    def __call__(self, sts: LyingSts, form: Form) -> Reply:
        grant = json.loads(from_base64url(form["assertion"].split(".")[1]))
        refusal = self.refuses(form, grant, sts.mint.issuer)
        if refusal is not None:
            return Reply(status=400, body=encode({"error": refusal}))
        claims: dict[str, object] = {
            "iss": sts.mint.issuer, "sub": grant["sub"], "client_id": grant["sub"], "aud": form["resource"],
            "scope": form["scope"], "iat": sts.clock(), "exp": sts.clock() + 300, "jti": f"t-{len(sts.forms)}",
        }  # fmt: skip
        token = sts.mint.mint(altered(claims, self.changes))
        return Reply(body=encode({"access_token": token, "token_type": "Bearer", "expires_in": 300}))

    def refuses(self, form: Form, grant: dict[str, object], issuer: str) -> str | None:
        if form["grant_type"] != JWT_BEARER:
            return "unsupported_grant_type"
        if "client_assertion" in form or issuer not in str(grant.get("aud")):
            return "invalid_request"
        return "invalid_grant" if self.needs_jti and "jti" not in grant else None


def test_the_golden_request() -> None:
    step = first(ADAPTER.own(wanted(ADAPTER, asked()[0]))) if ADAPTER.own else None
    assert step is not None
    assert step.form == (
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", "actor.token"),
        ("resource", str(CRM)),
        ("scope", "crm.read"),
    )
    assert (step.authenticate, step.shared, step.once) == (False, False, False)


async def test_a_workload_gets_a_token_of_its_own_by_its_jwt_svid() -> None:
    planned, by = asked()
    async with running(World(adapter=ADAPTER.name)) as world:
        world.sts.behaviour = Server()
        issued = await world.exchange.exchange(planned, by)
        assert (issued.permit.token.subject, issued.permit.token.chain) == (str(WRITER), None)


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        pytest.param(Server(needs_jti=True), Reason.EXCHANGE_DENIED, id="a server that insists on jti"),
        pytest.param(Server(sub=PLANNER), Reason.STS_SUBJECT_MISMATCH, id="another workload's token"),
        pytest.param(Server(client_id=ABSENT), Reason.STS_BAD_RESPONSE, id="no client"),
        pytest.param(Server(client_id="x"), Reason.STS_SUBJECT_MISMATCH, id="another client"),
        pytest.param(Server(act={"sub": WRITER}), Reason.STS_CHAIN_BROKEN, id="an actor"),
        pytest.param(Server(aud=PLANNER), Reason.STS_AUDIENCE_MISMATCH, id="another target"),
        pytest.param(Server(scope="crm.read docs.read"), Reason.STS_SCOPE_WIDENED, id="a wider scope"),
        pytest.param(Server(exp=NOW + 90_000), Reason.STS_LIFETIME, id="a long life"),
        pytest.param(Server(auth_time=NOW), Reason.STS_SUBJECT_MISMATCH, id="a user's login"),
    ],
)
async def test_a_token_that_is_not_ours_alone_is_refused(server: Server, reason: Reason) -> None:
    planned, by = asked()
    async with running(World(adapter=ADAPTER.name)) as world:
        world.sts.behaviour = server
        assert await reason_of(world, planned, by) is reason


async def test_no_token_is_asked_for_a_user() -> None:
    async with running(World(adapter=ADAPTER.name)) as world:
        assert await reason_of(world, plan()) is Reason.STS_ERROR
        assert world.sts.forms == []


def test_an_answer_to_an_exchange_is_none_to_a_grant() -> None:
    assert ADAPTER.own is not None
    bare = wanted(ADAPTER, asked()[0])
    assert ended(ADAPTER.own(bare), answered(issued_token_type=None)).access_token == "a.b.c"
    with pytest.raises(SidecarError):
        ended(ADAPTER.own(bare), answered())


def test_settings_offer_it_to_routes_of_the_workload_alone(tmp_path: Path) -> None:
    document = changed(example("agent"), ("exchange.adapter", ADAPTER.name))
    (problem, *_) = problems(tmp_path, document)
    assert (problem.field, problem.wrong) == (
        "outbound.routes[0].exchange", f"uses {ADAPTER.name}, which issues no tokens for users",
    )  # fmt: skip
    own = changed(example("own-authority"), ("exchange.adapter", ADAPTER.name))
    assert all(ADAPTER.name not in one.wrong for one in problems(tmp_path, own) if "token" in one.field)
