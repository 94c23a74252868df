"""Messages of JSON-RPC 2.0 as the demo's agents send and answer them. Standard library only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from sidecar_dev.agent_client import call
from sidecar_dev.agent_server import Incoming, Outgoing

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL: Final = -32603


class RpcError(Exception):
    """A JSON-RPC error, received or to be sent, with its HTTP ``status``."""

    def __init__(self, code: int, message: str, data: object = None, *, status: int = 200) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data


def request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Make a request with an id of its own."""
    return {"jsonrpc": "2.0", "id": uuid.uuid4().hex, "method": method, "params": dict(params)}


def ask(url: str, message: dict[str, Any], incoming: Incoming, fields: Mapping[str, str]) -> dict[str, Any]:
    """Send a request and return its result.

    Raises:
        RpcError: the answer is an error, or none of JSON-RPC.
    """
    answer = call(url, "POST", incoming, message, fields).body
    error = answer.get("error")
    if isinstance(error, dict):
        raise RpcError(error.get("code", INTERNAL), str(error.get("message")), error.get("data"))
    result = answer.get("result")
    if not isinstance(result, dict) or answer.get("id") != message["id"]:
        raise RpcError(INTERNAL, "no answer of JSON-RPC", {"reason": answer.get("reason")})
    return result


def result_of(message_id: object, result: Mapping[str, Any]) -> Outgoing:
    """Make the answer to a request."""
    return Outgoing(200, {"jsonrpc": "2.0", "id": message_id, "result": dict(result)})


def error_of(message_id: object, error: RpcError) -> Outgoing:
    """Make the answer to a request that failed."""
    return Outgoing(error.status, {"jsonrpc": "2.0", "id": message_id, "error": error.error})


def require_request(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return method and params of a message.

    Raises:
        RpcError: the body is neither a request nor a notification.
    """
    method, params = body.get("method"), body.get("params", {})
    if body.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict):
        raise RpcError(INVALID_REQUEST, "not a request of JSON-RPC 2.0", status=400)
    return method, params
