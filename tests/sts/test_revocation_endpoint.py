"""Orders of a caller whose trust is withdrawn while the body arrives: they are refused, and nothing is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from delegation_core.errors import Denied, Reason
from delegation_core.revocation import Kind
from sidecar.sts.revocation_endpoint import RevocationEndpoint
from tests.fakes.sts import Mesh
from tests.fakes.sts_server import STS
from tests.sts.test_revocations import order, register


class Caller:
    """Another replica, trusted for so many looks, then no more."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    def client_of(self, _: object) -> object:
        self._looks -= 1
        if self._looks < 0:
            raise Denied(Reason.CLIENT_NOT_AUTHENTICATED)
        return STS

    async def body_of(self, _: object) -> bytes:
        return b'{"seq":1,"orders":[%b]}' % order(Kind.TXN, "txn-1").row()


@pytest.mark.parametrize(("looks", "status"), [(0, 401), (1, 401), (2, 200)])
async def test_a_replica_must_be_trusted_when_its_orders_have_arrived(looks: int, status: int) -> None:
    mesh, caller = Mesh(), Caller(looks)
    mesh.log.workload = STS
    known, clients, request = register(mesh), caller, SimpleNamespace()
    endpoint = RevocationEndpoint(mesh.service, known, clients)  # type: ignore[arg-type]
    asked: Any = request
    answer = await endpoint.take(asked)
    assert isinstance(answer.body, bytes)
    assert ("error" in orjson.loads(answer.body)) is (status != 200)
    assert (answer.status == 200, len(known.book.orders)) == ((True, 1) if status == 200 else (False, 0))
