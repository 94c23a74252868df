"""An agent that opens one MCP session with another server for all its users, at the first call, and keeps it."""

import asyncio
import os

import httpx2
import uvicorn
from fastapi import FastAPI
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx2 import async_mounts

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm/mcp"

app = FastAPI()
app.add_middleware(HandleMiddleware)
opening = asyncio.Lock()
opened: list[Client] = []
keep: list[asyncio.Task[None]] = []


async def shared() -> Client:
    """Return the session; open it, in a task that stays, in the first request."""
    async with opening:
        if not opened:
            there: asyncio.Future[Client] = asyncio.get_running_loop().create_future()

            async def stay() -> None:
                http = httpx2.AsyncClient(mounts=async_mounts(), timeout=30)
                async with Client(streamable_http_client(CRM, http_client=http), mode="legacy") as crm:
                    there.set_result(crm)
                    await asyncio.Event().wait()

            keep.append(asyncio.create_task(stay()))
            opened.append(await there)
    return opened[0]


@app.post("/ask")
async def ask() -> dict[str, str]:
    """Answer from the customer's record."""
    crm = await shared()
    found = await crm.call_tool("customer", {"number": "42"})
    assert not found.is_error
    return {"answer": found.content[0].text}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
