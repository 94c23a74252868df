"""Answers of A2A that the sidecar parses or changes: extended cards, lists of tasks, and new tasks.

Other answers pass unchanged. For these operations the sidecar requests an answer without content coding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from delegation_core.a2a_grpc import GrpcAnswerReader
from delegation_core.a2a_tasks import AnswerReader, Shown
from delegation_core.agent_card import MAX_CARD_BYTES, AgentCard, card_of
from delegation_core.agent_card_grpc import Rewrite
from delegation_core.agent_card_grpc import rewritten as rewritten_by_grpc
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.message_json import parse_message_object
from delegation_core.strict_json import StrictJsonError
from sidecar.features.a2a.agent_cards import note_signature
from sidecar.features.a2a.held_forwarding import GRPC_CODING, HeldForwarding
from sidecar.features.a2a.operation import A2aOperation
from sidecar.features.a2a.task_bindings import Making
from sidecar.features.operations.content import ASKED_FOR, OF_OTHER_CONTENT
from sidecar.observe.access_log import Entry
from sidecar.proxy.journeys.forward import Forwarding, Way
from sidecar.proxy.journeys.headers import without
from sidecar.proxy.journeys.journey import Waiter
from sidecar.wire.grpc import is_grpc
from sidecar.wire.message import Edits, Field, Response, is_event_stream, new_edits

EXTENDED_CARD: Final = "GetExtendedAgentCard"
_JSON: Final = frozenset({b"application/json", b"application/a2a+json"})
NOT_ASKED_FOR: Final = ASKED_FOR | {b"grpc-accept-encoding"}
_ROOM: Final = 4096  # bytes of JSON-RPC around a card

_CODES: Final = frozenset(map(str, Reason))


def is_identity(head: Response) -> bool:
    """Return True if an answer has no content coding."""
    return all(value.strip().lower() == b"identity" for value in head.all(b"content-encoding"))


def without_coding(edits: Edits) -> Edits:
    """Return edits that also drop the fields which ask for a coded, partial or conditional answer."""
    return edits._replace(passes=without(edits.passes, NOT_ASKED_FOR))


def way_without_coding(way: Way) -> Way:
    """Return ``way`` with the edits of ``without_coding``."""
    return way._replace(edits=without_coding(way.edits))


def note_refusal(answer: Response | None, entry: Entry) -> None:
    """Note in the record that the next hop's sidecar refused a call, if the answer's status is a success.

    The detail has the reason only if it is one of ours: another workload's text stays out of the record.
    """
    if answer is None or answer.status >= 300 or not (stated := answer.all(b"delegation-reason")):
        return
    code = stated[0].decode("latin-1")
    entry.reason = Reason.NEXT_HOP_REFUSED
    entry.detail = f"it says {code}" if len(stated) == 1 and code in _CODES else "it says no reason that is known here"


class CardForwarding(HeldForwarding):
    """A request for an extended card. Buffers the card and forwards the result of ``rewrite``.

    An error answer passes unchanged. An unreadable answer is refused: CARD_REFUSED.
    """

    __slots__ = ("_asked", "_rewrite")

    def __init__(self, way: Way, asked: A2aOperation, rewrite: Rewrite) -> None:
        super().__init__(
            way_without_coding(way), max_bytes=MAX_CARD_BYTES + _ROOM, refused=Reason.CARD_REFUSED, grpc=asked.grpc
        )
        self._asked = asked
        self._rewrite = rewrite

    def holds(self, head: Response) -> bool:
        """Return True if the answer may contain a card. Raises Denied, as ``HeldForwarding.holds``."""
        if head.status >= 300:
            return False
        if not is_identity(head):
            raise Denied(Reason.CARD_REFUSED, "the card is encoded, though identity was asked for")
        return not self._grpc or _holds_messages(head, self._refused)

    def rebuild(self, document: bytes) -> bytes:
        """Return the answer with its card rewritten; an error of JSON-RPC unchanged. Raises Denied, CARD_REFUSED."""
        if self._grpc:
            return rewritten_by_grpc(document, self._make_card, first_version=self._asked.first_version)
        try:
            answer = parse_message_object(document, max_bytes=self._max_bytes)
        except StrictJsonError as error:
            raise Denied(Reason.CARD_REFUSED, str(error)) from None
        if not self._asked.json_rpc:
            return orjson.dumps(self._card(answer))
        shown = answer.get("result")
        if "error" in answer and shown is None:
            return document
        if not isinstance(shown, dict):
            raise Denied(Reason.CARD_REFUSED, "the result is no card")
        return orjson.dumps({"jsonrpc": "2.0", "id": answer.get("id"), "result": self._card(shown)})

    def _card(self, members: dict[str, Any]) -> dict[str, Any]:
        return self._make_card(card_of(members))

    def _make_card(self, card: AgentCard) -> dict[str, Any]:
        made = self._rewrite(card)
        note_signature(card, self._entry)
        return made


def _holds_messages(head: Response, refused: Reason) -> bool:
    """Return True if an answer to a gRPC call is gRPC. Raises Denied (``refused``) for a success that is not."""
    if not is_grpc(head) and head.status < 300:
        raise Denied(refused, "the answer is not one of gRPC")
    return is_grpc(head)


def _has_failed(fields: Iterable[Field]) -> bool:
    """Return True if these fields contain a ``grpc-status`` other than 0."""
    return any(name == b"grpc-status" and value != b"0" for name, value in fields)


class TaskListForwarding(HeldForwarding):
    """A request for a list of tasks. Buffers the list; ``cut`` removes the tasks that its reader may not see.

    An unreadable answer is refused, because it could list any task: LIST_UNREADABLE.
    """

    __slots__ = ("_cut",)

    def __init__(self, way: Way, *, max_bytes: int, cut: Callable[[bytes], bytes], grpc: bool = False) -> None:
        super().__init__(way_without_coding(way), max_bytes=max_bytes, refused=Reason.LIST_UNREADABLE, grpc=grpc)
        self._cut = cut

    def rewrite(self, head: Response) -> Edits:
        """Return the edits to the answer's fields; drop those that describe the uncut content."""
        passes, names, values = super().rewrite(head)
        return new_edits((without(passes, OF_OTHER_CONTENT), names, values))

    def holds(self, head: Response) -> bool:
        """Return True if the answer may contain a list. Raises Denied, as ``HeldForwarding.holds``."""
        if not is_identity(head):
            raise Denied(Reason.LIST_UNREADABLE, "the list is encoded, though identity was asked for")
        if self._grpc:
            return _holds_messages(head, self._refused)
        kinds = {value.partition(b";")[0].strip().lower() for value in head.all(b"content-type")}
        if kinds and kinds <= _JSON:
            return True
        if head.status < 300 or not kinds.isdisjoint(_JSON):
            raise Denied(Reason.LIST_UNREADABLE, "the list is not said to be JSON")
        return False

    def rebuild(self, document: bytes) -> bytes:
        """Return the list cut for its reader."""
        return self._cut(document)


class TaskForwarding(Forwarding):
    """A message to the agent. The answer passes unchanged; ``making`` binds the tasks and contexts in it."""

    __slots__ = ("_grpc", "_making", "_reader")

    def __init__(self, way: Way, making: Making, *, grpc: bool = False) -> None:
        super().__init__(*way_without_coding(way))
        self._making = making
        self._grpc = grpc
        self._reader: AnswerReader | GrpcAnswerReader | None = None

    def begin(self, waiter: Waiter) -> None:
        """Bind the message's new contexts, then send it. Raises as ``Forwarding.begin``."""
        self._making.begin()
        try:
            super().begin(waiter)
        except BaseException:
            self._making.fail()
            raise

    def done(self, error: SidecarError | None) -> None:
        """Stop watching and resume the journey; after an error, release the contexts bound at the start."""
        if error is not None:
            self._making.fail()  # bindings from the begun answer stay
        super().done(error)

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Parse the whole answer and pass it back."""
        self._begin(head)
        self._read(data)
        self._read_end()
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin to parse the answer and to pass it back."""
        self._begin(head)
        self._read(data)
        super().on_response(head, data)

    def on_response_data(self, data: bytes) -> None:
        """Parse content and pass it back."""
        self._read(data)
        super().on_response_data(data)

    def on_response_end(self) -> None:
        """Parse and pass back the end of the answer."""
        self._read_end()
        if self._grpc and _has_failed(getattr(self._upstream, "trailers", ())):
            self._making.fail()
        super().on_response_end()

    def _begin(self, head: Response) -> None:
        if self._grpc:
            self._reader = GrpcAnswerReader(head.all(GRPC_CODING))
            if head.status >= 300 or _has_failed(head.fields):
                self._making.fail()
        elif 200 <= head.status < 300:
            self._reader = AnswerReader(events=is_event_stream(head))
        elif head.status >= 300:
            self._making.fail()

    def _read(self, data: bytes) -> None:
        if self._reader is not None:
            self._show(self._reader.feed(data))

    def _read_end(self) -> None:
        if self._reader is not None:
            self._show(self._reader.end())

    def _show(self, found: Iterable[Shown]) -> None:
        for shown in found:
            self._making.show(shown)
