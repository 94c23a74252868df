"""For ``grpc.aio``: ``grpc.aio.server(interceptors=[ServerInterceptor()])`` and ``channel("crm")``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc.aio

from delegation_agent import grpc as shared
from delegation_agent.handles import serving
from delegation_agent.outbound import Outbound

_END: Final = object()


class ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Serves each call with its own handle, or with none: its handler, in the event loop or in a thread of the server,
    and a streamed answer.
    """

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of a call, which runs with the call's handle."""
        held = shared.held_of(details)
        with serving(held):
            handler = await continuation(details)
        return shared.served(handler, held, _bind)


def channel(
    authority: str | None = None,
    *,
    outbound: str | None = None,
    options: shared.Options = (),
    compression: Any = None,
    interceptors: Sequence[Any] = (),
) -> grpc.aio.Channel:
    """Open a channel to the sidecar that sends the handle with each call, and uses no proxy.

    ``authority`` is ``match.host`` of the outbound route to the next hop.

    Raises:
        ConfigurationError: see ``Outbound``; the authority is empty or a URL.
    """
    target = shared.target_of(Outbound(outbound))
    chain = [*interceptors, *_client_interceptors()]
    return grpc.aio.insecure_channel(target, shared.options_of(authority, options), compression, chain)


def client_interceptors(target: str, *, outbound: str | None = None) -> list[Any]:
    """Return the interceptors for a channel to ``target`` that somebody else opens, without TLS.

    There is one for each kind of call if ``target`` is the sidecar's address, spelled as host and port; none otherwise.

    Raises:
        ConfigurationError: see ``Outbound``; or the environment names a proxy that would get the calls.
    """
    return _client_interceptors() if shared.leads_to_sidecar(target, outbound) else []


def _client_interceptors() -> list[Any]:
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_render(details), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(_render(details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(_render(details), requests)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return await continuation(_render(details), requests)


def _render(details: Any) -> Any:
    """Return a call's details with the handle, in metadata of their own: the agent may use its object again."""
    metadata = grpc.aio.Metadata(*shared.with_handle(details.metadata))
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _bind(behavior: shared.Behavior, held: str | None, *, streams: bool) -> shared.Behavior:
    """Return a behavior of the same kind, a coroutine, an asynchronous generator or a function for threads."""
    if inspect.iscoroutinefunction(behavior):
        return shared.bound(behavior, held, streams=False)  # a streamed answer, too: it writes it by its context
    if not inspect.isasyncgenfunction(behavior):
        return shared.bound(behavior, held, streams=streams)

    @functools.wraps(behavior)
    async def in_pieces(*words: Any) -> AsyncIterator[Any]:
        made = behavior(*words)
        try:
            while True:
                with serving(held):
                    piece = await anext(made, _END)
                if piece is _END:
                    return
                yield piece
        finally:
            with serving(held):
                await made.aclose()

    return in_pieces
