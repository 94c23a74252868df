"""Strict parser for one line of a record stream. A line may be forged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Final

from delegation_core.records.record import EVENTS, KEYS, MAX_ITEMS, Kind
from delegation_core.records.record_text import CUT
from delegation_core.strict_json import StrictJsonError, parse_object

MAX_LINE_BYTES: Final = 1 << 20  # two scope lists of 64 items at their limit fit well


class RecordError(ValueError):
    """The line is no record. The message never quotes the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The keys of a record that audit reads, with the types of ``observe.record``; None if absent.

    ``digest`` covers the whole record. ``scope_cut``: the list of scopes was truncated. ``permitted``: ``decide_ms``
    and the statuses show that the request was permitted, even if ``decision`` is deny.
    """

    event: str
    ts: str
    run: str
    seq: int
    digest: str
    decision: str | None = None
    reason: str | None = None
    direction: str | None = None
    workload: str | None = None
    peer: str | None = None
    subject: str | None = None
    subject_iss: str | None = None
    actor: str | None = None
    chain: tuple[str, ...] | None = None
    chain_depth: int | None = None
    client_id: str | None = None
    audience: str | None = None
    scope: frozenset[str] | None = None
    scope_cut: bool = False
    scope_needed: frozenset[str] | None = None
    route: str | None = None
    op: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    upstream_status: int | None = None
    jti_in: str | None = None
    jti_out: str | None = None
    parent_jti: str | None = None
    txn: str | None = None
    fp: str | None = None
    host: str | None = None
    credential: str | None = None
    crossed_from: str | None = None
    call_in: str | None = None
    call_out: str | None = None
    request_id: str | None = None
    trace_id: str | None = None
    verified: bool | None = None
    source: str | None = None
    detail: str | None = None
    permitted: bool = False

    @property
    def name(self) -> str:
        """Name of the record: ``RUN/SEQ``."""
        return f"{self.run}/{self.seq}"

    @property
    def allowed(self) -> bool:
        """True if the request was permitted, even if a later decision ended it."""
        return self.decision == "allow" or (self.decision == "deny" and self.permitted)


def is_login(direction: object, op: object, path: object) -> bool:
    """Return True for a front app's call of its own sidecar to log a user in: no agent's request, and no hop."""
    return direction == "outbound" and (op == "login" or (isinstance(path, str) and path.startswith("/.sidecar/")))


def is_card(op: object) -> bool:
    """Return True for an agent card that the sidecar served itself: no agent's request, on no authority."""
    return op == "GetAgentCard"


def is_own(record: Record) -> bool:
    """Return True for an outbound call that an agent made for itself, by the workload handle, for no user.

    On MCP and A2A routes ``op`` is the protocol's operation; there the subject of an own call is the workload.
    """
    if record.event != "request" or record.direction != "outbound":
        return False
    by_subject = record.actor is None and record.subject is not None and record.subject == record.workload
    claimed = record.subject_iss is not None and not record.verified  # from an unverified token
    return record.op == "own" or (by_subject and not claimed)


def parse_record(line: bytes) -> Record:
    """Parse one line.

    Raises:
        RecordError: the line is no strict JSON object, or a key is missing, of the wrong type or of an unknown value.
    """
    try:
        return record_of(parse_object(line, max_bytes=MAX_LINE_BYTES))
    except StrictJsonError as error:
        raise RecordError(str(error)) from error


def record_of(members: Mapping[str, object]) -> Record:
    """Build a record from its parsed members. Keys that audit does not read are covered by the digest only.

    Raises:
        RecordError: see ``parse_record``.
    """
    values: dict[str, Any] = {name: _READERS[KEYS[name].kind](members, name) for name in KEPT}
    if values["event"] not in EVENTS or not all(values[name] for name in ("ts", "run", "seq")):
        raise RecordError("not a record: event, ts, run or seq is missing or unknown")
    for name, value in values.items():
        if value is not None and KEYS[name].choices and value not in KEYS[name].choices:
            raise RecordError(f"{name} has an unknown value")  # no rule handles it
    chain, scope, needed = (values.pop(name) for name in ("chain", "scope", "scope_needed"))
    return Record(
        **values,
        digest=sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:32],
        chain=None if chain is None else tuple(chain),
        scope=None if scope is None else frozenset(scope),
        scope_cut=any(item.startswith(CUT) for item in scope or ()),
        scope_needed=None if needed is None else frozenset(needed),
        permitted=_is_permitted(members),
    )


def _is_permitted(members: Mapping[str, object]) -> bool:
    """Return True if a request was decided and then not refused: both statuses agree, or no upstream answered."""
    if not is_short_number(members.get("decide_ms")):
        return False
    if members.get("upstream_status") is None:
        return members.get("upstream_ms") is None
    return members["upstream_status"] == members.get("status")


def is_short_number(value: object) -> bool:
    """Return True for a number as our writer formats it: not negative, no exponent, at most 16 characters."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    text = json.dumps(value)
    return text[0].isdigit() and len(text) <= 16 and "e" not in text


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError(f"{name} is not a string")
    return value


def _texts(members: Mapping[str, object], name: str) -> list[str] | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecordError(f"{name} is not a list of strings")
    if len(value) > MAX_ITEMS + 1:  # one more for the truncation mark; an actor chain costs the square of its length
        raise RecordError(f"{name} is longer than any list that a sidecar writes")
    return value


def _count(members: Mapping[str, object], name: str) -> int | None:
    value = members.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise RecordError(f"{name} is not a count")
    return value


def _flag(members: Mapping[str, object], name: str) -> bool | None:
    value = members.get(name)
    if value is not None and not isinstance(value, bool):
        raise RecordError(f"{name} is neither true nor false")
    return value


_READERS: Final[Mapping[Kind, Callable[[Mapping[str, object], str], object]]] = {
    "text": _text,
    "texts": _texts,
    "count": _count,
    "flag": _flag,
}
# The keys whose types are checked.
KEPT: Final = tuple(field.name for field in fields(Record) if field.name in KEYS)
