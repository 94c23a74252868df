"""An agent that speaks A2A, and asks another one, behind another sidecar, for the user whose request it serves.

SIDECAR_OUTBOUND_URL=http://127.0.0.1:7080 PORT=8080 python a2a_agent.py
"""

import os

import httpx
import uvicorn
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Role, SendMessageRequest
from a2a.utils.errors import UnsupportedOperationError
from delegation_agent.asgi import HandleMiddleware
from delegation_agent.httpx import async_mounts
from starlette.applications import Starlette

CRM = os.environ["SIDECAR_OUTBOUND_URL"] + "/crm/"

http = httpx.AsyncClient(mounts=async_mounts(), timeout=30)


class Writer(AgentExecutor):
    """Answers from the customer's record."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        card = await A2ACardResolver(http, CRM).get_agent_card()
        for interface in card.supported_interfaces:
            interface.url = CRM  # a card names the other agent itself; with `protocol: a2a` the sidecar does this
        crm = ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card)
        question = new_text_message("When does customer 42 renew?", role=Role.ROLE_USER)
        async for event in crm.send_message(SendMessageRequest(message=question)):
            await event_queue.enqueue_event(new_text_message(get_message_text(event.message)))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise UnsupportedOperationError


card = AgentCard(
    name="writer",
    description="Answers questions about customers",
    version="1.0",
    supported_interfaces=[
        AgentInterface(
            url=f"http://127.0.0.1:{os.environ['PORT']}/", protocol_binding="JSONRPC", protocol_version="1.0"
        )
    ],
    capabilities=AgentCapabilities(),
    default_input_modes=["text"],
    default_output_modes=["text"],
    skills=[AgentSkill(id="ask", name="Ask", description="Answers one question", tags=["crm"])],
)
handler = DefaultRequestHandler(Writer(), InMemoryTaskStore(), card)
app = HandleMiddleware(Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
