"""Ends of a journey: every request that came leaves one answer and one record, whatever went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.proxy.journeys.answers import close
from tests.proxy.agent_calls import AgentCalls, bearer


@pytest.fixture
async def calls(tmp_path: Path) -> AgentCalls:
    return AgentCalls(tmp_path)


@pytest.mark.parametrize(
    ("fields", "where", "status", "reason"),
    [
        pytest.param([("x y", "z")], {}, 400, "bad_request", id="a field name with a space"),
        pytest.param([("content-length", "1")], {}, 400, "ambiguous_framing", id="two lengths"),
        pytest.param([("expect", "a miracle")], {}, 417, "expectation_refused", id="an unknown expectation"),
    ],
)
async def test_what_is_no_request_is_refused_by_its_reason_and_recorded(
    calls: AgentCalls, fields: list[tuple[str, str]], where: dict[str, str], status: int, reason: str
) -> None:
    refused = await calls.call(fields, **where)
    assert (refused.status, refused.reason) == (status, reason)
    (record,) = await calls.records()
    assert (record["decision"], record["reason"], record["direction"]) == ("deny", reason, "outbound")
    assert (record["status"], record["bytes_in"] > 0, record["bytes_out"] > 0) == (status, True, True)
    assert calls.left == b""


async def test_a_journey_that_ends_without_an_answer_is_a_bug_that_the_caller_is_told(
    calls: AgentCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(exchange: Any, _head: Any, entry: Any) -> Iterator[Any]:
        yield from ()
        close(exchange, entry)

    monkeypatch.setattr(calls.outbound, "journey", forgetful)
    refused = await calls.call(bearer(calls.handle()))
    assert (refused.status, refused.reason) == (502, "internal")
    (record,) = await calls.records()
    assert (record["decision"], record["reason"], record["status"]) == ("deny", "internal", 502)


async def test_without_room_for_a_record_nothing_is_decided_and_nothing_leaves(
    calls: AgentCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = calls.handle()
    assert (await calls.call(bearer(handle))).status == 200
    sent = calls.left
    monkeypatch.setattr(calls.log, "max_records", 0)
    for fields in (bearer(handle), [("x y", "z")]):
        refused = await calls.call(fields)
        assert (refused.status, refused.reason) == (503, "audit_unavailable")
    assert calls.left == sent
