from __future__ import annotations

from typing import Any

import pytest

from delegation_core.bounded import ENTRY_BYTES
from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import TrustDomain
from sidecar.identity.bundle import X509Bundle, parse_bundle
from sidecar.identity.proofs import MAX_CHAIN_BYTES, PROOF_BYTES, Proofs
from sidecar.identity.svid import verify_chain
from tests.identity.shapes import HOUR, NOW, Issued, authority, der_of, leaf

A = TrustDomain("a.test")
ROOT = authority("root of proofs")
OTHER_ROOT = authority("other root of proofs")
LARGE = authority("large root of proofs", kind="rsa")
MIDDLE = authority("middle of proofs", ROOT, not_before=NOW - 60, not_after=NOW + 60)
SVID = leaf(ROOT)
BELOW = leaf(MIDDLE)


def bundle_of(*roots: Issued) -> X509Bundle:
    return parse_bundle(A, b"".join(der_of(*roots)))


BUNDLE = bundle_of(ROOT)


class Counted:
    """Counts the verifications of a bundle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        verify = X509Bundle.verified_chain

        def verified_chain(bundle: X509Bundle, *arguments: Any, **named: Any) -> Any:
            self.times += 1
            return verify(bundle, *arguments, **named)

        monkeypatch.setattr(X509Bundle, "verified_chain", verified_chain)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def refusal_of(proofs: Proofs, chain: tuple[bytes, ...], bundle: X509Bundle, now: int = NOW) -> Reason:
    with pytest.raises(Denied) as refused:
        proofs.prove(chain, {A: bundle}, now=now)
    return refused.value.reason


def test_a_chain_that_comes_again_proves_the_same_and_is_not_verified_again(verified: Counted) -> None:
    proofs = Proofs()
    first = proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW)
    assert proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW + 1) is first
    assert verified.times == 1
    assert first.peer == verify_chain(der_of(SVID), {A: BUNDLE}, now=NOW)
    assert first.bundle is BUNDLE


def test_another_chain_is_verified(verified: Counted) -> None:
    proofs = Proofs()
    proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW)
    assert proofs.prove(der_of(leaf(ROOT, "spiffe://a.test/y")), {A: BUNDLE}, now=NOW).peer.spiffe_id.endswith("/y")
    forged = SVID.der[:-1] + bytes([SVID.der[-1] ^ 1])
    assert refusal_of(proofs, (forged,), BUNDLE) is Reason.UNTRUSTED_CHAIN
    assert refusal_of(proofs, (SVID.der, b"junk"), BUNDLE) is Reason.BAD_SVID
    assert verified.times > 2


def test_another_bundle_is_asked_itself_even_if_it_holds_the_same() -> None:
    proofs = Proofs()
    first = proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW)
    again = bundle_of(ROOT, OTHER_ROOT)
    assert proofs.prove(der_of(SVID), {A: again}, now=NOW).bundle is again
    assert first.bundle is BUNDLE
    assert refusal_of(proofs, der_of(SVID), bundle_of(OTHER_ROOT)) is Reason.UNTRUSTED_CHAIN
    assert refusal_of(proofs, der_of(SVID), bundle_of()) is Reason.UNTRUSTED_CHAIN


def test_without_a_bundle_nobody_is_proven() -> None:
    proofs = Proofs()
    proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW)
    with pytest.raises(Denied) as refused:
        proofs.prove(der_of(SVID), {}, now=NOW)
    assert refused.value.reason is Reason.UNKNOWN_TRUST_DOMAIN


@pytest.mark.parametrize("after_s", [HOUR, 2 * HOUR, -HOUR - 1])
def test_a_proof_ends_with_its_svid_and_does_not_begin_before_it(after_s: int) -> None:
    proofs = Proofs()
    proofs.prove(der_of(SVID), {A: BUNDLE}, now=NOW)
    assert refusal_of(proofs, der_of(SVID), BUNDLE, NOW + after_s) is Reason.SVID_EXPIRED


@pytest.mark.parametrize("after_s", [-61, 61])
def test_a_proof_ends_with_each_certificate_of_its_path(after_s: int) -> None:
    proofs = Proofs()
    chain = der_of(BELOW, MIDDLE)
    proof = proofs.prove(chain, {A: BUNDLE}, now=NOW)
    assert (proof.not_before, proof.until) == (NOW - 60, NOW + 60)
    assert refusal_of(proofs, chain, BUNDLE, NOW + after_s) is Reason.UNTRUSTED_CHAIN


def test_a_refusal_is_not_remembered(verified: Counted) -> None:
    proofs = Proofs()
    for _ in range(2):
        assert refusal_of(proofs, der_of(leaf(OTHER_ROOT)), BUNDLE) is Reason.UNTRUSTED_CHAIN
    assert verified.times == 2
    assert len(proofs) == 0


def test_a_long_chain_proves_and_is_not_kept() -> None:
    proofs = Proofs()
    chain = (SVID.der, *[LARGE.der] * 9)
    assert sum(map(len, chain)) > MAX_CHAIN_BYTES
    assert proofs.prove(chain, {A: BUNDLE}, now=NOW).peer.spiffe_id == "spiffe://a.test/x"
    assert len(proofs) == 0


def test_the_oldest_proof_is_evicted_and_an_expired_one_before_it(verified: Counted) -> None:
    chains = [der_of(leaf(ROOT, f"spiffe://a.test/{number}")) for number in range(3)]
    proofs = Proofs(2 * (len(SVID.der) + PROOF_BYTES + ENTRY_BYTES + 16))
    for chain in chains:
        proofs.prove(chain, {A: BUNDLE}, now=NOW)
    assert [chain in proofs for chain in chains] == [False, True, True]
    assert (proofs.evicted, verified.times) == (1, 3)
    proofs = Proofs()
    proofs.prove(der_of(BELOW, MIDDLE), {A: BUNDLE}, now=NOW)
    proofs.prove(chains[0], {A: BUNDLE}, now=NOW + 61)
    assert (len(proofs), proofs.evicted) == (1, 0)


def test_connections_of_one_peer_share_one_copy_of_its_certificates() -> None:
    proofs = Proofs()
    first, second = (tuple(bytes(bytearray(der)) for der in der_of(SVID)) for _ in range(2))
    assert first[0] is not second[0]
    assert proofs.prove(first, {A: BUNDLE}, now=NOW).chain is first
    assert proofs.prove(second, {A: BUNDLE}, now=NOW).chain is first
