"""Unproven callers cannot fill the record stream; a proven peer keeps one record for each request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.integration.world import PLANNER, WRITER, Sidecar, World, bearer, calling, mint

pytestmark = pytest.mark.integration

FLOOD = 30
Attack = Callable[[World, int], Awaitable[object]]


async def says(port: int, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    with suppress(ConnectionError):
        await reader.read()
    writer.close()


async def clear_text(_world: World, port: int) -> None:
    await says(port, b"GET / HTTP/1.1\r\nhost: sidecar\r\n\r\n")


async def noise(_world: World, port: int) -> None:
    await says(port, b"\x16\x03\x01\xff\xff" + bytes(200))


async def no_certificate(world: World, port: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert await world.hears_nothing(port, context)


def refused_in_metrics(sidecar: Sidecar) -> int:
    return sum(sidecar.server.metrics.handshakes_refused.values())


@pytest.mark.parametrize("attack", [clear_text, noise, no_certificate])
async def test_a_flood_without_proof_leaves_a_burst_of_records_and_all_of_it_is_counted(
    world: World, attack: Attack
) -> None:
    records = {"unproven_per_s": 0.001, "unproven_burst": 3}
    sidecar = await world.sidecar(WRITER, world.settings(records=records))
    for _ in range(FLOOD):
        await attack(world, sidecar.inbound)
    planner = calling(await world.source(PLANNER), WRITER)
    answer = await world.call(sidecar.inbound, planner, headers=bearer(mint()))
    assert answer.status == 200
    assert len(await sidecar.wait_for_records(1)) == 1  # written after every record of the flood
    assert len(sidecar.records("connection.refused")) == 3
    assert refused_in_metrics(sidecar) == FLOOD
    assert sidecar.server.metrics.records_suppressed == FLOOD - 3


async def test_records_and_what_they_say_was_suppressed_add_up_to_all(world: World) -> None:
    records = {"unproven_per_s": 1000.0, "unproven_burst": 1}
    sidecar = await world.sidecar(WRITER, world.settings(records=records))

    def told() -> int:
        return sum(1 + (record["suppressed"] or 0) for record in sidecar.records("connection.refused"))

    for _ in range(FLOOD):
        await asyncio.gather(*(clear_text(world, sidecar.inbound) for _ in range(10)))
    while told() < refused_in_metrics(sidecar):
        await clear_text(world, sidecar.inbound)
    assert told() == refused_in_metrics(sidecar)


async def test_a_proven_peer_and_the_agent_keep_one_record_for_each_request(world: World) -> None:
    records = {"unproven_per_s": 0.001, "unproven_burst": 1}
    sidecar = await world.sidecar(
        WRITER, world.settings(outbound={"listen": "127.0.0.1:0", "routes": []}, records=records)
    )
    planner = calling(await world.source(PLANNER), WRITER)
    for _ in range(FLOOD):
        await world.exchange(sidecar.inbound, planner, b"GET / HTTP/1.1\r\na b: c\r\n\r\n")
        await world.exchange(sidecar.outbound, None, b"GET / HTTP/1.1\r\na b: c\r\n\r\n")
    refused = await sidecar.wait_for_records(2 * FLOOD)
    assert [record["reason"] for record in refused] == ["bad_request"] * 2 * FLOOD
    assert sidecar.server.metrics.records_suppressed == 0
