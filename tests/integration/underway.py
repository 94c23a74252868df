"""Forwardings of every kind in flight at once, through one sidecar, inbound and outbound, played byte by byte.

Two groups of callers share only the sidecar: ``helper`` (partner.example, for alice, by key k0, on route ``helpers``,
calling ``crm``) and ``planner`` (acme.example, for bob, by key k2, on route ``planners``, calling ``mail``). Events of
one group must not affect the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.tls import server_context
from tests.fakes.tokens import private_key, public_jwk
from tests.integration.hops import MAIL, Hops, open_hops
from tests.integration.test_endings import ByHand
from tests.integration.world import (
    CRM,
    PATIENCE_S,
    PLANNER,
    WRITER,
    Kept,
    Record,
    Sidecar,
    bearer,
    calling,
    mint,
    until,
)

HELPER: Final = SpiffeId("spiffe://partner.example/agent/helper")
Change = Callable[[dict[str, Any]], None]

KINDS: Final = ("upload", "answer", "post answered by events", "events", "websocket")
GROUPS: Final = {"helper": (HELPER, "alice", 0, "crm"), "planner": (PLANNER, "bob", 2, "mail")}

_EVENTS: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ANSWERS: Final = {
    "answer": b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
    "post answered by events": _EVENTS,
    "events": _EVENTS,
    "websocket": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
}
_HANDSHAKE: Final = (
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@dataclass
class Forwarded:
    """One forwarding: its caller, and the end behind the sidecar."""

    kind: str
    caller: Kept
    heard: asyncio.StreamReader
    behind: asyncio.StreamWriter

    async def pass_on(self, word: bytes) -> None:
        """Pass one piece through, in the direction of its kind."""
        async with asyncio.timeout(PATIENCE_S):
            if self.kind == "upload":
                self.caller.writer.write(b"%x\r\n%b\r\n" % (len(word), word))
                await self.heard.readuntil(word)
                return
            if self.kind == "websocket":
                self.behind.write(bytes([0x81, len(word)]) + word)
            else:
                self.behind.write(b"%x\r\n%b\r\n" % (len(word), word))
            await self.caller.reader.readuntil(word)

    async def ended(self) -> bytes:
        """Wait for the end at both ends; return the caller's last bytes. Only events by GET end well-formed."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while await self.heard.read(65536):
                    pass
        if self.kind == "events":
            async with asyncio.timeout(PATIENCE_S):
                return await self.caller.reader.readuntil(b"0\r\n\r\n")
        last = await self.caller.wait_for_end()
        assert self.kind != "post answered by events" or not last.endswith(b"0\r\n\r\n")
        return last


@dataclass
class Underway:
    """The sidecar and everything in flight. ``forwarded`` by direction and group."""

    hops: Hops
    far: dict[str, ByHand]
    stack: AsyncExitStack
    handles: dict[str, str] = field(default_factory=dict)
    held: dict[str, Forwarded] = field(default_factory=dict)
    forwarded: dict[tuple[str, str], list[Forwarded]] = field(default_factory=dict)
    callers: dict[str, Any] = field(default_factory=dict)

    @property
    def sidecar(self) -> Sidecar:
        return self.hops.writer

    async def begin(self, direction: str, group: str, kinds: tuple[str, ...] = KINDS, **claims: object) -> None:
        """Open one forwarding of each kind, each with a word passed."""
        made = self.forwarded.setdefault((direction, group), [])
        for kind in kinds:
            if direction == "inbound":
                one = await self._inbound(group, kind, **claims)
            else:
                one = await self._outbound(group, kind)
            made.append(one)
            await one.pass_on(b"begun")

    async def hold(self, group: str, **claims: object) -> None:
        """Send a request that the agent holds without an answer, so that its handle is alive."""
        one = await self._inbound(group, "held", **claims)
        self.held[group] = one

    async def _inbound(self, group: str, kind: str, **claims: object) -> Forwarded:
        peer, subject, key, _ = GROUPS[group]
        made = {"act": {"sub": peer}, "sub": subject, "jti": f"of-{group}", **claims}
        shown = bearer(mint(made, {"kid": f"k{key}"}, key=key))[0][1]
        caller = await self.stack.enter_async_context(self.hops.world.kept(self.sidecar.inbound, self.callers[group]))
        return await self._open(kind, caller, self.far["agent"], f"/{group}s/x", "a", shown, group)

    async def _outbound(self, group: str, kind: str) -> Forwarded:
        target = GROUPS[group][3]
        caller = await self.stack.enter_async_context(self.hops.world.kept(self.sidecar.outbound))
        host = f"{target}.mesh"
        return await self._open(kind, caller, self.far[target], f"http://{host}/x", host, self.handles[group], group)

    async def _open(
        self, kind: str, caller: Kept, far: ByHand, target: str, host: str, authorization: str, group: str
    ) -> Forwarded:
        method = "POST" if kind in ("upload", "post answered by events") else "GET"
        lines = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: {authorization}\r\n".encode()
        framing = {"upload": b"transfer-encoding: chunked\r\n", "websocket": _HANDSHAKE}.get(kind, b"")
        caller.writer.write(lines + framing + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            heard, behind = await far.connections.get()
            head = await heard.readuntil(b"\r\n\r\n")
        if kind == "held":
            fields = (line.partition(b": ") for line in head.split(b"\r\n"))
            self.handles[group] = next(value.decode() for name, _, value in fields if name == b"authorization")
        elif kind != "upload":
            behind.write(_ANSWERS[kind])
        return Forwarded(kind, caller, heard, behind)

    def lingers(self, group: str) -> bool:
        """Wait until the handle's request has ended while the handle lives."""
        handle = self.handles[group].removeprefix("Bearer ")
        return self.sidecar.server.parts.handles.resolve(handle).ended_at is not None

    async def call(self, group: str) -> tuple[int, str | None]:
        """Make one more call with the group's handle; return status and reason. The next hop answers at once."""
        target = GROUPS[group][3]
        host = f"{target}.mesh"
        async with self.hops.world.kept(self.sidecar.outbound) as caller:
            caller.send(f"http://{host}/x", headers=[("authorization", self.handles[group])], host=host)
            answered = asyncio.ensure_future(caller.receive())
            asked = asyncio.ensure_future(self.far[target].connections.get())
            await asyncio.wait((answered, asked), return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                heard, behind = asked.result()
                await heard.readuntil(b"\r\n\r\n")
                behind.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            asked.cancel()
            answer = await answered
            return answer.status, answer.reason

    async def go_on(self, direction: str, group: str) -> None:
        """Check that every one of them is alive."""
        for one in self.forwarded[direction, group]:
            await one.pass_on(b"still")

    async def look(self) -> None:
        """Run the watch's next tick."""
        list(self.sidecar.server.parts.watch.steps(99))

    async def ended(self, direction: str, group: str, reason: str) -> None:
        """Check that every one of them has ended, by a decision that its record tells beside the permit."""
        for one in self.forwarded[direction, group]:
            await one.ended()
        peer, subject, _, _ = GROUPS[group]

        def of_group(record: Record) -> bool:
            of_peer = record["peer"] == peer or direction == "outbound"
            return bool(record["direction"] == direction and record["subject"] == subject and of_peer)

        wanted = len(self.forwarded[direction, group]) + (direction == "inbound" and group in self.held)
        await until(lambda: len(list(filter(of_group, self.sidecar.records()))) >= wanted)
        found = [record for record in self.sidecar.records() if of_group(record)]
        assert [(record["decision"], record["reason"]) for record in found] == [("deny", reason)] * wanted
        assert all(record["decide_ms"] is not None for record in found)


def published(key: int, kid: str) -> dict[str, object]:
    return public_jwk(private_key("ES256", key), kid=kid, use="sig", alg="ES256")


def settings(hops: Hops) -> dict[str, Any]:
    made = hops.settings()
    made["issuers"][0]["actor_trust_domains"].append("partner.example")
    made["issuers"][0]["scopes"].append("mail.send")
    made["issuers"][0]["refresh_s"] = 1
    inbound = {
        "scopes": ["docs.write"],
        "may_call": ["crm", "mail"],
        "max_calls": 1000,
    }
    made["inbound"]["routes"] = [
        {
            "name": f"{group}s",
            "match": {"path_prefix": f"/{group}s", "methods": ["GET", "POST"]},
            "peers": [str(peer)],
            **inbound,
        }
        for group, (peer, _, _, _) in GROUPS.items()
    ]
    made["outbound"]["routes"] = [
        hops.route("crm", CRM, {"host": "crm.mesh"}),
        hops.route("mail", MAIL, {"host": "mail.mesh"}),
    ]
    return made


@asynccontextmanager
async def open_underway(folder: Path, change: Change = lambda _document: None) -> AsyncIterator[Underway]:
    async with open_hops(folder) as hops, AsyncExitStack() as stack:
        world = hops.world
        world.keys["keys"].append(published(2, "k2"))
        far = {"agent": ByHand(), "crm": ByHand(), "mail": ByHand()}
        hops.agent.port = await world.listen(far["agent"].serve)
        for name, spiffe_id in (("crm", CRM), ("mail", MAIL)):
            tls = server_context(await world.source(spiffe_id))
            hops.ports[name] = await world.listen(far[name].serve, ssl=tls)
        made = settings(hops)
        change(made)
        hops.writer = await world.sidecar(WRITER, made)
        underway = Underway(hops, far, stack)
        underway.callers["helper"] = calling(await world.source(HELPER), WRITER)
        underway.callers["planner"] = calling(await world.source(PLANNER), WRITER)
        try:
            yield underway
        finally:
            for one in far.values():
                for writer in one.taken:
                    writer.transport.abort()
