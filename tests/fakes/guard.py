"""A peer's proof that a test can take away."""

from __future__ import annotations

from delegation_core.errors import Denied, Reason
from sidecar.identity.svid import VerifiedPeer
from tests.core.world import NOW, PLANNER


class FakeGuard:
    """Trusts its peer until ``withdrawn``, and after ``until`` reports it expired. ``checked`` records the times."""

    def __init__(self, *, until: int = NOW + 3600, fingerprint: str = "00" * 32) -> None:
        self.peer = VerifiedPeer(PLANNER, until, fingerprint)
        self.chain: tuple[bytes, ...] = (fingerprint.encode(),)
        self.until = until
        self.withdrawn = False
        self.checked: list[int] = []

    def check(self, now: int) -> VerifiedPeer:
        self.checked.append(now)
        if self.withdrawn:
            raise Denied(Reason.UNTRUSTED_CHAIN, self.peer.spiffe_id)
        if now >= self.until:
            raise Denied(Reason.SVID_EXPIRED, self.peer.spiffe_id)
        return self.peer
