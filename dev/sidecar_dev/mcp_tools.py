"""Asks an MCP server for its tools: by version 2026-07-28, else in a session of 2025-11-25."""

from __future__ import annotations

from typing import Any, Final

from sidecar_dev.agent_client import SESSION_FIELD, call
from sidecar_dev.agent_server import Incoming
from sidecar_dev.json_rpc import request
from sidecar_dev.mcp_stand_in import request_of

_OLD: Final = "2025-11-25"
_ACCEPT: Final = {"accept": "application/json, text/event-stream"}
_NOBODY: Final = Incoming("POST", "/", {}, {})
_MOST: Final = 500  # tools that are listed; the rest stay nameless
_LONGEST: Final = 128


def list_tools(url: str) -> list[str] | None:
    """Return the names on the first page of the tool list, asked anonymously; None without a list, or on an error."""
    try:
        message, fields = request_of("sidecar-dev", "tools/list", {})
        return _names(call(url, "POST", _NOBODY, message, fields).body) or _names(_in_a_session(url))
    except (OSError, ValueError):
        return None


def _in_a_session(url: str) -> dict[str, Any]:
    hello = {"protocolVersion": _OLD, "capabilities": {}, "clientInfo": {"name": "sidecar-dev", "version": "0.1"}}
    welcome = call(url, "POST", _NOBODY, request("initialize", hello), _ACCEPT)
    fields = {**_ACCEPT, "mcp-protocol-version": _OLD}
    session = welcome.fields.get(SESSION_FIELD)
    if session is not None:
        fields["mcp-session-id"] = session
    call(url, "POST", _NOBODY, {"jsonrpc": "2.0", "method": "notifications/initialized"}, fields)
    found = call(url, "POST", _NOBODY, request("tools/list", {}), fields).body
    if session is not None:
        call(url, "DELETE", _NOBODY, None, fields)
    return found


def _names(answer: dict[str, Any]) -> list[str] | None:
    result = answer.get("result")
    tools = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(tools, list):
        return None
    names = {tool["name"] for tool in tools if isinstance(tool, dict) and _is_name(tool.get("name"))}
    return sorted(names)[:_MOST]


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _LONGEST and name.isprintable() and name == name.strip() != "*"


def calls(names: list[str]) -> list[str]:
    """Return the operations that call these tools."""
    return [f"tools/call:{name}" for name in names]
