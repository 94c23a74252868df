"""``sidecar audit report``: a page from record files, with filters, integrity and evidence; errors with their fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from delegation_audit.all.sample import write_sample
from delegation_audit.chains.choice import Choice
from delegation_audit.report.command import report_of
from delegation_core.records.folders import record_files
from sidecar.cli import main
from tests.audit.report.test_page import Read

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder / "records"


def test_the_page_answers_who_for_whom_what_and_what_was_refused(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report.html"
    assert main(["audit", "report", "-o", str(output), str(records)]) == 1
    assert "3 of 3 chains, broken: 1, 2 findings, from 40 records" in capsys.readouterr().out
    words = Read(output.read_text()).words
    assert words.index("bob") < words.index("carol") < words.index("alice")  # the worst evidence comes first
    assert "the callee has no record of it" in words
    assert "refused 403 insufficient_scope" in words
    assert "signature not checked (no --keys)" in words
    assert main(["audit", "report", "-o", str(output), "--keys", f"{records.parent}/jwks.json", str(records)]) == 1
    words = Read(output.read_text()).words
    assert "countersigned up to record 7 of 8." in words
    assert "not checked" not in words


def test_filters_choose_the_chain_and_are_told(records: Path, tmp_path: Path) -> None:
    output = tmp_path / "alice.html"
    assert main(["audit", "report", "-o", str(output), "--subject", "alice", "--title", "Case 7", str(records)]) == 0
    words = Read(output.read_text()).words
    assert "Case 7" in words
    assert "chosen by subject alice" in words
    assert "carol" not in words


def test_each_hop_has_its_evidence_with_the_hash_of_its_line(records: Path) -> None:
    report, findings = report_of(record_files([str(records)]), Choice(subject="alice"))
    assert findings == 0
    assert len(report.evidence) == 9
    assert {one.place.rpartition("/")[2].partition(":")[0] for one in report.evidence} == {
        "front.jsonl", "planner.jsonl", "writer.jsonl", "crm.jsonl", "sts.jsonl"
    }  # fmt: skip


def test_a_changed_line_is_told_where_the_reader_looks_for_proof(records: Path, tmp_path: Path) -> None:
    copy = tmp_path / "crm.jsonl"
    text = (records / "crm.jsonl").read_text()
    assert text.count('"alice"')
    copy.write_text(text.replace('"alice"', '"mallory"'))
    report, _ = report_of([str(copy)], Choice())
    assert any(sentence.startswith("changed: record 2") for sentence in report.integrity)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/nowhere"], "/nowhere: No such file, folder or pattern"),
        (["--ignore", "nothing"], "nothing is not a kind of finding"),
        (["--keys", "EMPTY"], "no usable key"),
    ],
)
def test_what_cannot_be_used_is_named(
    records: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").write_text('{"keys":[]}')
    words = [str(tmp_path / word) if word == "EMPTY" else word for word in words]
    output = tmp_path / "r.html"
    assert main(["audit", "report", "-o", str(output), str(records), *words]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_a_page_of_nothing_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.jsonl").write_text("nothing\n")
    assert main(["audit", "report", "-o", str(tmp_path / "r.html"), str(tmp_path / "r.jsonl")]) == 2
    assert "no line is a record" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_the_page_never_overwrites_its_evidence(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence, link, page = tmp_path / "r.jsonl", tmp_path / "link.html", tmp_path / "page.html"
    evidence.write_bytes(before := next(records.iterdir()).read_bytes())
    link.symlink_to(evidence)
    for output in (evidence, link):
        assert main(["audit", "report", "-o", str(output), str(evidence)]) == 2
        assert "would be overwritten; name another file" in capsys.readouterr().err
    page.write_text("an earlier page")
    assert main(["audit", "report", "-o", str(page), str(evidence)]) != 2
    assert evidence.read_bytes() == before
    assert "<html" in page.read_text()
