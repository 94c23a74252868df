"""Answers of A2A that are read on their way: extended cards, which are written again, and tasks that begin.

All else of an answer passes as it comes. Of these operations an answer without content coding is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import orjson

from sidecar.delegation.a2a_tasks import TaskFinder
from sidecar.delegation.agent_card import MAX_CARD_BYTES, AgentCard, card_of
from sidecar.delegation.strict_json import StrictJsonError, parse_message_object
from sidecar.errors import Denied, Reason
from sidecar.observe.access_log import Entry
from sidecar.proxy.agent_cards import note_signature
from sidecar.proxy.forward import Forwarding
from sidecar.wire.message import Edits, Passes, Response, is_event_stream

EXTENDED_CARD: Final = "GetExtendedAgentCard"
_ROOM: Final = 4096  # around a card, in an answer of JSON-RPC

_CODES: Final = frozenset(map(str, Reason))

Rewrite = Callable[[AgentCard], dict[str, Any]]


def not_encoded(edits: Edits) -> Edits:
    """Return the edits of a request whose answer is read: it must not be encoded."""
    return edits._replace(passes=_without_codings(edits.passes))


@lru_cache(maxsize=64)  # one object for each rule: the wire remembers the outcome of each
def _without_codings(passes: Passes) -> Passes:
    def rule(name: bytes) -> bool:
        return name not in {b"accept-encoding", b"range", b"if-range"} and passes(name)

    return rule


def note_refusal(answer: Response | None, entry: Entry) -> None:
    """Note that the next hop's sidecar refused a call, where the status of its answer does not say so.

    The record takes a known code into its detail, and nothing else that another workload says of itself.
    """
    if answer is None or answer.status >= 300 or not (stated := answer.all(b"delegation-reason")):
        return
    code = stated[0].decode("latin-1")
    entry.reason = Reason.NEXT_HOP_REFUSED
    entry.detail = f"it says {code}" if len(stated) == 1 and code in _CODES else "it says no reason that is known here"


class CardForwarding(Forwarding):
    """A request for an extended card. The card is held whole, and goes on as ``rewrite`` makes it.

    An answer that is an error passes as it is. One that cannot be read is refused: CARD_REFUSED.
    """

    __slots__ = ("_held", "_held_head", "_json_rpc", "_rewrite")

    def __init__(self, *forwarded: Any, json_rpc: bool, rewrite: Rewrite) -> None:
        super().__init__(*forwarded)
        self._json_rpc = json_rpc
        self._rewrite = rewrite
        self._held = bytearray()
        self._held_head: Response | None = None

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Give the card, written again."""
        if head.status >= 300:
            super().on_whole_response(head, data)
            return
        self._held_head = head
        self._held += data
        self.on_response_end()

    def on_response(self, head: Response, data: bytes) -> None:
        """Hold the card."""
        if head.status >= 300 or head.status < 200:
            super().on_response(head, data)
            return
        self._held_head = head
        self.on_response_data(data)

    def on_response_data(self, data: bytes) -> None:
        """Hold more of it, up to the limit."""
        if self._held_head is None:
            super().on_response_data(data)
            return
        self._held += data
        if len(self._held) > MAX_CARD_BYTES + _ROOM:
            self._refuse("the card is too large")

    def on_response_end(self) -> None:
        """Give the card, written again."""
        head = self._held_head
        if head is None:
            super().on_response_end()
            return
        self._upstream = None
        try:
            body = self._written_again(head, bytes(self._held))
        except Denied as error:
            self._refuse(error.detail)
            return
        super().on_whole_response(replace(head, content_length=len(body), chunked=False), body)

    def _written_again(self, head: Response, document: bytes) -> bytes:
        if any(value.strip().lower() != b"identity" for value in head.all(b"content-encoding")):
            raise Denied(Reason.CARD_REFUSED, "the card is encoded, though identity was asked for")
        try:
            answer = parse_message_object(document, max_bytes=MAX_CARD_BYTES + _ROOM)
        except StrictJsonError as error:
            raise Denied(Reason.CARD_REFUSED, str(error)) from None
        if not self._json_rpc:
            return orjson.dumps(self._card(answer))
        shown = answer.get("result")
        if "error" in answer and shown is None:
            return document
        if not isinstance(shown, dict):
            raise Denied(Reason.CARD_REFUSED, "the result is no card")
        return orjson.dumps({"jsonrpc": "2.0", "id": answer.get("id"), "result": self._card(shown)})

    def _card(self, members: dict[str, Any]) -> dict[str, Any]:
        card = card_of(members)
        made = self._rewrite(card)
        note_signature(card, self._entry)
        return made

    def _refuse(self, detail: str) -> None:
        if self._held_head is not None:
            self._entry.responded(self._held_head.status)
        self._finish(Denied(Reason.CARD_REFUSED, detail))


class TaskForwarding(Forwarding):
    """A message to the agent. The answer passes as it comes, and ``made`` is told of the task that it shows."""

    __slots__ = ("_finder", "_made")

    def __init__(self, *forwarded: Any, made: Callable[[str], None]) -> None:
        super().__init__(*forwarded)
        self._made = made
        self._finder: TaskFinder | None = None

    def on_whole_response(self, head: Response, data: bytes) -> None:
        """Give the answer, and read it."""
        self._begin(head)
        self._read(data)
        self._read_end()
        super().on_whole_response(head, data)

    def on_response(self, head: Response, data: bytes) -> None:
        """Begin the answer, and to read it."""
        self._begin(head)
        self._read(data)
        super().on_response(head, data)

    def on_response_data(self, data: bytes) -> None:
        """Pass content back, and read it."""
        self._read(data)
        super().on_response_data(data)

    def on_response_end(self) -> None:
        """End the answer."""
        self._read_end()
        super().on_response_end()

    def _begin(self, head: Response) -> None:
        if 200 <= head.status < 300:
            self._finder = TaskFinder(events=is_event_stream(head))

    def _read(self, data: bytes) -> None:
        if self._finder is not None and (task := self._finder.feed(data)) is not None:
            self._made(task)

    def _read_end(self) -> None:
        if self._finder is not None and (task := self._finder.end()) is not None:
            self._made(task)
