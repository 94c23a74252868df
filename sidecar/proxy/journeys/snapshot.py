"""Snapshots: one immutable state of policy, keys, exchange and agent decides a whole request.

A ``Setup`` holds the settings that may change while the process runs; a reload replaces it as a whole. A ``Snapshot``
is that setup for our own SPIFFE ID; there is none without an identity.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Problem, Reason, Unavailable
from delegation_core.policy import Deny, Policy
from delegation_core.records.record import Direction
from delegation_core.revocation import NO_NAMES, NOTHING, InForce, Use
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from delegation_core.verify import VerifiedToken
from sidecar.exchange.client import TokenExchange
from sidecar.exchange.exchanges import Exchanges
from sidecar.identity.jwks import IssuerKeys
from sidecar.proxy.journeys.bypass import ListenerRule
from sidecar.wire.dialer import Origin

_POLL_S: Final = 0.02

MakePolicy = Callable[[SpiffeId, int], Policy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The reloadable settings. ``make_policy`` builds a policy from our SPIFFE ID and a serial number.

    ``exchanges`` are the token services by issuer; ``agent`` is None without inbound calls. The sidecar is ready once
    it has keys of all ``needed_issuers``. Verifying peers needs the bundles of ``peer_trust_domains``.
    ``observe_until`` is the end of each route that observes, ``plain_until`` the end of the plaintext port, in seconds
    since the epoch; 0: no such port. ``agent_grpc`` is the agent's separate port for gRPC, or None.
    """

    make_policy: MakePolicy
    keys: IssuerKeys
    exchanges: Exchanges
    agent: Origin | None
    needed_issuers: frozenset[str]
    peer_trust_domains: frozenset[TrustDomain] = frozenset()
    listener_rule: ListenerRule | None = None
    observe_until: Mapping[tuple[Direction, str], int] = field(default_factory=dict)
    plain_until: int = 0
    agent_grpc: Origin | None = None

    def without_keys(self) -> list[str]:
        """Return the needed issuers whose keys were never fetched or are too old, sorted."""
        return sorted(issuer for issuer in self.needed_issuers if not self.keys.ready(issuer))

    async def wait_for_keys(self, timeout_s: float) -> bool:
        """Wait for keys of every needed issuer. Return False if they do not arrive in time."""
        deadline = time.monotonic() + timeout_s
        while self.without_keys():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def problems(self) -> list[Problem]:
        """Return a problem for each needed issuer without keys."""
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
    """The state that one request is judged by."""

    policy: Policy
    keys: IssuerKeys
    exchanges: Exchanges
    agent: Origin | None
    agent_grpc: Origin | None = None

    def require_agent(self) -> Origin:
        """Return the agent's origin.

        Raises:
            Unavailable: UPSTREAM_UNREACHABLE, the settings have none.
        """
        if self.agent is None:
            raise Unavailable(Reason.UPSTREAM_UNREACHABLE, "no agent is configured")
        return self.agent

    def require_grpc_agent(self) -> Origin:
        """Return the origin for calls of gRPC: a port of their own, or the agent's only one.

        Raises:
            Denied: OPERATION_REFUSED, the agent is called by HTTP/1.1.
            Unavailable: as ``require_agent``.
        """
        agent = self.agent_grpc or self.require_agent()
        if not agent.http2:
            raise Denied(Reason.OPERATION_REFUSED, "the agent is called by HTTP/1.1; set inbound.agent_grpc")
        return agent

    def exchange(self, issuer: str) -> TokenExchange:
        """Return the client of the token service of ``issuer``.

        Raises:
            Unavailable: STS_UNAVAILABLE, the settings have none.
        """
        exchange = self.exchanges.get(issuer)
        if exchange is None:
            raise Unavailable(Reason.STS_UNAVAILABLE, "no token service of this issuer is configured")
        return exchange


class Renewal(NamedTuple):
    """Change of revocations alone: the policy's number ``before`` and ``after``; ``stops`` is true for a revoked token.

    Decisions on other tokens under the number ``before`` stay valid under ``after``.
    """

    before: int
    after: int
    stops: Callable[[VerifiedToken], bool]


class Snapshots:
    """Holds the current snapshot."""

    __slots__ = (
        "_denied",
        "_number",
        "_revoked",
        "closed",
        "current",
        "setup",
    )

    def __init__(
        self,
        setup: Setup,
        revoked: Callable[[frozenset[str]], InForce] = lambda _own: NOTHING,
        denied: Callable[[], Deny | None] = lambda: None,
    ) -> None:
        """``revoked`` returns the revocations in force, given the issuers of our own token services.

        ``denied`` returns the deny list of ``deny_file``, which adds to that of the settings; None: there is none.
        """
        self.setup = setup
        self._revoked = revoked
        self._denied = denied
        self.current: Snapshot | None = None
        self.closed: str | None = None  # a reason to refuse new calls although the sidecar has an identity
        self._number = 0

    def now(self) -> Snapshot:
        """Return the snapshot for a new request.

        Raises:
            Unavailable: NOT_READY, there is no identity, or ``closed`` is set.
        """
        snapshot = self.current
        if snapshot is None or self.closed is not None:
            raise Unavailable(Reason.NOT_READY, self.closed or "this workload has no identity")
        return snapshot

    def in_force(self) -> Snapshot:
        """Return the snapshot for requests in flight: ``closed`` refuses new ones only.

        Raises:
            Unavailable: NOT_READY, there is no identity.
        """
        if self.current is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        return self.current

    def follow(self, workload: SpiffeId | None) -> None:
        """Set our SPIFFE ID. A mere renewal of the SVID changes nothing."""
        if workload is None:
            self.current = None
        elif self.current is None or self.current.policy.workload != workload:
            self._make(workload)

    def change(self, setup: Setup | None = None) -> None:
        """Put a reloaded ``setup``, or a changed deny list, in force. Invalidates cached decisions."""
        self.setup = setup or self.setup
        if self.current is not None:
            self._make(self.current.policy.workload)

    def renew(self) -> Renewal | None:
        """Put the current revocations in force. Return what caches need to keep entries; None: all entries are invalid.

        None also without an identity. Entries can stay only if the change names tokens alone.
        """
        before = self.current
        if before is None:
            return None
        self._make(before.policy.workload)
        after = self.in_force()
        revoked = after.policy.deny.revoked
        if not revoked.only_names_tokens_since(before.policy.deny.revoked):
            return None

        def stops(
            token: VerifiedToken,
        ) -> bool:  # the token's own names are enough: orders for workloads have not changed
            return revoked.kind_of(Use(token, None, NO_NAMES)) is not None

        return Renewal(before.policy.number, after.policy.number, stops)

    def _make(self, workload: SpiffeId) -> None:
        self._number += 1
        setup = self.setup
        policy = setup.make_policy(workload, self._number)
        denied = self._denied()
        if denied is not None:
            policy = replace(policy, deny=policy.deny.joined(denied))
        revoked = self._revoked(policy.token_services)
        if revoked is not NOTHING:
            policy = replace(policy, deny=replace(policy.deny, revoked=revoked))
        self.current = Snapshot(
            policy=policy, keys=setup.keys, exchanges=setup.exchanges, agent=setup.agent, agent_grpc=setup.agent_grpc
        )
