"""What chains proved, remembered: a workload that connects again shows the same certificates.

What a chain proves depends on the chain, on the bundle that vouches for it and on the time, and on nothing else. So a
proof counts again for the very same bytes and the very same bundle, within the time of every certificate on its path;
otherwise the chain is verified as if it had never been seen. That the peer holds the key is shown by each handshake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sidecar.delegation.spiffe_id import TrustDomain
from sidecar.identity.bundle import X509Bundle
from sidecar.identity.svid import Proof, prove

MAX_PROOFS: Final = 1024
MAX_CHAIN_BYTES: Final = 4096  # of a chain that is kept: what peers send along is theirs to choose


class Proofs:
    """Proves peers, and remembers whom until too many are known: then it begins anew. Refusals are never kept."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, ...], Proof] = {}

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, chain: tuple[bytes, ...]) -> bool:
        """Whether the chain proved somebody before: then it is within every bound."""
        return chain in self._known

    def prove(self, chain: tuple[bytes, ...], bundles: Mapping[TrustDomain, X509Bundle], *, now: int) -> Proof:
        """As ``svid.prove``, errors too."""
        proof = self._known.get(chain)
        if (
            proof is None
            or not proof.not_before <= now < proof.until
            or bundles.get(proof.peer.trust_domain) is not proof.bundle
        ):
            proof = prove(chain, bundles, now=now)
            self._keep(chain, proof)
        return proof

    def _keep(self, chain: tuple[bytes, ...], proof: Proof) -> None:
        if sum(map(len, chain)) > MAX_CHAIN_BYTES:
            return
        if len(self._known) >= MAX_PROOFS and chain not in self._known:
            self._known.clear()
        self._known[chain] = proof
