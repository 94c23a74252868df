"""Files are known by their first lines, whatever their names; a file of another kind is none of these."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from delegation_audit.all.find import Found, find
from delegation_core.records import folders
from sidecar.sts.keys import KeyRing, SigningKey
from tests.audit.ratio.evidence import record

ACCESS = '10.0.7.1 - alice [24/Nov/2026:21:04:10 +0000] "GET /customers/1 HTTP/1.1" 200 512 "-" "bot/2.1"\n'
RECORDS = "".join(json.dumps(record(number, "alice", "front", "planner")) + "\n" for number in range(1, 4))


def look(tmp_path: Path, **files: str | bytes) -> Found:
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return find([str(tmp_path)])


def test_records_and_logs_are_told_apart(tmp_path: Path) -> None:
    found = look(
        tmp_path, a__access=ACCESS * 3, b__audit_dot_log=RECORDS, b__old_dot_gz=gzip.compress(RECORDS.encode())
    )
    assert found.logs == [str(tmp_path / "a/access")]
    assert found.records == [str(tmp_path / "b/audit.log"), str(tmp_path / "b/old.gz")]
    assert found.sentence == "3 files: 2 files of records, 1 log"


def test_people_keys_and_agents_are_found(tmp_path: Path) -> None:
    found = look(
        tmp_path,
        users_dot_csv="sub,active\nalice,true\n",
        jwks_dot_json=KeyRing(SigningKey.generate()).jwks(),
        agents_dot_txt="spiffe://acme.example/agent/front\n",
    )
    assert found.directories == [str(tmp_path / "users.csv")]
    assert found.keys == [str(tmp_path / "jwks.json")]
    assert found.agents == str(tmp_path / "agents.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users_dot_csv", "nothing\n"),
        ("users_dot_json", "[1]"),
        ("keys_dot_json", '{"keys":[]}'),
        ("settings_dot_json", '{"mcpServers":{}}'),
        ("deploy_dot_yaml", "kind: Deployment\n"),
        ("notes", "some words\nand others\n"),
        ("half", RECORDS + "x\n" * 9),
        ("binary", b"\x00\xff" * 100),
        ("broken_dot_gz", b"no gzip"),
        ("empty", ""),
    ],
)
def test_what_is_none_of_these_is_only_counted(tmp_path: Path, name: str, content: str | bytes) -> None:
    found = look(tmp_path, **{name: content})
    assert found == Found(files=1)


def test_folders_of_programs_and_links_are_left_out(tmp_path: Path) -> None:
    found = look(tmp_path, node_modules__access=ACCESS, _dot_git__access=ACCESS, here=ACCESS)
    assert found.logs == [str(tmp_path / "here")]
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert find([str(tmp_path)]) == found


def test_a_folder_beyond_all_bounds_is_refused_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_FILES", 1)
    with pytest.raises(OSError, match="more than 1 files; name the folders"):
        look(tmp_path, a="x", b="x")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        find([str(tmp_path / "nowhere")])
