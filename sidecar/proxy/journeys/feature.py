"""Interfaces of a feature to the journeys: a protocol above HTTP, on a side of the sidecar.

A route names its protocol. On a route of plain HTTP nothing here runs. On any other one the journey asks the feature of
that name, which either answers a request itself or reads its operation, by which everything else is decided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.operation import Operation

if TYPE_CHECKING:
    from sidecar.delegation.permit import ObservedPermit, Permit
    from sidecar.delegation.policy import Policy
    from sidecar.delegation.route import InboundRoute
    from sidecar.delegation.spiffe_id import SpiffeId
    from sidecar.delegation.target import CanonicalTarget
    from sidecar.observe.access_log import Entry
    from sidecar.proxy.journeys.snapshot import Snapshot
    from sidecar.wire.message import Request, Response
    from sidecar.wire.stream import Stream


class Features(Protocol):
    """The features of the whole sidecar, imported where they are used."""

    def of(self, name: str) -> Any:
        """Return a feature by its name."""

    def used(self, name: str) -> Any | None:
        """Return a feature that is in use; None: it was never asked for."""

    def load(self, names: Iterable[str]) -> None:
        """Make features now, so that no request waits for an import."""


class InboundProtocol(Protocol):
    """A protocol in front of the agent."""

    def new_operation(self) -> Operation:
        """Return the operation of a request that is not read yet."""

    def answers(self, target: CanonicalTarget, policy: Policy) -> bool:
        """Tell if the sidecar itself answers requests for this target."""

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
        """Answer a request in place of the agent."""

    def open(self, operation: Any, head: Request, permit: Permit | ObservedPermit, now: int) -> Any:
        """Find what a permitted request goes on in, such as a session: the ``session`` of ``forwarding``.

        Raises:
            Denied: it names one that its caller does not have.
        """

    def forwarding(self, operation: Any, session: Any, way: Way, policy: Policy) -> Forwarding:
        """Make the way to the agent and back. Raises Denied, as that of its protocol."""


class OutboundProtocol(Protocol):
    """A protocol behind the agent. ``methods``: those of calls that the sidecar itself answers."""

    methods: Collection[str]

    def new_operation(self) -> Operation:
        """Return the operation of a call that is not read yet."""

    def answers(self, target: CanonicalTarget) -> bool:
        """Tell if the sidecar itself answers calls for this target."""

    def answer(
        self, stream: Stream, head: Request, target: CanonicalTarget, route: Any, snapshot: Snapshot, entry: Entry
    ) -> Journey[None]:
        """Serve such a call to its end."""

    def forwarding(self, operation: Any, way: Way) -> Forwarding:
        """Make the way to the next hop and back."""

    def note_answer(self, answer: Response | None, entry: Entry) -> None:
        """Note in the record what the answer of the next hop says of the call."""
