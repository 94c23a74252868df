"""An agent with FastAPI. It asks the CRM, behind another sidecar, for the user whose request it serves.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python fastapi_agent.py
"""

import os

import httpx
import uvicorn
from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx import async_mounts
from fastapi import FastAPI

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm"

client = httpx.AsyncClient(mounts=async_mounts())
app = FastAPI()
app.add_middleware(HandleMiddleware)


@app.post("/ask")
async def ask() -> dict[str, str]:
    """Answer from the customer's record."""
    customer = await client.get(f"{CRM}/customers/42")
    customer.raise_for_status()
    return {"answer": customer.text}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
