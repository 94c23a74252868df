"""What is in force: one immutable snapshot for each request, from its first decision to its last.

A ``Setup`` is what a settings file makes that may change while the process runs; a reload swaps it whole. A
``Snapshot`` is that setup for the workload we are; None while we do not know who we are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.delegation.policy import Policy
from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.errors import Problem, Reason, Unavailable
from sidecar.exchange.client import TokenExchange
from sidecar.identity.jwks import IssuerKeys
from sidecar.proxy.bypass import ListenerRule
from sidecar.wire.pool import Origin

_POLL_S: Final = 0.02

MakePolicy = Callable[[SpiffeId, int], Policy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """``make_policy`` builds a policy for a workload's SPIFFE ID and a running number.

    ``exchange`` is None where nothing is called, ``agent`` where nobody is served. Without keys of all
    ``needed_issuers`` the sidecar is not ready; peers of ``peer_trust_domains`` are believed by their bundles alone.
    """

    make_policy: MakePolicy
    keys: IssuerKeys
    exchange: TokenExchange | None
    agent: Origin | None
    needed_issuers: frozenset[str]
    peer_trust_domains: frozenset[TrustDomain] = frozenset()
    listener_rule: ListenerRule | None = None

    def without_keys(self) -> list[str]:
        """The needed issuers of which no key was ever seen, or of which the keys are too old to be used."""
        return sorted(issuer for issuer in self.needed_issuers if not self.keys.ready(issuer))

    async def wait_for_keys(self, timeout_s: float) -> bool:
        """Whether there are keys of every needed issuer within that time."""
        deadline = time.monotonic() + timeout_s
        while self.without_keys():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def problems(self) -> list[Problem]:
        """Why these settings cannot be used: the needed issuers that gave no keys."""
        errors = self.keys.last_errors()
        return [
            Problem(
                f"keys of {issuer}",
                f"cannot be fetched ({errors.get(issuer) or 'none came'})",
                "check jwks and tls of this issuer",
            )
            for issuer in self.without_keys()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What one request is judged by."""

    policy: Policy
    keys: IssuerKeys
    exchange: TokenExchange | None
    agent: Origin | None

    def require_agent(self) -> Origin:
        """Where the agent listens.

        Raises:
            Unavailable: UPSTREAM_UNREACHABLE, the settings have none.
        """
        if self.agent is None:
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "no agent is configured")
        return self.agent

    def require_exchange(self) -> TokenExchange:
        """Where tokens for outbound calls are had.

        Raises:
            Unavailable: STS_UNAVAILABLE, the settings have none.
        """
        if self.exchange is None:
            raise Unavailable(Reason.STS_UNAVAILABLE, "no token exchange is configured")
        return self.exchange


class Snapshots:
    """Holds the snapshot in force."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.current: Snapshot | None = None
        self.closed: str | None = None  # the reason to serve no call although everything is there
        self._number = 0

    def now(self) -> Snapshot:
        """What to judge by.

        Raises:
            Unavailable: NOT_READY, there is no identity, so there is nobody to decide for; or ``closed`` is set.
        """
        snapshot = self.current
        if snapshot is None or self.closed is not None:
            raise Unavailable(Reason.NOT_READY, self.closed or "this workload has no identity")
        return snapshot

    def in_force(self) -> Snapshot:
        """What to judge by what has begun: ``closed`` refuses what is new, and must not keep the rest from its end.

        Raises:
            Unavailable: NOT_READY, there is no identity.
        """
        if self.current is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        return self.current

    def follow(self, workload: SpiffeId | None) -> None:
        """Our SPIFFE ID is now ``workload``. A mere renewal of the SVID changes nothing."""
        if workload is None:
            self.current = None
        elif self.current is None or self.current.policy.workload != workload:
            self._make(workload)

    def change(self, setup: Setup) -> None:
        """A reload: requests that come from now on are judged by ``setup``, whatever was remembered before."""
        self.setup = setup
        if self.current is not None:
            self._make(self.current.policy.workload)

    def _make(self, workload: SpiffeId) -> None:
        self._number += 1
        setup = self.setup
        policy = setup.make_policy(workload, self._number)
        self.current = Snapshot(policy=policy, keys=setup.keys, exchange=setup.exchange, agent=setup.agent)
