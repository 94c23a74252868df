"""The official A2A SDK at both ends: its client through two sidecars gets what it gets from the agent directly.

The test holds the planner's request, whose handle the client shows; all else is the SDK's: cards, both bindings, both
versions, streams, tasks, push configurations.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import CRM, START_S, WRITER, Agent, Sidecar, free_port, until
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.frameworks import end, listens

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

APPS: Final = Path(__file__).parent / "apps"
OPERATIONS: Final = [
    "SendMessage",
    "SendStreamingMessage",
    "GetTask",
    "CancelTask",
    "CreateTaskPushNotificationConfig",
    "GetExtendedAgentCard",
]


@pytest.fixture(autouse=True)
def _installed() -> None:
    require(agents.missing())


@asynccontextmanager
async def agent_of(version: str) -> AsyncIterator[int]:
    """Run an agent on the SDK; return its port."""
    port = free_port()
    environ = {**os.environ, "PORT": str(port)}
    process = subprocess.Popen([agents.PYTHON, APPS / "a2a_server.py", version], env=environ)  # noqa: ASYNC220
    try:
        await until(lambda: listens(port), START_S)
        yield port
    finally:
        await asyncio.to_thread(end, process)


async def ask(base: str, binding: str, *more: str, handle: str = "") -> dict[str, Any]:
    """Run the SDK's client; return what it says."""
    process = await asyncio.create_subprocess_exec(
        agents.PYTHON,
        APPS / "a2a_caller.py",
        base,
        binding,
        *more,
        env={**os.environ, "HANDLE": handle},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 0, errors.decode()[-3000:]
    said: dict[str, Any] = json.loads(out)
    return said


async def mesh_around(hops: Hops, port: int) -> tuple[Sidecar, str]:
    """Run a sidecar of the agent's, and the writer's in front of it; return the first, and the address for clients."""
    world = hops.world
    world.agent = Agent(port=port)
    callee = world.settings()
    callee["inbound"]["routes"] = [
        {
            "name": "agent",
            "match": {"path_prefix": "/"},
            "protocol": "a2a",
            "scopes": ["crm.read"],
            "peers": [str(WRITER)],
            "operations": [{"allow": OPERATIONS}],
            "a2a": {"tasks": "strict", "push_urls": ["https://hooks.acme.example/a2a"]},
        }
    ]
    crm = await world.sidecar(CRM, callee)
    world.agent = hops.agent
    settings = hops.settings(route={"may_call": ["crm"]})
    settings["outbound"]["routes"] = [
        hops.route("crm", CRM, {"prefix": "/crm"}, crm.inbound)
        | {"protocol": "a2a", "a2a": {"push_urls": ["https://hooks.acme.example/a2a", "https://evil.example/"]}}
    ]
    hops.writer = await world.sidecar(WRITER, settings)
    return crm, f"http://127.0.0.1:{hops.writer.outbound}/crm"


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_client_gets_through_two_sidecars_what_it_gets_directly(hops: Hops, version: str) -> None:
    async with agent_of(version) as port:
        crm, base = await mesh_around(hops, port)
        for binding in ("JSONRPC", "HTTP+JSON"):
            direct = await ask(f"http://127.0.0.1:{port}", binding)
            async with hops.serving() as held:
                through = await ask(base, binding, handle=held.handle)
                assert all(url.startswith(base) for url in through["urls"])
                assert len(through["urls"]) == 2
                assert through.pop("extended") == ["extended writer", through.pop("urls")]
                assert (direct.pop("push elsewhere"), through.pop("push elsewhere")) == ("done", "A2AClientError")
                task = through.pop("task")
                assert through == {name: direct[name] for name in through}
                # Of 0.3 by HTTP+JSON the client takes any 404 for a method that is missing, directly too.
                unknown = "MethodNotFoundError" if (version, binding) == ("0.3", "HTTP+JSON") else "TaskNotFoundError"
                assert (through["unknown"], through["sent"], through["got"]) == (unknown, ["task"], True)
                assert "artifact_update" in through["stream"]
            async with hops.serving({"sub": "bob"}) as held:
                other = await ask(base, binding, f"task:{task}", handle=held.handle)
                assert {other[what] for what in ("get", "cancel", "send")} == {unknown}
        records = crm.records()
        ops = {record["op"] for record in records if record["decision"] == "allow"}
        assert ops == {"GetAgentCard", *OPERATIONS}
        assert {record["reason"] for record in records} >= {"ok", "task_unknown", "push_url_refused"}
        assert "evil.example" not in json.dumps(records)


async def test_without_a_handle_the_client_gets_the_card_and_nothing_else(hops: Hops) -> None:
    async with agent_of("1.0") as port:
        crm, base = await mesh_around(hops, port)
        said = await ask(base, "JSONRPC", "task:7")
        assert said["urls"] == [base, f"{base}/"]
        assert {said[what] for what in ("get", "cancel", "send")} == {"A2AClientError"}
        assert [record["op"] for record in crm.records()] == ["GetAgentCard"]
