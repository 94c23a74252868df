"""Every program of examples/ between two real sidecars: planner → agent → CRM, and refused with one fact changed.

The planner is the test; the agent is the program, unchanged; the CRM behind the second sidecar answers with the user's
name. Models are stand-ins on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.hops import Hops
from tests.integration.world import CRM, START_S, WRITER, Agent, Answer, bearer, free_port, mint, ok, until
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.frameworks import end, end_of, listens

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

APPS: Final = Path(__file__).parent / "apps"
USERS: Final = 24
Headers = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One agent: its command, the question to ask it, and the program behind the next sidecar (None: the test)."""

    name: str
    command: Callable[[], list[str | Path]]
    path: str = "/ask"
    fields: tuple[tuple[str, str], ...] = ()
    question: dict[str, Any] | None = None
    target: str | None = None
    tool: str | None = None


def python(script: Path) -> Callable[[], list[str | Path]]:
    return lambda: [agents.PYTHON, script]


def typescript(name: str) -> Callable[[], list[str | Path]]:
    return lambda: [agents.node(), agents.node_folder() / name]


MCP: Final[dict[str, Any]] = {
    "path": "/mcp",
    "fields": (("accept", "application/json, text/event-stream"), ("content-type", "application/json")),
    "question": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask", "arguments": {}}},
    "target": "mcp_target.py",
}
PARTS: Final = [{"text": "When does customer 42 renew?"}]
A2A: Final[dict[str, Any]] = {
    "path": "/",
    "fields": (("content-type", "application/json"), ("a2a-version", "1.0")),
    "question": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "SendMessage",
        "params": {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": PARTS}},
    },
    "target": "a2a_target.py",
}
EXAMPLES: Final = (
    Example(name="fastapi", command=python(agents.EXAMPLES / "fastapi_agent.py")),
    Example(name="flask", command=python(agents.EXAMPLES / "flask_agent.py")),
    Example(name="langgraph", command=python(agents.EXAMPLES / "langgraph_agent.py")),
    Example(name="openai-agents", command=python(agents.EXAMPLES / "openai_agents_agent.py")),
    Example(name="mcp", command=python(agents.EXAMPLES / "mcp_agent.py"), **MCP),
    Example(name="mcp-shared-session", command=python(APPS / "mcp_shared.py"), target="mcp_target.py"),
    Example(name="a2a", command=python(agents.EXAMPLES / "a2a_agent.py"), **A2A),
    Example(name="mcp-typescript", command=typescript("mcp_agent.ts"), **MCP),
    Example(name="a2a-typescript", command=typescript("a2a_agent.ts"), **A2A),
    Example(name="java", tool="java", command=lambda: ["java", agents.EXAMPLES / "java/Agent.java"]),
)


def crm_says(head: bytes, _body: bytes) -> bytes:
    lines = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:] if line)
    return ok(f"Globex of {lines['delegation-subject']}".encode())


def model_says(_head: bytes, body: bytes) -> bytes:
    """Call the tool first, and then repeat what it said."""
    last = json.loads(body)["messages"][-1]
    call = {"id": "c1", "type": "function", "function": {"name": "customer", "arguments": '{"number": "42"}'}}
    message = (
        {"role": "assistant", "content": last["content"]}
        if last["role"] == "tool"
        else {"role": "assistant", "content": None, "tool_calls": [call]}
    )
    choice = {"index": 0, "message": message, "finish_reason": "stop" if last["role"] == "tool" else "tool_calls"}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return ok(json.dumps(answer).encode(), b"content-type: application/json")


class Mesh:
    """An agent and its CRM beside two sidecars."""

    def __init__(self, hops: Hops, example: Example, port: int, model: Agent) -> None:
        self.hops, self.example, self.port, self.model = hops, example, port, model

    async def ask(self, token: str) -> Answer:
        """Ask the agent as the planner does, through its sidecar."""
        return await self._send(self.hops.writer.inbound, self.hops.planner, bearer(token))

    async def ask_directly(self, *shown: tuple[str, str]) -> Answer:
        """Ask the agent on its own port, past its sidecar."""
        return await self._send(self.port, None, list(shown))

    async def _send(self, port: int, context: Any, headers: Headers) -> Answer:
        example = self.example
        body = json.dumps(example.question).encode() if example.question else b""
        fields = [*headers, *example.fields]
        return await self.hops.world.call(port, context, example.path, headers=fields, body=body)

    def subjects(self) -> set[str]:
        """Return the users for whom the agent's calls were allowed, as the records name them."""
        records = self.hops.writer.records()
        return {one["subject"] for one in records if one["direction"] == "outbound" and one["decision"] == "allow"}

    def refusals(self) -> dict[str, int]:
        """Count the refused calls of the agent, by their reasons."""
        calls = [one for one in self.hops.writer.records() if one["direction"] == "outbound"]
        return dict(Counter(one["reason"] for one in calls if one["decision"] == "deny"))


def begin(command: list[str | Path], log: Path, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen([*map(str, command)], env=environ, stdout=output, stderr=output)


@asynccontextmanager
async def running(command: list[str | Path], port: int, log: Path, **environ: str) -> AsyncIterator[None]:
    process = begin(
        command, log, {**os.environ, "PYTHONPATH": str(agents.ROOT / "agent"), "PORT": str(port), **environ}
    )
    try:
        await until(lambda: process.poll() is not None or listens(port), START_S)
        assert process.poll() is None, end_of(log)
        yield
    finally:
        await asyncio.to_thread(end, process)


@asynccontextmanager
async def mesh_around(hops: Hops, example: Example) -> AsyncIterator[Mesh]:
    world, agent_port, crm_port, model = hops.world, free_port(), free_port(), Agent()
    model.script = model_says
    model.port = await world.listen(model.serve)
    if example.target is None:
        hops.crm.script = crm_says
        crm_port = await world.listen(hops.crm.serve)
    settings = world.settings()
    settings["inbound"] |= {"agent": f"http://127.0.0.1:{crm_port}", "routes": [everything([str(WRITER)], "crm.read")]}
    crm = await world.sidecar(CRM, settings)
    hops.ports["crm"] = crm.inbound
    hops.agent.port = agent_port
    await hops.start(route={"match": {"path_prefix": "/", "methods": ["GET", "POST"]}})
    environ = {
        "SIDECAR_OUTBOUND_URL": f"http://127.0.0.1:{hops.writer.outbound}",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model.port}/v1",
        "OPENAI_API_KEY": "of-a-test",
        "NO_PROXY": "127.0.0.1",
    }
    command = await asyncio.to_thread(example.command)
    async with running(command, agent_port, world.folder / "agent.log", **environ):
        if example.target is None:
            yield Mesh(hops, example, agent_port, model)
            return
        async with running([agents.PYTHON, APPS / example.target], crm_port, world.folder / "crm.log"):
            yield Mesh(hops, example, agent_port, model)


def everything(peers: list[str], scope: str) -> dict[str, Any]:
    match = {"path_prefix": "/", "methods": ["DELETE", "GET", "POST"]}
    return {"name": "all", "match": match, "scopes": [scope], "peers": peers}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_each_example_acts_for_the_user_of_each_request_and_for_nobody_else(hops: Hops, example: Example) -> None:
    require(agents.missing())
    if example.tool is not None and shutil.which(example.tool) is None:
        pytest.skip(f"not on PATH: {example.tool}")
    async with mesh_around(hops, example) as mesh:
        alice = await mesh.ask(mint())
        assert b"Globex of alice" in alice.body, (alice, mesh.refusals())

        names = [f"user-{number}" for number in range(USERS)]
        answers = await asyncio.gather(*(mesh.ask(mint({"sub": name})) for name in names))
        assert [
            name for name, answer in zip(names, answers, strict=True) if f"of {name}".encode() not in answer.body
        ] == []
        # an agent may write more records than one for each user: of a session that it opened, of a listing
        await until(lambda: mesh.subjects() >= {"alice", *names})
        assert mesh.subjects() == {"alice", *names}
        for head, _ in mesh.model.requests:
            assert b"delegation-handle" not in head.lower()
        assert mesh.refusals() == {}

        narrower = await mesh.ask(mint({"scope": "docs.write"}))
        without = await mesh.ask_directly()
        unknown = await mesh.ask_directly(("Delegation-Handle", "x" * 43))
        assert [b"Globex" in answer.body for answer in (narrower, without, unknown)] == [False] * 3
        await until(lambda: mesh.refusals().get("no_request_context", 0) >= 2)
        assert mesh.refusals().keys() == {"insufficient_scope", "no_request_context"}
