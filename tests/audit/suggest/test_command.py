import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from delegation_audit.command import main
from tests.audit.evidence import CRM, FRONT, PLANNER, WRITER, record

DELEGATED: dict[str, Any] = {
    "event": "request", "run": "r", "seq": 1, "decision": "allow", "reason": "ok", "direction": "inbound",
    "workload": CRM, "peer": WRITER, "subject": "alice", "actor": WRITER, "chain": [WRITER], "method": "GET",
    "path": "/customers", "scope_needed": ["crm.read"],
}  # fmt: skip


def written(path: Path, *changes: dict[str, Any], day: str = "2026-11-23") -> str:
    lines = (json.dumps(record(**{"ts": f"{day}T10:00:00.000000Z", **DELEGATED, **one})) for one in changes)
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_routes_are_proposed_from_a_folder_one_document_for_each_workload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a.jsonl", {}, {}, {"peer": PLANNER}, {"workload": PLANNER})
    written(tmp_path / "b.jsonl", {}, {"peer": PLANNER}, {"peer": PLANNER}, day="2026-11-24")
    assert main(["suggest", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    planner, crm = yaml.safe_load_all(text)
    assert planner == {"inbound": {"routes": []}}
    assert [route["peers"] for route in crm["inbound"]["routes"]] == [[PLANNER, WRITER]]
    assert "from 7 calls, 2026-11-23 to 2026-11-24." in text
    assert main(["suggest", str(tmp_path), "--workload", CRM]) == 0
    assert "from 6 calls" in capsys.readouterr().out


def test_the_records_of_others_tell_the_scopes_of_a_workload_s_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def calls(day: str, name: str) -> str:
        hops = ((FRONT, PLANNER), (PLANNER, WRITER))
        sides: list[dict[str, Any]] = []
        for number, (caller, callee) in enumerate(hops * 2):
            call_id = f"{day}/{number}"
            common: dict[str, Any] = {
                "decision": "observed_deny",
                "reason": "no_token",
                "chain": None,
                "scope_needed": [],
            }
            sides.append({**common, "workload": callee, "peer": caller, "call_in": call_id})
            outward = {"workload": caller, "peer": callee, "direction": "outbound", "route": "next"}
            sides.append({**common, **outward, "path": "/next/customers", "call_out": call_id})
        return written(tmp_path / name, *sides, day=day)

    files = [calls("2026-11-23", "a.jsonl"), calls("2026-11-24", "b.jsonl")]
    assert main(["suggest", *files, "--workload", FRONT]) == 0
    text = capsys.readouterr().out
    assert "from 4 calls" in text
    assert [route["scopes"] for route in yaml.safe_load(text)["outbound"]["routes"]] == [
        ["planner.read", "writer.read"]
    ]
    onward = """# ["writer.read"] for the peer's own calls; records do not show which of them it causes"""
    assert f"    {onward}\n    - name:" in text
    assert main(["suggest", "--json", *files, "--workload", FRONT]) == 0
    ((route,),) = (one["outbound"] for one in json.loads(capsys.readouterr().out)["workloads"])
    assert (route["scopes"], route["scopes_onward"]) == (["planner.read"], ["writer.read"])


def test_machines_get_the_same_with_what_was_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path / "a.jsonl", {}, {"decision": "deny"}, {"event": "started"})
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text() + "no record\n")
    assert main(["suggest", "--json", file]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["calls"], document["first_day"]) == (1, "2026-11-23")
    assert document["not_counted"] == {"no record": 1, "not a request": 1, "refused": 1}
    ((route,),) = (one["inbound"] for one in document["workloads"])
    assert (route["path"], route["held_back"], route["peers"][0]["calls"]) == ("/customers", "seen 1 time", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"decision": "deny"}, "no record is of a call that passed", id="refused"),
        pytest.param({"event": "started"}, "no record is of a call that passed", id="no-request"),
    ],
)
def test_without_an_observed_call_there_is_nothing_to_propose(
    change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["suggest", written(tmp_path / "a.jsonl", change)]) == 2
    assert said in capsys.readouterr().err
    assert main(["suggest", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
