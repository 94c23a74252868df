"""Asking MCP servers for their tools: of the current revision, of those with sessions, and of neither."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar_dev.agent_server import AgentServer, Incoming, Outgoing, Script
from sidecar_dev.demo_agents import crm
from sidecar_dev.mcp_tools import list_tools


@contextmanager
def serving(script: Script) -> Iterator[str]:
    with AgentServer(script, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/mcp"
        server.stop()
        thread.join(10)


class Old:
    """A server of 2025-11-25: nothing without a session."""

    def __init__(self, tools: Any) -> None:
        self.tools = tools
        self.asked: list[str] = []

    def __call__(self, incoming: Incoming) -> Outgoing:
        method = str(incoming.body.get("method"))
        self.asked.append(incoming.method if incoming.method != "POST" else method)
        if method == "initialize":
            welcome = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            return Outgoing(200, self._result(incoming, welcome), fields={"Mcp-Session-Id": "s-1"})
        if incoming.headers.get("mcp-session-id") != "s-1":
            return Outgoing(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no session"}})
        if method == "tools/list":
            return Outgoing(200, self._result(incoming, {"tools": self.tools}))
        return Outgoing(202, empty=True)

    def _result(self, incoming: Incoming, result: dict[str, Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": incoming.body["id"], "result": result}


def test_a_server_without_sessions_is_asked_once() -> None:
    with serving(crm) as url:
        assert list_tools(url) == ["export_customers", "read_customer", "read_notes"]


def test_one_with_sessions_is_asked_in_one_that_is_ended() -> None:
    old = Old([{"name": "search"}, {"name": "a\nb"}, {"name": 7}, {"name": "*"}, "x"])
    with serving(old) as url:
        assert list_tools(url) == ["search"]
    assert old.asked == ["tools/list", "initialize", "notifications/initialized", "tools/list", "DELETE"]


@pytest.mark.parametrize("tools", [None, "tools", {}])
def test_a_server_that_tells_nothing_has_no_names(tools: Any) -> None:
    with serving(Old(tools)) as url:
        assert list_tools(url) is None


def test_what_is_no_server_of_mcp_has_no_names() -> None:
    with serving(lambda _incoming: Outgoing(404)) as url:
        assert list_tools(url) is None
    assert list_tools(url) is None
