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
        pytest.param(["writer.records"], "more than one record", id="which-one"),
        pytest.param(["writer.records", "--request", "nope"], "no such record", id="no-such-request"),
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
    assert main(["explain", str(tmp_path / "two")]) == 2
    assert "more than one record; name one by --request" in capsys.readouterr().err


def test_a_record_is_found_among_files_and_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [str(RECORDED / "crm.records"), str(RECORDED / "writer.records")]
    for files in (both, [str(RECORDED)], [str(RECORDED / "*.records")]):
        assert main(["explain", *files, "--request", STOLEN, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["event"].startswith("request")
    assert main(["explain", both[0], "--request", STOLEN]) == 2
    assert "there is no such record" in capsys.readouterr().err
