from __future__ import annotations

from dataclasses import replace

import pytest

from delegation_core.errors import Reason, Unavailable
from delegation_core.policy import Policy
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.exchanges import Exchanges
from sidecar.identity.jwks import IssuerKeys
from sidecar.proxy.journeys.snapshot import Setup, Snapshots
from sidecar.wire.dialer import Origin
from tests.core.world import POLICY, WRITER
from tests.identity.fixed_source import FixedSource

OTHER = SpiffeId("spiffe://acme.example/agent/other")
AGENT = Origin("127.0.0.1", 8080, key="agent")


def make_policy(workload: SpiffeId, number: int) -> Policy:
    return replace(POLICY, workload=workload, number=number)


def setup(agent: Origin | None = AGENT, keys: IssuerKeys | None = None) -> Setup:
    keys = keys or IssuerKeys((), FixedSource(None))
    return Setup(
        make_policy=make_policy, keys=keys, exchanges=Exchanges(), agent=agent, needed_issuers=frozenset({"a", "b"})
    )


def test_without_an_identity_there_is_nothing_to_judge_by() -> None:
    with pytest.raises(Unavailable) as refused:
        Snapshots(setup()).now()
    assert refused.value.reason is Reason.NOT_READY


def test_while_no_new_call_is_served_what_has_begun_is_judged() -> None:
    snapshots = Snapshots(setup())
    with pytest.raises(Unavailable):
        snapshots.in_force()
    snapshots.follow(WRITER)
    snapshots.closed = "a way round"
    assert snapshots.in_force() is snapshots.current
    with pytest.raises(Unavailable, match="a way round"):
        snapshots.now()


def test_with_an_identity_there_is_and_a_renewal_changes_nothing() -> None:
    snapshots = Snapshots(setup())
    snapshots.follow(WRITER)
    first = snapshots.now()
    snapshots.follow(SpiffeId(str(WRITER)))
    assert snapshots.now() is first
    assert (first.policy.workload, first.policy.number) == (WRITER, 1)


def test_another_identity_is_another_snapshot() -> None:
    snapshots = Snapshots(setup())
    snapshots.follow(WRITER)
    snapshots.follow(OTHER)
    assert (snapshots.now().policy.workload, snapshots.now().policy.number) == (OTHER, 2)


def test_a_withdrawn_identity_takes_the_snapshot_with_it_and_the_next_has_a_new_number() -> None:
    snapshots = Snapshots(setup())
    snapshots.follow(WRITER)
    snapshots.follow(None)
    with pytest.raises(Unavailable):
        snapshots.now()
    snapshots.follow(WRITER)
    assert snapshots.now().policy.number == 2


def test_a_reload_is_seen_by_the_next_request_and_not_by_the_one_under_way() -> None:
    snapshots = Snapshots(setup())
    snapshots.follow(WRITER)
    under_way = snapshots.now()
    elsewhere = Origin("127.0.0.1", 8081, key="elsewhere")
    snapshots.change(setup(elsewhere))
    assert under_way.require_agent() is AGENT
    assert snapshots.now().require_agent() is elsewhere
    assert snapshots.now().policy.number == under_way.policy.number + 1


def test_a_reload_without_an_identity_counts_once_there_is_one() -> None:
    snapshots = Snapshots(setup())
    snapshots.change(setup(None))
    with pytest.raises(Unavailable):
        snapshots.now()
    snapshots.follow(WRITER)
    with pytest.raises(Unavailable) as no_agent:
        snapshots.now().require_agent()
    assert no_agent.value.reason is Reason.UPSTREAM_UNREACHABLE
    with pytest.raises(Unavailable) as no_exchange:
        snapshots.now().exchange("https://sts.acme.example")
    assert no_exchange.value.reason is Reason.STS_UNAVAILABLE


def test_issuers_without_keys_are_named_in_order() -> None:
    assert setup().without_keys() == ["a", "b"]
