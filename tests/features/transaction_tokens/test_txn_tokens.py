"""Transaction tokens at the proxy: from peers verified and kept, to next hops passed on, from agents never taken."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.bearer import parse_txn_token
from delegation_core.decide import accept_issued
from delegation_core.errors import Denied
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.keyset import VerificationKey
from delegation_core.outbound_routes import OutboundRoutes
from delegation_core.txn_token import TxnToken, verify_txn_token
from sidecar.exchange.cache import Issued
from sidecar.features.transaction_tokens.txn_tokens import InboundTxnTokens, OutboundTxnTokens
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.headers import to_agent
from sidecar.proxy.journeys.workload_handle import SECRET_BYTES, WorkloadHandle
from tests.core.world import (
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    POLICY,
    SEARCH,
    STS,
    STS_TRUST,
    TO_CRM,
    delegation,
    signed,
    verification_key,
)
from tests.fakes.tokens import ABSENT, TokenMint
from tests.fakes.txn_tokens import SOURCE, TTS, txn_token
from tests.features.outside.test_agent_key import fields
from tests.proxy.agent_calls import AgentCalls, Awaited, Tokens
from tests.proxy.agent_calls import bearer as shown_by_agent
from tests.proxy.peer_calls import PeerCalls, bearer
from tests.proxy.warm import ANSWER

HEADER = "Txn-Token"


class Keys:
    """Keys of the token service and, once ``known``, of the transaction token service."""

    generation = 1

    def __init__(self) -> None:
        self.known = True
        self.awaited: list[str | None] = []

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        if issuer != TTS.issuer:
            return verification_key()
        return TTS.key if self.known and kid == TTS.kid else None

    async def wait_for_key(self, _issuer: str, kid: str | None) -> None:
        self.awaited.append(kid)
        self.known = True


class Peer(PeerCalls):
    """A peer's requests to a sidecar that verifies transaction tokens."""

    def __init__(self, folder: Path, *, verifies: bool = True, **route: Any) -> None:
        self.keys = Keys()
        self.tasks = Awaited()
        snapshots: Any = SimpleNamespace(now=lambda: SimpleNamespace(keys=self.keys))
        handles: Any = SimpleNamespace(carry=lambda handle, token: self.warm.handles.carry(handle, token))
        self.tokens = InboundTxnTokens(
            SOURCE, snapshots=snapshots, handles=handles, tasks=self.tasks, clock=lambda: self.warm.now, edits=to_agent
        )
        super().__init__(folder, **({"edits": self.tokens.edits} if verifies else {}))
        self.policy = replace(POLICY, inbound=InboundRoutes([replace(SEARCH, **route)]))

    @property
    def handles(self) -> Handles:
        return self.warm.handles

    def carried(self) -> TxnToken | None:
        """Return the token that the calls of the request in progress carry."""
        (handle,) = self.handles.alive
        return self.handles.find(handle).delegation.txn_token


def access(**changes: Any) -> tuple[str, str]:
    return bearer(signed({name: v for name, v in {**INBOUND_CLAIMS, **changes}.items() if v is not ABSENT}).raw)


async def test_a_token_of_the_request_is_kept_for_its_calls_and_hidden_from_the_agent(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    raw = txn_token()
    peer.send(access(), (HEADER, raw))
    carried = peer.carried()
    assert carried is not None
    assert (carried.raw, carried.txn) == (raw, "txn-1")
    assert fields(peer.arrived, "txn-token") == []
    assert raw.encode() not in peer.arrived


async def test_a_route_that_passes_tokens_passes_it_too(tmp_path: Path) -> None:
    peer = Peer(tmp_path, pass_token=True)
    raw = txn_token()
    assert peer.call(access(), (HEADER, raw)) == (200, None)
    assert fields(peer.arrived, "txn-token") == [raw]


@pytest.mark.parametrize("name", ["Txn-Token", "txn-token", "Txn_Token", "txn.token"])
async def test_where_it_is_not_verified_it_is_removed(tmp_path: Path, name: str) -> None:
    peer = Peer(tmp_path, verifies=False, pass_token=True)
    peer.send(access(), (name, txn_token()))
    assert txn_token().split(".")[0].encode() not in peer.arrived.partition(b"delegation-token")[0]
    assert fields(peer.arrived, "txn-token", "txn_token", "txn.token") == []
    assert peer.carried() is None


async def test_a_request_without_one_passes_because_nothing_is_decided_by_it(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    peer.send(access())
    assert peer.carried() is None


@pytest.mark.parametrize(
    ("shown", "status", "reason"),
    [
        pytest.param([txn_token(sub="bob")], 403, "txn_token_refused", id="another user"),
        pytest.param([txn_token(txn="txn-2")], 403, "txn_token_refused", id="another transaction"),
        pytest.param([txn_token(aud="partner.example")], 403, "txn_token_refused", id="another domain"),
        pytest.param([txn_token(exp=NOW - 60)], 403, "txn_token_refused", id="expired"),
        pytest.param([txn_token({"typ": "JWT"})], 403, "txn_token_refused", id="another type"),
        pytest.param(
            [txn_token(mint=TokenMint(TTS.issuer, kid="t1", key=9))], 403, "txn_token_refused", id="forged"
        ),
        pytest.param(["nonsense"], 403, "txn_token_refused", id="no token"),
        pytest.param([""], 403, "txn_token_refused", id="empty"),
        pytest.param([f"{txn_token()}, {txn_token()}"], 403, "txn_token_refused", id="a list"),
        pytest.param([txn_token(), txn_token()], 400, "header_malformed", id="two"),
    ],
)  # fmt: skip
async def test_any_other_token_stops_the_request(tmp_path: Path, shown: list[str], status: int, reason: str) -> None:
    peer = Peer(tmp_path)
    assert peer.call(access(), *((HEADER, one) for one in shown)) == (status, reason)
    assert peer.arrived == b""
    assert len(peer.handles) == 0
    (record,) = await peer.records()
    assert (record["decision"], record["reason"], record["status"]) == ("deny", reason, status)
    assert not any(len(one) > 20 and one in str(record) for one in shown)


async def test_records_name_the_transaction_and_never_hold_the_token(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    raw = txn_token(txn="txn-7")
    assert peer.call(access(txn=ABSENT), (HEADER, raw)) == (200, None)
    assert peer.call(access(txn="txn-7"), (HEADER, raw)) == (200, None)
    records = await peer.records()
    assert [record["txn"] for record in records] == ["txn-7", "txn-7"]
    assert raw not in str(records)


async def test_a_token_that_comes_again_is_not_verified_again_and_still_expires(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    raw = txn_token(exp=NOW + 60)
    assert peer.call(access(), (HEADER, raw)) == (200, None)
    peer.keys.known = False
    assert peer.call(access(), (HEADER, raw)) == (200, None)
    peer.warm.now = NOW + 91.0
    assert peer.call(access(), (HEADER, raw)) == (403, "txn_token_refused")


async def test_a_key_that_is_not_known_yet_is_fetched_for_the_next_request(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    peer.keys.known = False
    assert peer.call(access(), (HEADER, txn_token())) == (503, "keys_unavailable")
    await peer.tasks.done()
    assert peer.keys.awaited == [TTS.kid]
    assert peer.call(access(), (HEADER, txn_token())) == (200, None)


async def test_one_task_at_a_time_fetches_keys_however_many_tokens_name_unknown_ones(tmp_path: Path) -> None:
    peer = Peer(tmp_path)
    for number in range(20):
        other = txn_token({"kid": f"nobody's-{number}"})
        assert peer.call(access(), (HEADER, other)) == (503, "keys_unavailable")
    assert len(peer.tasks) == 1
    await peer.tasks.done()
    assert peer.keys.awaited == ["nobody's-0"]
    assert peer.call(access(), (HEADER, txn_token({"kid": "nobody's-20"}))) == (503, "keys_unavailable")
    await peer.tasks.done()
    assert peer.keys.awaited == ["nobody's-0", "nobody's-20"]


async def test_alice_of_another_issuer_is_not_the_one_that_the_token_names(tmp_path: Path) -> None:
    other = "https://sts.partner.example"
    peer = Peer(tmp_path, issuers=frozenset({STS, other}))
    peer.policy = replace(peer.policy, issuers={STS: STS_TRUST, other: replace(STS_TRUST, issuer=other)})
    theirs, ours = access(iss=other, txn=ABSENT), access(txn=ABSENT)
    assert peer.call(theirs) == (200, None)
    assert peer.call(theirs, (HEADER, txn_token())) == (403, "txn_token_refused")
    assert peer.call(ours, (HEADER, txn_token())) == (200, None)


@pytest.mark.parametrize(("second", "status", "lives"), [("alice", 200, True), ("bob", 403, False)])
async def test_a_refused_request_renews_no_lingering_handle_and_leaves_none(
    tmp_path: Path, second: str, status: int, lives: bool
) -> None:
    peer = Peer(tmp_path, linger_s=30.0)
    monotonic = 0.0
    peer.handles._monotonic = lambda: monotonic
    peer.send(access(), (HEADER, txn_token()))
    (handle,) = peer.handles.alive
    peer.warm.pool.agent.data_received(ANSWER)
    peer.warm.writes.write_all()
    monotonic = 29.0
    assert peer.call(access(), (HEADER, txn_token(sub=second)))[0] == status
    assert len(peer.handles) == (2 if lives else 1)
    monotonic = 31.0
    if lives:
        assert peer.handles.find(handle).ended_at == 0.0
        return
    with pytest.raises(Denied):
        peer.handles.find(handle)


# --- the agent's calls


def verified(**changes: object) -> TxnToken:
    return verify_txn_token(parse_txn_token(txn_token(**changes)), source=SOURCE, key=TTS.key, now=NOW)


class Agent(AgentCalls):
    """An agent's calls on a route that carries transaction tokens, unless it does not."""

    def __init__(self, folder: Path, *, carries: bool = True) -> None:
        super().__init__(folder, edits=OutboundTxnTokens(lambda: self.now).edits)
        self.policy = replace(POLICY, outbound=OutboundRoutes([replace(TO_CRM, txn_token=carries)]))

    def serving(self, token: TxnToken | None, **claims: Any) -> str:
        """Return the handle of a request that came with this transaction token."""
        handle = self.handle({**INBOUND_CLAIMS, **claims} if claims else None)
        if token is not None:
            self.handles.carry(handle, token)
        return handle


async def test_the_call_of_a_request_carries_its_token_unchanged_and_once(tmp_path: Path) -> None:
    agent, token = Agent(tmp_path), verified()
    answer = await agent.call([*shown_by_agent(agent.serving(token)), (HEADER, "forged"), ("txn_token", "forged")])
    assert answer.status == 200
    assert fields(agent.left, "txn-token", "txn_token") == [token.raw]
    (authorization,) = fields(agent.left, "authorization")
    assert token.raw not in authorization
    (record,) = await agent.records()
    assert record["txn"] == "txn-1"
    assert token.raw not in str(record)


async def test_records_of_calls_name_the_transaction_where_no_access_token_does(tmp_path: Path) -> None:
    class Nameless(Tokens):
        async def exchange(self, plan: Any, policy: Any) -> Issued:
            shown = {name: value for name, value in ISSUED_CLAIMS.items() if name != "txn"}
            permit = accept_issued(signed(shown), plan=plan, key=verification_key(), policy=policy, now=NOW)
            return Issued(permit, usable_until=NOW + 200, refresh_at=NOW + 100)

    agent = Agent(tmp_path)
    agent.exchanges.update(dict.fromkeys(agent.exchanges, Nameless()))  # type: ignore[arg-type]
    handle = agent.handle({name: value for name, value in INBOUND_CLAIMS.items() if name != "txn"})
    agent.handles.carry(handle, verified(txn="txn-7"))
    assert (await agent.call(shown_by_agent(handle))).status == 200
    assert (await agent.call(shown_by_agent(handle), host="mail.mesh")).status == 403
    allowed, attempt = await agent.records()
    assert (allowed["decision"], allowed["txn"]) == ("allow", "txn-7")
    assert (attempt["decision"], attempt["txn"]) == ("deny", "txn-7")


@pytest.mark.parametrize("carries", [True, False])
async def test_an_agent_cannot_send_one_of_its_own(tmp_path: Path, carries: bool) -> None:
    agent = Agent(tmp_path, carries=carries)
    token = None if carries else verified()
    answer = await agent.call([*shown_by_agent(agent.serving(token)), (HEADER, txn_token())])
    assert answer.status == 200
    assert b"txn-token" not in agent.left.lower()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sub": "bob"}, id="of another user"),
        pytest.param({"txn": "txn-2"}, id="of another transaction"),
        pytest.param({"exp": NOW - 1}, id="that has expired"),
    ],
)
async def test_a_token_that_does_not_go_with_the_access_token_stops_the_call(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    agent = Agent(tmp_path)
    answer = await agent.call(shown_by_agent(agent.serving(verified(**changes))))
    assert (answer.status, answer.reason) == (403, "txn_token_refused")
    assert agent.left == b""
    (record,) = await agent.records()
    assert (record["decision"], record["reason"]) == ("deny", "txn_token_refused")


async def test_where_a_chain_begins_the_issued_one_goes_along(tmp_path: Path) -> None:
    given: list[TxnToken] = []

    class Beginning(Tokens):
        async def exchange(self, plan: Any, policy: Any) -> Issued:
            issued = await super().exchange(plan, policy)
            given.append(verified(sub=issued.permit.token.subject, txn=issued.permit.token.txn))
            return issued.with_txn_token(given[-1])

    agent = Agent(tmp_path)
    agent.tokens = Beginning()
    agent.exchanges.update(dict.fromkeys(agent.exchanges, agent.tokens))
    own = replace(TO_CRM, token="self", txn_token=True)
    agent.policy = replace(POLICY, outbound=OutboundRoutes([own]), own_may_call=frozenset({own.name}))
    agent.handles.own = WorkloadHandle(bytes(SECRET_BYTES), 300)
    handle = next(iter(agent.handles.own.in_force()))
    assert (await agent.call(shown_by_agent(handle))).status == 200
    assert fields(agent.left, "txn-token") == [given[0].raw]


async def test_handles_and_plans_count_the_memory_of_their_transaction_tokens(tmp_path: Path) -> None:
    held: list[tuple[int, int]] = []
    for number, note in enumerate(("", "x" * 3000)):
        (folder := tmp_path / str(number)).mkdir()
        agent = Agent(folder)
        handle = agent.serving(verified(tctx={"note": note}))
        assert (await agent.call(shown_by_agent(handle))).status == 200
        agent.handles.end(handle)  # it lingers
        held.append((agent.handles.bytes, agent.outbound.plans.bytes))
    (handles, plans), (more_handles, more_plans) = held
    assert more_handles >= handles + 4000
    assert more_plans >= plans + 4000


def test_a_delegation_counts_the_memory_of_its_transaction_token() -> None:
    plain, token = delegation(), verified()
    assert replace(plain, txn_token=token).held_bytes == plain.held_bytes + token.held_bytes
    assert token.held_bytes > len(token.raw)


def test_another_worker_that_makes_a_call_of_the_request_gets_the_token_too() -> None:
    carrying = replace(delegation(), txn_token=verified())
    assert pickle.loads(pickle.dumps(carrying)).txn_token == carrying.txn_token
