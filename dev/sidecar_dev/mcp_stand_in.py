"""MCP 2026-07-28 over Streamable HTTP: the subset for a tool server and its caller. Standard library only.

Requests need no session: each has version and client in ``_meta``, and again in header fields, which a server compares
with the message. A result is one JSON object, without streaming.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar_dev.agent_server import Incoming, Outgoing
from sidecar_dev.json_rpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
    ask,
    error_of,
    request,
    require_request,
    result_of,
)

VERSION: Final = "2026-07-28"
_KEY: Final = "io.modelcontextprotocol/"
_SOFTWARE: Final = "0.1"  # of the stand-ins
_HEADER_MISMATCH: Final = -32020
_UNSUPPORTED_VERSION: Final = -32022
_FRESH_MS: Final = 60_000
_ENCODED: Final = ("=?base64?", "?=")


@dataclass(frozen=True)
class Tool:
    """A tool: ``run`` takes the arguments and returns the result's members, or raises ValueError for bad ones."""

    description: str
    properties: Mapping[str, str]  # each a text, all required: its name and its description
    run: Callable[[Mapping[str, Any]], dict[str, Any]]


# --- the caller


def tool_request(client: str, name: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Make the message that calls a tool, and the header fields that repeat it."""
    message, fields = request_of(client, "tools/call", {"name": name, "arguments": dict(arguments)})
    return message, {**fields, "mcp-name": _encode(name)}


def request_of(client: str, method: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Make a message, and the header fields that every one needs."""
    meta = {
        f"{_KEY}protocolVersion": VERSION,
        f"{_KEY}clientInfo": {"name": client, "version": _SOFTWARE},
        f"{_KEY}clientCapabilities": {},
    }
    return request(method, {**params, "_meta": meta}), {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
    }


def call_tool(url: str, client: str, name: str, arguments: Mapping[str, Any], incoming: Incoming) -> dict[str, Any]:
    """Call a tool and return its structured result.

    Raises:
        RpcError: the call was refused, or the tool failed.
    """
    message, fields = tool_request(client, name, arguments)
    result = ask(url, message, incoming, fields)
    if result.get("resultType", "complete") != "complete" or result.get("isError"):
        raise RpcError(INVALID_PARAMS, f"the tool {name} failed", result.get("content"))
    structured = result.get("structuredContent")
    return structured if isinstance(structured, dict) else {}


# --- the server


def serve_tools(server: str, tools: Mapping[str, Tool], incoming: Incoming) -> Outgoing:
    """Answer one request to the MCP endpoint."""
    if incoming.method != "POST":
        return Outgoing(405, empty=True, fields={"Allow": "POST"})
    if "origin" in incoming.headers:
        return Outgoing(403, empty=True)  # a browser's page: this server is for agents
    message_id = incoming.body.get("id")
    try:
        method, params = require_request(incoming.body)
        if message_id is None:
            return Outgoing(202 if method.startswith("notifications/") else 400, empty=True)
        _require_version(incoming.headers, method, params)
        result = _METHODS.get(method, _unknown)(tools, params)
    except RpcError as error:
        return error_of(message_id, error)
    about = {f"{_KEY}serverInfo": {"name": server, "version": _SOFTWARE}}
    return result_of(message_id, {"resultType": "complete", "_meta": about, **result})


def _require_version(headers: Mapping[str, str], method: str, params: Mapping[str, Any]) -> None:
    meta = params.get("_meta")
    version = meta.get(f"{_KEY}protocolVersion") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(version, str) or f"{_KEY}clientCapabilities" not in meta:
        raise RpcError(INVALID_PARAMS, "_meta lacks a required member", status=400)
    stated = {"mcp-protocol-version": version, "mcp-method": method}
    if method == "tools/call":
        stated["mcp-name"] = str(params.get("name"))
    for field, value in stated.items():
        if _decode(headers.get(field, "")) != value:
            raise RpcError(_HEADER_MISMATCH, f"{field} does not say what the message says", status=400)
    if version != VERSION:
        data = {"supported": [VERSION], "requested": version}
        raise RpcError(_UNSUPPORTED_VERSION, "Unsupported protocol version", data, status=400)


def _unknown(_tools: Mapping[str, Tool], _params: Mapping[str, Any]) -> dict[str, Any]:
    raise RpcError(METHOD_NOT_FOUND, "Method not found", status=404)


def _discover(_tools: Mapping[str, Tool], _params: Mapping[str, Any]) -> dict[str, Any]:
    found = {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
    return {**found, "ttlMs": _FRESH_MS, "cacheScope": "public"}


def _list(tools: Mapping[str, Tool], _params: Mapping[str, Any]) -> dict[str, Any]:
    listed = [
        {
            "name": name,
            "description": tool.description,
            "inputSchema": {
                "type": "object",
                "properties": {key: {"type": "string", "description": text} for key, text in tool.properties.items()},
                "required": list(tool.properties),
                "additionalProperties": False,
            },
        }
        for name, tool in tools.items()
    ]
    return {"tools": listed, "ttlMs": _FRESH_MS, "cacheScope": "public"}


def _call(tools: Mapping[str, Tool], params: Mapping[str, Any]) -> dict[str, Any]:
    tool, arguments = tools.get(str(params.get("name"))), params.get("arguments", {})
    if tool is None:
        raise RpcError(INVALID_PARAMS, "Unknown tool")
    try:
        if not isinstance(arguments, dict) or arguments.keys() != tool.properties.keys():
            raise ValueError("the arguments are not those of the tool")  # noqa: TRY301
        found = tool.run(arguments)
    except ValueError as error:
        return {"content": [{"type": "text", "text": str(error)}], "isError": True}
    content = [{"type": "text", "text": json.dumps(found)}]
    return {"content": content, "structuredContent": found, "isError": False}


_METHODS: Final[Mapping[str, Callable[[Mapping[str, Tool], Mapping[str, Any]], dict[str, Any]]]] = {
    "server/discover": _discover,
    "tools/list": _list,
    "tools/call": _call,
}


def _encode(value: str) -> str:
    """Encode a name as a header field: unchanged, or in base64 if a field cannot carry it."""
    begin, end = _ENCODED
    plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith(begin)
    return value if plain else f"{begin}{base64.b64encode(value.encode()).decode()}{end}"


def _decode(value: str) -> str | None:
    begin, end = _ENCODED
    if not (value.startswith(begin) and value.endswith(end)):
        return value
    try:
        return base64.b64decode(value[len(begin) : -len(end)], validate=True).decode()
    except ValueError:
        return None
