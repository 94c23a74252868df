from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from delegation_core.decide import accept_issued, decide_inbound, delegate
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.inbound_routes import InboundRoutes
from delegation_core.plan import Delegation
from delegation_core.policy import Deny, Policy
from sidecar.exchange.exchanges import Exchanges
from sidecar.identity.svid import VerifiedPeer
from sidecar.proxy.journeys.revalidation import Guard, judge_call, judge_peer, judge_request, judge_served
from sidecar.proxy.journeys.snapshot import Snapshot
from tests.core.test_reevaluate import KEY, Keys, with_inbound
from tests.core.world import (
    FRONT,
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    login,
    plan,
    signed,
)
from tests.fakes.guard import FakeGuard

PERMIT = decide_inbound(signed(INBOUND_CLAIMS), peer=PLANNER, route=SEARCH, key=KEY, policy=POLICY, now=NOW)


@dataclass
class Request:
    """The request behind a handle."""

    delegation: Delegation
    guard: Guard | None


def snapshot(policy: Policy = POLICY) -> Snapshot:
    return Snapshot(policy=policy, keys=cast("Any", Keys()), exchanges=Exchanges(), agent=None)


def withdrawn() -> FakeGuard:
    guard = FakeGuard()
    guard.withdrawn = True
    return guard


def reason_of(judge: Any) -> Reason | None:
    try:
        judge()
    except SidecarError as error:
        return error.reason
    return None


LATER = NOW + 7200  # past the end of every certificate


@pytest.mark.parametrize("now", [NOW, LATER])
def test_a_peer_stands_though_its_certificate_has_run_out(now: int) -> None:
    guard = FakeGuard()
    judge_peer(guard, now)
    assert guard.checked[-1] == min(now, guard.until - 1)


@pytest.mark.parametrize("now", [NOW, LATER])
def test_a_peer_does_not_stand_when_trust_in_it_is_withdrawn(now: int) -> None:
    with pytest.raises(Denied) as refused:
        judge_peer(withdrawn(), now)
    assert refused.value.reason is Reason.UNTRUSTED_CHAIN


class NotYetValid(FakeGuard):
    """The proof of a peer whose certificate begins after ``NOW``."""

    def check(self, now: int) -> VerifiedPeer:
        if now <= NOW:
            raise Denied(Reason.UNTRUSTED_CHAIN, "not valid yet")
        return super().check(now)


def test_a_peer_does_not_stand_before_its_certificate_begins() -> None:
    judge_peer(NotYetValid(), NOW + 1)
    with pytest.raises(Denied) as refused:
        judge_peer(NotYetValid(), NOW)
    assert refused.value.reason is Reason.UNTRUSTED_CHAIN


DENIED = replace(POLICY, deny=Deny(subjects=frozenset({(None, "alice")})))
PEERLESS = with_inbound(peers=frozenset({FRONT}))
MOVED = with_inbound(path="/other")
GONE = replace(POLICY, inbound=InboundRoutes([replace(SEARCH, name="other", path="/other")]))

STANDING: dict[str, tuple[Policy, bool, Reason | None, Reason | None]] = {  # of the request, of its handle
    "nothing has changed": (POLICY, True, None, None),
    "trust in its peer is gone": (POLICY, False, Reason.UNTRUSTED_CHAIN, Reason.UNTRUSTED_CHAIN),
    "denied": (DENIED, True, Reason.POLICY_DENIED, Reason.POLICY_DENIED),
    "its peer may call no more": (PEERLESS, True, Reason.POLICY_DENIED, Reason.POLICY_DENIED),
    "its route is elsewhere": (MOVED, True, Reason.NO_ROUTE, None),
    "its route is gone": (GONE, True, Reason.NO_ROUTE, None),  # and opens nothing any more, as the call reports
}


@pytest.mark.parametrize(("policy", "trusted", "of_request", "of_handle"), STANDING.values(), ids=list(STANDING.keys()))
def test_a_request_and_its_handle_stand_as_long_as_they_would_be_permitted(
    policy: Policy, trusted: bool, of_request: Reason | None, of_handle: Reason | None
) -> None:
    guard = FakeGuard() if trusted else withdrawn()
    in_force = snapshot(policy)
    assert (
        reason_of(
            lambda: judge_request(PERMIT, guard, in_force, method="POST", path="/search", operation=None, now=NOW)
        )
        is of_request
    )
    served = Request(delegate(PERMIT), guard)
    assert reason_of(lambda: judge_served(served, in_force, NOW)) is of_handle


def test_a_logins_handle_is_for_the_call_to_judge() -> None:
    judge_served(Request(login(), None), snapshot(DENIED), NOW)


CALLS: dict[str, tuple[Policy, FakeGuard | None, FakeGuard | None, Reason | None]] = {  # next hop, peer of its request
    "nothing has changed": (POLICY, FakeGuard(), FakeGuard(), None),
    "not connected, of a login": (POLICY, None, None, None),
    "trust in the next hop is gone": (POLICY, withdrawn(), FakeGuard(), Reason.UNTRUSTED_CHAIN),
    "trust in the peer of its request is gone": (POLICY, FakeGuard(), withdrawn(), Reason.UNTRUSTED_CHAIN),
    "the peer of its request may call no more": (PEERLESS, FakeGuard(), FakeGuard(), Reason.POLICY_DENIED),
    "denied": (DENIED, FakeGuard(), FakeGuard(), Reason.POLICY_DENIED),
}


@pytest.mark.parametrize(("policy", "next_hop", "peer", "reason"), CALLS.values(), ids=list(CALLS.keys()))
def test_a_call_stands_on_itself_on_the_next_hop_and_on_its_request(
    policy: Policy, next_hop: FakeGuard | None, peer: FakeGuard | None, reason: Reason | None
) -> None:
    delegation = delegate(PERMIT)
    issued = accept_issued(signed(ISSUED_CLAIMS), plan=plan(delegation), key=KEY, policy=POLICY, now=NOW)
    served = None if peer is None else Request(delegation, peer)
    assert reason_of(lambda: judge_call(issued, served, next_hop, snapshot(policy), NOW)) is reason
