"""Credentials that the agent shows when it calls out: a handle, or, at an entry, a user's login token."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sidecar.errors import Denied, Reason
from sidecar.wire.message import Message

_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/=-]+)", re.IGNORECASE)
_HANDLE_ALONE: Final = re.compile(rb"Bearer ([A-Za-z0-9_-]{43,44})")
_HANDLE: Final = re.compile(r"[A-Za-z0-9_-]{43,44}")  # with the mark of a worker, where there are several


class Credential(NamedTuple):
    """At least one is set; ``token`` is anything a bearer scheme carries that is not a handle."""

    handle: str | None = None
    token: str | None = None


def credential_of(request: Message) -> Credential:
    """Read ``Authorization`` and ``Delegation-Handle``; names are lower case.

    Raises:
        Denied: HEADER_MALFORMED (a doubled Authorization), NO_REQUEST_CONTEXT (neither is there or usable, or there
            are two handles: nobody can say which request is meant). One handle may be in both fields.
    """
    own = request.all(b"delegation-handle")
    if not own:
        alone = _HANDLE_ALONE.fullmatch(request.one(b"authorization") or b"")
        if alone is not None:
            return Credential(alone[1].decode("ascii"))
    if len(own) > 1:  # also twice the same: two hands have written this head
        raise Denied(Reason.NO_REQUEST_CONTEXT, "two Delegation-Handle fields")
    authorization = request.one(b"authorization") or b""
    handles = {value.decode("latin-1") for value in own}
    bearer = _BEARER.fullmatch(authorization)
    token: str | None = None
    if bearer is not None:
        shown = bearer[1].decode("ascii")
        if _HANDLE.fullmatch(shown):
            handles.add(shown)
        else:
            token = shown
    if len(handles) > 1:
        raise Denied(Reason.NO_REQUEST_CONTEXT, "two different handles")
    if not handles and (token is None or "." not in token):  # anything but a JWT can only be meant as a handle
        raise Denied(Reason.NO_REQUEST_CONTEXT, "no handle")
    return Credential(next(iter(handles), None), token)
