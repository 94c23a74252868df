"""A server and a client of grpclib: each call is served with its own handle, which goes with the calls made for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server
from multidict import MultiDict

from delegation_agent import handle, serving
from delegation_agent.grpclib import channel, keep_handle
from delegation_agent.outbound import VARIABLE
from tests.integration.agent.grpc_ends import USERS, Bytes, expected, metadata_of, own, telling, words
from tests.integration.world import free_port

pytestmark = pytest.mark.integration


def unary_of(opened: Channel) -> Any:
    return UnaryUnaryMethod(opened, "/demo.Service/unary_unary", bytes, bytes)


def streams_of(opened: Channel) -> Any:
    return StreamStreamMethod(opened, "/demo.Service/stream_stream", bytes, bytes)


class Agent:
    """A service of grpclib that asks the sidecar."""

    def __init__(self, crm: Channel) -> None:
        self._unary, self._streams = unary_of(crm), streams_of(crm)

    async def unary(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(await self._looks())

    async def talk(self, stream: Any) -> None:
        async for _ in stream:
            await stream.send_message(await self._looks())

    async def _looks(self) -> bytes:
        before = own()
        await asyncio.sleep(0)
        return b" ".join([before, await self._unary(b""), *await self._streams([own(), own()])])

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/demo.Service/unary_unary": Handler(self.unary, Cardinality.UNARY_UNARY, bytes, bytes),
            "/demo.Service/stream_stream": Handler(self.talk, Cardinality.STREAM_STREAM, bytes, bytes),
        }


@pytest.fixture(autouse=True)
def _sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with telling() as target:
        monkeypatch.setenv(VARIABLE, f"http://{target}")
        yield


@asynccontextmanager
async def agent(*, kept: bool = True) -> AsyncIterator[Channel]:
    """Run an agent; return a channel of its caller."""
    async with channel(codec=Bytes()) as crm:
        server = Server([Agent(crm)], codec=Bytes())
        if kept:
            keep_handle(server)
        port = free_port()
        await server.start("127.0.0.1", port)
        try:
            async with Channel("127.0.0.1", port, codec=Bytes()) as caller:
                yield caller
        finally:
            server.close()
            await server.wait_closed()


async def test_users_served_at_once_never_mix() -> None:
    async with agent() as caller:

        async def ask(number: int) -> set[str]:
            shown = dict(metadata_of(number))
            told = await unary_of(caller)(b"", metadata=shown)
            return words([told, *await streams_of(caller)([b"a", b"b"], metadata=shown)])

        found = await asyncio.gather(*map(ask, USERS))
    assert found == [expected(number) for number in USERS]
    assert handle() is None


async def test_a_server_that_keeps_no_handle_sends_none() -> None:
    async with agent(kept=False) as caller:
        assert words(await unary_of(caller)(b"", metadata={"delegation-handle": "alice"})) == {"None"}


@pytest.mark.parametrize("shown", [["alice", "bob"], ["alice,bob"], ["alice bob"]])
async def test_a_call_without_one_clear_handle_has_none(shown: list[str]) -> None:
    async with agent() as caller:
        metadata = MultiDict[str | bytes](("delegation-handle", value) for value in shown)
        assert words(await unary_of(caller)(b"", metadata=metadata)) == {"None"}


async def test_a_handle_that_the_agent_sets_itself_is_kept() -> None:
    async with channel(codec=Bytes()) as crm:
        with serving("alice"):
            mine = MultiDict[str | bytes](x="1")
            assert await unary_of(crm)(b"", metadata={"delegation-handle": "mine"}) == b"mine"
            assert await unary_of(crm)(b"", metadata=mine) == b"alice"
        assert await unary_of(crm)(b"", metadata=mine) == b"None"
