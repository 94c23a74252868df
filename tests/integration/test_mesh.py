"""The whole mesh: a login starts a chain, each hop narrows it, each hop has three witnesses, nobody is confused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from delegation_core.bearer import parse_bearer
from tests.fakes.tokens import base64url, encode
from tests.integration.mesh import Mesh, passed
from tests.integration.world import CRM, FRONT, PLANNER, WRITER, Record, bearer, ok, until

pytestmark = [pytest.mark.integration, pytest.mark.both_loops]

CHAINS = {"planner": [FRONT], "writer": [PLANNER, FRONT], "crm": [WRITER, PLANNER, FRONT]}
SCOPES = {
    "planner": ["crm.read", "docs.write", "plan.make"],
    "writer": ["crm.read", "docs.write"],
    "crm": ["crm.read"],
}


async def one(mesh: Mesh, name: str, direction: str) -> Record:
    await until(lambda: any(r["direction"] == direction for r in mesh.records(name)))
    (record,) = [r for r in mesh.records(name) if r["direction"] == direction]
    return record


async def test_a_login_becomes_a_chain_whose_every_hop_is_narrower_and_witnessed_three_times(mesh: Mesh) -> None:
    answer = await mesh.ask(mesh.log_in())
    assert (answer.status, answer.body) == (200, b"alice")

    callers = {"planner": "front", "writer": "planner", "crm": "writer"}
    txns = set()
    for name, caller in callers.items():
        told = await one(mesh, name, "inbound")
        called = await one(mesh, caller, "outbound")
        (issued,) = [r for r in mesh.sts_records() if r["jti_out"] == told["jti_in"]]
        assert (told["subject"], told["actor"], told["peer"]) == ("alice", CHAINS[name][0], CHAINS[name][0])
        assert told["chain"] == called["chain"] == issued["chain"] == CHAINS[name]
        assert told["scope"] == called["scope"] == SCOPES[name]
        assert told["call_in"] == called["call_out"]
        assert told["jti_in"] == called["jti_out"]
        assert told["parent_jti"] == called["jti_in"] == called["parent_jti"] == issued["parent_jti"]
        assert told["fp"] == called["fp"]
        assert told["trace_id"] == called["trace_id"]
        txns |= {told["txn"], called["txn"], issued["txn"]}
    assert len(txns) == 1
    for name in ("planner", "writer"):
        assert (await one(mesh, name, "inbound"))["call_in"] == (await one(mesh, name, "outbound"))["call_in"]


async def test_no_token_that_came_in_ever_goes_out(mesh: Mesh) -> None:
    login = mesh.log_in()
    assert (await mesh.ask(login)).status == 200
    for name in ("planner", "writer", "crm"):
        (head, _) = mesh.agents[name].requests[0]
        assert login.encode() not in head
    tokens = [mesh.agents[name].headers()["delegation-token"] for name in ("writer", "crm")]  # where pass_token is set
    assert "delegation-token" not in mesh.agents["planner"].headers()
    claims = [parse_bearer(token).claims for token in tokens]
    assert [c["aud"] for c in claims] == [WRITER, CRM]
    assert tokens[0] != tokens[1]
    assert all(len(mesh.agents[n].headers()["authorization"]) == len("Bearer ") + 43 for n in ("planner", "writer"))


async def test_two_users_through_the_whole_mesh_are_never_mixed_up(mesh: Mesh) -> None:
    logins = {user: mesh.log_in(user) for user in ("alice", "bob")}
    users = ["alice", "bob"] * 16
    answers = await asyncio.gather(*(mesh.ask(logins[user]) for user in users))
    assert [answer.body.decode() for answer in answers] == users
    for name in ("planner", "writer", "crm"):
        await mesh.sidecars[name].wait_for_records(len(users) * (1 if name == "crm" else 2))
        inbound = [r for r in mesh.records(name) if r["direction"] == "inbound"]
        assert sorted(r["subject"] for r in inbound) == sorted(users)
    called = {r["call_out"]: r["subject"] for r in mesh.records("writer") if r["direction"] == "outbound"}
    told = {r["call_in"]: r["subject"] for r in mesh.records("crm")}
    assert called == told
    assert len(mesh.sts_records()) == 6  # three hops for each of two users


# --- the entry


def tampered(token: str) -> str:
    head, _, signature = token.split(".")
    claims = {**parse_bearer(token).claims, "sub": "bob"}
    return f"{head}.{base64url(encode(claims))}.{signature}"


ENTRY_REFUSALS: list[Any] = [
    pytest.param({"client_id": "other-app"}, None, 401, "wrong_audience", id="a login at another client"),
    pytest.param({"age_s": 4000}, None, 401, "token_expired", id="an old login"),
    pytest.param({"issuer": "http://127.0.0.1:1"}, None, 401, "wrong_issuer", id="a login at another issuer"),
    pytest.param({"scope": "other"}, None, 403, "insufficient_scope", id="a login worth nothing here"),
    pytest.param({}, tampered, 401, "bad_signature", id="another subject"),
]


@pytest.mark.parametrize(("form", "change", "status", "reason"), ENTRY_REFUSALS)
async def test_a_login_with_one_fact_changed_starts_no_chain(
    mesh: Mesh, form: dict[str, Any], change: Any, status: int, reason: str
) -> None:
    token = mesh.log_in(**form)
    refused = await mesh.ask(change(token) if change else token)
    assert (refused.status, refused.reason) == (status, reason)
    assert mesh.agents["planner"].requests == []
    assert mesh.sts_records() == []
    assert (await mesh.ask(mesh.log_in())).status == 200
    await mesh.sidecars["front"].wait_for_records(2)
    assert [r["decision"] for r in mesh.records("front")] == ["deny", "allow"]


async def test_a_login_token_and_a_handle_are_two_authorities_for_one_call(mesh: Mesh) -> None:
    login = mesh.log_in()
    given = await mesh.call("front", "/.sidecar/subject", bearer(login), method="POST")
    handle = ("delegation-handle", json.loads(given.body)["handle"])
    refused = await mesh.ask(login, handle)
    assert (refused.status, refused.reason) == (403, "no_request_context")
    assert mesh.agents["planner"].requests == []
    assert (await mesh.call("front", "/planner/plan", [handle], method="POST")).status == 200


async def test_a_login_token_is_worth_nothing_anywhere_but_at_the_entry(mesh: Mesh) -> None:
    refused = await mesh.call("planner", "/writer/draft", bearer(mesh.log_in()), method="POST")
    assert (refused.status, refused.reason) == (403, "not_an_entry")
    assert mesh.agents["writer"].requests == []


async def test_an_entry_opens_only_the_routes_it_may_call(mesh: Mesh) -> None:
    refused = await mesh.call("front", "/crm/customers/42", bearer(mesh.log_in()))
    assert (refused.status, refused.reason) == (403, "call_not_allowed")


async def test_login_keys_that_rotate_are_followed(mesh: Mesh) -> None:
    before = mesh.log_in()
    assert (await mesh.ask(before)).status == 200
    mesh.users.rotate()
    assert (await mesh.ask(mesh.log_in("bob"))).body == b"bob"
    assert (await mesh.ask(before)).status == 200


# --- a tricked agent


async def test_an_injected_agent_reaches_no_more_than_its_request_may(mesh: Mesh) -> None:
    async def tricked(fields: dict[str, str]) -> bytes:
        shown = bearer(fields["authorization"].removeprefix("Bearer "))
        export = await mesh.call("writer", "/crm/export", shown, method="POST")
        planner = await mesh.call("writer", "/planner/plan", shown, method="POST")
        elsewhere = await mesh.world.call(
            mesh.sidecars["writer"].outbound, None, "/", method="GET", headers=shown, host="evil.example"
        )
        found = [f"{answer.status} {answer.reason}" for answer in (export, planner, elsewhere)]
        return ok(", ".join(found).encode())

    mesh.scripts["writer"] = tricked
    answer = await mesh.ask(mesh.log_in())
    assert answer.body == b"403 insufficient_scope, 403 target_denied, 403 target_denied"
    assert mesh.agents["crm"].requests == []


async def test_the_token_of_another_hop_opens_nothing(mesh: Mesh) -> None:
    async def stealing(fields: dict[str, str]) -> bytes:
        stolen = bearer(fields["delegation-token"])
        return passed(await mesh.call("writer", "/crm/customers/42", stolen))

    mesh.scripts["writer"] = stealing
    answer = await mesh.ask(mesh.log_in())
    assert answer.status == 403
    assert answer.headers["x-reason"] == "not_an_entry"
    assert mesh.agents["crm"].requests == []


async def test_the_refusal_of_the_last_hop_reaches_the_first_caller(mesh: Mesh) -> None:
    mesh.scripts["crm"] = lambda _fields: asyncio.sleep(0, ok(b"no").replace(b"200 OK", b"418 Teapot"))
    answer = await mesh.ask(mesh.log_in())
    assert (answer.status, answer.body) == (418, b"no")
    await mesh.sidecars["front"].wait_for_records(1)
    (record,) = mesh.records("front")
    assert (record["decision"], record["reason"], record["upstream_status"]) == ("allow", "ok", 418)
