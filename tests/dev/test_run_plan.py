from __future__ import annotations

import argparse
import socket

import pytest

from sidecar_dev.processes import free_ports
from sidecar_dev.run import add_arguments, run
from sidecar_dev.run_plan import Service, plan_of


def refusal(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([*words, "--", "true"])) == 2
    return capsys.readouterr().err


UNUSABLE = {
    "no port": (["--agent-port", "0"], "--agent-port"),
    "no user": (["--user", "a b"], "--user"),
    "a path for a user": (["--user", "../x"], "--user"),
    "a tool without URL": (["--may-call", "crm"], "'crm' has no URL"),
    "a caller that is none": (["--may-call", "a:crm=http://127.0.0.1:80"], "no service is called 'a'"),
    "a tool that calls itself": (["--may-call", "crm=http://127.0.0.1:80", "--may-call", "crm:crm"], "none to itself"),
    "a tool that calls the agent": (
        ["--may-call", "crm=http://127.0.0.1:80", "--may-call", "crm:agent"],
        "none to itself",
    ),
    "one call twice": (["--may-call", "crm=http://127.0.0.1:80", "--may-call", "crm"], "name each call once"),
    "an outbound port that is none": (["--outbound-port", "x"], "not a port number"),
    "an outbound port of nobody": (["--outbound-port", "crm=7080"], "makes no calls"),
    "an outbound port of one who calls nobody": (
        ["--may-call", "crm=http://127.0.0.1:80", "--outbound-port", "crm=7080"],
        "makes no calls",
    ),
    "a tool elsewhere": (["--may-call", "crm=http://10.0.0.1:80"], "not an origin on loopback"),
    "a tool by name": (["--may-call", "crm=http://localhost:80"], "not an origin on loopback"),
    "a tool over TLS": (["--may-call", "crm=https://127.0.0.1:80"], "not an origin on loopback"),
    "a tool without port": (["--may-call", "crm=http://127.0.0.1"], "not an origin on loopback"),
    "a port that is none": (["--may-call", "crm=http://127.0.0.1:x"], "not an origin on loopback"),
    "a tool with a path": (["--may-call", "crm=http://127.0.0.1:80/x"], "not an origin on loopback"),
    "a tool with a user": (["--may-call", "crm=http://a@127.0.0.1:80"], "not an origin on loopback"),
    "a protocol of nobody": (["--mcp", "crm"], "neither agent nor a name of --may-call"),
    "two protocols": (["--mcp", "agent", "--a2a", "agent"], "has a protocol already"),
    "a path that is none": (["--mcp", "agent=mcp"], "no path"),
    "gRPC of nobody": (["--grpc", "crm"], "neither agent nor a name of --may-call"),
    "gRPC below a path": (["--grpc", "agent=/shop"], "write the name alone"),
    "gRPC beside MCP": (["--mcp", "agent", "--grpc", "agent"], "has a protocol already"),
    "a host for the agent": (["--host", "agent=a.example"], "write NAME=HOST"),
    "a host that is none": (["--may-call", "crm=http://127.0.0.1:80", "--host", "crm=http://x"], "write NAME=HOST"),
    "operations without a protocol": (["--allow", "agent=SendMessage"], "has no protocol"),
    "an entry's port that is none": (["--port", "70000"], "--port"),
    "one port twice": (["--port", "39999", "--outbound-port", "39999"], "is taken"),
    "a tool called as we are": (["--may-call", "agent=http://127.0.0.1:80"], "not a free name"),
    "two tools of one name": (
        ["--may-call", "crm=http://127.0.0.1:80", "--may-call", "crm=http://127.0.0.1:81"],
        "not a free name",
    ),
}


@pytest.mark.parametrize(("words", "told"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unusable_arguments_are_told_before_anything_starts(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refusal(*words, capsys=capsys)


def test_a_port_that_somebody_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is taken" in refusal("--agent-port", str(taken.getsockname()[1]), capsys=capsys)


def test_options_become_a_plan() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--may-call", "crm=http://127.0.0.1:81/", "--may-call", "mail=http://127.0.0.1:82", "--mcp", "crm"]
    options += ["--a2a", "agent=/a2a", "--host", "mail=mail.acme.example", "--allow", "crm=tools/call:search"]
    (agent_port,) = free_ports(1)
    plan = plan_of(parser.parse_args([*options, "--agent-port", str(agent_port), "--", "true"]))
    assert (plan.agent.protocol, plan.agent.path, plan.agent.origin) == (
        "a2a",
        "/a2a",
        f"http://127.0.0.1:{agent_port}",
    )
    assert plan.services["crm"] == Service(
        origin="http://127.0.0.1:81", protocol="mcp", path="/mcp", operations=("tools/call:search",)
    )
    assert plan.services["mail"].host == "mail.acme.example"


def test_a_service_of_grpc_is_called_by_an_authority() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [
        "--may-call",
        "crm=http://127.0.0.1:81",
        "--may-call",
        "mail=http://127.0.0.1:82",
        "--host",
        "mail=m.test",
    ]
    options += ["--grpc", "agent", "--grpc", "crm", "--grpc", "mail", "--allow", "crm=shop.Customers/*"]
    (agent_port,) = free_ports(1)
    plan = plan_of(parser.parse_args([*options, "--agent-port", str(agent_port), "--", "true"]))
    assert [(one.protocol, one.host) for one in plan.everything.values()] == [
        ("grpc", "agent"), ("grpc", "crm"), ("grpc", "m.test"),
    ]  # fmt: skip
    assert plan.services["crm"].operations == ("shop.Customers/*",)
