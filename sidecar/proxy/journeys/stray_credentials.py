"""Finds credentials anywhere in calls that leave the mesh or pass on a route that observes. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from delegation_core.errors import Denied, Reason
from delegation_core.observed import issuers_in
from sidecar.proxy.journeys.credentials import BEARER, HANDLE, RUN, decode_basic, handles_in, handles_of
from sidecar.proxy.journeys.handles import HANDLE_CHARS
from sidecar.wire.message import Message, Request

_BEARER_OR_TOKEN: Final = re.compile(rb"(?:bearer|token) +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)  # GitHub's clients
_OWN_FIELDS: Final = (
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"x-auth-token",
    b"private-token",
    b"cookie",
)
_LIKE_A_CREDENTIAL: Final = re.compile(
    rb"(?:key|token|secret|password|passwd|credentials?|auth|authorization|cookie2?)$"
)
_NO_CREDENTIALS: Final = frozenset(
    {
        b"delegation-token",
        b"idempotency-key",
        b"x-idempotency-key",
        b"sec-websocket-key",
        b"surrogate-key",
        b"proxy-authorization",
    }
    | {b"csrf-token", b"x-csrf-token", b"x-xsrf-token"}
)
_OWN_PLACE: Final = frozenset({b"delegation-handle"})
_PROXY_PLACE: Final = frozenset({b"proxy-authorization"})
_GUESSABLE: Final = frozenset({"basic", "digest", "cookie"})
_ESCAPED_AGAIN: Final = re.compile(rb"%(?:25)+(?=[0-9A-Fa-f]{2})")  # an escape that was escaped any number of times
_UNESCAPED: Final = 3  # rounds: parts of an escape may be escaped themselves


class Strays(NamedTuple):
    """``alone``: texts with the form of a handle. ``longer``: texts that may contain a handle at any place."""

    alone: Collection[str]
    longer: Collection[str]


def handle_for_outside(request: Message, *, in_authorization: bool) -> str:
    """Return the handle of a call to a host outside the mesh, from ``Delegation-Handle``, or from Authorization too.

    Raises:
        Denied: NO_REQUEST_CONTEXT, there is none, or there are two; HEADER_MALFORMED, Authorization is repeated.
    """
    own = request.all(b"delegation-handle")
    handles = {value.decode("latin-1") for value in own}
    authorization = request.one(b"authorization")
    shown = _BEARER_OR_TOKEN.fullmatch(authorization or b"")
    if in_authorization and shown is not None and HANDLE.fullmatch(shown[1].decode("ascii")):
        handles.add(shown[1].decode("ascii"))
    if len(own) > 1 or len(handles) > 1:
        raise Denied(Reason.NO_REQUEST_CONTEXT, "two handles")
    if not handles:
        where = "Delegation-Handle or Authorization" if in_authorization else "Delegation-Handle"
        raise Denied(Reason.NO_REQUEST_CONTEXT, f"no handle in {where}")
    return handles.pop()


def handle_for_tunnel(request: Message) -> str | None:
    """Return the handle of a CONNECT from ``Proxy-Authorization``: the Bearer token, or the password of Basic.

    None: the field is absent, so the call names no request.

    Raises:
        Denied: NO_REQUEST_CONTEXT, the field has no handle, or has one as user name; HEADER_MALFORMED, the field is
            repeated.
    """
    value = request.one(b"proxy-authorization")
    if value is None:
        return None
    shown = BEARER.fullmatch(value)
    user, _, secret = (b"", b"", shown[1]) if shown is not None else decode_basic(value).partition(b":")
    handle = secret.decode("latin-1")
    if not HANDLE.fullmatch(handle) or list(handles_in(user)):
        raise Denied(Reason.NO_REQUEST_CONTEXT, "Proxy-Authorization does not show a handle as its token or password")
    return handle


def stray_handles(request: Request, *, in_authorization: bool) -> Strays:
    """Return possible handles in the wrong places of a call to a host outside the mesh.

    Right places are Delegation-Handle and, with ``in_authorization``, Authorization.
    """
    return _handles_outside(request, {b"delegation-handle", b"authorization"} if in_authorization else _OWN_PLACE)


def stray_handles_of_tunnel(request: Request) -> Strays:
    """Return possible handles of a CONNECT anywhere except in Proxy-Authorization."""
    return _handles_outside(request, _PROXY_PLACE)


def _handles_outside(request: Request, places: Collection[bytes]) -> Strays:
    texts = [request.target, _unescape(request.target)]
    for name, value in request.fields:
        if name not in places:
            texts += (value, _unescape(value))
        if name in (b"authorization", b"proxy-authorization") and places is not _PROXY_PLACE:
            texts.append(decode_basic(value))
    runs = {run.decode("ascii") for text in texts for run in RUN.findall(text) if len(run) >= HANDLE_CHARS}
    alone, longer = set(filter(HANDLE.fullmatch, runs)), {run for run in runs if len(run) > HANDLE_CHARS}
    if longer:  # may contain another worker's handle; asking that worker about every substring would cost too much
        alone.update(shown for shown in handles_of(request) if any(shown in run for run in longer))
    return Strays(alone, longer)


def issuers_shown(request: Request) -> set[str]:
    """Return the issuers of all tokens in the target and the fields of a call."""
    found: set[str] = set()
    for text in (request.target, *request.values):
        found |= issuers_in(text.decode("latin-1")) | issuers_in(_unescape(text).decode("latin-1"))
    for name, value in request.fields:
        if name in (b"authorization", b"proxy-authorization"):
            found |= issuers_in(decode_basic(value).decode("latin-1"))
    return found


def own_credentials(request: Message) -> list[tuple[str, bytes | None]]:
    """Return kind and secret of each credential of the agent's own.

    The secret is None for Basic, Digest and cookies, because a fingerprint of a guessable secret reveals it. It is None
    too for a field that resembles a credential only by its name, because its value may change with each call.

    Raises:
        Denied: HEADER_MALFORMED, a field of credentials is repeated.
    """
    values = ((name, request.one(name)) for name in _OWN_FIELDS)
    shown = [_kind_and_secret(name, value) for name, value in values if value is not None]
    alike = (name for name in request.layout.places if name not in _OWN_FIELDS and name not in _NO_CREDENTIALS)
    shown += [(name.decode("ascii"), None) for name in alike if _LIKE_A_CREDENTIAL.search(name)]
    return list(dict.fromkeys(shown))


def _kind_and_secret(name: bytes, value: bytes) -> tuple[str, bytes | None]:
    scheme, space, rest = value.partition(b" ")
    if name != b"authorization" or not space:
        scheme, rest = name, value
    kind = scheme.decode("latin-1").lower()
    return kind, None if kind in _GUESSABLE else rest.strip()


def _unescape(text: bytes) -> bytes:
    """Return the text with percent-escapes decoded, even if escaped repeatedly; empty if there are none."""
    if b"%" not in text:
        return b""
    for _ in range(_UNESCAPED):
        text = unquote_to_bytes(_ESCAPED_AGAIN.sub(b"%", text))
        if b"%" not in text:
            break
    return text
