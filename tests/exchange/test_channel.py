"""Each failure of the connection to the token service has its reason. Real connections: tests/integration/exchange."""

from __future__ import annotations

import pytest

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from sidecar.exchange.channel import failure_of
from sidecar.identity.endpoint import Trouble
from sidecar.identity.ssl_object import HandshakeRefused


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (Denied(Reason.UPSTREAM_IDENTITY, "x"), Reason.STS_IDENTITY, f"{Trouble.IDENTITY}: x"),
        (Unavailable(Reason.UPSTREAM_UNREACHABLE), Reason.STS_UNAVAILABLE, Trouble.UNREACHABLE),
        (Unavailable(Reason.UPSTREAM_TIMEOUT, "x"), Reason.STS_TIMEOUT, f"{Trouble.TIMEOUT}: x"),
        (Denied(Reason.UPSTREAM_BAD_RESPONSE, "x"), Reason.STS_BAD_RESPONSE, f"{Trouble.BROKEN}: x"),
        (Denied(Reason.UPSTREAM_ABORTED, "x"), Reason.STS_BAD_RESPONSE, f"{Trouble.BROKEN}: x"),
        (Denied(Reason.STS_TOO_LARGE, "x"), Reason.STS_TOO_LARGE, "x"),
        (Unavailable(Reason.NOT_READY, "x"), Reason.NOT_READY, "x"),
    ],
)
def test_every_failure_of_the_connection_has_its_reason(error: SidecarError, reason: Reason, detail: str) -> None:
    failure = failure_of(error)
    assert (type(failure), failure.reason, failure.detail) == (type(error), reason, detail)


def test_an_identity_of_ours_that_is_lost_in_the_handshake_is_no_fault_of_the_other_end() -> None:
    error = Denied(Reason.UPSTREAM_IDENTITY, "x")
    error.__cause__ = HandshakeRefused(Reason.NOT_READY)
    assert failure_of(error).reason is Reason.NOT_READY
    error.__cause__ = HandshakeRefused(Reason.UNTRUSTED_CHAIN)
    assert failure_of(error).reason is Reason.STS_IDENTITY
