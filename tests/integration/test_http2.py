"""HTTP/2 at a running sidecar."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated

from tests.integration.hops import Hops
from tests.integration.world import PLANNER

pytestmark = pytest.mark.integration


async def test_a_client_of_grpc_is_told_the_reason_where_http2_is_not_spoken(hops: Hops) -> None:
    await hops.start()

    def call() -> grpc.RpcError:
        address = f"127.0.0.1:{hops.writer.outbound}"
        with grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
            try:
                channel.unary_unary("/crm.Orders/Get")(b"", timeout=5)
            except grpc.RpcError as error:
                return error
        raise AssertionError("it was served")

    error = await asyncio.to_thread(call)
    assert "http_version" in str(error)
    record, *_ = await hops.writer.wait_for_records(1)
    assert [record[key] for key in ("direction", "decision", "reason", "status")] == [
        "outbound", "deny", "http_version", 505
    ]  # fmt: skip


async def test_a_peer_that_speaks_http2_unasked_is_told_so(hops: Hops) -> None:
    await hops.start()
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    raw = await hops.world.exchange(hops.writer.inbound, hops.planner, client.data_to_send())
    (end,) = [event for event in client.receive_data(raw) if isinstance(event, ConnectionTerminated)]
    assert end.error_code == ErrorCodes.HTTP_1_1_REQUIRED
    assert b"http_version" in (end.additional_data or b"")
    (record,) = await hops.writer.wait_for_records(1)
    assert [record[key] for key in ("peer", "decision", "reason", "status")] == [
        str(PLANNER), "deny", "http_version", 505
    ]  # fmt: skip
