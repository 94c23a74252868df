"""Maps our reasons to errors of A2A (1.0 section 5.4), because the official clients show only such errors to users."""

from __future__ import annotations

from typing import Final, NamedTuple

from delegation_core.errors import Reason, SidecarError

DOMAIN: Final = "a2a-protocol.org"
ERROR_INFO: Final = "type.googleapis.com/google.rpc.ErrorInfo"


class A2aError(NamedTuple):
    """An error of A2A: its code by JSON-RPC, its reason in a ``google.rpc.ErrorInfo``, and its name in 0.3."""

    code: int
    reason: str
    name: str


_ERRORS: Final = {
    Reason.TASK_UNKNOWN: A2aError(-32001, "TASK_NOT_FOUND", "TaskNotFoundError"),
    # A2A has no error for an unknown context; this is how agents refuse one.
    Reason.CONTEXT_UNKNOWN: A2aError(-32602, "INVALID_PARAMS", "InvalidParamsError"),
    Reason.PROTOCOL_VERSION: A2aError(-32009, "VERSION_NOT_SUPPORTED", "VersionNotSupportedError"),
    Reason.OPERATION_MALFORMED: A2aError(-32600, "INVALID_REQUEST", "InvalidRequestError"),
}
_FORBIDDEN: Final = A2aError(-32004, "UNSUPPORTED_OPERATION", "UnsupportedOperationError")  # A2A has no error for a 403


def a2a_error(error: SidecarError) -> A2aError | None:
    """Return the error of A2A for a refusal; None: A2A has none, so the HTTP status alone conveys it."""
    return _ERRORS.get(error.reason, _FORBIDDEN if error.answer.status == 403 else None)
