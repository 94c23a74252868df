import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from tests.audit.evidence import CRM, WRITER, record
from tests.audit.suggest.observed import MONDAY, TUESDAY, merged

RECORDED = Path(__file__).parents[1] / "audit" / "recorded"
RECORDS, SETTINGS = str(RECORDED / "writer.records"), str(RECORDED / "writer.yaml")
OBSERVED: dict[str, Any] = {
    "event": "request", "run": "r", "seq": 1, "decision": "observed_deny", "reason": "no_token",
    "direction": "inbound", "workload": CRM, "peer": WRITER, "method": "GET",
    "path": "/customers", "route": "everything", "scope_needed": [],
}  # fmt: skip


def written(path: Path, *changes: dict[str, Any]) -> str:
    """Write each call three times, on two days, each with an id of its own."""
    lines = (
        json.dumps(record(ts=f"{day}T10:00:00.000000Z", call_in=f"{at}/{n}", **OBSERVED | one))
        for at, one in enumerate(changes)
        for n, day in enumerate((MONDAY, TUESDAY, TUESDAY))
    )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def callers(path: Path, records: str) -> str:
    """Write what the callers' own sidecars record of these calls."""
    sides = []
    for one in map(json.loads, Path(records).read_text().splitlines()):
        ends = {"workload": one["peer"], "peer": one["workload"], "direction": "outbound", "route": "crm"}
        sides.append(json.dumps({**one, **ends, "call_in": None, "call_out": one["call_in"]}))
    path.write_text("\n".join(sides) + "\n")
    return str(path)


def narrowed(folder: Path) -> str:
    path = folder / "narrow.yaml"
    path.write_text((RECORDED / "writer.yaml").read_text().replace("agent/planner", "agent/other"))
    return str(path)


def test_the_settings_in_force_decide_nothing_differently(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "replay", RECORDS, "--settings", SETTINGS]) == 0
    out = capsys.readouterr().out
    assert "decided differently: 0" in out
    assert "What this cannot prove:" in out


def test_what_other_settings_would_refuse_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["audit", "replay", RECORDS, "--settings", narrowed(tmp_path)]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    assert "deny policy_denied  2" in out
    assert "decided differently: 2" in out
    assert main([*arguments, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    ((change),) = document["changes"]
    assert (document["judged"], document["different"], document["not_records"]) == (5, 2, 0)
    assert (change["old"], change["new"], change["count"]) == ("allow", "deny policy_denied", 2)


def test_records_of_several_workloads_need_the_name_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "replay", str(RECORDED), "--settings", SETTINGS]) == 2
    assert "say by --workload whose settings these are" in capsys.readouterr().err
    assert main(["audit", "replay", str(RECORDED), "--settings", SETTINGS, "--workload", WRITER]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["none", "--settings", SETTINGS], "No such file", id="no-records"),
        pytest.param([RECORDS, "--settings", RECORDS], "the settings cannot be used", id="no-settings"),
        pytest.param([SETTINGS, "--settings", SETTINGS], "no line is the record of a request", id="no-record"),
        pytest.param(
            [RECORDS, "--settings", SETTINGS, "--workload", "spiffe://acme.example/x"],
            "of a request of spiffe://acme.example/x", id="no-such-workload",
        ),
        pytest.param(
            [RECORDS, "--settings", SETTINGS, "--platform", "none"], "the settings cannot be used", id="platform"
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_a_usage_error(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECORDED)
    assert main(["audit", "replay", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_record_without_a_workload_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "replay", written(tmp_path / "r.jsonl", {"workload": None}), "--settings", SETTINGS]) == 2
    assert "r.jsonl:1: the record names no workload" in capsys.readouterr().err


def test_if_nothing_can_be_judged_there_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = written(tmp_path / "r.jsonl", {"decision": None, "workload": WRITER})
    assert main(["audit", "replay", records, "--settings", SETTINGS]) == 2
    assert "no record could be judged: there was no decision yet" in capsys.readouterr().err


def test_a_denial_by_a_deny_file_that_is_not_here_is_counted_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in Path(RECORDS).read_text().splitlines()]
    lawful = next(one for one in lines if one["decision"] == "allow" and one.get("direction") == "inbound")
    denied = {**lawful, "decision": "deny", "reason": "policy_denied", "detail": "the subject is on the deny list"}
    records, settings, rows = tmp_path / "r.jsonl", tmp_path / "new.yaml", tmp_path / "deny.json"
    records.write_text(f"{json.dumps(lawful)}\n{json.dumps({**denied, 'request_id': 'denied'})}\n")
    settings.write_text(f"{Path(SETTINGS).read_text()}\ndeny_file: {rows}\n")
    replay = ["audit", "replay", str(records), "--settings", str(settings)]
    explain = ["explain", str(records), "--config", str(settings), "--request", "denied"]
    assert main(replay) == 0
    out = capsys.readouterr().out
    assert f"not judged: 1: {rows} is the deny file of these settings, and is not here" in out
    assert "decided differently: 0" in out
    assert main(explain) == 0
    assert "not judged again: " in capsys.readouterr().out
    rows.write_text('{"deny": []}')
    assert (main(replay), main(explain)) == (1, 1)
    rows.write_text(json.dumps({"deny": [{"subject": lawful["subject"]}]}))
    assert main(explain) == 0
    assert "judged again: the same, decided by: deny list" in capsys.readouterr().out


def test_suggested_settings_let_every_observed_call_pass_once_it_is_delegated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lawful: list[dict[str, Any]] = [
        {},
        {"method": "POST"},
        {"path": "/orders/1"},
        {"path": "/orders/2"},
        {"scope_needed": ["crm.admin"], "path": "/a"},
    ]
    records = written(tmp_path / "observed.jsonl", *lawful)
    assert main(["audit", "suggest", records]) == 1  # no caller is proven by another side
    suggest = ["audit", "suggest", records, callers(tmp_path / "callers.jsonl", records), "--workload", CRM]
    capsys.readouterr()
    assert main(suggest) == 0
    replay = ["--settings", str(merged(tmp_path, capsys.readouterr().out))]
    assert main(["audit", "replay", records, *replay, "--delegated"]) == 0
    assert main(["audit", "replay", records, *replay]) == 1  # without a token they will be refused
    capsys.readouterr()
    changes: list[dict[str, Any]] = [{"peer": "spiffe://acme.example/agent/x"}, {"method": "PUT"}, {"path": "/b"}]
    for change in changes:
        other = written(tmp_path / "other.jsonl", change)
        assert main(["audit", "replay", other, *replay, "--delegated", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["different"] == 3
