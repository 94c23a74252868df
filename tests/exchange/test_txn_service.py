"""The transaction token service: asked once where a chain begins, and distrusted like any token service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from delegation_core.bearer import parse_bearer
from delegation_core.decide import decide_entry
from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.plan import Plan, plan_outbound, plan_own
from delegation_core.policy import Policy
from sidecar.exchange.adapters.adapter import ClientAuth
from sidecar.exchange.client_auth import ClientAuthSettings
from sidecar.exchange.txn_service import TxnTokenService, TxnTokenSettings
from sidecar.identity.endpoint import EndpointError, Trouble
from tests.exchange.world import LOGIN, World, plan, policy, reason_of, route, running
from tests.fakes.lies import claims, refusal, reply
from tests.fakes.lying_sts import SECRET, Behaviour, Form, LyingSts, Reply
from tests.fakes.tokens import ABSENT, ISSUER, NOW, WRITER, TokenMint, encode
from tests.fakes.txn_tokens import DOMAIN, SOURCE, TTS, TXN_TOKEN, Tts, txn_answer

PAIR: Final = {"format": "iss_sub", "iss": LOGIN.issuer, "sub": "user-4711"}


def carrying(by: Policy | None = None) -> Policy:
    """Return a policy whose one route carries transaction tokens."""
    return replace(by or policy(), outbound=OutboundRoutes([replace(route(), txn_token=True)]))


def login_plan(by: Policy) -> Plan:
    lawful = {"aud": "front", "azp": "front", "groups": ["sales"], "act": ABSENT, "client_id": ABSENT}
    raw = LOGIN.mint(LOGIN.claims(**lawful), LOGIN.header(typ="JWT"))
    delegation = decide_entry(parse_bearer(raw), key=LOGIN.key, policy=by, now=NOW)
    return plan_outbound(delegation, by.outbound.routes[0], policy=by, now=NOW)


def world(
    tts: Tts | None = None, *, client_auth: ClientAuthSettings | None = None, **lawful: object
) -> tuple[World, Tts]:
    tts = tts or Tts()
    made = World(tts=tts, client_auth=client_auth)
    made.sts.behaviour = claims(
        **{"sub_id": PAIR, "act": {"sub": str(WRITER)}, "txn": "txn-9", "exp": NOW + 280, **lawful}
    )
    return made, tts


async def test_a_chain_that_begins_gets_a_transaction_token_of_its_user_and_transaction() -> None:
    one, tts = world()
    by = carrying()
    async with running(one):
        wanted = login_plan(by)
        issued = await one.exchange.exchange(wanted, by)
        assert issued.txn_token is not None
        assert (issued.txn_token.txn, issued.txn_token.subject) == ("txn-9", "user-4711")
        assert tts.forms == [
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": issued.permit.token.raw,
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "requested_token_type": TXN_TOKEN,
                "audience": str(DOMAIN),
                "scope": "crm.read",
            }
        ]
        assert one.exchange.cached(wanted, policy=by, now=NOW) is issued
        await one.exchange.exchange(wanted, by)
        assert len(tts.forms) == 1
        assert issued.usable_until == NOW + 118  # the earlier end of both, less the skew
        (record,) = await one.records()
        assert (record["event"], record["txn"]) == ("token.exchanged", "txn-9")
        assert issued.txn_token.raw.encode() not in one.sink.written


async def test_a_kept_token_counts_the_memory_of_its_transaction_token() -> None:
    kept: dict[str, int] = {}
    for word, behaviour in (("short", txn_answer()), ("long", txn_answer({"tctx": {"note": "x" * 3000}}))):
        one, _ = world(Tts(behaviour=behaviour))
        by = carrying()
        async with running(one):
            await one.exchange.exchange(login_plan(by), by)
            kept[word] = one.exchange.tokens.bytes
    assert kept["long"] >= kept["short"] + 3900  # 3000 bytes in base64


async def test_records_name_the_transaction_where_the_access_token_does_not() -> None:
    one, _ = world(txn=ABSENT)
    by = carrying()
    async with running(one):
        await one.exchange.exchange(login_plan(by), by)
        assert [record["txn"] for record in await one.records()] == ["txn-new"]


async def test_a_token_of_the_workload_s_own_begins_a_transaction_too() -> None:
    own = replace(route(), token="self", txn_token=True)
    by = replace(policy(), outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    one, tts = world()
    one.sts.behaviour = _own_token
    async with running(one):
        issued = await one.exchange.exchange(plan_own(own, policy=by, now=NOW), by)
        assert issued.txn_token is not None
        assert (issued.txn_token.subject, len(tts.forms)) == (str(WRITER), 1)


def _own_token(sts: LyingSts, form: Form) -> Reply:
    target = form.get("audience") or form["resource"]
    lawful = {"sub": str(WRITER), "aud": target, "client_id": str(WRITER), "scope": form["scope"], "act": ABSENT}
    token = sts.mint.mint(sts.mint.claims(**lawful))
    return Reply(body=encode({"access_token": token, "token_type": "Bearer", "expires_in": 290}))


@pytest.mark.parametrize("carries", [True, False])
async def test_nobody_else_asks_for_one(carries: bool) -> None:
    """A request in the middle of a chain passes on what came in; a route that carries none needs none."""
    one, tts = world()
    one.sts.behaviour = claims()
    by = carrying() if carries else policy()
    async with running(one):
        issued = await one.exchange.exchange(plan(by.outbound.routes[0], by=by), by)
        assert (issued.txn_token, tts.forms) == (None, [])


LIES: Final[dict[str, tuple[Behaviour, Reason]]] = {
    "another user": (txn_answer({"sub": "user-1"}), Reason.STS_SUBJECT_MISMATCH),
    "another transaction": (txn_answer({"txn": "txn-8"}), Reason.STS_SUBJECT_MISMATCH),
    "another domain": (txn_answer({"aud": "partner.example"}), Reason.STS_AUDIENCE_MISMATCH),
    "two domains": (txn_answer({"aud": ["acme.example", "partner.example"]}), Reason.STS_AUDIENCE_MISMATCH),
    "another issuer": (txn_answer({"iss": "https://evil.example"}), Reason.STS_ISSUER),
    "expired": (txn_answer({"exp": NOW - 1}), Reason.STS_LIFETIME),
    "not yet valid": (txn_answer({"iat": NOW + 3600}), Reason.STS_LIFETIME),
    "no txn": (txn_answer({"txn": ABSENT}), Reason.STS_BAD_RESPONSE),
    "no req_wl": (txn_answer({"req_wl": ABSENT}), Reason.STS_BAD_RESPONSE),
    "an access token": (txn_answer(header={"typ": "at+jwt"}), Reason.STS_TOKEN_TYPE),
    "forged": (txn_answer(mint=TokenMint(TTS.issuer, kid="t1", key=9)), Reason.STS_SIGNATURE),
    "unknown key": (txn_answer(header={"kid": "nobody's"}), Reason.STS_SIGNATURE),
    "symmetric": (txn_answer(header={"alg": "HS256"}), Reason.STS_SIGNATURE),
    "opaque": (txn_answer(members={"access_token": "SlAV32hkKG"}), Reason.STS_BAD_RESPONSE),
    "a bearer token": (txn_answer(members={"token_type": "Bearer"}), Reason.STS_TOKEN_TYPE),
    "another type": (
        txn_answer(members={"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}),
        Reason.STS_TOKEN_TYPE,
    ),
    "no type": (txn_answer(members={"issued_token_type": ABSENT}), Reason.STS_BAD_RESPONSE),
    "refresh token": (txn_answer(members={"refresh_token": SECRET}), Reason.STS_BAD_RESPONSE),
    "token and error": (txn_answer(members={"error": "invalid_request"}), Reason.STS_BAD_RESPONSE),
    "no token": (txn_answer(members={"access_token": ABSENT}), Reason.STS_BAD_RESPONSE),
    "huge body": (reply(body=b'{"access_token":"' + b"a" * 70_000 + b'"}'), Reason.STS_TOO_LARGE),
    "garbage": (reply(body=b"\x00\xff" + SECRET.encode()), Reason.STS_BAD_RESPONSE),
    "HTML": (reply(body=SECRET.encode(), content_type="text/html"), Reason.STS_BAD_RESPONSE),
    "307": (refusal(307), Reason.STS_REDIRECT),
    "400": (refusal(400, "invalid_target"), Reason.EXCHANGE_DENIED),
    "401": (refusal(401, "invalid_client"), Reason.STS_ERROR),
    "503": (refusal(503), Reason.STS_UNAVAILABLE),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES.keys())
async def test_a_lie_stops_the_call_by_its_name(lie: Behaviour, reason: Reason) -> None:
    one, _ = world(Tts(behaviour=lie))
    by = carrying()
    async with running(one):
        assert await reason_of(one, login_plan(by), by) is reason
        assert one.exchange.cached(login_plan(by), policy=by, now=NOW) is None
        (record,) = await one.records()
        assert (record["event"], record["reason"]) == ("token.exchange_refused", reason)
        assert str(record["detail"]).startswith("the transaction token service: ")
        assert SECRET.encode() not in one.sink.written


async def test_a_failure_of_the_service_costs_the_token_service_no_further_exchange() -> None:
    one, tts = world(Tts(behaviour=refusal(503)))
    by = carrying()
    async with running(one):
        wanted = login_plan(by)
        for _ in range(3):
            assert await reason_of(one, wanted, by) is Reason.STS_UNAVAILABLE
            assert one.exchange.cached(wanted, policy=by, now=NOW) is None  # no call goes without
        assert (len(one.sts.forms), len(tts.forms)) == (1, 3)
        tts.behaviour = txn_answer()
        issued = await one.exchange.exchange(wanted, by)
        assert (len(one.sts.forms), len(tts.forms), len(one.exchange.tokens)) == (1, 4, 1)
        assert issued.txn_token is not None
        assert {form["subject_token"] for form in tts.forms} == {issued.permit.token.raw}
        records = await one.records()
        assert [record["event"] for record in records] == ["token.exchange_refused"] * 3 + ["token.exchanged"]
        assert {record["jti_out"] for record in records} == {issued.permit.token.jti}


async def test_the_record_of_the_token_names_the_credential_that_had_obtained_it_before(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("a long random secret")
    file.chmod(0o600)
    way = ClientAuthSettings(
        method=ClientAuth.SECRET_BASIC,
        audience=ISSUER,
        client_id=str(WRITER),
        credential_file=str(file),
        allow_static=True,
    )
    one, tts = world(Tts(behaviour=refusal(503)), client_auth=way)
    by = carrying()
    async with running(one):
        wanted = login_plan(by)
        assert await reason_of(one, wanted, by) is Reason.STS_UNAVAILABLE
        tts.behaviour = txn_answer()
        await one.exchange.exchange(wanted, by)
        assert len(one.sts.forms) == 1
        refused, exchanged = await one.records()
        assert refused["credential"] == exchanged["credential"]
        assert str(exchanged["credential"]).startswith("client:client-secret-basic:")


async def test_a_refusal_of_the_token_service_keeps_nothing_and_names_no_token() -> None:
    one, tts = world()
    one.sts.behaviour = refusal(503)
    by = carrying()
    async with running(one):
        for _ in range(2):
            assert await reason_of(one, login_plan(by), by) is Reason.STS_UNAVAILABLE
        assert (len(one.sts.forms), tts.forms) == (2, [])
        assert [record["jti_out"] for record in await one.records()] == [None, None]


@pytest.mark.parametrize("ends", ["withdrawn", "expired", "other keys", "another policy"])
async def test_a_token_that_waits_for_its_transaction_token_ends_as_any_kept_one(ends: str) -> None:
    one, tts = world(Tts(behaviour=refusal(503)))
    by = carrying()
    async with running(one):
        wanted = login_plan(by)
        await reason_of(one, wanted, by)
        if ends == "withdrawn":
            one.exchange.invalidate()
        elif ends == "expired":
            one.clock.now = NOW + 279.0
        elif ends == "other keys":
            one.keys._issuers[ISSUER]._generation += 1
        else:
            by = replace(by, number=2)
        tts.behaviour = txn_answer()
        with suppress(SidecarError):
            await one.exchange.exchange(wanted, by)
        assert len(one.sts.forms) == 2


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(txn_answer({"scope": "another.word"}), id="a scope of its own"),
        pytest.param(txn_answer({"iss": TTS.issuer}), id="with iss"),
        pytest.param(txn_answer({"exp": NOW + 7200}), id="longer than the access token"),
        pytest.param(txn_answer(members={"scope": "another.word", "expires_in": 60}), id="more members"),
        pytest.param(txn_answer({"req_wl": "gateway", "rctx": {}, "act": {"sub": "x"}}), id="more claims"),
    ],
)
async def test_what_the_draft_leaves_to_the_service_is_no_lie(truth: Behaviour) -> None:
    one, _ = world(Tts(behaviour=truth))
    by = carrying()
    async with running(one):
        assert (await one.exchange.exchange(login_plan(by), by)).txn_token is not None


async def test_a_silent_service_stops_the_call_within_its_deadline() -> None:
    one, tts = world()
    settings = TxnTokenSettings(
        source=SOURCE, endpoint=None, client_auth=ClientAuthSettings(audience=TTS.issuer), timeout_s=0.05
    )
    by = carrying()
    async with running(one), asyncio.timeout(2):
        permit = (await one.exchange.exchange(login_plan(by), by)).permit
        tts.hold()
        service = TxnTokenService(settings, one.source, one.keys, one.clock, caller=tts)
        with pytest.raises(Unavailable) as caught:
            await service.issue(permit)
        assert caught.value.reason is Reason.STS_TIMEOUT
        tts.release()


async def test_keys_that_cannot_be_had_are_no_lie_of_the_service() -> None:
    one, tts = world(Tts(behaviour=txn_answer(header={"kid": "next"})))
    by = carrying()
    async with running(one):
        one.tts_jwks.error = EndpointError(Trouble.UNREACHABLE)
        assert await reason_of(one, login_plan(by), by) is Reason.KEYS_UNAVAILABLE
        assert len(tts.forms) == 1


async def test_a_route_that_needs_a_service_that_is_not_there_serves_nobody() -> None:
    made = World()
    made.sts.behaviour = claims(sub_id=PAIR, act={"sub": str(WRITER)})
    by = carrying()
    async with running(made):
        assert await reason_of(made, login_plan(by), by) is Reason.STS_UNAVAILABLE


def test_a_service_without_a_token_endpoint_asks_nobody() -> None:
    made = World()
    settings = TxnTokenSettings(source=SOURCE, endpoint=None, client_auth=ClientAuthSettings(audience=TTS.issuer))
    with pytest.raises(ValueError, match="token_endpoint: it is missing"):
        TxnTokenService(settings, made.source, made.keys, made.clock)
