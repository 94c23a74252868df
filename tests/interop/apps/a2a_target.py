"""An agent that speaks A2A behind a sidecar: it answers with the user that the sidecar names."""

import os

import uvicorn
from a2a.helpers.proto_helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette


class Crm(AgentExecutor):
    """Answers with the user."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer at once."""
        subject = context.call_context.state["headers"]["delegation-subject"]
        await event_queue.enqueue_event(new_text_message(f"Globex of {subject}"))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Refuse: there is nothing to cancel."""
        raise NotImplementedError


card = AgentCard(
    name="crm",
    description="Knows customers",
    version="1.0",
    # Nobody listens there: a client that follows the card's address gets no answer.
    supported_interfaces=[
        AgentInterface(url="http://127.0.0.1:1/", protocol_binding="JSONRPC", protocol_version="1.0")
    ],
    capabilities=AgentCapabilities(),
    default_input_modes=["text"],
    default_output_modes=["text"],
    skills=[AgentSkill(id="find", name="Find", description="Finds a customer", tags=["crm"])],
)
handler = DefaultRequestHandler(Crm(), InMemoryTaskStore(), card)
app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
