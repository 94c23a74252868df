"""Agents on grpcio that look at their handle and call the sidecar: in threads, in the event loop, and as ``grpc.aio``
takes handlers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio

import delegation_agent.grpc
import delegation_agent.grpc_aio
from tests.integration.agent.grpc_ends import (
    ask_all,
    ask_all_async,
    handlers,
    own,
    serving_sync,
)

AT_ONCE: Final = 8


def in_threads(looks: Callable[[], bytes]) -> Any:
    """Return handlers that are functions."""

    def unary_unary(_request: bytes, _context: Any) -> bytes:
        return looks()

    def unary_stream(_request: bytes, _context: Any) -> Iterator[bytes]:
        yield looks()
        yield looks()

    def stream_unary(requests: Iterator[bytes], _context: Any) -> bytes:
        return b" ".join([looks() for _ in requests])

    def stream_stream(requests: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield looks()

    return handlers(
        unary_unary=unary_unary, unary_stream=unary_stream, stream_unary=stream_unary, stream_stream=stream_stream
    )


def in_the_loop(looks: Any) -> Any:
    """Return handlers that are coroutines and asynchronous generators."""

    async def unary_unary(_request: bytes, _context: Any) -> bytes:
        return b" ".join([await looks(), await asyncio.create_task(looks())])

    async def unary_stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        yield await looks()
        yield await looks()

    async def stream_unary(requests: Any, _context: Any) -> bytes:
        return b" ".join([await looks() async for _ in requests])

    async def stream_stream(requests: Any, _context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield await looks()

    return handlers(
        unary_unary=unary_unary, unary_stream=unary_stream, stream_unary=stream_unary, stream_stream=stream_stream
    )


def by_writing(looks: Any) -> Any:
    """Return handlers that read and write by their context."""

    async def unary_stream(_request: bytes, context: Any) -> None:
        await context.write(await looks())
        await context.write(await looks())

    async def stream_unary(_requests: Any, context: Any) -> bytes:
        told = []
        while await context.read() is not grpc.aio.EOF:
            told.append(await looks())
        return b" ".join(told)

    async def stream_stream(_requests: Any, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(await looks())

    return handlers(
        unary_unary=lambda _request, _context: own(),
        unary_stream=unary_stream,
        stream_unary=stream_unary,
        stream_stream=stream_stream,
    )


@asynccontextmanager
async def sync_server() -> AsyncIterator[str]:
    """Run an agent in threads, each of which waits until every other one has a call, too."""
    together = threading.Barrier(AT_ONCE, timeout=30)

    with delegation_agent.grpc.channel() as channel:

        def looks() -> bytes:
            before = own()
            together.wait()
            return before + b" " + ask_all(channel)

        interceptors = [delegation_agent.grpc.ServerInterceptor()]
        with serving_sync(in_threads(looks), threads=AT_ONCE, interceptors=interceptors) as target:
            yield target


@asynccontextmanager
async def aio_server(
    handler: Any,
    pool: ThreadPoolExecutor | None = None,
    *,
    kept: bool = True,
    port: int = 0,
    others: Sequence[Any] = (),
) -> AsyncIterator[str]:
    interceptors = [delegation_agent.grpc_aio.ServerInterceptor()] if kept else []
    server = grpc.aio.server(pool, handlers=[handler], interceptors=[*interceptors, *others])
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def loop_server(kind_of_handlers: Any = in_the_loop) -> AsyncIterator[str]:
    async with delegation_agent.grpc_aio.channel() as channel:

        async def looks() -> bytes:
            before = own()
            await asyncio.sleep(0)
            return before + b" " + await ask_all_async(channel)

        async with aio_server(kind_of_handlers(looks)) as target:
            yield target


@asynccontextmanager
async def threads_of_aio() -> AsyncIterator[str]:
    """Run an agent of ``grpc.aio`` whose handlers are functions, for which it has threads."""
    with delegation_agent.grpc.channel() as channel, ThreadPoolExecutor(AT_ONCE) as pool:
        async with aio_server(in_threads(lambda: ask_all(channel)), pool) as target:
            yield target


AGENTS: Final[dict[str, Any]] = {
    "sync": sync_server,
    "aio": loop_server,
    "aio, written by the context": lambda: loop_server(by_writing),
    "aio, in threads": threads_of_aio,
}
