"""Identity material: messages of the Workload API, certificates, bundles, PEM files."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError

from delegation_core.errors import Denied, Reason
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import BundleError, parse_bundle, with_ambiguous_names
from sidecar.identity.der import MAX_PIECES, DerError, split_der
from sidecar.identity.file_update import read_file_update
from sidecar.identity.pem import PemError, certificates_of, private_key_of
from sidecar.identity.svid import parse_leaf, verify_chain
from sidecar.identity.update import UpdateError, WithdrawnError
from sidecar.identity.workload_pb import JWTBundlesResponse, JWTSVIDResponse, X509SVIDResponse
from sidecar.identity.workload_update import read_jwt_bundles, read_x509_update
from tests.fuzz.properties import quiet
from tests.identity.shapes import authority, leaf

DOMAIN: Final = TrustDomain("a.test")
NOW: Final = 1_790_000_000

warnings.simplefilter("error")  # the library warns of certificates; the product must not depend on warnings


@lru_cache(maxsize=1)
def _files() -> dict[bytes, bytes]:
    root = authority("root")
    own = leaf(root, "spiffe://a.test/one")
    pem_form, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return {
        b"$CERT": own.certificate.public_bytes(pem_form),
        b"$KEY": own.key.private_bytes(pem_form, form, serialization.NoEncryption()),
        b"$ROOT": root.certificate.public_bytes(pem_form),
    }


def _message(kind: Any, data: bytes) -> Any:
    """Parse the message. None: invalid protobuf, the only fault that ends the stream (``workload_client``)."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def x509_update(data: bytes) -> None:
    """A message is our whole state or none of it; every bundle stays with its own trust domain."""
    message = _message(X509SVIDResponse, data)
    if message is None:
        return
    try:
        update = read_x509_update(message)
    except (UpdateError, WithdrawnError) as error:
        quiet(error)
        return
    own = update.svid.spiffe_id
    assert str(own) in {svid.spiffe_id for svid in message.svids}
    assert own.trust_domain in update.bundles
    assert parse_leaf(update.svid.chain[0]).spiffe_id == own
    assert all(bundle.trust_domain == name for name, bundle in update.bundles.items())
    assert len(update.bundles) - 1 + update.broken == len(message.federated_bundles)
    assert repr(update.svid.key_der) not in repr(update)
    again = read_x509_update(X509SVIDResponse.FromString(message.SerializeToString()), known=update.bundles)
    assert all(again.bundles[name] is bundle for name, bundle in update.bundles.items())


def jwt_bundles(data: bytes) -> None:
    """Key sets by trust domain; an unreadable one is counted and affects no other."""
    message = _message(JWTBundlesResponse, data)
    if message is None:
        return
    try:
        key_sets, broken = read_jwt_bundles(message)
    except UpdateError as error:
        quiet(error)
        return
    assert len(key_sets) + broken == len(message.bundles)
    for name, keys in key_sets.items():
        assert TrustDomain(name) == name
        assert keys.find(None) is None or len(keys) == 1


def jwt_svid_message(data: bytes) -> None:
    """The message with our own JWT-SVID; ``compact_token`` covers the token itself."""
    message = _message(JWTSVIDResponse, data)
    if message is not None:
        assert all(isinstance(svid.svid, str) for svid in message.svids)


def der(data: bytes) -> None:
    """Concatenated DER splits into whole pieces that add up to the whole."""
    try:
        cut = split_der(data)
    except DerError as error:
        quiet(error)
        return
    assert b"".join(cut) == data
    assert len(cut) <= MAX_PIECES
    assert all(split_der(piece) == [piece] for piece in cut)


def certificate(data: bytes) -> None:
    """One certificate as a peer's leaf: refused as BAD_SVID, or with exactly one SPIFFE ID and no power to sign."""
    try:
        leaf = parse_leaf(data)
    except Denied as error:
        assert error.reason is Reason.BAD_SVID
        quiet(error)
    else:
        assert SpiffeId(leaf.spiffe_id) == leaf.spiffe_id
        names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [leaf.spiffe_id]
    try:  # alone it is no chain of a trusted authority
        verify_chain([data], {DOMAIN: parse_bundle(DOMAIN, b"")}, now=NOW)
    except Denied as error:
        assert error.reason in {Reason.BAD_SVID, Reason.UNKNOWN_TRUST_DOMAIN, Reason.UNTRUSTED_CHAIN}
    else:
        raise AssertionError("a chain nobody vouched for")


def bundle(data: bytes) -> None:
    """Concatenated certificates as a bundle: only authorities, and no member can vouch for itself."""
    try:
        read = parse_bundle(DOMAIN, data)
    except BundleError as error:
        quiet(error)
        return
    assert read.der == data
    assert len(read.authorities) <= len(split_der(data))
    assert with_ambiguous_names([read]) <= {DOMAIN}
    for one in read.authorities:
        constraints = one.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert constraints.ca
    for piece in split_der(data)[:3]:
        try:
            verify_chain([piece], {DOMAIN: read}, now=NOW)
        except Denied as error:
            assert error.reason in {
                Reason.BAD_SVID,
                Reason.UNKNOWN_TRUST_DOMAIN,
                Reason.UNTRUSTED_CHAIN,
                Reason.SVID_EXPIRED,
            }


def pem(data: bytes) -> None:
    """PEM files, ``$CERT``, ``$KEY`` and ``$ROOT`` standing for real ones: whole certificates or an error."""
    for word, text in _files().items():
        data = data.replace(word, text)
    for read in (certificates_of, private_key_of):
        try:
            read(data)
        except PemError as error:
            quiet(error)
    certificate, _, rest = data.partition(b"\n\n")
    key, _, trusted = rest.partition(b"\n\n")
    try:
        update = read_file_update(certificate=certificate, key=key, bundle=trusted, federated={DOMAIN: data})
    except (UpdateError, WithdrawnError) as error:
        quiet(error)
    else:
        assert update.svid.spiffe_id.trust_domain in update.bundles
