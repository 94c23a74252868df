"""A refused call's answer: status, fixed text, reason code, request id. Nothing of the request is reflected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from sidecar.delegation.human import Human
from sidecar.errors import Reason, SidecarError

Field = tuple[bytes, bytes]

PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")


def refusal(
    error: SidecarError,
    request_id: str,
    *,
    scope: Iterable[str] = (),
    allow: Iterable[str] = (),
    human: Human | None = None,
) -> tuple[int, list[Field], bytes]:
    """Make the answer of a refused call: ``(status, fields, body)`` (RFC 9457, RFC 6750 section 3).

    ``scope`` is what the route needs, told with insufficient_scope; ``allow`` the methods a 405 must name,
    ``human`` the login that the route requires, told where it is lacking (RFC 9470 section 3).
    """
    answer = error.answer
    fields: list[Field] = [
        PROBLEM_JSON,
        (b"cache-control", b"no-store"),
        (b"delegation-reason", error.reason.encode()),
        (b"delegation-request-id", request_id.encode()),
    ]
    if answer.status == 401 or answer.error is not None:
        fields.append((b"www-authenticate", _challenge(error, scope, human)))
    if answer.retry_after_s is not None:
        fields.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 405:
        fields.append((b"allow", ", ".join(sorted(allow)).encode()))
    body = {
        "type": f"urn:delegation-sidecar:reason:{error.reason}",
        "title": answer.text,
        "status": answer.status,
        "reason": error.reason,
        "request_id": request_id,
    }
    return answer.status, fields, orjson.dumps(body)


def _challenge(error: SidecarError, scope: Iterable[str], human: Human | None) -> bytes:
    answer = error.answer
    if answer.error is None:
        return b"Bearer"
    parts = [f'error="{answer.error}"', f'error_description="{answer.text}"']
    if answer.error == "insufficient_scope" and scope:
        parts.append(f'scope="{" ".join(sorted(scope))}"')
    if error.reason is Reason.STEP_UP_REQUIRED and human is not None:
        parts += (f'{name}="{value}"' for name, value in human.challenge)
    return ("Bearer " + ", ".join(parts)).encode()
