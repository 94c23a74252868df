from __future__ import annotations

import time
from typing import Any

import pytest

from sidecar.proxy.forward import Forwarder, Forwarding
from sidecar.proxy.headers import FROM_AGENT
from sidecar.proxy.snapshot import Snapshots
from sidecar.proxy.watch import Watch
from sidecar.wire.dialer import Origin
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.pool import UpstreamPool
from tests.proxy.test_snapshot import setup


class LooksLikeAPermit:
    """Has everything that a permit has."""

    mode = "delegated"
    peer = route = token = plan = None


@pytest.mark.parametrize("permit", [None, True, "permit", LooksLikeAPermit()])
def test_nothing_is_forwarded_without_a_permit(permit: Any) -> None:
    nothing: Any = None
    watch = Watch(Snapshots(setup()), nothing, wall=time.time, monotonic=time.monotonic)
    forwarder = Forwarder(UpstreamPool(ClientLimits()), FROM_AGENT, watch, ServerLimits())
    origin = Origin("127.0.0.1", 1, "key")
    with pytest.raises(TypeError):
        Forwarding(forwarder, permit, nothing, nothing, nothing, origin, b"/", FROM_AGENT)
