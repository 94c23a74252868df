import json
from pathlib import Path

import pytest

from sidecar.cli import main

RECORDED = Path(__file__).parents[1] / "audit" / "recorded"
STOLEN = "a03f2de7f96414f475d58f435b83cdeb"


@pytest.mark.parametrize("workload", ["writer", "crm", "front"])
def test_every_recorded_request_of_the_demo_is_judged_as_it_was(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (RECORDED / f"{workload}.records").read_text().splitlines():
        (tmp_path / "one").write_text(line)
        assert main(["explain", str(tmp_path / "one"), "--config", str(RECORDED / f"{workload}.yaml"), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        if document["event"] == "request":
            recorded = document["recorded"]
            assert document["judged"] == ("ok" if recorded["decision"] == "allow" else recorded["reason"])


def test_a_request_is_picked_by_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", str(RECORDED / "writer.records"), "--config", str(RECORDED / "writer.yaml")]
    assert main([*arguments, "--request", STOLEN]) == 0
    out = capsys.readouterr().out
    assert "judged again: the same, decided by: actor is the peer" in out
    assert "who must act: security" in out
    assert "What this cannot prove:" in out


def test_settings_that_say_otherwise_are_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "sidecar.yaml"
    settings.write_text((RECORDED / "writer.yaml").read_text().replace("agent/planner", "agent/other"))
    arguments = ["explain", str(RECORDED / "writer.records"), "--config", str(settings)]
    assert main([*arguments, "--request", "59f98de2b75601501126ddfa8c234ab8"]) == 1
    assert "judged again: deny policy_denied, decided by: route's peers" in capsys.readouterr().out


def test_without_settings_the_reason_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(RECORDED / "writer.records"), "--request", STOLEN]) == 0
    assert "not judged again: there are no settings to judge by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["writer.records", "--request", "nope"], "there is no request nope", id="no-such-request"),
        pytest.param(["absent"], "No such file", id="no-file"),
        pytest.param(["writer.yaml"], "writer.yaml:1: the document is not JSON", id="no-record"),
        pytest.param(["writer.records", "--request", STOLEN, "--config", "absent"], "cannot be used", id="no-settings"),
    ],
)
def test_what_cannot_be_explained_is_a_usage_error(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(RECORDED)
    assert main(["explain", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_closing_record_is_explained_where_the_request_was_opened_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closing = json.loads((RECORDED / "writer.records").read_text().splitlines()[5])
    opened = {**closing, "event": "request.opened", "seq": 1}
    for order in ([opened, closing], [closing, opened]):
        (tmp_path / "two").write_text("\n".join(map(json.dumps, order)))
        assert main(["explain", str(tmp_path / "two"), "--request", STOLEN, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["event"] == "request"


def test_a_request_is_found_among_lines_that_are_no_records_and_beside_its_own_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (RECORDED / "writer.records").read_text()
    (tmp_path / "torn").write_text(f'{{"event":"requ\n{whole}{whole}{{"event":')
    assert main(["explain", str(tmp_path / "torn"), "--request", STOLEN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recorded"]["reason"] == "actor_mismatch"


def test_two_records_of_one_request_or_of_two_requests_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closing = json.loads((RECORDED / "writer.records").read_text().splitlines()[5])
    forged = {**closing, "decision": "allow", "reason": "ok"}
    (tmp_path / "two").write_text("\n".join(map(json.dumps, [closing, forged])))
    assert main(["explain", str(tmp_path / "two"), "--request", STOLEN]) == 2
    assert "more than one record; look for forged ones" in capsys.readouterr().err
    another = {**closing, "event": "request.opened", "request_id": "another", "seq": 1}
    (tmp_path / "two").write_text("\n".join(map(json.dumps, [another, closing])))
    assert main(["explain", str(tmp_path / "two"), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["requests"]
    assert [(one["request_id"], one["event"]) for one in listed] == [(STOLEN, "request"), ("another", "request.opened")]


def test_a_record_is_found_among_files_and_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(RECORDED / "crm.records"), str(RECORDED / "writer.records")]
    for files in (both, [str(RECORDED)], [str(RECORDED / "*.records")]):
        assert main(["explain", *files, "--request", STOLEN, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["event"].startswith("request")
    assert main(["explain", both[0], "--request", STOLEN]) == 2
    assert f"there is no request {STOLEN}" in capsys.readouterr().err


def listed(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Return the lines of the printed list without its head and its last line."""
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]


def test_without_an_id_the_requests_are_listed_refusals_first_and_the_latest_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", str(RECORDED)]) == 0
    rows = listed(capsys)
    assert [row[3] for row in rows[:4]] == ["scope_refused", "insufficient_scope", "actor_mismatch", "act_missing"]
    times = [row[0] for row in rows[4:]]
    assert times == sorted(times, reverse=True)
    assert {row[2] for row in rows[4:]} == {"allow"}
    stolen = next(row for row in rows if row[1] == STOLEN)
    assert stolen[4:] == [
        "alice", "spiffe://acme.example/agent/intruder", "inbound", "POST", "/draft",
        "spiffe://acme.example/agent/writer",
    ]  # fmt: skip


def test_an_id_that_is_unknown_lists_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", str(RECORDED / "writer.records"), "--request", "nope"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err == "sidecar explain: there is no request nope\n"
    assert out.splitlines()[1].split()[1:4] == [STOLEN, "deny", "actor_mismatch"]
    assert main([*arguments, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["requests"][0]["request_id"], len(document["requests"]), document["more"]) == (STOLEN, 5, False)


def test_a_list_of_many_requests_is_short_and_says_that_there_are_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    allowed = json.loads((RECORDED / "writer.records").read_text().splitlines()[4])
    many = [
        {**allowed, "request_id": f"r{n}", "seq": n + 1, "ts": f"2026-11-25T03:12:{n % 60:02}Z"} for n in range(5000)
    ]
    many[7] |= {"decision": "deny", "reason": "act_missing"}
    (tmp_path / "many").write_text("\n".join(map(json.dumps, many)))
    assert main(["explain", str(tmp_path / "many"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["requests"][0]["request_id"] == "r7"
    assert {one["ts"] for one in document["requests"][1:]} == {"2026-11-25T03:12:59Z"}
    assert (len(document["requests"]), document["more"]) == (20, True)
    assert main(["explain", str(tmp_path / "many")]) == 0
    assert "and more; these are refusals first" in capsys.readouterr().out


def test_standard_input_is_listed_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with (RECORDED / "writer.records").open("rb") as piped:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": piped})())
        assert main(["explain", "-"]) == 0
    assert listed(capsys)[0][1] == STOLEN


def test_records_without_a_request_are_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").write_text("")
    assert main(["explain", str(tmp_path / "none")]) == 2
    assert capsys.readouterr() == ("", "sidecar explain: there is no record\n")
    lines = (RECORDED / "writer.records").read_text().splitlines()[:2]
    (tmp_path / "two").write_text("\n".join(lines))
    assert main(["explain", str(tmp_path / "two")]) == 2
    assert capsys.readouterr() == ("", "sidecar explain: there is more than one record, and none of a request\n")
