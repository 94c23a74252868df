"""Trace context in and out (W3C Trace Context). Correlation only: never evidence, never input to a decision."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, filterfalse, repeat
from typing import Final, NamedTuple

# No id is all zeros. A later version may append more after a dash; ff is invalid.
_IDS: Final = r"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
_version_00: Final = re.compile(f"00{_IDS}").fullmatch
_later_version: Final = re.compile(f"(?!00|ff)[0-9a-f]{{2}}{_IDS}(?:-.*)?", re.DOTALL).fullmatch
_MAX_MEMBERS: Final = 32
_MAX_STATE_BYTES: Final = 512
_SAMPLED: Final = 0x01
_RANDOM_ID: Final = 0x02
_SENT_FLAGS: Final = {f"{flags:02x}": f"{flags & (_SAMPLED | _RANDOM_ID):02x}" for flags in range(256)}

# Ids are drawn in blocks: a system call for each would cost more than the record itself. They are public and prove
# nothing, so they need to be distinct but not unguessable.
_BLOCK_BYTES: Final = 4096


class TraceContext(NamedTuple):
    """The context to send on: ``traceparent`` names ``span_id`` (this hop) as the parent."""

    traceparent: str
    trace_id: str
    span_id: str
    tracestate: str | None


# The constructor of a named tuple is interpreted; tuple's own is not.
_context: Final[Callable[[tuple[str, str, str, str | None]], TraceContext]] = partial(tuple.__new__, TraceContext)


def ids(digits: int, draw: Callable[[int], bytes] = os.urandom) -> Callable[[], str]:
    """Yield random non-zero ids of ``digits`` lower-case hex digits. ``draw`` returns the given number of random
    octets.

    An endless iterator made of builtins: no bytecode runs for an id.
    """
    blocks = map(bytes.hex, map(draw, repeat(_BLOCK_BYTES)), repeat(" "), repeat(digits // 2))
    endless = chain.from_iterable(map(str.split, blocks))
    # Methods of these kinds are called without a tuple of arguments, unlike ``__ne__`` and ``__next__``.
    return partial(next, filterfalse(frozenset({"0" * digits}).__contains__, endless))


new_id: Final = ids(32)  # of a request, and of a trace
new_span_id: Final = ids(16)


class Parent(NamedTuple):
    """A caller's valid ``traceparent``: its trace, its span, and the flags that go on."""

    trace_id: str
    span_id: str
    flags: str

    @property
    def sampled(self) -> bool:
        """True if the caller records its span."""
        return int(self.flags, 16) & _SAMPLED != 0


def next_traceparent(parents: Sequence[bytes], states: Sequence[bytes]) -> TraceContext:
    """Continue the caller's trace under a new span id, or start one.

    ``parents`` and ``states`` are the values of the ``traceparent`` and ``tracestate`` fields. A new trace starts, and
    ``tracestate`` is dropped, if ``traceparent`` is absent, doubled or invalid.
    """
    span_id = new_span_id()
    if len(parents) == 1:
        parent = parents[0].decode("latin-1")
        if given := _version_00(parent) or _later_version(parent):
            trace_id, _, flags = given.groups()
            return _context(
                (
                    f"00-{trace_id}-{span_id}-{_SENT_FLAGS[flags]}",
                    trace_id,
                    span_id,
                    state_of(states) if states else None,
                )
            )
    trace_id = new_id()
    return _context((f"00-{trace_id}-{span_id}-03", trace_id, span_id, None))


def parent_of(parents: Sequence[bytes]) -> Parent | None:
    """Return the caller's context; None if ``traceparent`` is absent, doubled or invalid."""
    if len(parents) != 1:
        return None
    parent = parents[0].decode("latin-1")
    given = _version_00(parent) or _later_version(parent)
    if given is None:
        return None
    trace_id, span_id, flags = given.groups()
    return Parent(trace_id, span_id, _SENT_FLAGS[flags])


def state_of(states: Sequence[bytes]) -> str | None:
    """Join the members of all lines in order; limits remove whole members, long ones (over 128) first."""
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
