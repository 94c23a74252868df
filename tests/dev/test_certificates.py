from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar_dev.certificates import (
    DEVELOPMENT_ONLY,
    KeyType,
    authority_certificate,
    certificate_der,
    certificate_pem,
    key_der,
    key_pem,
    new_key,
    svid_certificate,
)

NOW = 1_790_000_000
ID = SpiffeId("spiffe://acme.example/agent/planner")


@pytest.fixture(scope="module")
def authority_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority(authority_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return authority_certificate(TrustDomain("acme.example"), authority_key, ttl_s=86400, issued_at=NOW)


@pytest.fixture(scope="module")
def leaf(authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return issue(authority, authority_key)


def issue(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, *, ttl_s: int = 3600
) -> x509.Certificate:
    return svid_certificate(
        ID,
        new_key("ec-p256"),
        issuer=authority,
        issuer_key=authority_key,
        dns_names=["planner.internal"],
        ttl_s=ttl_s,
        issued_at=NOW,
    )


def test_a_leaf_names_exactly_its_spiffe_id_in_a_critical_extension_and_nothing_in_its_subject(
    leaf: x509.Certificate,
) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [ID]
    assert names.value.get_values_for_type(x509.DNSName) == ["planner.internal"]
    assert names.critical
    assert not list(leaf.subject)


def test_a_leaf_may_sign_handshakes_at_both_ends_and_no_certificates(leaf: x509.Certificate) -> None:
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_leaf_points_at_its_authority_by_key_id(leaf: x509.Certificate, authority: x509.Certificate) -> None:
    key_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    issuer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert issuer.key_identifier == key_id
    leaf.verify_directly_issued_by(authority)


def test_a_leaf_is_backdated_ten_seconds_and_ends_after_its_life(leaf: x509.Certificate) -> None:
    assert leaf.not_valid_before_utc.timestamp() == NOW - 10
    assert leaf.not_valid_after_utc.timestamp() == NOW + 3600


def test_no_leaf_outlives_its_authority(authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> None:
    leaf = issue(authority, authority_key, ttl_s=10 * 86400)
    assert leaf.not_valid_after_utc == authority.not_valid_after_utc


def test_an_authority_signs_certificates_and_is_nobodys_workload(authority: x509.Certificate) -> None:
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = authority.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://acme.example"]


def test_an_authority_says_that_it_is_for_development(authority: x509.Certificate) -> None:
    assert DEVELOPMENT_ONLY in authority.subject.rfc4514_string()


def test_two_generations_of_an_authority_have_different_names(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> None:
    other = authority_certificate(TrustDomain("acme.example"), authority_key, ttl_s=86400, issued_at=NOW)
    assert other.subject != authority.subject


@pytest.mark.parametrize(
    ("key_type", "kind"), [("ec-p256", ec.EllipticCurvePrivateKey), ("rsa-2048", rsa.RSAPrivateKey)]
)
def test_a_key_is_of_the_type_asked_for(key_type: KeyType, kind: type) -> None:
    assert isinstance(new_key(key_type), kind)


def test_certificates_and_keys_encode_as_der_and_pem(
    leaf: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> None:
    assert x509.load_der_x509_certificate(certificate_der(leaf)) == leaf
    assert x509.load_pem_x509_certificate(certificate_pem(leaf)) == leaf
    assert key_der(authority_key).startswith(b"\x30")
    assert key_pem(authority_key).startswith(b"-----BEGIN PRIVATE KEY-----")
