"""A2A on both sides: copies of agent cards, and tasks that exist for whoever they were made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.delegation.a2a_rules import CARD_METHODS
from sidecar.delegation.permit import IssuedPermit
from sidecar.delegation.policy import Policy
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.target import CanonicalTarget
from sidecar.features.a2a.agent_cards import AgentCards, is_card_of_next_hop, rewritten_for_agent
from sidecar.features.a2a.answers import EXTENDED_CARD, CardForwarding, note_refusal
from sidecar.features.a2a.forwarding import forwarding_of
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.a2a.task_bindings import TaskBindings
from sidecar.features.operations.sides import InboundSide, OutboundSide
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request, Response
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from sidecar.features import Features
    from sidecar.proxy.journeys.inbound import Inbound
    from sidecar.proxy.journeys.outbound import Outbound


class Feature:
    """A2A. ``bindings`` are the tasks and contexts of the whole sidecar."""

    def __init__(self, features: Features) -> None:
        self.bindings = TaskBindings(features.clock)

    def inbound(self, side: Inbound) -> A2aInbound:
        """Return the part in front of the agent."""
        return A2aInbound(AgentCards(side.forwarder.pool, side.tasks), self.bindings)

    def outbound(self, side: Outbound) -> A2aOutbound:
        """Return the part behind the agent."""
        return A2aOutbound(AgentCards(side.forwarder.pool, side.tasks), side)


class A2aInbound(InboundSide):
    """A2A in front of the agent, whose ``cards`` the sidecar serves."""

    def __init__(self, cards: AgentCards, bindings: TaskBindings) -> None:
        self._cards = cards
        self._bindings = bindings

    def new_operation(self) -> A2aOperation:
        """Return the operation of a request that is not read yet."""
        return A2aOperation()

    def answers(self, target: CanonicalTarget, policy: Policy) -> bool:
        """Tell if a card is asked for."""
        return target.path in policy.inbound.cards

    def answer(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        _route: InboundRoute,
        peer: SpiffeId | None,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Answer with the agent's card."""
        assert peer is not None  # noqa: S101 - for the type only: of a caller without TLS no card is asked for here
        agent = snapshot.require_agent()
        yield from self._cards.serve_peer(stream, head, target.path, peer, snapshot.policy, agent, entry)

    def forwarding(self, operation: A2aOperation, _session: None, way: Way, policy: Policy) -> Forwarding:
        """Make the way to the agent and back. Raises Denied, as ``forwarding_of``."""
        return forwarding_of(way, operation, self._bindings, policy)


class A2aOutbound(OutboundSide):
    """A2A behind the agent, to whom the sidecar serves the ``cards`` of next hops."""

    methods = CARD_METHODS

    def __init__(self, cards: AgentCards, side: Outbound) -> None:
        self._cards = cards
        self._origins = side.origins

    def new_operation(self) -> A2aOperation:
        """Return the operation of a call that is not read yet."""
        return A2aOperation()

    def answers(self, target: CanonicalTarget) -> bool:
        """Tell if a card is asked for."""
        return is_card_of_next_hop(target)

    def answer(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: OutboundRoute,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Answer with the next hop's card."""
        origin = self._origins.of(route, snapshot.policy.workload)
        yield from self._cards.serve_agent(stream, head, target, route, origin, entry)

    def forwarding(self, operation: A2aOperation, way: Way) -> Forwarding:
        """Make the way to the next hop and back; an extended card is written again on its way."""
        if operation.key != EXTENDED_CARD:
            return Forwarding(*way)
        permit, head = way.permit, way.head
        assert isinstance(permit, IssuedPermit)  # noqa: S101 - for the type only
        route = permit.plan.route
        return CardForwarding(way, operation, lambda card: rewritten_for_agent(card, route, head))

    def note_answer(self, answer: Response | None, entry: Entry) -> None:
        """Note that the next hop's sidecar refused the call."""
        note_refusal(answer, entry)
