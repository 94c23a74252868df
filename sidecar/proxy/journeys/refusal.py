"""The answer of a refused call: status, fixed text, reason code, request id. It reflects no part of the request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import orjson

from delegation_core.errors import Reason, SidecarError

if TYPE_CHECKING:
    from delegation_core.human import Human
    from delegation_core.resource_metadata import ProtectedResource
    from sidecar.proxy.journeys.operation import Operation

Field = tuple[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")


def refusal(
    error: SidecarError,
    request_id: str,
    *,
    scope: Iterable[str] = (),
    allow: Iterable[str] = (),
    human: Human | None = None,
    resource: ProtectedResource | None = None,
    asked: Operation | None = None,
) -> tuple[int, list[Field], bytes]:
    """Make the answer of a refused call: ``(status, fields, body)`` (RFC 9457, RFC 6750 section 3).

    ``scope`` are the scopes that the route needs, for an insufficient_scope challenge. ``allow`` are the methods for a
    405. ``human`` is the login that the route requires, for a step-up challenge (RFC 9470 section 3). ``resource`` is
    the route's metadata, which a challenge links (RFC 9728 section 5.1). ``asked`` is the refused operation: if its
    protocol has an error form, the body has that form, which clients show to their users.
    """
    answer = error.answer
    answered = None if asked is None else asked.answer(error, request_id)
    fields: list[Field] = [
        PROBLEM_JSON if answered is None else JSON,
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
    if answered is not None:
        status, content = answered
        return status, fields, content
    body = {
        "type": f"urn:delegation-sidecar:reason:{error.reason}",
        "title": answer.text,
        "status": answer.status,
        "reason": error.reason,
        "request_id": request_id,
    }
    return answer.status, fields, orjson.dumps(body)


def challenge(
    error: SidecarError, scope: Iterable[str], human: Human | None, resource: ProtectedResource | None
) -> bytes:
    """Make the value of ``WWW-Authenticate`` for a refusal. Arguments as for ``refusal``."""
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
