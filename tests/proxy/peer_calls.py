"""A peer's requests in memory: the real connection, journey and records of the inbound side; no sockets.

The peer is the planner, proven; the agent answers each request at once.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from delegation_core.inbound_routes import InboundRoutes
from delegation_core.policy import Policy
from sidecar.proxy.journeys.snapshot import Snapshot
from tests.core.world import NOW, POLICY, SEARCH
from tests.proxy.warm import ANSWER, Warm

OBSERVED_UNTIL = NOW + 86_400
OBSERVING = replace(SEARCH, observe_until=OBSERVED_UNTIL)


class PeerCalls:
    """One peer's connection to the sidecar, which observes its one route."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._records = folder / "records"
        self.warm = Warm(self._records, **options)
        self.warm.snapshots.in_force = lambda: self.warm.snapshots.now()
        self.policy = replace(POLICY, inbound=InboundRoutes([OBSERVING]))

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        policy: Policy = self.warm.snapshots.now().policy
        return policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        snapshot: Snapshot = replace(self.warm.snapshots.now(), policy=policy)
        self.warm.snapshots.now = lambda: snapshot

    @property
    def arrived(self) -> bytes:
        """The bytes that have reached the agent."""
        return self.warm.pool.transport.written

    def send(self, *fields: tuple[str, str], target: str = "/search") -> None:
        """Send one request, and let what passes go to the agent."""
        lines = "".join(
            f"{name}: {value}\r\n" for name, value in [("host", "writer"), ("content-length", "0"), *fields]
        )
        self.warm.connection.data_received(f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
        self.warm.pool.connections.writes.write_all()

    def call(self, *fields: tuple[str, str], target: str = "/search") -> tuple[int, str | None]:
        """Send one request; return the answer's status and reason."""
        warm = self.warm
        before, sent = len(warm.transport.written), len(self.arrived)
        self.send(*fields, target=target)
        if len(self.arrived) > sent:
            warm.pool.agent.data_received(ANSWER)
        warm.writes.write_all()
        head = warm.transport.written[before:].partition(b"\r\n\r\n")[0].decode("latin-1")
        status, *lines = head.split("\r\n")
        told = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]), told.get("delegation-reason")

    async def records(self) -> list[dict[str, Any]]:
        """Return every record; closes the log."""
        await self.warm.log.close()
        return [json.loads(line) for line in self._records.read_text().splitlines()]


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"
