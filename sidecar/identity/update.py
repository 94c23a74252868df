"""One update from an identity source, and the rule that selects our SVID from several. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import X509Bundle, parse_bundle
from sidecar.identity.source import X509Svid

MAX_TRUST_DOMAINS: Final = 1000

Kept = TypeVar("Kept", X509Bundle, KeySet)


class UpdateError(ValueError):
    """The update is unusable; the current identity stays. The text never quotes the update."""


class WithdrawnError(Exception):
    """The update is valid and lacks our SVID, which was thereby withdrawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Update:
    """The full state from a source. ``broken`` counts federated bundles that are malformed, or missing files."""

    svid: X509Svid
    bundles: Mapping[TrustDomain, X509Bundle]
    broken: int


def choose(
    names: Sequence[tuple[str, str]], *, spiffe_id: SpiffeId | None, hint: str | None, held: SpiffeId | None
) -> int:
    """Select our SVID from several, each named by SPIFFE ID and hint. Never just the first: the order is arbitrary.

    SVIDs with the same SPIFFE ID are one identity (two registrations of a workload), and any of them will do. ``held``
    is the SPIFFE ID in use.

    Raises:
        UpdateError: ``names`` is empty, or several SPIFFE IDs match.
        WithdrawnError: none matches the configured SPIFFE ID and hint, or several match and none is ``held``.
    """
    if not names:
        raise UpdateError("no SVID")  # PERMISSION_DENIED means withdrawal, an empty list never does
    fitting = [
        number
        for number, (name, its_hint) in enumerate(names)
        if (spiffe_id is None or name == spiffe_id) and (hint is None or its_hint == hint)
    ]
    if not fitting:
        raise WithdrawnError("none of our SVIDs has the configured SPIFFE ID and hint")
    meant = {names[number][0] for number in fitting}
    if len(meant) > 1:
        text = "several SVIDs match: set identity.spiffe_id"
        if held is not None and held not in meant:
            raise WithdrawnError(text)
        raise UpdateError(text)
    return fitting[0]


def reuse_or_parse(trust_domain: TrustDomain, der: bytes, known: Mapping[TrustDomain, X509Bundle]) -> X509Bundle:
    """Parse a bundle; the same bytes give the same object as before. Raises BundleError as ``parse_bundle``."""
    before = known.get(trust_domain)
    return before if before is not None and before.der == der else parse_bundle(trust_domain, der)


def last_good(trust_domain: TrustDomain, known: Mapping[TrustDomain, Kept]) -> dict[TrustDomain, Kept]:
    """Return the known entry of a trust domain whose bundle is malformed now: only a missing bundle is withdrawn."""
    return {trust_domain: known[trust_domain]} if trust_domain in known else {}
