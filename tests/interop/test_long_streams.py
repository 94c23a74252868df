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
from tests.interop.engine import require
from tests.interop.test_grpc_go import At, mesh_before

SECONDS = int(os.environ.get("SECONDS", "600"))
pytestmark = [pytest.mark.interop, pytest.mark.timeout(SECONDS + 120)]
EXPECTED = {"hold": f"{SECONDS}", "drip": "3", "sum": "5", "talk": "5"}
BUILT = {"go": "GO_GRPC", "rust": "RUST_GRPC", "java": "JAVA_GRPC"}
"""Variable that says where the Makefile built each client; it is empty where the toolchain is missing."""


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
    made = grpc.server(ThreadPoolExecutor(len(EXPECTED) * (1 + len(BUILT))))
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


def command(client: str) -> list[str]:
    """Return the command line of a client, or nothing if it was not built."""
    built = os.environ.get(BUILT[client])
    if not built:
        return []
    if client == "java":
        return ["java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", f"{built}:{built}/*", "Client"]
    return [built]


async def of_program(client: str, address: str, token: str) -> dict[str, str]:
    ran = await asyncio.create_subprocess_exec(
        *command(client), "last", address, token, str(SECONDS), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await ran.communicate()
    lines = [line.split() for line in printed.decode().splitlines()]
    assert {line[-1] for line in lines} <= {"EOF", "<nil>", "OK"}, (client, lines)
    return {line[0]: line[1] for line in lines}


@pytest.mark.parametrize("client", BUILT)
def test_the_client_is_built(client: str) -> None:
    missing = f"the client in {client} is not built, {BUILT[client]} is empty: install its toolchain"
    require(None if command(client) else missing)


async def test_calls_of_every_client_stay_open() -> None:
    """All at once, through the same two sidecars: unary, and streams of either end and of both."""
    made, at = server()
    programs = [client for client in BUILT if command(client)]
    try:
        async with mesh_before(at) as mesh:
            calls = [of_python(*_place(mesh)), *(of_program(client, *_place(mesh)) for client in programs)]
            answers = await asyncio.gather(*calls)
            count = len(EXPECTED) * len(calls)
            records = [
                one for name in ("front", "planner") for one in await mesh.sidecars[name].wait_for_records(count)
            ]
    finally:
        await asyncio.to_thread(made.stop(0).wait, 5)
    found = dict(zip(["python", *programs], answers, strict=True))
    assert found == dict.fromkeys(found, EXPECTED)
    assert {one["reason"] for one in records} == {"ok"}


def _place(mesh: Mesh) -> tuple[str, str]:
    return f"127.0.0.1:{mesh.sidecars['front'].outbound}", mesh.log_in()
