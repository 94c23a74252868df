"""What a request being served stands for, and what may be asked of the STS on its strength."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from sidecar.delegation.route import OutboundRoute
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import VerifiedToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """The authority of a request being served: its own ``token``, worth ``scope`` here, opening ``may_call``.

    ``entry``: the token is a login token, with which a chain starts.
    """

    token: VerifiedToken
    may_call: frozenset[str]
    entry: bool
    scope: ScopeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One exchange to be made, and what its answer must look like.

    The issued token shall be by ``sts_issuer``, for ``audience``, of ``expected_subject``, with ``actor`` (this
    workload) as its outermost actor, no wider than ``scope`` and dead by ``max_expires_at`` (seconds since the epoch).
    """

    route: OutboundRoute
    delegation: Delegation
    audience: str
    scope: ScopeSet
    actor: SpiffeId
    sts_issuer: str
    expected_subject: str
    max_expires_at: int

    @property
    def key(self) -> Hashable:
        """Everything the issued token depends on: equal keys may share one exchange and its answer, no others."""
        return (self.delegation.token.raw, self.audience, self.scope, self.actor, self.sts_issuer)
