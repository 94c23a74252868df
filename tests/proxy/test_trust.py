"""Connections whose peer is no longer trusted, each looked at by its own proof; on sockets in the integration tier."""

from __future__ import annotations

from typing import Any

import pytest

from delegation_core.errors import Reason, Unavailable
from sidecar.identity.handshake import VerifyingSSLObject
from sidecar.proxy.journeys.trust import TrustWatch
from tests.core.world import NOW
from tests.fakes.guard import FakeGuard
from tests.wire.bench import RecordingTransport


class Kept:
    """An idle connection of a peer; ``guard`` None: in the clear."""

    def __init__(self, guard: Any) -> None:
        ssl_object = None
        if guard is not None:
            ssl_object = VerifyingSSLObject.__new__(VerifyingSSLObject)
            ssl_object.guard = guard
        self.transport: Any = RecordingTransport(ssl_object=ssl_object)
        self.ended = False

    def end_unused(self) -> None:
        self.ended = True


class WithoutIdentity(FakeGuard):
    """Cannot judge anybody: our own identity is gone."""

    def check(self, now: int) -> Any:
        raise Unavailable(Reason.NOT_READY)


def withdrawn() -> FakeGuard:
    guard = FakeGuard()
    guard.withdrawn = True
    return guard


@pytest.mark.parametrize(
    ("guard", "ends"),
    [
        pytest.param(FakeGuard(), False, id="trusted"),
        pytest.param(withdrawn(), True, id="withdrawn"),
        pytest.param(FakeGuard(until=NOW), True, id="expired"),
        pytest.param(WithoutIdentity(), False, id="nobody-can-be-judged-now"),
        pytest.param(None, False, id="in-the-clear"),
    ],
)
async def test_a_connection_ends_when_its_peer_would_be_refused_now(guard: Any, ends: bool) -> None:
    kept, lawful = Kept(guard), Kept(FakeGuard())
    await TrustWatch(wall=lambda: float(NOW)).look([kept, lawful])
    assert (kept.ended, lawful.ended) == (ends, False)


async def test_every_one_of_many_is_looked_at() -> None:
    many = [Kept(withdrawn()) for _ in range(50)]
    await TrustWatch(wall=lambda: float(NOW)).look(many)
    assert all(one.ended for one in many)
