"""An MCP server behind a sidecar: its tool ``customer`` answers with the user that the sidecar names."""

import os

import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("crm")


@server.tool()
async def customer(number: str, context: Context) -> str:
    """Return a customer's record."""
    request = context.request_context.request
    return f"Globex of {request.headers['delegation-subject']}" if number == "42" else "nobody"


if __name__ == "__main__":
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=int(os.environ["PORT"]))
