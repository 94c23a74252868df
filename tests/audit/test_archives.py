"""A tar given as records is refused by each command that reads them: its headers would be read as parts of lines."""

from __future__ import annotations

import gzip
import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from delegation_audit.all.find import find
from delegation_audit.attribution.elements import read_elements
from delegation_audit.chains.inputs import plain_files
from delegation_audit.credentials import command
from delegation_core.records.folders import ARCHIVES
from delegation_core.records.log_lines import read_lines
from delegation_core.records.unpacking import ArchiveError, Rewound, is_tar
from sidecar.cli import main
from tests.fakes.detector import FakeDetector

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDED: Final = Path(__file__).parent / "recorded"
FORMS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "records.tar": bytes,
    "records.jsonl": bytes,  # known by its content
    "records.tar.gz": gzip.compress,
    "records.tgz": gzip.compress,
    "records.json.gz": gzip.compress,
    "records.tar.zst": zstd.compress,
    "records.tzst": zstd.compress,
}
SETTINGS: Final = str(RECORDED / "writer.yaml")
COMMANDS: Final = {
    "explain": ("explain", "FILE"),
    "sts explain": ("sts", "explain", "FILE", "--settings", "STS"),
    "audit attribution": ("audit", "attribution", "FILE"),
    "audit chains": ("audit", "chains", "FILE"),
    "audit report": ("audit", "report", "FILE", "-o", "PAGE"),
    "audit ratio": ("audit", "ratio", "FILE"),
    "audit export": ("audit", "export", "--as", "ecs", "FILE"),
    "audit verify": ("audit", "verify", "FILE"),
    "audit selectors": ("audit", "selectors", "--records", "FILE", "--", "ENTRIES"),
    "audit suggest": ("audit", "suggest", "FILE"),
    "audit replay": ("audit", "replay", "FILE", "--settings", SETTINGS),
}
OTHERS: Final = {"audit all", "audit credentials"}  # they go on to other files, and count an archive as not read


def tar_of(form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of the recorded files."""
    with io.BytesIO() as content:
        with tarfile.open(fileobj=content, mode="w", format=form) as archive:
            for name in ("crm.records", "writer.records"):
                archive.add(RECORDED / name, name)
        return content.getvalue()


def test_each_command_that_reads_records_is_in_the_table() -> None:
    pages = re.findall(r"^## `sidecar (.+)`$", Path("docs/cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {page for page in pages if page.startswith("audit ") or page.endswith("explain")} == COMMANDS.keys() | OTHERS


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("reader", COMMANDS)
def test_a_tar_is_refused_with_the_fix(
    reader: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.write_bytes(FORMS[name](tar_of()))
    words = {"FILE": str(file), "PAGE": str(tmp_path / "page.html"), "ENTRIES": SETTINGS, "STS": "config/sts.yaml"}
    assert main([words.get(word, word) for word in COMMANDS[reader]]) == 2
    assert f"{file}: is an archive; unpack it and name the folder" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def zip_of() -> bytes:
    """Return a zip of one text file."""
    with io.BytesIO() as content:
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("app.env", "GREETING=hello\n")
        return content.getvalue()


ARCHIVED: Final[dict[str, bytes]] = {
    **{name: pack(tar_of()) for name, pack in FORMS.items()},
    "config.zip": zip_of(),
    "zip-by-content.dat": zip_of(),
    "wheel.whl": zip_of(),
    "old.tar.xz": b"\xfd7zXZ\x00",
    "UPPER.ZIP": zip_of(),
}


@pytest.mark.parametrize("name", ARCHIVED)
def test_an_archive_is_not_read_by_the_audit_of_credentials_which_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Kingfisher", FakeDetector)
    file = tmp_path / name
    file.write_bytes(ARCHIVED[name])
    assert main(["audit", "credentials", str(file)]) == 2
    assert "no text file found, but 1 archive: unpack it, and name the folder" in capsys.readouterr().err
    (tmp_path / "app.env").write_text("GREETING=hello\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "data").write_bytes(b"\0\1")
    (tmp_path / "dump.sql.gz").write_bytes(gzip.compress(b"text"))
    assert main(["audit", "credentials", str(tmp_path)]) == 0
    assert "Not read: archives: unpack them (1); binary (3)" in capsys.readouterr().out


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_standard_input_may_be_no_tar_either(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(tar_of(form))))
    with pytest.raises(ArchiveError, match=r"^-: is an archive"):
        list(read_lines(["-"]))


def test_the_words_of_a_caller_make_no_archive() -> None:
    """A path in a record may hold the magic, at any offset; JSON writes its NUL in another way."""
    assert not any(is_tar(b"{" + b"x" * shift + b"ustar  \\u0000" * 99) for shift in range(11))
    assert not is_tar(tar_of()[:260])
    assert is_tar(tar_of()[:512])


@pytest.mark.parametrize("head", [0, 1, 4, 5, 11])
@pytest.mark.parametrize("size", [1, 4, 5, 11, 99])
def test_a_stream_whose_beginning_was_read_is_as_it_was_before(head: int, size: int) -> None:
    content = b"line\nother"
    whole, stream = io.BytesIO(content), io.BytesIO(content)
    rewound = Rewound(stream.read(head), stream)
    assert list(iter(lambda: rewound.read(size), b"")) == list(iter(lambda: whole.read(size), b""))
    whole, stream = io.BytesIO(content), io.BytesIO(content)
    lines = Rewound(stream.read(head), stream)
    assert list(iter(lambda: lines.readline(size), b"")) == list(iter(lambda: whole.readline(size), b""))


def test_a_tar_in_a_folder_is_left_out_of_logs_and_counted_by_the_audit_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records.tar.gz").write_bytes(gzip.compress(tar_of()))
    (tmp_path / "crm.records").write_bytes((RECORDED / "crm.records").read_bytes())
    assert {one.file for one in read_elements([str(tmp_path)])} == {str(tmp_path / "crm.records")}
    found = find([str(tmp_path)])
    assert (found.records, found.skipped[ARCHIVES]) == ([str(tmp_path / "crm.records")], 1)
    main(["audit", "all", str(tmp_path)])
    assert "not examined: 1 archives: unpack them" in capsys.readouterr().out


def test_the_database_reads_no_archive_by_itself(tmp_path: Path) -> None:
    lawful, archive = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    lawful.write_bytes((RECORDED / "crm.records").read_bytes() * 20)
    archive.write_bytes(tar_of() * 20)
    assert min(lawful.stat().st_size, archive.stat().st_size) > 1 << 16
    assert plain_files([str(lawful), str(archive)]) == [str(lawful)]
