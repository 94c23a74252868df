"""Which headers pass, which are ours alone. Pure: header fields in, header fields out.

A server behind us may fold ``_``, ``-`` and other punctuation into one (CGI, WSGI and many frameworks do), so a name
is compared after every character that is no letter or digit has become a dash: no spelling of one of our headers gets
through from outside. What is asked about the same names, subjects and scopes again and again is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from sidecar.delegation.decide import IssuedPermit, Permit
from sidecar.delegation.scope import ScopeSet, format_scope
from sidecar.errors import Denied, Reason
from sidecar.observe.tracing import TraceContext
from sidecar.proxy.unguessable import random_hex
from sidecar.wire.head import FRAMING, HOP_BY_HOP

Field = tuple[bytes, bytes]

MAX_VALUE_BYTES: Final = 6144

# Printable ASCII without the space and the escape character itself: what is left is encoded, so two values never meet.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"\\,;')

_FOLDED: Final = bytes(code if chr(code).isascii() and chr(code).isalnum() else 0x2D for code in range(256)).lower()

_OURS: Final = HOP_BY_HOP.union(
    FRAMING,
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
        b"expect",
        b"host",
    },
)
_OUR_PREFIX: Final = b"delegation-"
_CALL: Final = re.compile(rb"[0-9a-f]{32}")


@lru_cache(maxsize=1024)
def is_ours(name: bytes) -> bool:
    """Whether a header of this (lower-case) name, or one a server may confuse with it, is set by a sidecar only."""
    folded = name.translate(_FOLDED)
    return folded in _OURS or folded.startswith(_OUR_PREFIX)


def single(fields: Sequence[Field], name: bytes) -> bytes | None:
    """The value of a field that may appear once.

    Raises:
        Denied: HEADER_MALFORMED, it appears more than once.
    """
    values = [value for field, value in fields if field == name]
    if len(values) > 1:
        raise Denied(Reason.HEADER_MALFORMED, f"{name.decode('ascii', 'replace')} appears more than once")
    return values[0] if values else None


@lru_cache(maxsize=1024)
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
    fields: Iterable[Field],
    permit: Permit,
    *,
    handle: str,
    request_id: str,
    trace: TraceContext,
    host: bytes,
) -> list[Field]:
    """The fields of an authorised request for the agent: who calls, for whom, and the handle instead of the token.

    Where the route says ``pass_token`` the token comes too, in ``Delegation-Token``: ``Authorization`` is the handle's
    in any case, so that an agent which forwards it can call out.
    """
    token = permit.token
    rewritten = [field for field in fields if not is_ours(field[0])]
    rewritten += (
        (b"host", host),
        (b"authorization", b"Bearer " + handle.encode("ascii")),
        (b"delegation-subject", encode_value(token.subject)),
        (b"delegation-subject-issuer", encode_value(token.issuer)),
        (b"delegation-actor", permit.peer.encode("ascii")),
        (b"delegation-scope", _encode_scope(token.scope)),
        (b"delegation-request-id", request_id.encode("ascii")),
    )
    if permit.route.pass_token:
        rewritten.append((b"delegation-token", token.raw.encode("ascii")))
    _add_trace(rewritten, trace)
    return rewritten


def to_next_hop(
    fields: Iterable[Field],
    permit: IssuedPermit,
    *,
    call: str,
    trace: TraceContext,
    host: bytes,
) -> list[Field]:
    """The fields of an outbound call: the agent's own credentials are gone, the issued token is in their place."""
    rewritten = [field for field in fields if not is_ours(field[0])]
    rewritten += (
        (b"host", host),
        (b"authorization", b"Bearer " + permit.token.raw.encode("ascii")),
        (b"delegation-call", call.encode("ascii")),
    )
    _add_trace(rewritten, trace)
    return rewritten


def call_id(fields: Sequence[Field]) -> str | None:
    """The ``Delegation-Call`` of the calling sidecar: 32 lower-case hex digits, or None. Evidence, never input."""
    value = single(fields, b"delegation-call")
    return value.decode("ascii") if value is not None and _CALL.fullmatch(value) else None


def new_call_id() -> str:
    """A new ``Delegation-Call``: 128 random bits that join the records at both ends of a call."""
    return random_hex(16)


def from_agent(fields: Iterable[Field]) -> list[Field]:
    """The fields of the agent's answer for the peer: an agent cannot speak in the sidecar's name."""
    return [field for field in fields if not _speaks_for_us(field[0])]


@lru_cache(maxsize=1024)
def _speaks_for_us(name: bytes) -> bool:
    return name.translate(_FOLDED).startswith(_OUR_PREFIX)


@lru_cache(maxsize=1024)
def _encode_scope(scope: ScopeSet) -> bytes:
    return format_scope(scope).encode("ascii")


def _add_trace(fields: list[Field], trace: TraceContext) -> None:
    fields.append((b"traceparent", trace.traceparent.encode("ascii")))
    if trace.tracestate is not None:
        fields.append((b"tracestate", trace.tracestate.encode("ascii")))
