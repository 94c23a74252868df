from dataclasses import replace
from pathlib import Path

import pytest

from delegation_core.spiffe_id import TrustDomain
from sidecar.check import check
from sidecar_dev import run_settings
from sidecar_dev.entries import parse_entries
from sidecar_dev.mesh_settings import TRUST_DOMAIN, Places, write
from sidecar_dev.run_plan import Service

AGENT = Service(origin="http://127.0.0.1:8080")
CALLING = replace(AGENT, may_call=("crm", "mail"))
TOOLS = {"crm": Service(origin="http://127.0.0.1:9001"), "mail": Service(origin="http://[::1]:9002")}
CHAIN = {"crm": replace(TOOLS["crm"], may_call=("mail",)), "mail": TOOLS["mail"]}
SPEAKING = {
    "crm": replace(TOOLS["crm"], protocol="mcp", path="/mcp", operations=("tools/call:search", "tools/list")),
    "docs": Service(origin="http://127.0.0.1:9003", protocol="mcp", path="/", host="docs.acme.example"),
    "mail": replace(TOOLS["mail"], protocol="a2a", host="mail.acme.example"),
    "post": Service(origin="http://127.0.0.1:9004", protocol="a2a", path="/a2a", operations=("message/send",)),
}
GRPC = {
    "crm": replace(TOOLS["crm"], protocol="grpc", host="crm", operations=("shop.Customers/Find",)),
    "mail": replace(TOOLS["mail"], protocol="grpc", host="mail"),
    "docs": Service(origin="http://127.0.0.1:9003"),
}


def places(folder: Path, tools: dict[str, Service]) -> Places:
    ports = {name: 20_000 + number for number, name in enumerate(run_settings.ports(tools))}
    return Places(directory=folder, ports={**ports, "agent": 8080})


@pytest.mark.parametrize(
    "agent",
    [AGENT, replace(AGENT, protocol="a2a"), replace(AGENT, protocol="grpc", host="agent")],
    ids=["http", "a2a", "grpc"],
)
@pytest.mark.parametrize(
    "tools",
    [{}, TOOLS, SPEAKING, CHAIN, GRPC],
    ids=["no tools", "two tools", "tools of protocols", "a chain", "tools of gRPC"],
)
def test_every_file_is_one_that_its_process_takes(tmp_path: Path, agent: Service, tools: dict[str, Service]) -> None:
    files = run_settings.files(places(tmp_path, tools), replace(agent, may_call=tuple(tools)), tools)
    assert files.keys() == {"front", "agent", "sts", *tools}
    for name, settings in files.items():
        path = tmp_path / f"{name}.yaml"
        write(path, settings)
        assert check(path, {}, sts=name == "sts").problems == []


def test_the_agent_may_call_its_tools_and_the_front_only_the_agent(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), CALLING, TOOLS)
    assert files["front"]["entry"]["may_call"] == ["agent"]
    assert files["agent"]["inbound"]["routes"][0]["may_call"] == ["crm", "mail"]
    assert files["crm"]["inbound"]["routes"][0]["peers"] == [run_settings.AGENT]
    assert files["crm"]["inbound"]["agent"] == TOOLS["crm"].origin
    assert "outbound" not in files["crm"]


def test_a_service_is_called_by_its_host_and_asked_for_what_is_allowed(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, SPEAKING), replace(AGENT, may_call=tuple(SPEAKING)), SPEAKING)
    routes = {route["name"]: route for route in files["agent"]["outbound"]["routes"]}
    assert [routes[name]["match"] for name in ("crm", "docs")] == [{"prefix": "/crm"}, {"host": "docs.acme.example"}]
    assert routes["crm"]["operations"] == [{"allow": ["tools/call:search", "tools/list"]}]
    asked, rest = files["crm"]["inbound"]["routes"]
    assert (asked["match"], asked["operations"]) == ({"path": "/mcp"}, routes["crm"]["operations"])
    assert rest["match"]["path_prefix"] == "/"
    assert "tools/call:*" in routes["docs"]["operations"][0]["allow"]


def test_a_service_calls_on_with_less_and_only_whom_it_may(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, CHAIN), replace(AGENT, may_call=("crm",)), CHAIN)
    assert files["crm"]["inbound"]["routes"][0]["may_call"] == ["mail"]
    assert files["mail"]["inbound"]["routes"][0]["peers"] == [run_settings.tool_id("crm")]
    assert "outbound" not in files["mail"]
    (to_crm,), (to_mail,) = (files[name]["outbound"]["routes"] for name in ("agent", "crm"))
    assert (to_crm["scopes"], to_mail["scopes"]) == (["crm.call", "mail.call"], ["mail.call"])
    rules = {(rule["actor"], rule["audience"]): rule["scopes"] for rule in files["sts"]["rules"]}
    assert rules[run_settings.AGENT, run_settings.tool_id("crm")] == ["crm.call", "mail.call"]
    assert (run_settings.AGENT, run_settings.tool_id("mail")) not in rules


def test_each_process_is_its_own_workload() -> None:
    pids = {"sts": 11, "front": 12, "agent": 13, "crm": 14, "shell": 15}
    entries = run_settings.entries(pids)["entries"]
    assert [(entry["spiffe_id"], entry["selectors"]["pids"]) for entry in entries] == [
        ("spiffe://acme.example/sts", [11]),
        ("spiffe://acme.example/agent/front", [12]),
        (run_settings.AGENT, [13, 15]),
        (run_settings.tool_id("crm"), [14]),
    ]


def test_the_workload_api_takes_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "entries.yaml"
    write(path, run_settings.entries({"sts": 11, "crm": 14}))
    assert len(parse_entries(path.read_text(), [TrustDomain(TRUST_DOMAIN)])) == 2


def test_with_grpc_every_sidecar_speaks_http2_and_its_agent_does_where_it_serves_grpc(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, GRPC), replace(AGENT, may_call=tuple(GRPC)), GRPC)
    assert {name: file.get("protocols") for name, file in files.items() if name != "sts"} == {
        **{key: {"http2": True} for key in ("front", "agent", "docs")},
        **{key: {"http2": True, "agent": "h2c"} for key in ("crm", "mail")},
    }
    assert files["crm"]["inbound"]["routes"][0]["operations"] == [{"allow": ["shop.Customers/Find"]}]
    assert "protocol" not in files["mail"]["inbound"]["routes"][0]
    without = run_settings.files(places(tmp_path, TOOLS), CALLING, TOOLS)
    assert all("protocols" not in file for file in without.values())
