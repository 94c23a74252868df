"""Issued tokens for outbound calls: from the cache, or from one exchange shared by all calls that need the same token.

A flight is one exchange in flight. It outlives the caller that started it. A caller that decides by other keys, another
policy or another identity never joins it. If our identity changes or the tokens are invalidated during a flight, its
result is discarded and requested again; likewise if the keys change after they accepted the token.

A token that is used in the last part of its life is refreshed by a flight that no call waits for, while it is still
used. A refresh that fails costs no call anything: it is counted, recorded, and tried again later.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from delegation_core.errors import Reason, SidecarError, Unavailable
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Plan
from delegation_core.policy import Policy
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import thumbprint_of
from sidecar.exchange.cache import MAX_BYTES, Epoch, Issued, IssuedTokens, new_epoch
from sidecar.exchange.events import credential_of, issued_fields, refused_fields
from sidecar.exchange.failover import Caller, EndpointState
from sidecar.exchange.refresh_schedule import retry_at
from sidecar.exchange.sts import ExchangeSettings, Sts
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.source import Identity, IdentitySource
from sidecar.observe.access_log import AccessLog
from sidecar.observe.metrics import Metrics, RefreshResult
from sidecar.wire.resolver import Resolver

if TYPE_CHECKING:
    from sidecar.exchange.logins import Logins
    from sidecar.exchange.txn_service import TxnTokenService

_FLIGHTS_PER_CALL: Final = 3  # the first, and two more if keys, policy or identity change meanwhile

_Outcome: TypeAlias = "Issued | SidecarError"
_Flight: TypeAlias = "asyncio.Task[_Landed]"

Fact: TypeAlias = tuple[object, str, object]
"""An object, an attribute of it, and the value that it has: something else is decided with any other one."""


@dataclass(frozen=True, slots=True)
class _Landed:
    """The outcome of a flight, and the epoch at its end; None without an identity, or if tokens were invalidated."""

    epoch: Epoch | None
    outcome: _Outcome


class TokenExchange:
    """The tokens of this workload's outbound calls, issued by one token service; at most ``max_bytes`` of them.

    Lives in one event loop; ``clock`` is wall time in seconds. ``txn_service`` issues transaction tokens where chains
    begin; None: no route carries them.
    """

    def __init__(
        self,
        settings: ExchangeSettings,
        source: IdentitySource,
        keys: IssuerKeys,
        log: AccessLog,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        caller: Caller | None = None,
        spread: Callable[[], float] = random.random,
        resolver: Resolver | None = None,
        max_bytes: int = MAX_BYTES,
        warm_bytes: int = 0,
        txn_service: TxnTokenService | None = None,
    ) -> None:
        self._txn_service = txn_service
        self._settings = settings
        self._source = source
        self._keys = keys
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._spread = spread
        self._sts = Sts(
            settings,
            source,
            keys,
            clock,
            caller,
            spread,
            resolver,
            monotonic=monotonic,
            on_failure=lambda endpoint, reason: metrics.token_endpoint_failed(settings.issuer, endpoint, reason),
        )
        self._logins: Logins | None = None
        self.tokens = IssuedTokens(max_bytes, warm_bytes=warm_bytes)
        self._flights: dict[Hashable, _Flight] = {}
        self.withdrawals = 0
        self._own_id = _id_of(source.current)
        self._closed = False
        self.last_refusal: tuple[int, Reason, str] | None = (
            None  # time, reason and detail, if the last exchange gave no token
        )
        source.subscribe(self._on_identity)

    @property
    def logins(self) -> Logins:
        """Users' logins at this token service."""
        if self._logins is None:
            from sidecar.exchange.logins import Logins

            self._logins = Logins(
                self._sts, self._settings, self._log, self._metrics, keep=self._keep_granted, monotonic=self._monotonic
            )
        return self._logins

    def sweep(self, now: float) -> None:
        """Remove the tokens expired at ``now``, and expired rejections."""
        self.tokens.sweep(now, monotonic_s=self._monotonic())

    @property
    def endpoints(self) -> list[EndpointState]:
        """The state of each endpoint, the preferred first."""
        return self._sts.endpoints

    @property
    def under_way(self) -> int:
        """The number of exchanges in flight."""
        return len(self._flights)

    def cached(self, plan: Plan, *, policy: Policy, now: int) -> Issued | None:
        """Return the cached token for this plan; None: await `exchange`. Never waits, never raises.

        In the last part of the token's life this starts its refresh. Needs a running event loop.
        """
        epoch = self._epoch(policy)
        issued = None if epoch is None else self.tokens.find(key_of(plan), epoch=epoch, now=now)
        if issued is None or epoch is None or (issued.bound_to is not None and not self._if_usable(plan, issued)):
            self._metrics.token_cache["miss"] += 1
            return None
        self._metrics.token_cache["hit"] += 1
        if now >= issued.refresh_at:
            self._refresh(plan, policy, epoch, issued, now)
        return issued

    async def exchange(self, plan: Plan, policy: Policy) -> Issued:
        """Return a token issued and verified for this plan; concurrent callers with the same plan share one exchange.

        A token granted by a user is verified again without an exchange.

        Raises:
            SidecarError: as `Sts.exchange`; NOT_READY without an identity of our own, OVERLOADED with too many
                exchanges in flight.
        """
        if plan.delegation is not None and plan.delegation.granted:
            if self._closed or self._epoch(policy) is None:
                raise Unavailable(Reason.NOT_READY, "this workload has no identity to call with")
            granted = await self._sts.prove_granted(plan, policy)
            self._keep_granted(granted, policy)
            return granted
        for _ in range(_FLIGHTS_PER_CALL):
            epoch = self._epoch(policy)
            if epoch is None or self._closed:
                raise Unavailable(Reason.NOT_READY, "this workload has no identity to exchange with")
            kept = self._if_usable(plan, self.tokens.find(key_of(plan), epoch=epoch, now=int(self._clock())))
            if kept is not None:  # a flight landed since the caller looked
                return kept
            flight = self._join(plan, policy, epoch)
            await asyncio.wait([flight])  # unlike awaiting the task, this leaves it alone when the caller goes away
            if flight.cancelled():
                continue
            landed = flight.result()
            if landed.epoch is not None and landed.epoch == self._epoch(policy):
                issued = _issued_of(landed.outcome)
                if self.usable(issued):
                    return issued
        raise Unavailable(Reason.STS_UNAVAILABLE, "keys, policy or identity changed during every exchange")

    def usable(self, issued: Issued) -> bool:
        """True if a token may be sent now: unbound, or bound to our current SVID."""
        identity = self._source.current
        return issued.bound_to is None or (
            identity is not None and thumbprint_of(identity.svid.leaf_sha256) == issued.bound_to
        )

    def _if_usable(self, plan: Plan, issued: Issued | None) -> Issued | None:
        """Return ``issued`` if it is usable; else drop it from the cache and return None."""
        if issued is not None and not self.usable(issued):
            self.tokens.drop(key_of(plan))
            return None
        return issued

    def _keep_granted(self, issued: Issued, policy: Policy) -> None:
        """Cache a token that was just verified, for later calls."""
        epoch = self._epoch(policy)
        if epoch is not None:
            self.tokens.keep(key_of(issued.permit.plan), issued, epoch=epoch)

    def reject(self, permit: IssuedPermit) -> bool:
        """Remove a token that the next hop refused (401). False, without effect, if its key had one within 10 s."""
        return self.tokens.reject(key_of(permit.plan), permit, monotonic_s=self._monotonic())

    @property
    def credential_files(self) -> tuple[str, ...]:
        """Files of the static credentials for these tokens; call ``invalidate`` when one changes."""
        of_txn = None if self._txn_service is None else self._txn_service.credential_file
        return self._sts.credential_files + (() if of_txn is None else (of_txn,))

    def invalidate(self) -> None:
        """Discard every token, including those in flight. Not needed for changes of keys, policy and identity."""
        self.withdrawals += 1
        self.tokens.clear()
        self._sts.forget()

    async def close(self) -> None:
        """Cancel the exchanges in flight; their callers get NOT_READY."""
        self._closed = True
        self._source.unsubscribe(self._on_identity)
        flights = tuple(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        await self._sts.close()
        if self._txn_service is not None:
            await self._txn_service.close()

    def _epoch(self, policy: Policy) -> Epoch | None:
        """The epoch in which a token would be accepted now. None: we have no identity, or not the policy's."""
        identity = self._source.current
        if identity is None or (own_id := identity.svid.spiffe_id) != policy.workload:
            return None
        return new_epoch((self._keys.generation_of(self._settings.issuer), policy.number, self.withdrawals, own_id))

    def holds_by(self) -> list[Fact] | None:
        """Return the facts that the current epoch depends on, as read by ``_epoch``; None if no token is valid now."""
        kept, identity, state = self.tokens.kept, self._source.current, self._keys.of_issuer(self._settings.issuer)
        epoch = kept.epoch
        if not isinstance(epoch, Epoch) or identity is None or identity.svid.spiffe_id != epoch.workload:
            return None
        facts: list[Fact] = [
            (kept, "epoch", epoch),
            (self, "withdrawals", epoch.withdrawals),
            (self._source, "current", identity),
        ]
        return facts if state is None else [*facts, (state, "generation", epoch.keys)]

    def _join(self, plan: Plan, policy: Policy, epoch: Epoch) -> _Flight:
        key = (key_of(plan), epoch)
        flight = self._flights.get(key)
        if flight is not None:
            self._metrics.token_cache["joined"] += 1
            return flight
        if len(self._flights) >= self._settings.max_flights:
            raise Unavailable(Reason.OVERLOADED, "too many exchanges are in flight")
        return self._take_off(plan, policy, epoch)

    def _refresh(self, plan: Plan, policy: Policy, epoch: Epoch, issued: Issued, now: int) -> None:
        """Start the refresh of a token in use, unless half of all flights are in use: the rest is for calls."""
        if self._closed or len(self._flights) >= self._settings.max_flights / 2:
            return
        later = retry_at(now=now, usable_until=issued.usable_until, spread=self._spread())
        self.tokens.postpone(key_of(plan), issued, until=later)
        if (key_of(plan), epoch) not in self._flights:
            self._take_off(plan, policy, epoch, replaces=issued)

    def _take_off(self, plan: Plan, policy: Policy, epoch: Epoch, *, replaces: Issued | None = None) -> _Flight:
        key = (key_of(plan), epoch)
        flight = asyncio.get_running_loop().create_task(self._fly(plan, policy, epoch, replaces))
        self._flights[key] = flight
        flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return flight

    async def _fly(self, plan: Plan, policy: Policy, started: Epoch, replaces: Issued | None) -> _Landed:
        """Run one exchange, counted and recorded. A refusal is a result here: perhaps no caller waits any more."""
        started_at = self._monotonic()
        credentials: set[str] = set()
        outcome: _Outcome
        alone: Issued | None = None
        try:
            if plan.begins_transaction:
                alone = await self._access_token(plan, policy, started, replaces, credentials)
                outcome = await self._with_txn_token(alone)
            else:
                outcome = await self._sts.exchange(plan, policy, credentials)
        except SidecarError as error:
            outcome = error
        epoch = self._epoch(policy)
        if epoch is not None and epoch.withdrawals != started.withdrawals:
            epoch = None
        kept = False
        accepted = isinstance(outcome, Issued) and self.usable(outcome) and _lasts_longer(outcome, replaces)
        if epoch is not None and isinstance(outcome, Issued) and accepted:
            kept = self.tokens.keep(key_of(plan), outcome, epoch=epoch)
        if replaces is not None:
            self._count_refresh(plan, outcome, replaces, kept=kept)
        self._report(plan, policy, outcome, self._monotonic() - started_at, credential_of(credentials), alone)
        return _Landed(epoch, outcome)

    async def _access_token(
        self, plan: Plan, policy: Policy, started: Epoch, replaces: Issued | None, credentials: set[str]
    ) -> Issued:
        """Return the access token for which a transaction token is requested, cached or new.

        The issued token stays cached meanwhile, so that a failure of the transaction token service costs no further
        exchange.
        """
        kept = self.tokens.find(_alone(plan), epoch=started, now=int(self._clock()))
        if kept is not None and self.usable(kept) and _lasts_longer(kept, replaces):
            credentials |= kept.credentials
            return kept
        issued = await self._sts.exchange(plan, policy, credentials)
        epoch = self._epoch(policy)
        if epoch is not None and epoch.withdrawals == started.withdrawals:
            self.tokens.keep(_alone(plan), issued.obtained_by(credentials), epoch=epoch)
        return issued

    async def _with_txn_token(self, issued: Issued) -> Issued:
        """Add the transaction token of the chain that begins with this token."""
        if self._txn_service is None:
            raise Unavailable(Reason.STS_UNAVAILABLE, "no transaction token service is configured")
        whole = issued.with_txn_token(await self._txn_service.issue(issued.permit))
        self.tokens.drop(_alone(issued.permit.plan))
        return whole

    def _count_refresh(self, plan: Plan, outcome: _Outcome, replaced: Issued, *, kept: bool) -> None:
        if isinstance(outcome, SidecarError):
            result: RefreshResult = "failed"
        elif kept:
            result = "ok"
        elif _lasts_longer(outcome, replaced):
            result = "dropped"
        else:  # the token service gives no longer-lived one: do not ask again
            result = "no_longer"
            self.tokens.postpone(key_of(plan), replaced, until=replaced.usable_until)
        self._metrics.token_refresh[result] += 1

    def _report(
        self,
        plan: Plan,
        policy: Policy,
        outcome: _Outcome,
        seconds: float,
        credential: str | None,
        alone: Issued | None,
    ) -> None:
        adapter, exchange_ms = self._settings.adapter, round(seconds * 1000, 3)
        if isinstance(outcome, SidecarError):
            self.last_refusal = int(self._clock()), outcome.reason, outcome.detail
            self._metrics.exchange(self._settings.issuer, outcome.reason, seconds)
            fields = refused_fields(
                plan, policy, outcome, adapter=adapter, exchange_ms=exchange_ms, credential=credential
            )
            if alone is not None:
                fields["jti_out"] = alone.permit.token.jti
            self._log.event("token.exchange_refused", **fields)
        else:
            self.last_refusal = None
            self._metrics.exchange(self._settings.issuer, None, seconds)
            fields = issued_fields(outcome.permit, adapter=adapter, exchange_ms=exchange_ms, credential=credential)
            if outcome.txn_token is not None:
                fields["txn"] = outcome.txn_token.txn
            self._log.event("token.exchanged", **fields)

    def _on_identity(self, identity: Identity | None) -> None:
        """Invalidate all tokens when our SPIFFE ID changes or is withdrawn. A renewal changes nothing."""
        own_id = _id_of(identity)
        if own_id != self._own_id:
            self._own_id = own_id
            self.invalidate()


def _lasts_longer(issued: Issued, than: Issued | None) -> bool:
    return than is None or issued.usable_until > than.usable_until


def _issued_of(outcome: _Outcome) -> Issued:
    if isinstance(outcome, SidecarError):
        raise type(outcome)(outcome.reason, outcome.detail)  # each waiter its own, or their tracebacks pile up
    return outcome


def _id_of(identity: Identity | None) -> SpiffeId | None:
    return None if identity is None else identity.svid.spiffe_id


def key_of(plan: Plan) -> Hashable:
    """Return the key of a plan's issued token in the cache."""
    return plan.key, plan.route.name  # a permit is for its route; two routes may share an audience


def _alone(plan: Plan) -> Hashable:
    """Return the cache key of an access token that still lacks its transaction token; no call is made with it."""
    return key_of(plan), "alone"
