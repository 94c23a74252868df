from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from delegation_core.decide import accept_issued, decide_verified, delegate
from delegation_core.errors import Denied, Reason
from delegation_core.human import Human
from sidecar.proxy.journeys.forward import Forwarder, Forwarding
from sidecar.proxy.journeys.headers import FROM_AGENT
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from tests.core.world import (
    INBOUND_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    PLANNER,
    POLICY,
    SEARCH,
    delegation,
    plan,
    signed,
    verification_key,
    verified,
)
from tests.proxy.test_snapshot import setup


class LooksLikeAPermit:
    """Has everything that a permit has."""

    mode = "delegated"
    peer = route = token = plan = None


@pytest.mark.parametrize("permit", [None, True, "permit", LooksLikeAPermit()])
def test_nothing_is_forwarded_without_a_permit(permit: Any) -> None:
    nothing: Any = None
    watch = Watch(Snapshots(setup()), nothing, wall=time.time, monotonic=time.monotonic)
    forwarder = Forwarder(UpstreamPool(ClientLimits()), FROM_AGENT, watch, ServerLimits())
    origin = Origin("127.0.0.1", 1, "key")
    with pytest.raises(TypeError):
        Forwarding(forwarder, permit, nothing, nothing, nothing, origin, b"/", FROM_AGENT)


INBOUND = decide_verified(
    verified(INBOUND_CLAIMS | {"auth_time": NOW}),
    peer=PLANNER,
    route=replace(SEARCH, human=Human(max_age_s=60)),
    policy=POLICY,
    now=NOW,
)
ISSUED = accept_issued(signed(ISSUED_CLAIMS), plan=plan(), key=verification_key(), policy=POLICY, now=NOW)


@pytest.mark.parametrize(
    ("permit", "served", "ends_at"),
    [
        pytest.param(INBOUND, None, NOW + 61, id="a request"),
        pytest.param(ISSUED, delegate(INBOUND), NOW + 61, id="a call that belongs to it"),
        pytest.param(ISSUED, delegation(), float("inf"), id="a call of a request that needs no fresh login"),
        pytest.param(ISSUED, None, float("inf"), id="a call with a login token"),
    ],
)
def test_it_ends_at_the_latest_when_the_users_login_is_too_old(permit: Any, served: Any, ends_at: float) -> None:
    nothing: Any = None
    watch = Watch(Snapshots(setup()), nothing, wall=time.time, monotonic=time.monotonic)
    forwarder = Forwarder(UpstreamPool(ClientLimits()), FROM_AGENT, watch, ServerLimits())
    origin = Origin("127.0.0.1", 1, "key")
    request: Any = None if served is None else SimpleNamespace(delegation=served)
    made = Forwarding(forwarder, permit, nothing, nothing, nothing, origin, b"/", FROM_AGENT, request)
    assert made.login_expires_at == ends_at


@pytest.mark.parametrize("refused", [False, True], ids=["permitted-still", "refused-meanwhile"])
def test_a_request_that_waited_for_its_record_is_judged_again_before_it_goes(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def admit(_one: object) -> None:
        if refused:
            raise Denied(Reason.POLICY_DENIED)

    written: list[Any] = []
    ends: list[Any] = []
    went: list[Any] = []
    monkeypatch.setattr(Forwarding, "start", lambda one: went.append(one))
    monkeypatch.setattr(Forwarding, "_finish", lambda _one, error: ends.append(error.reason))
    watch: Any = SimpleNamespace(admit=admit, young=set())
    entry: Any = SimpleNamespace(open_first=written.append, forwarded=lambda: None)
    forwarder = Forwarder(UpstreamPool(ClientLimits()), FROM_AGENT, watch, ServerLimits())
    permit: Any = decide_verified(
        verified(INBOUND_CLAIMS), peer=PLANNER, route=replace(SEARCH, record_first=True), policy=POLICY, now=NOW
    )
    nothing: Any = None
    made = Forwarding(forwarder, permit, nothing, nothing, entry, Origin("127.0.0.1", 1, "key"), b"/", FROM_AGENT)
    waiter: Any = SimpleNamespace(waited=False)
    made.begin(waiter)
    assert (went, ends) == ([], [])
    written[0](None)
    assert (went, ends) == (([], [Reason.POLICY_DENIED]) if refused else ([made], []))
