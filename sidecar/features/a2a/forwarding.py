"""Chooses the forwarding of an A2A request to the agent, after a check of the tasks and contexts that it names."""

from __future__ import annotations

from delegation_core.a2a_grpc_lists import cut_tasks as cut_tasks_by_grpc
from delegation_core.a2a_lists import cut_tasks
from delegation_core.a2a_tasks import LISTS
from delegation_core.errors import Denied
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute
from sidecar.features.a2a.agent_cards import rewrite_for_peer
from sidecar.features.a2a.answers import (
    EXTENDED_CARD,
    CardForwarding,
    TaskForwarding,
    TaskListForwarding,
)
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.a2a.task_bindings import UNSEEN, Making, Principal, TaskBindings
from sidecar.proxy.journeys.forward import Forwarding, Way


def forwarding_of(way: Way, asked: A2aOperation, bindings: TaskBindings, policy: Policy) -> Forwarding:
    """Return the forwarding of an A2A request to the agent.

    An observed request has no proven user: it binds no task, and sees no task of others.

    Raises:
        Denied: as ``TaskBindings.check``; the request is refused although its token permits it.
    """
    permit, head, entry = way.permit, way.head, way.entry
    assert isinstance(permit, Permit | ObservedPermit)  # noqa: S101 - for the type only: inbound permits are of these types
    route = permit.route
    assert isinstance(route, InboundRoute)  # noqa: S101 - likewise
    principal = principal_of(permit)
    proven = isinstance(permit, Permit)
    strict = proven and route.a2a.strict_tasks
    try:
        noted = bindings.check(asked.named, principal, strict=strict)
    except Denied:
        entry.decision = "deny"
        raise
    if proven:
        entry.detail = noted
    if asked.key == EXTENDED_CARD and principal.peer:  # a caller without TLS could not use the card's addresses
        return CardForwarding(way, asked, lambda card: rewrite_for_peer(card, route, policy, head))
    if asked.key == LISTS:

        def may_see(task: str, context: str | None) -> bool:
            seen = bindings.may_see(task, context, principal, strict=strict)
            if seen and proven and bindings.tasks.owner(task) is None:
                entry.detail = UNSEEN
            return seen

        def cut(document: bytes) -> bytes:
            if asked.grpc:
                return cut_tasks_by_grpc(document, may_see, first_page=asked.first_page)
            return cut_tasks(
                document, may_see, json_rpc=asked.json_rpc, first_page=asked.first_page, max_bytes=max_bytes
            )

        max_bytes = route.max_message_bytes
        return TaskListForwarding(way, max_bytes=max_bytes, cut=cut, grpc=asked.grpc)
    if proven and asked.named.begins:
        making = Making(bindings, asked.named, principal)
        return TaskForwarding(way, making, grpc=asked.grpc)
    return Forwarding(*way)


def principal_of(permit: Permit | ObservedPermit) -> Principal:
    """Return the principal of a request, who owns the tasks that it begins; without a user for an observed request."""
    if isinstance(permit, Permit):
        return Principal(permit.token.issuer, permit.token.subject, permit.peer)
    return Principal("", "", permit.peer or "")
