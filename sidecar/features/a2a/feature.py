"""A2A in both directions: serves copies of agent cards, and binds tasks to the principals that began them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from delegation_core.a2a_rules import CARD_METHODS
from delegation_core.permit import IssuedPermit
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.target import CanonicalTarget
from sidecar.features.a2a.agent_cards import AgentCards, is_card_of_next_hop, rewrite_for_agent
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
    from sidecar.features.a2a.warm import WarmA2aInbound, WarmA2aOutbound
    from sidecar.proxy.journeys.inbound import Inbound
    from sidecar.proxy.journeys.outbound import Outbound
    from sidecar.proxy.native.warm import WarmSide


class Feature:
    """A2A. ``bindings`` are the tasks and contexts of the process."""

    def __init__(self, features: Features) -> None:
        self.bindings = TaskBindings(features.clock)
        if features.engine == "native":
            import_module("sidecar.features.a2a.warm")  # now, so that no message waits for it

    def inbound(self, side: Inbound) -> A2aInbound:
        """Return the inbound protocol."""
        return A2aInbound(AgentCards(side.forwarder.pool, side.tasks), self.bindings)

    def outbound(self, side: Outbound) -> A2aOutbound:
        """Return the outbound protocol."""
        return A2aOutbound(AgentCards(side.forwarder.pool, side.tasks), side)


class A2aInbound(InboundSide):
    """Inbound A2A. The sidecar serves the agent's ``cards``."""

    def __init__(self, cards: AgentCards, bindings: TaskBindings) -> None:
        self._cards = cards
        self._bindings = bindings

    def new_operation(self) -> A2aOperation:
        """Return an empty operation; its ``find`` reads the request."""
        return A2aOperation()

    def answers(self, target: CanonicalTarget, policy: Policy) -> bool:
        """Return True for the path of a card."""
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
        """Answer with the agent's card. Raises SidecarError, as ``AgentCards.serve_peer``."""
        assert peer is not None  # noqa: S101 - for the type only: callers without TLS get no card
        agent = snapshot.require_agent()
        yield from self._cards.serve_peer(stream, head, target.path, peer, snapshot.policy, agent, entry)

    def forwarding(self, operation: A2aOperation, _session: None, way: Way, policy: Policy) -> Forwarding:
        """Make the forwarding to the agent. Raises Denied, as ``forwarding_of``."""
        return forwarding_of(way, operation, self._bindings, policy)

    def warm(self, side: WarmSide) -> WarmA2aInbound:
        """Return the handler of messages for the native engine."""
        from sidecar.features.a2a.warm import WarmA2aInbound

        return WarmA2aInbound(side, self._bindings)


class A2aOutbound(OutboundSide):
    """Outbound A2A. The sidecar serves the ``cards`` of next hops to the agent."""

    methods = CARD_METHODS

    def __init__(self, cards: AgentCards, side: Outbound) -> None:
        self._cards = cards
        self._origins = side.origins

    def new_operation(self) -> A2aOperation:
        """Return an empty operation; its ``find`` reads the call."""
        return A2aOperation()

    def answers(self, target: CanonicalTarget) -> bool:
        """Return True for the path of a card."""
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
        """Answer with the next hop's card. Raises SidecarError, as ``Origins.of`` and ``AgentCards.serve_agent``."""
        origin = self._origins.of(route, snapshot.policy.workload)
        yield from self._cards.serve_agent(stream, head, target, route, origin, entry)

    def forwarding(self, operation: A2aOperation, way: Way) -> Forwarding:
        """Make the forwarding to the next hop; that of an extended card rewrites the card."""
        if operation.key != EXTENDED_CARD:
            return Forwarding(*way)
        permit, head = way.permit, way.head
        assert isinstance(permit, IssuedPermit)  # noqa: S101 - for the type only
        route = permit.plan.route
        return CardForwarding(way, operation, lambda card: rewrite_for_agent(card, route, head))

    def note_answer(self, answer: Response | None, entry: Entry) -> None:
        """Note in the record that the next hop's sidecar refused the call."""
        note_refusal(answer, entry)

    def warm(self, side: WarmSide) -> WarmA2aOutbound:
        """Return the handler of messages for the native engine."""
        from sidecar.features.a2a.warm import WarmA2aOutbound

        return WarmA2aOutbound(side)
