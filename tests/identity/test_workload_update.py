from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import workload_pb, workload_update
from sidecar.identity.update import UpdateError, WithdrawnError
from sidecar.identity.workload_update import read_jwt_bundles, read_x509_update
from sidecar_dev.pki import TrustDomainAuthority
from tests.identity.scripted_api import x509_message
from tests.identity.shapes import authority, leaf

A, B, C = TrustDomain("a.test"), TrustDomain("b.test"), TrustDomain("c.test")
ROOT_A = authority("root a")
ROOT_B = authority("root b")
# An issuer whose name is not UTF-8: cryptography parses it on access, OpenSSL reads no such certificate.
UNREADABLE = ROOT_B.der.replace(b"root b", b"root \xff", 1)
ONE, TWO = "spiffe://a.test/one", "spiffe://a.test/two"
SVID_ONE, SVID_TWO = (ONE, [leaf(ROOT_A, ONE)]), (TWO, [leaf(ROOT_A, TWO)])


def both(**wanted: Any) -> str:
    message = x509_message(SVID_ONE, SVID_TWO, bundle=[ROOT_A], hints=("internal", "external"))
    return read_x509_update(message, **wanted).svid.spiffe_id


def test_the_svid_we_ask_for_is_ours() -> None:
    assert both(hint="internal") == ONE
    assert both(hint="external") == TWO
    assert both(spiffe_id=SpiffeId(TWO)) == TWO
    assert both(spiffe_id=SpiffeId(TWO), hint="external") == TWO


@pytest.mark.parametrize(
    "wanted",
    [{"hint": "other"}, {"spiffe_id": SpiffeId("spiffe://a.test/x")}, {"spiffe_id": SpiffeId(TWO), "hint": "internal"}],
    ids=["hint", "ID", "ID under another hint"],
)
def test_an_svid_that_is_no_longer_there_was_withdrawn(wanted: dict[str, Any]) -> None:
    with pytest.raises(WithdrawnError):
        both(**wanted)


def test_the_first_of_several_svids_is_not_ours_for_being_the_first() -> None:
    with pytest.raises(UpdateError, match=r"set identity\.spiffe_id"):
        both()


def test_chain_and_bundles_are_cut_apart() -> None:
    middle = authority("middle", ROOT_A)
    own = leaf(middle, ONE)
    message = x509_message((ONE, [own, middle]), bundle=[ROOT_A, ROOT_B])
    update = read_x509_update(message)
    assert update.svid.chain == (own.der, middle.der)
    assert len(update.bundles[A].authorities) == 2


def edited(**changes: Any) -> Any:
    """Return a good message with fields of its SVID replaced."""
    message = x509_message(SVID_ONE, bundle=[ROOT_A])
    for name, value in changes.items():
        setattr(message.svids[0], name, value)
    return message


MALFORMED = {
    "no SVID": workload_pb.X509SVIDResponse(federated_bundles={"spiffe://b.test": ROOT_B.der}),
    "no SPIFFE ID": edited(spiffe_id=""),
    "another SPIFFE ID": edited(spiffe_id=TWO),
    "no certificate": edited(x509_svid=b""),
    "junk for a certificate": edited(x509_svid=b"junk"),
    "junk behind the certificate": edited(x509_svid=SVID_ONE[1][0].der + b"junk"),
    "no key": edited(x509_svid_key=b""),
    "another key": edited(x509_svid_key=ROOT_A.key_der),
    "junk for our own bundle": edited(bundle=b"junk"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_message_in_which_something_of_ours_is_malformed_cannot_be_used(case: str) -> None:
    with pytest.raises(UpdateError):
        read_x509_update(MALFORMED[case])


FEDERATED: dict[str, tuple[dict[str, bytes], set[TrustDomain], int]] = {
    "none": ({}, set(), 0),
    "one": ({"spiffe://b.test": ROOT_B.der}, {B}, 0),
    "bare name": ({"b.test": ROOT_B.der}, {B}, 0),
    "empty": ({"spiffe://b.test": b""}, {B}, 0),
    "junk": ({"spiffe://b.test": b"junk", "spiffe://c.test": ROOT_B.der}, {C}, 1),
    "none to OpenSSL": ({"spiffe://b.test": UNREADABLE, "spiffe://c.test": ROOT_B.der}, {C}, 1),
    "a name that is none": ({"spiffe://B.test": ROOT_B.der, "spiffe://c.test": ROOT_B.der}, {C}, 1),
    "a workload's name": ({"spiffe://b.test/x": ROOT_B.der}, set(), 1),
    "one name in both forms": ({"b.test": ROOT_B.der, "spiffe://b.test": ROOT_B.der}, set(), 2),
    "our own name": ({"spiffe://a.test": ROOT_B.der}, set(), 1),
}


@pytest.mark.parametrize("case", FEDERATED)
def test_a_federated_bundle_that_cannot_be_used_loses_its_own_trust_domain_only(case: str) -> None:
    federated, domains, broken = FEDERATED[case]
    update = read_x509_update(x509_message(SVID_ONE, bundle=[ROOT_A], federated=federated))
    assert update.bundles.keys() == domains | {A}
    assert update.broken == broken
    assert update.bundles[A].authorities == (ROOT_A.certificate,)


@pytest.mark.parametrize(
    "federated",
    [
        pytest.param({"spiffe://b.test": b"junk"}, id="junk"),
        pytest.param({"spiffe://b.test": ROOT_B.der[:-1]}, id="cut short"),
        pytest.param({"spiffe://b.test": UNREADABLE}, id="none to OpenSSL"),
        pytest.param({"spiffe://b.test": ROOT_B.der, "b.test": ROOT_B.der}, id="in both forms"),
    ],
)
def test_in_the_place_of_a_malformed_federated_bundle_its_last_good_one_stays(federated: dict[str, bytes]) -> None:
    good = x509_message(SVID_ONE, bundle=[ROOT_A], federated={"spiffe://b.test": ROOT_B.der})
    before = read_x509_update(good).bundles
    update = read_x509_update(x509_message(SVID_TWO, bundle=[ROOT_A], federated=federated), known=before)
    assert update.bundles[B] is before[B]
    assert update.broken == len(federated)


@pytest.mark.parametrize("federated", [{}, {"spiffe://b.test": b""}], ids=["absent", "empty"])
def test_an_absent_or_empty_federated_bundle_is_withdrawn(federated: dict[str, bytes]) -> None:
    good = x509_message(SVID_ONE, bundle=[ROOT_A], federated={"spiffe://b.test": ROOT_B.der})
    message = x509_message(SVID_ONE, bundle=[ROOT_A], federated=federated)
    bundles = read_x509_update(message, known=read_x509_update(good).bundles).bundles
    assert B not in bundles or bundles[B].authorities == ()


def test_in_the_place_of_a_malformed_jwt_bundle_its_last_good_one_stays() -> None:
    good = workload_pb.JWTBundlesResponse(bundles={"b.test": TrustDomainAuthority(B).jwt_bundle()})
    known, _ = read_jwt_bundles(good)
    message = workload_pb.JWTBundlesResponse(bundles={"spiffe://b.test": b"junk"})
    assert read_jwt_bundles(message, known=known) == (known, 1)
    assert read_jwt_bundles(workload_pb.JWTBundlesResponse(), known=known) == ({}, 0)


def test_of_two_jwt_bundles_of_one_trust_domain_neither_counts() -> None:
    bundle = TrustDomainAuthority(B).jwt_bundle()
    message = workload_pb.JWTBundlesResponse(bundles={"spiffe://b.test": bundle, "b.test": bundle})
    assert read_jwt_bundles(message) == ({}, 2)


def test_an_unchanged_bundle_is_the_same_object() -> None:
    message = x509_message(SVID_ONE, bundle=[ROOT_A], federated={"spiffe://b.test": ROOT_B.der})
    before = read_x509_update(message).bundles
    changed = x509_message(SVID_TWO, bundle=[ROOT_A, ROOT_B], federated={"spiffe://b.test": ROOT_B.der})
    after = read_x509_update(changed, known=before).bundles
    assert after[B] is before[B]
    assert after[A] is not before[A]


def test_a_message_cannot_be_changed_through_its_update() -> None:
    assert isinstance(read_x509_update(x509_message(SVID_ONE, bundle=[ROOT_A])).bundles, MappingProxyType)


def test_the_number_of_trust_domains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_update, "MAX_TRUST_DOMAINS", 2)
    two = {f"spiffe://{name}.test": b"" for name in "bc"}
    assert len(read_x509_update(x509_message(SVID_ONE, bundle=[ROOT_A], federated=two)).bundles) == 3
    with pytest.raises(UpdateError, match="too many trust domains"):
        read_x509_update(x509_message(SVID_ONE, bundle=[ROOT_A], federated=two | {"spiffe://d.test": b""}))


def test_jwt_bundles_are_read_by_trust_domain() -> None:
    bundle = TrustDomainAuthority(B).jwt_bundle()
    message = workload_pb.JWTBundlesResponse(bundles={"spiffe://b.test": bundle, "spiffe://c.test": b"junk"})
    key_sets, broken = read_jwt_bundles(message)
    assert key_sets.keys() == {B}
    assert len(key_sets[B]) == 1
    assert broken == 1
