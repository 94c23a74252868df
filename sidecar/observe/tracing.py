"""Trace context in and out (W3C Trace Context). Correlation only: never evidence, never input to a decision."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MAX_MEMBERS: Final = 32
_MAX_STATE_BYTES: Final = 512
_SAMPLED: Final = 0x01
_RANDOM_ID: Final = 0x02

# Seeded from the system's entropy. Trace and request ids are told to everybody and prove nothing, so they need to be
# distinct, not unguessable; a system call for each would cost more than the record itself.
_ids: Final = random.Random()  # noqa: S311


class TraceContext(NamedTuple):
    """What is sent on: ``traceparent`` names ``span_id`` (this hop) as the parent; ``tracestate`` may be None."""

    traceparent: str
    trace_id: str
    span_id: str
    tracestate: str | None


def new_id(bits: int = 128) -> str:
    """A random non-zero id in lower-case hex, ``bits / 4`` digits."""
    return (_ids.getrandbits(bits) or 1).to_bytes(bits // 8, "big").hex()


def next_traceparent(parents: Sequence[bytes], states: Sequence[bytes], *, trusted: bool = True) -> TraceContext:
    """Continue the caller's trace under a new span id, or start one.

    Args:
        parents, states: the values of the ``traceparent`` and ``tracestate`` fields.
        trusted: False restarts the trace: the caller is of a trust domain whose traces are not ours.

    A new trace starts, and ``tracestate`` is dropped, if ``traceparent`` is absent, doubled or invalid.
    """
    parent = _parse(parents[0]) if trusted and len(parents) == 1 else None
    if parent is None:
        both = new_id(192)
        trace_id, span_id = both[:32], both[32:]
        return TraceContext(f"00-{trace_id}-{span_id}-03", trace_id, span_id, None)
    trace_id, flags = parent
    span_id = new_id(64)
    return TraceContext(f"00-{trace_id}-{span_id}-{flags:02x}", trace_id, span_id, _state(states) if states else None)


def _parse(value: bytes) -> tuple[str, int] | None:
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    if not trace_id.strip(b"0") or not parent_id.strip(b"0"):
        return None
    return trace_id.decode(), int(flags, 16) & (_SAMPLED | _RANDOM_ID)


def _state(states: Sequence[bytes]) -> str | None:
    """The members of all lines in order; whole members go where limits ask for it, long ones (over 128) first."""
    members = [member for line in states for part in line.split(b",") if (member := part.strip(b" \t"))]
    if not members or len(members) > _MAX_MEMBERS or any(not _printable(member) for member in members):
        return None
    if _length(members) > _MAX_STATE_BYTES:
        members = [member for member in members if len(member) <= 128]
    while members and _length(members) > _MAX_STATE_BYTES:
        members.pop()
    return b",".join(members).decode("ascii") if members else None


def _length(members: list[bytes]) -> int:
    return sum(map(len, members)) + len(members) - 1


def _printable(member: bytes) -> bool:
    return b"=" in member and all(0x20 <= byte <= 0x7E for byte in member)
