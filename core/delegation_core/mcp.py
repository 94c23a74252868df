"""MCP over Streamable HTTP: operation keys of messages, and checks of version and header fields.

Revisions 2024-11-05 to 2025-11-25 open a session by ``initialize``; 2026-07-28 has no sessions, and repeats version,
method and name of a message in header fields. The message decides; fields that contradict it are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from delegation_core.errors import Reason
from delegation_core.json_rpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MessageId,
    MessageRefused,
    RpcMessage,
    one_spelling,
)
from delegation_core.mcp_fields import decode_field, problem_of_params

STATELESS: Final = frozenset({"2026-07-28"})
WITH_SESSIONS: Final = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
VERSIONS: Final = STATELESS | WITH_SESSIONS

# Operations without a message of their own.
STREAM: Final = "session/stream"  # GET: messages that the server initiates
DELETE: Final = "session/delete"  # DELETE: the client ends its session
RESPONSE: Final = "response"  # the client answers a request of the server's

LISTEN: Final = "subscriptions/listen"  # answered by a stream without an end of its own

INITIALIZE: Final = "initialize"

_COMPLETE: Final = "completion/complete"
_REFERENCES: Final = {"ref/prompt": "name", "ref/resource": "uri"}


class _Operation(NamedTuple):
    """One operation. ``name``: the member of its params that names the tool, prompt or resource.

    ``stateless``: part of revision 2026-07-28 or its tasks extension. ``lifecycle``: opens, keeps or ends a session.
    ``own``: a route may permit it on the workload's own authority, since it concerns only the server.
    """

    name: str | None = None
    stateless: bool = False
    lifecycle: bool = False
    own: bool = False


_OPERATIONS: Final[Mapping[str, _Operation]] = {
    _COMPLETE: _Operation(name="ref", stateless=True),
    DELETE: _Operation(lifecycle=True),
    INITIALIZE: _Operation(lifecycle=True),
    LISTEN: _Operation(stateless=True),
    "logging/setLevel": _Operation(),
    "notifications/cancelled": _Operation(lifecycle=True, stateless=True),
    "notifications/initialized": _Operation(lifecycle=True),
    "notifications/progress": _Operation(lifecycle=True),
    "notifications/roots/list_changed": _Operation(lifecycle=True),
    "ping": _Operation(lifecycle=True),
    "prompts/get": _Operation(name="name", stateless=True),
    "prompts/list": _Operation(own=True, stateless=True),
    "resources/list": _Operation(own=True, stateless=True),
    "resources/read": _Operation(name="uri", stateless=True),
    "resources/subscribe": _Operation(name="uri"),
    "resources/templates/list": _Operation(own=True, stateless=True),
    "resources/unsubscribe": _Operation(name="uri"),
    RESPONSE: _Operation(lifecycle=True),
    "server/discover": _Operation(lifecycle=True, stateless=True),
    STREAM: _Operation(lifecycle=True),
    "tasks/cancel": _Operation(stateless=True),
    "tasks/get": _Operation(stateless=True),
    "tasks/list": _Operation(),
    "tasks/result": _Operation(),
    "tasks/update": _Operation(stateless=True),
    "tools/call": _Operation(name="name", stateless=True),
    "tools/list": _Operation(own=True, stateless=True),
}  # a new one: docs/contributing/operation.md
METHODS: Final = frozenset(_OPERATIONS)
NAMED: Final = frozenset(method for method, one in _OPERATIONS.items() if one.name is not None)
_NAMED: Final = {method: one.name for method, one in _OPERATIONS.items() if one.name and method != _COMPLETE}
BY_URI: Final = frozenset(method for method, member in _NAMED.items() if member == "uri")
OPEN_TO_OWN: Final = frozenset(method for method, one in _OPERATIONS.items() if one.own)
"""Operations that a route may permit on the workload's own authority: they reveal nothing of a user's work."""
LIFECYCLE: Final = frozenset(method for method, one in _OPERATIONS.items() if one.lifecycle)
"""Operations that open, keep or end a session. All peers of a route may use them unless the route lists them."""

_OF_MESSAGES: Final = METHODS - {DELETE, RESPONSE, STREAM} - _NAMED.keys()
_OF_STATELESS: Final = frozenset(method for method, one in _OPERATIONS.items() if one.stateless)

_LONGEST_NAME: Final = 2048  # characters
_PARAMS: Final = frozenset({"_meta", "name", "ref", "uri"})
_REF: Final = frozenset({"name", "type", "uri"})
_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_META: Final = frozenset({_VERSION_KEY})
_HEADER_MISMATCH: Final = -32020
_NAMES_A_VERSION: Final = re.compile(r"[0-9A-Za-z.-]{1,32}")


def operation_of(message: RpcMessage, *, stateless: bool = False) -> str:
    """Return the operation key of a message. ``stateless``: the message is of a revision without sessions.

    Raises:
        MessageRefused: OPERATION_MALFORMED for a missing or ambiguous name; OPERATION_REFUSED for an unknown method.
    """
    method, params = message.method, message.params
    if method is None:
        return RESPONSE
    one_spelling(params, _PARAMS, message_id=message.id)
    if method == _COMPLETE:
        return f"{method}:{_reference(message)}"
    known = not stateless or method in _OF_STATELESS
    if method in _NAMED and known:
        return f"{method}:{_text(params, _NAMED[method], message)}"
    if method not in _OF_MESSAGES or not known:
        reason = Reason.OPERATION_REFUSED
        raise MessageRefused("an unknown method", message_id=message.id, reason=reason, code=METHOD_NOT_FOUND)
    return method


def check_version(version: str | None, message_id: MessageId = None) -> None:
    """Check the value of ``MCP-Protocol-Version``; None is accepted.

    Raises:
        MessageRefused: PROTOCOL_VERSION for an unknown revision. ``facts`` follow 2026-07-28: ``supported`` lists the
            stateless revisions; older ones are negotiated by ``initialize``.
    """
    if version is None or version in VERSIONS:
        return
    facts: dict[str, object] = {"supported": sorted(STATELESS)}
    if _NAMES_A_VERSION.fullmatch(version):
        facts["requested"] = version
    detail = "the MCP-Protocol-Version is unknown"
    raise MessageRefused(detail, message_id=message_id, reason=Reason.PROTOCOL_VERSION, facts=facts)


def check_fields(
    message: RpcMessage,
    *,
    version: str | None,
    method: str | None,
    name: str | None,
    params: Iterable[tuple[str, str]] = (),
) -> bool:
    """Check that header fields repeat the message (MCP 2026-07-28, Streamable HTTP). True if it has no session.

    ``version``, ``method`` and ``name``: the values of ``MCP-Protocol-Version``, ``Mcp-Method`` and ``Mcp-Name``; None
    for a missing field. Before 2026-07-28 the last two may be missing. ``params``: name after the prefix, and value, of
    each ``Mcp-Param-*`` field.

    Raises:
        MessageRefused: OPERATION_MALFORMED if a field contradicts the message or is missing; PROTOCOL_VERSION.
    """
    check_version(version, message.id)
    stated = _stated_version(message)
    stateless = version in STATELESS or stated in STATELESS
    if stateless and message.method is None:
        raise MessageRefused(
            "the message is a response, but in this revision servers send no requests", message_id=message.id
        )
    if stateless and stated is None:
        raise MessageRefused("_meta does not state the version", message_id=message.id, code=INVALID_PARAMS)
    if stateless and (version != stated or method is None):
        raise _mismatch("MCP-Protocol-Version or Mcp-Method is missing, or differs from the message", message)
    if method is not None and method != message.method:
        raise _mismatch("Mcp-Method differs from the message's method", message)
    if (problem := problem_of_params(params, message.params.get("arguments"))) is not None:
        raise _mismatch(problem, message)
    member = _NAMED.get(message.method or "")
    if name is None:
        if stateless and member in message.params:
            raise _mismatch("Mcp-Name is missing", message)
        return stateless
    # For a method of an extension any member may hold the name; operation keys do not use it.
    named = message.params.values() if member is None else [message.params.get(member)]
    if (text := decode_field(name)) is None or text not in named:
        raise _mismatch("Mcp-Name differs from the name in the message", message)
    return stateless


def _mismatch(detail: str, message: RpcMessage) -> MessageRefused:
    return MessageRefused(detail, message_id=message.id, code=_HEADER_MISMATCH)


def _stated_version(message: RpcMessage) -> object:
    meta = message.params.get("_meta")
    if meta is None:
        return None
    if not isinstance(meta, dict):
        raise MessageRefused("_meta is not an object", message_id=message.id, code=INVALID_PARAMS)
    one_spelling(meta, _META, message_id=message.id)
    return meta.get(_VERSION_KEY)


def _reference(message: RpcMessage) -> str:
    reference = message.params.get("ref")
    if not isinstance(reference, dict):
        raise MessageRefused("ref is not an object", message_id=message.id)
    one_spelling(reference, _REF, message_id=message.id)
    kind = reference.get("type")
    if not isinstance(kind, str) or kind not in _REFERENCES:
        raise MessageRefused("ref has an unknown type", message_id=message.id)
    return _text(reference, _REFERENCES[kind], message)


def _text(members: Mapping[str, object], name: str, message: RpcMessage) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise MessageRefused(f"{name} is missing, or not a string", message_id=message.id)
    if len(value) > _LONGEST_NAME or not value.isprintable():  # a server may cut at NUL, or drop such characters
        raise MessageRefused(f"{name} is too long, or has unprintable characters", message_id=message.id)
    return value
