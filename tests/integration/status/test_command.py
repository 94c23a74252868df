"""The command against a real admin socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sidecar.cli import main
from sidecar.proxy.listening.status_merge import merge_status
from tests.status.documents import NOW, status
from tests.status.socket import serving

pytestmark = pytest.mark.integration

ROW = {
    "request_id": "q1",
    "direction": "inbound",
    "since": NOW - 61,
    "verified": False,
    "peer": None,
    "subject": "alice\x1b[2J",
    "actor": None,
    "chain": ["spiffe://acme.example/a", "spiffe://acme.example/b"],
    "route": None,
}
CHAINS = {"being_served": 1, "chains": [ROW]}


def test_a_sidecar_that_is_well_is_shown_in_a_plain_table(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status(("refused", {"no_token": 3}))):
        assert main(["status", "--socket", str(path)]) == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "ready, sidecar 1, run r, up 2 h 1 min"
    assert "identity ready, spiffe://acme.example/agent/writer" in lines
    assert "SVID generation 2, ends in 1 h" in lines
    assert "issuer https://sts.acme.example, keys 1 min old" in lines
    assert "inbound listener 0.0.0.0:7443, 1 of 100" in lines
    assert any(line.startswith("no_token 3 ") for line in lines)
    assert "fix" not in out
    assert err == ""
    assert "\x1b" not in out


LOGINS = {"pending": 3, "max_pending": 4096, "pending_bytes": 8200, "max_bytes": 16 << 20}


@pytest.mark.parametrize("logins", [LOGINS, None])
def test_pending_logins_are_counted_where_users_log_in(
    logins: dict[str, int] | None, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(path, status(("logins", logins))):
        assert main(["status", "--socket", str(path)]) == 0
        out = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert ("user logins 3 of 4096 pending, 9 of 16384 KiB" in out) == (logins is not None)
        assert any("user logins" in line for line in out) == (logins is not None)
        assert main(["status", "--json", "--socket", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["logins"] == logins


def test_several_workers_are_shown_as_one_sidecar(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = merge_status({0: status(), 1: None}, since=NOW - 60, now=NOW, restarts=2, stopping=False)
    with serving(path, document):
        assert main(["status", "--socket", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NOT READY, sidecar 1, run of several workers, up 1 min")
    assert "1 of 2 ready, 2 replaced since the start" in out
    assert "worker 1: does not answer" in out


def test_what_is_wrong_is_told_in_words_with_its_fix(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = status(("ready", False), ("identity.state", "denied"), ("identity.spiffe_id", None))
    with serving(path, {**document, "missing": ["identity: denied"]}):
        assert main(["status", "--socket", str(path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("NOT READY")
    assert "WRONG: identity: this workload has no registration entry" in out
    assert "  fix: create or fix the entry" in out


def test_what_was_refused_is_told_with_its_meaning_and_where_the_fixes_are(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(path, status(("refused", {"unknown_key": 3}))):
        assert main(["status", "--socket", str(path)]) == 0
    out = capsys.readouterr().out
    assert "docs/reasons.md" in out
    assert "unknown_key  3      the issuer's key set does not have this key" in out


def test_for_machines_it_is_the_document_with_the_troubles(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status(("records.lost", 2))):
        assert main(["status", "--socket", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["identity"]["generation"] == 2
    (trouble,) = told["troubles"]
    assert trouble["grade"] == "note"
    assert trouble["fix"] == trouble["cure"] != ""


def test_what_is_served_now_is_shown_and_acts_on_no_terminal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, status(), CHAINS):
        assert main(["status", "--socket", str(path), "--chains"]) == 0
    out = capsys.readouterr().out
    assert "q1" in out
    assert "alice\\u{1b}[2J (unverified)" in out
    assert "spiffe://acme.example/a ← spiffe://acme.example/b" in out


@pytest.mark.parametrize(("ready", "code"), [(True, 3), (False, 1)])
def test_refused_settings_show_in_the_exit_code(path: Path, ready: bool, code: int) -> None:
    document = status(("ready", ready), ("settings.refused_at", NOW - 5))
    with serving(path, document):
        assert main(["status", "--socket", str(path)]) == code
    with serving(path, status()):
        assert main(["status", "--socket", str(path)]) == 0


def test_without_a_socket_the_exit_code_is_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--socket", str(path)]) == 2
    assert "does not exist: set admin.socket" in capsys.readouterr().err
