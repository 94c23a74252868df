import os
from pathlib import Path

import pytest

from delegation_audit.selectors import files
from delegation_audit.selectors.files import read_texts
from delegation_core.records import folders


def names(folder: Path) -> list[str]:
    return [str(Path(one.file).relative_to(folder)) for one in read_texts([str(folder)])]


def test_a_folder_gives_its_documents_that_mention_spiffe(tmp_path: Path) -> None:
    for name in ("b.yaml", "a/x.json", "a/y.jsonl", "c.YML", ".git/x.json", "node_modules/p/x.json", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("spiffe_id: x")
    (tmp_path / "e.yaml").write_text("replicas: 1")
    assert names(tmp_path) == ["b.yaml", "c.YML", "a/x.json", "a/y.jsonl"]


def test_a_link_a_loop_and_a_pipe_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("spiffe_id: x")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.yaml").write_text("spiffe_id: y")
    (tmp_path / "inside" / "b.yaml").write_text("spiffe_id: x")
    (tmp_path / "inside" / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    (tmp_path / "inside" / "dangling.yaml").symlink_to(tmp_path / "absent")
    assert names(tmp_path / "inside") == ["b.yaml"]
    (linked,) = read_texts([str(tmp_path / "inside" / "link.yaml")])  # a link that is named is meant
    assert linked.content == "spiffe_id: y"
    (tmp_path / "outside.yaml").unlink()
    (tmp_path / "inside" / "b.yaml").unlink()
    assert names(tmp_path) == ["a.yaml"]


def test_a_named_pipe_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: larger than"):
        list(read_texts([str(tmp_path / "pipe")]))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x1f\x8b\x08\x00"])
def test_a_named_file_that_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(OSError, match="a: not UTF-8 text"):
        list(read_texts([str(tmp_path / "a")]))


def test_limits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("spiffe")
    (tmp_path / "b.yaml").write_text("spiffe")
    monkeypatch.setattr(folders, "MAX_FILES", 1)
    with pytest.raises(OSError, match="more than 1 files; name the folders that matter"):
        list(read_texts([str(tmp_path)]))
    monkeypatch.setattr(files, "MAX_BYTES", 5)
    with pytest.raises(OSError, match=r"a\.yaml: larger than"):
        list(read_texts([str(tmp_path / "a.yaml")]))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(OSError, match="absent"):
        list(read_texts(["absent"]))


def test_a_template_of_a_chart_is_marked(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.yaml").write_text("{{ if spiffe }}")
    (tmp_path / "b.yaml").write_text("{{ if spiffe }}")
    assert {Path(one.file).name: one.is_template for one in read_texts([str(tmp_path)])} == {
        "a.yaml": True,
        "b.yaml": False,
    }
