"""Default directions of a protocol: they forward requests unchanged; each protocol overrides some methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from delegation_core.permit import ObservedPermit, Permit
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.target import CanonicalTarget
from sidecar.features.operations.operation import Operation
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.journey import Journey
from sidecar.proxy.journeys.snapshot import Snapshot
from sidecar.wire.message import Request, Response
from sidecar.wire.stream import Stream


class InboundSide(ABC):
    """Inbound direction of a protocol: implements ``InboundProtocol``."""

    @abstractmethod
    def new_operation(self) -> Operation:
        """Return an empty operation; its ``find`` reads the request."""

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
        """Make the forwarding to the agent."""
        return Forwarding(*way)


class OutboundSide(ABC):
    """Outbound direction of a protocol: implements ``OutboundProtocol``."""

    methods: Collection[str] = ()

    @abstractmethod
    def new_operation(self) -> Operation:
        """Return an empty operation; its ``find`` reads the call."""

    def answers(self, _target: CanonicalTarget) -> bool:
        """Return False: the next hop answers."""
        return False

    def answer(
        self, _stream: Stream, _head: Request, _target: CanonicalTarget, _route: Any, _snapshot: Snapshot, _entry: Entry
    ) -> Journey[None]:
        """Answer nothing."""
        yield from ()

    def forwarding(self, _operation: Any, way: Way) -> Forwarding:
        """Make the forwarding to the next hop."""
        return Forwarding(*way)

    def note_answer(self, answer: Response | None, entry: Entry) -> None:  # noqa: B027 - few have something to note
        """Note nothing: the answer's status is in the record anyway."""
