"""For grpcio: ``grpc.server(pool, interceptors=[ServerInterceptor()])`` and ``channel("crm")``.

``delegation_agent.grpc_aio`` is the same for ``grpc.aio``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import grpc

from delegation_agent.handles import HEADER, Pieces, carry, handle, serving, sole
from delegation_agent.outbound import ConfigurationError, Outbound

Metadata = Iterable[tuple[str, Any]]
Options = Sequence[tuple[str, Any]]
Behavior = Callable[..., Any]

_NAME: Final = HEADER.lower()
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")  # the order of gRPC
_BY_PROXY: Final = "grpc.enable_http_proxy"
_OF_A_CALL: Final = ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")


class ServerInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]
    """Serves each call with its own handle, or with none, in whichever thread: its handler and a streamed answer."""

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the handler of a call, which runs with the call's handle."""
        held = held_of(details)
        with serving(held):
            handler = continuation(details)  # interceptors behind this one
        return served(handler, held, bound)


def channel(
    authority: str | None = None, *, outbound: str | None = None, options: Options = (), compression: Any = None
) -> grpc.Channel:
    """Open a channel to the sidecar that sends the handle with each call, and uses no proxy.

    ``authority`` is ``match.host`` of the outbound route to the next hop.

    Raises:
        ConfigurationError: see ``Outbound``; the authority is empty or a URL.
    """
    target = target_of(Outbound(outbound))
    opened = grpc.insecure_channel(target, options_of(authority, options), compression)
    return grpc.intercept_channel(opened, _ClientInterceptor())


def client_interceptors(target: str, *, outbound: str | None = None) -> list[Any]:
    """Return the interceptors for a channel to ``target`` that somebody else opens, without TLS.

    There is one if ``target`` is the sidecar's address, spelled as host and port; none otherwise.

    Raises:
        ConfigurationError: see ``Outbound``; or the environment names a proxy that would get the calls.
    """
    return [_ClientInterceptor()] if leads_to_sidecar(target, outbound) else []


class _ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Sends the handle with every call.

    A channel's first call starts a thread for all calls of the channel, and grpcio gives it that call's context. So the
    call begins without a handle: a callback of a future would find the handle of another user there.
    """

    def intercept_unary_unary(self, continuation: Behavior, details: Any, request: Any) -> Any:
        shown = _Details(details)
        with serving(None):
            return continuation(shown, request)

    def intercept_unary_stream(self, continuation: Behavior, details: Any, request: Any) -> Any:
        return self.intercept_unary_unary(continuation, details, request)

    def intercept_stream_unary(self, continuation: Behavior, details: Any, requests: Any) -> Any:
        return self.intercept_unary_unary(continuation, details, Pieces(requests, handle()))

    def intercept_stream_stream(self, continuation: Behavior, details: Any, requests: Any) -> Any:
        return self.intercept_unary_unary(continuation, details, Pieces(requests, handle()))


class _Details(grpc.ClientCallDetails):  # type: ignore[misc]
    """Details of a call, with the handle. Fields that another interceptor left out stay missing; grpcio fills them."""

    def __init__(self, details: Any) -> None:
        for name in _OF_A_CALL:
            if hasattr(details, name):
                setattr(self, name, getattr(details, name))
        self.metadata = with_handle(getattr(details, "metadata", None))


def with_handle(metadata: Metadata | None) -> tuple[tuple[str, Any], ...]:
    """Return the metadata of a call with the current handle. A handle that the agent has set is kept."""
    held, own = handle(), tuple(metadata or ())
    return own if held is None or any(name.lower() == _NAME for name, _ in own) else (*own, (_NAME, held))


def held_of(details: Any) -> str | None:
    """Return the handle in the metadata of an incoming call; None if there is none."""
    return sole(value for name, value in details.invocation_metadata or () if name.lower() == _NAME)


def served(handler: Any, held: str | None, bind: Behavior) -> Any:
    """Return a handler of the same kind of call, its behavior bound to a handle; None: there is no handler."""
    if handler is None:
        return None
    kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        bind(getattr(handler, kind), held, streams=bool(handler.response_streaming)),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def bound(behavior: Behavior, held: str | None, *, streams: bool) -> Behavior:
    """Return a behavior that runs with this handle, also for each message of a streamed answer."""
    with serving(held):
        carried = carry(behavior)
    if not streams:
        return carried

    @functools.wraps(behavior)
    def in_pieces(*words: Any) -> Pieces[Any]:
        return Pieces(carried(*words), held)

    return in_pieces


def target_of(outbound: Outbound) -> str:
    """Return the sidecar's address as the target of a channel."""
    return outbound.origin.removeprefix("http://")


def options_of(authority: str | None, options: Options) -> list[tuple[str, Any]]:
    """Return the options of a channel to the sidecar: the agent's, and no proxy.

    Raises:
        ConfigurationError: the authority is empty or a URL.
    """
    if authority is not None and (not authority or "/" in authority):
        raise ConfigurationError(f"{authority!r} is no authority: write match.host of the outbound route, such as crm")
    own = [(name, value) for name, value in options if name != _BY_PROXY]
    return [*own, (_BY_PROXY, 0), *([] if authority is None else [("grpc.default_authority", authority)])]


def leads_to_sidecar(target: str, outbound: str | None) -> bool:
    """Tell if a channel to this target is one to the sidecar.

    Raises:
        ConfigurationError: gRPC would open it through a proxy that the environment names.
    """
    sidecar = Outbound(outbound)
    if target != target_of(sidecar):
        return False
    host, told = sidecar.address.host, os.environ
    excepted = told.get("no_grpc_proxy", told.get("no_proxy", "")).split(",")
    if any(map(told.get, _PROXIES)) and host not in map(str.strip, excepted):
        raise ConfigurationError(f"gRPC would send calls to the sidecar by http_proxy: add {host} to no_proxy")
    return True


def _arity(streaming: bool) -> str:  # noqa: FBT001
    return "stream" if streaming else "unary"
