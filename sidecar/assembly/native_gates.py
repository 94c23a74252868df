"""Gates of the native engine at each side."""

from __future__ import annotations

import time
from typing import Any

from sidecar.assembly.sides import Shared
from sidecar.config.settings import InboundSettings, OutboundSettings
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.inbound import Inbound
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.native.warm_inbound import WarmInbound
from sidecar.proxy.native.warm_outbound import WarmOutbound
from sidecar.wire.h1_server import Warm


def warm_inbound(journeys: Inbound, forwarder: Forwarder, settings: InboundSettings, shared: Shared) -> Warm:
    """Make the native engine's part of the side with peers in front."""
    return WarmInbound(
        journeys.permits,
        verdicts=journeys.verdicts,
        features=shared.features,
        snapshots=shared.snapshots,
        log=shared.log,
        handles=shared.handles,
        forwarder=forwarder,
        wall=time.time,
        limits=settings.limits,
        upstream_limits=settings.upstream_limits,
    ).begin


def warm_outbound(journeys: Outbound, parts: dict[str, Any], settings: OutboundSettings, shared: Shared) -> Warm:
    """Make the native engine's part of the side with the agent in front."""
    return WarmOutbound(
        journeys.plans,
        journeys.features["logins"],
        snapshots=shared.snapshots,
        log=shared.log,
        handles=shared.handles,
        forwarder=parts["forwarder"],
        origins=parts["origins"],
        own_authorities=parts["own_authorities"],
        wall=time.time,
        limits=settings.limits,
        upstream_limits=settings.upstream_limits,
    ).begin
