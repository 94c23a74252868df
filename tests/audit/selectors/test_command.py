from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from delegation_audit.command import main
from tests.audit.sarif_document import results_of
from tests.audit.selectors.labelled import BY_ACCOUNT, WRITER, Shown, in_pod, template
from tests.audit.selectors.test_actors import records

ACME = "spiffe://acme.example"


def run(folder: Path, *entries: Shown, words: tuple[str, ...] = ()) -> int:
    file = folder / "entries.json"
    file.write_text(json.dumps({"entries": list(entries)}))
    return main(["selectors", str(file), *words])


def test_lawful_entries_are_graded_and_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, in_pod(WRITER)) == 0
    out, err = capsys.readouterr()
    assert " ".join(out.splitlines()[1].split()) == (
        "spiffe://acme.example/agent/writer strong the image by digest, and the namespace"
    )
    assert out.splitlines()[-2:] == [
        "0 of 1 identity is attested weakly; 0 weaknesses in 1 entry.",
        "nothing found",
    ]
    assert err == ""


def test_a_weakness_is_shown_with_its_reason_place_fix_and_standard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, in_pod(WRITER, admin=True, id="5f0c")) == 1
    out = capsys.readouterr().out
    assert "critical: agent-admin (1): An agent is admin of the SPIRE server" in out
    assert "entries.json:1: spiffe://acme.example/agent/writer: admin is set" in out
    assert "      spire-server entry update -entryID 5f0c " in out
    assert "see SPIRE: spire_server" in out
    assert "run it once" in out
    assert run(tmp_path, in_pod(WRITER, admin=False)) == 0


def test_an_object_is_named_where_a_template_would_not_tell_it_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, template("agents", spiffeIDTemplate=BY_ACCOUNT)) == 1
    assert "entries.json:1, ClusterSPIFFEID agents: spiffe://{{ .TrustDomain }}/ns/" in capsys.readouterr().out


def test_a_manifest_has_no_command_to_warn_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, template("agents", spiffeIDTemplate=BY_ACCOUNT)) == 1
    assert "run it once" not in capsys.readouterr().out


def test_json_has_every_member(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, in_pod(WRITER, admin=True), words=("--json",)) == 1
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["entries"] == 1
    assert document["identities"] == [
        {
            "spiffe_id": "spiffe://acme.example/agent/writer",
            "grade": "strong",
            "reason": "the image by digest, and the namespace",
        }
    ]
    [one] = document["weaknesses"]
    assert (one["rule"], one["severity"], one["confidence"], one["line"]) == ("agent-admin", "critical", "high", 1)
    assert set(one) == {
        "rule",
        "severity",
        "confidence",
        "text",
        "file",
        "line",
        "object",
        "why",
        "fix",
        "cure",
        "standard",
        "fingerprint",
        "facts",
    }
    assert document["actors"] == []


def test_sarif_is_lawful(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, in_pod(WRITER, admin=True), words=("--sarif",)) == 1
    [result] = results_of(json.loads(capsys.readouterr().out))
    assert (result["ruleId"], result["level"]) == ("agent-admin", "error")


def test_an_ignored_rule_passes_and_an_unknown_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = in_pod(WRITER, admin=True)
    assert run(tmp_path, weak, words=("--ignore", "agent-admin")) == 0
    assert run(tmp_path, weak, words=("--ignore", "admin")) == 2
    assert "--ignore: admin is not a rule; the rules are no-selectors" in capsys.readouterr().err


def test_actors_of_records_are_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, in_pod(WRITER), words=("--records", *records(tmp_path))) == 1
    out = capsys.readouterr().out
    assert "actor-without-entry" in out
    [hop] = [line for line in out.splitlines() if line.split()[:2] == [f"{ACME}/agent/writer", f"{ACME}/tool/crm"]]
    assert hop.split()[2:4] == ["1", "strong"]


def test_entries_come_from_standard_input_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(in_pod(WRITER)).encode())))
    assert main(["selectors", "-"]) == 0
    assert "strong" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "a: 1\n", '{"entries":[]}'])
def test_no_entry_is_not_the_same_as_no_weakness(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    assert main(["selectors", str(file)]) == 2
    assert "no entry in any of the paths" in capsys.readouterr().err


def test_unusable_input_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selectors", str(tmp_path / "absent.json")]) == 2
    assert "absent.json" in capsys.readouterr().err
    (tmp_path / "a.json").write_text('{"spiffe_id"')
    assert main(["selectors", str(tmp_path / "a.json")]) == 2
    assert "no entry can be read" in capsys.readouterr().err
    assert run(tmp_path, in_pod(WRITER), words=("--agents", "absent")) == 2
    assert "--agents absent: neither a file nor a pattern" in capsys.readouterr().err


def test_nothing_in_an_entry_acts_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = in_pod(WRITER, "k8s:pod-label:a:\x1b[2J\u202e\n", id="\x1b]0;x\x07", hint="\x9b", admin=True)
    assert run(tmp_path, hostile) == 1
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_a_long_list_is_cut_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [in_pod(f"/agent/{number}", account=f"a{number}", admin=True) for number in range(50)]
    assert run(tmp_path, *entries) == 1
    out = capsys.readouterr().out
    assert "agent-admin (50)" in out
    assert "and 30 more; --json has them all" in out
    assert "and 10 more identities" in out
