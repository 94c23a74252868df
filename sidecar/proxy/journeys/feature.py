"""Interfaces between the journeys and a feature: a protocol above HTTP, one class per direction.

A route names its protocol. For a protocol other than plain HTTP the journey calls the feature of that name. The feature
answers the request itself, or parses its operation; the journey then decides on that operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.operation import Operation

if TYPE_CHECKING:
    from delegation_core.permit import ObservedPermit, Permit
    from delegation_core.policy import Policy
    from delegation_core.route import InboundRoute
    from delegation_core.spiffe_id import SpiffeId
    from delegation_core.target import CanonicalTarget
    from sidecar.observe.access_log import Entry
    from sidecar.proxy.journeys.snapshot import Snapshot
    from sidecar.wire.message import Request, Response
    from sidecar.wire.stream import Stream


class Features(Protocol):
    """The features of the whole sidecar, imported where they are used."""

    def of(self, name: str) -> Any:
        """Return a feature by its name; the first call imports it."""

    def used(self, name: str) -> Any | None:
        """Return a feature if it has been imported, else None."""

    def load(self, names: Iterable[str]) -> None:
        """Import these features now, so that no request waits for an import."""


class InboundProtocol(Protocol):
    """A protocol in front of the agent."""

    def new_operation(self) -> Operation:
        """Return an empty operation, for ``Operation.find`` to fill from a request."""

    def answers(self, target: CanonicalTarget, policy: Policy) -> bool:
        """Return True if the sidecar itself answers requests for this target."""

    def answer(
        self,
        stream: Stream,
        head: Request,
        target: CanonicalTarget,
        route: InboundRoute,
        peer: SpiffeId | None,
        snapshot: Snapshot,
        entry: Entry,
    ) -> Journey[None]:
        """Answer a request in place of the agent. Raises SidecarError to refuse it."""

    def open(self, operation: Any, head: Request, permit: Permit | ObservedPermit, now: int) -> Any:
        """Return the session of a permitted request, to pass to ``forwarding``; its type is the protocol's own.

        Raises:
            Denied: the request names a session of another caller.
        """

    def forwarding(self, operation: Any, session: Any, way: Way, policy: Policy) -> Forwarding:
        """Make the forwarding to the agent. Raises Denied, for the protocol's own reasons."""


class OutboundProtocol(Protocol):
    """A protocol of the agent's own calls. ``methods`` are the methods of calls that the sidecar itself answers."""

    methods: Collection[str]

    def new_operation(self) -> Operation:
        """Return an empty operation, for ``Operation.find`` to fill from a call."""

    def answers(self, target: CanonicalTarget) -> bool:
        """Return True if the sidecar itself answers calls for this target."""

    def answer(
        self, stream: Stream, head: Request, target: CanonicalTarget, route: Any, snapshot: Snapshot, entry: Entry
    ) -> Journey[None]:
        """Answer a call in place of the next hop. Raises SidecarError to refuse it."""

    def forwarding(self, operation: Any, way: Way) -> Forwarding:
        """Make the forwarding to the next hop. Raises Denied, for the protocol's own reasons."""

    def note_answer(self, answer: Response | None, entry: Entry) -> None:
        """Note in the record facts about the call from the next hop's answer."""
