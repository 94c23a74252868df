"""Calls with a provider's token for our identity, one fact at a time: each lawful call beside the same call refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delegation_core.bearer import fingerprint_of
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.outside import FederatedKey
from delegation_core.spiffe_id import TrustDomain
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.exchange.federation.trade import Ask
from sidecar.identity.endpoint import EndpointAnswer
from sidecar.proxy.journeys.workload_handle import WorkloadHandle
from sidecar_dev.pki import TrustDomainAuthority
from tests.core.test_outside import MODEL, OPEN
from tests.core.world import POLICY, TO_CRM, delegation
from tests.fakes.own_identity import OwnIdentity
from tests.proxy.agent_calls import OWN, AgentCalls, Answer, Fields, bearer

KEY = FederatedKey(
    provider="anthropic",
    audience="https://api.model.example",
    endpoint="https://api.model.example/v1/oauth/token",
    also=(("anthropic-beta", "oauth"),),
    makes_credentials=("/v1/files/keys",),
)
ROUTE = replace(MODEL, token="federate", key=KEY)


class Provider:
    """The token endpoint of a provider, in memory."""

    def __init__(self) -> None:
        self.status = 200
        self.trades = 0

    @property
    def token(self) -> str:
        return f"token-number-{self.trades}"

    async def __call__(self, _ask: Ask, _ca_file: str | None) -> EndpointAnswer:
        self.trades += 1
        said = {"access_token": self.token, "token_type": "Bearer", "expires_in": 600}
        return EndpointAnswer(self.status, "application/json", None, json.dumps(said).encode())


class Calls(AgentCalls):
    """One agent whose sidecar trades with ``provider``."""

    def __init__(self, folder: Path) -> None:
        self.provider = Provider()
        source = OwnIdentity(TrustDomainAuthority(TrustDomain("acme.example")), POLICY.workload)
        super().__init__(folder, federated=FederatedTokens(source, lambda: self.now, self.provider))
        self.policy = replace(POLICY, outbound=OutboundRoutes([TO_CRM, ROUTE]))

    async def ask(self, fields: Fields, target: str = "/model/v1/messages", **options: Any) -> Answer:
        return await self.call(fields, target=target, host=OWN, **options)


@pytest.fixture
async def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


async def test_a_call_leaves_with_the_provider_s_token_and_its_record_names_the_user(calls: Calls) -> None:
    live = calls.handle(may_call=OPEN)
    own: Fields = [("x-api-key", "mine"), ("cookie", "a=b"), ("anthropic-beta", "tools")]
    assert (await calls.ask([*bearer(live), *own])).status == 200
    left = calls.left.lower()
    assert left.count(b"authorization:") == 1
    assert b"authorization: bearer token-number-1\r\n" in left
    assert b"anthropic-beta: tools\r\n" not in left  # the route lists no fields: the agent chooses no features
    assert b"anthropic-beta: oauth\r\n" in left
    for name in (b"x-api-key", b"cookie", b"delegation-", b"traceparent", live.lower().encode()):
        assert name not in left
    assert (await calls.ask(bearer(live))).status == 200
    assert calls.provider.trades == 1
    record = (await calls.records())[0]
    assert [record[name] for name in ("decision", "route", "subject", "credential")] == [
        "allow", "model", delegation().token.subject, f"federate:anthropic:{fingerprint_of('token-number-1')}",
    ]  # fmt: skip
    assert "token-number" not in str(record)


async def test_what_is_not_permitted_is_refused_before_any_trade(calls: Calls) -> None:
    live = calls.handle(may_call=OPEN)
    told = [
        await calls.ask([]),
        await calls.ask(bearer("h" * 43)),
        await calls.ask(bearer(calls.handle())),
        await calls.ask(bearer(live), "/model/v1/other"),
        await calls.ask(bearer(live), "/model/v1/files/keys/new"),
        await calls.ask(bearer(live), method="GET"),
        await calls.ask([*bearer(live), ("x-note", calls.handle(may_call=OPEN))]),
    ]
    assert [answer.reason for answer in told] == [
        "no_request_context", "no_request_context", "call_not_allowed", "target_denied", "target_denied",
        "method_refused", "no_request_context",
    ]  # fmt: skip
    assert (calls.provider.trades, calls.left) == (0, b"")
    assert (await calls.ask(bearer(live))).status == 200


async def test_without_a_token_nothing_leaves_and_the_next_call_tries_again(calls: Calls) -> None:
    live = calls.handle(may_call=OPEN)
    calls.provider.status = 503
    refused = await calls.ask(bearer(live))
    assert (refused.status, refused.reason, calls.left) == (503, "credential_unavailable", b"")
    calls.provider.status = 200
    assert (await calls.ask(bearer(live))).status == 200
    assert b"token-number-2" in calls.left


async def test_an_answer_that_contains_the_token_is_refused(calls: Calls) -> None:
    live = calls.handle(may_call=OPEN)
    calls.answer_of_next_hop = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\ntoken-number-2"
    assert (await calls.ask(bearer(live))).status == 200
    calls.answer_of_next_hop = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\ntoken-number-1"
    told = await calls.ask(bearer(live))
    assert (told.status, told.reason) == (502, "credential_exposed")
    assert b"token-number" not in told.body


async def test_a_token_that_the_host_does_not_believe_is_traded_again(calls: Calls) -> None:
    live = calls.handle(may_call=OPEN)
    calls.answer_of_next_hop = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    assert (await calls.ask(bearer(live))).status == 401
    assert (await calls.ask(bearer(live))).status == 401
    assert calls.provider.trades == 1
    calls.now += 10
    await calls.ask(bearer(live))
    await calls.ask(bearer(live))
    assert calls.provider.trades == 2


async def test_the_workload_handle_opens_such_a_route_only_where_it_is_listed(calls: Calls) -> None:
    own = calls.handles.own = WorkloadHandle(bytes(32), 300.0, monotonic=lambda: 0.0)
    assert (await calls.ask(bearer(own.current.handle))).reason == "call_not_allowed"
    assert (calls.provider.trades, calls.left) == (0, b"")
    calls.policy = replace(calls.policy, own_may_call=frozenset({"model"}))
    assert (await calls.ask(bearer(own.current.handle))).status == 200
    record = (await calls.records())[1]
    assert (record["op"], record["subject"]) == ("own", None)
    assert str(record["credential"]).startswith("federate:anthropic:")
