"""An agent that is an MCP server, and calls a tool of another one, behind another sidecar, for the user of the request.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python mcp_agent.py
"""

import os

import httpx2
import uvicorn
from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx2 import async_mounts
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm/mcp"

server = MCPServer("writer")
# A server may be silent for long: the SDK's own client waits as long.
http = httpx2.AsyncClient(mounts=async_mounts(), timeout=httpx2.Timeout(30, read=300))


@server.tool()
async def ask() -> str:
    """Answer from the customer's record."""
    async with Client(streamable_http_client(CRM, http_client=http)) as crm:
        found = await crm.call_tool("customer", {"number": "42"})
    if found.is_error:
        raise RuntimeError(found.content[0].text)
    return found.content[0].text


app = HandleMiddleware(server.streamable_http_app(stateless_http=True, json_response=True))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
