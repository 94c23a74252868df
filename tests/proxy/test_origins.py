from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Hashable
from dataclasses import replace

import pytest

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.route import OutboundRoute, Upstream
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.handshake import PeerGuard
from sidecar.identity.proofs import Proofs
from sidecar.proxy.journeys.origins import Origins
from sidecar_dev.pki import TrustDomainAuthority
from tests.core.world import TO_CRM, WRITER
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN

OTHER = SpiffeId("spiffe://acme.example/agent/other")
MAIL = replace(TO_CRM, name="mail", host="mail.mesh", peer=SpiffeId("spiffe://acme.example/tool/mail"))
PLAIN = replace(TO_CRM, name="plain", peer=None, upstream=Upstream(scheme="http", host="127.0.0.1", port=8080))


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TRUST_DOMAIN)


class Pool:
    """A pool that records its keys."""

    def __init__(self) -> None:
        self.keys: list[Hashable] = []

    def retire(self, of: Callable[[Hashable], bool]) -> None:
        self.keys = [key for key in self.keys if not of(key)]


@pytest.fixture
def own(authority: TrustDomainAuthority) -> OwnIdentity:
    return OwnIdentity(authority, WRITER)


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def origins(own: OwnIdentity, pool: Pool) -> Origins:
    return Origins(own, time.time, pool.retire)


def test_a_route_has_one_origin(origins: Origins) -> None:
    origin = origins.of(TO_CRM, WRITER)
    assert origins.of(TO_CRM, WRITER) is origin
    assert (origin.host, origin.port) == ("crm.internal", 7443)
    assert origin.tls is not None
    assert origin.still_good is not None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(TO_CRM, peer=MAIL.peer), id="another peer"),
        pytest.param(replace(TO_CRM, upstream=replace(TO_CRM.upstream, host="other")), id="another host"),
        pytest.param(replace(TO_CRM, upstream=replace(TO_CRM.upstream, port=1)), id="another port"),
    ],
)
def test_connections_are_never_shared_with_another_target(origins: Origins, other: OutboundRoute) -> None:
    assert origins.of(TO_CRM, WRITER).key != origins.of(other, WRITER).key


def test_with_a_renewed_svid_calls_go_out_on_connections_of_their_own(
    origins: Origins, own: OwnIdentity, pool: Pool
) -> None:
    before, plain = origins.of(TO_CRM, WRITER), origins.of(PLAIN, WRITER)
    pool.keys = [before.key, plain.key]
    own.become(WRITER)
    assert origins.of(TO_CRM, WRITER).key != before.key
    assert pool.keys == [plain.key]  # without our own identity, none can be old


def test_new_bundles_alone_change_no_key(origins: Origins, own: OwnIdentity, pool: Pool) -> None:
    before = origins.of(TO_CRM, WRITER)
    pool.keys = [before.key]
    own.renew_bundles()
    assert origins.of(TO_CRM, WRITER) is before
    assert pool.keys == [before.key]


@pytest.mark.parametrize("now", [pytest.param(None, id="withdrawn"), pytest.param(OTHER, id="another's")])
def test_a_call_that_was_decided_for_an_identity_that_is_gone_does_not_leave(
    origins: Origins, own: OwnIdentity, pool: Pool, now: SpiffeId | None
) -> None:
    pool.keys = [origins.of(TO_CRM, WRITER).key]
    own.become(now)
    with pytest.raises(Unavailable) as refused:
        origins.of(TO_CRM, WRITER)
    assert refused.value.reason is Reason.NOT_READY
    assert pool.keys == []


def test_when_it_is_back_the_call_leaves(origins: Origins, own: OwnIdentity) -> None:
    own.become(None)
    own.become(WRITER)
    assert origins.of(TO_CRM, WRITER).tls is not None


class Transport(asyncio.BaseTransport):
    """A connection to a peer whose certificate ends at ``not_after``."""

    def __init__(self, own: OwnIdentity, authority: TrustDomainAuthority, not_after: int) -> None:
        issued = authority.issue_x509(OTHER)
        guard = PeerGuard(own, issued.chain_der, Proofs(), now=int(time.time()))
        guard.peer = replace(guard.peer, not_after=not_after)
        context = own.current.client_context if own.current else pytest.fail("no identity")
        tls = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        tls.guard = guard  # type: ignore[attr-defined]
        super().__init__({"ssl_object": tls})


@pytest.mark.parametrize(
    ("age_s", "peers_s", "life_s"),
    [
        pytest.param(0, 7200, 1800, id="half of our own svid's life"),
        pytest.param(2700, 7200, 900, id="never past its end"),
        pytest.param(0, 600, 600, id="never past the peer's"),
        pytest.param(3600, 7200, 0, id="at its end"),
        pytest.param(0, 0, 0, id="at the peer's end"),
    ],
)
def test_a_connection_lives_no_longer_than_both_identities_are_fresh(
    own: OwnIdentity, authority: TrustDomainAuthority, age_s: int, peers_s: int, life_s: int
) -> None:
    assert own.current is not None
    not_before, not_after = own.current.svid.not_before, own.current.svid.not_after
    half = (not_after - not_before) / 2
    now = float(not_after - 3600 + age_s)
    origin = Origins(own, lambda: now, Pool().retire).of(TO_CRM, WRITER)
    assert origin.life_s is not None
    peers_end = int(now) + peers_s
    assert origin.life_s(Transport(own, authority, peers_end)) == min(half, life_s if life_s != 1800 else half)


def test_without_an_identity_a_new_connection_has_no_life(own: OwnIdentity, authority: TrustDomainAuthority) -> None:
    origin = Origins(own, time.time, Pool().retire).of(TO_CRM, WRITER)
    transport = Transport(own, authority, int(time.time()) + 3600)
    own.become(None)
    assert origin.life_s is not None
    assert origin.life_s(transport) == 0.0


def test_two_routes_to_the_same_peer_share_their_connections(origins: Origins) -> None:
    by_prefix = replace(TO_CRM, name="crm2", host=None, prefix="/crm")
    assert origins.of(TO_CRM, WRITER).key == origins.of(by_prefix, WRITER).key
    assert origins.of(TO_CRM, WRITER).tls is origins.of(by_prefix, WRITER).tls


def test_each_peer_has_a_context_of_its_own(origins: Origins) -> None:
    assert origins.of(TO_CRM, WRITER).tls is not origins.of(MAIL, WRITER).tls


def test_plain_http_names_nobody_and_checks_nobody(origins: Origins) -> None:
    origin = origins.of(PLAIN, WRITER)
    assert (origin.tls, origin.still_good) == (None, None)


def test_tls_with_nobody_named_is_refused_instead_of_sent_in_the_clear(origins: Origins) -> None:
    with pytest.raises(Denied) as refused:
        origins.of(replace(TO_CRM, peer=None), WRITER)
    assert refused.value.reason is Reason.UPSTREAM_IDENTITY
