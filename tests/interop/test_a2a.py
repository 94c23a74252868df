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
async def agent_of(version: str, *, grpc_port: int | None = None) -> AsyncIterator[int]:
    """Run an agent on the SDK; return its port. It serves gRPC at ``grpc_port``, if that is given."""
    port = free_port()
    environ = {**os.environ, "PORT": str(port), **({} if grpc_port is None else {"GRPC_PORT": str(grpc_port)})}
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
        env={**os.environ, "HANDLE": handle, "PYTHONPATH": str(agents.ROOT / "agent")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 0, errors.decode()[-3000:]
    said: dict[str, Any] = json.loads(out)
    return said


async def mesh_around(hops: Hops, port: int, *more: str, grpc_port: int | None = None) -> tuple[Sidecar, str]:
    """Run a sidecar of the agent's, and the writer's in front of it; return the first, and the address for clients.

    With ``grpc_port``, that of the agent for gRPC, both speak HTTP/2. The address has no path then, as that of gRPC.
    """
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
            "operations": [{"allow": [*OPERATIONS, *more]}],
            "a2a": {"tasks": "strict", "push_urls": ["https://hooks.acme.example/a2a"]},
        }
    ]
    prefix = "/crm" if grpc_port is None else "/"
    if grpc_port is not None:
        callee["protocols"] = {"http2": True}
        callee["inbound"]["agent_grpc"] = f"http://127.0.0.1:{grpc_port}"
    crm = await world.sidecar(CRM, callee)
    world.agent = hops.agent
    settings = hops.settings(route={"may_call": ["crm"]})
    settings["protocols"] = {"http2": grpc_port is not None}
    settings["outbound"]["routes"] = [
        hops.route("crm", CRM, {"prefix": prefix}, crm.inbound)
        | {"protocol": "a2a", "a2a": {"push_urls": ["https://hooks.acme.example/a2a", "https://evil.example/"]}}
    ]
    hops.writer = await world.sidecar(WRITER, settings)
    return crm, f"http://127.0.0.1:{hops.writer.outbound}{prefix.rstrip('/')}"


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
                assert (direct.pop("push elsewhere"), through.pop("push elsewhere")) == (
                    "done",
                    "UnsupportedOperationError",
                )
                task = through.pop("task")
                same = through.keys() - {"unknown"}
                assert {name: through[name] for name in same} == {name: direct[name] for name in same}
                # Of 0.3 by HTTP+JSON the client takes a 404 of the agent for a method that is missing; one of ours not.
                unknown = "MethodNotFoundError" if (version, binding) == ("0.3", "HTTP+JSON") else "TaskNotFoundError"
                assert (direct["unknown"], through["unknown"]) == (unknown, "TaskNotFoundError")
                assert (through["sent"], through["got"]) == (["task"], True)
                assert "artifact_update" in through["stream"]
            async with hops.serving({"sub": "bob"}) as held:
                other = await ask(base, binding, f"task:{task}", handle=held.handle)
                assert {other[what] for what in ("get", "cancel", "send")} == {"TaskNotFoundError"}
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
        assert {said[what] for what in ("get", "cancel", "send")} == {"UnsupportedOperationError"}
        assert [record["op"] for record in crm.records()] == ["GetAgentCard"]


WHY: Final = {
    "list": ["UnsupportedOperationError", "the route does not allow this operation (operation_refused)"],
    "subscribe": ["UnsupportedOperationError", "the route does not allow this operation (operation_refused)"],
    "task": ["TaskNotFoundError", "task not found (task_unknown)"],
}


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_the_user_of_the_client_reads_why_a_call_is_refused(hops: Hops, version: str) -> None:
    """Refused at the callee's sidecar, and passed on by the caller's; then by the caller's own."""
    async with agent_of(version) as port:
        crm, base = await mesh_around(hops, port)
        for binding in ("JSONRPC", "HTTP+JSON"):
            async with hops.serving() as held:
                said = await ask(base, binding, "why", handle=held.handle)
                if version == "0.3":
                    said["list"] = WHY["list"]  # the client itself says that 0.3 has no such operation
                assert {what: said[what][:2] for what in WHY} == WHY
                # The client keeps the data of an error of 1.0 alone.
                reasons = [said[what][2] for what in ("subscribe", "task")]
                assert reasons == (["operation_refused", "task_unknown"] if version == "1.0" else [None, None])
            own = await ask(base, binding, "why")
            assert own["task"][:2] == [
                "UnsupportedOperationError",
                "the call has no handle of a request in progress (no_request_context)",
            ]
        denied = [record for record in crm.records() if record["reason"] in {"operation_refused", "task_unknown"}]
        assert {record["decision"] for record in denied} == {"deny"}
        called = [
            record
            for record in hops.writer.records()
            if record["direction"] == "outbound" and record["op"] == "GetTask"
        ]
        assert [(one["decision"], one["reason"], one["status"]) for one in called] == [
            ("allow", "next_hop_refused", 200),
            ("deny", "no_request_context", 200),
            ("allow", "ok", 404),
            ("deny", "no_request_context", 403),
        ]


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_another_user_sees_no_task_in_a_list_and_no_context(hops: Hops, binding: str) -> None:
    async with agent_of("1.0") as port:
        _, base = await mesh_around(hops, port, "ListTasks")
        async with hops.serving() as held:
            alice = await ask(base, binding, "own", handle=held.handle)
        assert (alice["listed"], alice["total"]) == ([alice["made"]], 1)
        assert (alice["into"], alice["list of"]) == (["done"], ["done"])
        async with hops.serving({"sub": "bob"}) as held:
            bob = await ask(base, binding, "own", alice["context"], handle=held.handle)
        assert (bob["listed"], bob["total"]) == ([bob["made"]], 1)
        refused = ["InvalidParamsError", "context not found (context_unknown)", "context_unknown"]
        assert (bob["into"], bob["list of"]) == (refused, refused)
        async with hops.serving() as held:
            again = await ask(base, binding, "own", alice["context"], handle=held.handle)
        assert (again["into"], again["list of"]) == (["done"], ["done"])


async def test_the_user_of_the_client_in_javascript_reads_why_too(hops: Hops) -> None:
    folder = agents.node_folder()
    program = folder / "a2a_why.mjs"
    program.write_text((APPS / "a2a_why.mjs").read_text())
    async with agent_of("1.0") as port:
        _, base = await mesh_around(hops, port)
        for binding in ("JSONRPC", "HTTP+JSON"):
            async with hops.serving() as held:
                process = await asyncio.create_subprocess_exec(
                    agents.node(), program, base, binding, held.handle,
                    cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )  # fmt: skip
                out, errors = await asyncio.wait_for(process.communicate(), START_S)
                assert process.returncode == 0, errors.decode()[-3000:]
                said = json.loads(out)
                for what in ("list", "stream", "task"):
                    assert said[what][1] == WHY["list" if what == "stream" else what][1]
                    assert WHY["list" if what == "stream" else what][1].split("(")[1][:-1] in said[what][2]
