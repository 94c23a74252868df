import gzip
import json
from pathlib import Path

import pytest

from delegation_audit.attribution.elements import Document, Element, read_elements
from delegation_audit.attribution.splitting import Ambiguous
from delegation_core.records import folders


def read(tmp_path: Path, text: str | bytes, name: str = "log") -> list[Element]:
    file = tmp_path / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_elements([str(file)]))


def contents(elements: list[Element]) -> list[object]:
    return [element.content for element in elements]


def test_lines_are_entries(tmp_path: Path) -> None:
    found = read(tmp_path, '[2026-11-28T10:00:00Z] "GET"\n\n{"a":"b"}\nend')
    assert contents(found) == [b'[2026-11-28T10:00:00Z] "GET"', b'{"a":"b"}', b"end"]
    assert [element.place for element in found] == [f"{tmp_path}/log:{number}" for number in (1, 3, 4)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('[{"a":"1"},{"a":"2"}]', id="an-array"),
        pytest.param('[\n  {"a": "1"},\n  {"a": "2"}\n]\n', id="an-array-over-lines"),
        pytest.param('{"Records":[{"a":"1"},{"a":"2"}]', id="records-whose-end-is-missing"),
        pytest.param('{\n"@odata.context":"x","value":[{"a":"1"},\n{"a":"2"}],"n":null}', id="a-value-after-others"),
        pytest.param('{\n "a": "1"\n}\n{\n "a": "2"\n}\n', id="objects-one-after-the-other"),
    ],
)
def test_a_document_gives_its_objects(tmp_path: Path, text: str) -> None:
    found = [content for content in contents(read(tmp_path, text)) if content is not None]
    assert found == [{"a": "1"}, {"a": "2"}]


def test_an_object_of_a_document_is_placed(tmp_path: Path) -> None:
    found = read(tmp_path, '[\n{"a":1},\n{"a":2}]')
    assert found[1].place == f"{tmp_path}/log:3, item 2"


def test_a_large_document_passes_in_pieces(tmp_path: Path) -> None:
    text = json.dumps({"Records": [{"n": str(number), "pad": "é" * 200} for number in range(3000)]})
    found = read(tmp_path, gzip.compress(text.encode()), "trail.json.gz")
    assert [one["n"] for one in contents(found) if isinstance(one, dict)] == [str(number) for number in range(3000)]


def test_a_long_first_line_that_is_one_object_stays_a_line(tmp_path: Path) -> None:
    first, second = json.dumps({"a": "x" * 200_000}), '{"a":"y"}'
    found = read(tmp_path, f"{first}\n{second}\n")
    assert [one["a"][:1] for one in map(_members, contents(found))] == ["x", "y"]


def _members(content: object) -> dict[str, str]:
    return json.loads(content) if isinstance(content, bytes) else dict(content)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param('[{"a":1},\n{"a":,}\n,{"a":3}]', 2, id="in-the-middle"),
        pytest.param('[{"a":1},{"a":', 1, id="at-the-end"),
        pytest.param('{"a":1,\n', 0, id="an-object-without-its-end"),
        pytest.param('[{"a":1},\n"text",\n{"a":3}]', 2, id="no-object"),
    ],
)
def test_what_is_broken_is_an_entry_without_content(tmp_path: Path, text: str, kept: int) -> None:
    found = read(tmp_path, text)
    assert sum(one.content is not None for one in found) == kept
    assert None in contents(found)


def test_an_object_larger_than_a_megabyte_is_skipped(tmp_path: Path) -> None:
    found = read(tmp_path, json.dumps([{"a": "x" * 3_000_000}]) + '\n[{"a":"y"}]')
    assert contents(found) == [None, {"a": "y"}]


def test_a_member_twice_is_remembered(tmp_path: Path) -> None:
    (found,) = read(tmp_path, '{\n"act":"a","act":"b"}')
    assert isinstance(found.content, Ambiguous)


def test_an_empty_file_has_no_entries(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []
    assert read(tmp_path, "[]") == []


def test_a_folder_gives_its_files_without_binaries_hidden_and_linked_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("b/two.log", b"2"), ("a.log", b"1"), (".hidden", b"x"), (".git/c", b"x"), ("d.bin", b"\0x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.log").symlink_to(tmp_path / "a.log")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert contents(list(read_elements([str(tmp_path)]))) == [b"1", b"2"]
    assert contents(list(read_elements([str(tmp_path / "d.bin")]))) == [b"\0x"]
    monkeypatch.setattr(folders, "MAX_FILES", 1)
    with pytest.raises(OSError, match="more than 1 files; name the folders that matter"):
        list(read_elements([str(tmp_path)]))


def test_text_between_the_objects_of_a_document_stays_text(tmp_path: Path) -> None:
    found = read(tmp_path, '{\n "a": "1"\n}\n[2026-11-28T10:00:00Z] "GET"\n10.0.0.1 - alice\n[{"a":"2"}]\nend')
    assert contents(found) == [{"a": "1"}, b'[2026-11-28T10:00:00Z] "GET"', b"10.0.0.1 - alice", {"a": "2"}, b"end"]
    assert [element.line for element in found] == [1, 4, 5, 6, 7]
    long = read(tmp_path, '{\n "a": "1"\n}\n' + "x" * 3_000_000 + "\nend")
    assert contents(long) == [{"a": "1"}, None, b"end"]


class Endless:
    """A stream of one array that never holds its objects at once."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    def read(self, size: int, /) -> bytes:
        self.pieces -= 1
        return b'{"a":"x"},' * 100 if self.pieces >= 0 else b""

    def readline(self, size: int, /) -> bytes:
        raise AssertionError


def test_a_document_of_any_size_takes_the_memory_of_an_object() -> None:
    document = Document("log", Endless(200))
    document._text = "["
    longest = max(len(document._text) for _ in document.entries())
    assert longest < 2000
