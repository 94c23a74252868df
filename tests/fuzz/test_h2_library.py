"""The comparison with the library h2 finds faults of a shorter way: with one it fails on a stored input or near it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from h2.stream import StreamState
from hpack.exceptions import HPACKError

from sidecar.wire import h2_direct
from sidecar.wire.h2_compression import HeadDecoder, HeadEncoder
from sidecar.wire.h2_head import request_of
from sidecar.wire.h2_names import Fields
from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.inputs import known_inputs
from tests.fuzz.plain import mutator_of

HARNESS = HARNESSES["http2_beside_library"]
# An input after which a head is sent again past a change of the table: 200 mutations lie before the first such one.
SENT_AGAIN = bytes.fromhex(
    "fa663bfc486b5dbbde526bb283caa4b78e3d62bf77d31d401c15655d7e368edc1e0089488e82d9bd4d37e2bf84061af160f32fbe2eef64e9"
    "16effe574fa4d9a3b393f593c70a44e042fdecc177251b1e973685fdcb3e9c218dd49008dc622e957a3e67f803e7bced9991209ad989f5e06857"
)


def breaks() -> bool:
    for data in [SENT_AGAIN, *known_inputs(HARNESS.name), *islice(mutator_of(HARNESS, seed=1), 1500)]:
        try:
            HARNESS.check(data)
        except (AssertionError, ProtocolError, HPACKError):
            return True
    return False


def test_heads_that_are_remembered_past_a_change_of_the_table_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = HeadDecoder.decode

    def keeping(self: HeadDecoder, data: bytes, raw: bool = True) -> Fields:
        known = dict(self._known)
        fields = decode(self, data, raw)
        self._known = {data: fields, **known}
        return fields

    monkeypatch.setattr(HeadDecoder, "decode", keeping)
    assert breaks()


def test_heads_that_are_sent_past_a_change_of_the_table_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[Any, bytes] = {}

    def keeping(self: HeadEncoder, headers: Any) -> bytes:
        fields = (id(self), *headers)
        if fields not in known:
            known[fields] = self.encode(headers)
        return known[fields]

    monkeypatch.setattr(HeadEncoder, "encode_again", keeping)
    assert breaks()


def test_a_head_that_is_judged_once_for_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: dict[Any, Any] = {}

    def once(fields: Any, *rest: Any, **more: Any) -> Any:
        names = tuple([name for name, _ in fields])
        if names not in judged:
            judged[names] = request_of(fields, *rest, **more)
        return judged[names]

    monkeypatch.setattr("sidecar.wire.h2_head.request_of", once)
    assert breaks()


def test_content_behind_the_end_of_its_stream_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_direct, "_RECEIVES", tuple(StreamState))
    assert breaks()
