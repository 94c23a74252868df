import gzip
import io
import sys
from pathlib import Path

import pytest

from delegation_core.records.log_lines import MAX_LINE_BYTES, read_lines

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def test_lines_of_all_files_come_with_their_places(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a\r\n\n  \nb")
    two.write_bytes(b"c\n")
    lines = list(read_lines([str(one), str(two)]))
    assert [(line.place, line.content) for line in lines] == [
        (f"{one}:1", b"a"),
        (f"{one}:4", b"b"),
        (f"{two}:1", b"c"),
    ]


def test_a_compressed_file_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "log.gz"
    file.write_bytes(gzip.compress(b"a\nb\n"))
    assert [line.content for line in read_lines([str(file)])] == [b"a", b"b"]


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\n")))
    assert [line.place for line in read_lines(["-"])] == ["-:1"]


def test_a_line_beyond_the_limit_is_told_without_being_held_and_the_next_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * MAX_LINE_BYTES + b"\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n" + b"x" * MAX_LINE_BYTES)
    lengths = [None if line.content is None else len(line.content) for line in read_lines([str(file)])]
    assert lengths == [None, None, 1, MAX_LINE_BYTES]


WHOLE = gzip.compress(b"".join(b"line %d\n" % number for number in range(1000)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("absent", None, id="absent"),
        pytest.param("cut.gz", WHOLE[:-12], id="compressed-and-cut"),
        pytest.param("cut.gz", WHOLE[:5], id="compressed-and-cut-in-its-head"),
        pytest.param("broken.gz", WHOLE[:12] + bytes(20) + WHOLE[32:], id="compressed-and-broken"),
        pytest.param("sum.gz", WHOLE[:-8] + bytes(8), id="compressed-with-another-sum"),
        pytest.param("plain.gz", b"a\nb\n", id="not-compressed"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=name):
        list(read_lines([str(tmp_path / name)]))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "lines", "expected"),
    [
        pytest.param(Terminal(), 9000, True, id="long-input-on-a-terminal"),
        pytest.param(Terminal(), 90, False, id="short-input"),
        pytest.param(io.StringIO(), 9000, False, id="a-pipe"),
    ],
)
def test_progress_is_for_whoever_watches_long_work(
    stream: io.StringIO, lines: int, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log"
    file.write_bytes((b"0123456789abcdef" * 64 + b"\n") * lines)
    monkeypatch.setattr("sys.stderr", stream)
    assert sum(1 for _ in read_lines([str(file)])) == lines
    assert ("reading" in stream.getvalue()) is expected


def test_long_input_is_read_without_rich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, terminal = tmp_path / "log", Terminal()
    file.write_bytes((b"0123456789abcdef" * 64 + b"\n") * 9000)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert sum(1 for _ in read_lines([str(file)])) == 9000
    assert terminal.getvalue() == ""


def test_a_file_compressed_with_zstandard_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "log.zst"
    file.write_bytes(zstd.compress(b"a\nb\n"))
    assert [line.content for line in read_lines([str(file)])] == [b"a", b"b"]


@pytest.mark.parametrize("content", [zstd.compress(b"line\n" * 1000)[:-6], b"plain\n"], ids=["cut", "plain"])
def test_one_that_is_broken_is_an_error_that_names_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.zst").write_bytes(content)
    with pytest.raises(OSError, match=r"log\.zst"):
        list(read_lines([str(tmp_path / "log.zst")]))


def test_without_the_library_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("backports.zstd", raising=False)
    (tmp_path / "log.zst").write_bytes(b"")
    with pytest.raises(OSError, match=r"pip install \./core \./audit"):
        list(read_lines([str(tmp_path / "log.zst")]))


def test_a_folder_is_refused_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a folder; name its files, as in .*/\*\.jsonl"):
        list(read_lines([f"{tmp_path}/"]))


def test_an_absent_file_is_named_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as error:
        list(read_lines([f"{tmp_path}/absent.log"]))
    assert str(error.value) == f"{tmp_path}/absent.log: No such file"
