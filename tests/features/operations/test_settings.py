"""Operations of routes of MCP and A2A: what settings may list, and what each listed operation needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from delegation_core.errors import ConfigError, Denied
from delegation_core.route import InboundRoute
from sidecar.check import check
from sidecar.config.settings import SidecarSettings
from sidecar.config.sidecar_file import load_sidecar
from tests.config.documents import ABSENT, changed, example, written

AGENT = example("agent")
ROUTE = "inbound.routes.0"
OUT = "outbound.routes.0"


def mcp(*changes: tuple[str, object]) -> dict[str, Any]:
    """Return the settings of an agent whose first routes, in and out, are of MCP."""
    return changed(
        AGENT,
        (f"{ROUTE}.protocol", "mcp"),
        (f"{ROUTE}.match", {"path": "/mcp"}),
        (f"{ROUTE}.operations", [{"allow": ["tools/list", "tools/call:search"]}]),
        (f"{OUT}.protocol", "mcp"),
        *changes,
    )


def load(folder: Path, document: dict[str, Any]) -> SidecarSettings:
    return load_sidecar(written(folder, document), {})


def problems(folder: Path, *changes: tuple[str, object]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as refused:
        load(folder, mcp(*changes))
    return [(problem.field, problem.wrong) for problem in refused.value.problems]


def test_an_operation_is_its_route_with_what_its_settings_add(tmp_path: Path) -> None:
    peers = AGENT["inbound"]["routes"][0]["peers"]
    needed = AGENT["inbound"]["routes"][0]["scopes"]
    operations = [
        {"allow": ["tools/call:search"]},
        {"allow": ["tools/call:*"], "scopes": needed, "subjects": ["alice"], "human": {"max_age_s": 60}},
    ]
    route = load(tmp_path, mcp((f"{ROUTE}.operations", operations))).inbound_routes.routes[0]
    search, other = route.for_operation("tools/call:search"), route.for_operation("tools/call:drop")
    assert (search.scopes, search.peers, search.subjects, search.human) == (
        frozenset(needed), frozenset(peers), frozenset(), None,
    )  # fmt: skip
    assert (other.operation, other.subjects) == ("tools/call:*", frozenset({"alice"}))
    assert other.human is not None
    assert other.human.max_age_s == 60
    assert len({route.key, search.key, other.key, route.for_operation("initialize").key}) == 4
    assert route.methods == {"POST", "GET", "DELETE"}
    with pytest.raises(Denied):
        route.for_operation("tools/list")


def test_own_authority_is_for_what_opens_a_session_alone(tmp_path: Path) -> None:
    operations = [{"allow": ["tools/list"], "allow_self": True}, {"allow": ["tools/call:search"]}]
    route = load(tmp_path, mcp((f"{ROUTE}.operations", operations), (f"{ROUTE}.allow_self", True))).inbound_routes
    first = route.routes[0]
    admitted = {key: first.for_operation(key).allow_self for key in ("initialize", "tools/list", "tools/call:search")}
    assert admitted == {"initialize": True, "tools/list": True, "tools/call:search": False}


def test_outbound_all_operations_are_allowed_unless_some_are_listed(tmp_path: Path) -> None:
    everything = load(tmp_path, mcp()).outbound_routes.routes[0]
    assert everything.for_operation("tools/call:drop").operation == "tools/call:*"
    listed = [{"allow": ["tools/call:search"]}]
    narrow = load(tmp_path, mcp((f"{OUT}.operations", listed))).outbound_routes.routes[0]
    assert narrow.for_operation("tools/call:search").scopes == narrow.scopes
    assert narrow.for_operation("initialize").for_itself is None
    with pytest.raises(Denied):
        narrow.for_operation("tools/call:drop")


@pytest.mark.parametrize(
    ("changes", "field", "wrong"),
    [
        ([(f"{ROUTE}.operations", ABSENT)], "operations", "is missing, so every call would be refused"),
        (
            [(f"{ROUTE}.match", {"path": "/mcp", "methods": ["POST"]})],
            "match.methods",
            "has no effect: the protocol has its own methods",
        ),
        ([(f"{ROUTE}.match", {"path_prefix": "/mcp"})], "match", "MCP is served at one path"),
        ([(f"{ROUTE}.protocol", "http"), (f"{ROUTE}.match.methods", ["GET"])], "operations", "needs a protocol above"),
        ([(f"{ROUTE}.protocol", ABSENT), (f"{ROUTE}.operations", ABSENT)], "match.methods", "is missing"),
        ([(f"{ROUTE}.operations", [{"allow": ["tools/call"]}])], "operations[0].allow", "tools/call: has no name"),
        ([(f"{ROUTE}.operations", [{"allow": ["tools/call:"]}])], "operations[0].allow", "tools/call:: has no name"),
        ([(f"{ROUTE}.operations", [{"allow": ["tools/list:x"]}])], "operations[0].allow", "tools/list:x: has a name"),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/drop"]}])],
            "operations[0].allow",
            "tools/drop: not an operation of MCP",
        ),
        ([(f"{ROUTE}.operations", [{"allow": ["tools/call: x"]}])], "operations[0].allow", "tools/call: x: begins or"),
        (
            [(f"{ROUTE}.operations", [{"allow": ["SendMessage"]}])],
            "operations[0].allow",
            "SendMessage: not an operation of MCP",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/list"]}, {"allow": ["tools/list"]}])],
            "operations[1].allow",
            "tools/list is listed twice",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/call:a"], "allow_self": True}]), (f"{ROUTE}.allow_self", True)],
            "operations[0].allow_self",
            "tools/call:a always needs a user",
        ),
        *(
            (
                [(f"{ROUTE}.operations", [{"allow": [one], "allow_self": True}]), (f"{ROUTE}.allow_self", True)],
                "operations[0].allow_self",
                f"{one} always needs a user",
            )
            for one in ("tasks/result", "tasks/update", "subscriptions/listen")
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["resources/read:*"]}, {"allow": ["resources/read:file:///a"]}])],
            "operations",
            "resources/read:* is listed beside URIs",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/list"], "allow_self": True}])],
            "operations[0].allow_self",
            "is not the route's",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/list"], "peers": ["spiffe://acme.example/x"]}])],
            "operations[0].peers",
            "spiffe://acme.example/x is not a peer of the route",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/list"], "scopes": ["nobody.grants"]}])],
            "scopes",
            "nobody.grants is above the ceiling",
        ),
        (
            [(f"{ROUTE}.operations", [{"allow": ["tools/list"], "human": {}}])],
            "operations[0].human",
            "requires nothing",
        ),
    ],
)
def test_what_no_message_asks_for_or_the_route_does_not_have_is_refused(
    tmp_path: Path, changes: list[tuple[str, object]], field: str, wrong: str
) -> None:
    found = problems(tmp_path, *changes)
    assert any(where == f"inbound.routes[0].{field}" and told.startswith(wrong) for where, told in found), found


@pytest.mark.parametrize(
    ("operations", "fix"),
    [
        (["tools/list"], "write {allow: [tools/list]}"),
        ([{"allow": ["tool/call:find"]}], "did you mean tools/call:find?"),
        ([{"allow": ["nonsense"]}], "docs/mcp.md lists the operations"),
        ([{"allow": ["tools/call"]}], "write tools/call:NAME, or tools/call:*"),
        ([{"allow": ["tools/list:x"]}], "write tools/list alone"),
    ],
)
def test_a_word_that_is_no_operation_has_one_problem_and_its_own_fix(
    tmp_path: Path, operations: object, fix: str
) -> None:
    found = check(written(tmp_path, mcp((f"{ROUTE}.operations", operations))), {}).problems
    assert [problem.fix for problem in found] == [fix]


def test_an_operation_of_a2a_in_another_spelling_is_known(tmp_path: Path) -> None:
    operations = [{"allow": ["SendMesage", "GetAgentCard"]}]
    document = mcp((f"{ROUTE}.protocol", "a2a"), (f"{ROUTE}.operations", operations))
    found = check(written(tmp_path, document), {}).problems
    assert [problem.fix for problem in found] == ["did you mean SendMessage?", "remove it"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ([(f"{OUT}.operations", [{"allow": ["tools/call:a"], "scopes": ["nobody.grants"]}])], "operations[0].scopes"),
        ([(f"{OUT}.protocol", "http"), (f"{OUT}.allow_self", True)], "allow_self"),
        ([(f"{OUT}.protocol", "a2a"), (f"{OUT}.allow_self", True)], "allow_self"),
        ([(f"{OUT}.token", "self")], "token"),
        ([(f"{OUT}.protocol", "http"), (f"{OUT}.max_message_bytes", 2048)], "max_message_bytes"),
        ([(f"{OUT}.operations", [{"allow": ["tools/list"], "allow_self": True}])], "operations[0].allow_self"),
    ],
)
def test_an_outbound_route_opens_no_more_than_it_says(
    tmp_path: Path, changes: list[tuple[str, object]], field: str
) -> None:
    assert f"outbound.routes[0].{field}" in [where for where, _ in problems(tmp_path, *changes)]


def test_the_words_of_a2a_are_those_of_either_version(tmp_path: Path) -> None:
    operations = [{"allow": ["message/send", "GetTask"]}]
    document = mcp((f"{ROUTE}.protocol", "a2a"), (f"{ROUTE}.operations", operations))
    route = load(tmp_path, document).inbound_routes.routes[0]
    assert route.operations is not None
    assert set(route.operations.keys) == {"SendMessage", "GetTask"}
    assert route.methods == {"POST"}


def test_what_one_route_lists_every_route_may_name_in_records(tmp_path: Path) -> None:
    listed = [{"allow": ["tools/call:send"]}]
    settings = load(tmp_path, mcp((f"{OUT}.operations", listed)))
    ways = (settings.inbound_routes.routes[0].operations, settings.outbound_routes.routes[0].operations)
    for operations in ways:
        assert operations is not None
        told = [operations.label(f"tools/call:{name}") for name in ("search", "send", "drop")]
        assert told == ["tools/call:search", "tools/call:send", "tools/call:other"]


def test_sessions_are_a_users_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    def route(*changes: tuple[str, object]) -> InboundRoute:
        return load(tmp_path, mcp(*changes)).inbound_routes.routes[0]

    assert route().for_operation("initialize").sessions == "per_subject"
    assert route((f"{ROUTE}.sessions", "per_actor")).for_operation("tools/list").sessions == "per_actor"
    found = problems(tmp_path, (f"{ROUTE}.protocol", "a2a"), (f"{ROUTE}.sessions", "per_actor"))
    assert (f"{ROUTE.replace('.0', '[0]')}.sessions", "is for routes of MCP") in found
    assert problems(tmp_path, (f"{ROUTE}.sessions", "per_user"))


RESOURCE = "https://agent.acme.example/mcp"


def test_a_resource_is_a_routes_own_url_and_its_issuers_are_told(tmp_path: Path) -> None:
    route = load(tmp_path, mcp((f"{ROUTE}.resource", RESOURCE))).inbound_routes.routes[0]
    assert route.resource is not None
    assert set(route.resource.authorization_servers) == route.issuers
    assert route.for_operation("tools/list").resource == route.resource
    other = mcp((f"{ROUTE}.resource", RESOURCE), (f"{ROUTE}.authorization_servers", ["https://login.example"]))
    told = load(tmp_path, other).inbound_routes.routes[0].resource
    assert told is not None
    assert told.authorization_servers == ("https://login.example",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ([(f"{ROUTE}.resource", "https://agent.acme.example/other")], "resource"),
        ([(f"{ROUTE}.resource", RESOURCE + "?a")], "resource"),
        ([(f"{ROUTE}.resource", RESOURCE), (f"{ROUTE}.protocol", "a2a")], "resource"),
        ([(f"{ROUTE}.authorization_servers", ["https://login.example"])], "authorization_servers"),
        (
            [
                (f"{ROUTE}.resource", "https://agent.acme.example/.well-known/oauth-protected-resource"),
                (f"{ROUTE}.match", {"path": "/.well-known/oauth-protected-resource"}),
            ],
            "match",
        ),
    ],
    ids=["path", "query", "protocol", "no-resource", "place"],
)
def test_metadata_that_would_mislead_is_refused(tmp_path: Path, changes: list[tuple[str, object]], field: str) -> None:
    assert f"inbound.routes[0].{field}" in {where for where, _ in problems(tmp_path, *changes)}


def test_lists_are_filtered_on_routes_of_mcp_that_say_so(tmp_path: Path) -> None:
    (first, *_) = load(tmp_path, mcp((f"{ROUTE}.filter_lists", True))).inbound_routes.routes
    assert first.for_operation("tools/list").filter_lists
    assert not load(tmp_path, mcp()).inbound_routes.routes[0].filter_lists
    found = problems(tmp_path, (f"{ROUTE}.protocol", "a2a"), (f"{ROUTE}.filter_lists", True))
    assert ("inbound.routes[0].filter_lists", "is for routes of MCP") in found


def test_names_may_stand_beside_a_star_and_uris_beside_each_other(tmp_path: Path) -> None:
    operations = [
        {"allow": ["tools/call:*", "tools/call:drop", "resources/read:file:///a", "resources/read:file:///b"]},
        {"allow": ["resources/subscribe:*"]},
    ]
    assert len(load(tmp_path, mcp((f"{ROUTE}.operations", operations))).inbound_routes.routes) > 0


def grpc(*changes: tuple[str, object]) -> dict[str, Any]:
    """Return the settings of an agent whose first routes, in and out, are of gRPC."""
    return changed(
        AGENT,
        ("protocols", {"http2": True, "agent": "h2c"}),
        (f"{ROUTE}.protocol", "grpc"),
        (f"{ROUTE}.match", {"path_prefix": "/"}),
        (f"{ROUTE}.operations", [{"allow": ["pkg.Service/Method", "pkg.Other/*"]}]),
        (f"{OUT}.protocol", "grpc"),
        (f"{OUT}.operations", [{"allow": ["crm.Orders/*"]}]),
        *changes,
    )


def test_a_method_of_grpc_is_an_operation(tmp_path: Path) -> None:
    settings = load(tmp_path, grpc())
    route = settings.inbound_routes.routes[0]
    assert route.methods == frozenset({"POST"})
    for key in ("pkg.Service:Method", "pkg.Other:Any"):
        assert route.for_operation(key).protocol == "grpc"
    for key in ("pkg.Service:Other", "pkg.service:Method", "crm.Orders:Get"):
        with pytest.raises(Denied):
            route.for_operation(key)
    assert settings.outbound_routes.routes[0].for_operation("crm.Orders:Get").protocol == "grpc"


def test_a_route_of_grpc_may_have_the_path_of_one_method(tmp_path: Path) -> None:
    one = (f"{ROUTE}.match", {"path": "/pkg.Service/Method"})
    assert load(tmp_path, grpc(one)).inbound_routes.routes[0].path == "/pkg.Service/Method"


def test_the_agent_of_a_route_of_grpc_may_have_a_port_for_it(tmp_path: Path) -> None:
    port = ("inbound.agent_grpc", "http://127.0.0.1:50051")
    assert load(tmp_path, grpc(("protocols", {"http2": True}), port)).inbound_routes.routes


@pytest.mark.parametrize(
    ("change", "field", "wrong"),
    [
        (
            (f"{ROUTE}.operations", [{"allow": ["pkg.Service"]}]),
            "inbound.routes[0].operations[0].allow",
            "pkg.Service: is",
        ),
        ((f"{ROUTE}.operations", ABSENT), "inbound.routes[0].operations", "is missing"),
        ((f"{OUT}.operations", ABSENT), "outbound.routes[0].operations", "is missing"),
        ((f"{ROUTE}.max_message_bytes", 4096), "inbound.routes[0].max_message_bytes", "has no effect: gRPC"),
        (("protocols", ABSENT), "inbound.routes[0].protocol", "gRPC needs HTTP/2"),
        ((f"{ROUTE}.match", {"path": "/"}), "inbound.routes[0].match.path", "is not the path of a method"),
        (("protocols", {"http2": True}), "inbound.routes[0].protocol", "gRPC needs an agent that is called by HTTP/2"),
    ],
)
def test_a_fault_of_a_route_of_grpc_is_told(tmp_path: Path, change: tuple[str, object], field: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, grpc(change))
    assert any(one.field == field and one.wrong.startswith(wrong) for one in refused.value.problems)


@pytest.mark.parametrize(
    ("changes", "inbound", "outbound"),
    [
        ([], False, False),
        ([("protocols", {"http2": True})], False, True),
        ([("protocols", {"http2": True, "agent": "h2c"})], True, True),
        ([("protocols", {"http2": True}), ("inbound.agent_grpc", "http://127.0.0.1:50051")], True, True),
        ([("protocols", {"http2": True}), (f"{OUT}.http_version", "1.1")], False, False),
    ],
)
def test_a_route_of_a2a_knows_if_calls_of_grpc_reach_its_other_end(
    tmp_path: Path, changes: list[tuple[str, object]], inbound: bool, outbound: bool
) -> None:
    a2a = [
        (f"{ROUTE}.protocol", "a2a"),
        (f"{ROUTE}.match", {"path_prefix": "/"}),
        (f"{ROUTE}.operations", [{"allow": ["SendMessage"]}]),
        (f"{OUT}.protocol", "a2a"),
    ]
    settings = load(tmp_path, changed(AGENT, *a2a, *changes))
    assert settings.inbound_routes.routes[0].a2a.grpc is inbound
    assert settings.outbound_routes.routes[0].a2a.grpc is outbound
    assert settings.outbound_routes.routes[0].for_operation("GetTask").a2a.grpc is outbound
