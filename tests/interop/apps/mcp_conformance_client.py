"""A client of the official SDK that does what the conformance runner's scenarios for clients ask of it.

Arguments: where to call, or ``direct``; the port on which the sidecar of the tool server expects it; the URL of the
runner's server, which this program serves at that port. So one mesh stands before a new server for each scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from mcp.client.client import Client
from mcp_types import ElicitRequestFormParams, ElicitResult

ARGUMENTS: dict[str, dict[str, Any]] = {"add_numbers": {"a": 5, "b": 3}, "valid_tool": {"region": "eu"}}
NOT_TO_CALL = "invalid_"  # tools whose schema a client must not accept


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until their end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve_at(port: int, host: str, target: int) -> asyncio.Server:
    """Pass connections to a port on to the runner's server."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, target)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    return await asyncio.start_server(connect, "127.0.0.1", port)


async def answer(_context: object, params: Any) -> ElicitResult:
    """Answer a server's question by its defaults."""
    content = {}
    if isinstance(params, ElicitRequestFormParams):
        properties = params.requested_schema.get("properties", {})
        content = {name: one["default"] for name, one in properties.items() if "default" in one}
    return ElicitResult(action="accept", content=content)


async def calls_of(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that the scenario names, or one of each tool."""
    named = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}").get("toolCalls")
    listed = [tool.name for tool in (await client.list_tools()).tools]
    if named:
        return [(one["name"], one["arguments"]) for one in named]
    return [(name, ARGUMENTS.get(name, {})) for name in listed if not name.startswith(NOT_TO_CALL)]


async def main(where: str, port: str, url: str) -> None:
    parts = urlsplit(url)
    modern = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION") == "2026-07-28"
    server = await serve_at(int(port), parts.hostname or "", parts.port or 80)
    async with (
        server,
        Client(
            url if where == "direct" else where, mode="2026-07-28" if modern else "legacy", elicitation_callback=answer
        ) as client,
    ):
        for name, arguments in await calls_of(client):
            with contextlib.suppress(Exception):  # the runner judges what it has seen
                await client.call_tool(name, arguments)
        for ask in (client.list_resources, client.list_prompts):
            with contextlib.suppress(Exception):
                await ask()


asyncio.run(main(*sys.argv[1:]))
