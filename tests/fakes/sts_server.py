"""A token service on real sockets, and clients with SVIDs that send exact bytes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson

from delegation_core.errors import Reason
from delegation_core.keyset import KeySet
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.identity.tls import client_context
from sidecar.sts.rate import RateSettings
from sidecar.sts.server import StsServer, StsSettings
from sidecar_dev.pki import TrustDomainAuthority
from tests.fakes.own_identity import OwnIdentity
from tests.fakes.sts import FORM, Mesh, encoded
from tests.fakes.tokens import TRUST_DOMAIN, WRITER

STS = SpiffeId("spiffe://acme.example/sts")


class StsIdentity(OwnIdentity):
    """The service's own identity, with the trust domain's JWT bundle."""

    def __init__(self, authority: TrustDomainAuthority, spiffe_id: SpiffeId | None) -> None:
        super().__init__(authority, spiffe_id)
        self.bundles: Mapping[TrustDomain, KeySet] = {}

    @property
    def jwt_bundles(self) -> Mapping[TrustDomain, KeySet]:
        return self.bundles


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def members(self) -> dict[str, Any]:
        members = orjson.loads(self.body)
        assert isinstance(members, dict)
        return members


@dataclass
class RunningSts:
    """The service, its authority, and its records."""

    mesh: Mesh
    authority: TrustDomainAuthority
    source: StsIdentity
    server: StsServer

    @property
    def refused(self) -> list[tuple[Reason, str | None]]:
        """The reason and source of each refused connection."""
        events = self.mesh.log.events
        return [(Reason(str(e["reason"])), e["source"]) for name, e in events if name == "connection.refused"]

    def client_tls(self, spiffe_id: SpiffeId = WRITER) -> ssl.SSLContext:
        return client_context(OwnIdentity(self.authority, spiffe_id), expected=STS)

    @asynccontextmanager
    async def connection(
        self, spiffe_id: SpiffeId = WRITER, *, tls: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        host, port = self.server.address
        reader, writer = await asyncio.open_connection(host, port, ssl=tls or self.client_tls(spiffe_id))
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()

    async def send(self, request: bytes, spiffe_id: SpiffeId = WRITER, *, tls: ssl.SSLContext | None = None) -> Answer:
        """Send one request on its own connection."""
        async with self.connection(spiffe_id, tls=tls) as (reader, writer):
            writer.write(request)
            return await read_answer(reader)

    async def get(self, target: str) -> Answer:
        return await self.send(f"GET {target} HTTP/1.1\r\nHost: sts\r\n\r\n".encode())

    async def probe(self, target: str) -> Answer:
        reader, writer = await asyncio.open_connection(*self.server.probe_address)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: probe\r\n\r\n".encode())
        answer = await read_answer(reader)
        writer.close()
        await writer.wait_closed()
        return answer


def token_request(form: Mapping[str, object] | bytes, *fields: str, target: str = "/token") -> bytes:
    """Return a request to the token endpoint; ``fields`` replace the lawful Content-Type."""
    body = form if isinstance(form, bytes) else encoded(form)
    head = [f"POST {target} HTTP/1.1", "Host: sts", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *(fields or (f"Content-Type: {FORM}",)), "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    async with asyncio.timeout(5):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        status_line, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))  # 304 has none
        return Answer(int(status_line.split(" ")[1]), headers, body)


@asynccontextmanager
async def running_sts(
    mesh: Mesh | None = None, *, introspection: RateSettings | None = None, **settings: Any
) -> AsyncIterator[RunningSts]:
    """Run a service on free ports of loopback, ready unless a test removes something."""
    mesh = mesh or Mesh(start=int(time.time()))
    authority = TrustDomainAuthority(TRUST_DOMAIN)
    source = StsIdentity(authority, STS)
    source.bundles = {TRUST_DOMAIN: mesh.svids.keys}
    running = RunningSts(mesh, authority, source, None)  # type: ignore[arg-type]
    running.server = StsServer(
        StsSettings(**{"port": 0, "probe_port": 0, **settings}),
        service=mesh.service,
        source=source,
        introspection=introspection,
    )
    await running.server.start()
    try:
        yield running
    finally:
        await running.server.stop()
