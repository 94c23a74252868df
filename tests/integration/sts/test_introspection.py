"""A resource server asks about the tokens that it is shown, over mTLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from delegation_core.revocation import Kind
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.keys import KeyRing, SigningKey
from sidecar.sts.rate import RateSettings
from sidecar.sts.revocations import Register
from tests.fakes.sts import CRM_URL, FORM, STRANGER, Mesh, small_policy
from tests.fakes.sts_server import Answer, RunningSts, running_sts, token_request
from tests.fakes.tokens import CRM, ISSUER, PLANNER, WRITER
from tests.sts.test_revocations import order, register

pytestmark = pytest.mark.integration

ON: Final = RateSettings()
INACTIVE: Final = b'{"active":false}'


async def ask(sts: RunningSts, token: str, client: SpiffeId = WRITER, *fields: str, **more: object) -> Answer:
    return await sts.send(token_request({"token": token, **more}, *fields, target="/introspect"), client)


def introspections(sts: RunningSts) -> list[dict[str, Any]]:
    return [dict(fields) for event, fields in sts.mesh.log.events if event == "token.introspected"]


def mesh() -> Mesh:
    made = Mesh(start=int(time.time()))
    register(made)
    return made


async def test_the_audience_of_a_token_learns_its_claims_with_the_whole_chain() -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        answer = await ask(sts, sts.mesh.own())
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.members == {**sts.mesh.own_claims(), "active": True, "token_type": "Bearer"}
    assert answer.members["act"]["act"] == {"sub": "spiffe://acme.example/agent/front"}
    (record,) = introspections(sts)
    assert (record["decision"], record["reason"], record["peer"]) == ("allow", "ok", WRITER)
    assert (record["subject"], record["jti_in"]) == ("alice", "jti-2")


async def test_an_issued_token_is_active_at_its_audience_by_each_of_its_names_and_at_nobody_else() -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        for audience in (CRM, CRM_URL):
            issued = await sts.send(token_request(sts.mesh.exchange_form(audience=audience)))
            token = issued.members["access_token"]
            assert (await ask(sts, token, CRM)).members["active"] is True
            for other in (WRITER, PLANNER, STRANGER):
                assert (await ask(sts, token, other)).body == INACTIVE


OTHER_KEY: Final = SigningKey.generate()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        pytest.param(lambda m: m.own(aud=PLANNER), "wrong_audience", id="another's"),
        pytest.param(lambda m: m.own(aud=[WRITER, PLANNER]), "wrong_audience", id="two audiences"),
        pytest.param(lambda m: m.own(exp=m.start), "token_expired", id="expired this second"),
        pytest.param(lambda m: m.own(exp=m.start - 600), "token_expired", id="expired long ago"),
        pytest.param(lambda m: m.login(), "wrong_issuer", id="a login"),
        pytest.param(lambda m: m.own(iss="https://other.example"), "wrong_issuer", id="of another issuer"),
        pytest.param(lambda m: OTHER_KEY.sign(m.own_claims()), "unknown_key", id="by an unknown key"),
        pytest.param(lambda m: m.own()[:-8] + "AAAAAAAA", "bad_signature", id="with another signature"),
        pytest.param(lambda m: m.svid(WRITER), "malformed_token", id="an SVID"),
        pytest.param(lambda _: "rubbish", "malformed_token", id="rubbish"),
        pytest.param(lambda _: "x" * 20_000, "token_too_large", id="too much"),
    ],
)
async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(made: Callable[[Mesh], str], reason: str) -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        token = made(sts.mesh)
        answer = await ask(sts, token)
        plain = await ask(sts, "another-rubbish")
        assert (answer.status, answer.body, answer.headers) == (
            200,
            INACTIVE,
            {**plain.headers, "date": answer.headers["date"]},
        )
        assert (await ask(sts, sts.mesh.own())).members["active"] is True
        record = introspections(sts)[0]
    assert (record["decision"], record["reason"]) == ("deny", reason)
    assert "subject" not in record
    assert token not in str(sts.mesh.log.events)


async def test_what_is_revoked_is_inactive_and_so_is_everything_for_a_client_that_is_stopped() -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        stops = sts.mesh.service.register
        assert stops is not None
        token = sts.mesh.own()
        assert (await ask(sts, token)).members["active"] is True
        await stops.add(order(Kind.TXN, "txn-1", until=int(time.time()) + 60))
        assert (await ask(sts, token)).body == INACTIVE
        assert (await ask(sts, sts.mesh.own(txn="txn-2"))).members["active"] is True
        await stops.add(order(Kind.ACTOR, str(WRITER), until=int(time.time()) + 60))
        assert (await ask(sts, sts.mesh.own(txn="txn-2"))).body == INACTIVE
    assert [one["reason"] for one in introspections(sts)] == ["ok", "revoked", "ok", "revoked"]


async def test_a_replica_that_may_lack_revocations_says_neither_yes_nor_no() -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        stops = sts.mesh.service.register
        assert isinstance(stops, Register)
        stops.trouble = "the file cannot be read"
        for token in (sts.mesh.own(), sts.mesh.own(aud=PLANNER), "rubbish"):
            answer = await ask(sts, token)
            assert (answer.status, answer.headers["delegation-reason"]) == (503, "not_ready")


async def test_a_retired_key_still_proves_a_token_and_one_that_is_gone_does_not() -> None:
    old, new = SigningKey.generate(), SigningKey.generate()
    async with running_sts(mesh(), introspection=ON) as sts:
        token = old.sign(sts.mesh.own_claims())
        sts.mesh.service.keys = KeyRing(new, retired=(old,))
        assert (await ask(sts, token)).members["active"] is True
        sts.mesh.service.keys = KeyRing(None, announced=(old,))
        assert (await ask(sts, token)).members["active"] is True
        sts.mesh.service.keys = KeyRing(new)
        assert (await ask(sts, token)).body == INACTIVE


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        pytest.param(token_request(b"token=", target="/introspect"), 400, id="none"),
        pytest.param(token_request(b"token=a&token=b", target="/introspect"), 400, id="two"),
        pytest.param(
            token_request(b'{"token":"a"}', "Content-Type: application/json", target="/introspect"), 400, id="JSON"
        ),
        pytest.param(token_request(b"token=a", target="/introspect?token=b"), 400, id="a query"),
        pytest.param(b"GET /introspect?token=a HTTP/1.1\r\nHost: sts\r\n\r\n", 405, id="GET"),
    ],
)
async def test_what_is_no_question_is_refused(request_: bytes, status: int) -> None:
    async with running_sts(mesh(), introspection=ON) as sts:
        answer = await sts.send(request_)
        assert (answer.status, answer.members["error"]) == (status, "invalid_request")
        assert (await ask(sts, sts.mesh.own(), WRITER, f"Content-Type: {FORM}", token_type_hint="any")).status == 200


async def test_one_client_that_asks_too_often_is_told_so_and_another_is_answered() -> None:
    async with running_sts(mesh(), introspection=RateSettings(burst=2, per_s=1)) as sts:
        answers = [await ask(sts, "rubbish") for _ in range(3)]
        assert [one.status for one in answers] == [200, 200, 503]
        assert (answers[2].headers["delegation-reason"], answers[2].headers["retry-after"]) == ("overloaded", "1")
        assert (await ask(sts, "rubbish", PLANNER)).body == INACTIVE
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200  # exchanges count apart
        metrics = (await sts.probe("/metrics")).body.decode()
    assert 'sidecar_introspections_total{result="inactive"} 3.0' in metrics


async def test_it_is_off_by_default() -> None:
    async with running_sts(mesh()) as sts:
        assert (await ask(sts, sts.mesh.own())).status == 404


async def test_an_issuer_with_a_path_has_it_under_its_path() -> None:
    issuer = ISSUER + "/t1"
    made = Mesh(policy=small_policy(issuer=issuer), start=int(time.time()))
    async with running_sts(made, introspection=ON) as sts:
        metadata = (await sts.get("/.well-known/oauth-authorization-server/t1")).members
        assert metadata["introspection_endpoint"] == f"{issuer}/introspect"
        answer = await sts.send(token_request({"token": made.own(iss=issuer)}, target="/t1/introspect"))
    assert answer.members["active"] is True
