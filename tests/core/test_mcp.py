from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from delegation_core import mcp
from delegation_core.errors import Denied, Reason
from delegation_core.json_rpc import MessageRefused, RpcMessage
from delegation_core.operation import Operations
from sidecar.features.mcp.settings import key_of
from tests.core.world import reason_of

NOW = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": NOW}


def call(method: str, **params: object) -> RpcMessage:
    return RpcMessage(1, method, params)


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (call("tools/call", name="search", arguments={"name": "other"}), "tools/call:search"),
        (call("tools/list"), "tools/list"),
        (call("prompts/get", name="greet"), "prompts/get:greet"),
        (call("resources/read", uri="file:///a"), "resources/read:file:///a"),
        (call("resources/subscribe", uri="file:///a"), "resources/subscribe:file:///a"),
        (call("completion/complete", ref={"type": "ref/prompt", "name": "greet"}), "completion/complete:greet"),
        (call("completion/complete", ref={"type": "ref/resource", "uri": "x:{y}"}), "completion/complete:x:{y}"),
        (call("initialize"), "initialize"),
        (call("server/discover"), "server/discover"),
        (call("tasks/get", taskId="1"), "tasks/get"),
        (RpcMessage(1, None, {}), "response"),
    ],
)
def test_a_message_has_one_key(message: RpcMessage, key: str) -> None:
    assert mcp.operation_of(message) == key


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": ""},
        {"name": 7},
        {"name": ["search"]},
        {"name": "search\0"},
        {"name": "sea\u200brch"},
        {"name": "x" * 2049},
        {"Name": "search"},
        {"name": "search", "NAME": "delete"},
        {"uri": "search"},
    ],
)
def test_a_tool_without_one_name_is_refused(params: dict[str, object]) -> None:
    with pytest.raises(MessageRefused) as refused:
        mcp.operation_of(call("tools/call", **params))
    assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize("ref", [None, "greet", {}, {"type": "ref/tool", "name": "x"}, {"type": ["ref/prompt"]}])
def test_a_completion_of_nothing_known_is_refused(ref: object) -> None:
    with pytest.raises(MessageRefused) as refused:
        mcp.operation_of(call("completion/complete", ref=ref))
    assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize("method", ["tools/delete", "Tools/call", "tools/call ", "response", "session/delete"])
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        mcp.operation_of(call(method, name="search"))
    assert refused.value.reason is Reason.OPERATION_REFUSED


def check(message: RpcMessage, version: str | None = NOW, method: str | None = None, name: str | None = None) -> None:
    mcp.check_fields(message, version=version, method=method, name=name)


def test_fields_that_repeat_the_message_are_taken() -> None:
    search = call("tools/call", name="search", _meta=META)
    assert reason_of(check, search, method="tools/call", name="search") is None
    encoded = base64.b64encode("größe".encode()).decode()
    measured = call("tools/call", name="größe", _meta=META)
    assert reason_of(check, measured, method="tools/call", name=f"=?base64?{encoded}?=") is None
    assert reason_of(check, call("tools/list", _meta=META), method="tools/list") is None
    assert reason_of(check, call("tasks/get", taskId="7", _meta=META), method="tasks/get", name="7") is None


def test_before_2026_the_fields_may_be_missing() -> None:
    for version in (None, "2025-06-18", "2025-11-25"):
        assert reason_of(check, call("tools/call", name="search"), version=version) is None


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        pytest.param(call("tools/call", name="a", _meta=META), {"method": "tools/list", "name": "a"}, id="method"),
        pytest.param(call("tools/call", name="a", _meta=META), {"method": "tools/call", "name": "b"}, id="name"),
        pytest.param(call("tools/call", name="a", _meta=META), {"method": "tools/call"}, id="no-name"),
        pytest.param(call("tools/call", name="a", _meta=META), {"name": "a"}, id="no-method"),
        pytest.param(call("tools/list"), {"method": "tools/list"}, id="no-version-in-the-message"),
        pytest.param(
            call("tools/list", _meta=META), {"version": "2025-11-25", "method": "tools/list"}, id="older-version-field"
        ),
        pytest.param(call("tools/list", _meta=META), {"version": None, "method": "tools/list"}, id="no-version-field"),
        pytest.param(call("tools/list", _meta=[]), {"method": "tools/list"}, id="meta-is-a-list"),
        pytest.param(
            call("tools/list", _meta={**META, "IO.modelcontextprotocol/protocolVersion": "x"}),
            {"method": "tools/list"},
            id="two-versions-by-case",
        ),
        pytest.param(call("tools/call", name="a"), {"version": None, "name": "b"}, id="name-in-an-older-revision"),
        pytest.param(call("ping"), {"version": "2025-06-18", "method": "tools/call"}, id="method-in-an-older-revision"),
        pytest.param(
            call("tools/call", name="a", _meta=META), {"method": "tools/call", "name": "=?base64?a?="}, id="not-base64"
        ),
        pytest.param(RpcMessage(1, None, {}), {"method": None}, id="response-without-sessions"),
    ],
)
def test_a_field_that_says_otherwise_is_refused(message: RpcMessage, fields: dict[str, str | None]) -> None:
    with pytest.raises(MessageRefused) as refused:
        check(message, **fields)
    assert refused.value.reason is Reason.OPERATION_MALFORMED
    assert refused.value.id == 1


def test_a_response_is_refused_as_such_where_a_revision_has_no_sessions() -> None:
    response = RpcMessage(1, None, {})
    check(response, version="2025-11-25")
    with pytest.raises(MessageRefused) as refused:
        check(response)
    assert refused.value.detail == "the message is a response, but in this revision servers send no requests"


def test_a_parameter_s_field_repeats_its_argument() -> None:
    message = call("tools/call", name="a", arguments={"region": "eu"})
    mcp.check_fields(message, version="2025-11-25", method=None, name=None, params=[("region", "eu")])
    with pytest.raises(MessageRefused) as refused:
        mcp.check_fields(message, version="2025-11-25", method=None, name=None, params=[("region", "us")])
    assert refused.value.reason is Reason.OPERATION_MALFORMED


@pytest.mark.parametrize(
    ("message", "fields", "code"),
    [
        pytest.param(call("tools/list", _meta=META), {"method": "ping"}, -32020, id="another-method-in-its-field"),
        pytest.param(call("tools/list", _meta=META), {}, -32020, id="no-field-for-the-method"),
        pytest.param(
            call("tools/call", name="a", _meta=META), {"method": "tools/call", "name": "b"}, -32020, id="another-name"
        ),
        pytest.param(call("tools/call", name="a", _meta=META), {"method": "tools/call"}, -32020, id="no-name"),
        pytest.param(
            call("tools/call", name="a", _meta=META),
            {"method": "tools/call", "name": "=?base64?a?="},
            -32020,
            id="a-name-that-cannot-be-decoded",
        ),
        pytest.param(
            call("ping", _meta={"io.modelcontextprotocol/protocolVersion": "v9"}),
            {"method": "ping"},
            -32020,
            id="another-version",
        ),
        pytest.param(
            call("tools/call", name="ü", _meta=META),
            {"method": "tools/call", "name": "ü"},
            -32020,
            id="a-name-not-ascii",
        ),
        pytest.param(call("tools/list"), {"method": "tools/list"}, -32602, id="no-meta"),
        pytest.param(call("tools/list", _meta={}), {"method": "tools/list"}, -32602, id="no-version-in-meta"),
        pytest.param(call("tools/list", _meta=[]), {"method": "tools/list"}, -32602, id="meta-is-a-list"),
    ],
)
def test_2026_07_28_has_a_code_for_each_fault(message: RpcMessage, fields: dict[str, str | None], code: int) -> None:
    with pytest.raises(MessageRefused) as refused:
        check(message, **fields)
    assert (refused.value.reason, refused.value.code) == (Reason.OPERATION_MALFORMED, code)


@pytest.mark.parametrize("method", ["resources/subscribe", "resources/unsubscribe"])
def test_2026_07_28_has_no_subscriptions_to_one_resource(method: str) -> None:
    message = call(method, uri="file:///a")
    assert mcp.operation_of(message) == f"{method}:file:///a"
    with pytest.raises(MessageRefused) as refused:
        mcp.operation_of(message, stateless=True)
    assert (refused.value.reason, refused.value.code) == (Reason.OPERATION_REFUSED, -32601)


# What clients send to servers: the requests and notifications of each revision's schema, and of the extension of tasks.
_ALWAYS = frozenset(
    {
        *("completion/complete", "notifications/cancelled", "prompts/get", "prompts/list", "resources/list"),
        *("resources/read", "resources/templates/list", "tools/call", "tools/list"),
    }
)
_OF_SESSIONS = _ALWAYS | {
    *("initialize", "logging/setLevel", "notifications/initialized", "notifications/progress"),
    *("notifications/roots/list_changed", "ping", "resources/subscribe", "resources/unsubscribe"),
}
_TASKS = frozenset({"tasks/cancel", "tasks/get"})
OF_REVISIONS = {
    "2024-11-05": _OF_SESSIONS,
    "2025-03-26": _OF_SESSIONS,
    "2025-06-18": _OF_SESSIONS,
    "2025-11-25": _OF_SESSIONS | _TASKS | {"tasks/list", "tasks/result"},
    "2026-07-28": _ALWAYS | _TASKS | {"server/discover", "subscriptions/listen", "tasks/update"},
}
EVERY_METHOD = sorted(frozenset().union(*OF_REVISIONS.values()))


def test_the_table_has_every_known_revision_and_every_known_method() -> None:
    assert OF_REVISIONS.keys() == mcp.VERSIONS
    different = {*EVERY_METHOD, mcp.STREAM, mcp.DELETE, mcp.RESPONSE} ^ mcp.METHODS
    assert not different, f"OF_REVISIONS of this test says which revisions have {sorted(different)}"


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_of_every_revision_is_an_operation_that_can_be_listed_and_refused(method: str) -> None:
    message = call(method, name="n", uri="file:///a", ref={"type": "ref/prompt", "name": "n"})
    key = mcp.operation_of(message)
    assert key.partition(":")[0] == method
    assert key_of(key) == key
    assert Operations({key: 1}).find(key) == 1
    with pytest.raises(Denied) as refused:
        Operations({"tools/call:another": 1}).find(key)
    assert refused.value.reason is Reason.OPERATION_REFUSED


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_2026_07_28_has_its_own_methods_and_no_other(method: str) -> None:
    message = call(method, name="n", uri="file:///a", ref={"type": "ref/prompt", "name": "n"})
    if method in OF_REVISIONS["2026-07-28"]:
        assert mcp.operation_of(message, stateless=True) == mcp.operation_of(message)
        return
    with pytest.raises(MessageRefused) as gone:
        mcp.operation_of(message, stateless=True)
    assert (gone.value.reason, gone.value.code, gone.value.id) == (Reason.OPERATION_REFUSED, -32601, 1)


def test_only_what_opens_keeps_and_ends_a_session_is_allowed_without_a_list() -> None:
    assert sorted(mcp.LIFECYCLE) == [
        *("initialize", "notifications/cancelled", "notifications/initialized", "notifications/progress"),
        *("notifications/roots/list_changed", "ping", "response", "server/discover", "session/delete"),
        "session/stream",
    ]


@pytest.mark.parametrize(("version", "told"), [("v999.0.0", "v999.0.0"), ("2027 <b>", None), ("9" * 33, None)])
def test_an_unknown_version_is_told_which_are_known(version: str, told: str | None) -> None:
    with pytest.raises(MessageRefused) as refused:
        check(call("ping"), version=version)
    assert (refused.value.id, refused.value.facts.get("requested")) == (1, told)
    assert refused.value.facts["supported"] == [NOW]


@pytest.mark.parametrize("version", ["2027-01-01", "", "2026-07-28, 2025-06-18", "2026-7-28"])
def test_an_unknown_version_is_refused(version: str) -> None:
    with pytest.raises(MessageRefused) as refused:
        check(call("ping"), version=version)
    assert refused.value.reason is Reason.PROTOCOL_VERSION


def test_the_page_lists_every_operation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
    table = page.partition("## Operations")[2].partition("## ")[0]
    listed = {word.partition(":")[0] for word in re.findall(r"`([^`]+)`", table)}
    assert not mcp.METHODS - listed, f"docs/mcp.md, 'Operations', lists each one: {sorted(mcp.METHODS - listed)}"
    assert all(f"| {version}" in page or f", {version}" in page for version in mcp.VERSIONS)
