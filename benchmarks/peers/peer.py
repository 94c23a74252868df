"""A peer of the benchmark: its processes, and the roles it can play."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.world import World

INBOUND: Final = "inbound"  # mTLS in, plain HTTP to the agent
OUTBOUND: Final = "outbound"  # plain HTTP in, mTLS to the next hop
NARROW: Final = (
    "256-handshakes"  # as inbound, with at most `NARROW_HANDSHAKES` handshakes at once where there is a limit
)
NARROW_HANDSHAKES: Final = 256
HTTP2: Final = "http2"  # as inbound, but the caller speaks HTTP/2
HTTP2_OPEN: Final = "http2-open"  # the same in another process, so that its memory is not that of earlier connections
GRPC: Final = "grpc"  # as http2, and HTTP/2 without TLS to an agent that serves gRPC
AGENTS: Final = "agents"  # as inbound, with a route each for MCP, A2A and everything else
AGENTS_HTTP2: Final = "agents-http2"  # the same, but the caller speaks HTTP/2
CHAINS: Final = {"chain-1": 1, "chain-2": 2, "chain-3": 3}
"""From an entry over agents in the middle to a tool: so many hops, with a route for MCP in each."""
PAIR, TWO_HOPS, MESH = CHAINS
OVER_HTTP2: Final = frozenset({HTTP2, HTTP2_OPEN, GRPC, AGENTS_HTTP2})
ROUTES: Final = {"routes-10": 10, "routes-1000": 1000}  # an inbound side with this many routes

# Credential of a request in Authorization: a delegated token over mTLS, a handle from the outbound side, a user's
# login.
Credential = Literal["token", "handle", "login"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process: its command, and the names of the ports on which it must listen before measurements begin.

    ``ready`` is a URL that must answer with 200 first. ``proxy``: it runs on the core of the proxies.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    listens: tuple[str, ...] = ()
    ready: str | None = None
    proxy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Address of a peer in one role, and the processes whose CPU time counts.

    The CPU time of those in ``beside`` is reported, but is not in the figure.
    """

    port: str
    counted: tuple[str, ...]
    beside: tuple[str, ...] = ()
    prefix: str = ""
    mcp_prefix: str = ""  # before the path of MCP
    http2: bool = True  # False: HTTP/1.1 also in the scenarios of HTTP/2
    credential: Credential = "token"

    @property
    def mtls(self) -> bool:
        """True if callers come over mTLS, False if the caller is the agent beside it."""
        return self.port.endswith("-inbound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One proxy. ``missing`` is the reason why it cannot take part, None if it can; ``parts`` writes its settings."""

    name: str
    title: str
    roles: Mapping[str, Role]
    does_not: tuple[str, ...]
    missing: Callable[[], str | None]
    version: Callable[[], str]
    parts: Callable[[World, frozenset[str]], list[Part]]  # for the roles of the run
    judges: bool = False  # it refuses bad tokens, so it can take part in scenarios of refusals
    speaks_http: bool = True


def single(
    name: str,
    title: str,
    *,
    does_not: tuple[str, ...],
    missing: Callable[[], str | None],
    version: Callable[[], str],
    launch: Callable[[World], Part],
    over_http2: Mapping[str, Callable[[World, str], Part]] | None = None,
    also: tuple[str, ...] = (),
    judges: bool = False,
    speaks_http: bool = True,
) -> Peer:
    """Build a peer with an inbound side only, of one process. Its port is ``NAME-inbound``.

    ``also`` are more roles of that process. ``over_http2`` launches a process of its own for each role of HTTP/2, by
    its name ``NAME-ROLE``.
    """
    others = over_http2 or {}

    def parts(world: World, roles: frozenset[str]) -> list[Part]:
        more = [start(world, f"{name}-{role}") for role, start in others.items() if role in roles]
        return [launch(world), *more] if roles & {INBOUND, *also} else more

    return Peer(
        name=name,
        title=title,
        roles={
            **dict.fromkeys((INBOUND, *also), Role(port=f"{name}-inbound", counted=(name,))),
            **{role: Role(port=f"{name}-{role}-inbound", counted=(f"{name}-{role}",)) for role in others},
        },
        does_not=does_not,
        missing=missing,
        version=version,
        parts=parts,
        judges=judges,
        speaks_http=speaks_http,
    )


def first_line(command: Sequence[str]) -> str:
    """Return the first line of a program's version output; empty if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next((line.strip() for line in (done.stdout or done.stderr).splitlines() if line.strip()), "")
