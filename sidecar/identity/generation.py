"""Builds a generation: SVID and bundles → TLS contexts, checked before they are used.

Contexts are built for each generation and never changed. A live context cannot be rotated: a key that does not match
breaks it for all connections, and an authority can be added to it but never removed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

from delegation_core.errors import Denied
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import X509Bundle, key_identifier_of
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.identity.memory_file import new_memory_file, path_of
from sidecar.identity.source import Identity, X509Svid
from sidecar.identity.ssl_object import ScreenedContext
from sidecar.identity.svid import parse_leaf, verify_chain

ALPN: Final = ("http/1.1",)
ALPN_WITH_HTTP2: Final = ("h2", "http/1.1")


class IdentityError(ValueError):
    """The key, chain or bundles form no identity. The message never quotes them."""


def parse_x509_svid(spiffe_id: str, chain: Sequence[bytes], key_der: bytes, *, hint: str = "") -> X509Svid:
    """Read our own SVID and check that its parts belong together.

    Raises:
        IdentityError: the chain is empty or malformed, or names another SPIFFE ID; or the key is not the leaf's.
    """
    if not chain:
        raise IdentityError("the SVID has no certificate")
    try:
        leaf = parse_leaf(chain[0])
    except Denied as error:
        raise IdentityError(f"our own certificate is not an X.509-SVID: {error.detail}") from error
    if leaf.spiffe_id != spiffe_id:
        raise IdentityError("the certificate names another SPIFFE ID than the message")
    if _public_der(_parse_key(key_der).public_key()) != _public_der(leaf.certificate.public_key()):
        raise IdentityError("the key does not match the certificate")
    return X509Svid(
        spiffe_id=SpiffeId(spiffe_id),
        chain=tuple(chain),
        key_der=key_der,
        not_before=leaf.not_before,
        not_after=leaf.not_after,
        hint=hint,
    )


def new_identity(number: int, svid: X509Svid, bundles: Mapping[TrustDomain, X509Bundle], *, now: int) -> Identity:
    """Build the contexts of a generation. ``now`` is in seconds since the epoch.

    Raises:
        IdentityError: our own SVID does not verify (expired, or our own bundle does not vouch for it), or OpenSSL
            rejects the material.
    """
    try:
        verify_chain(svid.chain, bundles, now=now)
    except Denied as error:
        raise IdentityError(f"our own SVID does not verify: {error}") from error
    return with_bundles(number, svid, bundles)


def with_bundles(number: int, svid: X509Svid, bundles: Mapping[TrustDomain, X509Bundle]) -> Identity:
    """Build the contexts of a generation without verifying its SVID against its bundles.

    Raises:
        IdentityError: OpenSSL rejects the material.
    """
    try:
        server_context = _new_context(ssl.PROTOCOL_TLS_SERVER, svid, bundles)
        client_context = _new_context(ssl.PROTOCOL_TLS_CLIENT, svid, bundles)
    except ssl.SSLError as error:
        raise IdentityError(f"OpenSSL refuses the SVID or a bundle: {error.reason}") from error
    except OSError as error:  # the key passes through a file in memory
        raise IdentityError(f"no file descriptor or memory for the key: {error.strerror}") from error
    return Identity(
        number=number,
        svid=svid,
        bundles=bundles,
        server_context=server_context,
        client_context=client_context,
    )


def bare_context(protocol: int, kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    """Make a context with our TLS rules, without a certificate and without authorities."""
    context = kind(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # SPIFFE IDs name workloads; host names are not checked (X509-SVID section 5)
    context.verify_mode = ssl.CERT_REQUIRED
    # Set, not added to: the defaults differ between Pythons. Intermediates may be anchors, as SPIFFE bundles have them.
    context.verify_flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.sslobject_class = VerifyingSSLObject
    context.set_alpn_protocols(list(ALPN))
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # OP_NO_TICKET alone still resumes: a resumed session skips the certificates
    return context


def _new_context(protocol: int, svid: X509Svid, bundles: Mapping[TrustDomain, X509Bundle]) -> ssl.SSLContext:
    context = bare_context(protocol, ScreenedContext)
    assert isinstance(context, ScreenedContext)  # noqa: S101 - for the type only
    context.screen_certificates()
    for authority in _in_order(svid.spiffe_id.trust_domain, bundles.values()):
        context.load_verify_locations(cadata=authority)  # each call holds the interpreter's lock for 0.2 ms
    present(context, svid, bundles.get(svid.spiffe_id.trust_domain))
    return context


def _in_order(own: TrustDomain, bundles: Iterable[X509Bundle]) -> Iterable[bytes]:
    """Yield each authority once (DER), in the order in which it hides the fewest others.

    Partners choose names freely. If several authorities have an issuer's name, OpenSSL takes the first one whose key
    identifier does not contradict. So ours come first, and those without a key identifier, which match anything, last.
    """
    held = [(bundle.trust_domain != own, authority) for bundle in bundles for authority in bundle.authorities]
    held.sort(key=lambda one: (one[0], key_identifier_of(one[1]) is None))
    return dict.fromkeys(authority.public_bytes(serialization.Encoding.DER) for _, authority in held)


def present(context: ssl.SSLContext, svid: X509Svid, bundle: X509Bundle | None = None) -> None:
    """Configure a context to present our SVID; without intermediates, its authorities from ``bundle`` follow it.

    If only a leaf were configured, OpenSSL would build and verify the path to our authority in each handshake, to
    present it too. That costs a signature check of 0.1 ms.

    Raises:
        ssl.SSLError: OpenSSL rejects it.
    """
    chain = [x509.load_der_x509_certificate(der) for der in svid.chain]
    if len(chain) == 1 and bundle is not None:
        chain += _authorities_above(chain[0], bundle)
    with _file_in_memory(_pem(svid.key_der, chain)) as path:
        context.load_cert_chain(path)


def _authorities_above(leaf: x509.Certificate, bundle: X509Bundle) -> Iterator[x509.Certificate]:
    """Yield the authority that signed a leaf, then the one that signed it, up to one that signed itself."""
    below, left = leaf, list(bundle.authorities)
    while below.issuer != below.subject:
        above = next((one for one in left if _signs(one, below)), None)
        if above is None:
            return
        yield above
        left.remove(above)
        below = above


def _signs(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@contextlib.contextmanager
def _file_in_memory(content: bytes) -> Iterator[str]:
    """Provide content as a path, for ``load_cert_chain``, without writing a private key to a disk."""
    descriptor = new_memory_file("svid")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield path_of(descriptor)


def _pem(key_der: bytes, chain: Iterable[x509.Certificate]) -> bytes:
    key = _parse_key(key_der).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return key + b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)


def _parse_key(der: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_der_private_key(der, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError("the private key cannot be read") from error


def _public_der(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
