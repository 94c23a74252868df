from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Status

from sidecar.identity import workload_pb
from sidecar.identity.workload_client import IdentityDeniedError, WorkloadApiClient, WorkloadApiError
from sidecar.identity.workload_settings import parse_address
from tests.identity.scripted_api import ScriptedApi

pytestmark = pytest.mark.integration


def client(address: str, *, timeout_s: float = 5.0) -> WorkloadApiClient:
    return WorkloadApiClient(parse_address(address), first_message_timeout_s=timeout_s, call_timeout_s=timeout_s)


async def stream(api: WorkloadApiClient) -> tuple[WorkloadApiError, list[Any]]:
    messages: list[Any] = []
    request, reply = workload_pb.X509SVIDRequest(), workload_pb.X509SVIDResponse
    return await api.stream("FetchX509SVID", request, reply, messages.append), messages


async def test_a_missing_socket_is_told(tmp_path: Path) -> None:
    failure, _ = await stream(client(f"unix://{tmp_path}/none.sock"))
    assert "does not exist" in str(failure)


async def test_a_socket_nobody_listens_on_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    failure, _ = await stream(client(f"unix://{path}"))
    assert "cannot be reached" in str(failure)


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    async with ScriptedApi(tmp_path / "api.sock").serving() as api:
        failure, _ = await stream(client(api.address, timeout_s=0.05))
        assert "in time" in str(failure)
        api.hold.clear()
        with pytest.raises(WorkloadApiError, match="in time"):
            await client(api.address, timeout_s=0.05).call(
                "FetchJWTSVID", workload_pb.JWTSVIDRequest(audience=["x"]), workload_pb.JWTSVIDResponse
            )
        api.hold.set()


async def test_a_server_that_does_not_even_speak_is_given_up(tmp_path: Path) -> None:
    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    async with await asyncio.start_unix_server(mute, tmp_path / "mute.sock"):
        failure, _ = await stream(client(f"unix://{tmp_path}/mute.sock", timeout_s=0.05))
        gone.set()
    assert "in time" in str(failure)


async def test_a_server_of_another_protocol_is_told(tmp_path: Path) -> None:
    async def web(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(web, tmp_path / "web.sock"):
        failure, messages = await stream(client(f"unix://{tmp_path}/web.sock", timeout_s=1.0))
    assert isinstance(failure, WorkloadApiError)
    assert messages == []


@pytest.mark.parametrize("status", [Status.PERMISSION_DENIED, Status.UNAVAILABLE, Status.INVALID_ARGUMENT])
async def test_denial_is_told_from_every_other_status(tmp_path: Path, status: Status) -> None:
    async with ScriptedApi(tmp_path / "api.sock").serving() as api:
        api.x509 = status
        failure, _ = await stream(client(api.address))
        assert isinstance(failure, IdentityDeniedError) is (status is Status.PERMISSION_DENIED)


async def test_a_stream_hands_over_every_message_until_its_end(tmp_path: Path) -> None:
    async with ScriptedApi(tmp_path / "api.sock").serving() as api:
        messages: list[Any] = []

        def take(message: Any) -> None:
            messages.append(message)
            if len(messages) < 3:
                api.say(workload_pb.X509SVIDResponse(crl=[bytes([len(messages)])]))
            else:
                api.end()

        api.x509 = workload_pb.X509SVIDResponse()
        request, reply = workload_pb.X509SVIDRequest(), workload_pb.X509SVIDResponse
        failure = await client(api.address).stream("FetchX509SVID", request, reply, take)
        assert [list(message.crl) for message in messages] == [[], [b"\x01"], [b"\x02"]]
        assert "ended" in str(failure)


async def test_every_call_bears_the_security_header(tmp_path: Path) -> None:
    async with ScriptedApi(tmp_path / "api.sock").serving() as api:
        api.x509 = Status.UNAVAILABLE
        await stream(client(api.address))
        assert api.calls == [("FetchX509SVID", "true")]


@pytest.mark.parametrize("lost_first", [True, False])
async def test_who_is_cancelled_as_the_connection_is_lost_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_first: bool
) -> None:
    """grpclib's own end of a call is a cancellation: a sidecar that stopped together with its Workload API lived on."""
    channels: list[Channel] = []

    def channel_of(self: WorkloadApiClient) -> Channel:
        channels.append(Channel(path=self._address.path))
        return channels[-1]

    monkeypatch.setattr(WorkloadApiClient, "_channel", channel_of)
    async with ScriptedApi(tmp_path / "api.sock").serving() as api:
        api.x509 = workload_pb.X509SVIDResponse()
        came = asyncio.Event()
        request, reply = workload_pb.X509SVIDRequest(), workload_pb.X509SVIDResponse
        task = asyncio.ensure_future(client(api.address).stream("FetchX509SVID", request, reply, lambda _: came.set()))
        await came.wait()
        await asyncio.sleep(0)
        (channel,) = channels
        protocol: Any = channel._protocol
        ends = [lambda: protocol.connection_lost(None), task.cancel]
        for end in ends if lost_first else reversed(ends):
            end()
        await asyncio.wait([task])
        assert task.cancelled()
