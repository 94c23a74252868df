"""Channels of grpcio to the sidecar send the handle; channels to anybody else do not."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest

import delegation_agent.grpc
import delegation_agent.grpc_aio
from delegation_agent import ConfigurationError, carry, handle, serving
from delegation_agent.outbound import VARIABLE
from tests.integration.agent.grpc_ends import (
    KINDS,
    method,
    own_pieces,
    own_pieces_async,
    telling,
    words,
)

pytestmark = pytest.mark.integration

PROXY: Final = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with telling() as target:
        monkeypatch.setenv(VARIABLE, f"http://{target}")
        yield target


@asynccontextmanager
async def open_channel(flavour: str, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    """Open one of our channels; return a function that makes a call of a kind and returns what its server tells."""
    if flavour == "sync":
        with delegation_agent.grpc.channel(**options) as channel:
            yield lambda kind, **more: call_sync(channel, kind, **more)
    else:
        async with delegation_agent.grpc_aio.channel(**options) as channel_aio:
            yield lambda kind, **more: call_async(channel_aio, kind, **more)


async def call_sync(channel: Any, kind: str, **options: Any) -> set[str]:
    told = method(channel, kind)(own_pieces() if kind.startswith("stream") else b"", timeout=20, **options)
    return words(told if kind.endswith("unary") else list(told))


async def call_async(channel: Any, kind: str, **options: Any) -> set[str]:
    called = method(channel, kind)(own_pieces_async() if kind.startswith("stream") else b"", timeout=20, **options)
    return words(await called if kind.endswith("unary") else [piece async for piece in called])


@pytest.mark.parametrize("flavour", ["sync", "aio"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_has_the_handle_of_its_request_and_none_outside_of_one(flavour: str, kind: str) -> None:
    async with open_channel(flavour) as call:
        with serving("alice"):
            assert await call(kind) == {"alice"}
        with serving("bob"):
            assert await call(kind) == {"bob"}
        assert await call(kind) == {"None"}


@pytest.mark.parametrize("flavour", ["sync", "aio"])
async def test_a_handle_that_the_agent_sets_itself_is_kept(flavour: str) -> None:
    async with open_channel(flavour) as call:
        with serving("alice"):
            assert await call("unary_unary", metadata=(("delegation-handle", "mine"), ("x-own", "1"))) == {"mine"}


def test_a_callback_of_a_future_has_no_handle_unless_it_carries_its_own() -> None:
    """grpcio runs it in a thread of the channel, which starts in a call of alice and lives on for bob."""
    seen: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    ended = threading.Event()
    with delegation_agent.grpc.channel() as channel:
        with serving("alice"):
            waiting = method(channel, "stream_stream")(iter(ended.wait, True), timeout=20)  # keeps the thread
        for user in ("alice", "bob"):
            with serving(user):
                future = method(channel, "unary_unary").future(b"", timeout=20)
                future.add_done_callback(lambda _: seen.put(handle()))
                assert seen.get(timeout=20) is None
                future.add_done_callback(carry(lambda _: seen.put(handle())))
                assert seen.get(timeout=20) == user
        ended.set()
        waiting.cancel()


async def test_a_callback_of_a_call_in_the_loop_has_the_handle_of_its_own_request() -> None:
    seen: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()

    async def request(user: str, channel: grpc.aio.Channel) -> None:
        with serving(user):
            for kind in ("unary_unary", "unary_stream"):
                called = method(channel, kind)(b"", timeout=20)
                called.add_done_callback(lambda _: seen.put_nowait((user, handle())))
                await (called if kind == "unary_unary" else called.read())
                await called.code()

    async with delegation_agent.grpc_aio.channel() as channel:
        await asyncio.gather(*(request(user, channel) for user in ("alice", "bob")))
        async with asyncio.timeout(20):
            found = [await seen.get() for _ in range(4)]
    assert sorted(found) == [("alice", "alice")] * 2 + [("bob", "bob")] * 2


@pytest.mark.parametrize("flavour", ["sync", "aio"])
async def test_metadata_that_the_agent_uses_again_never_hold_a_handle(flavour: str) -> None:
    mine = grpc.aio.Metadata(("x-own", "1")) if flavour == "aio" else [("x-own", "1")]
    async with open_channel(flavour) as call:
        with serving("alice"):
            assert await call("unary_unary", metadata=mine) == {"alice"}
        assert await call("unary_unary", metadata=mine) == {"None"}
    assert list(mine) == [("x-own", "1")]


@pytest.mark.parametrize("flavour", ["sync", "aio"])
async def test_our_channel_uses_no_proxy_and_asks_for_an_authority(
    flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "")
    options = [("grpc.enable_http_proxy", 1), ("grpc.enable_retries", 0)]
    async with open_channel(flavour, authority="crm", options=options) as call:
        with serving("alice"):
            assert await call("unary_unary") == {"alice"}
    assert delegation_agent.grpc.options_of("crm", options) == [
        ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0), ("grpc.default_authority", "crm")
    ]  # fmt: skip


@pytest.mark.parametrize("ours", [delegation_agent.grpc, delegation_agent.grpc_aio])
def test_interceptors_are_for_the_sidecars_address_alone(
    ours: Any, sidecar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = sidecar.rpartition(":")[2]
    assert ours.client_interceptors(sidecar) != []
    for other in (f"localhost:{port}", f"dns:///{sidecar}", f"{sidecar}0", "127.0.0.1:1", "crm.example:443", ""):
        assert ours.client_interceptors(other) == []
    monkeypatch.setenv("grpc_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "crm.example")
    with pytest.raises(ConfigurationError, match=r"add 127\.0\.0\.1 to no_proxy"):
        ours.client_interceptors(sidecar)
    monkeypatch.setenv("no_proxy", "crm.example, 127.0.0.1")
    assert ours.client_interceptors(sidecar) != []
    monkeypatch.setenv("no_grpc_proxy", "crm.example")  # counts in place of the other
    with pytest.raises(ConfigurationError):
        ours.client_interceptors(sidecar)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigurationError, match="SIDECAR_OUTBOUND_URL is not set"):
        ours.client_interceptors(sidecar)


@pytest.mark.parametrize("authority", ["", "http://crm", "crm/"])
@pytest.mark.parametrize("ours", [delegation_agent.grpc, delegation_agent.grpc_aio])
@pytest.mark.usefixtures("sidecar")
def test_an_authority_that_leads_nowhere_is_refused(ours: Any, authority: str) -> None:
    with pytest.raises(ConfigurationError, match="is no authority: write match"):
        ours.channel(authority)


@pytest.mark.parametrize("kind", KINDS)
async def test_channels_of_others_take_our_interceptors(kind: str, sidecar: str) -> None:
    one = delegation_agent.grpc.client_interceptors(sidecar)
    four = delegation_agent.grpc_aio.client_interceptors(sidecar)
    with serving("alice"):
        with grpc.insecure_channel(sidecar) as plain:
            assert await call_sync(grpc.intercept_channel(plain, *one), kind) == {"alice"}
        async with grpc.aio.insecure_channel(sidecar, interceptors=four) as channel:
            assert await call_async(channel, kind) == {"alice"}


async def test_another_interceptor_may_leave_out_details(sidecar: str) -> None:
    """grpcio fills in those that are missing, such as the time limit."""

    class Less(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            less = grpc.ClientCallDetails()
            less.method = details.method
            return continuation(less, request)

    with delegation_agent.grpc.channel() as channel, serving("alice"):
        outer = grpc.intercept_channel(channel, Less())
        assert await call_sync(outer, "unary_unary", metadata=(("x-own", "1"),)) == {"alice"}
