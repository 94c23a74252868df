"""A refused call's answer: status, fixed text, reason code, request id. Nothing of the request is reflected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from sidecar.delegation.human import Human
from sidecar.delegation.resource_metadata import ProtectedResource
from sidecar.errors import Reason, SidecarError
from sidecar.proxy.operations import Asked

Field = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
_RPC_REFUSED: Final = -32050  # of the range that JSON-RPC 2.0 leaves to servers; neither protocol uses it
_RPC_CODES: Final = {
    ("mcp", Reason.OPERATION_MALFORMED): -32600,
    ("a2a", Reason.OPERATION_MALFORMED): -32600,
    ("mcp", Reason.PROTOCOL_VERSION): -32022,
    ("a2a", Reason.PROTOCOL_VERSION): -32009,
}
PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")


def refusal(
    error: SidecarError,
    request_id: str,
    *,
    scope: Iterable[str] = (),
    allow: Iterable[str] = (),
    human: Human | None = None,
    resource: ProtectedResource | None = None,
    asked: Asked | None = None,
) -> tuple[int, list[Field], bytes]:
    """Make the answer of a refused call: ``(status, fields, body)`` (RFC 9457, RFC 6750 section 3).

    ``scope`` is what the route needs, told with insufficient_scope; ``allow`` the methods a 405 must name,
    ``human`` the login that the route requires, told where it is lacking (RFC 9470 section 3). ``resource`` is what
    clients may learn of the route: a challenge says where, and what scopes the call needs (RFC 9728 section 5.1).
    ``asked`` is the message of MCP or A2A that is refused: clients show their users an error of JSON-RPC, with ours in
    its ``data``.
    """
    answer = error.answer
    rpc = asked is not None and asked.json_rpc
    fields: list[Field] = [
        JSON if rpc else PROBLEM_JSON,
        (b"cache-control", b"no-store"),
        (b"delegation-reason", error.reason.encode()),
        (b"delegation-request-id", request_id.encode()),
    ]
    if answer.status == 401 or answer.error is not None:
        fields.append((b"www-authenticate", _challenge(error, scope, human, resource)))
    if answer.retry_after_s is not None:
        fields.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 405:
        fields.append((b"allow", ", ".join(sorted(allow)).encode()))
    if asked is not None and rpc:
        return answer.status, fields, orjson.dumps(_rpc_error(error, request_id, asked))
    body = {
        "type": f"urn:delegation-sidecar:reason:{error.reason}",
        "title": answer.text,
        "status": answer.status,
        "reason": error.reason,
        "request_id": request_id,
    }
    return answer.status, fields, orjson.dumps(body)


def rpc_error_event(error: SidecarError, request_id: str, asked: Asked) -> bytes:
    """Make the event that answers a message whose answer is a stream that has begun."""
    return b"event: message\ndata: " + orjson.dumps(_rpc_error(error, request_id, asked)) + b"\n\n"


def _rpc_error(error: SidecarError, request_id: str, asked: Asked) -> dict[str, object]:
    """Return the error of JSON-RPC 2.0 (section 5.1) that answers a refused message."""
    data = {"reason": error.reason, "request_id": request_id, "status": error.answer.status}
    code = _RPC_CODES.get((asked.protocol, error.reason), _RPC_REFUSED)
    text = f"{error.answer.text} ({error.reason})"
    return {"jsonrpc": "2.0", "id": asked.message_id, "error": {"code": code, "message": text, "data": data}}


def _challenge(
    error: SidecarError, scope: Iterable[str], human: Human | None, resource: ProtectedResource | None
) -> bytes:
    answer = error.answer
    parts = [] if answer.error is None else [f'error="{answer.error}"', f'error_description="{answer.text}"']
    described = resource is not None and answer.status in {401, 403}
    if (answer.error == "insufficient_scope" or described) and scope:
        parts.append(f'scope="{" ".join(sorted(scope))}"')
    if error.reason is Reason.STEP_UP_REQUIRED and human is not None:
        parts += (f'{name}="{value}"' for name, value in human.challenge)
    if resource is not None and described:
        parts.append(f'resource_metadata="{resource.metadata_url}"')
    return ("Bearer " + ", ".join(parts)).strip().encode()
