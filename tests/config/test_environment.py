import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.check import check
from sidecar.config import load_sidecar
from sidecar.config.document import override
from tests.config.documents import EXAMPLES, example, problems


@pytest.mark.parametrize(
    ("environ", "document"),
    [
        pytest.param({"SIDECAR__A": "1"}, {"a": 1, "b": {"c": "old"}}, id="new"),
        pytest.param({"SIDECAR__B__C": "[x, y]"}, {"b": {"c": ["x", "y"]}}, id="a-list-whole"),
        pytest.param({"SIDECAR__B__C": ""}, {"b": {"c": None}}, id="empty-is-null"),
        pytest.param({"SIDECAR__B": "{d: 1}", "SIDECAR__B__E": "2"}, {"b": {"d": 1, "e": 2}}, id="the-member-wins"),
        pytest.param({"SIDECAR__B__D__E": "off"}, {"b": {"c": "old", "d": {"e": "off"}}}, id="new-section"),
        pytest.param({"SIDECAR_PORT": "tcp://10.0.0.1:80", "PATH": "x"}, {"b": {"c": "old"}}, id="not-ours"),
    ],
)
def test_variables_override_the_file(environ: dict[str, str], document: dict[str, Any]) -> None:
    settings: dict[str, object] = {"b": {"c": "old"}}
    assert override(settings, environ) == []
    assert settings == document


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        pytest.param("SIDECAR__B__C__D", "1", "names a key of a value that has no keys", id="into-a-text"),
        pytest.param("SIDECAR__", "1", "is not the name of a setting", id="nothing"),
        pytest.param("SIDECAR__B____C", "1", "is not the name of a setting", id="empty-part"),
        pytest.param("SIDECAR__b", "1", "is not the name of a setting", id="lower-case"),
        pytest.param("SIDECAR__B", "[1", "is not valid YAML", id="broken-value"),
        pytest.param("SIDECAR__B", "*x", "anchors and aliases are not supported", id="alias"),
        pytest.param("SIDECAR__B", os.fsdecode(b"caf\xe9"), "is not UTF-8 text", id="latin-1"),
    ],
)
def test_a_variable_that_cannot_be_used_is_a_problem_with_its_name(name: str, value: str, wrong: str) -> None:
    (problem,) = override({"b": {"c": "old"}}, {name: value})
    assert problem.field.startswith(name)
    assert problem.wrong == wrong


SERVICE = {  # the variables that Kubernetes sets for a Service called sidecar--b with a named port
    "SIDECAR__B_SERVICE_HOST": "10.213.0.9",
    "SIDECAR__B_SERVICE_PORT": "80",
    "SIDECAR__B_SERVICE_PORT_HTTP": "80",
    "SIDECAR__B_PORT": "tcp://10.213.0.9:80",
    "SIDECAR__B_PORT_80_TCP": "tcp://10.213.0.9:80",
    "SIDECAR__B_PORT_80_TCP_PROTO": "tcp",
    "SIDECAR__B_PORT_80_TCP_PORT": "80",
    "SIDECAR__B_PORT_80_TCP_ADDR": "10.213.0.9",
}


def test_a_service_with_our_prefix_keeps_no_sidecar_from_starting(tmp_path: Path) -> None:
    settings: dict[str, object] = {"b": {"c": "old"}}
    assert override(settings, {**SERVICE, "SIDECAR__B__C": "new"}) == []
    assert settings == {"b": {"c": "new"}}
    assert problems(tmp_path, example("agent"), sts=False, **SERVICE) == []


@pytest.mark.parametrize("left_out", ["SIDECAR__B_SERVICE_HOST", "SIDECAR__B_SERVICE_PORT", "SIDECAR__B_PORT"])
def test_what_only_looks_like_a_service_s_variable_is_a_setting_that_does_not_exist(left_out: str) -> None:
    settings: dict[str, object] = {}
    override(settings, {name: value for name, value in SERVICE.items() if name != left_out})
    assert len(settings) == len(SERVICE) - 1


def test_a_listener_is_moved_by_a_variable() -> None:
    settings = load_sidecar(EXAMPLES / "agent.yaml", {"SIDECAR__INBOUND__LISTEN": "127.0.0.1:0"})
    assert settings.inbound is not None
    assert str(settings.inbound.listen) == "127.0.0.1:0"


def test_an_unknown_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, example("agent"), SIDECAR__INBOUND__LISTENN="127.0.0.1:0")
    assert problem.field == "inbound.listenn (SIDECAR__INBOUND__LISTENN)"
    assert problem.fix == "did you mean listen?"


def test_the_value_of_a_variable_is_never_quoted(tmp_path: Path) -> None:
    found = problems(tmp_path, example("agent"), SIDECAR__INBOUND__AGENT="hunter2", SIDECAR__DRAIN_S="hunter2")
    assert len(found) == 2
    assert "hunter2" not in "".join(map(str, found))


def test_the_socket_of_the_workload_api_may_come_from_its_own_variable(tmp_path: Path) -> None:
    without = {**example("agent"), "identity": {}}
    (problem,) = problems(tmp_path, without)
    assert problem.field == "identity.workload_api"
    assert problems(tmp_path, without, SPIFFE_ENDPOINT_SOCKET="unix:///run/agent.sock") == []
    (problem,) = problems(tmp_path, without, SPIFFE_ENDPOINT_SOCKET="/run/agent.sock")
    assert problem.field == "identity.workload_api (SPIFFE_ENDPOINT_SOCKET)"
    assert "/run/agent.sock" not in str(problem)


@pytest.mark.parametrize(
    ("environ", "field"),
    [
        pytest.param(
            {"SIDECAR__INBOUND__AGENT": "http://10.0.0.1:80"}, "inbound.agent (SIDECAR__INBOUND__AGENT)", id="it"
        ),
        pytest.param({"SIDECAR__ISSUERS": "[]"}, "issuers (SIDECAR__ISSUERS)", id="a-list"),
        pytest.param(
            {"SIDECAR__INBOUND__AUDIENCES": "[a, spiffe://acme.example/x]"},
            "inbound.audiences[1] (SIDECAR__INBOUND__AUDIENCES)",
            id="an-item",
        ),
        pytest.param(
            {"SIDECAR__INBOUND": "{agent: 'http://10.0.0.1:80', routes: []}", "SIDECAR__INBOUND__NETWORK": "pod"},
            "inbound.agent (SIDECAR__INBOUND)",
            id="a-section",
        ),
        pytest.param(
            {"SIDECAR__INBOUND": "{routes: []}", "SIDECAR__INBOUND__AGENT": "http://10.0.0.1:80"},
            "inbound.agent (SIDECAR__INBOUND__AGENT)",
            id="the-member-wins",
        ),
        pytest.param(
            {"SIDECAR__ENTRY__DELEGATION_LIFE_S": "60"},
            "entry.may_call (SIDECAR__ENTRY__DELEGATION_LIFE_S)",
            id="a-made-section",
        ),
        pytest.param(
            {"SIDECAR__IDENTITY__HINT": "a", "SIDECAR__IDENTITY__SOURCE": "py-spiffe"},
            "identity.hint (SIDECAR__IDENTITY__HINT)",
            id="a-room-s-refusal",
        ),
        pytest.param({"SIDECAR__DRAIN_S": "20"}, "inbound.agent", id="another-one"),
    ],
)
def test_a_contradiction_names_the_variable_that_it_comes_from(
    environ: dict[str, str], field: str, tmp_path: Path
) -> None:
    document = example("agent")
    if environ.keys() == {"SIDECAR__DRAIN_S"}:
        document["inbound"]["agent"] = "http://10.0.0.1:80"
    found = [problem.field for problem in problems(tmp_path, document, sts=False, **environ)]
    assert field in found
    assert [one for one in found if "SIDECAR__DRAIN_S" in one] == []


def test_a_contradiction_names_the_variable_of_the_other_field_too(tmp_path: Path) -> None:
    document = {**example("agent"), "probe": {"listen": "127.0.0.1:7099"}}
    assert problems(tmp_path, document, SIDECAR__OUTBOUND__LISTEN="127.0.0.1:7098") == []
    (problem,) = problems(tmp_path, document, SIDECAR__OUTBOUND__LISTEN="127.0.0.1:7099")
    assert str(problem).startswith("probe.listen: is the address of outbound.listen (SIDECAR__OUTBOUND__LISTEN)")


def test_a_section_at_fault_names_all_its_variables(tmp_path: Path) -> None:
    without = {key: value for key, value in example("agent").items() if key not in {"exchange", "outbound"}}
    without["inbound"]["routes"][0]["may_call"] = []
    environ = {"SIDECAR__ENTRY__MAY_CALL": "[]", "SIDECAR__ENTRY__DELEGATION_LIFE_S": "60"}
    found = {problem.field for problem in problems(tmp_path, without, sts=False, **environ)}
    assert "entry (SIDECAR__ENTRY__DELEGATION_LIFE_S, SIDECAR__ENTRY__MAY_CALL)" in found


def test_what_a_platform_forbids_names_the_variable_that_asks_for_it(tmp_path: Path) -> None:
    environ = {"SIDECAR__INBOUND__PLAIN": "{listen: '127.0.0.1:7088', until: '2026-01-01'}"}
    found = check(EXAMPLES / "agent.yaml", environ, platform=EXAMPLES / "platform.yaml").problems
    assert {one.field for one in found if one.field.startswith("inbound.plain")} == {
        "inbound.plain (SIDECAR__INBOUND__PLAIN)"
    }
