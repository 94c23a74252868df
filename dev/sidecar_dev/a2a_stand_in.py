"""A2A 1.0 by JSON-RPC: the subset for an agent that answers at once, and its caller. Standard library only."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from sidecar_dev.agent_server import Incoming, Outgoing
from sidecar_dev.json_rpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcError,
    ask,
    error_of,
    request,
    require_request,
    result_of,
)

VERSION: Final = "1.0"
FIELDS: Final = {"a2a-version": VERSION}
CARD: Final = "/.well-known/agent-card.json"
_ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"
_DOMAIN: Final = "a2a-protocol.org"
# Operations of the protocol that this agent does not have, and the errors for them (section 5.4).
_UNSUPPORTED: Final = (-32004, "UNSUPPORTED_OPERATION", "This operation is not supported")
_NO_TASK: Final = (-32001, "TASK_NOT_FOUND", "Task not found")
_NO_PUSH: Final = (-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", "Push Notification is not supported")
_VERSION: Final = (-32009, "VERSION_NOT_SUPPORTED", "This version of the protocol is not supported")
_OTHERS: Final = {
    "SendStreamingMessage": _UNSUPPORTED,
    "SubscribeToTask": _UNSUPPORTED,
    "GetExtendedAgentCard": _UNSUPPORTED,
    "GetTask": _NO_TASK,
    "CancelTask": _NO_TASK,
    "CreateTaskPushNotificationConfig": _NO_PUSH,
    "GetTaskPushNotificationConfig": _NO_PUSH,
    "ListTaskPushNotificationConfigs": _NO_PUSH,
    "DeleteTaskPushNotificationConfig": _NO_PUSH,
}

Said = tuple[str, dict[str, Any]]
"""The contents of a message: its text, and its data."""


# --- the caller


def message_request(text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Make the request that sends a message."""
    message = {"messageId": uuid.uuid4().hex, "role": "ROLE_USER", "parts": _parts(text, data)}
    return request("SendMessage", {"message": message})


def send_message(url: str, text: str, data: Mapping[str, Any], incoming: Incoming) -> Said:
    """Send a message to an agent and return its answer.

    Raises:
        RpcError: the agent refused, or its answer is no message.
    """
    result = ask(url, message_request(text, data), incoming, FIELDS)
    message = result.get("message")
    if not isinstance(message, dict):
        raise RpcError(INVALID_PARAMS, "the agent did not answer at once")
    return _contents(message)


# --- the agent


def serve_agent(card: Mapping[str, Any], work: Callable[[str, dict[str, Any]], Said], incoming: Incoming) -> Outgoing:
    """Answer one request for the card or to the interface."""
    if incoming.path == CARD and incoming.method == "GET":
        return Outgoing(200, dict(card))
    if incoming.method != "POST":
        return Outgoing(405, empty=True, fields={"Allow": "POST"})
    message_id = incoming.body.get("id")
    try:
        method, params = require_request(incoming.body)
        _require_operation(method, incoming)
        if method == "ListTasks":
            return result_of(message_id, {"tasks": [], "nextPageToken": "", "pageSize": 0, "totalSize": 0})
        text, data = work(*_contents(_message_of(params)))
    except RpcError as error:
        return error_of(message_id, error)
    message = {"messageId": uuid.uuid4().hex, "role": "ROLE_AGENT", "parts": _parts(text, data)}
    return result_of(message_id, {"message": message})


def card_of(name: str, description: str, url: str, skills: Sequence[str]) -> dict[str, Any]:
    """Make an agent card with one interface."""
    return {
        "name": name,
        "description": description,
        "version": "0.1",
        "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": VERSION}],
        "capabilities": {"streaming": False, "pushNotifications": False},
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain", "application/json"],
        "skills": [{"id": one, "name": one, "description": description, "tags": [one]} for one in skills],
    }


def _require_operation(method: str, incoming: Incoming) -> None:
    if _version(incoming) != VERSION:
        raise _failure(_VERSION)
    if method in _OTHERS:
        raise _failure(_OTHERS[method])
    if method not in {"ListTasks", "SendMessage"}:
        raise RpcError(METHOD_NOT_FOUND, "Method not found")


def _version(incoming: Incoming) -> str | None:
    asked = parse_qs(urlsplit(incoming.path).query).get("A2A-Version", [None])
    return incoming.headers.get("a2a-version", asked[0])


def _failure(kind: tuple[int, str, str]) -> RpcError:
    code, reason, text = kind
    return RpcError(code, text, [{"@type": _ERROR_INFO, "reason": reason, "domain": _DOMAIN}])


def _message_of(params: Mapping[str, Any]) -> dict[str, Any]:
    message = params.get("message")
    if not isinstance(message, dict) or not isinstance(message.get("messageId"), str):
        raise RpcError(INVALID_PARAMS, "there is no message")
    if message.get("role") != "ROLE_USER" or not isinstance(message.get("parts"), list) or not message["parts"]:
        raise RpcError(INVALID_PARAMS, "the message has no role or no parts")
    if "taskId" in message:
        raise _failure(_NO_TASK)
    if "contextId" in message:
        raise RpcError(INVALID_PARAMS, "this agent keeps no contexts")
    return message


def _parts(text: str, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"text": text}, *([{"data": dict(data)}] if data else [])]


def _contents(message: Mapping[str, Any]) -> Said:
    parts = [part for part in message.get("parts", ()) if isinstance(part, dict)]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    data: dict[str, Any] = {}
    for part in parts:
        data |= part["data"] if isinstance(part.get("data"), dict) else {}
    return text, data
