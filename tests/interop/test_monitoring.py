"""Rules, dashboard and metrics with the real promtool and a real Prometheus on the compose mesh."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.interop.engine import IMAGE, ROOT, Mesh, docker, missing, output, require, wait_for
from tests.test_monitoring import queries, rules

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROMETHEUS: Final = "prom/prometheus:v2.53.3"
BUDGET: Final = 250  # series of one sidecar: docs/prometheus.md


# --- live


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    require(missing())
    mesh = Mesh("sidecar-test-monitoring")
    mesh.environ["PROMETHEUS_IMAGE"] = prometheus_image()
    mesh.down()
    try:
        mesh.up()
        mesh.compose("up", "--detach", "--wait", "--no-deps", "prometheus")
        yield mesh
    finally:
        mesh.down()


def exit_code(*words: str) -> int:
    return subprocess.run(words, cwd=ROOT, capture_output=True, timeout=300, check=False).returncode


def prometheus_image() -> str:
    """Return the real image, or, without a registry, one made of the program on PATH."""
    if exit_code("docker", "image", "inspect", PROMETHEUS) == 0:
        return PROMETHEUS
    program = shutil.which("prometheus")
    if program is None:
        docker("pull", PROMETHEUS)
        return PROMETHEUS
    made = "sidecar-test-prometheus:path"
    dockerfile = f'FROM {IMAGE}\nCOPY --chmod=755 prometheus promtool /bin/\nENTRYPOINT ["/bin/prometheus"]\n'
    folder = Path(program).parent
    docker("build", "--quiet", "--tag", made, "--file", "-", str(folder), stdin=dockerfile)
    return made


def asked(mesh: Mesh, path: str, **fields: str) -> Any:
    url = f"http://127.0.0.1:{mesh.prometheus_port}{path}?{urllib.parse.urlencode(fields)}"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
            return json.loads(response.read())["data"]
    except (OSError, ValueError) as error:
        return {"error": repr(error)}


def value(mesh: Mesh, query: str) -> list[Any]:
    found: list[Any] = asked(mesh, "/api/v1/query", query=query).get("result", [])
    return found


@pytest.fixture(scope="module")
def busy(mesh: Mesh) -> Mesh:
    """Make traffic: users, refusals and attacks, over a while."""
    for number in range(20):
        mesh.ask("alice" if number % 2 else "bob", customer="66" if number % 3 else "42")
    for attacker in ("agent", "thief"):
        mesh.attack(attacker)
    for number in range(20):
        mesh.ask("bob" if number % 2 else "alice")
    return mesh


def scrape(mesh: Mesh, service: str = "planner-sidecar") -> str:
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:7090/metrics').read().decode(), end='')"
    return mesh.compose("exec", "-T", service, "python3", "-Ic", code)


def series(mesh: Mesh, service: str = "planner-sidecar") -> set[str]:
    lines = scrape(mesh, service).splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def test_every_target_is_up_and_every_rule_healthy(busy: Mesh) -> None:
    found = wait_for(lambda: value(busy, "sum(up)"), lambda got: bool(got) and got[0]["value"][1] == "5")
    assert found[0]["value"][1] == "5", asked(busy, "/api/v1/targets")
    groups = asked(busy, "/api/v1/rules")["groups"]
    live = [rule for group in groups for rule in group["rules"]]
    assert len(live) == len(rules())
    assert [rule["name"] for rule in live if rule["health"] == "err"] == []


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("service", ["planner-sidecar", "front-sidecar", "sts"])
def test_promtool_finds_nothing_to_say_about_the_metrics(busy: Mesh, service: str) -> None:
    output(["promtool", "check", "metrics"], stdin=scrape(busy, service))


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_panel_answers_on_a_live_scrape(busy: Mesh, query: str) -> None:
    filled = re.sub(r"\$[a-z]+", ".*", query.replace("$__rate_interval", "1m"))
    assert wait_for(lambda: value(busy, filled), bool), filled


def test_people_and_machines_are_counted_where_tokens_are_issued(busy: Mesh) -> None:
    found = wait_for(
        lambda: value(busy, 'sidecar_identities_seen{job="sts"}'), lambda got: bool(got) and got[0]["value"][1] != "0"
    )
    counts = {one["metric"]["kind"]: float(one["value"][1]) for one in found}
    assert counts == {"human": 2, "machine": 3}  # alice and bob; front, planner and writer act for them


def test_mixed_load_makes_no_series(busy: Mesh) -> None:
    """New users, paths and tokens change no exported series."""
    services = ("front-sidecar", "planner-sidecar", "writer-sidecar", "crm-sidecar", "sts")
    for attacker in ("agent", "thief"):  # once, so that each reason has occurred
        busy.attack(attacker)
    before = {service: series(busy, service) for service in services}
    for number in range(40):
        busy.ask("alice" if number % 2 else "mallory", customer=f"no-{number}")
    for attacker in ("agent", "thief"):
        busy.attack(attacker)
    after = {service: series(busy, service) for service in services}
    assert {service: found - before[service] for service, found in after.items()} == {name: set() for name in services}
    assert all(len(found) <= BUDGET for found in after.values()), {name: len(found) for name, found in after.items()}
