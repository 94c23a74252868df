"""The outbound journey, one fact at a time: each lawful call beside the same call refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.policy import Deny
from sidecar.proxy.journeys.remote_handles import RemoteRequest
from tests.core.world import INBOUND_CLAIMS, LOGIN_CLAIMS, POLICY, delegation, signed
from tests.proxy.agent_calls import OWN, AgentCalls, Fields, bearer


def raw_login(**changes: Any) -> str:
    return signed({**LOGIN_CLAIMS, **changes}, typ=None).raw


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    return AgentCalls(tmp_path)


async def test_a_call_with_its_request_s_handle_leaves_with_an_issued_token_and_without_the_handle(
    calls: AgentCalls,
) -> None:
    handle = calls.handle()
    assert (await calls.call(bearer(handle))).status == 200
    (plan,) = calls.tokens.asked
    assert (plan.delegation.token.raw, plan.audience) == (delegation().token.raw, POLICY.outbound.routes[0].audience)
    assert handle.encode() not in calls.left
    assert delegation().token.raw.encode() not in calls.left
    assert calls.left.count(b"Bearer ey") == 1
    (record,) = await calls.records()
    told = ("direction", "decision", "reason", "route", "jti_in", "jti_out", "call_in", "after_request", "status")
    assert [record[key] for key in told] == [
        "outbound", "allow", "ok", "crm", "token-2", "token-3", "c1", False, 200
    ]  # fmt: skip
    assert record["call_out"].encode() in calls.left
    assert record["exchange_ms"] is not None


async def test_a_kept_token_is_not_asked_for(calls: AgentCalls) -> None:
    handle = calls.handle()
    await calls.call(bearer(handle))
    calls.tokens.kept = await calls.tokens.exchange(calls.tokens.asked[0], POLICY)
    del calls.tokens.asked[:]
    assert (await calls.call(bearer(handle))).status == 200
    assert calls.tokens.asked == []


def no_identity(calls: AgentCalls) -> None:
    calls.refused_by = Unavailable(Reason.NOT_READY)


def no_exchange(calls: AgentCalls) -> None:
    calls.exchanges.clear()


def refusing(calls: AgentCalls) -> None:
    calls.tokens.refusal = Denied(Reason.STS_SCOPE_WIDENED)


def no_entry(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, entry=None)


def as_it_is(_calls: AgentCalls) -> None:
    pass


Change = Callable[[AgentCalls], None]
MINE = "mine"  # stands for the handle of the request in progress
REFUSED: dict[str, tuple[Change, Fields, dict[str, str], int, str]] = {
    "no identity": (no_identity, bearer(MINE), {}, 503, "not_ready"),
    "no token service": (no_exchange, bearer(MINE), {}, 503, "sts_unavailable"),
    "a token service whose answer is not believed": (refusing, bearer(MINE), {}, 502, "sts_scope_widened"),
    "no handle": (as_it_is, [], {}, 403, "no_request_context"),
    "an unknown handle": (as_it_is, bearer("h" * 43), {}, 403, "no_request_context"),
    "a handle twice": (as_it_is, [("delegation-handle", MINE)] * 2, {}, 403, "no_request_context"),
    "two handles": (as_it_is, [*bearer(MINE), ("delegation-handle", "h" * 43)], {}, 403, "no_request_context"),
    "two authorizations": (as_it_is, bearer(MINE) * 2, {}, 400, "header_malformed"),
    "a handle and a login": (
        as_it_is, [*bearer(raw_login()), ("delegation-handle", MINE)], {}, 403, "no_request_context",
    ),
    "a login where no chain starts": (no_entry, bearer(raw_login()), {}, 403, "not_an_entry"),
    "a token of the mesh": (as_it_is, bearer(signed(INBOUND_CLAIMS).raw), {}, 401, "wrong_issuer"),
    "another host": (as_it_is, bearer(MINE), {"host": "mail.mesh"}, 403, "target_denied"),
    "a path with two meanings": (as_it_is, bearer(MINE), {"target": "/a%2fb"}, 400, "path_refused"),
    "a path of ours": (as_it_is, bearer(MINE), {"target": "/.sidecar/x", "host": "127.0.0.1:7080"}, 404, "no_route"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "fields", "where", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_with_one_fact_changed_nothing_leaves(
    calls: AgentCalls, change: Change, fields: Fields, where: dict[str, str], status: int, reason: str
) -> None:
    handle = calls.handle()
    change(calls)
    refused = await calls.call([(name, value.replace(MINE, handle)) for name, value in fields], **where)
    assert (refused.status, refused.reason) == (status, reason)
    assert calls.left == b""
    (record,) = await calls.records()
    assert (record["decision"], record["reason"]) == ("deny", reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"may_call": frozenset()}, "call_not_allowed", id="a request that opens nothing"),
        pytest.param({"scope": frozenset({"docs.read"})}, "insufficient_scope", id="a request without the scope"),
    ],
)
async def test_a_request_calls_no_more_than_it_may(calls: AgentCalls, changes: dict[str, Any], reason: str) -> None:
    refused = await calls.call(bearer(calls.handle(**changes)))
    assert (refused.status, calls.left, calls.tokens.asked) == (403, b"", [])
    assert refused.reason == reason
    assert (await calls.call(bearer(calls.handle()))).status == 200


async def test_a_request_makes_no_more_calls_than_its_route_allows(calls: AgentCalls) -> None:
    handle = calls.handle(max_calls=1)
    assert (await calls.call(bearer(handle))).status == 200
    refused = await calls.call(bearer(handle))
    assert (refused.status, refused.reason) == (403, "calls_exhausted")
    assert len(calls.tokens.asked) == 1


async def test_a_handle_that_lingers_is_recorded_so_and_one_that_has_ended_is_refused(calls: AgentCalls) -> None:
    handle = calls.handle()
    calls.handles.end(handle)
    assert (await calls.call(bearer(handle))).status == 200
    calls.now += 61
    refused = await calls.call(bearer(handle))
    assert (refused.status, refused.reason) == (403, "no_request_context")
    lingered, ended = await calls.records()
    assert (lingered["after_request"], ended["after_request"]) == (True, False)


@pytest.mark.parametrize(("status", "rejected"), [(401, 1), (403, 0), (200, 0)])
async def test_only_a_401_of_the_next_hop_costs_the_token(calls: AgentCalls, status: int, rejected: int) -> None:
    calls.answer_of_next_hop = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    assert (await calls.call(bearer(calls.handle()))).status == status
    assert len(calls.tokens.rejected) == rejected


async def test_an_entry_starts_a_chain_with_the_login_that_comes_with_the_call(calls: AgentCalls) -> None:
    assert (await calls.call(bearer(raw_login()))).status == 200
    (plan,) = calls.tokens.asked
    assert (plan.delegation.entry, plan.delegation.token.jti) == (True, "login-1")


def deny_alice(calls: AgentCalls) -> None:
    calls.policy = replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, "alice")})))


def withdraw_identity(calls: AgentCalls) -> None:
    calls.refused_by = Unavailable(Reason.NOT_READY)


@pytest.mark.parametrize(
    ("change", "reason"), [(deny_alice, "policy_denied"), (withdraw_identity, "not_ready")], ids=["policy", "identity"]
)
async def test_a_call_that_waited_for_its_token_is_judged_again_before_it_leaves(
    calls: AgentCalls, change: Change, reason: str
) -> None:
    calls.tokens.meanwhile = lambda: change(calls)
    refused = await calls.call(bearer(calls.handle()))
    assert (refused.reason, len(calls.tokens.asked), calls.left) == (reason, 1, b"")


async def test_a_handle_beside_a_credential_decides_where_no_chain_starts(calls: AgentCalls) -> None:
    no_entry(calls)
    answer = await calls.call([*bearer(raw_login()), ("delegation-handle", calls.handle())])
    assert answer.status == 200
    assert calls.left.count(b"Bearer ey") == 1
    assert raw_login().encode() not in calls.left


async def test_a_path_on_our_own_authority_is_a_call_by_its_prefix(calls: AgentCalls) -> None:
    route = replace(POLICY.outbound.routes[0], host=None, prefix="/crm")
    calls.policy = replace(POLICY, outbound=OutboundRoutes([route]))
    assert (await calls.call(bearer(calls.handle()), target="/crm/tool", host=OWN)).status == 200
    assert calls.left.startswith(b"POST /tool HTTP/1.1\r\n")
    refused = await calls.call(bearer(calls.handle()), target="/crm/tool", host="mail.mesh")
    assert refused.reason == "target_denied"


async def test_what_is_no_request_is_refused_and_recorded(calls: AgentCalls) -> None:
    refused = await calls.call([*bearer(calls.handle()), ("x y", "z")])
    assert (refused.status, calls.left) == (400, b"")
    (record,) = await calls.records()
    assert [record[key] for key in ("decision", "reason", "direction")] == ["deny", "bad_request", "outbound"]


# --- several workers


class Others:
    """The other worker, which serves one request."""

    def __init__(self, served: RemoteRequest | Exception) -> None:
        self.served = served

    def owner_of(self, handle: str) -> int | None:
        return 1 if handle == "B" + "x" * 43 else None  # a random one of ours may begin with B

    async def resolve(self, owner: int, handle: str) -> RemoteRequest:
        assert (owner, len(handle)) == (1, 44)
        if isinstance(self.served, Exception):
            raise self.served
        return self.served


async def test_a_handle_of_another_worker_is_asked_for_there(tmp_path: Path) -> None:
    counted: list[int] = []

    async def count() -> None:
        counted.append(1)

    found: Any = SimpleNamespace(delegation=delegation(), call_in="c9", ended_at=None)
    there = RemoteRequest(found, count, guard=None)
    calls = AgentCalls(tmp_path, remote_handles=Others(there))
    assert (await calls.call(bearer("B" + "x" * 43))).status == 200
    assert counted == [1]
    (record,) = await calls.records()
    assert record["call_in"] == "c9"


async def test_what_the_other_worker_refuses_does_not_leave(tmp_path: Path) -> None:
    calls = AgentCalls(tmp_path, remote_handles=Others(Denied(Reason.NO_REQUEST_CONTEXT)))
    refused = await calls.call(bearer("B" + "x" * 43))
    assert (refused.status, refused.reason, calls.left) == (403, "no_request_context", b"")
    assert (await calls.call(bearer(calls.handle()))).status == 200  # our own are found here


EVIL = {"method": "CONNECT", "target": "evil.example:443", "host": "evil.example:443"}


@pytest.mark.parametrize("where", [{"host": "evil.example:443"}, EVIL], ids=["a call", "CONNECT"])
@pytest.mark.parametrize("field", ["authorization", "delegation-handle", "proxy-authorization"])
async def test_an_attempt_to_leave_is_recorded_with_the_request_behind_its_handle(
    calls: AgentCalls, where: dict[str, str], field: str
) -> None:
    live, other = calls.handle(), calls.handle()
    assert live != other
    refused = await calls.call([(field, live if field == "delegation-handle" else f"Bearer {live}")], **where)
    assert (refused.status, refused.reason, calls.left) == (403, "target_denied", b"")
    (record,) = await calls.records()
    told = ("host", "subject", "verified", "call_in", "jti_in", "candidates", "route")
    assert [record[key] for key in told] == [
        "evil.example:443", delegation().token.subject, True, "c1", "token-2", None, None
    ]  # fmt: skip
    assert calls.log.metrics.attempts_to_leave == 1


@pytest.mark.parametrize(
    "fields", [[], bearer("h" * 43), [("proxy-authorization", "Basic eDp5")]], ids=["nothing", "unknown", "a password"]
)
async def test_without_a_live_handle_the_requests_being_served_are_candidates_and_nobody_is_named(
    calls: AgentCalls, fields: Fields
) -> None:
    calls.handle()
    assert (await calls.call(fields, **EVIL)).reason == "target_denied"
    (record,) = await calls.records()
    told = ("host", "subject", "actor", "verified", "call_in", "candidates")
    assert [record[key] for key in told] == ["evil.example:443", None, None, False, None, ["c1"]]


async def test_a_call_to_a_routed_host_and_one_to_our_own_listener_are_no_attempts_to_leave(calls: AgentCalls) -> None:
    live = calls.handle()
    assert (await calls.call(bearer(live))).status == 200
    assert (await calls.call(bearer(live), host=OWN, target="/none")).reason == "target_denied"
    assert [record["host"] for record in await calls.records()] == [None, None]
    assert calls.log.metrics.attempts_to_leave == 0


@pytest.mark.parametrize("target", ["/a%2Fb", "/x/../y", "//x"])
async def test_an_attempt_to_leave_is_recorded_whatever_its_path_means(calls: AgentCalls, target: str) -> None:
    live = calls.handle()
    assert (await calls.call(bearer(live), host="evil.example", target=target)).reason in {
        "path_refused",
        "target_denied",
    }
    assert (await calls.call(bearer(live), target="/a%2Fb")).reason == "path_refused"
    first, second = await calls.records()
    assert (first["host"], first["subject"], second["host"]) == ("evil.example", delegation().token.subject, None)
    assert calls.log.metrics.attempts_to_leave == 1
