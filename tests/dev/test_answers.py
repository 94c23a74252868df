from __future__ import annotations

import json

import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev import answers
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import NoIdentityError, Registry

ACME = TrustDomain("acme.example")
PARTNER = TrustDomain("partner.example")
NOW = 1_790_000_000
PLANNER = SpiffeId("spiffe://acme.example/agent/planner")
SECOND = SpiffeId("spiffe://acme.example/agent/second")
STS = "https://sts.acme.example"
ENTRIES = (
    Entry(spiffe_id=PLANNER, selectors=Selectors(uid=1000), hint="internal", ttl_s=60),
    Entry(spiffe_id=SECOND, selectors=Selectors(uid=1000)),
)


@pytest.fixture
def registry() -> Registry:
    authorities = [TrustDomainAuthority(ACME), TrustDomainAuthority(PARTNER)]
    return Registry(authorities, ENTRIES, clock=lambda: float(NOW))


def federate(registry: Registry) -> None:
    registry.replace_entries(
        [Entry(spiffe_id=PLANNER, selectors=Selectors(uid=1000), federates_with=frozenset({PARTNER}))]
    )


def test_x509_svids_come_with_key_bundle_and_hint_the_default_first(registry: Registry, peer: Peer) -> None:
    message = answers.x509_svids(registry, peer).message
    first, second = message.svids
    svid = registry.svid(ENTRIES[0])
    assert (first.spiffe_id, first.hint) == (PLANNER, "internal")
    assert (first.x509_svid, first.x509_svid_key) == (b"".join(svid.chain_der), svid.key_der)
    assert first.bundle == registry.authority(ACME).bundle_der()
    assert (second.spiffe_id, second.hint) == (SECOND, "")
    assert dict(message.federated_bundles) == {}


def test_an_answer_is_due_again_when_its_first_svid_is_half_used_up(registry: Registry, peer: Peer) -> None:
    assert answers.x509_svids(registry, peer).renew_at == NOW + 30


def test_bundles_are_keyed_by_the_trust_domains_id_and_come_with_federation_only(
    registry: Registry, peer: Peer
) -> None:
    own, partner = registry.authority(ACME), registry.authority(PARTNER)
    assert dict(answers.x509_bundles(registry, peer).message.bundles) == {"spiffe://acme.example": own.bundle_der()}
    federate(registry)
    assert dict(answers.x509_svids(registry, peer).message.federated_bundles) == {
        "spiffe://partner.example": partner.bundle_der()
    }
    assert dict(answers.x509_bundles(registry, peer).message.bundles) == {
        "spiffe://acme.example": own.bundle_der(),
        "spiffe://partner.example": partner.bundle_der(),
    }
    assert dict(answers.jwt_bundles(registry, peer).message.bundles) == {
        "spiffe://acme.example": own.jwt_bundle(),
        "spiffe://partner.example": partner.jwt_bundle(),
    }


def test_jwt_bundles_hold_the_keys_of_jwt_svids_only(registry: Registry, peer: Peer) -> None:
    (bundle,) = answers.jwt_bundles(registry, peer).message.bundles.values()
    assert [key["kid"] for key in json.loads(bundle)["keys"]] == [registry.authority(ACME).current.jwt_kid]


def test_jwt_svids_are_for_all_identities_or_the_one_asked_for(registry: Registry, peer: Peer) -> None:
    both = answers.jwt_svids(registry, peer, [STS], "").svids
    assert [(svid.spiffe_id, svid.hint) for svid in both] == [(PLANNER, "internal"), (SECOND, "")]
    (second,) = answers.jwt_svids(registry, peer, [STS], SECOND).svids
    assert second.spiffe_id == SECOND


def test_a_jwt_svid_for_another_workload_is_not_given(registry: Registry, peer: Peer) -> None:
    with pytest.raises(NoIdentityError):
        answers.jwt_svids(registry, peer, [STS], "spiffe://acme.example/agent/other")


@pytest.mark.parametrize(
    "ask",
    [
        answers.x509_svids,
        answers.x509_bundles,
        answers.jwt_bundles,
        lambda registry, peer: answers.jwt_svids(registry, peer, [STS], ""),
        lambda registry, peer: answers.validate_jwt_svid(registry, peer, STS, "x"),
    ],
    ids=["x509 svids", "x509 bundles", "jwt bundles", "jwt svids", "validate"],
)
def test_a_process_without_an_identity_gets_no_answer_at_all(registry: Registry, peer: Peer, ask) -> None:  # type: ignore[no-untyped-def]
    registry.replace_entries([])
    with pytest.raises(NoIdentityError):
        ask(registry, peer)


def test_a_valid_jwt_svid_is_answered_with_its_subject_and_claims(registry: Registry, peer: Peer) -> None:
    token = registry.authority(ACME).issue_jwt(SECOND, STS, issued_at=NOW)
    answer = answers.validate_jwt_svid(registry, peer, STS, token)
    assert answer.spiffe_id == SECOND
    claims = answer.claims
    assert (claims["sub"], list(claims["aud"]), claims["exp"]) == (SECOND, [STS], NOW + 300)


def refused(registry: Registry, peer: Peer, token: str, audience: str = STS) -> Reason:
    with pytest.raises(Denied) as caught:
        answers.validate_jwt_svid(registry, peer, audience, token)
    return caught.value.reason


def test_a_jwt_svid_for_another_audience_is_not_valid(registry: Registry, peer: Peer) -> None:
    token = registry.authority(ACME).issue_jwt(SECOND, STS, issued_at=NOW)
    assert refused(registry, peer, token, audience="https://other") is Reason.WRONG_AUDIENCE


def test_an_expired_jwt_svid_is_not_valid(registry: Registry, peer: Peer) -> None:
    token = registry.authority(ACME).issue_jwt(SECOND, STS, issued_at=NOW - 3600)
    assert refused(registry, peer, token) is Reason.TOKEN_EXPIRED


def test_a_foreign_jwt_svid_is_valid_only_for_a_process_that_federates(registry: Registry, peer: Peer) -> None:
    foreign = SpiffeId("spiffe://partner.example/a")
    token = registry.authority(PARTNER).issue_jwt(foreign, STS, issued_at=NOW)
    assert refused(registry, peer, token) is Reason.UNKNOWN_KEY
    federate(registry)
    assert answers.validate_jwt_svid(registry, peer, STS, token).spiffe_id == foreign


def test_a_partners_key_does_not_vouch_for_our_trust_domain(registry: Registry, peer: Peer) -> None:
    federate(registry)
    impostor = TrustDomainAuthority(ACME, authority=registry.authority(PARTNER).current)
    assert refused(registry, peer, impostor.issue_jwt(PLANNER, STS, issued_at=NOW)) is Reason.UNKNOWN_KEY


def test_a_key_that_was_dropped_vouches_for_nobody(registry: Registry, peer: Peer) -> None:
    token = registry.authority(ACME).issue_jwt(SECOND, STS, issued_at=NOW)
    registry.rotate()
    assert answers.validate_jwt_svid(registry, peer, STS, token).spiffe_id == SECOND
    registry.drop_old()
    assert refused(registry, peer, token) is Reason.UNKNOWN_KEY
