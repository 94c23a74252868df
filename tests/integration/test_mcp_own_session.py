"""An agent opens a session of MCP at its start, without a user, through both sidecars and the real token service.

Its users' calls go through that session, each judged by its own token; its end is the agent's.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mesh import Mesh, open_mesh
from tests.integration.mesh_files import Settings
from tests.integration.test_mcp_sessions import FIELD, HELLO
from tests.integration.test_operations import JSON, tool
from tests.integration.test_own_authority import handle_of, shown
from tests.integration.world import PLANNER, WRITER, Answer, ok, until

pytestmark = pytest.mark.integration

LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}


def adjust(folder: Path, *, own: bool) -> Any:
    """Return the changes to the mesh: the planner calls the writer by MCP, and has the workload handle for it."""

    def change(name: str, settings: Settings, _ports: Mapping[str, int]) -> None:
        operations: list[dict[str, Any]] = [
            {"allow": ["tools/list"], "allow_self": own},
            {"allow": ["tools/call:search"]},
        ]
        if name == "planner":
            (route,) = settings["outbound"]["routes"]
            route |= {"protocol": "mcp", "allow_self": own, "operations": operations}
            if own:
                socket = str(folder / "own.sock")
                handle = {"may_call": ["writer"], "socket": socket, "agent_uids": [os.getuid()]}
                settings["workload_handle"] = handle
        if name == "writer":
            (route,) = settings["inbound"]["routes"]
            route |= {"protocol": "mcp", "match": {"path": "/mcp"}, "allow_self": own, "operations": operations}
        if name == "sts" and own:
            settings["self_rules"] = [{"workload": PLANNER, "audience": WRITER, "scopes": ["docs.write"]}]

    return change


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with open_mesh(tmp_path, adjust(tmp_path, own=True)) as mesh:

        async def serve(fields: dict[str, str]) -> bytes:
            session = fields.get("mcp-session-id") or fields.get("Mcp-Session-Id") or "agent-1"
            return ok(b"{}", b"mcp-session-id: " + session.encode())

        mesh.scripts["writer"] = serve
        yield mesh


async def call(mesh: Mesh, handle: str, message: object, *fields: tuple[str, str], method: str = "POST") -> Answer:
    body = json.dumps(message).encode() if method == "POST" else b""
    headers = [*shown(handle), *([JSON] if body else []), *fields]
    return await mesh.world.call(
        mesh.sidecars["planner"].outbound, None, "/writer/mcp", headers=headers, body=body, method=method
    )


async def test_calls_for_users_go_through_the_session_that_the_agent_opened_for_itself(
    mesh: Mesh, tmp_path: Path
) -> None:
    own = await handle_of(tmp_path)
    opened = await call(mesh, own, HELLO)
    session = (FIELD, opened.headers["mcp-session-id"])
    assert (opened.status, session[1] == "agent-1") == (200, False)
    assert (await call(mesh, own, LIST, session)).status == 200
    refused = await call(mesh, own, tool("search"), session)
    assert (refused.status, refused.reason) == (403, "own_authority_refused")
    await until(lambda: [len(mesh.records(name)) for name in ("planner", "writer")] == [3, 2])
    ours = [
        tuple(one[key] for key in ("op", "decision", "subject", "actor", "call_in")) for one in mesh.records("planner")
    ]
    assert ours == [
        ("initialize", "allow", PLANNER, None, None),
        ("tools/list", "allow", PLANNER, None, None),
        ("tools/call:search", "deny", PLANNER, None, None),
    ]
    at_the_callee = [(one["op"], one["subject"], one["actor"]) for one in mesh.records("writer")]
    assert at_the_callee == [("initialize", PLANNER, None), ("tools/list", PLANNER, None)]
    counted = mesh.sidecars["planner"].server.metrics.finished.counted().operations
    assert {operation for _, _, operation, _ in counted} == {"initialize", "tools/list", "tools/call:search"}

    found: list[tuple[int, str | None]] = []

    async def plan(fields: dict[str, str]) -> bytes:
        handle = fields["authorization"].removeprefix("Bearer ")
        for message, method in ((tool("search"), "POST"), (tool("drop"), "POST"), ({}, "DELETE"), ({}, "GET")):
            answer = await call(mesh, handle, message, session, method=method)
            found.append((answer.status, answer.reason))
        return ok(b"done")

    mesh.scripts["planner"] = plan
    for user in ("alice", "bob"):
        assert (await mesh.ask(mesh.log_in(user))).status == 200
        assert found == [(200, None), (403, "operation_refused"), (404, "session_unknown"), (404, "session_unknown")]
        found.clear()
    assert (await call(mesh, own, {}, session, method="DELETE")).status == 200
    await until(lambda: mesh.records("writer")[-1]["op"] == "session/delete")
    subjects = [record["subject"] for record in mesh.records("writer") if record["op"] == "tools/call:search"]
    assert subjects == ["alice", "bob"]


async def test_without_allow_self_a_session_is_opened_for_a_user_alone(tmp_path: Path) -> None:
    async with open_mesh(tmp_path, adjust(tmp_path, own=False)) as mesh:
        answer = await call(mesh, "x" * 43, HELLO)
        assert (answer.status, answer.reason) == (403, "no_request_context")
        assert not mesh.agents["writer"].requests
