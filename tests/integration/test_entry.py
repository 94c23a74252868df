"""The entry over real sockets: a login is traded for a handle, or shown with each call; two issuers, one mesh."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from tests.fakes.tokens import TokenMint
from tests.integration.entry_world import CUSTOMERS, STAFF, EntryWorld, open_entry_world
from tests.integration.world import FRONT, PLANNER, Answer, bearer, until

pytestmark = pytest.mark.integration


@pytest.fixture
async def entry() -> AsyncIterator[EntryWorld]:
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_entry_world(Path(folder)) as opened:
            yield opened


def handle_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["handle"])


def received(entry: EntryWorld, number: int = -1) -> dict[str, Any]:
    """Return the claims of the token that reached the planner; its route passes them."""
    return dict(parse_bearer(entry.world.agent.headers(number)["delegation-token"]).claims)


async def test_a_login_is_traded_for_a_handle_that_lives_as_long_as_it(entry: EntryWorld) -> None:
    before = time.time()
    answer = await entry.trade(entry.log_in(exp=int(before) + 500))
    members = json.loads(answer.body)
    assert members.keys() == {"handle", "expires_in"}
    assert len(members["handle"]) == 43
    assert 500 - (time.time() - before) - 1 <= members["expires_in"] <= 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    (record,) = await entry.front.wait_for_records(1)
    told = ("decision", "reason", "direction", "status", "method", "path", "op", "route", "subject", "subject_iss")
    assert [record[key] for key in told] == [
        "allow", "ok", "outbound", 200, "POST", "/.sidecar/subject", "login", None, "alice", STAFF.issuer
    ]  # fmt: skip
    assert entry.sts_records() == []  # nothing is fetched before it is needed


@pytest.mark.parametrize("header", ["Authorization", "Delegation-Handle"])
async def test_the_handle_makes_calls_for_its_user(entry: EntryWorld, header: str) -> None:
    handle = handle_of(await entry.trade(entry.log_in()))
    shown = f"Bearer {handle}" if header == "Authorization" else handle
    for _ in range(3):
        assert (await entry.ask(entry.front, [(header, shown)])).status == 200
    claims = received(entry)
    assert (claims["sub"], claims["aud"], claims["act"]) == ("staff:alice", PLANNER, {"sub": FRONT})
    assert claims["sub_id"] == {"format": "iss_sub", "iss": STAFF.issuer, "sub": "alice"}
    assert claims["may_act"] == {"sub": PLANNER}
    assert handle not in entry.world.agent.requests[-1][0].decode()
    *_, record = await entry.front.wait_for_records(4)
    await until(lambda: len(entry.sts_records()) == 1)
    assert (record["after_request"], record["call_in"], record["jti_in"]) == (False, None, "login-1")


NEXT = TokenMint(STAFF.issuer, kid="next", key=5)


def next_login(entry: EntryWorld) -> str:
    """Log another user in, under an unknown key: it makes the sidecar fetch the issuer's keys again."""
    return entry.log_in(NEXT, sub="bob", jti="login-2", scope="openid assistant", nonce=None)


async def test_a_handle_ends_with_the_key_that_signed_its_login(entry: EntryWorld) -> None:
    handle = handle_of(await entry.trade(entry.log_in()))
    assert (await entry.ask(entry.front, bearer(handle))).status == 200
    entry.world.keys["keys"].remove(STAFF.jwk)
    refused = [await entry.trade(next_login(entry)), await entry.ask(entry.front, bearer(handle))]
    assert [answer.headers["delegation-reason"] for answer in refused] == ["unknown_key"] * 2
    assert len(entry.world.agent.requests) == 1


async def test_a_handle_outlives_a_change_of_other_keys_with_the_token_it_has(entry: EntryWorld) -> None:
    handle = handle_of(await entry.trade(entry.log_in()))
    assert (await entry.ask(entry.front, bearer(handle))).status == 200
    entry.world.keys["keys"].append(NEXT.jwk)
    assert (await entry.trade(next_login(entry))).status == 200
    assert (await entry.ask(entry.front, bearer(handle))).status == 200
    await entry.front.wait_for_records(4)
    await until(lambda: len(entry.sts_records()) == 1)


async def test_two_users_of_one_name_at_two_issuers_are_two_subjects(entry: EntryWorld) -> None:
    handles = [handle_of(await entry.trade(entry.log_in(mint))) for mint in (STAFF, CUSTOMERS)]
    shown = [bearer(handle) for handle in handles * 2]
    answers = await asyncio.gather(*(entry.ask(entry.front, one) for one in shown))
    assert [answer.status for answer in answers] == [200] * 4
    claims = [received(entry, number) for number in range(4)]
    subjects = {(one["sub"], one["sub_id"]["iss"], one["sub_id"]["sub"], one["scope"]) for one in claims}
    assert subjects == {
        ("staff:alice", STAFF.issuer, "alice", "crm.read docs.write"),
        ("shop:alice", CUSTOMERS.issuer, "alice", "docs.write"),
    }
    assert len({one["txn"] for one in claims}) == 2
    await until(lambda: {record["subject"] for record in entry.sts_records()} == {"staff:alice", "shop:alice"})
    inbound = await entry.planner.wait_for_records(4)
    assert sorted(record["subject"] for record in inbound) == ["shop:alice"] * 2 + ["staff:alice"] * 2


@pytest.mark.parametrize("mint", [STAFF, CUSTOMERS], ids=["access token", "ID token under another profile"])
async def test_either_kind_of_login_token_can_be_shown_with_the_call_itself(entry: EntryWorld, mint: TokenMint) -> None:
    assert (await entry.ask(entry.front, bearer(entry.log_in(mint)))).status == 200


async def test_a_transaction_that_a_login_names_is_not_the_meshs(entry: EntryWorld) -> None:
    assert (await entry.ask(entry.front, bearer(entry.log_in(txn="theirs")))).status == 200
    handle = handle_of(await entry.trade(entry.log_in(txn="theirs", jti="login-2")))
    assert (await entry.ask(entry.front, bearer(handle))).status == 200
    assert "theirs" not in {received(entry, number)["txn"] for number in (0, 1)}


async def test_the_first_token_may_outlive_the_login_where_the_entry_says_so_and_the_handle_does_not(
    entry: EntryWorld,
) -> None:
    handle = handle_of(await entry.trade(entry.log_in(exp=int(time.time()) + 100)))
    assert (await entry.ask(entry.front, bearer(handle))).status == 200
    assert 500 < received(entry)["exp"] - time.time() <= 600


LOGIN_REFUSALS = [
    pytest.param({"aud": "https://api.example", "client_id": "other"}, 401, "wrong_audience", id="another client's"),
    pytest.param({"exp": 1_700_000_000}, 401, "token_expired", id="expired"),
    pytest.param({"iss": "https://else.example"}, 401, "wrong_issuer", id="another issuer's"),
    pytest.param({"scope": "openid profile"}, 403, "insufficient_scope", id="worth nothing"),
    pytest.param({"act": {"sub": FRONT}}, 401, "token_type", id="it names an actor"),
    pytest.param({"scope": 7}, 401, "malformed_token", id="a scope that is none"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), LOGIN_REFUSALS)
async def test_a_login_that_is_no_good_gets_no_handle(
    entry: EntryWorld, changes: dict[str, Any], status: int, reason: str
) -> None:
    refused = await entry.trade(entry.log_in(**changes))
    assert (refused.status, refused.reason) == (status, reason)
    assert b"handle" not in refused.body
    assert len(entry.front.server.parts.handles) == 0
    assert (await entry.trade(entry.log_in())).status == 200


async def test_a_login_within_the_leeway_after_its_end_gets_no_handle(entry: EntryWorld) -> None:
    refused = await entry.trade(entry.log_in(exp=int(time.time()) - 5))
    assert (refused.status, refused.reason) == (401, "token_expired")


FORM_REFUSALS = [
    pytest.param({"method": "GET"}, [], 405, "method_refused", id="GET"),
    pytest.param({"method": "PUT"}, [], 405, "method_refused", id="PUT"),
    pytest.param({"target": "/.sidecar/subject?x=1"}, [], 400, "path_refused", id="a query"),
    pytest.param({"target": "/.sidecar/subject/"}, [], 404, "no_route", id="a slash more"),
    pytest.param({"target": "/.sidecar/subjects"}, [], 404, "no_route", id="another path of ours"),
    pytest.param({"target": "/.sidecar/%73ubject%2f"}, [], 400, "path_refused", id="a path with two meanings"),
    pytest.param({}, [("delegation-handle", "h" * 43)], 403, "no_request_context", id="a handle beside it"),
    pytest.param({}, [("authorization", "Bearer a.b.c")], 400, "header_malformed", id="two logins"),
    pytest.param({"host": "planner.mesh"}, [], 403, "target_denied", id="at another host"),
]


@pytest.mark.parametrize(("changes", "fields", "status", "reason"), FORM_REFUSALS)
async def test_a_trade_has_one_form(
    entry: EntryWorld, changes: dict[str, str], fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    refused = await entry.trade(entry.log_in(), *fields, **changes)
    assert (refused.status, refused.reason) == (status, reason)
    assert refused.headers.get("allow") == ("POST" if status == 405 else None)
    assert entry.world.agent.requests == []
    (record,) = await entry.front.wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("deny", reason)


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        pytest.param([], 401, "no_token", id="none"),
        pytest.param([("authorization", "Basic YTpi")], 401, "no_token", id="a password"),
        pytest.param(bearer("h" * 43), 401, "malformed_token", id="a handle"),
    ],
)
async def test_a_trade_needs_a_login_token(
    entry: EntryWorld, fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    refused = await entry.ask(entry.front, fields, target="/.sidecar/subject")
    assert (refused.status, refused.reason) == (status, reason)


async def test_a_handle_opens_what_the_entry_may_call_and_only_here(entry: EntryWorld) -> None:
    closed = await entry.world.sidecar(FRONT, entry.front_settings(may_call=[]))
    token = entry.log_in()
    handle = handle_of(await entry.ask(closed, bearer(token), target="/.sidecar/subject"))
    refused = await entry.ask(closed, bearer(handle))
    assert (refused.status, refused.reason) == (403, "call_not_allowed")
    foreign = await entry.ask(entry.front, bearer(handle))
    assert (foreign.status, foreign.reason) == (403, "no_request_context")
    assert entry.world.agent.requests == []


async def test_a_workload_that_is_no_entry_trades_nothing(entry: EntryWorld) -> None:
    settings = entry.front_settings()
    del settings["entry"]
    plain = await entry.world.sidecar(FRONT, settings)
    for method, fields in (("POST", bearer(entry.log_in())), ("POST", []), ("GET", [])):
        refused = await entry.ask(plain, fields, target="/.sidecar/subject", method=method)
        assert (refused.status, refused.reason) == (403, "not_an_entry")
