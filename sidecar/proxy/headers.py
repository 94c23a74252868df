"""Header fields across the sidecar: the lines it forwards, and those it sets. Pure: heads in, header lines out.

Towards an agent and mesh peers a field passes if its name can be taken neither for one of ours nor for another proxy's
word (``trusted_names.py``). Towards a host outside the mesh only our own and the caller's credentials stay behind.
Whether a name passes is asked once for each distinct head; trailers pass in no direction (``wire/framing.py``).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from sidecar.delegation.decide import IssuedPermit, Permit
from sidecar.delegation.scope import ScopeSet, format_scope
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason
from sidecar.observe.tracing import TraceContext
from sidecar.proxy.random_text import random_128
from sidecar.proxy.trusted_names import is_trusted_name
from sidecar.wire.head import NOT_PASSED, RequestHead, ResponseHead, checked, encode_fields

MAX_VALUE_BYTES: Final = 6144

# Printable ASCII without the space and the escape character itself: what is left is encoded, so two values never meet.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"\\,;')

# A server may take one mark of punctuation for another: all of them become hyphens before names are compared.
_FOLDED: Final = bytes(code if chr(code).isascii() and chr(code).isalnum() else 0x2D for code in range(256)).lower()

_SET_BY_US: Final = NOT_PASSED | {b"authorization", b"host", b"traceparent", b"tracestate"}
_CREDENTIALS: Final = frozenset({b"client-cert", b"client-cert-chain", b"x-forwarded-client-cert"})
_STAY_INSIDE: Final = _SET_BY_US | _CREDENTIALS
_OUR_PREFIX: Final = b"delegation-"
_PASS_BACK: Final = frozenset({b"delegation-reason", b"delegation-request-id"})
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


def to_agent(
    head: RequestHead,
    permit: Permit,
    *,
    handle: str,
    request_id: str,
    trace: TraceContext,
    host: bytes,
    source: str | None = None,
) -> bytes:
    """The lines of an authorised request for the agent: who calls, for whom, and the handle instead of the token.

    Where the route says ``pass_token`` the token comes too, in ``Delegation-Token``: ``Authorization`` is the handle's
    in any case, so that an agent which forwards it can call out. ``source`` is the peer's address, where the route says
    ``forwarded``: the agent is told how the call reached us.
    """
    token = permit.token
    ours = f"authorization: Bearer {handle}\r\ndelegation-request-id: {request_id}\r\n{_trace_lines(trace)}"
    count = 3 if trace.tracestate is None else 4
    if permit.route.pass_token:
        ours += f"delegation-token: {token.raw}\r\n"
        count += 1
    told = _told(token.subject, token.issuer, permit.peer, token.scope, host)
    if source is not None:
        told += _forwarded(head.authority, source)
    return head.passing(passes_to_mesh) + told + checked(ours.encode("ascii"), count)


def source_of(address: object) -> str:
    """The host of a peer's socket address, as X-Forwarded-For names it; ``unknown`` (RFC 7239) where there is none."""
    return str(address[0]) if isinstance(address, tuple) and address else "unknown"


def to_next_hop(
    head: RequestHead,
    permit: IssuedPermit,
    *,
    call: str,
    trace: TraceContext,
    host: bytes,
) -> bytes:
    """The lines of an outbound call: the agent's own credentials are gone, the issued token is in their place.

    A route that names no peer leads out of the mesh.
    """
    passes = passes_outside if permit.plan.route.peer is None else passes_to_mesh
    ours = f"authorization: Bearer {permit.token.raw}\r\ndelegation-call: {call}\r\n{_trace_lines(trace)}"
    lines = b"host: %b\r\n%b" % (host, ours.encode("ascii"))
    return head.passing(passes) + checked(lines, 4 if trace.tracestate is None else 5)


def call_id(head: RequestHead) -> str | None:
    """The ``Delegation-Call`` of the calling sidecar: 32 lower-case hex digits, or None. Evidence, never input."""
    value = head.fresh.get(b"delegation-call")
    if value is None:
        if b"delegation-call" not in head.common.last:
            return None
        value, *more = head.values(b"delegation-call")
        if more:
            raise Denied(Reason.HEADER_MALFORMED, "two Delegation-Call fields")
    return value.decode("ascii") if _CALL.fullmatch(value) else None


def new_call_id() -> str:
    """A new ``Delegation-Call``: 128 random bits that join the records at both ends of a call."""
    return random_128()


def from_agent(head: ResponseHead) -> bytes:
    """The lines of the agent's answer for the peer: an agent cannot speak in the sidecar's name."""
    return head.passing(_passes_back_from_agent)


def from_next_hop(head: ResponseHead) -> bytes:
    """The lines of a next hop's answer for the agent: of our fields only the reason and request id of a refusal.

    Those two pass in their one spelling, so that the agent's framework cannot read another field in their place.
    """
    return head.passing(_passes_back_from_next_hop)


def passes_to_mesh(name: bytes) -> bool:
    """Tell whether a caller's field of this (lower-case) name may reach an agent or a mesh peer."""
    return not (name in _SET_BY_US or name.startswith(_OUR_PREFIX) or is_trusted_name(name))


def passes_outside(name: bytes) -> bool:
    """Tell whether an agent's field of this (lower-case) name may reach a host outside the mesh."""
    folded = name.translate(_FOLDED)
    return not (folded in _STAY_INSIDE or folded.startswith(_OUR_PREFIX))


def _passes_back_from_agent(name: bytes) -> bool:
    return name not in NOT_PASSED and not name.translate(_FOLDED).startswith(_OUR_PREFIX)


def _passes_back_from_next_hop(name: bytes) -> bool:
    return name in _PASS_BACK or _passes_back_from_agent(name)


@lru_cache(maxsize=1024)
def _told(subject: str, issuer: str, actor: SpiffeId, scope: ScopeSet, host: bytes) -> bytes:
    """Who calls whom, and for whom."""
    return encode_fields(
        (
            (b"host", host),
            (b"delegation-subject", encode_value(subject)),
            (b"delegation-subject-issuer", encode_value(issuer)),
            (b"delegation-actor", actor.encode("ascii")),
            (b"delegation-scope", format_scope(scope).encode("ascii")),
        )
    )


@lru_cache(maxsize=1024)
def _forwarded(authority: str, source: str) -> bytes:
    """How the judged call reached us: over TLS, under this authority, from this address."""
    return encode_fields(
        (
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", authority.encode("ascii")),
            (b"x-forwarded-for", source.encode("ascii")),
        )
    )


def _trace_lines(trace: TraceContext) -> str:
    lines = f"traceparent: {trace.traceparent}\r\n"
    return lines if trace.tracestate is None else f"{lines}tracestate: {trace.tracestate}\r\n"
