"""The official A2A SDK by gRPC at both ends: its client through two sidecars gets what it gets from the agent directly.

The card leads the client to the binding, in both versions. Each lawful call stands beside the same one refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import pytest

from tests.integration.hops import Hops
from tests.integration.world import Sidecar, free_port
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.test_a2a import OPERATIONS, WHY, agent_of, ask, mesh_around

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

ON_TASK: Final = ("get", "cancel", "send")


@pytest.fixture(autouse=True)
def _installed() -> None:
    require(agents.missing())


class Through(NamedTuple):
    """The agent's sidecar, and what clients got: directly, and through both sidecars for alice."""

    crm: Sidecar
    base: str
    direct: dict[str, Any]
    alice: dict[str, Any]


@asynccontextmanager
async def through_sidecars(hops: Hops, version: str, *more: str) -> AsyncIterator[Through]:
    """Run every operation by gRPC, with and without sidecars."""
    grpc_port = free_port()
    async with agent_of(version, grpc_port=grpc_port) as port:
        crm, base = await mesh_around(hops, port, *more, grpc_port=grpc_port)
        async with hops.serving() as held:
            direct, alice = await asyncio.gather(
                ask(f"http://127.0.0.1:{port}", "GRPC"), ask(base, "GRPC", handle=held.handle)
            )
        yield Through(crm, base, direct, alice)


def check_the_same(made: Through) -> str:
    """Compare what clients got; return the task that alice made."""
    direct, alice, base = made.direct, made.alice, made.base
    assert alice["urls"] == sorted([base, f"{base}/", base.removeprefix("http://")])
    assert alice.pop("extended") == ["extended writer", alice.pop("urls")]
    assert (direct.pop("push elsewhere"), alice.pop("push elsewhere")) == ("done", "UnsupportedOperationError")
    task = str(alice.pop("task"))
    assert alice == {name: direct[name] for name in alice}
    assert (alice["sent"], alice["got"], alice["unknown"]) == (["task"], True, "TaskNotFoundError")
    assert "artifact_update" in alice["stream"]
    records = made.crm.records()
    assert {one["op"] for one in records if one["decision"] == "allow"} >= {"GetAgentCard", *OPERATIONS}
    assert {one["reason"] for one in records} >= {"ok", "task_unknown", "push_url_refused"}
    assert "evil.example" not in json.dumps(records)
    return task


async def test_version_0_3_through_two_sidecars(hops: Hops) -> None:
    async with through_sidecars(hops, "0.3") as made:
        task = check_the_same(made)
        async with hops.serving({"sub": "bob"}) as held:
            other, said = await asyncio.gather(
                ask(made.base, "GRPC", f"task:{task}", handle=held.handle),
                ask(made.base, "GRPC", "why", handle=held.handle),
            )
        assert [other[what] for what in ON_TASK] == ["TaskNotFoundError"] * 3
        assert [said[what][:2] for what in ("subscribe", "task")] == [WHY["subscribe"], WHY["task"]]


async def test_version_1_0_through_two_sidecars(hops: Hops) -> None:
    async with through_sidecars(hops, "1.0", "ListTasks") as made:
        base, task = made.base, check_the_same(made)
        async with hops.serving() as held:
            alice = await ask(base, "GRPC", "own", handle=held.handle)
        assert {task, alice["made"]} < {*alice["listed"]}
        assert (alice["total"], alice["into"], alice["list of"]) == (len(alice["listed"]), ["done"], ["done"])
        async with hops.serving({"sub": "bob"}) as held:
            other, by_json, said, own, bob = await asyncio.gather(
                ask(base, "GRPC", f"task:{task}", handle=held.handle),
                ask(base, "JSONRPC", f"task:{task}", handle=held.handle),
                ask(base, "GRPC", "why", handle=held.handle),
                ask(base, "GRPC", "why"),
                ask(base, "GRPC", "own", alice["context"], handle=held.handle),
            )
        for one in (other, by_json):  # made by gRPC, and of nobody else by any binding
            assert [one[what] for what in ON_TASK] == ["TaskNotFoundError"] * 3
        assert [said[what][:2] for what in ("subscribe", "task")] == [WHY["subscribe"], WHY["task"]]
        assert own["task"][:2] == [  # without a handle, by the own sidecar
            "UnsupportedOperationError",
            "the call has no handle of a request in progress (no_request_context)",
        ]
        assert (bob["listed"], bob["total"]) == ([bob["made"]], 1)
        refused = ["InvalidParamsError", "context not found (context_unknown)"]
        assert (bob["into"][:2], bob["list of"][:2]) == (refused, refused)
