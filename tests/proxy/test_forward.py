from __future__ import annotations

from typing import Any

import pytest

from sidecar.proxy.forward import Forwarder, Outgoing
from sidecar.wire.limits import ClientLimits
from sidecar.wire.pool import Origin, UpstreamPool


class LooksLikeAPermit:
    """Has everything that a permit has."""

    mode = "delegated"
    peer = route = token = plan = None


@pytest.mark.parametrize("permit", [None, True, "permit", LooksLikeAPermit()])
def test_nothing_is_forwarded_without_a_permit(permit: Any) -> None:
    forwarder = Forwarder(UpstreamPool(ClientLimits()), list)
    outgoing = Outgoing(origin=Origin("127.0.0.1", 1, "key"), method="GET", target=b"/", fields=[])
    nothing: Any = None
    with pytest.raises(TypeError):
        next(forwarder.send(permit, outgoing, nothing, nothing))


def test_what_goes_upstream_is_not_shown() -> None:
    outgoing = Outgoing(
        origin=Origin("h", 1, "k"), method="GET", target=b"/", fields=[(b"authorization", b"Bearer secret")]
    )
    assert "secret" not in repr(outgoing)
