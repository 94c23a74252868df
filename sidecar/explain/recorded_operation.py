"""Finds the operation of a record in a route, and formats operations as settings write them. Pure."""

from __future__ import annotations

from delegation_core.grpc import key_of_path
from delegation_core.records.reading import Record
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.target import canonical_target
from sidecar.explain.judgement import names


def key_of(record: Record, route: InboundRoute | OutboundRoute) -> str | None:
    """Return the key of the recorded operation.

    For gRPC the path is more precise than ``op``, which is ``other`` for methods that the settings did not list. An
    outbound route may have added a prefix to the path.

    Raises:
        Denied: OPERATION_MALFORMED, the path names no method of a service; PATH_REFUSED.
    """
    if route.protocol != "grpc":
        return record.op
    path = canonical_target((record.path or "").encode()).path
    return key_of_path("/" + "/".join(path.rsplit("/", 2)[-2:]), b"")


def operation_seen(record: Record, route: InboundRoute | OutboundRoute) -> str:
    """Describe the recorded operation and the route's operations."""
    keys = () if route.operations is None else route.operations.keys
    listed = [key.replace(":", "/") for key in keys] if route.protocol == "grpc" else keys
    return f"{record.op} among {names(listed)}"
