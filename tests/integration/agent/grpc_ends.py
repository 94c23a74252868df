"""Both ends of an agent of gRPC: a server that tells which handles it is sent, in the sidecar's place; and a caller.

Messages are bytes: words that each stand for a handle that was seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
from grpclib.encoding.base import CodecBase

from delegation_agent import handle

KINDS: Final = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SERVICE: Final = "demo.Service"
USERS: Final = range(96)


class Bytes(CodecBase):
    """The messages of grpclib are bytes, too."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


def metadata_of(number: int) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call; every fifth has no handle."""
    return () if number % 5 == 0 else (("delegation-handle", f"user-{number}"),)


def expected(number: int) -> set[str]:
    return {dict(metadata_of(number)).get("delegation-handle", "None")}


def words(told: Any) -> set[str]:
    """Return the handles that were seen for one call."""
    return set(b" ".join([told] if isinstance(told, bytes) else told).decode().split())


def own() -> bytes:
    return str(handle()).encode()


def handlers(**behaviors: Callable[..., Any]) -> grpc.GenericRpcHandler:
    methods = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(behavior) for kind, behavior in behaviors.items()}
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def method(channel: Any, kind: str) -> Any:
    return getattr(channel, kind)(f"/{SERVICE}/{kind}")


def seen(context: grpc.ServicerContext) -> bytes:
    values = [value for name, value in context.invocation_metadata() if name == "delegation-handle"]
    return ",".join(values).encode() or b"None"


def _unary_unary(_request: bytes, context: grpc.ServicerContext) -> bytes:
    return seen(context)


def _unary_stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    yield seen(context)


def _stream_unary(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
    return b" ".join([seen(context), *requests])


def _stream_stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield seen(context) + b" " + request


@contextmanager
def telling() -> Iterator[str]:
    """Run a server that answers with the handle of each call, and with what it is sent; return its target."""
    with serving_sync(
        handlers(
            unary_unary=_unary_unary,
            unary_stream=_unary_stream,
            stream_unary=_stream_unary,
            stream_stream=_stream_stream,
        ),
        threads=32,
    ) as target:
        yield target


@contextmanager
def serving_sync(handler: Any, *, threads: int, interceptors: Any = (), port: int = 0) -> Iterator[str]:
    with ThreadPoolExecutor(threads) as pool:
        server = grpc.server(pool, handlers=[handler], interceptors=interceptors)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait(10)


def own_pieces() -> Iterator[bytes]:
    """Yield what a streamed request sees where its messages are made."""
    yield own()
    yield own()


async def own_pieces_async() -> AsyncIterator[bytes]:
    yield own()
    yield own()


def ask_all(channel: grpc.Channel) -> bytes:
    """Make a call of each kind; return the handles that were seen here and there."""
    told = [own(), method(channel, "unary_unary")(b"", timeout=20)]
    told += method(channel, "unary_stream")(b"", timeout=20)
    told.append(method(channel, "stream_unary")(own_pieces(), timeout=20))
    told += method(channel, "stream_stream")(own_pieces(), timeout=20)
    told.append(method(channel, "unary_unary").future(b"", timeout=20).result())
    return b" ".join(told)


async def ask_all_async(channel: grpc.aio.Channel) -> bytes:
    told = [own(), await method(channel, "unary_unary")(b"", timeout=20)]
    told += [piece async for piece in method(channel, "unary_stream")(b"", timeout=20)]
    told.append(await method(channel, "stream_unary")(own_pieces_async(), timeout=20))
    told += [piece async for piece in method(channel, "stream_stream")(own_pieces_async(), timeout=20)]
    return b" ".join(told)


async def ask_agent(channel: grpc.aio.Channel, kind: str, number: int) -> set[str]:
    """Call the agent under test as a user; return the handles that it saw and sent."""
    call, shown = method(channel, kind), metadata_of(number)
    request = iter([b"a", b"b"]) if kind.startswith("stream") else b"a"
    if kind.endswith("unary"):
        return words(await call(request, timeout=40, metadata=shown))
    return words([piece async for piece in call(request, timeout=40, metadata=shown)])
