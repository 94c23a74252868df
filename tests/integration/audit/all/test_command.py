"""``sidecar audit all``: one page, exit codes, errors with their fix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sidecar.cli import main
from tests.audit.evidence import lawful
from tests.audit.verify.evidence import chained_again
from tests.integration.audit.chains.test_command import files

pytestmark = pytest.mark.integration

ENTRY = {
    "id": "e1",
    "spiffe_id": {"trust_domain": "acme.example", "path": "/agent/planner"},
    "parent_id": {"trust_domain": "acme.example", "path": "/spire/agent/k8s_psat/prod/node-1"},
    "selectors": [
        {"type": "k8s", "value": "ns:agents"},
        {"type": "k8s", "value": "sa:planner"},
        {"type": "k8s", "value": "container-name:sidecar"},
        {"type": "k8s", "value": "container-image:registry.acme.example/sidecar@sha256:" + "5a" * 32},
    ],
    "x509_svid_ttl": 3600,
    "jwt_svid_ttl": 300,
}


def test_the_sample_is_written_audited_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "all", "--sample"]) == 1
    said = capsys.readouterr().out
    shutil.rmtree(said.partition("Audit of ")[2].partition(":")[0])
    for part in (
        "3  static credentials",
        "1  agents that impersonate",
        "2  weak entries",
        "3 to 1  machine",
        "Do first",
    ):
        assert part in said
    assert "sidecar audit chains" in said


def test_nothing_found_in_a_folder_without_evidence_is_not_told_as_all_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("nothing\n")
    assert main(["audit", "all", "--json", str(tmp_path)]) == 3
    document = json.loads(capsys.readouterr().out)
    assert [number["value"] for number in document["numbers"]] == [0, None, None, None, None]
    assert document["outcome"] == "cannot_tell"
    assert main(["audit", "all", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "Nothing was found, but 4 of 5 numbers are not known: this does not mean that all is well." in said


def test_impersonation_that_cannot_be_told_is_no_success_and_the_same_folder_with_an_answer_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in files(folder, lawful()):
        file = Path(name)
        file.write_bytes(b"".join(line + b"\n" for line in chained_again(file.read_bytes().splitlines())))
    (folder / "entries.json").write_text(json.dumps({"entries": [ENTRY]}))
    (folder / "access.log").write_text(
        '10.0.7.1 - alice [24/Nov/2026:21:04:10 +0000] "GET /customers/1 HTTP/1.1" 200 512 "-" "curl/8"\n' * 3
    )
    assert main(["audit", "all", str(folder)]) == 3
    said = capsys.readouterr().out
    assert "-  agents that impersonate" in said
    assert "Nothing was found, but 1 of 5 numbers is not known" in said
    (folder / "access.log").unlink()
    assert main(["audit", "all", str(folder)]) == 0
    assert "Nothing was found.\n" in capsys.readouterr().out
    stream = folder / "0.records"
    stream.write_bytes(stream.read_bytes().replace(b'"reason":"ok"', b'"reason":"ko"', 1))
    assert main(["audit", "all", str(folder)]) == 1
    assert "compare with another copy of the records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a folder, or --sample"),
        (["--sample", "a", "b"], "--sample takes one folder at most"),
        (["/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_used_is_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "all", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_sample_is_written_to_a_folder_that_is_named_and_over_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "acme"
    assert main(["audit", "all", "--sample", str(folder)]) == 1
    assert f"sidecar audit verify --keys {folder}/jwks.json {folder}/records/*.jsonl" in capsys.readouterr().out
    assert main(["audit", "verify", "--countersigned", "--keys", f"{folder}/jwks.json", f"{folder}/records"]) == 0
    capsys.readouterr()  # what `verify` printed
    assert main(["audit", "all", "--json", str(folder)]) == 1
    actions = json.loads(capsys.readouterr().out)["actions"]
    assert actions
    assert all(action["fix"] == action["cure"] != "" for action in actions)
    before = (folder / "jwks.json").read_bytes()
    assert main(["audit", "all", "--sample", str(folder)]) == 2
    assert "acme: is not empty; name a new folder for the sample" in capsys.readouterr().err
    assert (folder / "jwks.json").read_bytes() == before
