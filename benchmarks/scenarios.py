"""The measurements: each scenario is a request, a kind of load, and the role of the peer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from benchmarks.peers.peer import (
    GRPC,
    HTTP2,
    HTTP2_OPEN,
    INBOUND,
    MESH,
    NARROW,
    NARROW_HANDSHAKES,
    OUTBOUND,
    PAIR,
    Peer,
)
from benchmarks.peers.sidecar_settings import GRPC_METHOD, MCP_PATH
from benchmarks.world import CALLER

# Disturbers beside the load: an attacking peer, or a flood that sends nothing, the start of a ClientHello, all of one,
# or HTTP in clear text.
Beside = Literal["", "hostile", "nothing", "hello begun", "hello", "clear text"]
# The figure of a scenario: CPU per request, MB/s, delay of events, or memory.
Measure = Literal["cpu", "throughput", "events", "memory", "slow", "rotation"]
BODY_BYTES: Final = 100_000_000
_GIVEN_UP_S: Final = 12.0  # the sidecar gives up a handshake after five to ten seconds: the flood is opened again
VARIES: Final = "@SIXTEEN_DIGITS@"
"""Replaced by 16 hex digits that no other request has."""
TRACE: Final = f"Traceparent: 00-{VARIES}{VARIES}-{VARIES}-01"


def _head(method: str, target: str, host: str, *more: str, accept: str = "application/json") -> str:
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: bench/1",
        f"Accept: {accept}",
        "Accept-Encoding: identity",
        "X-Request-Purpose: benchmark of one hop",
        "Authorization: Bearer @TOKEN@",
    ]
    return "\r\n".join([*lines, *filter(None, more), "", ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One kind of request in a mix, with its ``weight``.

    The agent answers after ``after_ms``, with 1 KB of JSON, or with events: ``events`` is their number and the
    milliseconds between two. The body is ``message``, or ``body`` zeros.
    """

    weight: int = 1
    method: str = "GET"
    path: str = "/search"
    field: str = ""
    message: str = ""
    body: int = 0
    after_ms: int = 0
    events: tuple[int, int] | None = None

    @property
    def lasts_s(self) -> float:
        """Seconds until the agent has answered."""
        count, gap_ms = self.events or (0, 0)
        return (self.after_ms + count * gap_ms) / 1000

    def at_once(self) -> Call:
        """Return the variant for the warm part of a plan: answered at once, with at most one event."""
        return replace(self, after_ms=0, events=None if self.events is None else (1, 1))

    def text(self, host: str, prefix: str = "") -> str:
        """Return the request, with placeholders for the token and for varying values."""
        path, accept = self.path, "application/json"
        if self.events is not None:
            path, accept = "/stream/{}/{}".format(*self.events), "text/event-stream"
        elif self.path == MCP_PATH:
            accept = "application/json, text/event-stream"
        length = self.body or len(self.message.replace(VARIES, "0" * 16))
        more = [self.field, f"X-Answer-After: {self.after_ms}" if self.after_ms else ""]
        if length:
            more += ["Content-Type: application/json", f"Content-Length: {length}"]
        return _head(self.method, prefix + path, host, *more, accept=accept) + self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One load on a proxy. ``connections``: concurrent ones. ``rate``: requests per second; 0: as many as possible.

    A ``token`` of a stranger is valid but names an actor other than the peer; a forged one has a wrong signature.
    """

    name: str
    title: str
    role: str = INBOUND
    method: str = "GET"
    path: str = "/search"
    field: str = ""  # one more line in the head
    body: int = 0
    connections: int = 32
    streams: int = 0  # of HTTP/2, at a time on each connection; 0: HTTP/1.1
    unended: bool = False  # the answers of the held streams begin and do not end
    rate: float = 0
    least_s: float = 0  # of the window, if it must be longer than asked for
    requests: int = 0
    fresh_connections: bool = False
    resumes: bool = False  # offers the session of an earlier connection
    leaves: int = 0  # certificates of the caller, one after the other, all for one key; 0: one
    fresh_tokens: bool = False
    expected: int = 200
    token: Literal["own", "stranger", "forged"] = "own"
    identity: str = CALLER
    measure: Measure = "cpu"
    only_judges: bool = False
    tokens: int = 0  # number of distinct ones; 0: the usual few
    chain: int = 1  # actors in each token
    handles: int = 0  # alive, besides the used ones
    beside: Beside = ""
    crowd: int = 0  # size of the flood; closed connections are opened again at once
    axis: str = ""  # the quantity that changes, for the scenarios of `growth` and `axes`
    amount: int = 0
    mix: tuple[Call, ...] = ()  # instead of method, path, field and body
    users: int = 0  # of a mix: each has a token that is known before the window
    cold: float = 0  # share of the calls of a mix that show a new token

    def suits(self, peer: Peer) -> bool:
        """Return True if the peer can play this scenario."""
        if self.measure == "rotation":
            return peer.name == "sidecar"  # the others do not watch files: they need a restart or a reload
        if peer.name == "direct" and not self.rate and self.measure != "events":
            return False
        if not peer.speaks_http and self.measure in {"events", "slow"}:
            return False
        return self.role in peer.roles and (peer.judges or not self.only_judges or peer.name == "haproxy")

    def expects(self, peer: Peer) -> int:
        """Return the expected status of every answer: 200 from a peer without checks."""
        return self.expected if peer.judges or self.expected < 400 else 200

    def head(self, host: str, prefix: str = "") -> str:
        """Return the request, with a placeholder for the token."""
        more = [self.field]
        if self.role == GRPC:
            more += ["Content-Type: application/grpc", "TE: trailers"]
        elif self.body:
            more += ["Content-Type: application/json", f"Content-Length: {self.body}"]
        return _head(self.method, prefix + self.path, host, *more)


def _varied() -> Iterator[Scenario]:
    """Return the loads ``inbound`` and ``outbound`` with requests as varied as those of agents."""
    load = Scenario(name="varied", title="as fast as answered, 32 connections, each request with")
    for name, what, change in (
        ("path", "a path of its own", {"path": f"/search/{VARIES}"}),
        ("query", "a query of its own", {"path": f"/search?q={VARIES}"}),
        ("field", "a value of its own in a field that is unknown to us", {"field": f"X-Conversation: {VARIES}"}),
        ("trace", "a trace of its own", {"field": TRACE}),
        ("500-tokens", "the next of 500 tokens", {"tokens": 500}),
        ("4000-tokens", "the next of 4,000 tokens", {"tokens": 4000}),
        ("all", "a path and a trace of its own, and the next of 500 tokens",
         {"path": f"/search/{VARIES}", "field": TRACE, "tokens": 500}),
    ):  # fmt: skip
        yield replace(load, name=f"varied-{name}", title=f"{load.title} {what}", **change)
    yield Scenario(
        name="varied-all-500",
        title="500 a second over 20 connections, each with a path and a trace of its own, and the next of 500 tokens",
        connections=20,
        rate=500,
        path=f"/search/{VARIES}",
        field=TRACE,
        tokens=500,
    )
    yield Scenario(
        name="varied-outbound-path",
        title="outbound over mTLS, 64 at once, each request with a path of its own",
        role=OUTBOUND,
        connections=64,
        path=f"/search/{VARIES}",
    )


def _over_http2() -> Iterator[Scenario]:
    """Return the scenarios whose callers speak HTTP/2. The agent speaks HTTP/1.1, except that of gRPC."""
    for count in (0, 100, 1000):
        title = (
            f"resident memory with {count:,} idle connections of HTTP/2" if count else "the same at rest, with HTTP/2"
        )
        yield Scenario(
            name=f"http2-memory-{count}", title=title, role=HTTP2, connections=count, streams=1, measure="memory"
        )
    for count in (1, 10):
        yield Scenario(
            name=f"http2-open-{count * 100}",
            title=f"resident memory with {count * 100:,} requests in progress, 100 on each connection of HTTP/2",
            role=HTTP2_OPEN,
            path="/unended",
            connections=count,
            streams=100,
            unended=True,
            measure="memory",
        )
    load = Scenario(
        name="http2",
        title="HTTP/2: GET 1 KB, 4 connections, 25 at once on each",
        role=HTTP2,
        connections=4,
        streams=25,
    )
    yield load
    yield replace(
        load, name="http2-single", title="HTTP/2: GET 1 KB, 32 connections, one at a time", connections=32, streams=1
    )
    yield replace(load, name="http2-500", title="HTTP/2: GET 1 KB, 500 a second over 4 connections", rate=500)
    title = f"{load.title}, with a path and a trace of its own, and the next of 500 tokens"
    yield replace(load, name="http2-varied", title=title, path=f"/search/{VARIES}", field=TRACE, tokens=500)
    title = "a new connection of HTTP/2 for each request, 32 at once"
    yield replace(load, name="http2-new-connection", title=title, connections=32, streams=1, fresh_connections=True)
    yield replace(
        load,
        name="grpc-unary",
        title="gRPC: unary calls, 32 bytes back, 4 connections, 25 at once on each",
        role=GRPC,
        method="POST",
        path=f"/{GRPC_METHOD}",
        body=5,  # the zeros of the load generator: an empty message behind its length
    )


def _beside_a_crowd() -> Iterator[Scenario]:
    """Return the same load beside 600 connections of each kind, on reused connections and on new ones."""
    crowds: dict[str, tuple[Beside, str]] = {
        "silent": ("nothing", "say nothing"),
        "hello-begun": ("hello begun", "stop inside a ClientHello"),
        "hello": ("hello", "stop after a ClientHello"),
        "clear-text": ("clear text", "send HTTP in clear text, again and again"),
    }
    for name, (beside, what) in crowds.items():
        load = Scenario(
            name=name,
            title=f"200 a second over 20 connections beside 600 that {what}",
            connections=20,
            rate=200,
            beside=beside,
            crowd=600,
        )
        yield load
        title = f"a new connection for each request, two at once, beside 600 that {what}"
        fresh = replace(load, name=f"{name}-new", title=title, fresh_connections=True, connections=2, rate=0)
        yield fresh
        if name == "silent":
            for one in (load, fresh):
                narrow = f"{one.title}, where {NARROW_HANDSHAKES} handshakes may run at once"
                name = one.name.replace("silent", "silent-narrow")
                yield replace(one, name=name, title=narrow, role=NARROW, least_s=_GIVEN_UP_S)


SCENARIOS: Final = (
    Scenario(name="memory-0", title="resident memory at rest", connections=0, measure="memory"),
    Scenario(name="memory-100", title="resident memory with 100 idle connections", connections=100, measure="memory"),
    Scenario(
        name="memory-1000", title="resident memory with 1,000 idle connections", connections=1000, measure="memory"
    ),
    Scenario(name="inbound", title="GET 1 KB, 32 connections, as fast as answered"),
    Scenario(name="inbound-500", title="GET 1 KB, 500 a second over 20 connections", connections=20, rate=500),
    Scenario(name="inbound-2000", title="GET 1 KB, 2,000 a second over 1,000 connections", connections=1000, rate=2000),
    Scenario(name="inbound-200", title="GET 1 KB, 200 a second over 20 connections", connections=20, rate=200),
    Scenario(
        name="hostile-200",
        title="the same beside a peer that does its worst: whose p99 doubles?",
        connections=20,
        rate=200,
        beside="hostile",
    ),
    *_varied(),
    *_over_http2(),
    *_beside_a_crowd(),
    Scenario(
        name="silent-3000",
        title="GET 1 KB, 200 a second over 20 connections beside 3,000 that say nothing",
        connections=20,
        rate=200,
        beside="nothing",
        crowd=3000,
    ),
    Scenario(name="busy", title="GET 1 KB, 1,000 connections, as fast as answered", connections=1000),
    Scenario(name="post", title="POST 512 B, as fast as answered", method="POST", body=512),
    Scenario(
        name="no-content",
        title="GET answered 204: a connection to the agent rests 50 ms",
        path="/no-content",
        expected=204,
    ),
    Scenario(
        name="not-modified",
        title="GET answered 304, as after HEAD: a connection to the agent for each",
        path="/not-modified",
        expected=304,
    ),
    Scenario(name="fresh-token", title="GET 1 KB, each request a new token", fresh_tokens=True),
    Scenario(
        name="forged", title="each request with a forged token: refused", token="forged", expected=401, only_judges=True
    ),
    Scenario(
        name="impersonation",
        title="each request with the token of another actor: refused",
        token="stranger",
        expected=403,
        only_judges=True,
    ),
    Scenario(
        name="outbound",
        title="outbound over mTLS, token at hand, 64 at once",
        role=OUTBOUND,
        connections=64,
    ),
    Scenario(name="outbound-500", title="outbound over mTLS, 500 a second", role=OUTBOUND, connections=20, rate=500),
    Scenario(name="new-connection", title="a new mTLS connection for each request", fresh_connections=True),
    Scenario(name="pair", title="two in a row: from agent to agent, 32 at once", role=PAIR),
    Scenario(name="pair-500", title="two in a row, 500 a second", role=PAIR, connections=20, rate=500),
    Scenario(name="mesh-warm", title="three hops, logins that are known", role=MESH, connections=8),
    Scenario(
        name="mesh",
        title="three hops, each request a new login: three exchanges",
        role=MESH,
        connections=8,
        fresh_tokens=True,
    ),
    Scenario(
        name="down-100mb",
        title="100 MB down",
        path=f"/bytes/{BODY_BYTES}",
        connections=1,
        requests=1,
        measure="throughput",
    ),
    Scenario(
        name="up-100mb",
        title="100 MB up",
        method="POST",
        body=BODY_BYTES,
        connections=1,
        requests=1,
        measure="throughput",
    ),
    Scenario(
        name="events",
        title="server-sent events every 5 ms: the delay they get",
        path="/events",
        connections=4,
        measure="events",
    ),
    Scenario(
        name="slow-reader",
        title="100 MB to a reader of 3 MB/s: the most memory",
        path=f"/bytes/{BODY_BYTES}",
        connections=4,
        measure="slow",
    ),
    Scenario(
        name="rotation",
        title="a new SVID every 2.5 s, a new connection for each request: none may fail",
        connections=4,
        rate=0,
        fresh_connections=True,
        measure="rotation",
    ),
)
