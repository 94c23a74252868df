import os
from pathlib import Path
from typing import Any

import pytest

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
        pytest.param("SIDECAR__B__C__D", "1", "points into a value that has no members", id="into-a-text"),
        pytest.param("SIDECAR__", "1", "names no setting", id="nothing"),
        pytest.param("SIDECAR__B____C", "1", "names no setting", id="empty-part"),
        pytest.param("SIDECAR__b", "1", "names no setting", id="lower-case"),
        pytest.param("SIDECAR__B", "[1", "is not valid YAML", id="broken-value"),
        pytest.param("SIDECAR__B", "*x", "anchors and aliases are not read", id="alias"),
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
    assert problem.cure == "did you mean listen?"


def test_the_value_of_a_variable_is_never_quoted(tmp_path: Path) -> None:
    found = problems(tmp_path, example("agent"), SIDECAR__INBOUND__AGENT="hunter2", SIDECAR__DRAIN_S="hunter2")
    assert len(found) == 2
    assert "hunter2" not in "".join(map(str, found))


def test_the_socket_of_the_workload_api_may_come_from_its_own_variable(tmp_path: Path) -> None:
    without = {**example("agent"), "identity": {}}
    (problem,) = problems(tmp_path, without)
    assert problem.field == "identity.workload_api"
    assert problems(tmp_path, without, SPIFFE_ENDPOINT_SOCKET="unix:///run/agent.sock") == []
    assert [p.field for p in problems(tmp_path, without, SPIFFE_ENDPOINT_SOCKET="/run/agent.sock")] == ["identity"]
