"""Shows how a server looks to a user of the official MCP client. Arguments: a scenario, a URL, a mode of the client."""

# ruff: noqa: T201
from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import anyio
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError


async def tools(client: Client) -> dict[str, Any]:
    """List tools, call two of them; the second is one that policy may refuse."""
    listed = [tool.name for tool in (await client.list_tools()).tools]
    text = (await client.call_tool("test_simple_text", {})).content[0].text
    try:
        refused: Any = (await client.call_tool("delete_everything", {})).content[0].text
    except MCPError as error:
        refused = {"message": error.error.message, "data": error.error.data}
    return {"listed": sorted(listed), "text": text, "refused": refused}


async def streams(client: Client) -> dict[str, Any]:
    """Call a tool that reports progress before its answer."""
    seen: list[float] = []

    async def progress(done: float, _total: float | None, _message: str | None) -> None:
        seen.append(done)

    result = await client.call_tool("test_tool_with_progress", {}, progress_callback=progress)
    return {"progress": seen, "text": result.content[0].text}


async def cancelled(client: Client) -> dict[str, Any]:
    """Give up a call that takes long; the next one works."""
    with anyio.move_on_after(0.7) as scope:
        await client.call_tool("slow", {"seconds": 20.0})
    text = (await client.call_tool("test_simple_text", {})).content[0].text
    return {"cancelled": scope.cancelled_caught, "text": text}


async def many(client: Client) -> dict[str, Any]:
    """Call a tool many times at once."""
    results = await asyncio.gather(*(client.call_tool("test_simple_text", {}) for _ in range(40)))
    return {"texts": len({result.content[0].text for result in results}), "calls": len(results)}


async def main(scenario: str, url: str, mode: str) -> None:
    async with Client(url, mode=mode) as client:  # type: ignore[arg-type]
        told = await globals()[scenario](client)
        told["version"] = client.protocol_version
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
