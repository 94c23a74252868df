"""The identity source that follows a SPIFFE Workload API.

Theory of operation. Two streams at most (X.509, and JWT bundles where somebody verifies JWT-SVIDs) run for ever, each
in a loop of its own: connect, take messages, on any failure wait 0.1 to 1 s and connect anew. Each message is the full
state. A good one becomes a new generation, built and checked aside and then put in place by one assignment. One that
cannot be used is counted and changes nothing. What the Workload API takes away is gone at once: PERMISSION_DENIED, or a
message without our SVID, leaves no identity. A lost connection takes nothing away: the last generation serves until
its SVID expires. Nobody tells us of that moment (SPIRE sends nothing, and hands an expired SVID to new streams), so
``current`` looks at the clock each time, and a slow tick tells the subscribers.

Everything here runs on one event loop and no step between reading and changing the state can wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from sidecar.delegation.keyset import KeySet
from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.errors import Reason, Unavailable
from sidecar.identity import workload_pb
from sidecar.identity.bundle import X509Bundle, with_ambiguous_names
from sidecar.identity.generation import IdentityError, new_identity
from sidecar.identity.handshake import Clock
from sidecar.identity.jwt_svids import JwtSvids
from sidecar.identity.source import Identity, State, Subscriber
from sidecar.identity.workload_client import IdentityDeniedError, WorkloadApiClient, WorkloadApiError, parse_address
from sidecar.identity.workload_stream import Backoff, Pause, Subscription, follow
from sidecar.identity.workload_update import UpdateError, WithdrawnError, read_jwt_bundles, read_x509_update

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadApiSettings:
    """Where the Workload API is, and which of several SVIDs is ours (the first, if neither ID nor hint is set)."""

    address: str
    spiffe_id: SpiffeId | None = None
    hint: str | None = None
    jwt_bundles: bool = False
    first_message_timeout_s: float = 5.0
    call_timeout_s: float = 2.0
    min_backoff_s: float = 0.1
    max_backoff_s: float = 1.0
    expiry_tick_s: float = 1.0

    def __post_init__(self) -> None:
        parse_address(self.address)
        if not 0 < self.min_backoff_s <= self.max_backoff_s:
            raise ValueError("the shortest back-off is above zero and at most the longest")


@dataclass(slots=True)
class UpdateCounts:
    """What the streams brought, since the start."""

    generations: int = 0
    discarded: int = 0  # whole messages that could not be used
    broken_bundles: int = 0  # bundles of single trust domains that could not be used
    lost_connections: int = 0


class WorkloadApiSource:
    """An ``IdentitySource`` on a Workload API."""

    def __init__(
        self,
        settings: WorkloadApiSettings,
        *,
        clock: Clock = time.time,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.counts = UpdateCounts()
        self._settings = settings
        self._clock = clock
        self._pause = pause
        self._client = WorkloadApiClient(
            parse_address(settings.address),
            first_message_timeout_s=settings.first_message_timeout_s,
            call_timeout_s=settings.call_timeout_s,
        )
        self._identity: Identity | None = None
        self._withdrawn = False
        self._connected = False
        self._last_error: str | None = None
        self._jwt_bundles: Mapping[TrustDomain, KeySet] = MappingProxyType({})
        self._jwt_svids = JwtSvids(self._fetch_jwt_svid, clock)
        self._subscribers: list[Subscriber] = []
        self._told: Identity | None = None

    @property
    def current(self) -> Identity | None:
        """The newest generation. None before the first, after withdrawal and once it has expired."""
        identity = self._identity
        return identity if identity is not None and self._clock() < identity.svid.not_after else None

    @property
    def state(self) -> State:
        """Where the source stands."""
        if self._identity is None:
            return State.DENIED if self._withdrawn else State.STARTING
        if self.current is None:
            return State.EXPIRED
        return State.READY if self._connected else State.STALE

    @property
    def last_error(self) -> str | None:
        """What went wrong last; None after a good update."""
        return self._last_error

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        """The keys for JWT-SVIDs by trust domain; empty unless ``jwt_bundles`` is set."""
        return self._jwt_bundles

    def subscribe(self, callback: Subscriber) -> None:
        """Call back on every new generation, and with None on withdrawal and expiry."""
        self._subscribers.append(callback)

    async def jwt_svid(self, audience: str) -> str:
        """A JWT-SVID of our own for one audience. Unavailable(NOT_READY) if none can be had."""
        if self.current is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        return await self._jwt_svids.get(audience)

    async def run(self) -> None:
        """Follow the Workload API until cancelled. No failure of it ends this."""
        streams = [self._x509_stream()]
        if self._settings.jwt_bundles:
            streams.append(self._jwt_bundle_stream())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._jwt_svids.run())
            for stream in streams:
                backoff = Backoff(self._settings.min_backoff_s, self._settings.max_backoff_s)
                group.create_task(follow(self._client, stream, backoff, self._pause))
            while True:
                await self._pause(self._settings.expiry_tick_s)
                self._announce()

    def _x509_stream(self) -> Subscription:
        return Subscription(
            name="X.509",
            method="FetchX509SVID",
            request=workload_pb.X509SVIDRequest(),
            reply_type=workload_pb.X509SVIDResponse,
            take=self._take_x509,
            lost=self._lost_x509,
        )

    def _jwt_bundle_stream(self) -> Subscription:
        return Subscription(
            name="JWT bundles",
            method="FetchJWTBundles",
            request=workload_pb.JWTBundlesRequest(),
            reply_type=workload_pb.JWTBundlesResponse,
            take=self._take_jwt_bundles,
            lost=self._lost_jwt_bundles,
        )

    def _take_x509(self, message: Any) -> bool:
        """Put a message in place; False if it cannot be used."""
        self._connected = True
        before = self._identity
        try:
            update = read_x509_update(
                message,
                spiffe_id=self._settings.spiffe_id,
                hint=self._settings.hint,
                known=before.bundles if before is not None else {},
            )
            if before is None or before.svid != update.svid or dict(before.bundles) != dict(update.bundles):
                number = self.counts.generations + 1
                self._identity = new_identity(number, update.svid, update.bundles, now=int(self._clock()))
                self.counts.generations = number
                _warn_of_ambiguity(update.bundles.values())
        except WithdrawnError as error:
            self._withdraw(str(error))
            return True
        except (UpdateError, IdentityError) as error:
            self._discard(error)
            return False
        self.counts.broken_bundles += update.broken
        self._last_error = f"{update.broken} federated bundles cannot be used" if update.broken else None
        self._announce()
        return True

    def _take_jwt_bundles(self, message: Any) -> bool:
        try:
            self._jwt_bundles, broken = read_jwt_bundles(message)
        except UpdateError as error:
            self._discard(error)
            return False
        self.counts.broken_bundles += broken
        return True

    def _lost_x509(self, failure: WorkloadApiError) -> None:
        self._connected = False
        self._lost(failure)
        if isinstance(failure, IdentityDeniedError):
            self._withdraw(str(failure))

    def _lost_jwt_bundles(self, failure: WorkloadApiError) -> None:
        self._lost(failure)
        if isinstance(failure, IdentityDeniedError):
            self._jwt_bundles = MappingProxyType({})

    def _lost(self, failure: WorkloadApiError) -> None:
        self.counts.lost_connections += 1
        self._last_error = str(failure)
        _log.info("no stream from the Workload API", extra={"error": str(failure)})

    def _discard(self, error: Exception) -> None:
        self.counts.discarded += 1
        self._last_error = str(error)
        _log.warning("an identity update cannot be used and is discarded", extra={"error": str(error)})

    def _withdraw(self, why: str) -> None:
        self._identity = None
        self._withdrawn = True
        self._last_error = why
        self._announce()

    def _announce(self) -> None:
        """Tell the subscribers what is current, if they have not heard of it."""
        current = self.current
        self._jwt_svids.belong_to(current.spiffe_id if current is not None else None)
        if current is not self._told:
            self._told = current
            for callback in self._subscribers:
                callback(current)

    async def _fetch_jwt_svid(self, audience: str, spiffe_id: SpiffeId) -> str:
        request = workload_pb.JWTSVIDRequest(audience=[audience], spiffe_id=spiffe_id)
        try:
            response = await self._client.call("FetchJWTSVID", request, workload_pb.JWTSVIDResponse)
        except WorkloadApiError as error:
            raise Unavailable(Reason.NOT_READY, str(error)) from error
        if not response.svids:
            raise Unavailable(Reason.NOT_READY, "the Workload API gave no JWT-SVID")
        return str(response.svids[0].svid)


def _warn_of_ambiguity(bundles: Iterable[X509Bundle]) -> None:
    domains = with_ambiguous_names(bundles)
    if domains:
        _log.warning(
            "authorities share a name and have no key identifiers, their SVIDs may be refused",
            extra={"trust_domains": sorted(domains)},
        )
