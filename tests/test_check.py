from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.cli import main

GOOD = Path(__file__).parent.parent / "config" / "agent.yaml"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("inbound: {agent: 'http://10.0.0.1:80', routes: []}\nnonsense: 1\n")
    return path


def test_settings_that_can_be_used_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(GOOD)]) == 0
    assert capsys.readouterr().out == f"{GOOD}: fine (settings of a sidecar)\n"


def test_every_problem_is_told_at_once_with_field_and_fix(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bad)]) == 2
    told = capsys.readouterr().err
    for field in ("nonsense", "inbound.agent", "identity.workload_api"):
        assert f"  {field}: " in told
    assert told.count("fix: ") >= 3


def test_machines_get_the_same_as_json(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", str(bad)]) == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {"nonsense", "inbound.agent"} <= {problem["field"] for problem in problems}
    assert all(problem["wrong"] and problem["fix"] == problem["cure"] for problem in problems)


def test_a_file_that_is_not_there_is_a_problem_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_a_token_services_settings_are_checked_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--sts", str(GOOD)]) == 2
    assert "is not a setting" in capsys.readouterr().err


def test_a_route_that_needs_no_scope_is_noted_and_the_file_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(GOOD.read_text().replace("scopes: [docs.read]\n", "scopes: []\n"))
    assert main(["check", str(path)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{path}: fine, 1 note (settings of a sidecar)\n"
    assert "inbound.routes[0].scopes: is empty" in told.err
    assert main(["check", "--json", str(path)]) == 0
    assert [note["field"] for note in json.loads(capsys.readouterr().out)["notes"]] == ["inbound.routes[0].scopes"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param('[{"actor": "spiffe://acme.example/agent/planner"}]', None, id="a list"),
        pytest.param("[]", None, id="nobody"),
        pytest.param('[{"actr": "spiffe://acme.example/x"}]', "did you mean actor?", id="an unknown member"),
        pytest.param('[{"actor": "spiffe://ACME.example/x"}]', "is 1 to 255 characters of a-z", id="another case"),
        pytest.param(
            '[{"actor": "spiffe://acme.example/x/"}]', "a path segment is one or more", id="a slash at its end"
        ),
        pytest.param(
            '[{"jti": "a"}, {"jti": ""}]', "a member of deny[1] is not 1 to 2048 printable", id="the second row"
        ),
    ],
)
def test_a_deny_file_is_checked_as_one(
    rows: str, told: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "deny.json").write_text(f'{{"deny": {rows}}}')
    assert main(["check", str(path)]) == (2 if told else 0)
    printed = capsys.readouterr()
    if told is None:
        assert printed.out == f"{path}: fine (deny file)\n"
    else:
        assert told in printed.err
