"""An agent as a graph of LangGraph. Its tool asks the CRM, behind another sidecar, for the user of the request.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 OPENAI_BASE_URL=… OPENAI_API_KEY=… PORT=8080 python langgraph_agent.py
"""

import os

import httpx
import uvicorn
from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx import mounts
from fastapi import FastAPI
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm"

client = httpx.Client(mounts=mounts())


@tool
def customer(number: str) -> str:
    """Return a customer's record."""
    found = client.get(f"{CRM}/customers/{number}")
    found.raise_for_status()
    return found.text


model = ChatOpenAI(model="gpt-5-mini").bind_tools([customer])


async def think(state: MessagesState) -> MessagesState:
    """Let the model answer or call the tool."""
    return {"messages": [await model.ainvoke(state["messages"])]}


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode([customer], handle_tool_errors=False))  # LangGraph runs it in a thread
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
agent = graph.compile()

app = FastAPI()
app.add_middleware(HandleMiddleware)


@app.post("/ask")
async def ask() -> dict[str, str]:
    """Answer from the customer's record."""
    state = await agent.ainvoke({"messages": [("user", "When does customer 42 renew?")]})
    return {"answer": state["messages"][-1].text}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
