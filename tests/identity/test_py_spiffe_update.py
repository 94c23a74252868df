from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import pytest
import spiffe
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.x509 import load_der_x509_certificate
from spiffe.workloadapi.x509_context import X509Context

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.py_spiffe_update import read_context, read_jwt_bundle_set, read_svids
from sidecar.identity.update import UpdateError, WithdrawnError
from tests.identity.fixed_source import identity_of
from tests.identity.shapes import Issued, authority, leaf
from tests.identity.test_svid import BAD_LEAVES

A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT_A, ROOT_B = authority("root a"), authority("root b")
MANY = [authority(f"root {number}") for number in range(16)]
SELF, OTHER = SpiffeId("spiffe://a.test/self"), SpiffeId("spiffe://a.test/other")
OWN = leaf(ROOT_A, SELF)


def svid(issued: Issued, name: str = SELF, *, key: Issued | None = None) -> spiffe.X509Svid:
    return spiffe.X509Svid(spiffe.SpiffeId(name), [issued.certificate], (key or issued).key)


def bundle(name: str, authorities: Sequence[Issued]) -> spiffe.X509Bundle:
    return spiffe.X509Bundle(spiffe.TrustDomain(name), {issued.certificate for issued in authorities})


def context(svids: Sequence[spiffe.X509Svid], *bundles: spiffe.X509Bundle) -> X509Context:
    return X509Context(list(svids), spiffe.X509BundleSet.of([bundle("a.test", [ROOT_A]), *bundles]))


def test_a_context_is_an_update() -> None:
    update = read_context(context([svid(OWN)], bundle("b.test", [ROOT_B])))
    assert (update.svid.spiffe_id, update.svid.chain, update.svid.key_der) == (SELF, (OWN.der,), OWN.key_der)
    assert update.bundles.keys() == {A, B}
    assert isinstance(update.bundles, MappingProxyType)
    assert update.broken == 0


MALFORMED: dict[str, spiffe.X509Svid] = {
    "another key": svid(OWN, key=ROOT_A),
    "another name than the certificate's": svid(OWN, OTHER),
    "an authority": svid(BAD_LEAVES["is an authority"], "spiffe://a.test/x"),
    "an upper-case domain, which py-spiffe lowers": svid(BAD_LEAVES["upper-case domain"], "spiffe://a.test/x"),
    "a newline, which py-spiffe lets through": svid(BAD_LEAVES["newline at the end"], "spiffe://a.test/x\n"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_py_spiffe_takes_and_we_do_not_cannot_be_used(case: str) -> None:
    with pytest.raises(UpdateError):
        read_context(context([MALFORMED[case]]))


def test_a_trust_domain_that_is_none_costs_its_own_bundle() -> None:
    update = read_context(context([svid(OWN)], bundle("b.test\n", [ROOT_B])))
    assert update.bundles.keys() == {A}
    assert update.broken == 1


def test_the_domain_of_an_svid_that_is_not_ours_is_not_trusted_for_it() -> None:
    theirs = SpiffeId("spiffe://b.test/x")
    beside = context([svid(OWN), svid(leaf(ROOT_B, theirs), theirs)], bundle("b.test", [ROOT_B]))
    assert read_context(beside, spiffe_id=SELF).bundles.keys() == {A}
    federated = context([svid(OWN)], bundle("b.test", [ROOT_B]))
    assert read_context(federated, spiffe_id=SELF).bundles.keys() == {A, B}


@pytest.mark.parametrize(("name", "kept"), [("b.test", {A, B}), ("a.test", {B})])
def test_in_the_place_of_a_malformed_bundle_its_last_good_one_stays_unless_it_is_ours(
    name: str, kept: set[TrustDomain]
) -> None:
    known = read_context(context([svid(OWN)], bundle("b.test", [ROOT_B]))).bundles
    unreadable = load_der_x509_certificate(ROOT_B.der.replace(b"root b", b"root \xff", 1))  # OpenSSL reads no such
    good = {"a.test": bundle("a.test", [ROOT_A]), "b.test": bundle("b.test", [ROOT_B])}
    good[name] = spiffe.X509Bundle(spiffe.TrustDomain(name), {unreadable})
    update = read_context(X509Context([svid(OWN)], spiffe.X509BundleSet.of(list(good.values()))), known=known)
    assert update.bundles.keys() == kept
    assert update.broken == 1


def test_one_set_of_authorities_is_one_bundle_whatever_their_order() -> None:
    for start in range(0, len(MANY), 4):  # py-spiffe keeps them in a set, which often iterates in order of arrival
        some = MANY[start : start + 4]
        first = read_context(context([svid(OWN)], bundle("b.test", some)))
        again = read_context(context([svid(OWN)], bundle("b.test", some[::-1])), known=first.bundles)
        assert again.bundles[B] is first.bundles[B]


def test_of_several_svids_the_configured_one_is_ours() -> None:
    both = context([svid(leaf(ROOT_A, OTHER), OTHER), svid(OWN)])
    assert read_context(both, spiffe_id=SELF).svid.spiffe_id == SELF
    with pytest.raises(UpdateError):
        read_context(both)
    with pytest.raises(UpdateError):
        read_context(both, held=SELF)
    with pytest.raises(WithdrawnError):
        read_context(both, held=SpiffeId("spiffe://a.test/gone"))
    with pytest.raises(WithdrawnError):
        read_context(both, spiffe_id=SpiffeId("spiffe://a.test/gone"))


def test_svids_alone_go_with_the_bundles_in_use() -> None:
    held = identity_of([OWN], SELF, {"a.test": [ROOT_A], "b.test": [ROOT_B]})
    renewed = leaf(ROOT_A, SELF)
    update = read_svids([svid(renewed)], spiffe_id=None, held=held)
    assert update.svid.chain == (renewed.der,)
    assert update.bundles is held.bundles
    with pytest.raises(WithdrawnError):
        read_svids([svid(renewed)], spiffe_id=OTHER, held=held)


def test_jwt_authorities_are_keys_of_their_trust_domain() -> None:
    strong, unknown = ec.generate_private_key(ec.SECP256R1()), ed448.Ed448PrivateKey.generate()
    of_a = spiffe.JwtBundle(spiffe.TrustDomain("a.test"), {"k": strong.public_key(), "x": unknown.public_key()})
    nameless = spiffe.JwtBundle(spiffe.TrustDomain("b.test\n"), {"k": strong.public_key()})
    key_sets, broken = read_jwt_bundle_set(spiffe.JwtBundleSet.of([of_a, nameless]))
    assert key_sets.keys() == {A}
    assert broken == 1
    key = key_sets[A].find("k")
    assert key is not None
    assert key.algorithms == {"ES256"}
    assert key_sets[A].find("x") is None
