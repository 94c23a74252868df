"""Makes the sides for callers without an SVID: workloads without a sidecar, and users' own clients at the door."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from sidecar.assembly.sides import Shared, Side, listener_of, outbound_parts, pool_of
from sidecar.config.settings import DoorSettings, InboundSettings, OutboundSettings, PlainSettings
from sidecar.features.door.door import DoorCalls
from sidecar.features.door.forwarding import passes_from_door
from sidecar.features.observing.observing import Observing
from sidecar.features.observing.plain import PlainInbound
from sidecar.identity.public_tls import PublicCertificate
from sidecar.observe.record_rate import UnprovenRecords
from sidecar.observe.refused_connections import RefusedConnections
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.headers import FROM_AGENT
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.wire.message import Edits

_PART_OF_STRANGERS: Final = 8  # such a side has 1 / 8 of the connections of the side for peers or the agent


def plain_side(settings: InboundSettings, plain: PlainSettings, shared: Shared) -> Side:
    """Make the side that serves callers without a sidecar and calls the agent. It has few connections."""
    pool = pool_of("inbound", settings, shared)
    unproven = UnprovenRecords(shared.log, shared.record_rate)
    journeys = PlainInbound(
        snapshots=shared.snapshots,
        log=shared.log,
        forwarder=Forwarder(pool, FROM_AGENT, shared.watch, settings.limits),
        observing=Observing(
            handles=shared.handles, remote_handles=shared.remote_handles, tasks=shared.tasks, clock=time.time
        ),
        unproven=unproven,
        tasks=shared.tasks,
        features=shared.features,
        clock=time.time,
    )
    refused_connections = RefusedConnections(shared.log, "inbound", unproven)
    few = replace(settings.connections, max_connections=max(1, settings.connections.total // _PART_OF_STRANGERS))
    here = replace(settings, listen=plain.listen, connections=few)
    listener = listener_of(
        "inbound",
        here,
        shared,
        refused_connections,
        handler=journeys,
        context=None,
        closes_at=float(plain.until),
        unproven=unproven,
    )
    return Side(pool, listener)


def door_side(
    outbound: OutboundSettings, settings: DoorSettings, journeys: Outbound, shared: Shared
) -> tuple[PublicCertificate, Side]:
    """Make the side that serves users' own clients and calls tool servers of the mesh. Returns its certificate too."""
    pool = pool_of("outbound", outbound, shared)
    forwarder = Forwarder(pool, Edits(passes_from_door), shared.watch, settings.limits)
    unproven = UnprovenRecords(shared.log, shared.record_rate)
    refused_connections = RefusedConnections(shared.log, "outbound", unproven)
    certificate = PublicCertificate(settings.tls, on_refused=refused_connections)
    certificate.try_to_load()
    limits = settings.connections
    most = limits.max_connections or max(1, limits.total // _PART_OF_STRANGERS)
    listener = listener_of(
        "outbound",
        replace(
            outbound,
            listen=settings.listen,
            connections=replace(limits, max_connections=most),
            limits=settings.limits,
        ),
        shared,
        refused_connections,
        handler=DoorCalls(
            journeys,
            unproven=unproven,
            **outbound_parts(outbound, forwarder, shared),
        ),
        context=certificate.context,
        unproven=unproven,
        door=True,
    )
    return certificate, Side(pool, listener)
