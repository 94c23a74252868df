"""The middle of a mesh: planner → writer's sidecar → crm, with a token service that lies where a test asks for it.

The agent behind the writer's sidecar answers on demand: while it holds a request, the request's handle is alive, and
the test itself makes the agent's calls.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.tls import server_context
from tests.fakes.lying_sts import LyingSts, Server, serving
from tests.fakes.tokens import TokenMint
from tests.integration.world import (
    CRM,
    ISSUER,
    PATIENCE_S,
    PLANNER,
    WRITER,
    Agent,
    Answer,
    Sidecar,
    World,
    bearer,
    calling,
    mint,
    ok,
    open_world,
    until,
)

MAIL: Final = SpiffeId("spiffe://acme.example/tool/mail")

Headers = list[tuple[str, str]]


@dataclass
class Held:
    """A request held by the agent: its fields, and the answer to give."""

    head: bytes
    body: bytes
    answer: asyncio.Future[bytes] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def fields(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name: value for name, _, value in (line.partition(": ") for line in lines if line)}

    @property
    def handle(self) -> str:
        return self.fields["authorization"].removeprefix("Bearer ")

    @property
    def shown(self) -> Headers:
        """Return the headers of an agent that forwards its Authorization header."""
        return bearer(self.handle)


class HoldingAgent(Agent):
    """Keeps every request until the test answers it. Requests are identified by their ``x-number`` field."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, asyncio.Future[Held]] = {}
        self.script = self._hold

    def expect(self, number: str) -> asyncio.Future[Held]:
        return self.held.setdefault(number, asyncio.get_running_loop().create_future())

    def _hold(self, head: bytes, body: bytes) -> asyncio.Future[bytes]:
        held = Held(head, body)
        self.expect(held.fields["x-number"]).set_result(held)
        return held.answer


class Hops:
    """The writer's sidecar between a peer and a next hop. ``crm`` and ``mail`` record their requests."""

    def __init__(self, world: World, sts: Server, sts_stack: AsyncExitStack) -> None:
        self._sts_stack = sts_stack
        self.world = world
        self.sts = sts.sts
        self.sts_server = sts
        self.agent = HoldingAgent()
        self.crm = Agent()
        self.mail = Agent()
        self.ports: dict[str, int] = {}
        self.planner: ssl.SSLContext
        self.writer: Sidecar
        self._numbers = itertools.count()

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Return the writer's settings.

        ``route`` changes its inbound route, ``exchange`` and ``limits`` those sections.
        """
        settings = self.world.settings(
            outbound={
                "routes": [
                    self.route("crm", CRM, {"prefix": "/crm"}),
                    self.route("crm-by-host", CRM, {"host": "crm.mesh"}),
                    self.route("mail", MAIL, {"prefix": "/mail"}),
                ],
                "upstream_limits": changes.pop("limits", {}),
            },
            exchange={"issuer": ISSUER, "token_endpoint": self.sts_server.url, **changes.pop("exchange", {})},
        )
        route = settings["inbound"]["routes"][0]
        route |= {"may_call": ["crm", "crm-by-host"], **changes.pop("route", {})}
        return {**settings, **changes}

    def route(self, name: str, peer: SpiffeId, match: dict[str, str], port: int | None = None) -> dict[str, Any]:
        port = port or self.ports["crm" if peer == CRM else "mail"]
        scopes = ["crm.read"] if peer == CRM else ["docs.write"]
        upstream = f"https://127.0.0.1:{port}"
        return {
            "name": name, "match": match, "upstream": upstream, "peer": peer, "audience": peer, "scopes": scopes
        }  # fmt: skip

    async def start(self, **changes: Any) -> Sidecar:
        self.writer = await self.world.sidecar(WRITER, self.settings(**changes))
        return self.writer

    @asynccontextmanager
    async def serving(
        self,
        claims: Mapping[str, object] | None = None,
        *,
        token: str | None = None,
        sidecar: Sidecar | None = None,
        more: Sequence[tuple[str, str]] = (),
    ) -> AsyncIterator[Held]:
        """Send a request of the planner's that the agent holds until the block ends."""
        number = str(next(self._numbers))
        headers = [
            *bearer(token or mint(claims)),
            ("x-number", number),
            ("delegation-call", secrets.token_hex(16)),
            *more,
        ]
        port = (sidecar or self.writer).inbound
        call = asyncio.ensure_future(self.world.call(port, self.planner, headers=headers))
        held = await asyncio.wait_for(asyncio.shield(self.agent.expect(number)), PATIENCE_S)
        try:
            yield held
        finally:
            if not held.answer.done():
                held.answer.set_result(ok(b"done"))
            await call

    async def call(
        self, headers: Sequence[tuple[str, str]], target: str = "/crm/customers", *, method: str = "GET", **options: Any
    ) -> Answer:
        """Make a call of the agent's."""
        return await self.world.call(self.writer.outbound, None, target, method=method, headers=headers, **options)

    async def stop_sts(self) -> None:
        """Stop the token service for good."""
        await self._sts_stack.aclose()

    async def outbound_records(self, count: int) -> list[dict[str, Any]]:
        """Return the records of the agent's calls, once there are this many."""

        def found() -> list[dict[str, Any]]:
            return [record for record in self.writer.records() if record["direction"] == "outbound"]

        await until(lambda: len(found()) >= count)
        return found()


@asynccontextmanager
async def open_hops(folder: Path) -> AsyncIterator[Hops]:
    sts = LyingSts(clock=lambda: int(time.time()))
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(open_world(folder))
        world.keys["keys"].append(TokenMint().jwk)
        sts_stack = await stack.enter_async_context(AsyncExitStack())
        hops = Hops(world, await sts_stack.enter_async_context(serving(sts)), sts_stack)
        world.agent = hops.agent
        hops.agent.port = await world.listen(hops.agent.serve)
        for name, agent, spiffe_id in (("crm", hops.crm, CRM), ("mail", hops.mail, MAIL)):
            tls = server_context(await world.source(spiffe_id))
            hops.ports[name] = await world.listen(agent.serve, ssl=tls)
        hops.planner = calling(await world.source(PLANNER), WRITER)
        yield hops
