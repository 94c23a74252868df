"""The proof of a connection's peer; contexts and handshakes are tested on sockets."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.errors import Denied
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.identity.tls import guard_of
from tests.fakes.guard import FakeGuard
from tests.wire.bench import RecordingTransport


def ssl_object(guard: Any) -> Any:
    made = VerifyingSSLObject.__new__(VerifyingSSLObject)
    made.guard = guard
    return made


def test_a_connection_has_the_proof_of_its_peer() -> None:
    guard: Any = FakeGuard()
    assert guard_of(RecordingTransport(ssl_object=ssl_object(guard))) is guard


@pytest.mark.parametrize(
    "transport",
    [
        pytest.param(RecordingTransport(), id="in the clear"),
        pytest.param(RecordingTransport(ssl_object=ssl_object(None)), id="a handshake that proved nobody"),
        pytest.param(RecordingTransport(ssl_object=object()), id="another TLS"),
    ],
)
def test_a_connection_without_a_verified_peer_is_nobodys(transport: RecordingTransport) -> None:
    with pytest.raises(Denied, match="no_client_cert"):
        guard_of(transport)
