"""An agent on the official A2A SDK: each binding and version, tasks, streams, push configurations, two cards.

PORT=8080 GRPC_PORT=50051 python a2a_server.py 1.0
"""

import asyncio
import os
import sys

import grpc
import uvicorn
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.request_handlers.grpc_handler import GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    HTTPAuthSecurityScheme,
    SecurityScheme,
    a2a_pb2_grpc,
)
from a2a.types.a2a_pb2 import SecurityRequirement, StringList
from starlette.applications import Starlette

VERSION = sys.argv[1]
HERE = f"http://127.0.0.1:{os.environ['PORT']}"
BY_GRPC = f"127.0.0.1:{os.environ.get('GRPC_PORT', '9')}"


class Writer(AgentExecutor):
    """Works on every message in a task of its own."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await updater.add_artifact([new_text_part("a draft")], name="draft")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def card(name: str) -> AgentCard:
    """Return a card that leads clients here, with a login that nobody has."""
    return AgentCard(
        name=name,
        description="Writes drafts",
        version="1",
        supported_interfaces=[
            AgentInterface(url=f"{HERE}/", protocol_binding="JSONRPC", protocol_version=VERSION),
            AgentInterface(url=HERE, protocol_binding="HTTP+JSON", protocol_version=VERSION),
            AgentInterface(url=BY_GRPC, protocol_binding="GRPC", protocol_version=VERSION),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True, extended_agent_card=True),
        default_input_modes=["text"],
        default_output_modes=["text"],
        skills=[AgentSkill(id="draft", name="Draft", description="Writes a draft", tags=["text"])],
        security_schemes={"login": SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer"))},
        security_requirements=[SecurityRequirement(schemes={"login": StringList()})],
    )


handler = DefaultRequestHandler(
    Writer(),
    InMemoryTaskStore(),
    card("writer"),
    push_config_store=InMemoryPushNotificationConfigStore(),
    extended_agent_card=card("extended writer"),
)
old = VERSION == "0.3"
routes = [
    *create_agent_card_routes(card("writer")),
    *create_jsonrpc_routes(handler, "/", enable_v0_3_compat=old),
    *create_rest_routes(handler, enable_v0_3_compat=old),
]


async def main() -> None:
    """Serve until the process ends."""
    if "GRPC_PORT" in os.environ:
        server = grpc.aio.server()
        if old:
            a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), server)
        else:
            a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
        server.add_insecure_port(BY_GRPC)
        await server.start()
    app = Starlette(routes=routes)
    config = uvicorn.Config(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main())
