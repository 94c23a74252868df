"""Errors of connections to upstreams, for any version of HTTP: what their senders may repeat or answer otherwise."""

from __future__ import annotations

from delegation_core.errors import Denied, Reason, Unavailable


class StaleConnection(Unavailable):
    """Failure of a reused connection before one byte of an answer: the upstream may never have seen the request."""


class UnseenRequest(StaleConnection):
    """Failure of a request that its upstream has not begun to process, as it states (RFC 9113 section 8.7).

    ``body`` is the whole content, for a retry; None: part of it may be lost.
    """

    def __init__(self, detail: str, body: bytes | None) -> None:
        super().__init__(Reason.UPSTREAM_UNREACHABLE, detail)
        self.body = body


class UpstreamCancelled(Denied):
    """The upstream cancelled a call. A gRPC call then ends with CANCELLED, not with the reason's usual status."""


def closed_unanswered(*, kept: bool) -> Unavailable:
    """Return the error of a connection that ended before an answer began. ``kept``: it had been idle in the pool."""
    if kept:
        return StaleConnection(Reason.UPSTREAM_UNREACHABLE, "a kept connection was closed")
    return Unavailable(Reason.UPSTREAM_UNREACHABLE, "the connection was closed before an answer")
