"""Anybody in a cluster may connect to the webhook: whatever they do, the API server has its answer in time."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sidecar.injector.review import MAX_BYTES
from tests.injector.pods import review
from tests.injector.serving import HOST, Running, running_injector, write_pair

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

MAX_CONNECTIONS = 48  # of `running`
API_SERVER_WAITS_S = 5.0  # injector.timeoutSeconds
HEAD = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def tls(running: Running) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=running.authority.bundle_pem().decode())


async def connect(running: Running, context: ssl.SSLContext | None = None) -> Stream:
    name = None if context is None else HOST
    return await asyncio.open_connection("127.0.0.1", running.port, ssl=context, server_hostname=name)


@asynccontextmanager
async def crowd(
    count: int, make: Callable[[], asyncio.Future[Stream]] | Callable[[], object]
) -> AsyncIterator[list[Stream]]:
    """Open this many connections, one after the other."""
    streams: list[Stream] = []
    try:
        for _ in range(count):
            with suppress(OSError):
                streams.append(await make())  # type: ignore[misc]
        yield streams
    finally:
        for _, writer in streams:
            writer.transport.abort()


async def lawful(running: Running, times: int = 3) -> None:
    for _ in range(times):
        async with asyncio.timeout(API_SERVER_WAITS_S):
            status, answer = await running.ask()
        assert (status, answer["response"]["allowed"]) == (200, True)


def memory_mib(running: Running) -> int:
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    raise AssertionError


@pytest.mark.parametrize(
    "sent",
    [b"", HEAD, HEAD + b"content-length: 900\r\n\r\n{"],
    ids=["nothing", "half a head", "half a body"],
)
async def test_more_connections_than_there_is_room_for_that_never_end_their_request(
    running: Running, sent: bytes
) -> None:
    context = tls(running)

    async def slow() -> Stream:
        reader, writer = await connect(running, context)
        writer.write(sent)
        return reader, writer

    async with crowd(2 * MAX_CONNECTIONS, slow):
        await lawful(running)
    assert (await running.event("connection.refused"))["reason"] in ("overloaded", "timeout")
    assert memory_mib(running) < 160


async def test_handshakes_that_never_begin_or_never_end(running: Running) -> None:
    async def half() -> Stream:
        reader, writer = await connect(running)
        writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the start of a ClientHello
        return reader, writer

    async with crowd(80, half), crowd(40, lambda: connect(running)):
        await lawful(running)


async def test_large_bodies_that_never_end_take_no_memory_away(running: Running) -> None:
    context = tls(running)
    begun = HEAD + b"content-length: %d\r\n\r\n" % MAX_BYTES + b"[" * (MAX_BYTES - 1000)

    async def large() -> Stream:
        reader, writer = await connect(running, context)
        writer.write(begun)
        with suppress(OSError):
            await writer.drain()
        return reader, writer

    async with crowd(60, large):
        await lawful(running)
    assert memory_mib(running) < 160


HOSTILE = {
    "nothing in it": b'{"a": [' + b"[]," * (MAX_BYTES // 3 - 10) + b"[]]}",
    "many members": json.dumps({f"k{number}": number for number in range(65_000)}).encode(),
    "deep": b'{"a":' * (MAX_BYTES // 5),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_large_questions_without_end_keep_nobody_waiting(running: Running, body: bytes) -> None:
    context, stop = tls(running), asyncio.Event()

    async def ask_on() -> None:
        request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
        while not stop.is_set():
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await connect(running, context)
                try:
                    writer.write(request)
                    await reader.readuntil(b"\r\n\r\n")
                finally:
                    writer.transport.abort()

    asking = [asyncio.create_task(ask_on()) for _ in range(20)]
    await asyncio.sleep(0.5)
    try:
        await lawful(running)
    finally:
        stop.set()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert memory_mib(running) < 160


async def test_a_flood_of_what_is_no_question_is_counted_and_recorded_at_the_listeners_rate(running: Running) -> None:
    context = tls(running)
    reader, writer = await connect(running, context)
    flood = 400
    for _ in range(flood):
        writer.write(HEAD + b"content-length: 2\r\n\r\n{}")
        assert b" 400 " in await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(b"it is not an AdmissionReview of admission.k8s.io/v1\n"))
    writer.transport.abort()
    text = (await running.probed("/metrics"))[1]
    assert f'decision="deny",rule="no_review"}} {float(flood)}' in text
    running.process.send_signal(signal.SIGTERM)
    assert running.process.stdout is not None
    told = [json.loads(line) for line in (await running.process.stdout.read()).splitlines()]
    refused = [record for record in told if record["event"] == "pod.refused"]
    assert 0 < len(refused) < flood / 2


async def test_a_client_with_a_certificate_is_served_as_any_other(running: Running) -> None:
    context = tls(running)
    context.load_cert_chain(running.folder / "tls.crt", running.folder / "tls.key")
    body = json.dumps(review()).encode()
    reader, writer = await connect(running, context)
    writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


NO_REQUESTS: dict[str, tuple[bytes, int]] = {
    "no length": (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    "too long": (HEAD + b"content-length: 99999999\r\n\r\n", 413),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "elsewhere": (HEAD.replace(b"/inject", b"/") + b"content-length: 0\r\n\r\n", 404),
    "another method": (HEAD.replace(b"POST", b"GET") + b"\r\n", 405),
    "no HTTP": (HEAD.replace(b"POST", b"\x00\x01") + b"\r\n", 400),
}


async def test_what_is_no_request_is_refused_and_the_next_is_served(running: Running) -> None:
    for name, (head, status) in NO_REQUESTS.items():
        reader, writer = await connect(running, tls(running))
        writer.write(head)
        assert (await reader.readline()).split(b" ")[1] == b"%d" % status, name
        writer.transport.abort()
        await lawful(running, 1)
    counted = f'decision="deny",rule="no_review"}} {float(len(NO_REQUESTS))}'
    assert counted in (await running.probed("/metrics"))[1]


async def test_a_certificate_that_is_replaced_again_and_again_fails_nobody(running: Running) -> None:
    failed: list[BaseException] = []
    stop = asyncio.Event()

    async def ask_on() -> None:
        while not stop.is_set():
            try:
                await lawful(running, 1)
            except BaseException as error:  # noqa: BLE001 - whatever it is
                failed.append(error)

    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    for _ in range(10):
        write_pair(running.folder, running.authority)
        running.process.send_signal(signal.SIGHUP)
        await running.event("config.reloaded")
    stop.set()
    await asyncio.gather(*asking)
    assert failed == []


async def test_with_few_descriptors_there_is_room_for_fewer_connections(tmp_path: Path) -> None:
    async with running_injector(tmp_path, max_connections=512, descriptors=64) as running:
        async with crowd(80, lambda: connect(running)):
            await lawful(running)
        context = tls(running)
        async with crowd(80, lambda: connect(running, context)):
            await lawful(running)
