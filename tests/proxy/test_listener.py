"""The answer above a listener's limit; the listener itself is tested on sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.proxy.listening.listener import ShedHandler
from tests.proxy.agent_calls import AgentCalls, Fields, bearer


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        pytest.param(bearer("h" * 43), 503, "overloaded", id="a request"),
        pytest.param([("x y", "z")], 400, "bad_request", id="what is not a request"),
    ],
)
async def test_a_connection_above_the_limit_is_refused_closed_and_recorded(
    tmp_path: Path, fields: Fields, status: int, reason: str
) -> None:
    calls = AgentCalls(tmp_path)
    calls.serve_by(ShedHandler(calls.log, "outbound"))
    refused = await calls.call(fields)
    assert (refused.status, refused.reason, refused.headers["connection"]) == (status, reason, "close")
    (record,) = await calls.records()
    assert (record["decision"], record["reason"], record["status"]) == ("deny", reason, status)
    assert calls.left == b""
