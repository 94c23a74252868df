"""The same call again on the warm path: an earlier decision holds only for exactly that call, and while it is valid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from delegation_core.errors import Denied
from delegation_core.policy import Deny, Policy
from sidecar.proxy.journeys.snapshot import Snapshot
from tests.core.world import INBOUND_CLAIMS, NOW, PLANNER, POLICY, verified
from tests.proxy.warm import ANSWER, Warm

TOKEN = verified(INBOUND_CLAIMS)


class Asked:
    """A warm connection: the call was served once, and its token is cached."""

    def __init__(self, folder: Path) -> None:
        self._records = folder / "records"
        self.warm = Warm(self._records)
        for _ in range(2):
            self.warm.request()
        assert self.warm.transport.written.count(b"HTTP/1.1 200 OK") == 2
        self.arrived = len(self.warm.pool.transport.writes)

    async def again(self) -> tuple[bytes, dict[str, object]]:
        """Send the same call again; return the status line and its record. It must not have reached the agent."""
        before = len(self.warm.transport.written)
        self.warm.send()
        answer = self.warm.transport.written[before:]
        assert len(self.warm.pool.transport.writes) == self.arrived
        await self.warm.log.close()
        record = json.loads(self._records.read_text().splitlines()[-1])
        return answer.partition(b"\r\n")[0], record

    def judge_by(self, policy: Policy) -> None:
        snapshot: Snapshot = replace(self.warm.snapshots.now(), policy=policy)
        self.warm.snapshots.now = lambda: snapshot


async def test_the_same_call_is_refused_once_its_token_has_expired(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.warm.now = float(TOKEN.expires_at + TOKEN.leeway_s)
    status, record = await asked.again()
    assert status == b"HTTP/1.1 401 Unauthorized"
    assert (record["decision"], record["reason"], record["verified"]) == ("deny", "token_expired", True)
    assert record["subject"] == TOKEN.subject


@pytest.mark.parametrize(
    "policy",
    [
        replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, TOKEN.subject)}))),
        replace(POLICY, number=2, deny=Deny(txns=frozenset({str(TOKEN.txn)}))),
    ],
    ids=["subject", "txn"],
)
async def test_the_same_call_is_refused_by_a_policy_that_came_since(tmp_path: Path, policy: Policy) -> None:
    asked = Asked(tmp_path)
    asked.judge_by(policy)
    status, record = await asked.again()
    assert status == b"HTTP/1.1 403 Forbidden"
    assert (record["decision"], record["reason"]) == ("deny", "policy_denied")


async def test_the_same_call_served_again_leaves_the_same_record(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    for _ in range(2):
        asked.warm.request()
    await asked.warm.log.close()
    first, *later = map(json.loads, (tmp_path / "records").read_text().splitlines())
    its_own = {
        "seq",
        "prev",
        "ts",
        "request_id",
        "call_in",
        "trace_id",
        "span_id",
        "decide_ms",
        "upstream_ms",
        "total_ms",
    }
    assert len(later) == 3
    assert (first["subject"], first["decision"], first["route"]) == (TOKEN.subject, "allow", "search")
    for record in later:
        assert {name for name in record if record[name] != first[name]} <= its_own
        assert record["decide_ms"] >= 0


async def test_the_same_call_is_served_a_moment_before_its_token_expires(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.warm.now = float(TOKEN.expires_at + TOKEN.leeway_s - 1)
    asked.warm.request()
    assert asked.warm.transport.written.count(b"HTTP/1.1 200 OK") == 3
    assert TOKEN.expires_at > NOW
    await asked.warm.log.close()


async def test_what_is_no_request_is_refused_and_recorded_with_its_peer(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    before = len(asked.warm.transport.written)
    asked.warm.connection.data_received(b"POST /search HTTP/1.1\r\nHost: writer\r\nx y: z\r\n\r\n")
    assert asked.warm.transport.written[before:].startswith(b"HTTP/1.1 400 ")
    assert len(asked.warm.pool.transport.writes) == asked.arrived
    await asked.warm.log.close()
    record = json.loads((tmp_path / "records").read_text().splitlines()[-1])
    assert [record[key] for key in ("decision", "reason", "direction", "peer")] == [
        "deny", "bad_request", "inbound", str(PLANNER)
    ]  # fmt: skip


async def test_a_request_under_way_is_judged_by_what_is_in_force_now(tmp_path: Path) -> None:
    asked = Asked(tmp_path)
    asked.warm.send()
    asked.warm.snapshots.in_force = lambda: asked.warm.snapshots.now()
    (under_way,) = asked.warm.watch.young
    under_way.judge(NOW)
    asked.judge_by(replace(POLICY, number=2, deny=Deny(subjects=frozenset({(None, TOKEN.subject)}))))
    with pytest.raises(Denied, match="policy_denied"):
        under_way.judge(NOW)
    asked.warm.pool.connections.writes.write_all()
    asked.warm.pool.agent.data_received(ANSWER)
    await asked.warm.log.close()
