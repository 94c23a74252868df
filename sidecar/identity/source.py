"""Our identity and trust as one immutable snapshot, and the protocol of its sources."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.bundle import X509Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """Our own SVID: DER certificates, leaf first, and the PKCS#8 key. Times in seconds since the epoch.

    ``leaf_sha256`` is in hexadecimal, as ``VerifiedPeer.fingerprint`` at the other end.
    """

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...] = field(repr=False)
    key_der: bytes = field(repr=False)
    not_before: int
    not_after: int
    hint: str = ""
    leaf_sha256: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaf_sha256", sha256(self.chain[0] if self.chain else b"").hexdigest())

    @property
    def lifetime(self) -> tuple[int, int]:
        """First and last second of its validity."""
        return self.not_before, self.not_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One generation: SVID, bundles, and the TLS contexts made from them. Never changed, only replaced.

    The contexts are for the delegating ones of ``tls.py``: alone they would accept any SVID of any trust domain.
    """

    number: int
    svid: X509Svid
    bundles: Mapping[TrustDomain, X509Bundle]
    server_context: ssl.SSLContext = field(repr=False)
    client_context: ssl.SSLContext = field(repr=False)

    @property
    def spiffe_id(self) -> SpiffeId:
        """Our own SPIFFE ID."""
        return self.svid.spiffe_id


class State(StrEnum):
    """The state of a source. In READY and STALE there is an identity to use, in the others there is none."""

    STARTING = "starting"  # no update has arrived yet
    READY = "ready"
    STALE = "stale"  # the connection is lost, the identity is still valid
    DENIED = "denied"  # our identity was withdrawn
    EXPIRED = "expired"


@dataclass(slots=True)
class UpdateCounts:
    """Counts of a source's updates since the start."""

    generations: int = 0
    discarded: int = 0  # unusable updates
    broken_bundles: int = 0  # unusable bundles of single trust domains
    lost_connections: int = 0


Subscriber = Callable[["Identity | None"], None]


class IdentitySource(Protocol):
    """A source of our identity."""

    @property
    def current(self) -> Identity | None:
        """The newest generation. None: nothing may be presented or accepted."""
        ...

    @property
    def state(self) -> State:
        """The state of the source."""
        ...

    @property
    def last_error(self) -> str | None:
        """The last error, for the operator; None after a good update."""
        ...

    @property
    def counts(self) -> UpdateCounts:
        """Counts of its updates since the start."""
        ...

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        """The keys that sign JWT-SVIDs, by trust domain. Empty if none were requested."""
        ...

    async def run(self) -> None:
        """Keep the identity fresh until cancelled."""
        ...

    async def jwt_svid(self, audience: str) -> str:
        """Return a JWT-SVID of our own for one audience.

        Raises:
            Unavailable: NOT_READY, there is none now.
        """
        ...

    def subscribe(self, callback: Subscriber) -> None:
        """Call back on every new generation, and with None when the identity is withdrawn or expires."""
        ...

    def unsubscribe(self, callback: Subscriber) -> None:
        """Remove a subscriber. A second call has no effect."""
        ...
