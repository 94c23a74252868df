"""``sidecar dev run`` as a person uses it: an agent of ten lines, and the printed curl line."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.check import check
from sidecar_dev.processes import free_ports

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0

AGENT = """
import json, os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

class Agent(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = {name: self.headers[name] for name in ("Delegation-Subject", "Delegation-Actor")}
        if self.path == "/ask":
            url = os.environ["SIDECAR_OUTBOUND_URL"] + "/echo/question"
            request = urllib.request.Request(url, headers={"Authorization": self.headers["Authorization"]})
            answer = json.load(urllib.request.urlopen(request))
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Agent).serve_forever()
"""


class Session:
    """A running ``sidecar dev run`` and its output."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def hears(self, pattern: str) -> re.Match[str]:
        """Return the next line on stderr that matches."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.process.stderr.readline()).decode():
                self.said.append(line)
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"it ended without saying {pattern!r}: {''.join(self.said)}")

    async def hears_all(self, *patterns: str) -> list[str]:
        """Return the first groups of lines that come in any order."""
        found: dict[str, str] = {}
        while len(found) < len(patterns):
            line = (await self.hears("|".join(f"(?:{one})" for one in patterns if one not in found)))[0]
            found |= {one: matched[1] for one in patterns if (matched := re.search(one, line))}
        return [found[one] for one in patterns]

    async def printed(self) -> str:
        """Return what it prints on stdout to its end."""
        async with asyncio.timeout(PATIENCE_S):
            told, last = await self.process.communicate()
        self.said.append(last.decode())
        return told.decode()

    async def ends(self) -> tuple[int, str]:
        """Return the exit code, and the last output."""
        async with asyncio.timeout(PATIENCE_S):
            _, last = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, last.decode()


@asynccontextmanager
async def running(command: Sequence[str], *options: str, stdout: int = DEVNULL) -> AsyncIterator[Session]:
    (port,) = free_ports(1)
    words = [sys.executable, "-m", "sidecar.cli", "dev", "run", "--agent-port", str(port), *options, "--", *command]
    process = await asyncio.create_subprocess_exec(*words, stdin=DEVNULL, stdout=stdout, stderr=PIPE)
    try:
        yield Session(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await process.communicate()


async def curl(line: str) -> dict[str, Any]:
    """Run the line as printed, with another destination."""
    words = shlex.split(line)
    assert words[0] == "curl"
    process = await asyncio.create_subprocess_exec(*words, stdout=PIPE, stderr=DEVNULL)
    async with asyncio.timeout(PATIENCE_S):
        answer, _ = await process.communicate()
    found = json.loads(answer)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def agent(tmp_path: Path) -> list[str]:
    path = tmp_path / "agent.py"
    path.write_text(AGENT)
    return [sys.executable, str(path)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_printed_line_calls_the_agent_through_the_mesh(agent: list[str]) -> None:
    async with running(agent) as session:
        line = (await session.hears(r"^sidecar:   (curl .*)$"))[1]
        assert await curl(line) == {
            "Delegation-Subject": "alice",
            "Delegation-Actor": "spiffe://acme.example/agent/front",
        }
        await session.hears(r"agent +inbound GET / 200  for alice by front")
        session.process.send_signal(signal.SIGINT)
        code, _ = await session.ends()
        assert code == 128 + signal.SIGINT
        header = re.search(r"@(\S+)", line)
        assert header is not None
        assert not Path(header[1]).parent.exists()


A2A_AGENT = AGENT.replace(
    "answer = {name",
    'answer = {"name": "a", "url": os.environ.get("CARD_URL") or os.environ["SIDECAR_AGENT_URL"]} '
    'if "well-known" in self.path else {name',
)


@pytest.mark.parametrize(("address", "warned"), [("http://127.0.0.1:1/", True), ("", False)])
async def test_an_agent_card_that_leads_past_the_mesh_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, *, warned: bool
) -> None:
    monkeypatch.setenv("CARD_URL", address)
    path = tmp_path / "agent.py"
    path.write_text(A2A_AGENT)
    async with running([sys.executable, str(path)]) as session:
        await session.hears(r"^sidecar:   curl ")
        session.process.send_signal(signal.SIGINT)
        _, last = await session.ends()
        assert ("warning: the agent's card names http://127.0.0.1:1/" in last) == warned


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_agent_reaches_a_tool_with_its_handle_and_the_tool_sees_the_agent(agent: list[str]) -> None:
    (tool_port,) = free_ports(1)
    tool = await asyncio.create_subprocess_exec(*agent, env={"PORT": str(tool_port)}, stderr=DEVNULL)
    try:
        async with running(agent, "--may-call", f"echo=http://127.0.0.1:{tool_port}", "--user", "bob") as session:
            line = (await session.hears(r"^sidecar:   (curl .*)$"))[1]
            assert await curl(f"{line}ask") == {
                "Delegation-Subject": "bob",
                "Delegation-Actor": "spiffe://acme.example/agent/agent",
            }
            await session.hears(r"echo +inbound GET /question 200  for bob by agent via front")
    finally:
        tool.kill()
        await tool.wait()


CALLING = """
import json, os, sys
from sidecar_dev.agent_server import Outgoing, serve
from sidecar_dev.json_rpc import RpcError, ask
from sidecar_dev.a2a_stand_in import card_of, serve_agent
from sidecar_dev.mcp_stand_in import tool_request

def agent(incoming):
    def work(text, data):
        targets = {"crm": ("/crm/mcp", {}), "open": ("/mcp", {"host": "open.acme.example"})}
        told = []
        for name, tool, arguments in json.loads(text):
            message, fields = tool_request("agent", tool, arguments)
            path, host = targets[name]
            try:
                ask(os.environ["SIDECAR_OUTBOUND_URL"] + path, message, incoming, {**fields, **host})
                told.append("ok")
            except RpcError as refused:
                told.append(refused.error["data"]["reason"])
        return json.dumps(told), {}
    return serve_agent(card_of("agent", "Calls.", os.environ["SIDECAR_AGENT_URL"], []), work, incoming)

serve(agent, "127.0.0.1", int(os.environ["PORT"]))
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_operations_are_shown_and_become_settings_for_production(tmp_path: Path) -> None:
    """The tools of one server are listed by hand, those of the other are asked for; the port is the one asked for."""
    (tmp_path / "calling.py").write_text(CALLING)
    crm_port, port = free_ports(2)
    crm = [sys.executable, "-m", "sidecar_dev.demo_agents", "crm", "--listen", f"127.0.0.1:{crm_port}"]
    server = await asyncio.create_subprocess_exec(*crm, stderr=DEVNULL)
    options = [word for name in ("crm", "open") for word in ("--may-call", f"{name}=http://127.0.0.1:{crm_port}")]
    options += ["--mcp", "crm", "--mcp", "open", "--allow", "crm=tools/call:read_customer", "--a2a", "agent"]
    options += ["--host", "open=open.acme.example", "--port", str(port), "--print-settings"]
    try:
        async with running([sys.executable, str(tmp_path / "calling.py")], *options, stdout=PIPE) as session:
            line = (await session.hears(r"^sidecar:   (curl .*)$"))[1]  # shown once the names of the tools are in force
            assert line.endswith(f" http://127.0.0.1:{port}/agent/")
            customer = {"customer": "42"}
            wanted = [["crm", "read_customer", customer], ["crm", "export_customers", {}]]
            asked = json.dumps([*wanted, ["open", "read_notes", customer]])
            answer = await curl(line.replace('"Hello"', json.dumps(asked)))
            assert answer["result"]["message"]["parts"] == [{"text": '["ok", "operation_refused", "ok"]'}]
            await session.hears(r"agent +inbound POST / SendMessage 200  for alice by front")
            session.process.send_signal(signal.SIGINT)
            printed = await session.printed()
    finally:
        server.kill()
        await server.wait()
    said = "".join(session.said)
    assert "open has the tools export_customers, read_customer, read_notes" in said
    assert re.search(r"\+  crm +inbound POST /mcp tools/call:read_customer 200", said)
    assert re.search(r"-  agent +outbound POST /crm/mcp tools/call:export_customers 403 +operation_refused", said)
    allowed = {}
    for text in printed.split("---\n"):
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        assert check(path, {}).problems == [], text
        made = yaml.safe_load(text)
        for section in made.keys() & {"inbound", "outbound"}:
            for route in made[section]["routes"]:
                allowed[section, route["name"]] = route["operations"][0]["allow"]
    assert allowed == {
        ("inbound", "agent-a2a"): ["SendMessage"],
        ("outbound", "crm"): ["tools/call:read_customer"],
        ("outbound", "open"): ["tools/call:read_notes"],
        ("inbound", "crm-mcp"): ["tools/call:read_customer"],
        ("inbound", "open-mcp"): ["tools/call:read_notes"],
    }


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_kept_settings_are_files_that_can_be_checked_and_name_records_beside_them(
    agent: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    async with running(agent, "--print-settings", "--keep", str(folder), stdout=PIPE) as session:
        line = (await session.hears(r"^sidecar:   (curl .*)$"))[1]
        asking = await asyncio.create_subprocess_exec(*shlex.split(line), stdout=DEVNULL, stderr=DEVNULL)
        await session.hears(r"agent +inbound GET / 200  for alice by front")
        await asking.wait()
        session.process.send_signal(signal.SIGINT)
        printed = await session.printed()
    assert "inbound:" not in printed
    assert check(folder / "agent.yaml", {}).problems == []
    named = re.findall(r"as ([0-9a-f]+)/(\d+)", (folder / "agent.yaml").read_text())
    records = [json.loads(one) for one in (folder / "agent.records").read_text().splitlines()]
    assert named
    assert {(run, int(seq)) for run, seq in named} <= {(one["run"], one["seq"]) for one in records}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_printed_settings_hold_nothing_that_the_agent_prints(agent: list[str], tmp_path: Path) -> None:
    loud = [sys.executable, "-c", f"import os; print('{{not yaml', flush=True); os.execv({agent[0]!r}, {agent!r})"]
    async with running(loud, "--print-settings", stdout=PIPE) as session:
        await session.hears(r"^sidecar:   (curl .*)$")
        session.process.send_signal(signal.SIGINT)
        (path := tmp_path / "agent.yaml").write_text(await session.printed())
    assert check(path, {}).problems == []
    assert "{not yaml\n" in session.said


async def test_a_folder_that_is_there_is_not_written_into(tmp_path: Path) -> None:
    async with running([sys.executable, "-c", ""], "--keep", str(tmp_path)) as session:
        code, said = await session.ends()
    assert code == 2, said
    assert f"{tmp_path} is there already" in said


@pytest.mark.parametrize(("code", "exit_code"), [(0, 0), (7, 7)])
async def test_it_ends_as_the_command_ends(code: int, exit_code: int) -> None:
    async with running([sys.executable, "-c", f"raise SystemExit({code})"]) as session:
        ended, said = await session.ends()
        assert ended == exit_code, said


async def test_a_command_that_dies_of_a_signal_is_told_as_a_shell_would() -> None:
    async with running([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) as session:
        assert (await session.ends())[0] == 128 + 9


async def test_a_command_that_is_not_there_is_told() -> None:
    async with running(["/nowhere/agent"]) as session:
        code, said = await session.ends()
    assert code == 2, said
    assert "/nowhere/agent: cannot be started: No such file or directory" in said


async def test_an_agent_that_listens_nowhere_is_hinted_at() -> None:
    async with running([sys.executable, "-c", "import signal; signal.pause()"]) as session:
        await session.hears(r"nothing listens on 127\.0\.0\.1:\d+ yet")
        session.process.send_signal(signal.SIGTERM)
        assert (await session.ends())[0] == 128 + signal.SIGTERM


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_a_service_that_listens_nowhere_is_named_and_no_other(agent: list[str]) -> None:
    up, down = free_ports(2)
    tool = await asyncio.create_subprocess_exec(*agent, env={"PORT": str(up)}, stderr=DEVNULL)
    try:
        services = [f"there=http://127.0.0.1:{up}", f"echo=http://127.0.0.1:{down}"]
        async with running(agent, *(word for one in services for word in ("--may-call", one))) as session:
            line = (await session.hears(r"^sidecar:   (curl .*)$"))[1]
            await session.hears(rf"nothing listens at http://127\.0\.0\.1:{down} yet: start echo there")
            assert "start there there" not in "".join(session.said)
            asking = await asyncio.create_subprocess_exec(*shlex.split(f"{line}ask"), stdout=DEVNULL, stderr=DEVNULL)
            await session.hears(r"echo +inbound GET /question 503 +upstream_unreachable")
            await asking.wait()
    finally:
        tool.kill()
        await tool.wait()


async def test_told_to_stop_while_it_starts_it_leaves_nothing_behind(agent: list[str]) -> None:
    async with running(agent) as session:
        await session.hears("bringing up")
        session.process.send_signal(signal.SIGTERM)
        code, said = await session.ends()
    assert code == 128 + signal.SIGTERM
    assert "started" not in said
