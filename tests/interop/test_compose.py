"""The compose mesh on a real engine: started cold, inspected, attacked, restarted in every order, drained."""

from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.docs.blocks import blocks
from tests.interop.chains import Hops, whole_chains
from tests.interop.engine import IMAGE, ROOT, Answer, Mesh, docker, missing, require, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

NAME: Final = "sidecar-test-mesh"
PODS: Final = ("front", "planner", "writer", "crm")
DENY_FILE: Final = ROOT / "compose" / "deny" / "deny.json"
WITNESSES: Final = ("front-sidecar", "planner-sidecar", "writer-sidecar", "crm-sidecar", "sts")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    require(missing())
    mesh = Mesh(NAME)
    mesh.down()
    try:
        mesh.up()
        yield mesh
    finally:
        mesh.down()


def test_up_and_wait_is_enough_for_the_whole_chain(mesh: Mesh) -> None:
    answer = mesh.ask()
    assert (answer.status, answer.body) == (200, {"draft": "Globex renews on 2027-01-31."})
    assert mesh.ask("mallory").status == 401


def test_an_order_hidden_in_a_document_is_refused_where_it_is_given(mesh: Mesh) -> None:
    answer = mesh.ask(customer="66")
    assert (answer.status, answer.body["got_status"], answer.body["got"]["reason"]) == (200, 403, "call_not_allowed")


def test_the_chain_is_rebuilt_from_the_records_of_all_witnesses(mesh: Mesh, tmp_path: Path) -> None:
    assert mesh.ask().status == 200

    def audited() -> list[Hops]:
        return whole_chains({service: mesh.records(service) for service in WITNESSES}, tmp_path)

    whole = wait_for(audited, bool)
    assert whole
    assert [hop["audience"].rpartition("/")[2] for hop in whole[0]] == ["planner", "writer", "crm"]


# --- contents of each container


def test_every_container_is_confined(mesh: Mesh) -> None:
    for found in mesh.inspect(*mesh.services()):
        host, name = found["HostConfig"], found["Name"]
        assert found["Config"]["User"] == ("0:65532" if "keys" in name else "65532:65532"), name
        assert host["ReadonlyRootfs"], name
        assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None), name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert 0 < host["Memory"] <= 128 * 1024 * 1024, name
        assert 0 < host["PidsLimit"] <= 64, name
        assert not host["Privileged"], name
        assert (host["PidMode"], host["IpcMode"], host["UsernsMode"]) == ("", "private", ""), name
        assert not [mount for mount in found["Mounts"] if "docker.sock" in mount["Source"]], name


def test_sockets_and_keys_are_in_the_containers_they_are_meant_for_and_in_no_other(mesh: Mesh) -> None:
    holders: dict[str, set[str]] = {}
    for name, service in mesh.config()["services"].items():
        for volume in service.get("volumes", ()):
            holders.setdefault(volume["source"], set()).add(name)
    stolen = {"front-workload": {"attack-thief"}, "intruder-workload": {"attack-thief"}}  # the attack profile's
    for pod in PODS:
        volume = f"{pod}-workload"
        assert holders[volume] - stolen.get(volume, set()) == {"identity", f"{pod}-sidecar"}
    assert holders["sts-workload"] == {"identity", "sts"}
    assert holders["login-workload"] == {"identity", "login"}
    assert holders["sts-keys"] == {"keys", "sts"}
    assert holders["trust"] == {"identity", "front-agent"}


def test_settings_are_the_sidecars_alone_and_agents_are_told_addresses_only(mesh: Mesh) -> None:
    services = mesh.config()["services"]
    for pod in PODS:
        assert [one["source"] for one in services[f"{pod}-sidecar"]["configs"]] == [pod]
        agent = services[f"{pod}-agent"]
        assert "configs" not in agent
        assert all(value.startswith(("http", "/var/lib/trust/")) for value in agent.get("environment", {}).values())


def test_a_pod_shares_one_network_that_its_idle_owner_holds(mesh: Mesh) -> None:
    services = mesh.config()["services"]
    for pod in PODS:
        assert services[f"{pod}-sidecar"]["network_mode"] == f"service:{pod}"
        assert services[f"{pod}-agent"]["network_mode"] == f"service:{pod}"


def test_only_the_front_door_leads_out(mesh: Mesh) -> None:
    config = mesh.config()
    plain = {name: service for name, service in config["services"].items() if not service.get("profiles")}
    published = {name: service["ports"] for name, service in plain.items() if service.get("ports")}
    assert {name: [port["host_ip"] for port in ports] for name, ports in published.items()} == {"front": ["127.0.0.1"]}
    assert {name for name, network in config["networks"].items() if not network.get("internal")} == {"door"}
    assert [name for name, service in plain.items() if "door" in (service.get("networks") or ())] == ["front"]
    assert plain["identity"]["network_mode"] == plain["keys"]["network_mode"] == "none"


# --- the deny file


def test_a_row_of_the_deny_file_stops_a_user_at_every_sidecar_and_goes_again(mesh: Mesh) -> None:
    mesh.wait_for_the_chain()
    before = DENY_FILE.read_text()
    try:
        deny(mesh, json.dumps({"deny": [{"subject": "alice", "issuer": "https://sts:7444"}]}))
        assert mesh.ask().status != 200
        assert mesh.ask("bob").status == 200
        refused = [one for one in mesh.records("front-sidecar") if one.get("reason") == "policy_denied"]
        assert {one["subject"] for one in refused} == {"alice"}
    finally:
        deny(mesh, before)
    mesh.wait_for_the_chain()


def deny(mesh: Mesh, text: str) -> None:
    """Replace the file, and wait for each sidecar by the page's command."""
    fresh = DENY_FILE.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(DENY_FILE)
    command = next(one for one in blocks("docs/compose.md") if "--wait-deny" in one.text).text
    for pod in PODS:
        words = command.replace("writer-sidecar", f"{pod}-sidecar").split()
        mesh.compose(*words[2:])


# --- attacks


@pytest.mark.parametrize("attacker", ["outsider", "agent", "thief"])
def test_an_attack_fails_and_its_lawful_twin_works(mesh: Mesh, attacker: str) -> None:
    verdict, said = mesh.attack(attacker)
    assert "LOST" not in said
    assert (verdict, said.count("held") > 5) == (0, True), said


HOLES: Final[dict[str, tuple[str, str | None, dict[str, Any]]]] = {
    "an agent that listens for everybody": (
        "outsider",
        "planner-agent",
        {"entrypoint": ["python3", "-m", "sidecar_dev.agents", "planner", "--listen", "0.0.0.0:8080"]},
    ),
    "an agent that is given its sidecar's socket": (
        "agent",
        None,
        {"volumes": ["writer-workload:/run/workload:ro"]},
    ),
    "an agent that keeps a capability": ("agent", None, {"cap_add": ["NET_ADMIN"], "user": "0:0"}),
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_mesh_with_a_hole_loses(mesh: Mesh, hole: str, tmp_path: Path) -> None:
    """The verdicts are meaningful: with one fact changed, the attack succeeds."""
    attacker, changed, facts = HOLES[hole]
    overlay = tmp_path / "hole.yaml"
    overlay.write_text(yaml.safe_dump({"services": {changed or f"attack-{attacker}": facts}}))
    holed = Mesh(NAME, overlay)
    holed.environ = mesh.environ
    try:
        if changed:
            holed.compose("up", "--detach", "--wait", "--no-deps", changed)
        verdict, said = holed.attack(attacker)
        assert (verdict, "LOST" in said) == (1, True), said
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


# --- restarts


def test_the_chain_comes_back_after_a_restart_of_any_one_service(mesh: Mesh) -> None:
    for service in mesh.services():
        if service != "keys":
            mesh.compose("restart", service)
            mesh.wait_for_the_chain()


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("planner", "planner-sidecar", "planner-agent"))), ids="-then-".join
)
def test_a_pod_comes_back_whatever_the_order_of_restarts(mesh: Mesh, order: tuple[str, ...]) -> None:
    for service in order:
        mesh.compose("restart", service)
    mesh.wait_for_the_chain()
    verdict, said = mesh.attack("agent")
    assert verdict == 0, said


def test_a_sidecar_whose_network_went_first_waits_for_nobody(mesh: Mesh) -> None:
    """Its callers keep connections without a network; the drain does not wait for them."""
    mesh.wait_for_the_chain()
    try:
        mesh.compose("stop", "planner")
        mesh.compose("stop", "planner-sidecar", "planner-agent")
        assert mesh.inspect("planner-sidecar")[0]["State"]["ExitCode"] == 0
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


def test_everything_at_once_comes_back(mesh: Mesh) -> None:
    mesh.compose("restart")
    mesh.wait_for_the_chain()
    verdict, said = mesh.attack("outsider")
    assert verdict == 0, said


def test_a_killed_sidecar_means_no_way_in_and_no_way_round(mesh: Mesh) -> None:
    docker("kill", "--signal", "KILL", mesh.container("planner-sidecar"))
    try:
        answer = mesh.ask()
        assert (answer.status, answer.body["reason"]) == (503, "upstream_unreachable")
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


def test_without_the_identity_service_what_is_known_serves_on(mesh: Mesh) -> None:
    mesh.wait_for_the_chain()  # its requirements are known from here on: a JWT-SVID is fetched on first use
    mesh.compose("stop", "identity")
    try:
        assert mesh.ask().status == 200
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


def test_without_the_token_service_no_new_chain_starts(mesh: Mesh) -> None:
    mesh.compose("stop", "sts")
    try:
        answer = mesh.ask("bob")
        assert answer.status in (502, 503, 504), answer
        assert answer.body["reason"].startswith("sts_"), answer
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


# --- crashes: Compose is not run again


def crash(mesh: Mesh, service: str) -> None:
    """Kill the first process of a container, as the kernel does when memory is out.

    `docker kill` is a user's order, after which no restart policy applies. The engine may be in its own pid namespace,
    so the signal comes from a container that sees the engine's processes.
    """
    pid = mesh.inspect(service)[0]["State"]["Pid"]
    options = ["--rm", "--pid=host", "--network=none", "--user=0", "--entrypoint=python3"]
    docker("run", *options, IMAGE, "-Ic", f"import os; os.kill({pid}, 9)")


@pytest.mark.parametrize("victim", ["planner", "front", "planner-sidecar", "planner-agent", "sts", "identity", "login"])
def test_the_chain_comes_back_by_itself_after_a_crash(mesh: Mesh, victim: str) -> None:
    mesh.wait_for_the_chain()
    started = mesh.inspect(victim)[0]["State"]["StartedAt"]
    crash(mesh, victim)
    wait_for(lambda: mesh.inspect(victim)[0]["State"]["StartedAt"], lambda at: at != started)
    mesh.wait_for_the_chain()
    verdict, said = mesh.attack("agent")
    assert verdict == 0, said


def test_a_pod_without_its_owner_says_that_its_network_is_gone(mesh: Mesh) -> None:
    mesh.wait_for_the_chain()
    docker("kill", "--signal", "KILL", mesh.container("planner"))  # a user's order: no restart policy restarts it
    try:
        states = wait_for(
            lambda: [mesh.inspect(f"planner-{part}")[0]["State"] for part in ("sidecar", "agent")],
            lambda found: not any(state["Running"] for state in found),
        )
        assert not any(state["Running"] for state in states), states
    finally:
        mesh.up()
    mesh.wait_for_the_chain()


# --- draining


def test_a_sidecar_drained_under_load_loses_no_request(mesh: Mesh) -> None:
    """Accepted requests are answered, later ones refused explicitly, and none is cut."""
    answers: list[Answer] = []
    over = threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            answers.append(mesh.ask(think_s=0.2))

    clients = [threading.Thread(target=ask_on) for _ in range(8)]
    for client in clients:
        client.start()
    try:
        wait_for(lambda: len(answers), lambda count: count >= 16)
        for service in ("planner-sidecar", "writer-sidecar"):
            mesh.compose("stop", service)
            stopped = mesh.inspect(service)[0]["State"]
            assert (stopped["ExitCode"], stopped["OOMKilled"]) == (0, False)
            mesh.compose("start", service)
            before = len(answers)
            wait_for(lambda: [a.status for a in answers[before:]], lambda found: 200 in found)  # noqa: B023
    finally:
        over.set()
        for client in clients:
            client.join()
    endings = Counter((answer.status, answer.body.get("reason")) for answer in answers)
    assert endings[200, None] >= 16
    assert set(endings) <= {(200, None), (503, "upstream_unreachable")}, endings
    cut = [
        (record["workload"], record["reason"])
        for service in WITNESSES
        for record in mesh.records(service)
        if record["event"] == "request" and record["reason"] in ("draining", "aborted")
    ]
    assert cut == []


# --- a slow machine


SLOW: Final = "import os, time; time.sleep(20); os.execvp('python3', ['python3', '-m', 'sidecar.cli', 'run'])"


def test_a_sidecar_that_starts_too_slowly_leaves_no_agent_unstarted(mesh: Mesh, tmp_path: Path) -> None:
    """It is unhealthy before it serves, and `up` fails; nothing is left behind that only looks well afterwards."""
    overlay = tmp_path / "slow.yaml"
    impatient = {"start_period": "1s", "start_interval": "1s", "interval": "1s", "timeout": "1s", "retries": 1}
    sidecar = {"entrypoint": ["python3", "-Ic", SLOW], "healthcheck": impatient}
    overlay.write_text(yaml.safe_dump({"services": {"planner-sidecar": sidecar}}))
    slow = Mesh(NAME, overlay)
    slow.environ = mesh.environ
    mesh.compose("rm", "--stop", "--force", "planner-sidecar", "planner-agent")
    try:
        slow.compose("up", "--detach", "--wait", check=False)
        (agent,) = slow.inspect("planner-agent")
        assert agent["State"]["Status"] == "running"
        mesh.wait_for_the_chain()  # once the sidecar serves, with no further command
        states = {one["Name"]: one["State"] for one in slow.inspect(*slow.services())}
        assert {name for name, state in states.items() if state["Status"] != "running"} == {f"/{NAME}-keys-1"}
    finally:
        mesh.up()
        mesh.wait_for_the_chain()
