"""A refused call's answer: status, fixed text, reason code, request id. Nothing of the request is reflected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from sidecar.delegation.human import Human
from sidecar.delegation.json_rpc import METHOD_NOT_FOUND
from sidecar.delegation.resource_metadata import ProtectedResource
from sidecar.errors import Reason, SidecarError
from sidecar.features.a2a.errors import DOMAIN, ERROR_INFO, a2a_error
from sidecar.features.operations.operations import Asked

Field = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
_RPC_REFUSED: Final = -32050  # of the range that JSON-RPC 2.0 leaves to servers; neither protocol uses it
_MCP_CODES: Final = {Reason.OPERATION_MALFORMED: -32600, Reason.PROTOCOL_VERSION: -32022}
_OUR_DOMAIN: Final = "delegation-sidecar"

_STATUS_NAMES: Final = {  # google.rpc.Code, by HTTP status
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    504: "DEADLINE_EXCEEDED",
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
    ``asked`` is the message of MCP or A2A that is refused: clients show their users an error of its protocol, with ours
    in its details.
    """
    answer = error.answer
    fields: list[Field] = [
        PROBLEM_JSON if asked is None else JSON,
        (b"cache-control", b"no-store"),
        (b"delegation-reason", error.reason.encode()),
        (b"delegation-request-id", request_id.encode()),
    ]
    if answer.status == 401 or answer.error is not None:
        fields.append((b"www-authenticate", challenge(error, scope, human, resource)))
    if answer.retry_after_s is not None:
        fields.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 405:
        fields.append((b"allow", ", ".join(sorted(allow)).encode()))
    if asked is not None and asked.json_rpc:
        # The official clients of A2A read an error of JSON-RPC under 200 alone, and agents answer so.
        answers_message = asked.protocol == "a2a" and asked.message_id is not None
        status = 200 if answers_message and a2a_error(error) is not None else _rpc_status_of(error, asked)
        return status, fields, orjson.dumps(_rpc_error(error, request_id, asked))
    if asked is not None:
        return answer.status, fields, orjson.dumps(_rest_error(error, request_id, asked))
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


def _rpc_status_of(error: SidecarError, asked: Asked) -> int:
    if asked.stateless and asked.code == METHOD_NOT_FOUND:
        return 404  # MCP 2026-07-28; in a session of an older revision 404 would say that the session is gone
    return error.answer.status


def _rpc_error(error: SidecarError, request_id: str, asked: Asked) -> dict[str, object]:
    """Return the error of JSON-RPC 2.0 (section 5.1) that answers a refused message."""
    data: object = {
        "reason": error.reason,
        "request_id": request_id,
        "status": _rpc_status_of(error, asked),
        **asked.facts,
    }
    code = asked.code or _MCP_CODES.get(error.reason, _RPC_REFUSED)
    if asked.protocol == "a2a":
        known = a2a_error(error)
        code = _RPC_REFUSED if known is None else known.code
        data = [_error_info(error, request_id)]
    return {"jsonrpc": "2.0", "id": asked.message_id, "error": {"code": code, "message": _text(error), "data": data}}


def _rest_error(error: SidecarError, request_id: str, asked: Asked) -> dict[str, object]:
    """Return the error of HTTP+JSON in A2A 1.0 (section 11.6): a ``google.rpc.Status``.

    The official clients of 0.3 look for the name of an error (Python) or its code (JavaScript) beside it.
    """
    status, known = error.answer.status, a2a_error(error)
    body: dict[str, object] = {
        "error": {
            "code": status,
            "status": _STATUS_NAMES.get(status, "UNAVAILABLE"),
            "message": _text(error),
            "details": [_error_info(error, request_id)],
        }
    }
    if asked.first_version and known is not None:
        body |= {"type": known.name, "code": known.code, "message": _text(error)}
    return body


def _error_info(error: SidecarError, request_id: str) -> dict[str, object]:
    known = a2a_error(error)
    return {
        "@type": ERROR_INFO,
        "reason": error.reason.upper() if known is None else known.reason,
        "domain": _OUR_DOMAIN if known is None else DOMAIN,
        "metadata": {"reason": error.reason, "request_id": request_id},
    }


def _text(error: SidecarError) -> str:
    return f"{error.answer.text} ({error.reason})"


def challenge(
    error: SidecarError, scope: Iterable[str], human: Human | None, resource: ProtectedResource | None
) -> bytes:
    """Make the value of ``WWW-Authenticate`` that goes with a refusal. Arguments as of ``refusal``."""
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
