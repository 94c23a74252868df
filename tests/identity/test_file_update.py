from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity import jwt_bundle_file
from sidecar.identity.file_update import read_file_update
from sidecar.identity.jwt_bundle_file import read_jwt_bundle_file
from sidecar.identity.update import UpdateError, WithdrawnError, X509Update
from sidecar_dev.pki import TrustDomainAuthority
from tests.identity.shapes import Extension, authority, leaf, uris
from tests.identity.supplies import pem_key_of, pem_of

A, B, C = TrustDomain("a.test"), TrustDomain("b.test"), TrustDomain("c.test")
ROOT_A, ROOT_B = authority("root a"), authority("root b")
MIDDLE = authority("middle", ROOT_A)
SELF = SpiffeId("spiffe://a.test/self")
OWN = leaf(MIDDLE, SELF)


def named(trust_domain: str) -> dict[str, Extension]:
    return {"san": (uris(f"spiffe://{trust_domain}"), False)}


NAMED_A, NAMED_B = authority("named a", extensions=named("a.test")), authority("named b", extensions=named("b.test"))


def read(**changes: Any) -> X509Update:
    files = {"certificate": pem_of(OWN, MIDDLE), "key": pem_key_of(OWN), "bundle": pem_of(ROOT_A), "federated": {}}
    return read_file_update(**(files | changes))


def test_three_files_are_an_identity() -> None:
    update = read()
    assert (update.svid.spiffe_id, update.svid.chain) == (SELF, (OWN.der, MIDDLE.der))
    assert update.svid.key_der == OWN.key_der
    assert update.bundles.keys() == {A}
    assert update.broken == 0


MALFORMED: dict[str, dict[str, bytes]] = {
    "no certificate": {"certificate": b""},
    "junk for a certificate": {"certificate": b"junk"},
    "a certificate that is not an SVID": {"certificate": pem_of(ROOT_A), "key": pem_key_of(ROOT_A)},
    "the certificates in the wrong order": {"certificate": pem_of(MIDDLE, OWN)},
    "no key": {"key": b""},
    "another key": {"key": pem_key_of(ROOT_A)},
    "junk for a bundle": {"bundle": b"junk"},
    "a bundle of two trust domains": {"bundle": pem_of(NAMED_A, NAMED_B)},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_files_that_make_no_identity_are_refused(case: str) -> None:
    with pytest.raises(UpdateError):
        read(**MALFORMED[case])


def test_authorities_may_carry_their_own_trust_domains_name() -> None:
    update = read(bundle=pem_of(ROOT_A, NAMED_A), federated={B: pem_of(NAMED_B)})
    assert len(update.bundles[A].authorities) == 2
    assert update.broken == 0


def test_authorities_may_carry_names_that_are_no_spiffe_ids() -> None:
    web = authority("web", extensions={"san": (uris("https://ca.a.test/"), False)})
    assert len(read(bundle=pem_of(ROOT_A, web)).bundles[A].authorities) == 2


FEDERATED: dict[str, tuple[dict[TrustDomain, bytes | None], set[TrustDomain], int]] = {
    "one": ({B: pem_of(ROOT_B)}, {B}, 0),
    "empty": ({B: b"\n"}, {B}, 0),
    "missing": ({B: None, C: pem_of(ROOT_B)}, {C}, 1),
    "junk": ({B: b"junk", C: pem_of(ROOT_B)}, {C}, 1),
    "authorities of another trust domain": ({C: pem_of(NAMED_B)}, set(), 1),
    "our own trust domain": ({A: pem_of(ROOT_B)}, set(), 1),
}


@pytest.mark.parametrize("case", FEDERATED)
def test_a_federated_file_is_worth_its_own_trust_domain_only(case: str) -> None:
    federated, domains, broken = FEDERATED[case]
    update = read(federated=federated)
    assert update.bundles.keys() == domains | {A}
    assert update.bundles[A].authorities == (ROOT_A.certificate,)
    assert update.broken == broken


@pytest.mark.parametrize("text", [b"junk", pem_of(ROOT_B)[:-30]], ids=["junk", "cut short"])
def test_in_the_place_of_a_malformed_federated_file_its_last_good_bundle_stays(text: bytes) -> None:
    before = read(federated={B: pem_of(ROOT_B)}).bundles
    update = read(federated={B: text}, known=before)
    assert update.bundles[B] is before[B]
    assert update.broken == 1
    assert B not in read(federated={B: None}, known=before).bundles


def test_in_the_place_of_a_malformed_jwt_bundle_its_last_good_one_stays() -> None:
    known, _ = read_jwt_bundle_file(json.dumps({"b.test": BUNDLE}).encode())
    assert read_jwt_bundle_file(b'{"b.test": "junk"}', known=known) == (known, 1)
    assert read_jwt_bundle_file(b"{}", known=known) == ({}, 0)


def test_an_unchanged_bundle_is_the_same_object() -> None:
    before = read(federated={B: pem_of(ROOT_B)}).bundles
    after = read(federated={B: b"# a comment\n" + pem_of(ROOT_B)}, known=before).bundles
    assert after[A] is before[A]
    assert after[B] is before[B]


def test_an_svid_of_another_name_than_the_configured_one_is_none_of_ours() -> None:
    assert read(spiffe_id=SELF).svid.spiffe_id == SELF
    with pytest.raises(WithdrawnError):
        read(spiffe_id=SpiffeId("spiffe://a.test/other"))


def encoded(document: bytes) -> str:
    return base64.b64encode(document).decode()


BUNDLE = encoded(TrustDomainAuthority(B).jwt_bundle())
DOCUMENTS: dict[str, tuple[dict[str, object], set[str], int]] = {
    "none": ({}, set(), 0),
    "one": ({"b.test": BUNDLE}, {"b.test"}, 0),
    "no base64": ({"b.test": "{}", "c.test": BUNDLE}, {"c.test"}, 1),
    "base64 with foreign characters": ({"b.test": f"{BUNDLE[:8]} {BUNDLE[8:]}"}, set(), 1),
    "base64 in another script": ({"b.test": "ä===", "c.test": BUNDLE}, {"c.test"}, 1),
    "no JWK set": ({"b.test": encoded(b"junk"), "c.test": BUNDLE}, {"c.test"}, 1),
    "no text": ({"b.test": {"keys": []}, "c.test": BUNDLE}, {"c.test"}, 1),
    "a name that is none": ({"B.test": BUNDLE}, set(), 1),
    "a SPIFFE ID for a name": ({"spiffe://b.test": BUNDLE}, set(), 1),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_jwt_bundles_are_read_as_spiffe_helper_writes_them(case: str) -> None:
    document, domains, broken = DOCUMENTS[case]
    key_sets, lost = read_jwt_bundle_file(json.dumps(document).encode())
    assert key_sets.keys() == domains
    assert lost == broken
    assert all(len(keys) == 1 for keys in key_sets.values())


@pytest.mark.parametrize("document", [b"", b"[]", b"junk", b'{"a.test": "", "a.test": ""}'])
def test_a_document_of_another_kind_has_no_jwt_bundles(document: bytes) -> None:
    with pytest.raises(UpdateError):
        read_jwt_bundle_file(document)


def test_the_number_of_trust_domains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt_bundle_file, "MAX_TRUST_DOMAINS", 1)
    assert len(read_jwt_bundle_file(json.dumps({"a.test": BUNDLE}).encode())[0]) == 1
    with pytest.raises(UpdateError, match="too many"):
        read_jwt_bundle_file(json.dumps({"a.test": BUNDLE, "b.test": BUNDLE}).encode())
