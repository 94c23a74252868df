"""Parses the credentials of the agent's outbound calls: a handle, or at an entry a user's login token.

``stray_credentials`` does so for calls to hosts outside the mesh.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from delegation_core.errors import Denied, Reason
from sidecar.wire.message import Message

BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)
_HANDLE_ALONE: Final = re.compile(rb"Bearer ([A-Za-z0-9_-]{43,44})")
RUN: Final = re.compile(rb"[A-Za-z0-9_-]+")
HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{43,44}")  # 44 with the mark of one of several workers


class Credential(NamedTuple):
    """A call's credentials, at least one of the two. ``token``: a Bearer value without the form of a handle."""

    handle: str | None = None
    token: str | None = None


# The constructor of a named tuple is interpreted; tuple's own is not.
_new_credential: Final[Callable[[tuple[str | None, str | None]], Credential]] = partial(tuple.__new__, Credential)


def credential_of(request: Message) -> Credential:
    """Parse ``Authorization`` and ``Delegation-Handle``. Both may carry the same handle.

    Raises:
        Denied: HEADER_MALFORMED, Authorization is repeated; NO_REQUEST_CONTEXT, there is neither a handle nor a JWT,
            there are two different handles, or Delegation-Handle is repeated.
    """
    own = request.all(b"delegation-handle")
    if not own:
        alone = _HANDLE_ALONE.fullmatch(request.one(b"authorization") or b"")
        if alone is not None:
            return _new_credential((alone[1].decode("ascii"), None))
    if len(own) > 1:  # even with equal values: two writers each added the field
        raise Denied(Reason.NO_REQUEST_CONTEXT, "two Delegation-Handle fields")
    authorization = request.one(b"authorization") or b""
    handles = {value.decode("latin-1") for value in own}
    bearer = BEARER.fullmatch(authorization)
    token: str | None = None
    if bearer is not None:
        shown = bearer[1].decode("ascii")
        if HANDLE.fullmatch(shown):
            handles.add(shown)
        else:
            token = shown
    if len(handles) > 1:
        raise Denied(Reason.NO_REQUEST_CONTEXT, "two different handles")
    if not handles and (token is None or "." not in token):  # no dot, no JWT: a malformed handle
        raise Denied(Reason.NO_REQUEST_CONTEXT, "no handle")
    return Credential(next(iter(handles), None), token)


def handles_of(request: Message) -> list[str]:
    """Return each text that has the form of a handle in Delegation-Handle, Authorization or Proxy-Authorization."""
    found: list[str] = []
    for name in (b"delegation-handle", b"authorization", b"proxy-authorization"):
        for value in request.all(name):
            found += [*handles_in(value), *handles_in(decode_basic(value))]
    return list(dict.fromkeys(found))


def handles_in(text: bytes) -> Iterator[str]:
    """Yield each run of base64url characters in a text that has the form of a handle."""
    return (run.decode("ascii") for run in RUN.findall(text) if HANDLE.fullmatch(run.decode("ascii")))


def decode_basic(value: bytes) -> bytes:
    """Return the decoded ``user:password`` of a Basic credential; empty for any other value."""
    scheme, _, encoded = value.partition(b" ")
    try:
        return base64.b64decode(encoded) if scheme.lower() == b"basic" else b""
    except binascii.Error:
        return b""
