"""The plan of a load, the load generator and the agent against each other without a proxy, and the results."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.axes import ALL, AXES, COMPARED, DAY, USERS
from benchmarks.before import prepare, python_path
from benchmarks.engines import native_share, parse_requests
from benchmarks.histogram import bucket_of, percentile
from benchmarks.measure import cpu_by_process
from benchmarks.native import BuildError, Programs, build
from benchmarks.peers.agents import links
from benchmarks.peers.all import all_peers
from benchmarks.peers.peer import CHAINS
from benchmarks.peers.sidecar_settings import ENGINES, agents_settings, chain_settings, sts_settings
from benchmarks.report import write_report
from benchmarks.run import _parser, _scenarios, _with_defaults
from benchmarks.scenarios import Call, Scenario
from benchmarks.schedule import planned, tokens_of
from benchmarks.tables import table_of
from benchmarks.world import make_world
from sidecar_dev.processes import Processes, free_ports, listens
from tests.benchmarks.samples import results, sample

PEERS = {peer.name: peer for peer in all_peers()}
WEIGHTS = [call.weight for call in DAY]
METRICS = """\
# TYPE sidecar_engine_requests_total counter
sidecar_engine_requests_total{direction="inbound",engine="native"} 30.0
sidecar_engine_requests_total{direction="outbound",engine="native"} 6.0
sidecar_engine_requests_total{direction="inbound",engine="python"} 14.0
sidecar_requests_total{direction="inbound",route="all",decision="allow",reason=""} 44.0
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def ports(programs: Programs, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Return the ports of a running agent, and of one in the middle that calls it."""
    agent, middle = free_ports(2)
    relay = [str(programs.backend.with_name("relay")), "--port", str(middle), "--to", str(agent)]
    processes = Processes(tmp_path)
    try:
        processes.start("agent", [str(programs.backend), "--port", str(agent)], {})
        processes.start("middle", [*relay, "--mcp-prefix", "/next-mcp"], {})
        processes.wait_for("agent", lambda: listens(agent))
        processes.wait_for("middle", lambda: listens(middle))
        yield agent, middle
    finally:
        processes.stop()


def load(programs: Programs, port: int, folder: Path, *mix: Call, slots: int) -> dict[str, Any]:
    """Return the report of half a second with 200 calls a second."""
    plan = planned([call.weight for call in mix], users=10, cold=0.1, calls=400, seed=1)
    (folder / "plan").write_text(plan.text)
    (folder / "tokens").write_text("".join(f"token-{number}\n" for number in range(tokens_of(plan))))
    command = [str(programs.load), "--connect", f"127.0.0.1:{port}", "--connections", str(slots)]
    for number, call in enumerate((*mix, *(call.at_once() for call in mix))):
        request = folder / f"{number}.request"
        request.write_text(call.text("a.example"), newline="")
        command += ["--request", str(request), "--body", str(call.body)]
    command += ["--tokens", str(folder / "tokens"), "--plan", str(folder / "plan"), "--plan-warm", str(plan.warm)]
    command += ["--rate", "200", "--seconds", "0.5", "--warmup", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    warm, report = done.stdout.splitlines()
    assert warm == "warm"
    found: dict[str, Any] = json.loads(report)
    return found


def test_each_run_of_calls_has_the_shares_of_the_day_in_an_order_of_its_seed() -> None:
    plan = planned(WEIGHTS, users=200, cold=0.1, calls=700, seed=1)
    assert [token for _, token in plan.pairs[: plan.warm]] == list(range(200))
    for start in range(200, 900, 70):
        kinds = Counter(kind for kind, _ in plan.pairs[start : start + 70])
        assert [kinds[kind] for kind in range(len(WEIGHTS))] == WEIGHTS
    posts = sum(call.weight for call in DAY if call.body)
    assert [DAY[0].weight / 70, DAY[1].weight / 70, posts / 70] == [0.7, 0.2, 0.1]
    assert plan == planned(WEIGHTS, users=200, cold=0.1, calls=700, seed=1)
    assert plan != planned(WEIGHTS, users=200, cold=0.1, calls=700, seed=2)


@pytest.mark.parametrize(("cold", "expected"), [(0, 0), (0.01, 7), (0.1, 70), (1, 700)])
def test_the_share_of_new_tokens_is_exact_and_each_is_used_once(cold: float, expected: int) -> None:
    plan = planned(WEIGHTS, users=200, cold=cold, calls=700, seed=1)
    assert [token for _, token in plan.pairs[200:] if token >= 200] == list(range(200, 200 + expected))
    assert tokens_of(plan) == 200 + expected


@pytest.mark.parametrize("through", [0, 1])
def test_each_call_of_the_day_is_answered_also_through_an_agent_in_the_middle(
    programs: Programs, ports: tuple[int, int], tmp_path: Path, through: int
) -> None:
    seen = load(programs, ports[through], tmp_path, *DAY, slots=200)
    assert seen["calls"] == seen["calls_answered"] > 90
    assert seen["statuses"].keys() == {"200"}
    assert not any(seen["lost"].values())
    assert seen["event_delay"]
    assert sum(count for _, count in seen["latency"]) < seen["calls"]  # a stream counts by its events


def test_the_time_that_the_agent_waits_is_not_in_the_latency_but_waiting_for_a_connection_is(
    programs: Programs, ports: tuple[int, int], tmp_path: Path
) -> None:
    call = Call(after_ms=500)
    many, one = (load(programs, ports[0], tmp_path, call, slots=slots) for slots in (200, 1))
    assert many["calls"] == many["calls_answered"]
    assert percentile(many["latency"], 0.01) < 400_000
    assert one["late"] > 0
    assert percentile(one["latency"], 0.99) > 1_000_000


def test_requests_are_counted_by_engine_from_the_metrics() -> None:
    assert parse_requests(METRICS) == {"native": 36, "python": 14}
    assert native_share(Counter(native=6, python=4), parse_requests(METRICS)) == pytest.approx(0.75)
    assert native_share(Counter(), Counter(python=3)) == 0
    assert native_share(parse_requests(METRICS), parse_requests(METRICS)) is None


def test_cpu_time_is_that_of_each_process_with_its_workers_and_the_token_service_is_not_in_the_figure() -> None:
    found = cpu_by_process([0.1, 0.2, 0.4], ["front", "front", "sts"], ["front"])
    assert found == {"cpu_s": pytest.approx(0.3), "cpu_of": pytest.approx({"front": 0.3, "sts": 0.4})}


def test_a_report_has_each_column_of_the_agents_rows_and_names_who_is_absent(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "scenario": "day-50-hop",
        "native_share": 0.25,
        "core_free": 0.5,
        "cpu_of": {"front": 0.001, "sts": 0.002},
    }
    rows = [
        sample(cost, peer=peer, number=number, latency=[[bucket_of(ms * 1_000_000), 1000]], **more)
        for peer, cost, ms in (("sidecar-native", 2.0, 3), ("sidecar-native-before", 1.0, 3), ("direct", 9.0, 1),
                               ("haproxy", 4.0, 1), ("envoy-jwt", 8.0, 1))
        for number in (0, 1)
    ]  # fmt: skip
    day = next(one for one in AXES if one.name == "day-50-hop")
    row = table_of(rows, day, ["sidecar-native"]).rows[0]
    ratios = (row.ratio, row.ratio_to_envoy, row.ratio_to_before)
    assert [one and one.middle for one in ratios] == [0.5, 0.25, 2.0]
    assert [one and one.middle for one in (row.added_p50_us, row.added_p99_us)] == pytest.approx([2000] * 2, rel=0.03)
    assert (row.native_share, row.core_free, row.process_us) == (0.25, 0.5, {"front": 1, "sts": 2})
    write_report(results(*rows, missing={"agentgateway": "no binary of agentgateway"}), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| agentgateway | - |" in text
    assert "not run: no binary of agentgateway" in text
    assert "| delegation sidecar | - |" in text  # it takes part, and has no sample
    assert "nginx" not in text


@pytest.mark.parametrize("scenario", AXES, ids=lambda one: one.name)
def test_rows_are_measured_beside_the_same_peers_with_a_connection_for_each_open_call(scenario: Scenario) -> None:
    beside = {name for name, peer in PEERS.items() if scenario.suits(peer)}
    native = set() if scenario.streams else {"sidecar-native", "sidecar-native-before"}
    assert {"haproxy", "envoy-jwt", "sidecar", "sidecar-before", "direct"} | native <= beside
    open_calls = scenario.rate * sum(call.weight * call.lasts_s for call in scenario.mix)
    open_calls /= sum(call.weight for call in scenario.mix)
    assert scenario.connections * max(1, scenario.streams) >= 1.2 * open_calls
    assert scenario.users == USERS


def test_settings_of_the_roles_have_a_route_for_each_protocol(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    routes = agents_settings(world, "sidecar-agents")["inbound"]["routes"]
    assert [route.get("protocol", "http") for route in routes] == ["mcp", "a2a", "http"]
    assert sts_settings(world, *PEERS["sidecar"].roles["chain-2"].beside)["issuer"].endswith(world.at("sidecar-sts"))


@pytest.mark.parametrize("role", CHAINS)
@pytest.mark.parametrize("name", ENGINES)
def test_each_hop_of_a_chain_calls_the_next_one_as_its_peer(tmp_path: Path, role: str, name: str) -> None:
    world = make_world(tmp_path)
    chain = [(link, chain_settings(world, name, link)) for link in links(name, role)]
    assert len(chain) == CHAINS[role] + 1
    assert "entry" in chain[0][1]
    assert {settings["engine"] for _, settings in chain} == {ENGINES[name]}
    for (link, settings), (after, called) in itertools.pairwise(chain):
        assert {route["upstream"] for route in settings["outbound"]["routes"]} == {
            f"https://{called['inbound']['listen']}"
        }
        assert {route["peer"] for route in settings["outbound"]["routes"]} == {after.own}
        assert {*itertools.chain(*(route["peers"] for route in called["inbound"]["routes"]))} == {link.own}
    assert "exchange" not in chain[-1][1]


def test_a_comparison_with_another_version_has_its_own_rows_rounds_and_peers() -> None:
    compared = _with_defaults(_parser().parse_args(["--before", "main"]))
    assert {one.name for one in _scenarios(compared)} == COMPARED <= {one.name for one in ALL}
    assert (compared.rounds, compared.seconds) == (7, 1.5)
    assert ENGINES.keys() <= set(compared.peers.split(",")) <= PEERS.keys()
    chosen = _scenarios(_parser().parse_args(["--before", "main", "--only", "slow,cold-10", "--only", "inbound"]))
    assert {one.axis or one.name for one in chosen} == {"slow", "cold", "inbound"}


def test_another_version_is_imported_from_its_checkout_and_each_distribution_in_it(tmp_path: Path) -> None:
    for name in ("core", "dev", "docs"):
        (tmp_path / name).mkdir()
    for name in ("core", "dev"):
        (tmp_path / name / "pyproject.toml").touch()
    assert python_path(tmp_path) == [tmp_path, tmp_path / "core", tmp_path / "dev"]
    with pytest.raises(BuildError, match="no-such-ref: fatal"):
        prepare("no-such-ref", tmp_path)
