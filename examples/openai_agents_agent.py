"""An agent with the OpenAI Agents SDK. Its tool asks the CRM, behind another sidecar, for the user of the request.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 OPENAI_BASE_URL=… OPENAI_API_KEY=… PORT=8080 python openai_agents_agent.py
"""

import os

import httpx
import uvicorn
from agents import Agent, Runner, function_tool, set_default_openai_api, set_tracing_disabled
from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx import async_mounts
from fastapi import FastAPI

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm"

client = httpx.AsyncClient(mounts=async_mounts())


@function_tool(failure_error_function=None)  # a refusal is an error, not something for the model to talk about
async def customer(number: str) -> str:
    """Return a customer's record."""
    found = await client.get(f"{CRM}/customers/{number}")
    found.raise_for_status()
    return found.text


set_default_openai_api("chat_completions")
set_tracing_disabled(disabled=True)
agent = Agent(name="writer", model="gpt-5-mini", tools=[customer])
app = FastAPI()
app.add_middleware(HandleMiddleware)


@app.post("/ask")
async def ask() -> dict[str, str]:
    """Answer from the customer's record."""
    result = await Runner.run(agent, "When does customer 42 renew?")
    return {"answer": str(result.final_output)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
