"""The stand-ins' A2A 1.0: one answer to one message, and the protocol's errors for all else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar_dev.a2a_stand_in import CARD, FIELDS, Said, card_of, message_request, serve_agent
from sidecar_dev.agent_server import Incoming, Outgoing

ABOUT = card_of("greeter", "Greets.", "http://127.0.0.1:1/a2a", ["greet"])


def work(text: str, data: dict[str, Any]) -> Said:
    return f"hello {text}", data


def serve(message: dict[str, Any], fields: dict[str, str] | None = None, path: str = "/a2a") -> Outgoing:
    return serve_agent(ABOUT, work, Incoming("POST", path, FIELDS if fields is None else fields, message))


def test_a_message_is_answered_by_one_of_the_agents() -> None:
    message = message_request("alice", {"a": 1})
    answer = serve(message)
    said = answer.body["result"]["message"]
    assert (answer.status, answer.body["id"], said["role"]) == (200, message["id"], "ROLE_AGENT")
    assert said["parts"] == [{"text": "hello alice"}, {"data": {"a": 1}}]
    assert said["messageId"] != message["params"]["message"]["messageId"]


def test_the_version_may_be_a_parameter_of_the_query() -> None:
    assert "result" in serve(message_request("alice", {}), {}, "/a2a?A2A-Version=1.0").body


@pytest.mark.parametrize("fields", [{}, {"a2a-version": "0.3"}, {"a2a-version": "2.0"}])
def test_another_version_or_none_which_is_another_one_is_refused(fields: dict[str, str]) -> None:
    error = serve(message_request("alice", {}), fields).body["error"]
    assert (error["code"], error["data"][0]["reason"]) == (-32009, "VERSION_NOT_SUPPORTED")


Change = Callable[[dict[str, Any]], object]
BAD: dict[str, tuple[Change, int]] = {
    "an unknown method": (lambda m: m.update(method="Shout"), -32601),
    "a method of 0.3": (lambda m: m.update(method="message/send"), -32601),
    "streaming, which it has not": (lambda m: m.update(method="SendStreamingMessage"), -32004),
    "a task it never made": (lambda m: m.update(method="GetTask"), -32001),
    "push notifications": (lambda m: m.update(method="CreateTaskPushNotificationConfig"), -32003),
    "no message": (lambda m: m["params"].clear(), -32602),
    "no parts": (lambda m: m["params"]["message"].update(parts=[]), -32602),
    "a role of 0.3": (lambda m: m["params"]["message"].update(role="user"), -32602),
    "no messageId": (lambda m: m["params"]["message"].pop("messageId"), -32602),
    "a task of another's": (lambda m: m["params"]["message"].update(taskId="t"), -32001),
    "a context that it does not keep": (lambda m: m["params"]["message"].update(contextId="c"), -32602),
    "not JSON-RPC": (lambda m: m.pop("jsonrpc"), -32600),
}


@pytest.mark.parametrize(("change", "code"), BAD.values(), ids=BAD.keys())
def test_all_else_is_an_error_of_the_protocol(change: Change, code: int) -> None:
    message = message_request("alice", {})
    change(message)
    answer = serve(message)
    assert (answer.body["error"]["code"], answer.body["id"]) == (code, message["id"])


def test_there_are_no_tasks_to_list() -> None:
    message = {**message_request("alice", {}), "method": "ListTasks", "params": {}}
    assert serve(message).body["result"] == {"tasks": [], "nextPageToken": "", "pageSize": 0, "totalSize": 0}


def test_the_card_names_the_interface() -> None:
    answer = serve_agent(ABOUT, work, Incoming("GET", CARD, {}, {}))
    assert answer.body["supportedInterfaces"] == [
        {"url": "http://127.0.0.1:1/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    assert serve_agent(ABOUT, work, Incoming("GET", "/a2a", {}, {})).status == 405
