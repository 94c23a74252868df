from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.identity.pinned_origin import leaf_of, life_s, still_trusted
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN, WRITER
from tests.proxy.test_origins import Transport

PEER = SpiffeId("spiffe://acme.example/agent/other")


def withdraw(own: OwnIdentity) -> None:
    own.become(None)


def trust_others(own: OwnIdentity) -> None:
    own.authority = TrustDomainAuthority(TRUST_DOMAIN)
    own.become(WRITER)


def renew(own: OwnIdentity) -> None:
    own.become(WRITER)


def nothing(_own: OwnIdentity) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "seconds_left", "trusted"),
    [
        pytest.param(nothing, 60, True, id="nothing has changed"),
        pytest.param(renew, 60, True, id="a renewed identity of our own"),
        pytest.param(withdraw, 60, False, id="our identity is gone"),
        pytest.param(trust_others, 60, False, id="its authority is gone"),
        pytest.param(nothing, 0, False, id="its certificate has ended"),
    ],
)
def test_a_kept_connection_is_judged_by_the_trust_of_now(
    happens: Callable[[OwnIdentity], None], seconds_left: int, trusted: bool
) -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    own, now = OwnIdentity(authority, WRITER), time.time()
    transport = Transport(own, authority, int(now) + seconds_left)
    happens(own)
    assert still_trusted(transport, now) is trusted


def test_a_connection_lives_half_as_long_as_our_own_svid() -> None:
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    own, now = OwnIdentity(authority, WRITER), time.time()
    assert own.current is not None
    svid = own.current.svid
    transport = Transport(own, authority, svid.not_after)
    assert life_s(own, transport, now) == pytest.approx((svid.not_after - svid.not_before) / 2)
    own.become(None)
    assert life_s(own, transport, now) == 0.0


def test_each_svid_has_a_leaf_of_its_own() -> None:
    own = OwnIdentity(TrustDomainAuthority(TRUST_DOMAIN), WRITER)
    first = leaf_of(own.current)
    own.renew_bundles()
    assert leaf_of(own.current) == first
    own.become(WRITER)
    assert leaf_of(own.current) != first
    assert leaf_of(None) is None
