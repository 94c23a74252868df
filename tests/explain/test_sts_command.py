import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from tests.explain.exchanges import members
from tests.fakes.sts import Mesh, small_policy

ACME = "spiffe://acme.example"
LOGIN = "https://login.acme.example"
USERS = [{"issuer": LOGIN, "subject": "*"}]


def rule(actor: str, audience: str, scopes: list[str]) -> dict[str, Any]:
    return {"actor": f"{ACME}/{actor}", "subjects": USERS, "audience": f"{ACME}/{audience}", "scopes": scopes}


def settings(path: Path, *, writers_scopes: tuple[str, ...] = ("crm.read",)) -> str:
    """Write settings with the rules of the small world in the fakes."""
    document = {
        "issuer": "https://sts.acme.example",
        "identity": {"workload_api": "unix:///run/api.sock"},
        "keys": {"directory": "/keys"},
        "login_issuers": [
            {
                "issuer": LOGIN,
                "jwks": f"{LOGIN}/keys",
                "tls": {"ca": "/ca.pem"},
                "profile": "oidc-id-token",
                "scope_from": {"claim": "groups", "map": {"staff": ["docs.read", "crm.read"]}},
            }
        ],
        "entries": [{"workload": f"{ACME}/agent/front", "client_ids": {LOGIN: "front-app"}}],
        "targets": [
            {"workload": f"{ACME}/agent/planner", "scopes": ["docs.read", "crm.read"]},
            {"workload": f"{ACME}/agent/writer", "scopes": ["docs.read", "crm.read"]},
            {"workload": f"{ACME}/tool/crm", "scopes": ["crm.read", "crm.write"]},
        ],
        "rules": [
            rule("agent/front", "agent/planner", ["docs.read", "crm.read"]),
            rule("agent/writer", "tool/crm", list(writers_scopes)),
        ],
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.fixture
async def records(tmp_path: Path) -> str:
    """Return a file with three exchanges: two that were allowed, one refused."""
    mesh = Mesh(policy=small_policy())
    lines: list[dict[str, Any]] = [
        await members(mesh, mesh.exchange_form()),
        await members(mesh, mesh.exchange_form()),
        await members(mesh, mesh.exchange_form(scope="crm.write")),
    ]
    path = tmp_path / "sts.jsonl"
    path.write_text(
        "".join(json.dumps({**one, "request_id": f"id{number}"}) + "\n" for number, one in enumerate(lines)) + "torn"
    )
    return str(path)


def explained(*arguments: str) -> int:
    return main(["sts", "explain", *arguments])


def test_one_exchange_is_explained_check_by_check(
    records: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(records, "--request", "id0", "--settings", settings(tmp_path / "sts.yaml")) == 0
    out = capsys.readouterr().out
    assert "judged again: the same" in out
    assert "rules[1] with crm.read" in out
    assert explained(records, "--request", "id2", "--settings", settings(tmp_path / "sts.yaml"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["judged"], document["decided_by"], document["agrees"]) == ("scope_refused", "scopes", True)
    assert document["guidance"]["who"]


def test_of_many_the_differences_are_counted_by_kind(
    records: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(records, "--settings", settings(tmp_path / "same.yaml")) == 0
    assert "judged again: 3 exchanges; of these the record's word decides 0" in capsys.readouterr().out
    wider = settings(tmp_path / "wider.yaml", writers_scopes=("crm.write",))
    assert explained(records, "--settings", wider, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["judged"], document["different"]) == (3, 2)
    assert [(one["old"], one["new"], one["count"], one["example"]) for one in document["changes"]] == [
        ("allow crm.read", "deny scope_refused", 2, "r/1"),
    ]
    assert explained(records, "--settings", wider) == 1
    assert "decided differently: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--request", "nope"], "no such record", id="no such request"),
        pytest.param(["--settings", "absent"], "the settings cannot be used", id="no settings"),
    ],
)
def test_what_cannot_be_explained_is_a_usage_error(
    arguments: list[str], said: str, records: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explained(records, "--settings", settings(tmp_path / "sts.yaml"), *arguments) == 2
    assert said in capsys.readouterr().err


def test_two_records_of_one_request_are_no_evidence(
    records: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forged.jsonl"
    path.write_text(Path(records).read_text().replace('"id1"', '"id0"'))
    assert explained(str(path), "--request", "id0", "--settings", settings(tmp_path / "sts.yaml")) == 2
    assert "more than one record with this request id" in capsys.readouterr().err
