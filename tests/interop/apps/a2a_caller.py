"""The official A2A client: does what it is told at an agent, and prints what it got as one line of JSON.

HANDLE=… python a2a_caller.py BASE BINDING [task:ID | why | own CONTEXT]
"""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.auth import AuthInterceptor, InMemoryContextCredentialStore
from a2a.client.client import ClientCallContext
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)

from delegation_agent import serving
from delegation_agent.grpc_aio import channel

BASE, BINDING, *REST = sys.argv[1:]
LISTED, UNLISTED = "https://hooks.acme.example/a2a/1", "https://evil.example/"


def request(**message: str) -> SendMessageRequest:
    """Return a message of a user."""
    text = Part(text="write")
    return SendMessageRequest(
        message=Message(message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[text], **message)
    )


async def attempt(call: Awaitable[Any]) -> str:
    """Return the kind of the error that a call ends with."""
    try:
        await call
    except Exception as error:  # noqa: BLE001 - its kind is the answer
        return type(error).__name__
    return "done"


async def shown(call: Awaitable[Any]) -> list[Any]:
    """Return what the error that a call ends with tells its reader: kind, text, and the reason in its data."""
    try:
        await call
    except Exception as error:  # noqa: BLE001 - it is the answer
        return [type(error).__name__, str(error), (getattr(error, "data", None) or {}).get("reason")]
    return ["done"]


async def main() -> dict[str, Any]:
    """Run every operation once."""
    handle = os.environ.get("HANDLE")
    http = httpx.AsyncClient(headers={"Delegation-Handle": handle} if handle else {}, timeout=30)
    card = await A2ACardResolver(http, BASE).get_agent_card()
    logins = InMemoryContextCredentialStore()
    await logins.set_credentials("a-session", "login", "the-login-of-a-user")
    context = ClientCallContext(state={"sessionId": "a-session"})

    def client(*, streaming: bool) -> Any:
        config = ClientConfig(
            httpx_client=http,
            streaming=streaming,
            supported_protocol_bindings=[BINDING],
            grpc_channel_factory=(lambda _: channel(outbound=BASE)) if handle else grpc.aio.insecure_channel,
        )
        return ClientFactory(config).create(card, [AuthInterceptor(logins)])

    said: dict[str, Any] = {"name": card.name, "urls": sorted({one.url for one in card.supported_interfaces})}
    plain, streaming = client(streaming=False), client(streaming=True)
    if REST == ["why"]:
        said["list"] = await shown(plain.list_tasks(ListTasksRequest(), context=context))
        said["subscribe"] = await shown(anext(streaming.subscribe(SubscribeToTaskRequest(id="7"), context=context)))
        said["task"] = await shown(plain.get_task(GetTaskRequest(id="7"), context=context))
        return said
    if REST and REST[0] == "own":  # what others may not have: a context, and a list
        context_id = REST[1] if len(REST) > 1 else ""
        made = [event async for event in plain.send_message(request(), context=context)][-1].task
        listed = await plain.list_tasks(ListTasksRequest(), context=context)
        said["made"], said["context"] = made.id, made.context_id
        said["listed"], said["total"] = [task.id for task in listed.tasks], listed.total_size
        sending = plain.send_message(request(context_id=context_id or made.context_id), context=context)
        said["into"] = await shown(anext(sending))
        listing = ListTasksRequest(context_id=context_id or made.context_id)
        said["list of"] = await shown(plain.list_tasks(listing, context=context))
        return said
    if REST:
        task = REST[0].removeprefix("task:")
        said["get"] = await attempt(plain.get_task(GetTaskRequest(id=task), context=context))
        said["cancel"] = await attempt(plain.cancel_task(CancelTaskRequest(id=task), context=context))
        said["send"] = await attempt(anext(plain.send_message(request(task_id=task), context=context)))
        return said
    events = [event async for event in plain.send_message(request(), context=context)]
    made = events[-1].task
    said["sent"] = [event.WhichOneof("payload") for event in events]
    said["state"] = TaskState.Name(made.status.state)
    said["stream"] = [event.WhichOneof("payload") async for event in streaming.send_message(request(), context=context)]
    said["got"] = (await plain.get_task(GetTaskRequest(id=made.id), context=context)).id == made.id
    said["cancel"] = await attempt(plain.cancel_task(CancelTaskRequest(id=made.id), context=context))
    said["unknown"] = await attempt(plain.get_task(GetTaskRequest(id="none"), context=context))
    for name, url in (("push", LISTED), ("push elsewhere", UNLISTED)):
        config = TaskPushNotificationConfig(task_id=made.id, id="c", url=url)
        said[name] = await attempt(plain.create_task_push_notification_config(config, context=context))
    extended = await plain.get_extended_agent_card(GetExtendedAgentCardRequest(), context=context)
    said["extended"] = [extended.name, sorted({one.url for one in extended.supported_interfaces})]
    said["task"] = made.id
    return said


if __name__ == "__main__":
    with serving(os.environ.get("HANDLE") or None):  # by gRPC the library sends it
        sys.stdout.write(json.dumps(asyncio.run(main())))
