"""Calls of gRPC that stay open for minutes with little traffic, by real clients through two sidecars.

``SECONDS`` is how long; ten minutes by default.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.integration.mesh import Mesh
from tests.integration.test_grpc import SERVICE
from tests.interop.test_grpc_go import At, mesh_before, program

SECONDS = int(os.environ.get("SECONDS", "600"))
pytestmark = [pytest.mark.interop, pytest.mark.timeout(SECONDS + 120)]
EXPECTED = {"hold": f"{SECONDS}", "drip": "3", "sum": "5", "talk": "5"}


def _hold(request: bytes, _context: object) -> bytes:
    time.sleep(int(request))
    return request


def _drip(request: bytes, _context: object) -> Iterator[bytes]:
    for _ in range(3):
        time.sleep(int(request) / 3)
        yield b"."


def _sum(requests: Iterator[bytes], _context: object) -> bytes:
    return b"%d" % sum(map(int, requests))


def _talk(requests: Iterator[bytes], _context: object) -> Iterator[bytes]:
    yield from requests


def server() -> tuple[grpc.Server, At]:
    made = grpc.server(ThreadPoolExecutor(16))
    handlers = {
        "Hold": grpc.unary_unary_rpc_method_handler(_hold),
        "Drip": grpc.unary_stream_rpc_method_handler(_drip),
        "Sum": grpc.stream_unary_rpc_method_handler(_sum),
        "Talk": grpc.stream_stream_rpc_method_handler(_talk),
    }
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = made.add_insecure_port("127.0.0.1:0")
    made.start()
    return made, At(port)


def slowly() -> Iterator[bytes]:
    for _ in range(5):
        yield b"1"
        time.sleep(SECONDS / 5)


async def of_python(address: str, token: str) -> dict[str, str]:
    shown = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address, options=[("grpc.default_authority", "planner.mesh")]) as channel:
        calls: dict[str, Callable[[], bytes]] = {
            "hold": lambda: channel.unary_unary(f"/{SERVICE}/Hold")(
                b"%d" % SECONDS, timeout=2 * SECONDS, metadata=shown
            ),
            "drip": lambda: b"%d" % len([*channel.unary_stream(f"/{SERVICE}/Drip")(b"%d" % SECONDS, metadata=shown)]),
            "sum": lambda: channel.stream_unary(f"/{SERVICE}/Sum")(slowly(), metadata=shown),
            "talk": lambda: b"%d" % len([*channel.stream_stream(f"/{SERVICE}/Talk")(slowly(), metadata=shown)]),
        }
        found = await asyncio.gather(*map(asyncio.to_thread, calls.values()))
    return {name: answer.decode() for name, answer in zip(calls, found, strict=True)}


async def of_go(address: str, token: str) -> dict[str, str]:
    ran = await asyncio.create_subprocess_exec(
        program(), "last", address, token, str(SECONDS), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await ran.communicate()
    lines = [line.split() for line in printed.decode().splitlines()]
    assert {line[-1] for line in lines} <= {"EOF", "<nil>", "OK"}, lines
    return {line[0]: line[1] for line in lines}


async def test_calls_of_every_client_stay_open() -> None:
    """All at once, through the same two sidecars: unary, and streams of either end and of both."""
    made, at = server()
    try:
        async with mesh_before(at) as mesh:
            found = await asyncio.gather(*(one(*_place(mesh)) for one in (of_python, of_go)))
            records = [one for name in ("front", "planner") for one in await mesh.sidecars[name].wait_for_records(8)]
    finally:
        await asyncio.to_thread(made.stop(0).wait, 5)
    assert found == [EXPECTED] * 2
    assert {one["reason"] for one in records} == {"ok"}


def _place(mesh: Mesh) -> tuple[str, str]:
    return f"127.0.0.1:{mesh.sidecars['front'].outbound}", mesh.log_in()
