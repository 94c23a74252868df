"""The compose files without an engine: health checks, order of starts, and what every agent is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parent.parent
FILES: Final = ("compose.yaml", "compose.spire.yaml", "compose/acting.yaml")
CHECK: Final = "/opt/sidecar/native/healthcheck"
PROGRAMS: Final = {CHECK, "/opt/spire/bin/spire-server", "/opt/spire/bin/spire-agent", "promtool"}  # none interprets
START_S: Final = 180  # three times what a sidecar needed to start on a starved machine


class _Loader(yaml.SafeLoader):
    """YAML with Compose's own tags, which say how an overlay is merged."""


_Loader.add_multi_constructor("!", lambda loader, _, node: _plain(loader, node))


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None


def services(file: str) -> dict[str, dict[str, Any]]:
    document = yaml.load((ROOT / file).read_text(), _Loader)
    return dict(document["services"])


def checks() -> list[tuple[str, dict[str, Any]]]:
    """Return every health check that is not switched off, by its place."""
    return [
        (f"{file} {name}", service["healthcheck"])
        for file in FILES
        for name, service in services(file).items()
        if "healthcheck" in service and not service["healthcheck"].get("disable")
    ]


@pytest.mark.parametrize(("place", "check"), checks(), ids=[place for place, _ in checks()])
def test_a_health_check_starts_no_interpreter_and_leaves_time_to_start(place: str, check: dict[str, Any]) -> None:
    kind, program, *_ = check["test"]
    assert (kind, program in PROGRAMS) == ("CMD", True), place
    period = check.get("start_period", f"{START_S}s")
    assert int(period.removesuffix("s")) >= START_S, place


def test_so_does_the_image_s() -> None:
    text = (ROOT / "Dockerfile").read_text()
    (line,) = re.findall(r"^HEALTHCHECK (.*?)\\\n *CMD (.*)$", text, re.MULTILINE)
    assert line[1] == f'["{CHECK}"]'
    assert f"--start-period={START_S}s" in line[0]


def test_every_service_that_stays_is_checked() -> None:
    """`up --wait` fails for a service without a check, if its image has one."""
    for name, service in services("compose.yaml").items():
        if not service.get("profiles") and service.get("restart") != "no":
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_no_agent_and_no_sidecar_waits_for_the_health_of_another_so_that_none_is_left_unstarted() -> None:
    """Compose gives up on services that wait for one that is unhealthy, and never starts them afterwards."""
    waiting = {}
    for file in FILES:
        for name, service in services(file).items():
            conditions = service.get("depends_on") or {}
            for other, one in conditions.items() if isinstance(conditions, dict) else ():
                if one["condition"] == "service_healthy":
                    waiting[name] = other
    assert waiting == {"spire-setup": "spire-server"}  # which ends, and without which nothing is green


def test_every_agent_is_told_where_its_sidecar_takes_calls() -> None:
    agents = {
        name: one for name, one in services("compose.yaml").items() if name.endswith("-agent") and "profiles" not in one
    }
    assert len(agents) == 4
    for name, agent in agents.items():
        settings = yaml.safe_load((ROOT / "compose" / f"{name.removesuffix('-agent')}.yaml").read_text())
        listen = settings.get("outbound", {}).get("listen", "127.0.0.1:7080")
        assert agent["environment"]["SIDECAR_OUTBOUND_URL"] == f"http://{listen}", name


def test_the_pages_for_agents_of_one_s_own_name_the_variable() -> None:
    for page in ("compose.md", "systemd.md", "kubernetes.md", "your-agent.md"):
        assert "SIDECAR_OUTBOUND_URL" in (ROOT / "docs" / page).read_text(), page


@pytest.mark.parametrize("name", ["front", "planner", "writer", "crm"])
def test_each_sidecar_reads_a_deny_file_that_is_there(name: str) -> None:
    sidecar = services("compose.yaml")[f"{name}-sidecar"]
    (mount,) = [one for one in sidecar["volumes"] if one.startswith("./compose/deny:")]
    folder, inside, mode = mount.split(":")
    path = Path(sidecar["environment"]["SIDECAR__DENY_FILE"])
    assert (str(path.parent), mode) == (inside, "ro")
    assert json.loads((ROOT / folder / path.name).read_text()) == {"deny": []}


def test_so_does_every_service_that_is_a_sidecar() -> None:
    named = {name for name in services("compose.yaml") if name.endswith("-sidecar")}
    assert named == {f"{name}-sidecar" for name in ("front", "planner", "writer", "crm")}
