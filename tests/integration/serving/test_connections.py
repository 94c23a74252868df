from __future__ import annotations

import asyncio
import time

import pytest

from sidecar.serving import connections
from tests.fakes.sts_server import RunningSts, read_answer, running_sts, token_request

pytestmark = pytest.mark.integration


async def lawful(sts: RunningSts) -> None:
    assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200


def refused(sts: RunningSts) -> list[str | None]:
    return [fields["reason"] for event, fields in sts.mesh.log.events if event == "connection.refused"]


@pytest.mark.parametrize("sent", [b"", b"POST /token HTTP/1.1\r\nhost: sts\r\n"], ids=["nothing", "half a head"])
async def test_a_head_that_does_not_come_ends_the_connection_and_is_recorded(sent: bytes) -> None:
    async with running_sts(head_timeout_s=0.1) as sts, sts.connection() as (reader, writer):
        writer.write(sent)
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
        ((event, fields),) = sts.mesh.log.events
        assert (event, fields["reason"]) == ("connection.refused", "timeout")
        assert str(fields["source"]).startswith("127.0.0.1:")
        await lawful(sts)


async def test_a_second_head_has_its_time_too_and_an_idle_connection_stays() -> None:
    async with running_sts(head_timeout_s=0.3) as sts, sts.connection() as (reader, writer):
        request = token_request(sts.mesh.exchange_form())
        writer.write(request)
        assert (await read_answer(reader)).status == 200
        idle_until = time.monotonic() + 0.5
        while time.monotonic() < idle_until:  # longer than the time for a head
            await lawful(sts)
        writer.write(request)
        assert (await read_answer(reader)).status == 200
        writer.write(b"POST")
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
    assert refused(sts) == ["timeout"]


async def test_a_body_has_a_deadline_of_its_own() -> None:
    async with running_sts(head_timeout_s=0.1, body_timeout_s=0.4) as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form())[:-10])
        assert (await read_answer(reader)).status == 408
    assert refused(sts) == []


@pytest.mark.parametrize("sent", [b"", b"POST /token HTTP/1.1\r\nhost: sts\r\n"], ids=["nothing", "half a head"])
async def test_at_the_limit_a_request_that_does_not_come_makes_room_and_others_wait_for_it(sent: bytes) -> None:
    async with running_sts(max_connections=2) as sts:
        async with sts.connection() as (first, slow), sts.connection() as (second, served):
            slow.write(sent)
            async with asyncio.timeout(5):
                await lawful(sts)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await first.readexactly(1)
            served.write(token_request(sts.mesh.exchange_form()))
            assert (await read_answer(second)).status == 200
        await lawful(sts)
    assert refused(sts) == ["overloaded"]


@pytest.mark.parametrize("idle_s", [0.0, 60.0], ids=["idle for long enough", "answered just now"])
async def test_at_the_limit_an_idle_connection_makes_room_or_else_a_request_that_takes_too_long(
    idle_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_S", idle_s)
    async with (
        running_sts(max_connections=2) as sts,
        sts.connection() as (slow, to),
        sts.connection() as (idle, writer),
    ):
        request = token_request(sts.mesh.exchange_form())
        to.write(request)
        assert (await read_answer(slow)).status == 200
        to.write(request[:20])  # it was idle for longer, and no longer is
        writer.write(request)
        assert (await read_answer(idle)).status == 200
        ended, (stays, onward, rest) = (slow, (idle, writer, request)) if idle_s else (idle, (slow, to, request[20:]))
        async with asyncio.timeout(5):
            await lawful(sts)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await ended.readexactly(1)
            onward.write(rest)
            assert (await read_answer(stays)).status == 200
    assert refused(sts) == (["overloaded"] if idle_s else [])


async def test_connections_that_made_room_or_ended_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.0)
    async with running_sts(max_connections=1) as sts:
        for _ in range(3):
            async with sts.connection() as (reader, writer):
                writer.write(token_request(sts.mesh.exchange_form()))
                assert (await read_answer(reader)).status == 200
                async with asyncio.timeout(5):
                    await lawful(sts)
                    await lawful(sts)
    assert refused(sts) == []
