import json
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.explain.policy_command import page
from sidecar.explain.policy_rows import Row
from tests.explain.test_sts_command import ACME, LOGIN, settings

CRM = f"{ACME}/tool/crm"


def shown(path: Path, *arguments: str) -> int:
    return main(["sts", "policy", "--settings", settings(path / "sts.yaml"), *arguments])


def test_the_table_answers_who_may_act_for_whom_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(tmp_path) == 0
    out = capsys.readouterr().out
    assert f"{ACME}/agent/front" in out
    assert f"a login at {LOGIN}, 300 s at most" in out
    assert "nothing: it never applies" in out  # nobody gives writer a token
    assert "2 rules, of which 1 never apply" in out
    assert "Anything not listed is denied" in out


def test_the_same_for_machines_and_for_one_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(tmp_path, "--audience", CRM, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["issuer"] == "https://sts.acme.example"
    assert [(one["rule"], one["actor"], one["scopes"], one["ways"]) for one in document["rows"]] == [
        ("rules[1]", f"{ACME}/agent/writer", ["crm.read"], [])
    ]
    assert shown(tmp_path, "--actor", CRM) == 1
    assert "0 rules" in capsys.readouterr().out


def test_the_page_is_one_file_with_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.html"
    assert shown(tmp_path, "--subject", "alice", "--html", str(path)) == 0
    text = path.read_text()
    assert "chosen by subject alice" in text
    assert "Rules that never apply" in text
    assert 'id="rules[1]"' in text
    assert "default-src &#39;none&#39;" in text
    assert "<script" not in text
    assert "http-equiv" in text
    assert shown(tmp_path, "--html", str(tmp_path / "none" / "x.html")) == 2
    assert "No such file" in capsys.readouterr().err


def test_names_in_the_settings_are_escaped() -> None:
    row = Row(
        rule="rules[0]",
        actor="<b>",
        subjects="<i>",
        audience="a\u202eb",
        workload="w",
        scopes=("s",),
        bound=True,
        ways=(),
    )
    text = page("https://x", [row], choice="", now=0)
    assert "<b>" not in text
    assert "<i>" not in text
    assert "\u202e" not in text


def test_settings_that_cannot_be_used_are_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sts", "policy", "--settings", str(tmp_path / "absent")]) == 2
    assert "the settings cannot be used" in capsys.readouterr().err
