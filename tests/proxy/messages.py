"""Messages of MCP and A2A, as they come to the sidecars of ``engines.py``: from a peer, and from the agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.fuzz.inbound_world import token
from tests.proxy.engines import HANDLE

STATELESS: Final = "2026-07-28"
WITH_SESSIONS: Final = "2025-06-18"
_VERSION: Final = "io.modelcontextprotocol/protocolVersion"


def to_tools(message: bytes, *fields: str) -> bytes:
    """Return the agent's request to a tool server."""
    return _request("http://tools.mesh/mcp", "tools.mesh", HANDLE, message, fields)


def to_agent(message: bytes, *fields: str, path: str = "/rpc") -> bytes:
    """Return the agent's request to another agent."""
    return _request(f"http://agent.mesh{path}", "agent.mesh", HANDLE, message, fields)


def from_peer(path: str, message: bytes, *fields: str) -> bytes:
    """Return a peer's request to the agent."""
    return _request(path, "writer:7443", token().decode(), message, fields)


def _request(target: str, host: str, shown: str, message: bytes, fields: tuple[str, ...]) -> bytes:
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: agent/1",
        "Accept: application/json, text/event-stream",
        "Accept-Encoding: gzip, deflate",
        "Content-Type: application/json",
        *fields,
        f"Authorization: Bearer {shown}",
        f"Content-Length: {len(message)}",
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + message


def mcp(method: str, params: Mapping[str, Any], *, name: str = "", number: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """Return a message of MCP 2026-07-28, and the fields that go with it."""
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": {_VERSION: STATELESS}}}
    fields = [f"MCP-Protocol-Version: {STATELESS}", f"Mcp-Method: {method}", *([f"Mcp-Name: {name}"] if name else [])]
    return json.dumps(body).encode(), tuple(fields)


def tool(name: str = "search", number: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """Return a call of a tool, by MCP 2026-07-28, and the fields that go with it."""
    return mcp("tools/call", {"name": name, "arguments": {"query": "dogs"}}, name=name, number=number)


def old_tool(name: str = "search", number: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """Return a call of a tool, by MCP 2025-06-18, and the field that goes with it."""
    params = {"name": name, "arguments": {"query": "dogs"}}
    body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return json.dumps(body).encode(), (f"MCP-Protocol-Version: {WITH_SESSIONS}",)


def a2a(method: str, params: Mapping[str, Any], number: int = 1) -> tuple[bytes, tuple[str, ...]]:
    """Return a message of A2A 1.0 by JSON-RPC, and the field that goes with it."""
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return json.dumps(body).encode(), ("A2A-Version: 1.0",)


def say(number: int = 1, **of_message: Any) -> tuple[bytes, tuple[str, ...]]:
    """Return a message to an agent."""
    message = {"messageId": f"m{number}", "role": "ROLE_USER", "parts": [{"text": "hello"}], **of_message}
    return a2a("SendMessage", {"message": message}, number)


def answer(result: Mapping[str, Any], *fields: str, status: str = "200 OK", number: int = 1) -> bytes:
    """Return an answer in JSON."""
    body = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


FOUND: Final = answer({"content": [{"type": "text", "text": "a dog"}]})
TASK: Final = answer({"task": {"id": "t1", "contextId": "c1", "status": {"state": "TASK_STATE_WORKING"}}})
EVENTS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'2e\r\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\r\n\r\n\r\n0\r\n\r\n'
)
