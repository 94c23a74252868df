from __future__ import annotations

import asyncio
import ssl

import pytest

from delegation_core.errors import Reason
from tests.fakes.sts_server import running_sts, token_request

pytestmark = pytest.mark.integration


async def test_a_refused_handshake_is_told_with_the_clients_address() -> None:
    naked = ssl.create_default_context()
    naked.check_hostname = False
    naked.verify_mode = ssl.CERT_NONE
    async with running_sts() as sts, sts.connection(tls=naked) as (reader, writer):
        host, port = writer.get_extra_info("sockname")
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        assert sts.refused == [(Reason.NO_CLIENT_CERT, f"{host}:{port}")]


async def test_silent_connections_keep_nobody_out_and_end_with_the_service() -> None:
    async with running_sts() as sts:
        silent = [await asyncio.open_connection(*sts.server.address) for _ in range(8)]
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200
        async with asyncio.timeout(3):  # less than the handshake timeout
            await sts.server.stop()
            assert [await reader.read() for reader, _ in silent] == [b""] * 8
        for _, writer in silent:
            writer.close()


async def test_a_handshake_that_takes_too_long_is_told_with_the_clients_address() -> None:
    async with running_sts(handshake_timeout_s=0.1) as sts:
        reader, writer = await asyncio.open_connection(*sts.server.address)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        host, port = writer.get_extra_info("sockname")
        assert sts.refused == [(Reason.TIMEOUT, f"{host}:{port}")]
        writer.close()
        assert (await sts.send(token_request(sts.mesh.exchange_form()))).status == 200
        assert len(sts.refused) == 1


async def test_a_record_at_the_service_has_the_clients_address() -> None:
    async with running_sts() as sts, sts.connection() as (reader, writer):
        writer.write(token_request(sts.mesh.exchange_form()))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    assert [fields["source"] for _, fields in sts.mesh.log.events] == ["127.0.0.1"]
