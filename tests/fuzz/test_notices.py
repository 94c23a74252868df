"""Each kind of harness detects its kind of bug: the product with one thing broken, and the harness fails."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from delegation_core import a2a_grpc_lists, agent_card_grpc, decide, target
from delegation_core.protobuf import Fields
from sidecar.observe.entry import Entry
from sidecar.wire import h1_fields, h1_head
from sidecar.wire.framing import ChunkedBody, LengthBody
from sidecar.wire.h1_reader import AnswerReader, HeadBuffer
from sidecar.wire.h1_stream import H1Stream
from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.inputs import known_inputs
from tests.fuzz.plain import mutator_of

Break = Callable[[pytest.MonkeyPatch], None]


def _first_line_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadBuffer, "_check_first_line", lambda _self, _whole: None)


def _values_may_hold_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h1_head, "TEXT", bytes(byte for byte in range(256) if byte != 0x0A))


def _layouts_are_found_by_length(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: dict[int, h1_fields.H1Layout] = {}

    def make(_self: object, names: tuple[bytes, ...]) -> h1_fields.H1Layout:
        return layouts.setdefault(sum(map(len, names)), h1_fields.H1Layout(names))

    monkeypatch.setattr(h1_fields.Layouts, "__missing__", make)


def _chunk_data_ends_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChunkedBody, "_on_data_end", ChunkedBody._on_size)


def _dots_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_DELIMITERS", frozenset(b"/\\;?#"))


def _bodies_are_a_byte_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Any = LengthBody.__init__
    monkeypatch.setattr(LengthBody, "__init__", lambda self, length: whole(self, max(1, length - 1)))


def _unread_bodies_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(H1Stream, "_discard_buffered_body", lambda self: setattr(self, "_body", None))


def _gone_peers_leave_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Entry.close
    monkeypatch.setattr(Entry, "close", lambda self: None if self.reason == "peer_gone" else whole(self))


def _surplus_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerReader, "surplus", property(lambda _self: False, lambda _self, _value: None))


def _issued_tokens_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "prove_issued", lambda *_positional, **_named: None)


def _texts_of_protobuf_lose_their_case(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Fields.text
    monkeypatch.setattr(Fields, "text", lambda self, start, end: whole(self, start, end).lower())


def _skills_keep_their_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_card_grpc, "_SECURITY_OF_SKILL", 99)


def _lists_pass_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_grpc_lists, "_TASKS", 7)


BUGS: dict[str, tuple[str, Break]] = {
    "a limit that depends on the cut": ("response_head", _first_line_may_be_long),
    "a head that depends on what came before": ("request_head", _layouts_are_found_by_length),
    "a control in a field": ("request_head", _values_may_hold_controls),
    "content that depends on the cut": ("chunked_body", _chunk_data_ends_anywhere),
    "a login that a card asks for": ("grpc_card", _skills_keep_their_logins),
    "a task of somebody else": ("grpc_list", _lists_pass_whole),
    "an id that agents read otherwise": ("grpc_call", _texts_of_protobuf_lose_their_case),
    "a path that servers read otherwise": ("target", _dots_are_plain),
    "an end that other parsers see elsewhere": ("requests_beside_others", _bodies_are_a_byte_shorter),
    "a body that is read as a request": ("request_stream", _unread_bodies_are_forgotten),
    "a request without a record": ("request_stream", _gone_peers_leave_no_record),
    "a request without a record, whatever ended it": ("event_orders", _gone_peers_leave_no_record),
    "an issued token that is not what was planned": ("issued_token", _issued_tokens_are_believed),
    "bytes that nobody asked for": ("answer_stream", _surplus_is_not_seen),
}


@pytest.mark.parametrize(("name", "breaks"), BUGS.values(), ids=BUGS.keys())
def test_a_harness_notices(name: str, breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch)
    harness = HARNESSES[name]
    for data in [*known_inputs(name), *islice(mutator_of(harness, seed=1), 600)]:
        try:
            harness.check(data)
        except Exception:
            return
    pytest.fail("nothing was noticed")
