"""A2A by gRPC with the official SDKs of Go and JavaScript, each as client and as server through two sidecars.

The client gets what it gets from the agent directly. Each lawful call stands beside the same one of another user.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import START_S, free_port, until
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.frameworks import listens
from tests.interop.test_a2a import OPERATIONS, mesh_around

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

APPS: Final = Path(__file__).parent / "apps"
GO: Final = os.environ.get("GO_A2A")


def command(sdk: str) -> list[str | Path]:
    """Return the command of an SDK's program, without the words after it."""
    if sdk == "go":
        require(None if GO else "GO_A2A names no program")
        assert GO is not None
        return [GO]
    require(agents.missing())
    return [agents.node(), agents.a2a_folder() / "a2a.mjs"]


@asynccontextmanager
async def serving(sdk: str, version: str) -> AsyncIterator[tuple[int, int]]:
    """Run an agent on an SDK; return the port of its card, and that of gRPC."""
    port, grpc_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(*command(sdk), "server", version, str(port), str(grpc_port))
    try:
        await until(lambda: listens(port) and listens(grpc_port), START_S)
        yield port, grpc_port
    finally:
        process.terminate()
        await process.wait()


async def ask(sdk: str, base: str, *more: str, handle: str = "") -> dict[str, Any]:
    """Run an SDK's client; return what it says."""
    process = await asyncio.create_subprocess_exec(
        *command(sdk), "client", base, *more, env={**os.environ, "HANDLE": handle},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 0, errors.decode()[-3000:]
    said: dict[str, Any] = json.loads(out)
    return said


# A client's error for a call that is forbidden. Of 1.0, Go's takes an ErrorInfo with another code than its own for
# an internal error; JavaScript's knows an error of 0.3 only by an ErrorInfo, and Go's by its code.
FORBIDDEN: Final = {
    ("go", "1.0"): "InternalError",
    ("go", "0.3"): "UnauthorizedError",
    ("js", "1.0"): "UnsupportedOperationError",
    ("js", "0.3"): "A2AError",
}


@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize(("client", "server"), [("go", "go"), ("js", "js"), ("go", "js"), ("js", "go")])
async def test_a_client_gets_by_grpc_what_it_gets_directly(hops: Hops, client: str, server: str, version: str) -> None:
    async with serving(server, version) as (port, grpc_port):
        crm, base = await mesh_around(hops, port, grpc_port=grpc_port)
        direct = await ask(client, f"http://127.0.0.1:{port}")
        async with hops.serving() as held:
            alice = await ask(client, base, handle=held.handle)
        task = str(alice.pop("task"))
        async with hops.serving({"sub": "bob"}) as held:
            bob = await ask(client, base, f"task:{task}", handle=held.handle)
        without = await ask(client, base, f"task:{task}")
    assert alice["urls"] == sorted([base, f"{base}/", base.removeprefix("http://")])
    assert alice.pop("extended") == ["extended writer", alice.pop("urls")]
    forbidden = FORBIDDEN[client, version]
    assert direct.pop("push elsewhere") == ["done"]
    check_refusal(alice.pop("push elsewhere"), forbidden, "push_url_refused", version)
    assert alice == {name: direct[name] for name in alice}
    assert (alice["sent"], alice["got"], alice["push"], alice["unknown"]) == (
        ["task"],
        True,
        ["done"],
        "TaskNotFoundError",
    )
    assert alice["stream"] == ["task", "status_update", "artifact_update", "status_update"]
    assert [bob[what] for what in ("get", "cancel", "send")] == ["TaskNotFoundError"] * 3
    check_refusal(bob["subscribe"], forbidden, "operation_refused", version)
    assert [without[what] for what in ("get", "cancel", "send")] == [forbidden] * 3
    check_refusal(without["subscribe"], forbidden, "no_request_context", version)
    records = crm.records()
    operations = {*OPERATIONS, "GetAgentCard"}
    assert {one["op"] for one in records if one["decision"] == "allow"} == operations
    assert {one["reason"] for one in records} >= {"ok", "task_unknown", "push_url_refused", "operation_refused"}
    assert "evil.example" not in json.dumps(records)


def check_refusal(shown: list[str | None], name: str, reason: str, version: str) -> None:
    """Compare what the error of a refused call tells its reader; of 1.0 our reason is among its data too."""
    assert shown[0] == name
    assert f"({reason})" in str(shown[1])
    assert shown[2] == (reason if version == "1.0" else None)
