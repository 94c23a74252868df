"""Load as agents make it, along one axis at a time: the agents' day, answer times, streams, cold tokens, messages.

An open loop: each call is sent at its scheduled time, even if earlier calls are unanswered. Latency counts from that
time, without the delay that the agent was told to add.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from benchmarks.peers.peer import AGENTS, AGENTS_HTTP2, TWO_HOPS
from benchmarks.peers.sidecar_settings import TOOL_NAME
from benchmarks.scenarios import SCENARIOS, TRACE, VARIES, Call, Scenario

USERS: Final = 200
TOKEN_LIFE_S: Final = 300
_MCP: Final = "2026-07-28"
_SIZES: Final = tuple(1024 << power for power in range(7))  # 1 to 64 KiB
_ANSWER_MS: Final = 50  # unless the answer time is the axis


def _message(method: str, params: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, separators=(",", ":"))


_TOOL: Final = {"name": TOOL_NAME, "arguments": {"query": VARIES, "limit": 10}}
_META: Final = {"_meta": {"io.modelcontextprotocol/protocolVersion": _MCP}}
_TEXT: Final = {"messageId": VARIES, "role": "ROLE_USER", "parts": [{"text": f"find {VARIES}"}]}
GET: Final = Call(path=f"/search/{VARIES}", field=TRACE)
MCP: Final = Call(
    method="POST",
    path="/mcp",
    field=f"MCP-Protocol-Version: {_MCP}\r\nMcp-Method: tools/call\r\nMcp-Name: {TOOL_NAME}",
    message=_message("tools/call", {**_TOOL, **_META}),
)
A2A: Final = Call(
    method="POST", path="/a2a", field="A2A-Version: 1.0", message=_message("SendMessage", {"message": _TEXT})
)
PLAIN: Final = Call(method="POST", message=_message("search", _TOOL))
DAY: Final = (
    replace(MCP, weight=49, after_ms=_ANSWER_MS),
    replace(GET, weight=14, after_ms=_ANSWER_MS, events=(20, 50)),
    *(Call(weight=1, method="POST", after_ms=_ANSWER_MS, body=size) for size in _SIZES),
)
"""In 70 calls: 49 of MCP, 14 streams, and one POST of each size."""
_TAIL: Final = ((60, 20), (30, 200), (9, 1000), (1, 5000))  # of 100 calls, and their answer times in ms


def _row(axis: str, name: str, title: str, *mix: Call, rate: float, slots: int, **how: Any) -> Scenario:
    """Return a row. ``slots``: calls that may be in flight at once."""
    known = {"role": AGENTS, "users": USERS, **how}
    if known["role"] == AGENTS_HTTP2:
        known |= {"streams": 25}
        slots = -(-slots // 25)
    return Scenario(axis=axis, name=name, title=title, mix=mix, rate=rate, connections=slots, **known)


def _day() -> Iterator[Scenario]:
    what = "the agents' day (70 % MCP, 20 % streams, 10 % POST; 200 users, tokens of five minutes)"
    for rate in (50, 300):
        renewed = USERS / TOKEN_LIFE_S / rate
        how: dict[str, Any] = {"rate": rate, "slots": max(40, rate)}
        title = f"{what}, {rate} a second"
        hops = {**how, "role": TWO_HOPS}
        yield _row("day", f"day-{rate}", f"{title}, two hops", *DAY, cold=renewed, **hops)
        yield _row("day", f"day-{rate}-cold", f"{title}, two hops, 10 % new logins", *DAY, cold=0.1, **hops)
        yield _row("day", f"day-{rate}-hop", f"{title}, one hop", *DAY, cold=renewed, **how)
    yield _row("day", "day-300-http2", f"{title}, one hop, HTTP/2", *DAY, role=AGENTS_HTTP2, cold=renewed, **how)


def _slow() -> Iterator[Scenario]:
    for after_ms in (0, 50, 500, 5000):
        mix, slots = replace(GET, after_ms=after_ms), 40 + after_ms * 13 // 100
        title = f"GET 1 KB, 100 a second, answered after {after_ms:,} ms"
        yield _row("slow", f"slow-{after_ms}", title, mix, rate=100, slots=slots)
    tail = [replace(GET, weight=weight, after_ms=after_ms) for weight, after_ms in _TAIL]
    title = "the same after 20 ms (60 %), 200 ms (30 %), 1 s (9 %), 5 s (1 %)"
    yield _row("slow", "slow-tail", title, *tail, rate=100, slots=80)


def _streams() -> Iterator[Scenario]:
    for per_second, length_s in ((10, 1), (100, 1), (10, 5)):
        stream = replace(GET, events=(per_second * length_s, 1000 // per_second))
        title = f"20 streams a second, each of {per_second} events a second for {length_s} s"
        yield _row("streams", f"streams-{per_second}-{length_s}s", title, stream, rate=20, slots=20 + 24 * length_s)


def _cold() -> Iterator[Scenario]:
    for percent in (1, 10, 100):
        title = f"GET 1 KB, 100 a second, {percent} % with a new token"
        yield _row("cold", f"cold-{percent}", title, GET, rate=100, slots=40, cold=percent / 100)
    for percent in (0, 100):
        title = f"GET 1 KB, 50 a second, two hops, {percent} % with a new login: two exchanges"
        name = f"cold-exchange-{percent}"
        yield _row("cold", name, title, GET, rate=50, slots=40, role=TWO_HOPS, cold=percent / 100)


def _messages() -> Iterator[Scenario]:
    how: dict[str, Any] = {"rate": 300, "slots": 50}
    calls = {"plain": ("plain JSON", PLAIN), "mcp": ("MCP tools/call", MCP), "a2a": ("A2A SendMessage", A2A)}
    for name, (what, call) in calls.items():
        yield _row("messages", f"messages-{name}", f"{what}, 300 a second, answered at once", call, **how)
    title = "HTTP/2: MCP tools/call, 300 a second, answered at once"
    yield _row("messages", "messages-mcp-http2", title, MCP, role=AGENTS_HTTP2, **how)


AXES: Final = (*_day(), *_slow(), *_streams(), *_cold(), *_messages())
ALL: Final = (*SCENARIOS, *AXES)
COMPARED: Final = frozenset(
    ["day-50", "day-300", "day-300-hop", "slow-50", "streams-10-1s", "cold-exchange-100", "messages-mcp"]
)
"""Rows that two versions are compared by, unless others are named."""
