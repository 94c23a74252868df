"""The stand-ins' MCP: what a server of 2026-07-28 must answer, and must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sidecar_dev import json_rpc
from sidecar_dev.agent_server import Incoming, Outgoing
from sidecar_dev.json_rpc import RpcError
from sidecar_dev.mcp_stand_in import Tool, call_tool, serve_tools, tool_request

NAME = "greet ü"
TOOLS = {
    NAME: Tool("Greets.", {"who": "a name"}, lambda asked: {"said": f"hello {asked['who']}"}),
    "other": Tool("Does something else.", {}, lambda _asked: {}),
}
Change = Callable[[dict[str, Any], dict[str, str]], object]


def serve(message: dict[str, Any], fields: Mapping[str, str], method: str = "POST") -> Outgoing:
    return serve_tools("tools", TOOLS, Incoming(method, "/mcp", dict(fields), message))


def asking(method: str) -> tuple[dict[str, Any], dict[str, str]]:
    message, fields = tool_request("test", NAME, {"who": "alice"})
    params = {"_meta": message["params"]["_meta"]}
    del fields["mcp-name"]
    return {**message, "method": method, "params": params}, {**fields, "mcp-method": method}


def test_a_call_is_answered_by_a_complete_result_with_its_id() -> None:
    message, fields = tool_request("test", NAME, {"who": "alice"})
    answer = serve(message, fields)
    assert (answer.status, answer.body["id"]) == (200, message["id"])
    result = answer.body["result"]
    assert (result["resultType"], result["isError"], result["structuredContent"]) == (
        "complete", False, {"said": "hello alice"},
    )  # fmt: skip
    assert result["content"] == [{"type": "text", "text": '{"said": "hello alice"}'}]


def test_a_name_that_a_field_cannot_carry_is_sent_in_base64() -> None:
    assert tool_request("test", NAME, {})[1]["mcp-name"] == "=?base64?Z3JlZXQgw7w=?="
    assert tool_request("test", "greet", {})[1]["mcp-name"] == "greet"


def test_versions_capabilities_and_tools_are_told() -> None:
    found = serve(*asking("server/discover")).body["result"]
    assert (found["supportedVersions"], found["capabilities"]) == (["2026-07-28"], {"tools": {}})
    listed = serve(*asking("tools/list")).body["result"]
    assert [tool["name"] for tool in listed["tools"]] == [NAME, "other"]
    assert listed["tools"][0]["inputSchema"]["required"] == ["who"]
    assert {"ttlMs", "cacheScope", "resultType"} <= listed.keys()


REFUSED: dict[str, tuple[Change, int, int]] = {
    "another name in the field": (lambda _, fields: fields.update({"mcp-name": "other"}), 400, -32020),
    "another name in the message": (lambda message, _: message["params"].update(name="other"), 400, -32020),
    "no name in a field": (lambda _, fields: fields.pop("mcp-name"), 400, -32020),
    "a name that cannot be decoded": (lambda _, fields: fields.update({"mcp-name": "=?base64?x?="}), 400, -32020),
    "another method in the field": (lambda _, fields: fields.update({"mcp-method": "tools/list"}), 400, -32020),
    "no version in a field": (lambda _, fields: fields.pop("mcp-protocol-version"), 400, -32020),
    "no _meta": (lambda message, _: message["params"].pop("_meta"), 400, -32602),
    "not JSON-RPC": (lambda message, _: message.update(jsonrpc="1.0"), 400, -32600),
}


@pytest.mark.parametrize(("change", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_call_with_one_fact_changed_is_refused(change: Change, status: int, code: int) -> None:
    message, fields = tool_request("test", NAME, {"who": "alice"})
    assert serve(message, fields).status == 200
    change(message, fields)
    answer = serve(message, fields)
    assert (answer.status, answer.body["error"]["code"], answer.body["id"]) == (status, code, message["id"])


def test_another_version_is_told_which_one_there_is() -> None:
    message, fields = tool_request("test", NAME, {"who": "alice"})
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2027-01-01"
    answer = serve(message, {**fields, "mcp-protocol-version": "2027-01-01"})
    assert (answer.status, answer.body["error"]["code"]) == (400, -32022)
    assert answer.body["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2027-01-01"}


def test_an_unknown_method_is_not_found_and_a_notification_is_accepted() -> None:
    answer = serve(*asking("tools/forget"))
    assert (answer.status, answer.body["error"]["code"]) == (404, -32601)
    told = serve({"jsonrpc": "2.0", "method": "notifications/cancelled"}, {})
    assert (told.status, told.empty) == (202, True)


@pytest.mark.parametrize(
    ("method", "fields", "status"), [("GET", {}, 405), ("DELETE", {}, 405), ("POST", {"origin": "http://evil"}, 403)]
)
def test_there_is_no_session_and_nothing_for_browsers(method: str, fields: dict[str, str], status: int) -> None:
    message, lawful = tool_request("test", NAME, {"who": "alice"})
    assert serve(message, {**lawful, **fields}, method).status == status


def answering(body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(_url: str, _method: str, _incoming: Incoming, message: dict[str, Any], _fields: object) -> Outgoing:
        return Outgoing(200, {"jsonrpc": "2.0", "id": message["id"], **body})

    monkeypatch.setattr(json_rpc, "call", answered)


BAD: dict[str, dict[str, Any]] = {
    "an error": {"error": {"code": -32050, "message": "no"}},
    "a failure of the tool": {"result": {"isError": True, "content": []}},
    "a result of another type": {"result": {"resultType": "input_required"}},
    "no result": {},
    "another id": {"id": "x", "result": {}},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_caller_takes_only_a_complete_result_to_its_own_request(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = Incoming("POST", "/", {}, {})
    answering({"result": {"structuredContent": {"a": 1}}}, monkeypatch)
    assert call_tool("http://x", "test", NAME, {}, incoming) == {"a": 1}
    answering(body, monkeypatch)
    with pytest.raises(RpcError):
        call_tool("http://x", "test", NAME, {}, incoming)
