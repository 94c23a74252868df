"""The demo's agents write MCP and A2A by hand: the official SDKs must understand them, at either end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sidecar_dev.a2a_stand_in import FIELDS, message_request
from sidecar_dev.agent_server import Incoming
from sidecar_dev.json_rpc import RpcError, ask
from sidecar_dev.mcp_stand_in import tool_request
from sidecar_dev.processes import free_ports
from tests.interop import agents
from tests.interop.engine import require
from tests.interop.frameworks import end, listens

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]

APPS = Path(__file__).parent / "apps"
NOBODY = Incoming("POST", "/", {}, {})
START_S = 60


@contextmanager
def running(port: int, *words: str | Path, **environ: str) -> Iterator[None]:
    """Run a server until it is no longer needed; it listens now."""
    process = subprocess.Popen(words, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not listens(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        end(process)


def test_the_official_clients_understand_the_stand_ins() -> None:
    require(agents.missing())
    crm, writer = free_ports(2)
    with ExitStack() as stack:
        for name, port in (("crm", crm), ("writer", writer)):
            words = [sys.executable, "-m", "sidecar_dev.demo_agents", name, "--listen", f"127.0.0.1:{port}"]
            stack.enter_context(running(port, *words, CRM_URL=f"http://127.0.0.1:{crm}/mcp"))
        urls = (f"http://127.0.0.1:{crm}/mcp", f"http://127.0.0.1:{writer}")
        said = json.loads(agents.run(agents.PYTHON, APPS / "sdk_client.py", *urls, cwd=APPS))
    assert said == {
        "version": "2026-07-28",
        "tools": ["read_customer", "read_notes", "export_customers"],
        "found": [False, {"name": "Globex", "contact": "hank@globex.example", "renewal": "2027-01-31"}],
        "failed": [True, "no such customer"],
        "unknown": "Unknown tool",
        "answer": "Globex renews on 2027-01-31.",
        "tasks": 0,
        "no task": "Task not found",
    }


def test_the_official_servers_understand_the_stand_ins() -> None:
    require(agents.missing())
    tools, agent = free_ports(2)
    alice = {"delegation-subject": "alice"}
    with ExitStack() as stack:
        stack.enter_context(running(tools, agents.PYTHON, APPS / "mcp_target.py", PORT=str(tools)))
        stack.enter_context(running(agent, agents.PYTHON, APPS / "a2a_target.py", PORT=str(agent)))
        message, fields = tool_request("test", "customer", {"number": "42"})
        found = ask(f"http://127.0.0.1:{tools}/mcp", message, NOBODY, {**fields, **alice})
        assert (found["isError"], found["content"][0]["text"]) == (False, "Globex of alice")
        with pytest.raises(RpcError, match="mcp-name"):
            ask(f"http://127.0.0.1:{tools}/mcp", message, NOBODY, {**fields, **alice, "mcp-name": "other"})

        message = message_request("When does it renew?", {"customer": "42"})
        said = ask(f"http://127.0.0.1:{agent}/", message, NOBODY, {**FIELDS, **alice})
        assert said["message"]["parts"] == [{"text": "Globex of alice"}]
        with pytest.raises(RpcError):
            ask(f"http://127.0.0.1:{agent}/", message, NOBODY, {**alice, "a2a-version": "9.9"})
