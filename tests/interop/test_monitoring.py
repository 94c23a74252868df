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
import yaml

from tests.interop.engine import IMAGE, ROOT, Mesh, docker, missing, output, require, wait_for
from tests.test_monitoring import ALERTS, MONITORING, cases_of, queries, rules

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROMETHEUS: Final = "prom/prometheus:v2.53.3"
BUDGET: Final = 250  # series of one sidecar: docs/prometheus.md
RULES: Final = sorted(map(str, (MONITORING / "rules").glob("*.yaml")))
TESTS: Final = sorted((MONITORING / "tests").glob("*.yaml"))


@pytest.fixture
def promtool() -> None:
    require(None if shutil.which("promtool") else "promtool is not on PATH")


def exit_code(*words: str) -> int:
    return subprocess.run(words, cwd=ROOT, capture_output=True, timeout=300, check=False).returncode


@pytest.mark.usefixtures("promtool")
def test_the_rules_are_clean() -> None:
    output(["promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES])


@pytest.mark.usefixtures("promtool")
def test_the_configuration_is_one() -> None:
    output(["promtool", "check", "config", "--syntax-only", str(MONITORING / "prometheus.yaml")])


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_quiet_as_they_should(file: Path) -> None:
    output(["promtool", "test", "rules", str(file)])


# --- thresholds and patience are held by those tests: changed ones are noticed

_COMPARED: Final = re.compile(r"(?<=[<>=] )(\d+(?:\.\d+)?)")
_UNITS_S: Final = {"m": 60, "h": 3600, "d": 86400}


def mutations(alert: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alert with one thing of it changed."""
    expression, patience = alert["expr"], alert["for"]
    for found in _COMPARED.finditer(expression):
        number = found[1]
        guard = expression[: found.start()].endswith("lifetime_seconds > ")
        for other in ("-1",) if guard else _nudged(number, expression[: found.start()]):
            yield {**alert, "expr": expression[: found.start()] + other + expression[found.end() :]}
    if "> on" in expression:
        yield {**alert, "expr": f"1.25 * {expression}"}
        yield {**alert, "expr": f"0.8 * {expression}"}
    if "lifetime_seconds > 0" not in expression:
        for pattern, flipped in ((r"> 0(?![.\d])", ">= 0"), (r"== 0(?![.\d])", "!= 0")):
            if re.search(pattern, expression):
                yield {**alert, "expr": re.sub(pattern, flipped, expression, count=1)}
    seconds = int(patience[:-1]) * _UNITS_S[patience[-1]]
    for other_s in (seconds // 2, seconds * 2) if seconds else (180,):
        yield {**alert, "for": f"{other_s}s"}


def _nudged(number: str, before: str) -> tuple[str, ...]:
    if number == "0":
        return ("5",) if before.endswith("> ") else ("1",)
    if before.startswith("count("):  # whole numbers
        return str(int(number) + 1), str(int(number) - 1)
    return (f"{float(number) * 1.25:g}", f"{float(number) * 0.8:g}")


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("name", ALERTS)
def test_a_changed_threshold_or_patience_is_noticed(name: str, tmp_path: Path) -> None:
    file = next(
        file for file in TESTS if any(test in yaml.safe_load(file.read_text())["tests"] for test in cases_of(name))
    )
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(MONITORING / "rules" / "recording.yaml", tmp_path / "rules")
    shutil.copy(file, tmp_path / "tests")
    group = {"name": group_of(name), "rules": [ALERTS[name]]}
    command = ["promtool", "test", "rules", "--run", f"^{name}:", str(tmp_path / "tests" / file.name)]

    def judge(alert: dict[str, Any]) -> int:
        document = {"groups": [{**group, "rules": [alert]}]}
        (tmp_path / "rules" / "alerts.yaml").write_text(yaml.safe_dump(document))
        return exit_code(*command)

    assert judge(ALERTS[name]) == 0
    survivors = [one for one in mutations(ALERTS[name]) if judge(one) == 0]
    assert survivors == []


def group_of(name: str) -> str:
    document = yaml.safe_load((MONITORING / "rules" / "alerts.yaml").read_text())
    groups = document["groups"]
    return str(next(group["name"] for group in groups if any(rule["alert"] == name for rule in group["rules"])))


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


def prometheus_image() -> str:
    """The real one, or, where no registry is to be had, one made of the program on PATH."""
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
    """With something to see: users, refusals and attacks, over a while."""
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
    filled = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
    assert wait_for(lambda: value(busy, filled), bool), filled


def test_people_and_machines_are_counted_where_tokens_are_issued(busy: Mesh) -> None:
    found = wait_for(
        lambda: value(busy, 'sidecar_identities_seen{job="sts"}'), lambda got: bool(got) and got[0]["value"][1] != "0"
    )
    counts = {one["metric"]["kind"]: float(one["value"][1]) for one in found}
    assert counts == {"human": 2, "machine": 3}  # alice and bob; front, planner and writer act for them


def test_mixed_load_makes_no_series(busy: Mesh) -> None:
    """Users, tokens and paths that were never seen before leave what is exported as it was."""
    services = ("front-sidecar", "planner-sidecar", "writer-sidecar", "crm-sidecar", "sts")
    for attacker in ("agent", "thief"):  # once, so that each reason has been there
        busy.attack(attacker)
    before = {service: series(busy, service) for service in services}
    for number in range(40):
        busy.ask("alice" if number % 2 else "mallory", customer=f"no-{number}")
    for attacker in ("agent", "thief"):
        busy.attack(attacker)
    after = {service: series(busy, service) for service in services}
    assert {service: found - before[service] for service, found in after.items()} == {name: set() for name in services}
    assert all(len(found) <= BUDGET for found in after.values()), {name: len(found) for name, found in after.items()}
