"""The compose mesh with compose/acting.yaml on a real engine: an agent acts for itself, an operator stops another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.interop.engine import ROOT, Mesh, missing, require, wait_for

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

WRITER: Final = "spiffe://acme.example/agent/writer"
PLANNER: Final = "spiffe://acme.example/agent/planner"

# An agent gets the handle and calls: with it, without it, and where it opens nothing
CALLS: Final = """
import http.client, json, socket
def call(path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", 7080)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
with socket.socket(socket.AF_UNIX) as own:
    own.connect("/run/sidecar-handle/handle.sock")
    handle = json.loads(own.makefile().read())["handle"]
shown = {"Delegation-Handle": handle}
print(json.dumps([call("/index/customers/42", **shown), call("/index/customers/42"), call("/writer/draft", **shown)]))
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    require(missing())
    mesh = Mesh("sidecar-test-acting", ROOT / "compose" / "acting.yaml")
    mesh.down()
    try:
        mesh.up()
        yield mesh
    finally:
        mesh.down()


def operate(mesh: Mesh, *words: str) -> Any:
    reason = [] if words == ("--list",) else ["--reason", "INC-42"]
    return json.loads(mesh.compose("run", "--rm", "--no-deps", "operator", *words, *reason, "--json"))


def known(mesh: Mesh, sidecar: str) -> bool:
    """Tell if a sidecar has polled a list with one revocation."""
    changes = [str(one) for one in mesh.records(sidecar) if one["event"] == "revocations.changed"]
    return any("revoked=1" in change for change in changes)


def test_the_planner_reads_a_customer_for_itself_and_nobody_is_named(mesh: Mesh) -> None:
    said = json.loads(mesh.compose("exec", "-T", "planner-agent", "python3", "-Ic", CALLS))
    (read, customer), (bare, without), (other, refused) = said
    assert (read, customer["name"]) == (200, "Globex")
    assert (bare, without["reason"]) == (403, "no_request_context")
    assert (other, refused["reason"]) == (403, "own_authority_refused")
    own = [one for one in mesh.records("planner-sidecar") if one.get("op") == "own" and one["decision"] == "allow"]
    assert [(one["route"], one["subject"], one["actor"]) for one in own] == [("index", PLANNER, None)]


def test_the_handle_s_folder_is_in_two_containers_and_only_the_sidecar_writes_it(mesh: Mesh) -> None:
    holders = {
        name: volume.get("read_only", False)
        for name, service in mesh.config()["services"].items()
        for volume in service.get("volumes", ())
        if volume["source"] == "planner-handle"
    }
    assert holders == {"planner-sidecar": False, "planner-agent": True}
    (found,) = mesh.inspect("planner-agent")
    assert [one["RW"] for one in found["Mounts"] if one["Destination"] == "/run/sidecar-handle"] == [False]


def test_an_operator_stops_a_workload_and_a_restart_of_the_token_service_forgets_nothing(mesh: Mesh) -> None:
    mesh.wait_for_the_chain()
    order = operate(mesh, "--actor", WRITER, "--for", "1h")["id"]
    stopped = wait_for(mesh.ask, lambda answer: answer.status == 403)
    assert stopped.body["reason"] in ("exchange_denied", "revoked"), stopped  # by the token service, or by the list
    for sidecar in ("planner-sidecar", "writer-sidecar", "crm-sidecar"):
        assert wait_for(lambda name=sidecar: known(mesh, name), bool), sidecar  # type: ignore[misc]
    mesh.compose("restart", "sts")
    mesh.compose("up", "--detach", "--wait", "--no-recreate", "sts")
    (replica,) = operate(mesh, "--list")["replicas"]
    assert [(one["id"], one["value"]) for one in replica["orders"]] == [(order, WRITER)]
    assert mesh.ask().status == 403
    operate(mesh, "--lift", order)
    mesh.wait_for_the_chain()
