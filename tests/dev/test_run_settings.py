from pathlib import Path

import pytest

from sidecar.check import check
from sidecar.delegation.spiffe_id import TrustDomain
from sidecar_dev import run_settings
from sidecar_dev.entries import parse_entries
from sidecar_dev.mesh_settings import TRUST_DOMAIN, Places, write

TOOLS = {"crm": "http://127.0.0.1:9001", "mail": "http://[::1]:9002"}


def places(folder: Path, tools: dict[str, str]) -> Places:
    ports = {name: 20_000 + number for number, name in enumerate(run_settings.ports(tools))}
    return Places(directory=folder, ports={**ports, "agent": 8080})


@pytest.mark.parametrize("tools", [{}, TOOLS], ids=["no tools", "two tools"])
def test_every_file_is_one_that_its_process_takes(tmp_path: Path, tools: dict[str, str]) -> None:
    files = run_settings.files(places(tmp_path, tools), tools)
    assert files.keys() == {"front", "agent", "sts", *tools}
    for name, settings in files.items():
        path = tmp_path / f"{name}.yaml"
        write(path, settings)
        assert check(path, {}, sts=name == "sts").problems == []


def test_the_agent_may_call_its_tools_and_the_front_only_the_agent(tmp_path: Path) -> None:
    files = run_settings.files(places(tmp_path, TOOLS), TOOLS)
    assert files["front"]["entry"]["may_call"] == ["agent"]
    assert files["agent"]["inbound"]["routes"][0]["may_call"] == ["crm", "mail"]
    assert files["crm"]["inbound"]["routes"][0]["peers"] == [run_settings.AGENT]
    assert files["crm"]["inbound"]["agent"] == TOOLS["crm"]
    assert "outbound" not in files["crm"]


def test_each_process_is_its_own_workload() -> None:
    pids = {"sts": 11, "front": 12, "agent": 13, "crm": 14}
    entries = run_settings.entries(pids)["entries"]
    assert [(entry["spiffe_id"], entry["selectors"]["pids"]) for entry in entries] == [
        ("spiffe://acme.example/sts", [11]),
        ("spiffe://acme.example/agent/front", [12]),
        (run_settings.AGENT, [13]),
        (run_settings.tool_id("crm"), [14]),
    ]


def test_the_workload_api_takes_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "entries.yaml"
    write(path, run_settings.entries({"sts": 11, "crm": 14}))
    assert len(parse_entries(path.read_text(), [TrustDomain(TRUST_DOMAIN)])) == 2
