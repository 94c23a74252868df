"""``sidecar status --wait-deny`` says "in force" only when every process has just this file's list."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import main
from tests.status.documents import status
from tests.status.socket import serving

LIST = b'{"deny": [{"jti": "bad"}]}'
OURS, OTHER = hashlib.sha256(LIST).hexdigest(), "b" * 64
FILE = {"file": "/d", "rows": 1, "in_force_at": 1, "age_s": 0}


def row(sha256: str | None, error: str | None = None) -> dict[str, Any]:
    return FILE | {"sha256": sha256, "error": error}


def workers(*hashes: str | None) -> list[dict[str, Any]]:
    return [{"worker": number, "deny_sha256": one} for number, one in enumerate(hashes)]


@pytest.mark.parametrize(
    ("denied", "others", "expected"),
    [
        pytest.param(row(OURS), [], 0, id="one process that has it"),
        pytest.param(row(OTHER), [], 1, id="one process with another list"),
        pytest.param(row(None, "not read yet"), [], 1, id="one process that has none"),
        pytest.param(row(OURS), workers(OURS, OURS), 0, id="all have it"),
        pytest.param(row(OURS), workers(OURS, OTHER), 1, id="one has another"),
        pytest.param(row(OURS), workers(OURS, None), 1, id="one has none, or does not answer"),
        pytest.param(row(OTHER), workers(OTHER, OTHER), 1, id="all have another"),
        pytest.param(row(OURS, "broken since"), [], 0, id="it is in force, and its file is broken since"),
        pytest.param(None, [], 2, id="no file is followed"),
    ],
)
def test_a_list_is_in_force_once_every_process_has_it(
    denied: dict[str, Any] | None, others: list[dict[str, Any]], expected: int, tmp_path: Path
) -> None:
    (file := tmp_path / "deny.json").write_bytes(LIST)
    socket = tmp_path / "admin.sock"
    document = status(("deny_file", denied)) | ({"workers": others} if others else {})
    with serving(socket, document):
        words = ["status", "--socket", str(socket), "--wait-deny", str(file), "--wait", "0"]
        assert main(words) == expected


def test_rows_that_match_nothing_are_named_and_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "deny.json").write_bytes(LIST)
    rows = [{"row": "actor spiffe://a.exampl/x", "wrong": "no issuer", "fix": "did you mean a.example?"}]
    words = ["status", "--socket", str(tmp_path / "admin.sock"), "--wait-deny", str(file), "--wait", "0"]
    with serving(tmp_path / "admin.sock", status(("deny_file", row(OURS))) | {"deny_unmatched": rows}):
        assert main(words) == 3
    assert "  actor spiffe://a.exampl/x: no issuer: did you mean a.example?" in capsys.readouterr().out


def test_settings_that_are_refused_for_their_deny_file_are_waited_for_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "deny.json").write_bytes(LIST)
    problem = {"field": "deny_file", "wrong": "/d: it cannot be read", "fix": "c"}
    words = ["status", "--socket", str(tmp_path / "admin.sock"), "--wait-deny", str(file), "--wait", "0"]
    with serving(tmp_path / "admin.sock", status(("deny_file", None), ("settings.problems", [problem]))):
        assert main(words) == 1
    assert "/d: it cannot be read" in capsys.readouterr().out
