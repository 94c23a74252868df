"""Cache of proofs by certificate chain: a workload that connects again shows the same certificates.

A proof depends on the chain, on the bundle that vouches for it and on the time, and on nothing else. So a proof counts
again for the very same bytes and the very same bundle, within the time of every certificate on its path; otherwise the
chain is verified as if it had never been seen. That the peer holds the key is shown by each handshake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.bounded import BoundedCache
from sidecar.delegation.spiffe_id import TrustDomain
from sidecar.identity.bundle import X509Bundle
from sidecar.identity.svid import Proof, prove

MAX_BYTES: Final = 6 * 1024 * 1024
MAX_CHAIN_BYTES: Final = 4096  # of a chain that is kept: peers choose what they send along
PROOF_BYTES: Final = 1536  # beside the chain: the proof, its peer, and the tuple of certificates


class Proofs(BoundedCache[tuple[bytes, ...], Proof]):
    """Proves peers by their chains. The oldest proof is evicted first; refusals are never kept."""

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
