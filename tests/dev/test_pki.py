from __future__ import annotations

import base64
import json
import re

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.certificates import certificate_der
from sidecar_dev.pki import TrustDomainAuthority

NOW = 1_790_000_000
ID = SpiffeId("spiffe://acme.example/agent/planner")
FOREIGN = SpiffeId("spiffe://partner.example/agent/planner")
AUDIENCE = "https://sts.acme.example"


@pytest.fixture
def authority() -> TrustDomainAuthority:
    return TrustDomainAuthority(TrustDomain("acme.example"))


def kids(document: bytes, use: str | None = None) -> list[str]:
    return [key["kid"] for key in json.loads(document)["keys"] if use is None or key.get("use") == use]


def header_of(token: str) -> dict[str, object]:
    return dict(jwt.get_unverified_header(token))


def test_an_x509_svid_has_its_own_key_and_chains_to_the_current_authority(authority: TrustDomainAuthority) -> None:
    svid = authority.issue_x509(ID, issued_at=NOW)
    svid.leaf.verify_directly_issued_by(authority.current.certificate)
    key = load_der_private_key(svid.key_der, None)
    assert key.public_key() == svid.leaf.public_key()
    assert svid.not_after == NOW + 3600
    assert svid.chain_der == (certificate_der(svid.leaf),)
    assert svid.chain_pem.count(b"BEGIN CERTIFICATE") == 1
    assert svid.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")


def test_two_svids_never_share_a_key(authority: TrustDomainAuthority) -> None:
    assert authority.issue_x509(ID).key_der != authority.issue_x509(ID).key_der


def test_a_jwt_svid_holds_what_the_standard_asks_for_and_no_more(authority: TrustDomainAuthority) -> None:
    token = authority.issue_jwt(ID, AUDIENCE, issued_at=NOW)
    assert header_of(token) == {"alg": "ES256", "kid": authority.current.jwt_kid, "typ": "JWT"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"sub": ID, "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 300}


def test_a_jwt_svid_verifies_with_the_published_key_of_its_kid(authority: TrustDomainAuthority) -> None:
    token = authority.issue_jwt(ID, AUDIENCE)
    keys = jwt.PyJWKSet.from_json(authority.jwt_bundle().decode())
    assert jwt.decode(token, keys[str(header_of(token)["kid"])], algorithms=["ES256"], audience=AUDIENCE)["sub"] == ID


def test_an_authority_vouches_for_no_other_trust_domain(authority: TrustDomainAuthority) -> None:
    with pytest.raises(ValueError, match="own trust domain"):
        authority.issue_x509(FOREIGN)
    with pytest.raises(ValueError, match="own trust domain"):
        authority.issue_jwt(FOREIGN, AUDIENCE)


@pytest.mark.parametrize("audience", ["", [], [""], [AUDIENCE, ""]], ids=["empty", "none", "one empty", "also empty"])
def test_a_jwt_svid_without_an_audience_is_not_issued(
    authority: TrustDomainAuthority, audience: str | list[str]
) -> None:
    with pytest.raises(ValueError, match="audience"):
        authority.issue_jwt(ID, audience)


def test_after_a_rotation_new_keys_sign_and_the_old_ones_are_still_published(authority: TrustDomainAuthority) -> None:
    old = authority.current
    new = authority.rotate()
    assert authority.authorities == (old, new)
    authority.issue_x509(ID).leaf.verify_directly_issued_by(new.certificate)
    assert header_of(authority.issue_jwt(ID, AUDIENCE))["kid"] == new.jwt_kid
    assert kids(authority.jwt_bundle()) == [old.jwt_kid, new.jwt_kid]
    assert authority.bundle_der() == certificate_der(old.certificate) + certificate_der(new.certificate)
    assert authority.bundle_pem().count(b"BEGIN CERTIFICATE") == 2


def test_prepared_keys_are_published_and_sign_nothing_until_the_next_rotation(authority: TrustDomainAuthority) -> None:
    old = authority.current
    new = authority.prepare()
    assert authority.prepare() is new
    authority.drop_old()
    assert (authority.current, authority.authorities) == (old, (old, new))
    assert kids(authority.jwt_bundle()) == [old.jwt_kid, new.jwt_kid]
    assert authority.rotate() is new
    assert (authority.current, authority.authorities) == (new, (old, new))


def test_a_dropped_authority_is_in_no_bundle(authority: TrustDomainAuthority) -> None:
    new = authority.rotate()
    authority.drop_old()
    assert authority.bundle_der() == certificate_der(new.certificate)
    assert kids(authority.jwt_bundle()) == [new.jwt_kid]


def test_the_jwt_bundle_is_a_standard_key_set_of_public_keys(authority: TrustDomainAuthority) -> None:
    (key,) = json.loads(authority.jwt_bundle())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid"}


@pytest.mark.parametrize("key_type", ["ec-p256", "rsa-2048"])
def test_the_bundle_document_has_both_kinds_of_keys_as_the_standard_marks_them(key_type: str) -> None:
    authority = TrustDomainAuthority(
        TrustDomain("acme.example"), key_type="rsa-2048" if "rsa" in key_type else "ec-p256"
    )
    document = json.loads(authority.bundle_document())
    x509_key, jwt_key = document["keys"]
    assert x509_key["use"] == "x509-svid"
    assert "kid" not in x509_key
    (der,) = map(base64.b64decode, x509_key["x5c"])
    assert x509.load_der_x509_certificate(der) == authority.current.certificate
    assert (jwt_key["use"], jwt_key["kid"]) == ("jwt-svid", authority.current.jwt_kid)
    assert (document["spiffe_sequence"], document["spiffe_refresh_hint"]) == (1, 300)
    assert not re.search(r'"(d|p|q|dp|dq|qi)":', json.dumps(document))


def test_every_change_of_a_bundle_raises_its_sequence_number(authority: TrustDomainAuthority) -> None:
    authority.rotate()
    authority.drop_old()
    assert json.loads(authority.bundle_document())["spiffe_sequence"] == 3


def test_no_repr_shows_a_private_key(authority: TrustDomainAuthority) -> None:
    for shown in (repr(authority.issue_x509(ID)), repr(authority.current)):
        assert "PrivateKey" not in shown
