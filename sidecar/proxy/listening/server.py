"""One running sidecar: its start, its readiness and its stop.

Start: probe first, because it reports why the sidecar is not ready; then identity and keys; then, once nothing is
missing, the listeners. Stop: unready at once, no new connections, requests in flight finish, then everything closes.
*Leaving* may come before the stop: the sidecar serves on, unready, and each answer tells its caller to reconnect, to
another replica.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from delegation_core.errors import Reason
from delegation_core.spiffe_id import TrustDomain
from sidecar.background import Parts as Background
from sidecar.engine import Engine
from sidecar.exchange.credential_watch import CredentialWatch
from sidecar.exchange.no_revocations import NoRevocations
from sidecar.identity.source import Identity, IdentitySource
from sidecar.observe.access_log import TICK_S, AccessLog
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.bypass import BypassWatch
from sidecar.proxy.journeys.caches import Caches
from sidecar.proxy.journeys.handles import Handles
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.snapshot import Setup, Snapshots
from sidecar.proxy.journeys.trust import TrustWatch
from sidecar.proxy.journeys.watch import Watch
from sidecar.proxy.listening.agent_watch import AgentWatch
from sidecar.proxy.listening.deny_file import DenyFile
from sidecar.proxy.listening.listener import Listener
from sidecar.proxy.listening.memory_pressure import Memory
from sidecar.proxy.listening.recent_counts import RecentCounts, refused
from sidecar.wire.pool import UpstreamPool

if TYPE_CHECKING:
    from sidecar.exchange.revocations import RevocationLists
    from sidecar.identity.public_tls import PublicCertificate
    from sidecar.observe.countersigning import Countersigning
    from sidecar.proxy.journeys.feature import Features
    from sidecar.proxy.journeys.handle_delivery import HandleDelivery
    from sidecar.proxy.journeys.remote_handles import RemoteHandles
    from sidecar.proxy.listening.shortage import Shortage

_log: Final = logging.getLogger("sidecar")

_POLL_S: Final = 0.02
_TICKS_PER_SWEEP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a sidecar, made by ``assembly``.

    ``listeners`` are in the order in which they close, inbound before outbound, with their pools in the same order.
    ``addresses`` are the listening addresses in the settings, including the probe's. None means, for
    ``remote_handles``: this is the only worker; for ``memory``: there is no limit; for ``agent``: no inbound side.
    """

    source: IdentitySource
    snapshots: Snapshots
    log: AccessLog
    handles: Handles
    tasks: Tasks
    watch: Watch
    pools: tuple[UpstreamPool, ...]
    listeners: tuple[Listener, ...]
    drain_s: float
    engine: Engine = "python"
    remote_handles: RemoteHandles | None = None
    addresses: tuple[tuple[str, int], ...] = ()
    memory: Memory | None = None
    agent: AgentWatch | None = None
    countersigning: Countersigning | None = None
    revocations: RevocationLists | NoRevocations = field(default_factory=NoRevocations)
    deny_file: DenyFile = field(default_factory=lambda: DenyFile(None))
    handle_delivery: HandleDelivery | None = None
    door: PublicCertificate | None = None
    caches: Caches = field(default_factory=lambda: Caches({}, clock=time.time))
    features: Features | None = None


class Server:
    """Runs the parts of a sidecar. ``ready`` is set when the listeners open, and stays set."""

    def __init__(self, parts: Parts, *, wall: Callable[[], float] = time.time) -> None:
        self.parts = parts
        self.trust = TrustWatch(wall=wall)
        self._wall = wall
        self.bypass = BypassWatch(lambda: parts.snapshots.setup.listener_rule, self._own_addresses)
        self._shortage = _shortage_of(parts)
        self._draining = False
        self._leaving = False
        self._drain_s = parts.drain_s
        self._said: list[str] = []
        self._trusted: frozenset[TrustDomain] = frozenset()
        self.key_updates: asyncio.Future[None] | None = None  # of the setup in force
        self.background = Background()
        self.ready = asyncio.Event()
        self.recent_refusals = RecentCounts(lambda: refused(parts.log.metrics), time.monotonic)
        parts.source.subscribe(self._on_identity)
        parts.revocations.after_change = self._on_revocations
        parts.deny_file.after_change = self._on_deny
        parts.deny_file.after_refusal = self._on_deny_refused
        self._show_metrics()

    @property
    def draining(self) -> bool:
        """True once the sidecar stops."""
        return self._draining

    def leave(self) -> None:
        """Serve on until the stop, but close each inbound connection after its answer."""
        if not self._leaving:
            self._leaving = True
            _log.info("leaving: each inbound connection closes after its answer")
            for listener in self.parts.listeners:
                if listener.direction == "inbound" or listener.door:
                    listener.leave()

    async def cut(self) -> None:
        """Skip the drain: end the requests in progress at the stop, or now if the sidecar is stopping already."""
        self._drain_s = 0.0
        if self._draining:
            for listener in self.parts.listeners:
                await listener.abort()

    @property
    def metrics(self) -> Metrics:
        """The metrics."""
        return self.parts.log.metrics

    def _show_metrics(self) -> None:
        """Connect the metrics that a scrape reads from the parts."""
        parts, metrics = self.parts, self.metrics
        metrics.lacking = self.missing
        metrics.streams = parts.watch.count
        metrics.observe_until = lambda: parts.snapshots.setup.observe_until
        metrics.open_circuits = self._open_circuits
        metrics.ways_round = lambda: len(self.bypass.found)
        metrics.agent_up = self._agent_up
        metrics.identity_updates = lambda: asdict(parts.source.counts)
        metrics.cache_bytes = parts.caches.bytes
        metrics.cache_evictions = parts.caches.evicted
        metrics.cache_lookups = parts.caches.lookups
        metrics.revocations = parts.revocations.count
        metrics.revocation_ages = parts.revocations.ages
        metrics.deny_file = parts.deny_file.row
        metrics.memory_short = lambda: parts.memory is not None and parts.memory.short

    def missing(self) -> list[str]:
        """Return the reasons why the sidecar is not ready, as texts for the operator; empty if it is ready."""
        parts = self.parts
        lacking: list[str] = []
        if self._draining:
            lacking.append("stopping")
        elif self._leaving:
            lacking.append("leaving")
        if parts.source.current is None:
            lacking.append(_because(f"identity: {parts.source.state}", parts.source.last_error))
        if parts.snapshots.closed is not None:
            lacking.append(parts.snapshots.closed)
        if not parts.log.healthy:
            lacking.append("records: the sink accepts none")
        setup = parts.snapshots.setup
        errors = setup.keys.last_errors()
        lacking += (_because(f"keys of {issuer}", errors.get(issuer)) for issuer in setup.without_keys())
        lacking += parts.revocations.missing()
        lacking += parts.deny_file.missing()
        if parts.door is not None and parts.door.not_after is None:
            lacking.append(_because("entry.door: no certificate", parts.door.error))
        if not lacking and not self.ready.is_set():
            lacking.append("listeners: not open yet")
        return lacking

    def _own_addresses(self) -> Iterator[tuple[str, int]]:
        ended = {listener.address for listener in self.parts.listeners if listener.ended}
        yield from (
            address for address in self.parts.addresses if address not in ended
        )  # another process may listen there now
        if self.ready.is_set():  # for port 0, the system has chosen the port
            yield from (listener.address for listener in self.parts.listeners if not listener.ended)

    def _look_for_ways_round(self) -> None:
        self.bypass.look()
        self.parts.snapshots.closed = self.bypass.refusal

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until ``stop`` is set, then drain.

        Return True if every request ended in time, no part ended early and every record was written.

        Raises:
            OSError: a listener's address is in use, or does not belong to this host.
            PartEndedError: a part has ended by itself; requests in progress are cut.
        """
        parts = self.parts
        if parts.remote_handles is not None:
            parts.remote_handles.open()
        self.key_updates = self.start_key_updates(parts.snapshots.setup)
        self.background.start("identity", parts.source.run())
        if not isinstance(parts.revocations, NoRevocations):
            self.background.start("revocations", parts.revocations.run())
        self.background.start("deny file", parts.deny_file.run())
        self.background.start("sweep", self._sweep())
        self.background.start("credentials", CredentialWatch(lambda: parts.snapshots.setup.exchanges).run())
        self.background.start("watch", parts.watch.run(self.metrics.in_flight))
        if parts.agent is not None:
            self.background.start("agent", parts.agent.run())
        if parts.countersigning is not None:
            self.background.start("checkpoints", parts.countersigning.run())
        if parts.handle_delivery is not None:
            self.background.start("workload handle", parts.handle_delivery.run())
        if self._shortage is not None:
            self.background.start("memory", self._shortage.run())
        try:
            if await self._wait_until_ready(stop):
                self._open()
            await self.background.run_until(stop)
            in_time = await self._drain()
        finally:
            await self.background.close()
            await self._close()
        return in_time and self.background.error is None and not parts.log.unwritten

    def room_for(self, size: int) -> bool:
        """Return True if a child process may use ``size`` bytes for a while."""
        return self._shortage is None or self._shortage.room_for(size)

    def start_key_updates(self, setup: Setup) -> asyncio.Future[None]:
        """Start to fetch a setup's keys whenever they are due. Each fetch that changes them causes a re-evaluation."""
        setup.keys.after_fetch = self.parts.watch.notice
        return self.background.start("issuer keys", setup.keys.run())

    async def _wait_until_ready(self, stop: asyncio.Event) -> bool:
        """Return True once nothing is missing; False if ``stop`` is set before, or a part has ended."""
        while not stop.is_set() and self.background.error is None:
            self._look_for_ways_round()
            lacking = [reason for reason in self.missing() if not reason.startswith("listeners")]
            if not lacking and self.parts.log.settled:  # the first record is written, so the sink works
                return True
            self._say(lacking)
            await asyncio.sleep(_POLL_S)
        return False

    def _open(self) -> None:
        for listener in self.parts.listeners:
            listener.open_until_end(self._wall())
        self.ready.set()
        self._said = []
        identity = self.parts.source.current
        placement = self.parts.log.placement
        self.parts.log.event("started", detail=f"engine={self.parts.engine}" + (f" {placement}" if placement else ""))
        _log.info("ready", extra={"spiffe_id": identity.spiffe_id if identity else None, "engine": self.parts.engine})

    async def _drain(self) -> bool:
        self._draining = True
        _log.info("stopping: requests in flight finish")
        deadline = time.monotonic() + self._drain_s
        self.parts.watch.drain(self._drain_s / 2)
        in_time = True
        for listener in self.parts.listeners:  # outbound last: the agent may need calls to finish a request
            in_time = await listener.drain(max(0.0, deadline - time.monotonic())) and in_time
        return in_time

    async def _close(self) -> None:
        try:
            await self._close_parts()
        finally:  # records are written even if a part does not end in order
            log, error = self.parts.log, self.background.error
            try:
                if self.parts.countersigning is not None:
                    await self.parts.countersigning.close()
            finally:
                log.event("stopped", detail=None if error is None else str(error))
                await log.close()

    async def _close_parts(self) -> None:
        parts = self.parts
        for listener in parts.listeners:
            await listener.abort()
        await parts.tasks.close()
        if parts.remote_handles is not None:
            parts.remote_handles.close()
        for pool in parts.pools:
            await pool.close()
        await parts.snapshots.setup.exchanges.close()

    async def _sweep(self) -> None:
        for tick in itertools.count(1):
            await asyncio.sleep(TICK_S)
            self.parts.log.tell_lasting()
            if tick % _TICKS_PER_SWEEP == 0:
                await self._sweep_slowly()

    async def _sweep_slowly(self) -> None:
        self._look_for_ways_round()
        if self.ready.is_set() and not self._draining:
            self._say(self.missing())
        self.recent_refusals.look()
        self.parts.caches.sweep()
        for listener in self.parts.listeners:
            listener.close_at_end(self._wall())
            if not listener.door:  # callers of the door prove no identity
                await self.trust.look(listener.connections)
        for pool in self.parts.pools:
            await self.trust.look(pool.connections)

    def _open_circuits(self) -> Mapping[tuple[str, str], bool]:
        return self.parts.snapshots.setup.exchanges.open_circuits()

    def _agent_up(self) -> bool | None:
        """Return the state of the agent; None too while leaving or stopping, when the agent may stop first."""
        watch = self.parts.agent
        return None if watch is None or self._draining or self._leaving else watch.up

    def _on_identity(self, identity: Identity | None) -> None:
        parts = self.parts
        workload = None if identity is None else identity.spiffe_id
        parts.snapshots.follow(workload)
        parts.watch.notice()
        parts.log.workload = workload
        parts.log.metrics.svid_changed(None if identity is None else identity.svid.lifetime)
        if identity is None:
            _log.warning("identity lost", extra={"state": parts.source.state})
            parts.log.event("identity.lost", decision="deny", reason=Reason.NOT_READY)
            for pool in parts.pools:
                pool.retire()
            self._count_bundles(frozenset())
            return
        parts.log.event("identity.rotated")
        _log.info(
            "identity rotated",
            extra={
                "spiffe_id": identity.spiffe_id,
                "generation": identity.number,
                "not_after": identity.svid.not_after,
            },
        )
        self._count_bundles(frozenset(identity.bundles))

    def _on_revocations(self) -> None:
        parts = self.parts
        renewal = parts.snapshots.renew()
        if renewal is not None:
            parts.caches.carry(renewal)
        parts.watch.notice()
        stale = "; ".join(parts.revocations.missing())
        parts.log.event("revocations.changed", revocation=parts.revocations.numbers(), detail=stale or None)

    def _on_deny(self) -> None:
        parts = self.parts
        parts.snapshots.change()
        parts.watch.notice()
        parts.log.event("deny.changed", detail=self._describe_deny_list())

    def _on_deny_refused(self) -> None:
        denied = self.parts.deny_file
        self.parts.log.event("deny.refused", detail=f"{denied.error}; in force: {self._describe_deny_list()}")

    def _describe_deny_list(self) -> str:
        denied = self.parts.deny_file
        return f"rows={denied.rows} sha256={denied.sha256 or 'none'}"

    def _count_bundles(self, trusted: frozenset[TrustDomain]) -> None:
        metrics = self.parts.log.metrics
        for trust_domain in trusted:
            metrics.bundle_updated(trust_domain)
        for trust_domain in self._trusted - trusted:
            metrics.bundle_withdrawn(trust_domain)
        self._trusted = trusted

    def _say(self, lacking: list[str]) -> None:
        """Log and record the reasons in ``lacking``, once per change."""
        if lacking == self._said:
            return
        was_ready = not self._said
        self._said = lacking
        if lacking:
            _log.warning("not ready", extra={"missing": "; ".join(lacking)})
        elif self.ready.is_set():
            _log.info("ready again")
        if self.ready.is_set() and was_ready is bool(lacking):
            self.parts.log.event("not_ready" if lacking else "ready", detail="; ".join(lacking) or None)


def _because(what: str, error: str | None) -> str:
    return f"{what} ({error})" if error else what


def _shortage_of(parts: Parts) -> Shortage | None:
    if parts.memory is None:
        return None
    from sidecar.proxy.listening.shortage import Shortage

    return Shortage(parts.memory, parts.listeners, parts.pools, parts.caches)
