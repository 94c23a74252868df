"""A whole world in one event loop: trust domains, Workload APIs, an issuer, an agent, sidecars; every socket real."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.assembly.server import assemble
from sidecar.config import load_sidecar
from sidecar.config.loader import Loaded, SettingsFiles
from sidecar.config.settings import SidecarSettings
from sidecar.identity.source import Identity
from sidecar.identity.tls import client_context
from sidecar.identity.workload_api import WorkloadApiSource
from sidecar.identity.workload_settings import WorkloadApiSettings
from sidecar.proxy.listening.server import Server
from sidecar_dev.entries import Entry, Selectors
from sidecar_dev.pki import TrustDomainAuthority
from sidecar_dev.registry import Registry
from sidecar_dev.workload_server import DevWorkloadApi
from tests.fakes.conversations import listening
from tests.fakes.tokens import base64url, encode, private_key, public_jwk, sign

ACME: Final = TrustDomain("acme.example")
PARTNER: Final = TrustDomain("partner.example")
FRONT: Final = SpiffeId("spiffe://acme.example/agent/front")
PLANNER: Final = SpiffeId("spiffe://acme.example/agent/planner")
WRITER: Final = SpiffeId("spiffe://acme.example/agent/writer")
CRM: Final = SpiffeId("spiffe://acme.example/tool/crm")
STS: Final = SpiffeId("spiffe://acme.example/sts")
ISSUER: Final = "https://sts.acme.example"
PATIENCE_S: Final = 10.0
EXCHANGE_S: Final = 30.0  # one of many at once, on a busy machine
START_S: Final = 45.0  # an interpreter and its imports, on a busy machine

Record = dict[str, Any]


async def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Poll for changes without notification: a file that a thread writes, a state. Everything else is awaited."""
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)


_WORKERS: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Below the ports of development meshes (20,000 and up) and of the system's outgoing connections (32,768 and up). Each
# worker has ports of its own: between this choice and the listener's bind another worker could take the same one.
_PORTS: Final = range(10_000 + _WORKER, 20_000, _WORKERS)
_any: Final = random.SystemRandom()
_given: Final[deque[int]] = deque(maxlen=256)


def free_port() -> int:
    """Return a free port that only this worker gives away, and that was not returned recently.

    Not from the tests' random numbers: with their seed the same ones would come again soon.
    """
    while True:
        port = _any.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            _given.append(port)
            return port


def mint(
    changes: Mapping[str, object] | None = None, header: Mapping[str, object] | None = None, *, key: int = 0
) -> str:
    """Return a token of ``ISSUER`` for the writer, as the planner holds it for alice; members that are None are left
    out.
    """
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": ISSUER,
        "sub": "alice",
        "aud": WRITER,
        "scope": "docs.write crm.read",
        "client_id": PLANNER,
        "iat": now,
        "exp": now + 300,
        "jti": f"j{time.monotonic_ns()}",
        "txn": "t1",
        "act": {"sub": PLANNER, "act": {"sub": FRONT}},
        **(changes or {}),
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    head = {"alg": "ES256", "typ": "at+jwt", "kid": "k0", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    signed = f"{base64url(encode(head))}.{base64url(encode(claims))}"
    return f"{signed}.{base64url(sign('ES256', private_key('ES256', key), signed.encode()))}"


def whole_lines(file: Path) -> list[str]:
    """Return the complete lines of a file that is being written."""
    text = file.read_text()
    return text[: text.rfind("\n") + 1].splitlines()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        return self.headers.get("delegation-reason")


@dataclass
class Agent:
    """A plain HTTP server that records its requests. ``script`` answers a request's raw head and body."""

    port: int = 0
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    script: Callable[[bytes, bytes], bytes | asyncio.Future[bytes]] | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    last_words: bytes | None = None
    heard: bytearray = field(default_factory=bytearray)

    async def wait_for_bytes(self, wanted: bytes) -> None:
        """Wait until these bytes of some body have arrived, complete or not."""
        await until(lambda: wanted in self.heard)

    def never(self) -> asyncio.Future[bytes]:
        """Never answer."""
        return asyncio.get_running_loop().create_future()

    def say_and_hang_up(self, raw: bytes) -> None:
        """Answer the next request with these bytes, and end its connection."""
        self.last_words = raw

    def headers(self, number: int = -1) -> dict[str, str]:
        lines = self.requests[number][0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await self._body(reader, head)
                self.requests.append((head, body))
                self.arrived.set()
                if self.last_words is not None:
                    last_words, self.last_words = self.last_words, None
                    writer.write(last_words)
                    return
                answer = self.script(head, body) if self.script else ok(b"done")
                writer.write(answer if isinstance(answer, bytes) else await answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await self._read(reader, size + 2))[:-2]
            await reader.readuntil(b"\r\n")
            return body
        if b"content-length: " in lower:
            return await self._read(reader, int(lower.split(b"content-length: ")[1].split(b"\r\n")[0]))
        return b""

    async def _read(self, reader: asyncio.StreamReader, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await reader.read(size - len(data))
            if not piece:
                raise asyncio.IncompleteReadError(data, size)
            self.heard += piece
            data += piece
        return data


def ok(body: bytes, *fields: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(body)
    return head + b"".join(one + b"\r\n" for one in fields) + b"\r\n" + body


class Sidecar:
    """One running sidecar, its Workload API and its records. ``running`` yields whether it drained in time."""

    def __init__(
        self,
        server: Server,
        running: asyncio.Task[bool],
        stop: asyncio.Event,
        *,
        api: DevWorkloadApi,
        ports: Mapping[str, int],
        records: Path,
        settings_path: Path,
    ) -> None:
        self.settings_path = settings_path
        self.server = server
        self.running = running
        self.stop = stop
        self.api = api
        self.inbound = ports["in"]
        self.outbound = ports["out"]
        self.records_path = records

    def records(self, event: str = "request") -> list[Record]:
        lines = whole_lines(self.records_path) if self.records_path.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    async def wait_for_records(self, count: int, event: str = "request") -> list[Record]:
        await until(lambda: len(self.records(event)) >= count)
        return self.records(event)


class World:
    """Makes identities, agents and sidecars; everything it made ends with it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.acme = TrustDomainAuthority(ACME)
        self.partner = TrustDomainAuthority(PARTNER)
        self.keys = {"keys": [public_jwk(private_key("ES256", 0), kid="k0", use="sig", alg="ES256")]}
        self.agent = Agent()
        self.jwks_port = 0
        self.broken_keys: bytes | None = None  # sent instead, byte for byte
        self.keys_asked = asyncio.Event()
        self.keys_wait: asyncio.Event | None = None  # keys are served only once it is set
        self.registries: list[Registry] = []  # behind every Workload API here, in the order of ``api``
        self._stack = stack
        self._names = 0

    async def api(self, spiffe_id: SpiffeId, **entry: Any) -> DevWorkloadApi:
        """Run a separate Workload API for one workload: all share this process, so pids cannot separate them."""
        self._names += 1
        authority = self.acme if spiffe_id.trust_domain == ACME else self.partner
        other = self.partner if authority is self.acme else self.acme
        registry = Registry(
            [authority, other],
            [
                Entry(
                    spiffe_id=spiffe_id,
                    selectors=Selectors(uid=os.getuid()),
                    federates_with=frozenset({other.trust_domain}),
                    **entry,
                )
            ],
        )
        self.registries.append(registry)
        return await self._stack.enter_async_context(DevWorkloadApi(self.folder / f"w{self._names}.sock", registry))

    async def source(self, spiffe_id: SpiffeId, **entry: Any) -> WorkloadApiSource:
        """Return an identity, ready to use."""
        api = await self.api(spiffe_id, **entry)
        source = WorkloadApiSource(WorkloadApiSettings(address=api.address, jwt_bundles=True))
        there = asyncio.Event()

        def arrived(identity: Identity | None) -> None:
            if identity is not None:
                there.set()

        source.subscribe(arrived)
        self.background(source.run())
        async with asyncio.timeout(PATIENCE_S):
            await there.wait()
        return source

    def background(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        return task

    async def listen(self, serve: Callable[..., Any], **options: Any) -> int:
        return await self._stack.enter_async_context(listening(serve, **options))

    async def serve_keys(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.keys_asked.set()
        if self.broken_keys is not None:
            writer.write(self.broken_keys)
            writer.close()
            return
        if self.keys_wait is not None:
            await self.keys_wait.wait()
        writer.write(ok(json.dumps(self.keys).encode(), b"content-type: application/json", b"connection: close"))
        await writer.drain()
        writer.close()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the writer's settings: POST /draft for the planner, anything below /public without a scope."""
        return {
            "issuers": [
                {
                    "issuer": ISSUER,
                    "jwks": f"http://127.0.0.1:{self.jwks_port}/jwks",
                    "profile": "sts",
                    "actor_trust_domains": ["acme.example"],
                    "scopes": ["docs.write", "crm.read"],
                }
            ],
            "inbound": {
                "listen": "127.0.0.1:0",
                "agent": f"http://127.0.0.1:{self.agent.port}",
                "routes": [
                    {
                        "name": "draft",
                        "match": {"path": "/draft", "methods": ["GET", "POST", "HEAD"]},
                        "scopes": ["docs.write"],
                        "peers": [str(PLANNER)],
                    }
                ],
            },
            **changes,
        }

    async def written(
        self, spiffe_id: SpiffeId, settings: Mapping[str, Any], ports: Mapping[str, int]
    ) -> tuple[Path, DevWorkloadApi, Mapping[str, int], Path]:
        """Write the settings to a file; return its path, its Workload API, the ports, and the records' file."""
        api = await self.api(spiffe_id)
        self._names += 1
        records = self.folder / f"s{self._names}.records"
        ports = {"in": free_port(), "out": free_port(), "probe": free_port(), **ports}
        document = json.loads(json.dumps(settings))
        document["identity"] = {"workload_api": api.address}
        document["records"] = {"sink": {"file": str(records)}, **document.get("records", {})}
        document["probe"] = {"listen": f"127.0.0.1:{ports['probe']}"}
        document.setdefault("drain_s", 1.0)
        for section, port in (("inbound", ports["in"]), ("outbound", ports["out"])):
            if section in document:
                document[section]["listen"] = f"127.0.0.1:{port}"
        path = self.folder / f"s{self._names}.yaml"
        path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
        return path, api, ports, records

    async def sidecar(
        self,
        spiffe_id: SpiffeId,
        settings: Mapping[str, Any],
        *,
        wait: bool = True,
        assembled_by: Callable[[SidecarSettings], Server] = assemble,
        ports: Mapping[str, int] | None = None,
        platform: Path | None = None,
    ) -> Sidecar:
        """Run a sidecar with these settings; its ports are chosen here."""
        path, api, ports, records = await self.written(spiffe_id, settings, ports or {})
        server = assembled_by(load_sidecar(path, {}, platform))
        stop = asyncio.Event()
        running = asyncio.get_running_loop().create_task(server.run(stop))

        async def end() -> None:
            await server.cut()  # no test waits for its drain, except those about the drain
            stop.set()
            await asyncio.gather(running, return_exceptions=True)

        self._stack.push_async_callback(end)
        if wait:
            await until(lambda: server.ready.is_set() or running.done())
            assert not running.done(), running.exception()
        return Sidecar(server, running, stop, api=api, ports=ports, records=records, settings_path=path)

    async def call(
        self,
        port: int,
        context: ssl.SSLContext | None,
        target: str = "/draft",
        *,
        method: str = "POST",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        host: str | None = None,
    ) -> Answer:
        """Send one request on a new connection. ``host`` is by default the called address."""
        authority = host or f"127.0.0.1:{port}"
        lines = [f"{method} {target} HTTP/1.1", f"host: {authority}", f"content-length: {len(body)}"]
        lines += ["connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        raw = await self.exchange(port, context, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return parse(raw)

    async def until_ready(self, probe: int, *, without: str | None = None) -> None:
        """Wait until a process says on its probe's port that it is ready, or that only one thing is missing.

        A token service listens, and writes ``started``, before it has its identity: until then it refuses handshakes.
        """
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(ConnectionError):
                    answer = await self.call(probe, None, "/readyz", method="GET")
                    lacking = answer.body.decode().splitlines() if answer.status != 200 else []
                    if all(without is not None and line.startswith(without) for line in lacking):
                        return
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def kept(self, port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Kept]:
        """Open a connection for one request after another."""
        server_hostname = "sidecar" if context is not None else None
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=server_hostname
            )
        try:
            yield Kept(reader, writer)
        finally:
            writer.transport.abort()

    async def hears_nothing(self, port: int, context: ssl.SSLContext) -> bool:
        """Tell if a request gets no answer at all: in TLS 1.3 a client may be refused after its own last message."""
        try:
            return await self.exchange(port, context, b"GET /draft HTTP/1.1\r\nhost: a\r\n\r\n") == b""
        except (ssl.SSLError, ConnectionError):
            return True

    async def exchange(self, port: int, context: ssl.SSLContext | None, raw: bytes) -> bytes:
        """Send bytes on a new connection and read until the other end closes."""
        server_hostname = "sidecar" if context is not None else None
        async with asyncio.timeout(EXCHANGE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname=server_hostname
            )
            try:
                writer.write(raw)
                return await reader.read()
            finally:
                writer.close()


class Kept:
    """One connection of a caller's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, target: str = "/draft", *, headers: Sequence[tuple[str, str]] = (), host: str = "sidecar") -> None:
        lines = [f"GET {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def receive(self) -> Answer:
        """Return the next answer. Raises IncompleteReadError or ConnectionError if the other end closes instead."""
        async with asyncio.timeout(PATIENCE_S):
            answer = parse(await self.reader.readuntil(b"\r\n\r\n"))
            answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
            return answer

    async def ask(
        self, target: str = "/draft", *, headers: Sequence[tuple[str, str]] = (), host: str = "sidecar"
    ) -> Answer:
        self.send(target, headers=headers, host=host)
        return await self.receive()

    async def wait_for_end(self) -> bytes:
        """Return the bytes before the other end closes, in whatever way."""
        raw = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await self.reader.read(65536):
                    raw += data
        return raw


def parse(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split(" ")[1]) if first else 0, headers, body)


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@asynccontextmanager
async def open_world(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(folder, stack)
        world.agent.port = await world.listen(world.agent.serve)
        world.jwks_port = await world.listen(world.serve_keys)
        yield world


def calling(source: WorkloadApiSource, expected: SpiffeId) -> ssl.SSLContext:
    """Return TLS as the workload of ``source``, for exactly one other workload."""
    return client_context(source, expected=expected)


def loaded_from(path: Path, environ: Mapping[str, str] | None = None) -> Loaded[SidecarSettings]:
    """Load a sidecar's settings as a start does, but in this process."""
    files = SettingsFiles("sidecar", path)
    return Loaded(files.load(environ or {}), files, files.fingerprint())
