"""Which headers pass, which are ours alone. Pure: heads in, header lines out.

A server behind us may fold ``_``, ``-`` and other punctuation into one (CGI, WSGI and many frameworks do), so a name
is compared after every character that is no letter or digit has become a dash: no spelling of one of our headers gets
through from outside. What is asked about the same names, subjects and scopes again and again is remembered.
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
from sidecar.proxy.unguessable import random_128
from sidecar.wire.head import NOT_PASSED, RequestHead, ResponseHead, checked, encode_fields

MAX_VALUE_BYTES: Final = 6144

# Printable ASCII without the space and the escape character itself: what is left is encoded, so two values never meet.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"\\,;')

_FOLDED: Final = bytes(code if chr(code).isascii() and chr(code).isalnum() else 0x2D for code in range(256)).lower()

_OURS: Final = NOT_PASSED.union(
    {
        b"authorization",
        b"client-cert",
        b"client-cert-chain",
        b"traceparent",
        b"tracestate",
        b"x-forwarded-client-cert",
        # What would make the agent serve another call than the one decided on.
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-uri",
        b"x-original-url",
        b"x-rewrite-url",
        b"host",
    },
)
_OUR_PREFIX: Final = b"delegation-"
_CALL: Final = re.compile(rb"[0-9a-f]{32}")


def is_ours(name: bytes) -> bool:
    """Whether a header of this (lower-case) name, or one a server may confuse with it, is set by a sidecar only."""
    folded = name.translate(_FOLDED)
    return folded in _OURS or folded.startswith(_OUR_PREFIX)


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
) -> bytes:
    """The lines of an authorised request for the agent: who calls, for whom, and the handle instead of the token.

    Where the route says ``pass_token`` the token comes too, in ``Delegation-Token``: ``Authorization`` is the handle's
    in any case, so that an agent which forwards it can call out.
    """
    token = permit.token
    ours = f"authorization: Bearer {handle}\r\ndelegation-request-id: {request_id}\r\n{_trace_lines(trace)}"
    count = 3 if trace.tracestate is None else 4
    if permit.route.pass_token:
        ours += f"delegation-token: {token.raw}\r\n"
        count += 1
    told = _told(token.subject, token.issuer, permit.peer, token.scope, host)
    return head.passing(_passes_on) + told + checked(ours.encode("ascii"), count)


def to_next_hop(
    head: RequestHead,
    permit: IssuedPermit,
    *,
    call: str,
    trace: TraceContext,
    host: bytes,
) -> bytes:
    """The lines of an outbound call: the agent's own credentials are gone, the issued token is in their place."""
    ours = f"authorization: Bearer {permit.token.raw}\r\ndelegation-call: {call}\r\n{_trace_lines(trace)}"
    lines = b"host: %b\r\n%b" % (host, ours.encode("ascii"))
    return head.passing(_passes_on) + checked(lines, 4 if trace.tracestate is None else 5)


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
    return head.passing(_passes_back)


def _passes_on(name: bytes) -> bool:
    return not is_ours(name)


def _passes_back(name: bytes) -> bool:
    return name not in NOT_PASSED and not name.translate(_FOLDED).startswith(_OUR_PREFIX)


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


def _trace_lines(trace: TraceContext) -> str:
    lines = f"traceparent: {trace.traceparent}\r\n"
    return lines if trace.tracestate is None else f"{lines}tracestate: {trace.tracestate}\r\n"
