"""Cache of proofs, keyed by certificate chain: a reconnecting workload presents the same certificates.

A proof depends only on the chain, on the bundle that vouches for it and on the time. So a proof is reused for exactly
the same bytes and the same bundle, within the validity of every certificate on its path; otherwise the chain is
verified as if new. Each handshake proves that the peer holds the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.bounded import BoundedCache
from delegation_core.spiffe_id import TrustDomain
from sidecar.identity.bundle import X509Bundle
from sidecar.identity.svid import Proof, prove

MAX_BYTES: Final = 6 * 1024 * 1024
MAX_CHAIN_BYTES: Final = 4096  # of a cached chain: peers choose its length
PROOF_BYTES: Final = 1536  # besides the chain: the proof, its peer, and the tuple of certificates


class Proofs(BoundedCache[tuple[bytes, ...], Proof]):
    """Proves peers by their chains. The oldest proof is evicted first; refusals are never cached."""

    __slots__ = ()

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes)

    def prove(self, chain: tuple[bytes, ...], bundles: Mapping[TrustDomain, X509Bundle], *, now: int) -> Proof:
        """Prove the peer of a chain. Errors as ``svid.prove``."""
        proof = self.find(chain)
        if (
            proof is None
            or not proof.not_before <= now < proof.until
            or bundles.get(proof.peer.trust_domain) is not proof.bundle
        ):
            proof = prove(chain, bundles, now=now)
            size = sum(map(len, chain))
            if size <= MAX_CHAIN_BYTES:
                self.sweep(now)
                self.keep(chain, proof, cost=size + PROOF_BYTES, expires_at=proof.until)
        return proof
