"""Rules for header fields: which ones the sidecar forwards, and which ones it sets. Pure: a message in, edits out.

Towards an agent or a mesh peer, a field is dropped if its name resembles one of ours, or one that servers trust from a
proxy (``trusted_names.py``). The wire calls a rule once for each distinct set of names. Trailers never pass
(``wire/framing.py``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from delegation_core.errors import Denied, Reason
from delegation_core.permit import Permit
from delegation_core.plan import Plan
from delegation_core.scope import format_scope
from sidecar.exchange.cache import Issued
from sidecar.observe.access_log import Entry
from sidecar.observe.tracing import TraceContext
from sidecar.proxy.journeys.random_text import random_128
from sidecar.proxy.journeys.trusted_names import is_trusted_name
from sidecar.wire.message import NOT_PASSED, Edits, Field, Message, Passes, Request, new_edits

MAX_VALUE_BYTES: Final = 6144

# Printable ASCII without space, separators and the escape character. All else is encoded: no two values become equal.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"\\,;')

# A server may read one punctuation mark as another: fold all of them to hyphens before names are compared.
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
# A caller's fields of these names are dropped: only the sidecar sets them.
_SET_BY_US: Final = NOT_PASSED | {*_FOR_AGENT, *_FOR_NEXT_HOP, b"tracestate", TXN_TOKEN}
_CREDENTIALS: Final = frozenset({b"client-cert", b"client-cert-chain", b"x-forwarded-client-cert"})
_STAY_INSIDE: Final = _SET_BY_US | _CREDENTIALS
_OUR_PREFIX: Final = b"delegation-"
_PASS_BACK: Final = frozenset({b"delegation-reason", b"delegation-request-id"})
# How the call reached the sidecar: scheme, authority and address of the peer.
_FORWARDED: Final = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-for")
CALL_ID: Final = b"delegation-call"
_CALL: Final = re.compile(rb"[0-9a-f]{32}")


def encode_value(text: str) -> bytes:
    """Encode a text as a header value, reversibly: UTF-8, percent-encoded outside plain printable ASCII.

    Raises:
        Denied: MALFORMED_TOKEN, the value has more than ``MAX_VALUE_BYTES``, or the text a lone surrogate. The value is
            never cut: two subjects with the same prefix would become equal.
    """
    try:
        encoded = quote(text, safe=_PLAIN).encode("ascii")
    except UnicodeEncodeError as error:
        raise Denied(Reason.MALFORMED_TOKEN, "a claim holds a lone surrogate") from error
    if len(encoded) > MAX_VALUE_BYTES:
        raise Denied(Reason.MALFORMED_TOKEN, "a claim is too long for a header")
    return encoded


def identity_values(permit: Permit) -> tuple[bytes, ...]:
    """Return the values of the ``IDENTITY`` fields, by which an agent learns subject, actor and scope.

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
    """Return the edits to a permitted request for the agent: identity fields, and the handle instead of the token.

    ``Authorization`` always carries the handle, so that an agent which forwards it can call out. ``Delegation-Handle``
    carries it too, for agents that overwrite ``Authorization``. With ``pass_token`` the route adds the token as
    ``Delegation-Token``. ``source`` is the peer's address on a route with ``forwarded``, which adds ``X-Forwarded-*``;
    else None. ``identity``: the permit's ``identity_values``. ``entry``: the request's record.
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
    """Return the optional fields of a route: ``Delegation-Token`` (``pass_token``), ``X-Forwarded-*`` (``source``)."""
    told = [(b"delegation-token", permit.token.raw.encode("ascii"))] if permit.route.pass_token else []
    if source is None:
        return told
    values = b"https", request.authority.encode("ascii"), source.encode("ascii")
    return [*told, *zip(_FORWARDED, values, strict=True)]


def to_observed_agent(
    request: Request, *, request_id: str, trace: TraceContext, host: bytes, forwarded: tuple[bytes, str] | None = None
) -> Edits:
    """Return the edits to a request that passes only because its route observes.

    It keeps its own Authorization and gets no identity fields. ``forwarded``: scheme and caller's address for
    ``X-Forwarded-*``; None: the route does not add them.
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
    """Return the edits to a call that passes only because its route observes. It keeps the agent's Authorization."""
    names: tuple[bytes, ...] = (b"host", b"delegation-call", b"traceparent")
    values: tuple[bytes, ...] = (host, call.encode("ascii"), trace.traceparent.encode("ascii"))
    if trace.tracestate is not None:
        names, values = (*names, b"tracestate"), (*values, trace.tracestate.encode("ascii"))
    return new_edits((passes_observed, names, values))


def source_of(address: object) -> str:
    """Return the host of a peer's socket address for X-Forwarded-For; ``unknown`` (RFC 7239) if there is none."""
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
    """Return the edits to an outbound call: the issued token replaces the agent's own credentials.

    A route without a peer leaves the mesh: the rule for such hosts applies.
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
    """Return the ``Delegation-Call`` of a request, 32 lower-case hex digits, for its record; never decide by it.

    None: the field is absent or malformed.

    Raises:
        Denied: HEADER_MALFORMED, the field is repeated.
    """
    value = request.one(CALL_ID)
    return value.decode("ascii") if value is not None and _CALL.fullmatch(value) else None


def new_call_id() -> str:
    """Return a new ``Delegation-Call``: 128 random bits that join the records at both ends of a call."""
    return random_128()


def fold(name: bytes) -> bytes:
    """Return a name in lower case with every punctuation mark fold to a hyphen."""
    return name.translate(_FOLDED)


@lru_cache(maxsize=64)  # returns the same rule for the same arguments: the wire caches each rule's results
def without(passes: Passes, names: frozenset[bytes]) -> Passes:
    """Return a rule that drops fields of these (fold) names in any spelling, and asks ``passes`` for all others."""

    def rule(name: bytes) -> bool:
        return fold(name) not in names and passes(name)

    return rule


def passes_to_mesh(name: bytes) -> bool:
    """Return True if a caller's field of this (lower-case) name may reach an agent or a mesh peer."""
    return not (name.translate(_FOLDED) in _SET_BY_US or name.startswith(_OUR_PREFIX) or is_trusted_name(name))


def passes_outside(name: bytes) -> bool:
    """Return True if an agent's field of this (lower-case) name may reach a host outside the mesh."""
    shown = fold(name)
    return not (shown in _STAY_INSIDE or shown.startswith(_OUR_PREFIX))


def passes_observed(name: bytes) -> bool:
    """Return True if a field of this (lower-case) name may pass with a call on a route that observes."""
    return name == b"authorization" or passes_to_mesh(name)


def passes_from_agent(name: bytes) -> bool:
    """Return True if a field of the agent's answer may reach the peer. Fields in the sidecar's name do not."""
    return name not in NOT_PASSED and not name.translate(_FOLDED).startswith(_OUR_PREFIX)


def passes_from_next_hop(name: bytes) -> bool:
    """Return True if a field of a next hop's answer may reach the agent.

    Of the sidecar's own fields, only the reason and request id of a refusal pass. They pass in exactly one spelling, so
    that the agent's framework cannot read another field in their place.
    """
    return name in _PASS_BACK or passes_from_agent(name)


FROM_AGENT: Final = Edits(passes_from_agent)
FROM_NEXT_HOP: Final = Edits(passes_from_next_hop)
