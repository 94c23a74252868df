"""Settings for production: each is one that `sidecar check` takes, and holds what was seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegation_core.act import ActChain, Actor
from delegation_core.decide import decide_verified
from delegation_core.errors import Denied
from delegation_core.grpc import key_of_path
from delegation_core.policy import Policy
from delegation_core.spiffe_id import SpiffeId
from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar_dev import run_settings
from sidecar_dev.mesh_settings import FRONT
from sidecar_dev.production_settings import Call, Found, Seen, refusals_in, seen_in, text_of
from sidecar_dev.run_plan import Service
from sidecar_dev.run_settings import tool_id
from tests.core.world import INBOUND_CLAIMS, NOW, verified
from tests.dev.test_run_settings import AGENT, GRPC, SPEAKING, TOOLS, places


def call(asked: str, peer: str | None = FRONT) -> Call:
    """Return a call by its method and path, or by its operation."""
    method, space, path = asked.partition(" ")
    return Call(None, method, path, peer) if space else Call(asked, "POST", "/mcp", peer)


def calls(caused: str, /, *asked: str, peer: str | None = FRONT) -> dict[Call, Found]:
    return {call(one, peer): Found(n, [f"r/{n}"], {caused}) for n, one in enumerate(asked, 1)}


SEEN = {
    ("outbound", "crm", "allow"): calls("c1", "tools/call:search", peer=tool_id("crm")),
    ("outbound", "docs", "allow"): calls("c2", "tools/call:other", "tools/list", peer=tool_id("docs")),
    ("outbound", "docs", "deny"): calls("c2", "tools/call:delete\n", peer=tool_id("docs")),
    ("inbound", "agent", "allow"): calls("c1", "POST /ask"),
    ("inbound", "docs-mcp", "allow"): calls("c3", "tools/list", peer=run_settings.AGENT),
}


@pytest.mark.parametrize("name", ["agent", "crm", "docs", "post"])
def test_every_text_is_one_that_is_taken_and_names_nothing_of_the_run(tmp_path: Path, name: str) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    text = text_of(name, files[name], SEEN)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert check(path, {}).problems == []
    assert str(tmp_path) not in text
    assert "127.0.0.1:2" not in text


def test_operations_are_those_seen_and_comments_say_what_was_refused(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    text = text_of("agent", files["agent"], SEEN)
    made = yaml.safe_load(text)
    (route,) = made["inbound"]["routes"]
    assert (route["match"], route["peers"]) == ({"path": "/ask", "methods": ["POST"]}, [FRONT])
    assert route["may_call"] == ["crm"]  # the call of docs was made in another request
    routes = {route["name"]: route for route in made["outbound"]["routes"]}
    assert routes["crm"]["operations"] == [{"allow": ["tools/call:search"]}]
    assert routes["docs"]["operations"] == [{"allow": ["tools/list"]}]
    assert routes.keys() == {"crm", "docs"}
    for line in (
        "# the route mail is left out: nothing was allowed there in the run",
        "# allowed in the run: POST /ask (1 from front, as r/1)",
        "# allowed in the run: tools/call:search (1 to crm, as r/1)",
        "# allowed, and not in these settings in the run: tools/call:other (1 to docs, as r/1)",
        "# refused by this sidecar in the run: tools/call:delete? (1 to docs, as r/1)",
    ):
        assert line in text


def test_services_of_plain_http_are_printed_too(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    path = tmp_path / "settings.yaml"
    text = text_of("mail", files["mail"], {("inbound", "mail", "allow"): calls("c", "GET /x")})
    assert "exchange" not in yaml.safe_load(text)  # it calls nobody
    path.write_text(text)
    assert check(path, {}).problems == []


def test_a_sidecar_that_nobody_asked_anything_allows_nothing(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    made = yaml.safe_load(text_of("agent", files["agent"], {}))
    assert (made["inbound"]["routes"], made["outbound"]["routes"]) == ([], [])


def test_what_was_seen_is_counted_by_route_and_decision(tmp_path: Path) -> None:
    usual = {
        "event": "request", "direction": "inbound", "route": "a", "decision": "allow", "method": "GET", "peer": FRONT,
        "run": "r", "call_in": "c", "call_out": None, "status": 200, "reason": None,
    }  # fmt: skip
    records: list[dict[str, Any]] = [
        {**usual, "op": None, "path": "/x"},
        {**usual, "op": "tools/list", "path": "/mcp"},
        {**usual, "op": "tools/list", "path": "/mcp", "call_in": None},
        {**usual, "op": "tools/call:other", "path": "/mcp", "decision": "deny", "status": 403, "reason": "x"},
        {**usual, "op": None, "path": "/", "route": None},
        {**usual, "op": None, "path": "/", "event": "started"},
    ]
    file = tmp_path / "a.records"
    file.write_text("".join(json.dumps({**record, "seq": seq}) + "\n" for seq, record in enumerate(records, 1)))
    assert seen_in(file, {}) == {
        ("inbound", "a", "allow"): {
            Call(None, "GET", "/x", FRONT): Found(1, ["r/1"], {"c"}, Counter({"200": 1})),
            Call("tools/list", "GET", "/mcp", FRONT): Found(2, ["r/2", "r/3"], {"c"}, Counter({"200": 2})),
        },
        ("inbound", "a", "deny"): {
            Call("tools/call:other", "GET", "/mcp", FRONT): Found(1, ["r/4"], {"c"}, Counter({"403 x": 1}))
        },
    }
    assert seen_in(tmp_path / "none.records", {}) == {}


def test_comments_name_the_callee_the_statuses_and_refusals_by_either_side(tmp_path: Path) -> None:
    """Seven calls of one sidecar to another: one answered, one with 404, one refused here, four refused there."""
    usual = {
        "event": "request", "route": "crm", "op": None, "method": "GET", "run": "r", "call_in": "in",
        "peer": tool_id("crm"), "direction": "outbound", "decision": "allow", "reason": None,
    }  # fmt: skip
    refusal = {**usual, "decision": "deny", "status": 403, "reason": "policy_denied", "path": "/no", "call_out": None}
    made = [
        {**usual, "path": "/notes", "status": 200, "call_out": "a"},
        {**usual, "path": "/notes", "status": 404, "call_out": "b"},
        refusal,
        {**usual, "path": "/notes", "status": 200, "call_out": None, "reason": "next_hop_refused"},
        *({**usual, "path": "/export", "status": 403, "call_out": f"c{number}"} for number in range(3)),
    ]
    there = {**usual, "direction": "inbound", "peer": run_settings.AGENT, "call_out": None, "path": "/export"}
    taken = [
        *({**there, "status": 200, "call_in": call} for call in "ab"),
        *({**there, "decision": "deny", "status": 403, "reason": "no_route", "call_in": f"c{n}"} for n in range(3)),
    ]
    for name, records in (("agent", made), ("crm", taken)):
        lines = [json.dumps({**record, "seq": seq}) + "\n" for seq, record in enumerate(records, 1)]
        (tmp_path / f"{name}.records").write_text("".join(lines))
    seen = seen_in(tmp_path / "agent.records", refusals_in([tmp_path / "agent.records", tmp_path / "crm.records"]))
    files = run_settings.files(places(tmp_path, TOOLS), replace(AGENT, may_call=("crm",)), TOOLS)
    comments = [line.strip() for line in text_of("agent", files["agent"], seen).splitlines() if "in the run:" in line]
    assert comments == [
        "# allowed in the run: GET /notes (2 to crm: 1 x 200, 1 x 404, as r/1, r/2)",
        "# refused by the callee's sidecar in the run: GET /export (3 to crm: 3 x 403 no_route, as r/5, r/6, r/7),"
        " GET /notes (1 to crm: 1 x 200 next_hop_refused, as r/4)",
        "# refused by this sidecar in the run: GET /no (1 to crm: 1 x 403 policy_denied, as r/3)",
    ]


def test_methods_of_grpc_that_were_called_become_operations(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, GRPC), replace(AGENT, may_call=tuple(GRPC)), GRPC)
    seen = calls("c", "POST /shop.Mail/Send", "POST /shop.Mail/List", "GET /", "POST /")
    text = text_of("mail", files["mail"], {("inbound", "mail", "allow"): seen})
    (route,) = yaml.safe_load(text)["inbound"]["routes"]
    assert (route["match"], route["protocol"]) == ({"path_prefix": "/"}, "grpc")
    assert route["operations"] == [{"allow": ["shop.Mail/List", "shop.Mail/Send"]}]
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert check(path, {}).problems == []
    nothing = text_of("mail", files["mail"], {("inbound", "mail", "allow"): calls("c", "GET /")})
    assert yaml.safe_load(nothing)["inbound"]["routes"] == []


PATHS: Final = (
    "/",
    "/ask",
    "/Ask",
    "/ask/",
    "/ask/1",
    "/ask/2",
    "/mcp",
    "/a2a",
    "/a2a/x",
    "/shop.Mail/Send",
    "/shop.Mail/*",
)
METHODS: Final = ("GET", "POST")
METHOD_PATHS: Final = frozenset({"/shop.Mail/Send", "/a2a/x"})  # those of the table that can be a call of gRPC
PEERS: Final = (FRONT, run_settings.AGENT, tool_id("crm"))
OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "mcp": ("tools/list", "tools/call:search", "tools/call:delete", "tools/call:other", "initialize"),
    "a2a": ("SendMessage", "GetTask", "CancelTask", "GetAgentCard"),
}
NEVER: Final = frozenset({"tools/call:other", "GetAgentCard"})  # no setting lists them
MESH: Final = {**SPEAKING, "web": TOOLS["crm"], "rpc": replace(GRPC["mail"], origin="http://127.0.0.1:9009")}


def asked_of(service: Service) -> list[Call]:
    """Return all kinds of calls of a service that the property is tried with."""
    words = OPERATIONS.get(service.protocol, ())
    paths = [path for path in PATHS if not words or not f"{path}/".lower().startswith(f"{service.path}/".lower())]
    plain = [Call(None, method, path, None) for method in METHODS for path in paths]
    return [*plain, *(Call(op, "POST", service.path, None) for op in words)]


def lets(policy: Policy, peer: str, asked: Call, protocol: str) -> bool:
    """Judge a call that carries a delegated token by the core."""
    token = replace(
        verified(INBOUND_CLAIMS), audience=str(policy.workload), chain=ActChain((Actor(peer),), {"sub": peer}),
        actor_id=SpiffeId(peer), scope=policy.registered_scopes,
    )  # fmt: skip
    try:
        route = policy.inbound.find(asked.method, asked.path)
        if route.protocol == "grpc":
            route = route.for_operation(key_of_path(asked.path, b""))
        elif route.protocol != "http":
            route = route.for_operation(asked.op)
        elif asked.op is not None:
            return False
        decide_verified(token, peer=SpiffeId(peer), route=route, policy=policy, now=NOW)
    except Denied:
        return False
    return True


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["agent", *MESH])
def test_printed_settings_allow_the_calls_seen_and_no_other(name: str, tmp_path: Path, data: st.DataObject) -> None:
    """For every service of the mesh, with every caller and call of the table: allowed if and only if seen."""
    http2 = name == "rpc"
    services = {"rpc": MESH["rpc"]} if http2 else {one: it for one, it in MESH.items() if one != "rpc"}
    agent = replace(AGENT, may_call=tuple(services))
    service = services.get(name, agent)
    made = run_settings.files(places(tmp_path, services), agent, services)[name]
    made["inbound"]["routes"] = [{**route, "peers": list(PEERS)} for route in made["inbound"]["routes"]]
    everything = [call._replace(peer=peer) for call in asked_of(service) for peer in PEERS]
    operations = [one for one in everything if one.op or one.path.startswith("/shop.")]
    drawn = (st.sets(st.sampled_from(kind), max_size=4) for kind in (everything, operations))
    chosen = set().union(*map(data.draw, drawn))
    unproven = {call._replace(peer=None): Found(9, ["r/1"]) for call in everything}
    seen: Seen = {
        ("inbound", name, "allow"): {call: Found(1, ["r/1"]) for call in chosen if call.op is None} | unproven,
        ("inbound", f"{name}-{service.protocol}", "allow"): {
            call: Found(1, ["r/1"]) for call in chosen if call.op is not None
        } | unproven,
        ("inbound", name, "deny"): {call: Found(9, ["r/1"]) for call in everything},
    }  # fmt: skip
    path = tmp_path / "settings.yaml"
    path.write_text(text_of(name, made, seen))
    policy = load_sidecar(path, {}).policy(SpiffeId(f"spiffe://acme.example/{name}"), 1)
    for asked in everything:
        if http2:
            may = asked.method == "POST" and asked.path in METHOD_PATHS and asked in chosen
        elif asked.op == "initialize":  # belongs to the operations of its caller
            may = any(call.op not in {None, "initialize", *NEVER} and call.peer == asked.peer for call in chosen)
        else:
            may = asked in chosen and asked.op not in NEVER
        assert lets(policy, asked.peer or "", asked, service.protocol) == may, asked


@pytest.mark.parametrize(
    "hostile",
    ["/a\n  - name: x", "/a\u2028b", "/a\x85b", "/…token:0123", "/a//b", "/a/../b", "/" + "a" * 2048 + "…", "/é"],
)
def test_a_path_that_no_setting_can_hold_stays_in_its_comment(tmp_path: Path, hostile: str) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    odd = {Call(None, "GET", hostile, FRONT): Found(1, [f"x\n{hostile}/1"])}
    seen: Seen = {("inbound", "mail", "allow"): odd, ("inbound", "mail", "deny"): odd}
    text = text_of("mail", files["mail"], seen)
    assert yaml.safe_load(text)["inbound"]["routes"] == []
    assert [line for line in text.splitlines() if "name: x" in line and "#" not in line] == []
    assert "not in these settings" in text


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param("mail", call("POST /shop.Mail/*"), id="grpc"),
        pytest.param("crm", call("tools/call:*"), id="mcp"),
        pytest.param("crm", call("other"), id="mcp-other"),
    ],
)
def test_a_call_whose_name_is_a_wildcard_opens_nothing(tmp_path: Path, name: str, asked: Call) -> None:
    tools = GRPC if name == "mail" else SPEAKING
    files = run_settings.files(places(tmp_path, tools), replace(AGENT, may_call=tuple(tools)), tools)
    route = files[name]["inbound"]["routes"][0]["name"]
    text = text_of(name, files[name], {("inbound", route, "allow"): {asked: Found(1, ["r/1"])}})
    assert yaml.safe_load(text)["inbound"]["routes"] == []
    assert "not in these settings" in text


def test_no_more_routes_are_printed_than_somebody_reads(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), AGENT, TOOLS)
    seen: Seen = {("inbound", "mail", "allow"): calls("c", *(f"GET /{n}" for n in range(250)))}
    text = text_of("mail", files["mail"], seen)
    assert len(yaml.safe_load(text)["inbound"]["routes"]) == 200
    assert "and 30 more" in text


def test_operations_of_different_callers_are_given_to_each_alone(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    both = calls("c", "tools/list") | calls("c", "tools/list", "tools/call:search", peer=run_settings.AGENT)
    (route,) = yaml.safe_load(text_of("crm", files["crm"], {("inbound", "crm-mcp", "allow"): both}))["inbound"][
        "routes"
    ]
    assert route["peers"] == sorted([FRONT, run_settings.AGENT])
    assert route["operations"] == [
        {"allow": ["tools/call:search"], "peers": [run_settings.AGENT]},
        {"allow": ["tools/list"], "peers": sorted([FRONT, run_settings.AGENT])},
    ]
