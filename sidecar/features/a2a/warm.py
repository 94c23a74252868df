"""A2A on the native engine: answers to messages that may begin a task are read as soon as they are complete."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from delegation_core.a2a_tasks import LISTS, AnswerReader
from delegation_core.permit import Permit
from delegation_core.target import CanonicalTarget
from sidecar.features.a2a.agent_cards import is_card_of_next_hop
from sidecar.features.a2a.answers import EXTENDED_CARD, NOT_ASKED_FOR, TaskForwarding
from sidecar.features.a2a.forwarding import principal_of
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.a2a.task_bindings import Making, TaskBindings
from sidecar.proxy.journeys.forward import Way
from sidecar.proxy.journeys.headers import without
from sidecar.proxy.native.ghosts import Ghost
from sidecar.proxy.native.warm_operations import OperationRead, Passed, WarmMessage
from sidecar.wire.message import Request

if TYPE_CHECKING:
    from sidecar.proxy.native.warm import WarmSide


class GhostTaskForwarding(Ghost, TaskForwarding):
    """Stands for the forwarding of a message to the agent; its answer may name a new task."""

    __slots__ = ()


_new_task_forwarding: Final = partial(object.__new__, GhostTaskForwarding)


class TaskMessage(WarmMessage):
    """A message whose answer may name a new task. ``making`` binds it."""

    __slots__ = ("making",)

    def __init__(self, message: A2aOperation, handed_over: Callable[[], None], making: Making) -> None:
        super().__init__(message, handed_over)
        self.making = making

    def answered(self, status: int, _told: bytes | None, body: bytes) -> bytes | None:
        """Bind the tasks and contexts that a whole answer names; without a 2xx status, release those bound before.

        Returns no lines to add to its head.
        """
        making = self.making
        if 200 <= status < 300:
            reader = AnswerReader(events=False)
            for shown in (*reader.feed(body), *reader.end()):
                making.show(shown)
        else:
            making.fail()
        return b""

    def forwarding(self, way: Way) -> tuple[Any, ...]:
        """Return the class that replaces the ghost of the forwarding, and its arguments."""
        return TaskForwarding, way, self.making


class WarmA2aInbound:
    """Handler of messages to the agent."""

    new_operation: Final = A2aOperation

    def __init__(self, side: WarmSide, bindings: TaskBindings) -> None:
        self._bindings = bindings
        self._kind = side.kind()
        self._kind_of_tasks = side.kind(
            passes=without(side.passes, NOT_ASKED_FOR), new_forwarding=_new_task_forwarding, reads_answers=True
        )

    def passed(
        self, found: OperationRead, _head: Request, permit: Permit, _now: int, handed_over: Callable[[], None]
    ) -> Passed | None:
        """Return how the native engine forwards a permitted message.

        None: the engine in Python must rewrite its answer, or record that it names a task or context not seen here.

        Raises:
            Denied: as ``TaskBindings.check``.
        """
        asked, principal = found.asked, principal_of(permit)
        if asked.key in {EXTENDED_CARD, LISTS}:
            return None
        if self._bindings.check(asked.named, principal, strict=permit.route.a2a.strict_tasks) is not None:
            return None
        if not asked.named.begins:
            return [], self._kind, WarmMessage(asked, handed_over)
        # Without ``Making.begin``: every context that the message names is bound already.
        making = Making(self._bindings, asked.named, principal)
        return [], self._kind_of_tasks, TaskMessage(asked, handed_over, making)


class WarmA2aOutbound:
    """Handler of messages to next hops."""

    new_operation: Final = A2aOperation

    def __init__(self, side: WarmSide) -> None:
        self.kind = side.kind(told=b"delegation-reason")  # the next hop's reason for a refusal, for the record

    def is_answered(self, path: str) -> bool:
        """Tell if a card is asked for, which the sidecar itself serves."""
        return is_card_of_next_hop(CanonicalTarget(path, b""))

    def is_rewritten(self, found: OperationRead) -> bool:
        """Tell if the engine in Python must rewrite the answer: an extended card."""
        key: str = found.asked.key
        return key == EXTENDED_CARD
