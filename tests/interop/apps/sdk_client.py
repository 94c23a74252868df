"""The official clients of MCP and A2A at a tool server and an agent: prints what they understood, as JSON."""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.types import GetTaskRequest, ListTasksRequest, Role, SendMessageRequest
from a2a.utils.errors import TaskNotFoundError
from mcp import Client, MCPError


async def main(tools: str, agent: str) -> None:
    said: dict[str, object] = {}
    async with Client(tools) as client:
        said["version"] = client.protocol_version
        said["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        found = await client.call_tool("read_customer", {"customer": "42"})
        said["found"] = [found.is_error, found.structured_content]
        failed = await client.call_tool("read_customer", {"customer": "none"})
        said["failed"] = [failed.is_error, failed.content[0].text]
        try:
            await client.call_tool("nothing", {})
        except MCPError as error:
            said["unknown"] = str(error)
    async with httpx.AsyncClient() as http:
        card = await A2ACardResolver(http, agent).get_agent_card()
        writer = ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card)
        message = new_text_message("When does it renew?", role=Role.ROLE_USER)
        async for event in writer.send_message(SendMessageRequest(message=message)):
            said["answer"] = get_message_text(event.message)
        said["tasks"] = len((await writer.list_tasks(ListTasksRequest())).tasks)
        try:
            await writer.get_task(GetTaskRequest(id="none"))
        except TaskNotFoundError as error:
            said["no task"] = str(error)
    sys.stdout.write(json.dumps(said))


asyncio.run(main(*sys.argv[1:]))
