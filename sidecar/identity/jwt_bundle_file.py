"""Reads the JWT bundles that spiffe-helper writes to a file. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType

from delegation_core.keyset import KeySet, KeySetError, parse_jwt_bundle
from delegation_core.spiffe_id import SpiffeIdError, TrustDomain
from delegation_core.strict_json import StrictJsonError, parse_object
from sidecar.identity.file_reader import MAX_FILE_BYTES
from sidecar.identity.update import MAX_TRUST_DOMAINS, UpdateError, last_good


def read_jwt_bundle_file(
    document: bytes, *, known: Mapping[TrustDomain, KeySet] = MappingProxyType({})
) -> tuple[Mapping[TrustDomain, KeySet], int]:
    """Read spiffe-helper's file: a JSON object of trust domains, each with its JWK set in base64.

    Returns the keys by trust domain, and the number of malformed bundles. Their ``known`` keys stay.

    Raises:
        UpdateError: the document has another form.
    """
    try:
        members = parse_object(document, max_bytes=MAX_FILE_BYTES)
    except StrictJsonError as error:
        raise UpdateError(f"the JWT bundles: {error}") from error
    if len(members) > MAX_TRUST_DOMAINS:
        raise UpdateError("too many trust domains")
    key_sets: dict[TrustDomain, KeySet] = {}
    broken = 0
    for name, encoded in members.items():
        try:
            trust_domain = TrustDomain(name)
        except SpiffeIdError:
            broken += 1
            continue
        try:
            key_sets[trust_domain] = parse_jwt_bundle(_decode(encoded))
        except KeySetError:
            broken += 1
            key_sets |= last_good(trust_domain, known)
    return MappingProxyType(key_sets), broken


def _decode(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise KeySetError("the bundle is not text")
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:  # binascii.Error is one; text beyond ASCII raises another
        raise KeySetError("the bundle is not base64") from error
