"""Default sides of a protocol: they forward requests unchanged, and each protocol overrides its own steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from sidecar.delegation.permit import ObservedPermit, Permit
from sidecar.delegation.policy import Policy
from sidecar.delegation.route import InboundRoute
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.target import CanonicalTarget
from sidecar.features.operations.operation import Operation
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request, Response
from sidecar.wire.stream import Stream


class InboundSide(ABC):
    """A protocol in front of the agent: see ``InboundProtocol``."""

    @abstractmethod
    def new_operation(self) -> Operation:
        """Return the operation of a request that is not read yet."""

    def answers(self, _target: CanonicalTarget, _policy: Policy) -> bool:
        """Return False: the agent answers."""
        return False

    def answer(
        self,
        _stream: Stream,
        _head: Request,
        _target: CanonicalTarget,
        _route: InboundRoute,
        _peer: SpiffeId | None,
        _snapshot: Snapshot,
        _entry: Entry,
    ) -> Journey[None]:
        """Answer nothing."""
        yield from ()

    def open(self, _operation: Any, _head: Request, _permit: Permit | ObservedPermit, _now: int) -> Any:
        """Return None: the protocol keeps no session."""
        return None

    def forwarding(self, _operation: Any, _session: Any, way: Way, _policy: Policy) -> Forwarding:
        """Make the way to the agent and back."""
        return Forwarding(*way)


class OutboundSide(ABC):
    """A protocol behind the agent: see ``OutboundProtocol``."""

    methods: Collection[str] = ()

    @abstractmethod
    def new_operation(self) -> Operation:
        """Return the operation of a call that is not read yet."""

    def answers(self, _target: CanonicalTarget) -> bool:
        """Return False: the next hop answers."""
        return False

    def answer(
        self, _stream: Stream, _head: Request, _target: CanonicalTarget, _route: Any, _snapshot: Snapshot, _entry: Entry
    ) -> Journey[None]:
        """Answer nothing."""
        yield from ()

    def forwarding(self, _operation: Any, way: Way) -> Forwarding:
        """Make the way to the next hop and back."""
        return Forwarding(*way)

    def note_answer(self, answer: Response | None, entry: Entry) -> None:  # noqa: B027 - few have something to note
        """Record nothing: the status is enough."""
