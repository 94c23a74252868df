"""Header fields across the sidecar: those it forwards, and those it sets. Pure: a message in, edits to its fields out.

Towards an agent and mesh peers a field passes if its name can be taken neither for one of ours nor for another proxy's
word (``trusted_names.py``).
A rule is asked once for each set of names; trailers pass in no direction (``wire/framing.py``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from sidecar.delegation.permit import Permit
from sidecar.delegation.plan import Plan
from sidecar.delegation.scope import format_scope
from sidecar.errors import Denied, Reason
from sidecar.exchange.cache import Issued
from sidecar.observe.access_log import Entry
from sidecar.observe.tracing import TraceContext
from sidecar.proxy.journeys.random_text import random_128
from sidecar.proxy.journeys.trusted_names import is_trusted_name
from sidecar.wire.message import NOT_PASSED, Edits, Field, Message, Passes, Request, new_edits

MAX_VALUE_BYTES: Final = 6144

# Printable ASCII without the space and the escape character itself: what is left is encoded, so two values never meet.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"\\,;')

# A server may take one mark of punctuation for another: all of them become hyphens before names are compared.
_FOLDED: Final = bytes(code if chr(code).isascii() and chr(code).isalnum() else 0x2D for code in range(256)).lower()

TXN_TOKEN: Final = b"txn-token"  # draft-ietf-oauth-transaction-tokens-09 section 12.1
IDENTITY: Final = (b"delegation-subject", b"delegation-subject-issuer", b"delegation-actor", b"delegation-scope")
_FOR_AGENT: Final[tuple[bytes, ...]] = (
    b"host",
    *IDENTITY,
    b"authorization",
    b"delegation-handle",
    b"delegation-request-id",
    b"traceparent",
)
_FOR_NEXT_HOP: Final[tuple[bytes, ...]] = (b"host", b"authorization", b"delegation-call", b"traceparent")
# No caller's field of these names passes: a field that we set, in one of these tuples, is ours alone.
_SET_BY_US: Final = NOT_PASSED | {*_FOR_AGENT, *_FOR_NEXT_HOP, b"tracestate", TXN_TOKEN}
_CREDENTIALS: Final = frozenset({b"client-cert", b"client-cert-chain", b"x-forwarded-client-cert"})
_STAY_INSIDE: Final = _SET_BY_US | _CREDENTIALS
_OUR_PREFIX: Final = b"delegation-"
_PASS_BACK: Final = frozenset({b"delegation-reason", b"delegation-request-id"})
# The way the judged call reached us: over TLS, under this authority, from this address.
_FORWARDED: Final = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-for")
CALL_ID: Final = b"delegation-call"
_CALL: Final = re.compile(rb"[0-9a-f]{32}")


def encode_value(text: str) -> bytes:
    """A header value that stands for exactly one text: UTF-8, percent-encoded outside plain printable ASCII.

    Raises:
        Denied: MALFORMED_TOKEN, the encoded text is longer than a header may be. It is never cut: two subjects that
            share a beginning would become one.
    """
    try:
        encoded = quote(text, safe=_PLAIN).encode("ascii")
    except UnicodeEncodeError as error:
        raise Denied(Reason.MALFORMED_TOKEN, "a claim holds a lone surrogate") from error
    if len(encoded) > MAX_VALUE_BYTES:
        raise Denied(Reason.MALFORMED_TOKEN, "a claim is too long for a header")
    return encoded


def identity_values(permit: Permit) -> tuple[bytes, ...]:
    """The values by which an agent learns who calls it, and for whom: the same for every request of a permit.

    Raises:
        Denied: as ``encode_value``.
    """
    token = permit.token
    return (
        encode_value(token.subject),
        encode_value(token.issuer),
        permit.peer.encode("ascii"),
        format_scope(token.scope).encode("ascii"),
    )


def to_agent(
    request: Request,
    permit: Permit,
    identity: tuple[bytes, ...],
    *,
    entry: Entry,
    handle: str,
    trace: TraceContext,
    host: bytes,
    source: str | None = None,
) -> Edits:
    """Edits to an authorised request for the agent: who calls, for whom, and the handle instead of the token.

    The handle also comes in a field of its own, for agents that put a credential of their own into Authorization. Where
    the route says ``pass_token`` the token comes too, in ``Delegation-Token``: ``Authorization`` is the handle's in any
    case, so that an agent which forwards it can call out. ``source`` is the peer's address, where the route says
    ``forwarded``: the agent is told how the call reached us. ``identity``: the permit's ``identity_values``; ``entry``
    is the request's record.
    """
    names, shown = _FOR_AGENT, handle.encode()
    values: tuple[bytes, ...] = (
        host,
        *identity,
        b"Bearer " + shown,
        shown,
        entry.request_id.encode("ascii"),
        trace.traceparent.encode("ascii"),
    )
    if trace.tracestate is not None:
        names, values = (*names, b"tracestate"), (*values, trace.tracestate.encode("ascii"))
    if permit.route.pass_token or source is not None:
        for name, value in told_by_route(permit, request, source):
            names, values = (*names, name), (*values, value)
    return new_edits((passes_to_mesh, names, values))


def told_by_route(permit: Permit, request: Request, source: str | None) -> list[Field]:
    """Return the fields that an agent gets because its route says so: the token, and how the call reached us."""
    told = [(b"delegation-token", permit.token.raw.encode("ascii"))] if permit.route.pass_token else []
    if source is None:
        return told
    values = b"https", request.authority.encode("ascii"), source.encode("ascii")
    return [*told, *zip(_FORWARDED, values, strict=True)]


def to_observed_agent(
    request: Request, *, request_id: str, trace: TraceContext, host: bytes, forwarded: tuple[bytes, str] | None = None
) -> Edits:
    """Edits to a request that only passes because its route observes: its own Authorization, and nobody's name.

    ``forwarded``: the scheme by which the call reached us, and the caller's address, where the route says so.
    """
    names: tuple[bytes, ...] = (b"host", b"delegation-request-id", b"traceparent")
    values: tuple[bytes, ...] = (host, request_id.encode("ascii"), trace.traceparent.encode("ascii"))
    if trace.tracestate is not None:
        names, values = (*names, b"tracestate"), (*values, trace.tracestate.encode("ascii"))
    if forwarded is not None:
        scheme, source = forwarded
        names, values = names + _FORWARDED, (*values, scheme, request.authority.encode("ascii"), source.encode("ascii"))
    return new_edits((passes_observed, names, values))


def to_observed_next_hop(*, call: str, trace: TraceContext, host: bytes) -> Edits:
    """Edits to a call that only passes because its route observes: the agent's own Authorization stays."""
    names: tuple[bytes, ...] = (b"host", b"delegation-call", b"traceparent")
    values: tuple[bytes, ...] = (host, call.encode("ascii"), trace.traceparent.encode("ascii"))
    if trace.tracestate is not None:
        names, values = (*names, b"tracestate"), (*values, trace.tracestate.encode("ascii"))
    return new_edits((passes_observed, names, values))


def source_of(address: object) -> str:
    """The host of a peer's socket address, as X-Forwarded-For names it; ``unknown`` (RFC 7239) where there is none."""
    return str(address[0]) if isinstance(address, tuple) and address else "unknown"


def to_next_hop(
    issued: Issued,
    plan: Plan,
    _entry: Entry,
    *,
    call: str,
    trace: TraceContext,
    host: bytes,
) -> Edits:
    """Edits to an outbound call: the agent's own credentials are gone, the issued token is in their place.

    A route that names no peer leads out of the mesh.
    """
    passes = passes_outside if plan.route.peer is None else passes_to_mesh
    values: tuple[bytes, ...] = (
        host,
        b"Bearer " + issued.permit.token.raw.encode("ascii"),
        call.encode("ascii"),
        trace.traceparent.encode("ascii"),
    )
    if trace.tracestate is not None:
        state = trace.tracestate.encode("ascii")
        return new_edits((passes, (*_FOR_NEXT_HOP, b"tracestate"), (*values, state)))
    return new_edits((passes, _FOR_NEXT_HOP, values))


def call_id(request: Message) -> str | None:
    """The ``Delegation-Call`` of the calling sidecar: 32 lower-case hex digits, or None. Evidence, never input.

    Raises:
        Denied: HEADER_MALFORMED, there are two.
    """
    value = request.one(CALL_ID)
    return value.decode("ascii") if value is not None and _CALL.fullmatch(value) else None


def new_call_id() -> str:
    """A new ``Delegation-Call``: 128 random bits that join the records at both ends of a call."""
    return random_128()


def folded(name: bytes) -> bytes:
    """Return a (lower-case) name as servers compare names that take one mark of punctuation for another."""
    return name.translate(_FOLDED)


@lru_cache(maxsize=64)  # by rules and sets, of which there are a handful: the wire remembers each rule's outcome
def without(passes: Passes, names: frozenset[bytes]) -> Passes:
    """Return the rule by which fields of these names, in any spelling, do not pass, and others as by ``passes``."""

    def rule(name: bytes) -> bool:
        return folded(name) not in names and passes(name)

    return rule


def passes_to_mesh(name: bytes) -> bool:
    """Tell whether a caller's field of this (lower-case) name may reach an agent or a mesh peer."""
    return not (name.translate(_FOLDED) in _SET_BY_US or name.startswith(_OUR_PREFIX) or is_trusted_name(name))


def passes_outside(name: bytes) -> bool:
    """Tell whether an agent's field of this (lower-case) name may reach a host outside the mesh."""
    shown = folded(name)
    return not (shown in _STAY_INSIDE or shown.startswith(_OUR_PREFIX))


def passes_observed(name: bytes) -> bool:
    """Tell whether a field of this (lower-case) name may go with a call that only passes because its route observes."""
    return name == b"authorization" or passes_to_mesh(name)


def passes_from_agent(name: bytes) -> bool:
    """Tell whether a field of the agent's answer may reach the peer: an agent cannot speak in the sidecar's name."""
    return name not in NOT_PASSED and not name.translate(_FOLDED).startswith(_OUR_PREFIX)


def passes_from_next_hop(name: bytes) -> bool:
    """Tell whether a field of a next hop's answer may reach the agent: of ours the reason and id of a refusal.

    Those two pass in their one spelling, so that the agent's framework cannot read another field in their place.
    """
    return name in _PASS_BACK or passes_from_agent(name)


FROM_AGENT: Final = Edits(passes_from_agent)
FROM_NEXT_HOP: Final = Edits(passes_from_next_hop)
