"""What is measured: each scenario is a request, a way to load, and the peers that it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.peers.peer import INBOUND, Peer
from benchmarks.world import CALLER, SERVER_NAME

Measure = Literal["cpu"]

REUSED_TOKENS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way to use a proxy. ``connections`` at once; ``rate`` 0 is as fast as they are answered."""

    name: str
    title: str
    role: str = INBOUND
    method: str = "GET"
    path: str = "/search"
    body: int = 0
    connections: int = 32
    rate: float = 0
    fresh_connections: bool = False
    fresh_tokens: bool = False
    expected: int = 200
    token: Literal["own", "stranger", "none"] = "own"
    identity: str = CALLER
    measure: Measure = "cpu"
    options: tuple[str, ...] = field(default=())

    def suits(self, peer: Peer) -> bool:
        """Whether the peer can be asked this."""
        return self.role in peer.roles

    def head(self) -> str:
        """The request, with a place for the token."""
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            f"Host: {SERVER_NAME}",
            "User-Agent: bench/1",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "X-Request-Purpose: benchmark of one hop",
        ]
        if self.token != "none":
            lines.append("Authorization: Bearer @TOKEN@")
        if self.body:
            lines += ["Content-Type: application/json", f"Content-Length: {self.body}"]
        return "\r\n".join([*lines, "", ""])


SCENARIOS: Final = (
    Scenario(name="inbound", title="GET 1 KB, 32 connections, as fast as answered"),
    Scenario(name="inbound-500", title="GET 1 KB, 500 a second over 20 connections", connections=20, rate=500),
)
