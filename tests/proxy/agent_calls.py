"""An agent's calls in memory: the real connection, journey and records of the outbound side; no sockets, no crypto.

The next hop answers each call at once; the token service is a fake that records its requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from delegation_core.decide import accept_issued
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.keyset import VerificationKey
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Plan
from delegation_core.policy import Policy
from delegation_core.route import OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.exchange.cache import Issued
from sidecar.exchange.exchanges import Exchanges
from sidecar.exchange.federation.tokens import FederatedTokens
from sidecar.features import Features
from sidecar.observe.access_log import AccessLog, FileSink
from sidecar.observe.metrics import Metrics
from sidecar.proxy.journeys.forward import Forwarder
from sidecar.proxy.journeys.handles import Handles, ServedRequest
from sidecar.proxy.journeys.headers import FROM_NEXT_HOP
from sidecar.proxy.journeys.journey import Tasks
from sidecar.proxy.journeys.outbound import Outbound
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.proxy.journeys.watch import Watch
from sidecar.wire.connections import Connections
from sidecar.wire.dialer import Origin
from sidecar.wire.h1_server import ServerConnection
from sidecar.wire.limits import ServerLimits
from tests.core.world import (
    ENTRY_CLAIMS,
    ISSUED_CLAIMS,
    NOW,
    OWN_CLAIMS,
    POLICY,
    STS,
    Claims,
    delegation,
    signed,
    verification_key,
)
from tests.proxy.warm import OneConnection
from tests.wire.bench import RecordingTransport

OWN: Final = "127.0.0.1:7080"
Fields = list[tuple[str, str]]


class Keys:
    """Keys of both issuers. ``late`` ones are unknown until awaited, ``gone`` ones are never found."""

    def __init__(self) -> None:
        self.generation = 1
        self.late: set[str] = set()
        self.gone: set[str] = set()

    def generation_of(self, _issuer: str) -> int:
        return self.generation

    def find(self, _issuer: str, kid: str | None) -> VerificationKey | None:
        return None if kid != "k1" or {kid} & (self.late | self.gone) else verification_key()

    async def wait_for_key(self, _issuer: str, kid: str | None) -> VerificationKey:
        if kid in self.gone:
            raise Denied(Reason.UNKNOWN_KEY)
        return verification_key()


OWN_THUMBPRINT: Final = "A" * 43


class Tokens:
    """The token service: issues the planned token, or refuses by ``refusal``."""

    def __init__(self) -> None:
        self.asked: list[Plan] = []
        self.kept: Issued | None = None
        self.rejected: list[IssuedPermit] = []
        self.refusal: SidecarError | None = None
        self.shown = OWN_THUMBPRINT  # of the SVID that we show now
        self.binds = False  # tokens to that SVID
        self.meanwhile: Callable[[], None] = lambda: None  # happens while the call waits for its token

    def cached(self, _plan: Plan, *, policy: Policy, now: int) -> Issued | None:
        return self.kept

    async def exchange(self, plan: Plan, policy: Policy) -> Issued:
        self.asked.append(plan)
        self.meanwhile()
        if self.refusal is not None:
            raise self.refusal
        if plan.delegation is None:
            shown = {**OWN_CLAIMS, "scope": " ".join(sorted(plan.scope))}
        else:
            claims = ENTRY_CLAIMS if plan.delegation.entry else ISSUED_CLAIMS
            shown = {**claims, "parent_jti": plan.delegation.token.jti, "scope": " ".join(sorted(plan.scope))}
        if self.binds:
            shown["cnf"] = {"x5t#S256": self.shown}
        own = urlsafe_b64decode(self.shown + "=").hex()
        permit = accept_issued(
            signed(shown), plan=plan, key=verification_key(), policy=policy, now=NOW, own_certificate_sha256=own
        )
        return Issued(permit, usable_until=NOW + 200, refresh_at=NOW + 100)

    def usable(self, issued: Issued) -> bool:
        return issued.bound_to in {None, self.shown}

    def reject(self, permit: IssuedPermit) -> bool:
        self.rejected.append(permit)
        return True


class Awaited(Tasks):
    """Tasks that a test waits for."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[asyncio.Task[None]] = []

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = super().start(coroutine)
        self._started.append(task)
        return task

    async def done(self) -> None:
        while self._started:
            await self._started.pop()


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def reason(self) -> str | None:
        return self.headers.get("delegation-reason")


class AgentCalls:
    """One agent's connection to its sidecar."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._records = folder / "records"
        self.now = float(NOW)
        self.policy = POLICY
        self.bound_to: list[str | None] = []  # the SVID that each call's token is bound to
        self.keys: Any = Keys()
        self.tokens: Any = Tokens()
        self.exchanges = Exchanges({STS: cast("Any", self.tokens)})
        self.refused_by: SidecarError | None = None
        self.answer_of_next_hop = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.pool = OneConnection()
        self.log = AccessLog(FileSink(self._records), run="run", metrics=Metrics(), wall=lambda: self.now)
        self.withdrawn: SidecarError | None = None  # the authority of every request in progress
        self.handles = Handles(clock=lambda: self.now, monotonic=lambda: self.now, judge=self._judge)
        self._tasks = Awaited()
        snapshots: Any = SimpleNamespace(now=self._snapshot, in_force=self._snapshot)
        source: Any = SimpleNamespace(current=None, subscribe=lambda _: None)
        origins: Any = SimpleNamespace(
            of=self._origin,
            outside=lambda route: Origin(route.upstream.host, route.upstream.port, route.name),
            tunnel=lambda route: Origin(route.address[0], route.address[1], route.name),
        )
        federated = options.pop("federated", None)
        options.setdefault("federated", lambda: federated or FederatedTokens(source, lambda: self.now))
        features = Features(
            clock=lambda: self.now, monotonic=options.pop("monotonic", time.monotonic), session_key=bytes(32)
        )
        options.setdefault("features", features)
        self.watch = watch = Watch(snapshots, source, wall=lambda: self.now, monotonic=lambda: 0.0)
        self.outbound = Outbound(
            snapshots=snapshots,
            log=self.log,
            handles=self.handles,
            forwarder=Forwarder(self.pool, FROM_NEXT_HOP, watch, ServerLimits()),
            tasks=self._tasks,
            origins=origins,
            own_authorities=frozenset({OWN}),
            clock=lambda: self.now,
            **options,
        )
        self._connections: Connections[ServerConnection] = Connections(interval_s=3600)
        self.serve_by(self.outbound)

    def _origin(
        self, route: OutboundRoute, _workload: SpiffeId, bound_to: str | None = None, _call: object = None
    ) -> Origin:
        self.bound_to.append(bound_to)
        return Origin(route.upstream.host, 7443, route.name)

    def serve_by(self, handler: Any) -> None:
        """Open the agent's connection, served by ``handler``."""
        self._handler = handler
        self._open()

    def connect_again(self) -> None:
        """Open new connections of the agent's and to the next hop."""
        self.pool.open_again()
        self._open()

    def _open(self) -> None:
        self._transport = RecordingTransport()
        self._transport.settle = self._connections.writes.write_all
        self._connection = ServerConnection(self._handler, ServerLimits(), self._connections, proxy_form=True)
        self._connection.connection_made(self._transport)

    def _snapshot(self) -> Snapshot:
        if self.refused_by is not None:
            raise self.refused_by
        return Snapshot(policy=self.policy, keys=self.keys, exchanges=self.exchanges, agent=None)

    def _judge(self, _served: ServedRequest) -> None:
        if self.withdrawn is not None:
            raise self.withdrawn

    @property
    def left(self) -> bytes:
        """The bytes that have left for the next hop."""
        return self.pool.transport.written

    def handle(self, claims: Claims | None = None, *, max_calls: int | None = None, **changes: Any) -> str:
        """Return the handle of a request in progress."""
        shown = delegation(**changes) if claims is None else delegation(claims, **changes)
        return self.handles.open(ServedRequest(shown, max_calls=max_calls, linger_s=60.0, call_in="c1"))

    async def call(
        self, fields: Fields, *, method: str = "POST", target: str = "/tool", host: str = "crm.mesh"
    ) -> Answer:
        """Send one request without a body; return its answer."""
        return await self.send(b"", fields, method=method, target=target, host=host)

    async def send(self, body: bytes, fields: Fields, *, method: str, target: str, host: str) -> Answer:
        """Send one request; return its answer."""
        length = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in [("host", host), ("content-length", length), *fields])
        before, sent = len(self._transport.written), len(self.pool.transport.writes)
        self._connection.data_received(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        await self._tasks.done()
        self.pool.connections.writes.write_all()
        if len(self.pool.transport.writes) > sent:
            self.pool.agent.data_received(self.answer_of_next_hop)
        return self._read(self._transport.written[before:])

    def say(self, data: bytes) -> None:
        """Let the agent send bytes on its present connection."""
        self._connection.data_received(data)

    def finish(self) -> None:
        """Let the agent end its direction of the connection."""
        self._connection.eof_received()

    @property
    def arrived(self) -> bytes:
        """All bytes that have reached the agent, on its present connection."""
        self._connections.writes.write_all()
        return self._transport.written

    @property
    def cut(self) -> bool:
        """Tell if the agent's connection was closed."""
        return self._transport.is_closing()

    def _read(self, said: bytes) -> Answer:
        head, _, body = said.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if self._transport.is_closing() or headers.get("connection") == "close":
            self._open()
        return Answer(int(status.split()[1]), headers, body)

    async def records(self) -> list[dict[str, Any]]:
        """Return every record; closes the log."""
        await self.log.close()
        return [json.loads(line) for line in self._records.read_text().splitlines()]


def bearer(token: str) -> Fields:
    return [("authorization", f"Bearer {token}")]
