"""Servers of grpcio, in threads and in the event loop, serve each call with its own handle, wherever they run it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

import delegation_agent.grpc
import delegation_agent.grpc_aio
from delegation_agent import carry, handle
from delegation_agent.outbound import VARIABLE
from tests.integration.agent.grpc_agents import AGENTS, aio_server, in_the_loop, in_threads
from tests.integration.agent.grpc_ends import (
    KINDS,
    USERS,
    ask_agent,
    expected,
    handlers,
    metadata_of,
    method,
    own,
    serving_sync,
    telling,
    words,
)

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with telling() as target:
        monkeypatch.setenv(VARIABLE, f"http://{target}")
        yield target


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("agent", AGENTS)
async def test_users_served_at_once_never_mix(agent: str, kind: str) -> None:
    async with AGENTS[agent]() as target, grpc.aio.insecure_channel(target) as channel:
        told = await asyncio.gather(*(ask_agent(channel, kind, number) for number in USERS))
    assert told == [expected(number) for number in USERS]
    assert handle() is None


@pytest.mark.parametrize(
    "shown", [["alice", "bob"], ["alice", "alice"], ["alice bob"], ["alice,bob"], [""], []], ids=repr
)
@pytest.mark.parametrize("agent", ["sync", "aio"])
async def test_a_call_without_one_clear_handle_has_none(agent: str, shown: list[str]) -> None:
    metadata = tuple(("delegation-handle", value) for value in shown)

    async def looks() -> bytes:
        return own()

    async def ask(target: str) -> set[str]:
        async with grpc.aio.insecure_channel(target) as channel:
            return words(await method(channel, "unary_unary")(b"", timeout=20, metadata=metadata))

    if agent == "aio":
        async with aio_server(in_the_loop(looks)) as target:
            assert await ask(target) == {"None"}
    else:
        interceptors = [delegation_agent.grpc.ServerInterceptor()]
        with serving_sync(in_threads(own), threads=1, interceptors=interceptors) as target:
            assert await ask(target) == {"None"}


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_unknown_method_stays_unknown(agent: str) -> None:
    async with AGENTS[agent]() as target, grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/demo.Service/Unknown")(b"", timeout=20)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("agent", ["sync", "aio"])
async def test_interceptors_behind_ours_have_the_handle_of_the_call(agent: str) -> None:
    seen: list[str | None] = []

    class Other(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.append(handle())
            return continuation(details)

    class OtherAio(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.append(handle())
            return await continuation(details)

    async def ask(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            for number in (1, 2, 5):
                assert await ask_agent(channel, "unary_unary", number) == expected(number)

    handler = handlers(unary_unary=lambda _request, _context: own())
    if agent == "aio":
        async with aio_server(handler, others=[OtherAio()]) as target:
            await ask(target)
    else:
        interceptors = [delegation_agent.grpc.ServerInterceptor(), Other()]
        with serving_sync(handler, threads=1, interceptors=interceptors) as target:
            await ask(target)
    assert seen == ["user-1", "user-2", None]


@pytest.mark.parametrize("agent", ["sync", "aio"])
async def test_a_callback_at_the_end_of_a_call_has_no_handle_unless_it_carries_one(agent: str) -> None:
    seen: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def note(*_: Any) -> None:
        seen.put(handle())

    def ends(_request: bytes, context: Any) -> bytes:
        context.add_callback(note)
        context.add_callback(carry(note))
        return b""

    async def ends_async(_request: bytes, context: Any) -> bytes:
        context.add_done_callback(note)
        context.add_done_callback(carry(note))
        return b""

    async def ask(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            for user in ("alice", "bob"):
                metadata = (("delegation-handle", user),)
                await method(channel, "unary_unary")(b"", timeout=20, metadata=metadata)
                found = [await asyncio.to_thread(seen.get, timeout=20) for _ in range(2)]
                assert sorted(map(str, found)) == ["None", user]

    if agent == "aio":
        async with aio_server(handlers(unary_unary=ends_async)) as target:
            await ask(target)
    else:
        interceptors = [delegation_agent.grpc.ServerInterceptor()]
        with serving_sync(handlers(unary_unary=ends), threads=1, interceptors=interceptors) as target:
            await ask(target)


@pytest.mark.parametrize("agent", ["sync", "aio"])
async def test_the_status_of_a_handler_passes(agent: str) -> None:
    def fails(_request: bytes, context: Any) -> Any:
        return context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such order")

    async def fails_async(_request: bytes, context: Any) -> Any:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such order")

    async def ask(target: str) -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await method(channel, "unary_unary")(b"", timeout=20)
        assert (refused.value.code(), refused.value.details()) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "no such order",
        )

    if agent == "aio":
        async with aio_server(handlers(unary_unary=fails_async)) as target:
            await ask(target)
    else:
        interceptors = [delegation_agent.grpc.ServerInterceptor()]
        with serving_sync(handlers(unary_unary=fails), threads=1, interceptors=interceptors) as target:
            await ask(target)


async def test_a_stream_that_its_caller_cancels_ends_with_its_handle() -> None:
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def endless(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield own()
                await asyncio.sleep(0)
        finally:
            ended.set_result(own())

    async with aio_server(handlers(unary_stream=endless)) as target, grpc.aio.insecure_channel(target) as channel:
        called = method(channel, "unary_stream")(b"", metadata=metadata_of(1))
        assert await called.read() == b"user-1"
        called.cancel()
        async with asyncio.timeout(20):
            assert await ended == b"user-1"


def test_a_handler_keeps_its_own_pool_of_threads() -> None:
    """grpcio looks for it at the function."""

    def behavior(_request: bytes, _context: Any) -> None: ...

    behavior.experimental_thread_pool = "own"  # type: ignore[attr-defined]
    for streams in (False, True):
        assert delegation_agent.grpc.bound(behavior, None, streams=streams).experimental_thread_pool == "own"  # type: ignore[attr-defined]
