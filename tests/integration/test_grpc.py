"""gRPC through two sidecars: grpcio's client and server, the four kinds of calls, and refusals that its users see."""

from __future__ import annotations

import asyncio
import queue
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest

from tests.integration.mesh import MANY_USERS, Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.test_reload import Reloadable
from tests.integration.world import PATIENCE_S

pytestmark = pytest.mark.integration

SERVICE = "demo.Echo"


class EchoServer:
    """A server of grpcio. ``seen`` are the metadata of each call."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.cancelled = threading.Event()
        self.going = threading.Event()
        self.released = threading.Event()
        self.drips = queue.Queue[bytes | None]()
        self._server = grpc.server(ThreadPoolExecutor(16))
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Many": grpc.unary_stream_rpc_method_handler(self._many),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Wait": grpc.unary_stream_rpc_method_handler(self._wait),
            "Drip": grpc.unary_stream_rpc_method_handler(self._drip),
            "Hold": grpc.unary_unary_rpc_method_handler(self._hold),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _note(self, context: grpc.ServicerContext) -> dict[str, str]:
        found = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.seen.append(found)
        return found

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        found = self._note(context)
        context.set_trailing_metadata((("x-trailer", "behind"), ("delegation-subject", "mallory")))
        return found["delegation-subject"].encode() + b" " + request

    def _many(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for number in range(int(request)):
            yield b"%d" % number

    def _sum(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._note(context)
        return b"%d" % sum(map(int, requests))

    def _talk(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for request in requests:
            yield b"re: " + request

    def _wait(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        context.add_callback(self.cancelled.set)
        yield b"begun"
        self.going.set()
        self.cancelled.wait(20)

    def _drip(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        yield from iter(self.drips.get, None)

    def _hold(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        self.released.wait(20)
        return request

    def _fail(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no such order: ü %")
        raise AssertionError

    def stop(self) -> None:
        self.cancelled.set()
        self._server.stop(0).wait(5)


class Served(Protocol):
    """A server of gRPC on loopback."""

    port: int


class World:
    """The mesh, and grpcio at both of its ends."""

    def __init__(self, mesh: Mesh, server: EchoServer) -> None:
        self.mesh = mesh
        self.server = server
        options = [("grpc.default_authority", "planner.mesh"), ("grpc.enable_retries", 0)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{mesh.sidecars['front'].outbound}", options=options)

    def shown(self, user: str = "alice") -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.mesh.log_in(user)}"),)

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run a blocking call of grpcio."""
        async with asyncio.timeout(PATIENCE_S * 3):
            return await asyncio.to_thread(call)

    async def fails(self, call: Callable[[], Any]) -> Any:
        """Run a call that is refused; return its error."""

        def refused() -> Any:
            with pytest.raises(grpc.RpcError) as error:
                call()
            return error.value

        return await self.run(refused)


def by_operations(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
    """Let both sidecars list methods of services."""
    if name == "front":
        settings["outbound"]["routes"][0] |= {
            "protocol": "grpc",
            "operations": [{"allow": ["demo.Echo/*", "demo.Other/Unary", "grpc.health.v1.Health/Check"]}],
        }
    elif name == "planner":
        route = settings["inbound"]["routes"][0]
        route["match"] = {"path_prefix": "/"}
        route |= {
            "protocol": "grpc",
            "operations": [
                {"allow": ["demo.Echo/Unary", "grpc.health.v1.Health/Check"]},
                {"allow": ["demo.Echo/Many"], "scopes": ["crm.export"]},
            ],
        }


def adjust(server: Served) -> Callable[[str, Settings, Mapping[str, int]], None]:
    def change(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
        settings["drain_s"] = 5.0
        if name == "front":
            settings["protocols"] = {"http2": True}
            settings["outbound"]["routes"][0]["match"] = {"host": "planner.mesh"}
        elif name == "planner":
            settings["protocols"] = {"http2": True, "agent": "h2c"}
            settings["inbound"]["agent"] = f"http://127.0.0.1:{server.port}"
            settings["inbound"]["routes"][0]["match"] = {"path_prefix": f"/{SERVICE}", "methods": ["POST"]}

    return change


@pytest.fixture
async def world() -> AsyncIterator[World]:
    server = EchoServer()
    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), adjust(server)) as mesh:
            made = World(mesh, server)
            yield made
            made.channel.close()
            await asyncio.to_thread(server.stop)


async def test_a_unary_call_passes_with_its_metadata_and_trailers(world: World) -> None:
    def call() -> tuple[bytes, dict[str, str]]:
        metadata = (*world.shown(), ("x-mine", "1"), ("x-bin", b"\0\1"))
        answer, done = world.channel.unary_unary(f"/{SERVICE}/Unary").with_call(b"hello", timeout=10, metadata=metadata)
        return answer, dict(done.trailing_metadata())

    answer, trailers = await world.run(call)
    assert answer == b"alice hello"
    assert trailers["x-trailer"] == "behind"
    assert "delegation-subject" not in trailers
    (seen,) = world.server.seen
    assert (seen["delegation-subject"], seen["x-mine"]) == ("alice", "1")
    for name, direction in (("front", "outbound"), ("planner", "inbound")):
        (record,) = await world.mesh.sidecars[name].wait_for_records(1)
        assert (record["direction"], record["decision"], record["subject"]) == (direction, "allow", "alice")


async def test_streams_of_the_server_of_the_client_and_of_both(world: World) -> None:
    shown = world.shown()

    def call() -> tuple[list[bytes], bytes, list[bytes]]:
        channel = world.channel
        many = channel.unary_stream(f"/{SERVICE}/Many")(b"500", timeout=10, metadata=shown)
        summed = channel.stream_unary(f"/{SERVICE}/Sum")((b"%d" % n for n in range(500)), timeout=10, metadata=shown)
        return list(many), summed, talk(channel)

    def talk(channel: grpc.Channel) -> list[bytes]:
        answered = threading.Semaphore(1)

        def questions() -> Iterator[bytes]:
            for number in range(20):
                answered.acquire(timeout=5)  # each waits for the answer to the one before
                yield b"%d" % number

        found = []
        for answer in channel.stream_stream(f"/{SERVICE}/Talk")(questions(), timeout=10, metadata=shown):
            found.append(answer)
            answered.release()
        return found

    many, summed, talked = await world.run(call)
    assert many == [b"%d" % number for number in range(500)]
    assert summed == b"124750"
    assert talked == [b"re: %d" % number for number in range(20)]


async def test_a_long_message_passes(world: World) -> None:
    message = b"x" * 3_000_000
    shown = world.shown()
    answer = await world.run(
        lambda: world.channel.unary_unary(f"/{SERVICE}/Unary")(message, timeout=20, metadata=shown)
    )
    assert answer == b"alice " + message


async def test_the_status_of_the_agent_passes_as_it_is(world: World) -> None:
    shown = world.shown()
    error = await world.fails(lambda: world.channel.unary_unary(f"/{SERVICE}/Fail")(b"", timeout=10, metadata=shown))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "no such order: ü %"
    (record,) = await world.mesh.sidecars["planner"].wait_for_records(1)
    assert (record["decision"], record["status"]) == ("allow", 200)


async def test_a_refusal_of_the_own_sidecar_is_a_status_with_our_reason(world: World) -> None:
    error = await world.fails(lambda: world.channel.unary_unary(f"/{SERVICE}/Unary")(b"", timeout=10))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "no_request_context" in error.details()
    assert dict(error.trailing_metadata())["delegation-reason"] == "no_request_context"
    (record,) = await world.mesh.sidecars["front"].wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("deny", "no_request_context")
    assert world.server.seen == []


async def test_a_refusal_of_the_next_hop_is_a_status_with_its_reason(world: World) -> None:
    shown = world.shown()
    error = await world.fails(
        lambda: world.channel.unary_unary("/other.Service/Unary")(b"", timeout=10, metadata=shown)
    )
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert dict(error.trailing_metadata())["delegation-reason"] == "no_route"
    assert world.server.seen == []


async def test_an_agent_that_is_gone_is_a_status(world: World) -> None:
    shown = world.shown()
    await asyncio.to_thread(world.server.stop)
    error = await world.fails(lambda: world.channel.unary_unary(f"/{SERVICE}/Unary")(b"", timeout=10, metadata=shown))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["delegation-reason"] == "upstream_unreachable"


async def test_a_caller_that_cancels_ends_the_call_at_the_agent(world: World) -> None:
    shown = world.shown()

    def call() -> bytes:
        waiting = world.channel.unary_stream(f"/{SERVICE}/Wait")(b"", timeout=20, metadata=shown)
        first: bytes = next(waiting)
        waiting.cancel()
        return first

    assert await world.run(call) == b"begun"
    assert await asyncio.to_thread(world.server.cancelled.wait, PATIENCE_S)
    (record,) = await world.mesh.sidecars["planner"].wait_for_records(1)
    assert record["reason"] == "peer_gone"


async def test_a_deadline_ends_the_call_at_both_sidecars_and_the_agent(world: World) -> None:
    shown = world.shown()
    began = time.monotonic()
    error = await world.fails(
        lambda: list(world.channel.unary_stream(f"/{SERVICE}/Wait")(b"", timeout=1.0, metadata=shown))
    )
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # by its own clock, or by ours
    assert time.monotonic() - began < 3
    assert await asyncio.to_thread(world.server.cancelled.wait, PATIENCE_S)
    (record,) = await world.mesh.sidecars["planner"].wait_for_records(1)
    assert record["reason"] in {"peer_gone", "upstream_timeout"}


async def test_a_deadline_of_ours_is_a_status_that_says_so(world: World) -> None:
    """The client does not know of the deadline that its message states."""
    shown = (*world.shown(), ("grpc-timeout", "500m"))
    error = await world.fails(lambda: list(world.channel.unary_stream(f"/{SERVICE}/Wait")(b"", metadata=shown)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "upstream_timeout" in error.details()
    (record,) = await world.mesh.sidecars["front"].wait_for_records(1)
    assert (record["decision"], record["reason"]) == ("allow", "upstream_timeout")


async def test_a_subject_who_is_denied_meanwhile_learns_why(world: World) -> None:
    shown = world.shown()
    waiting = world.channel.unary_stream(f"/{SERVICE}/Wait")(b"", timeout=20, metadata=shown)
    assert await world.run(lambda: next(waiting)) == b"begun"
    planner = world.mesh.sidecars["planner"]
    await Reloadable(world.mesh.world, planner, {}).reload(deny=[{"subject": "alice"}])
    error = await world.fails(lambda: list(waiting))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "policy_denied" in error.details()


async def test_a_drain_lets_calls_finish(world: World) -> None:
    shown = world.shown()
    talked = world.channel.stream_stream(f"/{SERVICE}/Talk")
    more = queue.Queue[bytes | None]()
    answers = talked(iter(more.get, None), timeout=20, metadata=shown)
    more.put(b"1")
    assert await world.run(lambda: next(answers)) == b"re: 1"
    world.mesh.sidecars["planner"].stop.set()
    await asyncio.sleep(0.5)
    more.put(b"2")
    assert await world.run(lambda: next(answers)) == b"re: 2"
    more.put(None)
    assert await world.run(lambda: list(answers)) == []
    (record,) = await world.mesh.sidecars["planner"].wait_for_records(1)
    assert (record["decision"], record["reason"], record["status"]) == ("allow", "ok", 200)


async def test_calls_of_many_users_at_a_time_never_mix(world: World) -> None:
    """1,000 calls of 50 users on one connection to the first sidecar, and few between the sidecars and to the agent."""

    def call() -> list[bytes]:
        unary = world.channel.unary_unary(f"/{SERVICE}/Unary")
        shown = [world.shown(user) for user in MANY_USERS]
        # Above the 100 streams that the sidecar announces, gRPC's own client sometimes fails a call with "Too many
        # streams" without sending it.
        free = threading.BoundedSemaphore(90)
        calls = []
        for n in range(1000):
            free.acquire()
            calls.append(unary.future(b"%d" % n, timeout=60, metadata=shown[n % 50]))
            calls[-1].add_done_callback(lambda _: free.release())
        return [one.result() for one in calls]

    answers = await world.run(call)
    assert answers == [b"user-%d %d" % (n % 50, n) for n in range(1000)]
    for sidecar in (world.mesh.sidecars[name] for name in ("front", "planner")):
        records = await sidecar.wait_for_records(1000)
        assert Counter(one["subject"] for one in records) == dict.fromkeys(MANY_USERS, 20)


@pytest.fixture
async def operations() -> AsyncIterator[World]:
    server = EchoServer()

    def both(name: str, settings: Settings, ports: Mapping[str, int]) -> None:
        adjust(server)(name, settings, ports)
        by_operations(name, settings, ports)

    with tempfile.TemporaryDirectory(prefix="sc-") as folder:
        async with open_mesh(Path(folder), both) as mesh:
            made = World(mesh, server)
            yield made
            made.channel.close()
            await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(
    ("method", "code", "reason", "ops"),
    [
        ("/demo.Echo/Unary", None, None, ["/demo.Echo/other", "/demo.Echo/Unary"]),
        ("/demo.Echo/Many", "PERMISSION_DENIED", "insufficient_scope", ["/demo.Echo/other", "/demo.Echo/Many"]),
        ("/demo.Echo/Fail", "PERMISSION_DENIED", "operation_refused", ["/demo.Echo/other", "other"]),
        ("/demo.Echo/unary", "PERMISSION_DENIED", "operation_refused", ["/demo.Echo/other", "other"]),
        ("/demo.Other/Many", "PERMISSION_DENIED", "operation_refused", ["other"]),
        ("/grpc.health.v1.Health/Check", "UNIMPLEMENTED", None, ["/grpc.health.v1.Health/Check"] * 2),
        ("/grpc.health.v1.Health/Watch", "PERMISSION_DENIED", "operation_refused", ["other"]),
        ("/demo.Echo", "INVALID_ARGUMENT", "operation_malformed", ["other"]),
    ],
)
async def test_a_method_of_a_service_is_an_operation(
    operations: World, method: str, code: str | None, reason: str | None, ops: list[str]
) -> None:
    shown = operations.shown()

    def call() -> bytes:
        answer: bytes = operations.channel.unary_unary(method)(b"hello", timeout=10, metadata=shown)
        return answer

    if code is None:
        assert await operations.run(call) == b"alice hello"
    else:
        error = await operations.fails(call)
        assert error.code() is getattr(grpc.StatusCode, code)
        assert dict(error.trailing_metadata()).get("delegation-reason") == reason
    told = [
        (await operations.mesh.sidecars[name].wait_for_records(1))[0]["op"]
        for name, _ in zip(("front", "planner"), ops, strict=False)
    ]
    assert told == ops
    assert len(operations.server.seen) == int(code is None)


async def test_a_call_that_is_none_of_grpc_is_refused_on_its_route(operations: World) -> None:
    mesh = operations.mesh
    fields = [("authorization", f"Bearer {mesh.log_in()}"), ("content-type", "application/grpc")]
    port = mesh.sidecars["front"].outbound
    answer = await mesh.world.call(port, None, "/demo.Echo/Unary", headers=fields, host="planner.mesh")
    assert (answer.status, answer.reason) == (400, "operation_malformed")


async def test_calls_in_progress_and_later_ones_outlive_rotations_of_both_identities(world: World) -> None:
    shown = world.shown()
    done = threading.Event()
    lost: list[Any] = []
    counts = [0, 0]

    def call_on() -> None:
        unary = world.channel.unary_unary(f"/{SERVICE}/Unary")
        while not done.is_set():
            try:
                assert unary(b"x", timeout=10, metadata=shown) == b"alice x"
                counts[0] += 1
            except grpc.RpcError as error:
                lost.append(error)

    def talk_on() -> None:
        more = queue.Queue[bytes | None]()
        answers = world.channel.stream_stream(f"/{SERVICE}/Talk")(iter(more.get, None), timeout=30, metadata=shown)
        try:
            while not done.is_set():
                more.put(b"x")
                assert next(answers) == b"re: x"
                counts[1] += 1
        except grpc.RpcError as error:
            lost.append(error)
        finally:
            more.put(None)

    running = [asyncio.ensure_future(asyncio.to_thread(one)) for one in (call_on, call_on, talk_on)]
    try:
        for _ in range(5):
            for name in ("front", "planner"):
                sidecar = world.mesh.sidecars[name]
                identity, registry = sidecar.server.parts.source.current, sidecar.api.registry
                registry.replace_entries([replace(one, ttl_s=one.ttl_s - 1) for one in registry.entries])
                async with asyncio.timeout(PATIENCE_S):
                    while sidecar.server.parts.source.current is identity:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
    finally:
        done.set()
        await asyncio.gather(*running)
    assert lost == []
    assert min(counts) > 10
