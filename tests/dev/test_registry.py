from __future__ import annotations

import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.attestation import Peer
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import NoIdentityError, Registry, half_life

ACME = TrustDomain("acme.example")
PARTNER = TrustDomain("partner.example")
NOW = 1_790_000_000
ANY = Selectors(uid=1000)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def entry(path: str, *, selectors: Selectors = ANY, hint: str = "", domain: str = ACME, ttl_s: int = 3600) -> Entry:
    return Entry(spiffe_id=SpiffeId(f"spiffe://{domain}/{path}"), selectors=selectors, hint=hint, ttl_s=ttl_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(clock: Clock) -> Registry:
    return Registry([TrustDomainAuthority(ACME), TrustDomainAuthority(PARTNER)], [entry("a")], clock=clock)


def ids(registry: Registry, peer: Peer | None) -> list[str]:
    return [str(entry.spiffe_id) for entry in registry.entitlement(peer).entries]


def test_a_process_gets_every_entry_that_matches_it_in_their_order(registry: Registry, peer: Peer) -> None:
    registry.replace_entries([entry("b"), entry("other", selectors=Selectors(uid=1)), entry("a")])
    assert ids(registry, peer) == ["spiffe://acme.example/b", "spiffe://acme.example/a"]


def test_a_process_that_matches_nothing_has_no_identity(registry: Registry, peer: Peer) -> None:
    registry.replace_entries([entry("a", selectors=Selectors(pids=frozenset()))])
    with pytest.raises(NoIdentityError):
        registry.entitlement(peer)


def test_a_process_that_cannot_be_told_has_no_identity(registry: Registry) -> None:
    with pytest.raises(NoIdentityError):
        registry.entitlement(None)


def test_a_process_that_has_ended_has_no_identity(registry: Registry, peer: Peer) -> None:
    peer.close()
    with pytest.raises(NoIdentityError):
        registry.entitlement(peer)


def test_of_two_entries_with_one_hint_the_first_counts(registry: Registry, peer: Peer) -> None:
    registry.replace_entries([entry("a", hint="x"), entry("b", hint="x"), entry("c"), entry("d")])
    assert [identity[-1] for identity in ids(registry, peer)] == ["a", "c", "d"]


def test_a_process_knows_its_own_trust_domains_and_those_it_federates_with(registry: Registry, peer: Peer) -> None:
    assert set(registry.entitlement(peer).known) == {ACME}
    federating = Entry(
        spiffe_id=SpiffeId("spiffe://acme.example/f"), selectors=ANY, federates_with=frozenset({PARTNER})
    )
    registry.add_entry(federating)
    entitlement = registry.entitlement(peer)
    assert (set(entitlement.own), set(entitlement.federated)) == ({ACME}, {PARTNER})
    assert set(entitlement.known) == {ACME, PARTNER}


def test_an_svid_stays_the_same_until_half_of_its_life_is_over(registry: Registry, clock: Clock) -> None:
    short = entry("a", ttl_s=60)
    first = registry.svid(short)
    clock.now = NOW + 29.9
    assert registry.svid(short) is first
    clock.now = NOW + 30
    second = registry.svid(short)
    assert second is not first
    assert half_life(second) == NOW + 60


def test_a_rotation_gives_every_workload_a_new_svid_of_the_new_authority(registry: Registry) -> None:
    first = registry.svid(entry("a"))
    registry.rotate()
    second = registry.svid(entry("a"))
    assert second.key_der != first.key_der
    second.leaf.verify_directly_issued_by(registry.authority(ACME).current.certificate)
    assert len(registry.authority(ACME).authorities) == 2


def test_an_authority_is_published_before_it_signs(registry: Registry) -> None:
    first = registry.svid(entry("a"))
    registry.prepare()
    before, prepared = registry.authority(ACME).authorities
    assert registry.svid(entry("a")) is first
    assert registry.authority(ACME).current is before
    registry.rotate()
    assert registry.authority(ACME).authorities == (before, prepared)
    registry.svid(entry("a")).leaf.verify_directly_issued_by(prepared.certificate)


def test_dropping_the_old_authorities_leaves_only_those_that_sign(registry: Registry) -> None:
    registry.rotate()
    registry.drop_old()
    assert len(registry.authority(ACME).authorities) == 1
    assert len(registry.authority(PARTNER).authorities) == 1


def test_an_identity_that_was_withdrawn_and_granted_again_gets_a_new_svid(registry: Registry, peer: Peer) -> None:
    first = registry.svid(entry("a"))
    registry.remove_entry("spiffe://acme.example/a")
    with pytest.raises(NoIdentityError):
        registry.entitlement(peer)
    registry.add_entry(entry("a"))
    assert ids(registry, peer) == ["spiffe://acme.example/a"]
    assert registry.svid(entry("a")) is not first


@pytest.mark.parametrize(
    "change",
    [
        lambda registry: registry.add_entry(entry("b")),
        lambda registry: registry.remove_entry("spiffe://acme.example/a"),
        lambda registry: registry.replace_entries([]),
        lambda registry: registry.prepare(),
        lambda registry: registry.rotate(),
        lambda registry: registry.drop_old(),
        lambda registry: registry.notify(),
    ],
    ids=["add", "remove", "replace", "prepare", "rotate", "drop", "notify"],
)
def test_every_change_wakes_those_who_wait_and_the_next_change_is_another_event(registry: Registry, change) -> None:  # type: ignore[no-untyped-def]
    waited_for = registry.changed
    change(registry)
    assert waited_for.is_set()
    assert not registry.changed.is_set()


def test_a_trust_domain_that_is_not_served_has_no_authority(registry: Registry) -> None:
    with pytest.raises(KeyError):
        registry.authority("other.example")
