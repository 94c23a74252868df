from __future__ import annotations

import time
from dataclasses import replace

import pytest

from sidecar.delegation.route import OutboundRoute, Upstream
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.dev.pki import TrustDomainAuthority
from sidecar.errors import Denied, Reason
from sidecar.proxy.origins import Origins, authority_of
from tests.delegation.world import TO_CRM, WRITER
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.tokens import TRUST_DOMAIN

OTHER = SpiffeId("spiffe://acme.example/agent/other")
MAIL = replace(TO_CRM, name="mail", host="mail.mesh", peer=SpiffeId("spiffe://acme.example/tool/mail"))
PLAIN = replace(TO_CRM, name="plain", peer=None, upstream=Upstream(scheme="http", host="127.0.0.1", port=8080))


@pytest.fixture(scope="module")
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TRUST_DOMAIN)


@pytest.fixture
def origins(authority: TrustDomainAuthority) -> Origins:
    return Origins(OwnIdentity(authority, WRITER), time.time)


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


def test_connections_made_under_one_identity_are_not_used_under_another(origins: Origins) -> None:
    before = origins.of(TO_CRM, WRITER)
    assert origins.of(TO_CRM, OTHER).key != before.key
    assert origins.of(TO_CRM, WRITER).key == before.key


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


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("crm.internal", 7443, b"crm.internal:7443"), ("::1", 80, b"[::1]:80"), ("10.0.0.1", 443, b"10.0.0.1:443")],
)
def test_the_host_field_names_the_upstream(host: str, port: int, expected: bytes) -> None:
    assert authority_of(Upstream(scheme="https", host=host, port=port)) == expected
