"""Assembles a whole sidecar from its settings: shared parts, sides, and background parts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.assembly.setup import features_of, make_exchanges, make_keys, make_setup, resolver_of
from sidecar.assembly.sides import Shared, Side, inbound_side, outbound_side
from sidecar.config.bounds import shares_in_force
from sidecar.config.settings import SidecarSettings
from sidecar.engine import engine_of, require_native
from sidecar.exchange.channel import StsChannel
from sidecar.exchange.no_revocations import NoRevocations
from sidecar.features import SESSION_KEY_BYTES, Features
from sidecar.identity.handshake import PeerGuard
from sidecar.identity.jwks import IssuerKeys
from sidecar.identity.proofs import Proofs
from sidecar.identity.source import IdentitySource
from sidecar.identity.source_factory import source_of
from sidecar.observe.access_log import AccessLog, Sink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.caches import HANDLES, Caches
from sidecar.proxy.journeys.handles import MARKS, Handles
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.revalidation import judge_served
from sidecar.proxy.journeys.snapshot import Snapshots
from sidecar.proxy.journeys.watch import Watch
from sidecar.proxy.listening.agent_watch import AgentWatch
from sidecar.proxy.listening.deny_file import DenyFile
from sidecar.proxy.listening.memory_pressure import MIB
from sidecar.proxy.listening.server import Parts, Server
from sidecar.proxy.listening.system_memory import memory_of
from sidecar.proxy.listening.trim import Trim

if TYPE_CHECKING:
    from sidecar.exchange.revocations import RevocationLists, RevocationListSettings
    from sidecar.observe.countersigning import Countersigning
    from sidecar.observe.telemetry.settings import TracingSettings
    from sidecar.proxy.journeys.handle_delivery import HandleDelivery
    from sidecar.proxy.journeys.remote_handles import Inbox, RemoteHandles
    from sidecar.proxy.journeys.workload_handle import WorkloadHandle


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Place of one worker among several: its ``number``, the inboxes of all, and the lock of their common sink.

    All workers derive the workload handle from ``own_secret``, and MCP session ids from ``session_key``.
    """

    number: int
    inboxes: Sequence[Inbox]
    sink_lock: int
    own_secret: bytes = field(repr=False)
    session_key: bytes = field(repr=False)


def assemble(settings: SidecarSettings, *, place: Place | None = None) -> Server:
    """Make one sidecar, not yet running. Needs a running event loop. ``place`` None: this is the only process."""
    workers = 1 if place is None else len(place.inboxes)
    metrics = Metrics()
    metrics.settings_used = shares_in_force(settings.used)
    engine = metrics.engine = engine_of(settings.engine)
    log = _access_log(settings, place, metrics, lambda route: _server_of(snapshots, route))
    source = source_of(settings.identity)
    keys = make_keys(settings, source, log)
    revocations = _revocation_lists(settings, source, lambda: snapshots.setup.keys, log)
    setup = make_setup(settings, keys, make_exchanges(settings, source, keys, log), metrics)
    deny_file = DenyFile(settings.deny_file)
    snapshots = Snapshots(
        setup,
        revocations.in_force,
        lambda: deny_file.deny,
    )
    handles = _handles(settings, place, snapshots)
    session_key = secrets.token_bytes(SESSION_KEY_BYTES) if place is None else place.session_key
    features = Features(session_key=session_key, engine=engine)
    features.load(features_of(settings))
    shared = Shared(
        source=source,
        snapshots=snapshots,
        log=log,
        handles=handles,
        memory=settings.memory,
        caches={HANDLES: lambda: handles, "issued": lambda: snapshots.setup.exchanges},
        tasks=Tasks(),
        watch=Watch(snapshots, source, wall=time.time, monotonic=time.monotonic, on_change=handles.suspect),
        resolver=resolver_of(settings, log),
        remote_handles=None if place is None else _remote_handles(place, handles, source),
        record_rate=settings.records.unproven.share(workers),
        txn_source=None if settings.txn_tokens is None else settings.txn_tokens.source,
        features=features,
        http2=settings.protocols.http2,
        engine=engine,
    )
    sides: list[Side] = []
    agent = certificate = None
    if settings.inbound is not None:
        sides.append(inbound_side(settings.inbound, shared))
        agent = AgentWatch(sides[0].pool, lambda: snapshots.setup.agent)
        if settings.inbound.plain is not None:
            from sidecar.assembly.stranger_sides import plain_side

            sides.append(plain_side(settings.inbound, settings.inbound.plain, shared))
    if settings.outbound is not None:
        journeys, outbound = outbound_side(settings.outbound, shared)
        if settings.door is not None:
            from sidecar.assembly.stranger_sides import door_side

            certificate, door = door_side(settings.outbound, settings.door, journeys, shared)
            sides.append(door)
        sides.append(outbound)
    return Server(
        Parts(
            source=source,
            snapshots=snapshots,
            log=log,
            handles=handles,
            tasks=shared.tasks,
            watch=shared.watch,
            pools=tuple(side.pool for side in sides),
            listeners=tuple(side.listener for side in sides),
            drain_s=settings.drain_s,
            engine=engine,
            memory=memory_of(settings.max_memory_mib, processes=workers),
            remote_handles=shared.remote_handles,
            addresses=tuple((listen.host, listen.port) for listen in settings.listens),
            agent=agent,
            revocations=revocations,
            deny_file=deny_file,
            caches=Caches(shared.caches, clock=time.time, trim=Trim(requests=lambda: log.last_seq)),
            features=features,
            countersigning=_countersigning(settings, source, snapshots, log),
            handle_delivery=_handle_delivery(settings, place, shared),
            door=certificate,
        )
    )


def _access_log(
    settings: SidecarSettings,
    place: Place | None,
    metrics: Metrics,
    servers: Callable[[str], tuple[str, int] | None],
) -> AccessLog:
    """Make the log of records. ``servers`` returns the address of an outbound route's upstream, for spans."""
    sink, run = settings.records.open_sink(), secrets.token_hex(8)
    return AccessLog(
        sink if place is None else _share(sink, place.sink_lock),
        run=run,
        metrics=metrics,
        spill_folder=settings.records.spill,
        link=None if metrics.engine == "python" else require_native().link,
        **({} if settings.tracing is None else _trace(settings.tracing, run, metrics, servers)),
    )


def _trace(
    settings: TracingSettings, run: str, metrics: Metrics, servers: Callable[[str], tuple[str, int] | None]
) -> dict[str, Any]:
    """Return the arguments of ``AccessLog`` that export traces. OpenTelemetry is imported only here."""
    from sidecar.observe.telemetry.entries import TracedEntry, TracedUnprovenEntry, Traces
    from sidecar.observe.telemetry.otlp import TelemetryExport

    traces, export = Traces(settings.ratio), TelemetryExport(settings, run, servers)
    metrics.telemetry = export.counts
    return {
        "entry": partial(TracedEntry, traces),
        "unproven_entry": partial(TracedUnprovenEntry, traces),
        "next_trace": traces.continued,
        "export": export,
    }


def _share(sink: Sink, lock: int) -> Sink:
    from sidecar.observe.shared_sink import SharedSink

    return SharedSink(sink, lock)


def _server_of(snapshots: Snapshots, route: str) -> tuple[str, int] | None:
    current = snapshots.current
    return None if current is None else current.policy.outbound.server_of(route)


def _revocation_lists(
    settings: SidecarSettings, source: IdentitySource, keys: Callable[[], IssuerKeys], log: AccessLog
) -> RevocationLists | NoRevocations:
    if not settings.revocations:
        return NoRevocations()
    from delegation_core.revocation_list import MAX_LIST_BYTES
    from sidecar.exchange.revocations import POLL_TIMEOUT_S, RevocationList, RevocationLists

    def channel(one: RevocationListSettings) -> StsChannel:
        resolver = resolver_of(settings, log)
        return StsChannel(one.endpoint, source, timeout_s=POLL_TIMEOUT_S, max_bytes=MAX_LIST_BYTES, resolver=resolver)

    return RevocationLists([RevocationList(one, channel(one), keys) for one in settings.revocations])


def _countersigning(
    settings: SidecarSettings, source: IdentitySource, snapshots: Snapshots, log: AccessLog
) -> Countersigning | None:
    countersign = settings.records.countersign
    if countersign is None:
        return None
    from sidecar.exchange.countersigner import MAX_ANSWER_BYTES, Countersigner
    from sidecar.observe.countersigning import TIMEOUT_S, Countersigning

    channel = StsChannel(
        countersign.endpoint,
        source,
        timeout_s=TIMEOUT_S,
        max_bytes=MAX_ANSWER_BYTES,
        resolver=resolver_of(settings, log),
    )
    countersigner = Countersigner(countersign.issuer, source, lambda: snapshots.setup.keys, channel)
    return Countersigning(log, countersigner.countersign, every_s=countersign.every_s, close=channel.close)


def _handles(settings: SidecarSettings, place: Place | None, snapshots: Snapshots) -> Handles:
    memory = settings.memory
    kind: type[Handles] = Handles
    if settings.inbound is not None and settings.inbound.one_subject:
        from sidecar.proxy.journeys.one_subject import OneSubject

        kind = OneSubject
    return kind(
        clock=time.time,
        monotonic=time.monotonic,
        max_bytes=memory.max_handles_mib * MIB,
        max_per_subject=memory.max_handles_per_subject,
        mark="" if place is None else MARKS[place.number],
        own=_workload_handle(settings, place),
        judge=lambda served: judge_served(served, snapshots.now(), int(time.time())),
    )


def _workload_handle(settings: SidecarSettings, place: Place | None) -> WorkloadHandle | None:
    own = settings.workload_handle
    if own is None:
        return None
    from sidecar.proxy.journeys.workload_handle import SECRET_BYTES, WorkloadHandle

    return WorkloadHandle(secrets.token_bytes(SECRET_BYTES) if place is None else place.own_secret, own.rotate_s)


def _handle_delivery(settings: SidecarSettings, place: Place | None, shared: Shared) -> HandleDelivery | None:
    """Make the delivery of the workload handle; None if it is not configured, or another worker delivers it.

    All workers have the same handle, so worker 0 delivers it.
    """
    own, handle = settings.workload_handle, shared.handles.own
    if own is None or handle is None or (place is not None and place.number > 0):
        return None
    from sidecar.proxy.journeys.handle_delivery import HandleDelivery

    return HandleDelivery(handle, own, shared.log, shared.record_rate)


def _remote_handles(place: Place, handles: Handles, source: IdentitySource) -> RemoteHandles:
    from sidecar.proxy.journeys.remote_handles import RemoteHandles

    proofs = Proofs()

    def prove(chain: tuple[bytes, ...], now: int) -> PeerGuard:
        return PeerGuard(source, chain, proofs, now=now)

    return RemoteHandles(handles, place.inboxes, place.number, prove=prove)
